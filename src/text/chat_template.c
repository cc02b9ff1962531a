/* chat_template.c - renders the chat templates whose text is one of `known`;
 * any other is refused. Two templates are the same when they differ only in
 * white space that Jinja does not print, under transformers' settings
 * (trim_blocks, lstrip_blocks, one final newline dropped), in the kind of
 * quotes, or in a line end written plainly inside a string.
 * Includes base only. Source: jinja2 lexer.py; spec/text.md 4. */
#include <stdlib.h>

#include "text/text_i.h"

/* Stands for the default system message, which may be any text that a Jinja
 * string holds without escapes. */
#define HOLE "\001"

#define CHATML_MESSAGE                                                         \
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "      \
    "'<|im_end|>' + '\\n' }}"
#define CHATML_MESSAGE_SHORT                                                   \
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "      \
    "'<|im_end|>\\n' }}"
#define CHATML_PROMPT                                                          \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif "  \
    "%}"
#define CHATML_DEFAULT                                                         \
    "{% if loop.first and messages[0]['role'] != 'system' %}"                  \
    "{{ '<|im_start|>system\\n" HOLE "<|im_end|>\\n' }}{% endif %}"
#define NO_PROMPT_UNLESS_ASKED                                                 \
    "{% if not add_generation_prompt is defined %}"                            \
    "{% set add_generation_prompt = false %}{% endif %}"
#define EACH     "{% for message in messages %}"
#define END_EACH "{% endfor %}"
#define LLAMA3_MESSAGES                                                        \
    "{% set loop_messages = messages %}{% for message in loop_messages %}"     \
    "{% set content = '<|start_header_id|>' + message['role'] + "              \
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}"  \
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"         \
    "{% endif %}{{ content }}{% endfor %}"
#define LLAMA3_PROMPT                                                          \
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"

typedef struct chat_form {
    const char *text;
    enum { CHATML, LLAMA3 } form;
    bool always_prompt; /* add_generation_prompt is not looked at */
} chat_form;

static const chat_form known[] = {
    {EACH CHATML_MESSAGE END_EACH CHATML_PROMPT, CHATML, false},
    {EACH CHATML_MESSAGE_SHORT END_EACH CHATML_PROMPT, CHATML, false},
    {NO_PROMPT_UNLESS_ASKED EACH CHATML_MESSAGE END_EACH CHATML_PROMPT, CHATML,
     false},
    {NO_PROMPT_UNLESS_ASKED EACH CHATML_MESSAGE_SHORT END_EACH CHATML_PROMPT,
     CHATML, false},
    {EACH CHATML_DEFAULT CHATML_MESSAGE END_EACH CHATML_PROMPT, CHATML, false},
    {EACH CHATML_DEFAULT CHATML_MESSAGE_SHORT END_EACH CHATML_PROMPT, CHATML,
     false},
    {LLAMA3_MESSAGES "{% if add_generation_prompt %}" LLAMA3_PROMPT
                     "{% endif %}",
     LLAMA3, false},
    {LLAMA3_MESSAGES LLAMA3_PROMPT, LLAMA3, true},
};

/* ---- templates without their silent white space ------------------------ */

/* Python's str.isspace, which strip() and \s use. */
static bool is_python_space(uint32_t c)
{
    return text_is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

static size_t space_after(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t c;
        size_t step = (size_t)text_utf8_next(s + i, &c);
        if (!is_python_space(c))
            break;
        i += step;
    }
    return i;
}

static size_t without_space_before(const char *s, size_t n)
{
    while (n > 0) {
        uint32_t c;
        size_t step = (size_t)text_utf8_before(s, n, &c);
        if (!is_python_space(c))
            break;
        n -= step;
    }
    return n;
}

static bool is_name(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

/* Without the space between them, the two would read as one token. */
static bool would_join(int a, int b)
{
    static const char operators[] = "=!<>*/|+-%~.";
    if (!a || !b)
        return false;
    return (is_name(a) && is_name(b)) ||
           (strchr(operators, a) && strchr(operators, b));
}

/* A Jinja string with its quotes: "x" is 'x', and a line end is \n. */
static void add_string(const char *s, size_t n, base_str *out)
{
    bool single = s[0] == '"' && !memchr(s, '\'', n);
    for (size_t i = 0; i < n; i++) {
        if (single && (i == 0 || i + 1 == n))
            base_str_add(out, "'", 1);
        else if (s[i] == '\n')
            base_str_add(out, "\\n", 2);
        else
            base_str_add(out, s + i, 1);
    }
}

/* Appends the inside of a tag; returns its length up to the end mark ("%}" or
 * "}}"), or SIZE_MAX when it has none. */
static size_t add_tag(const char *s, size_t n, const char *mark, base_str *out)
{
    int before = 0;
    bool space = false;
    for (size_t i = 0; i < n;) {
        size_t blank = space_after(s + i, n - i);
        space = space || blank > 0;
        i += blank;
        if (i >= n)
            break;
        if (n - i >= 2 && memcmp(s + i, mark, 2) == 0)
            return i;
        if (s[i] == '-' && n - i >= 3 && memcmp(s + i + 1, mark, 2) == 0)
            return i;
        if (s[i] == '{' || s[i] == '}')
            return SIZE_MAX; /* a dict, or a mark torn apart: not ours */
        if (space && would_join(before, (unsigned char)s[i]))
            base_str_add(out, " ", 1);
        space = false;
        size_t length = 1;
        if (s[i] == '\'' || s[i] == '"') {
            while (i + length < n && s[i + length] != s[i])
                length += s[i + length] == '\\' && i + length + 1 < n ? 2 : 1;
            if (i + length >= n)
                return SIZE_MAX;
            length++;
        }
        before = (unsigned char)s[i + length - 1];
        if (length > 1)
            add_string(s + i, length, out);
        else
            base_str_add(out, s + i, 1);
        i += length;
    }
    return SIZE_MAX;
}

/* CR LF and CR are LF, and one LF at the end is dropped. */
static void add_lines(const char *s, size_t n, base_str *out)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n')
            continue;
        base_str_add(out, s[i] == '\r' ? "\n" : s + i, 1);
    }
    if (out->len && out->s[out->len - 1] == '\n')
        out->s[--out->len] = '\0';
}

/* Length of the text before a tag at s[n] that is printed. */
static size_t printed_before(const char *s, size_t n, bool block, bool strip,
                             bool line_starting)
{
    size_t line = n;
    if (strip)
        return without_space_before(s, n);
    if (!block)
        return n;
    while (line > 0 && s[line - 1] != '\n')
        line--;
    if ((line > 0 || line_starting) &&
        space_after(s + line, n - line) == n - line)
        return line;
    return n;
}

/* Returns false for what no known template has: comments, "+" marks, an
 * unfinished tag. */
static bool plain_form(const char *text, size_t n_text, base_str *out)
{
    base_str lines = {0};
    bool line_starting = true, good = true;
    size_t i = 0;
    base_str_puts(&lines, "");
    add_lines(text, n_text, &lines);
    const char *s = lines.s;
    while (good && !lines.failed && i < lines.len) {
        size_t tag = i;
        while (tag + 1 < lines.len &&
               !(s[tag] == '{' && strchr("{%#", s[tag + 1])))
            tag++;
        if (tag + 1 >= lines.len) {
            base_str_add(out, s + i, lines.len - i);
            break;
        }
        bool block = s[tag + 1] == '%';
        size_t body = tag + 2, inside;
        char sign = body < lines.len ? s[body] : 0;
        good = s[tag + 1] != '#' && sign != '+';
        base_str_add(
            out, s + i,
            printed_before(s + i, tag - i, block, sign == '-', line_starting));
        body += sign == '-';
        base_str_add(out, s + tag, 2);
        inside =
            good ? add_tag(s + body, lines.len - body, block ? "%}" : "}}", out)
                 : SIZE_MAX;
        if (inside == SIZE_MAX) {
            good = false;
            break;
        }
        good = inside == 0 || s[body + inside - 1] != '+';
        i = body + inside;
        bool strip = s[i] == '-';
        i += strip;
        base_str_add(out, s + i, 2);
        i += 2;
        if (strip)
            i += space_after(s + i, lines.len - i);
        else if (block && i < lines.len && s[i] == '\n')
            i++;
        line_starting = s[i - 1] == '\n';
    }
    out->failed = out->failed || lines.failed;
    base_str_free(&lines);
    return good;
}

/* Whether `form` equals `text` but for the hole, whose place in `text` is
 * *hole. */
static bool matches(const base_str *form, const base_str *text,
                    const char **hole, size_t *n_hole)
{
    const char *mark = memchr(form->s, HOLE[0], form->len);
    size_t head = mark ? (size_t)(mark - form->s) : form->len;
    size_t tail = mark ? form->len - head - 1 : 0;
    *hole = NULL;
    *n_hole = 0;
    if (!mark)
        return form->len == text->len &&
               memcmp(form->s, text->s, form->len) == 0;
    if (text->len < head + tail || memcmp(form->s, text->s, head) != 0 ||
        memcmp(mark + 1, text->s + text->len - tail, tail) != 0)
        return false;
    *hole = text->s + head;
    *n_hole = text->len - head - tail;
    for (size_t i = 0; i < *n_hole; i++)
        if (strchr("'\\\n", (*hole)[i]))
            return false;
    return true;
}

/* *form is NULL when the template is not known. *hole lies in *plain. */
static lori_status recognise(const char *text, base_str *plain,
                             const chat_form **form, const char **hole,
                             size_t *n_hole, lori_error *err)
{
    size_t n = strlen(text);
    *form = NULL;
    if (base_utf8_valid(text, n) != n)
        return LORI_OK;
    base_str_puts(plain, "");
    bool good = plain_form(text, n, plain);
    for (size_t k = 0; good && k < sizeof known / sizeof *known; k++) {
        base_str one = {0};
        base_str_puts(&one, "");
        plain_form(known[k].text, strlen(known[k].text), &one);
        if (plain->failed || one.failed) {
            base_str_free(&one);
            return base_no_memory(err, n);
        }
        if (matches(&one, plain, hole, n_hole))
            *form = &known[k];
        base_str_free(&one);
        if (*form)
            break;
    }
    return LORI_OK;
}

/* ---- rendering --------------------------------------------------------- */

static void render_chatml(const char *system, size_t n_system,
                          const text_message *messages, size_t n, bool prompt,
                          base_str *out)
{
    if (system && strcmp(messages[0].role, "system") != 0) {
        base_str_puts(out, "<|im_start|>system\n");
        base_str_add(out, system, n_system);
        base_str_puts(out, "<|im_end|>\n");
    }
    for (size_t i = 0; i < n; i++) {
        base_str_puts(out, "<|im_start|>");
        base_str_puts(out, messages[i].role);
        base_str_puts(out, "\n");
        base_str_puts(out, messages[i].content);
        base_str_puts(out, "<|im_end|>\n");
    }
    if (prompt)
        base_str_puts(out, "<|im_start|>assistant\n");
}

static void render_llama3(const chat_form *form, const char *bos,
                          const text_message *messages, size_t n, bool prompt,
                          base_str *out)
{
    base_str_puts(out, bos);
    for (size_t i = 0; i < n; i++) {
        const char *content = messages[i].content;
        size_t length = strlen(content), skip;
        skip = space_after(content, length);
        content += skip;
        length = without_space_before(content, length - skip);
        base_str_puts(out, "<|start_header_id|>");
        base_str_puts(out, messages[i].role);
        base_str_puts(out, "<|end_header_id|>\n\n");
        base_str_add(out, content, length);
        base_str_puts(out, "<|eot_id|>");
    }
    if (prompt || form->always_prompt)
        base_str_puts(out, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static lori_status check_messages(const text_message *messages, size_t n,
                                  lori_error *err)
{
    if (n == 0)
        return base_fail(err, LORI_INVALID, "a chat without messages");
    for (size_t i = 0; i < n; i++) {
        const char *part[2] = {messages[i].role, messages[i].content};
        for (int k = 0; k < 2; k++) {
            if (!part[k])
                return base_fail(err, LORI_INVALID, "chat message %zu: no %s",
                                 i, k ? "content" : "role");
            size_t length = strlen(part[k]);
            size_t valid = base_utf8_valid(part[k], length);
            if (valid != length)
                return base_fail(err, LORI_FORMAT,
                                 "chat message %zu: the %s is not UTF-8 at "
                                 "byte %zu",
                                 i, k ? "content" : "role", valid);
        }
    }
    return LORI_OK;
}

lori_status text_chat_render(const text_tokenizer *tok,
                             const text_message *messages, size_t n,
                             bool add_generation_prompt, base_str *out,
                             lori_error *err)
{
    const chat_form *form = NULL;
    const char *hole = NULL, *bos = text_token(tok, tok->bos);
    size_t n_hole = 0;
    base_str plain = {0};
    if (!tok->chat_template)
        return base_fail(err, LORI_NOT_FOUND,
                         "%s: no chat template beside it (chat_template.jinja "
                         "or tokenizer_config.json); use a raw prompt",
                         tok->file);
    BASE_TRY(check_messages(messages, n, err));
    lori_status st =
        recognise(tok->chat_template, &plain, &form, &hole, &n_hole, err);
    if (st == LORI_OK && !form)
        st = base_fail(err, LORI_UNSUPPORTED,
                       "%s: this chat template is none of the known ChatML "
                       "and Llama-3 templates; use a raw prompt",
                       tok->chat_file);
    if (st == LORI_OK && form->form == LLAMA3 && !bos)
        st = base_fail(err, LORI_NOT_FOUND,
                       "%s: the chat template needs a bos_token, and none is "
                       "set in tokenizer_config.json",
                       tok->chat_file);
    if (st == LORI_OK && form->form == LLAMA3)
        render_llama3(form, bos, messages, n, add_generation_prompt, out);
    else if (st == LORI_OK)
        render_chatml(hole, n_hole, messages, n, add_generation_prompt, out);
    base_str_free(&plain);
    if (st == LORI_OK && out->failed)
        st = base_no_memory(err, out->len);
    return st;
}
