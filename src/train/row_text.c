/* row_text.c - one dataset row becomes a prompt and a completion. Owns the
 * forms of rows and the prompt templates. Includes train_i.h and jansson.
 *
 * Forms, found from the first row:
 *   input_ids, labels             tokens as they are
 *   instruction, (input,) output  the Alpaca prompt
 *   prompt, completion            as they are
 *   question, answer              prompt = question and a line feed
 * `columns` names the fields instead; `prompt_template` replaces the prompt.
 * As a message of a chat a prompt has no frame of its own.
 * Source of the Alpaca prompt: tatsu-lab/stanford_alpaca, README. */
#include "format/format.h"
#include "train/train_i.h"

static const char alpaca[] =
    "Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n{instruction}"
    "\n\n### Response:\n";
static const char alpaca_input[] =
    "Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}"
    "\n\n### Response:\n";

static const char alpaca_words[] = "{instruction}";
static const char alpaca_words_input[] = "{instruction}\n\n{input}";

void rows_fields(const json_t *row, base_str *out)
{
    const char *sep = "";
    const char *key;
    json_t *value;
    if (json_object_size(row) == 0)
        base_str_puts(out, "nothing");
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        base_str_printf(out, "%s%s", sep, key);
        sep = ", ";
    }
}

const char *rows_check_columns(const train_columns *c, const char *template_)
{
    bool plain = c->prompt || c->completion;
    bool alpaca_form = c->instruction || c->input || c->output;
    if (plain && alpaca_form)
        return "prompt and completion do not go with instruction, input and "
               "output";
    if (c->prompt && !c->completion)
        return "completion is missing beside prompt";
    if (c->completion && !c->prompt && !template_)
        return "prompt is missing beside completion (or a prompt_template)";
    return NULL;
}

/* The piece of a template at *p: text (*field false) or the name in braces.
 * False at the end, and on an error (*fact set). */
typedef struct piece {
    const char *s;
    size_t n;
    bool field;
} piece;

static bool next_piece(const char **p, piece *out, const char **fact)
{
    const char *s = *p;
    if (!*s)
        return false;
    *out = (piece){.s = s, .n = strcspn(s, "{}")};
    if (out->n) {
        *p = s + out->n;
        return true;
    }
    if (s[1] == s[0]) { /* {{ or }} */
        out->n = 1;
        *p = s + 2;
        return true;
    }
    const char *end = *s == '{' ? strchr(s, '}') : NULL;
    if (!end)
        *fact = *s == '{' ? "a '{' has no '}'; write {{ for a brace"
                          : "a '}' has no '{'; write }} for a brace";
    else if (end == s + 1)
        *fact = "{} names no field; write {{}} for braces";
    if (*fact)
        return false;
    *out = (piece){.s = s + 1, .n = (size_t)(end - s - 1), .field = true};
    *p = end + 1;
    return true;
}

const char *rows_check_template(const char *template_)
{
    const char *fact = NULL;
    piece part;
    while (template_ && next_piece(&template_, &part, &fact))
        ;
    return fact;
}

/* ---- fields --------------------------------------------------------- */

static void missing(const json_t *row, const char *place, const char *name,
                    diag *d)
{
    base_str has = {0};
    rows_fields(row, &has);
    diag_add(d, "%s: field '%s' is missing (row has: %s)", place, name,
             has.s ? has.s : "");
    base_str_free(&has);
}

/* A string field; absent is "" when `optional`. */
static bool text_field(const json_t *row, const char *name, bool optional,
                       const char *place, const char **s, size_t *n, diag *d)
{
    const json_t *v = json_object_get(row, name);
    *s = "";
    *n = 0;
    if (optional && (!v || json_is_null(v)))
        return true;
    if (!v) {
        missing(row, place, name, d);
        return false;
    }
    if (!json_is_string(v)) {
        diag_add(d, "%s: field '%s' is %s, a string is needed", place, name,
                 format_json_kind(v));
        return false;
    }
    *s = json_string_value(v);
    *n = json_string_length(v);
    return true;
}

/* ---- the form ------------------------------------------------------- */

static bool has(const json_t *row, const char *name)
{
    return json_object_get(row, name) != NULL;
}

static void alpaca_form(const train_data_options *o, rows_form *form)
{
    const train_columns *c = &o->columns;
    form->prompt = c->instruction ? c->instruction : "instruction";
    form->optional = c->input ? c->input : "input";
    form->completion = c->output ? c->output : "output";
    form->template_ = alpaca;
    form->template_with_optional = alpaca_input;
}

/* The form the first row shows; false when it shows none. */
static bool guess_form(const train_data_options *o, const json_t *row,
                       rows_form *form)
{
    const train_columns *c = &o->columns;
    if (c->instruction || c->input || c->output)
        alpaca_form(o, form);
    else if (c->completion) {
        form->prompt = c->prompt;
        form->completion = c->completion;
    } else if (has(row, "input_ids"))
        form->kind = ROWS_TOKENS;
    else if (has(row, "instruction") && has(row, "output"))
        alpaca_form(o, form);
    else if (has(row, "prompt") && has(row, "completion")) {
        form->prompt = "prompt";
        form->completion = "completion";
    } else if (has(row, "question") && has(row, "answer")) {
        form->prompt = "question";
        form->completion = "answer";
        form->template_ = "{question}\n";
    } else
        return false;
    return true;
}

/* The user's words alone: question, or instruction and input. */
static void chat_form(rows_form *form)
{
    form->template_ = form->optional ? alpaca_words : NULL;
    form->template_with_optional = form->optional ? alpaca_words_input : NULL;
}

/* A first row with part of a known form most likely lacks a field. */
static bool half_form(const json_t *row, const char *place, diag *d)
{
    static const char *const pairs[][2] = {{"instruction", "output"},
                                           {"prompt", "completion"},
                                           {"question", "answer"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int k = 0; k < 2; k++)
            if (has(row, pairs[i][k])) {
                missing(row, place, pairs[i][!k], d);
                return true;
            }
    return false;
}

bool rows_find_form(const train_data_options *o, const json_t *row,
                    const char *place, rows_form *form, diag *d)
{
    *form = (rows_form){0};
    const char *fact = rows_check_columns(&o->columns, o->prompt_template);
    if (!fact)
        fact = rows_check_template(o->prompt_template);
    if (fact) {
        diag_add(d, "%s: %s", place, fact);
        return false;
    }
    if (!guess_form(o, row, form)) {
        if (half_form(row, place, d))
            return false;
        base_str fields = {0};
        rows_fields(row, &fields);
        diag_add(d,
                 "%s: no known form of rows (row has: %s); known are "
                 "instruction/output, prompt/completion, question/answer and "
                 "input_ids/labels: set columns.prompt and columns.completion",
                 place, fields.s ? fields.s : "");
        base_str_free(&fields);
        return false;
    }
    if (o->apply_chat_template && form->kind != ROWS_TOKENS)
        chat_form(form); /* its frame replaces these forms' own */
    if (o->prompt_template) {
        form->template_ = o->prompt_template;
        form->template_with_optional = NULL;
    }
    form->known = true;
    return true;
}

/* ---- texts ---------------------------------------------------------- */

/* The Alpaca templates speak of {instruction} and {input} whatever the rows
 * call these fields. */
static const char *column_of(const rows_form *form, const char *name)
{
    if (form->template_ != alpaca && form->template_ != alpaca_words)
        return name;
    return strcmp(name, "instruction") == 0 ? form->prompt : form->optional;
}

static bool fill_template(const rows_form *form, const char *template_,
                          const json_t *row, const char *place, base_str *out,
                          diag *d)
{
    const char *fact = NULL;
    piece part;
    while (next_piece(&template_, &part, &fact)) {
        if (!part.field) {
            base_str_add(out, part.s, part.n);
            continue;
        }
        base_str name = {0};
        base_str_add(&name, part.s, part.n);
        if (name.failed)
            return out->failed = true, false;
        const char *column = column_of(form, name.s);
        bool optional = form->optional && !strcmp(column, form->optional);
        const char *s;
        size_t n;
        bool found = text_field(row, column, optional, place, &s, &n, d);
        base_str_free(&name);
        if (!found)
            return false;
        base_str_add(out, s, n);
    }
    return true;
}

bool rows_texts(const rows_form *form, const json_t *row, const char *place,
                base_str *prompt, const char **completion, size_t *n, diag *d)
{
    const char *template_ = form->template_;
    const char *s;
    size_t len;
    base_str_clear(prompt);
    if (form->template_with_optional) {
        if (!text_field(row, form->optional, true, place, &s, &len, d))
            return false;
        if (len)
            template_ = form->template_with_optional;
    }
    if (template_) {
        if (!fill_template(form, template_, row, place, prompt, d))
            return false;
    } else {
        if (!text_field(row, form->prompt, false, place, &s, &len, d))
            return false;
        base_str_add(prompt, s, len);
    }
    return text_field(row, form->completion, false, place, completion, n, d);
}
