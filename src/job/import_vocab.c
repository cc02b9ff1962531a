/* import_vocab.c - tokenizer files that are not tokenizer.json become one:
 * SentencePiece's tokenizer.model, Llama 3's tiktoken ranks of the same name,
 * Mistral's tekken.json. What the file does not say and cannot be known is
 * refused. Includes format, text.
 * Source: spec/gguf.md 5.3; spec/text.md 1.7; transformers 5.24's converters.
 */
#include "job/import_i.h"

#include <stdlib.h>

#define MAX_FILE   ((size_t)1 << 28)
#define MAX_TOKENS ((size_t)1 << 21)

static lori_status make_tokens(import_vocab *v, size_t n, lori_error *err)
{
    v->token = base_alloc(n, sizeof *v->token);
    v->n = n;
    for (size_t i = 0; v->token && i < n; i++)
        v->token[i].kind = IMPORT_UNUSED;
    v->bos = v->eos = v->unk = v->pad = -1;
    return v->token ? LORI_OK : base_no_memory(err, n * sizeof *v->token);
}

/* Token `id` with a text that is made here; its rank orders the merges. */
static lori_status set_token(import_vocab *v, size_t id, base_str *text,
                             int kind, size_t rank, lori_error *err)
{
    size_t n = text->len;
    char *s = text->failed ? NULL : base_str_take(text);
    if (!import_keep_text(v, s))
        return base_no_memory(err, n);
    v->token[id] =
        (import_token){.text = s, .n = n, .score = -(double)rank, .kind = kind};
    return LORI_OK;
}

static lori_status set_special(import_vocab *v, size_t id, const char *name,
                               lori_error *err)
{
    base_str text = {0};
    base_str_puts(&text, name);
    return set_token(v, id, &text, IMPORT_CONTROL, 0, err);
}

/* ---- base64 ------------------------------------------------------------ */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The bytes of s[0..n) in the byte alphabet; false when it is not base64. */
static bool spell_base64(const char *s, size_t n, base_str *out)
{
    uint32_t bits = 0;
    size_t data = n;
    while (data > 0 && n - data < 2 && s[data - 1] == '=')
        data--;
    if (n % 4 || data == 0)
        return false;
    for (size_t i = 0; i < data; i++) {
        int value = base64_value(s[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4) {
            char byte = (char)(bits >> (6 - 2 * (i % 4)) & 0xFF);
            text_spell_bytes(&byte, 1, out);
        }
    }
    return data % 4 != 1;
}

/* ---- tiktoken ---------------------------------------------------------- */

/* Llama 3's tokens after its ranks; the rest of 256 is reserved. */
static const char *const llama3_tokens[] = {"<|begin_of_text|>",
                                            "<|end_of_text|>",
                                            "<|reserved_special_token_0|>",
                                            "<|reserved_special_token_1|>",
                                            "<|finetune_right_pad_id|>",
                                            "<|reserved_special_token_2|>",
                                            "<|start_header_id|>",
                                            "<|end_header_id|>",
                                            "<|eom_id|>",
                                            "<|eot_id|>",
                                            "<|python_tag|>"};
enum {
    LLAMA3_RANKS = 128000,
    LLAMA3_SPECIAL = 256,
    LLAMA3_NAMED = sizeof llama3_tokens / sizeof *llama3_tokens
};

static lori_status add_llama3_tokens(import_vocab *v, lori_error *err)
{
    for (int i = 0; i < LLAMA3_SPECIAL; i++) {
        char name[64];
        snprintf(name, sizeof name, "<|reserved_special_token_%d|>",
                 i - LLAMA3_NAMED + 3);
        BASE_TRY(set_special(v, (size_t)(LLAMA3_RANKS + i),
                             i < LLAMA3_NAMED ? llama3_tokens[i] : name, err));
    }
    v->bos = LLAMA3_RANKS;
    v->eos = LLAMA3_RANKS + 1;
    v->add_bos = true;
    return LORI_OK;
}

/* "base64 rank"; lines come in the order of ranks. */
static lori_status read_rank(import_vocab *v, const char *line, size_t n,
                             size_t rank, const char *path, lori_error *err)
{
    const char *space = memchr(line, ' ', n);
    base_str text = {0};
    char number[24];
    snprintf(number, sizeof number, "%zu", rank);
    bool good = space && n - (size_t)(space + 1 - line) == strlen(number) &&
                memcmp(space + 1, number, strlen(number)) == 0 &&
                spell_base64(line, (size_t)(space - line), &text);
    lori_status st =
        good ? set_token(v, rank, &text, IMPORT_NORMAL, rank, err)
             : base_fail(err, LORI_FORMAT,
                         "%s:%zu: not a line of tiktoken, 'BASE64 %zu'", path,
                         rank + 1, rank);
    base_str_free(&text);
    return st;
}

static size_t count_lines(const char *s, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += s[i] == '\n';
    return lines + (n && s[n - 1] != '\n');
}

static lori_status read_ranks(const char *s, size_t n, const char *path,
                              import_vocab *v, lori_error *err)
{
    size_t lines = count_lines(s, n);
    if (lines != LLAMA3_RANKS)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: %zu tiktoken ranks: only Llama 3's file (%d) is "
                         "known; its special tokens and split are not in it",
                         path, lines, LLAMA3_RANKS);
    BASE_TRY(make_tokens(v, LLAMA3_RANKS + LLAMA3_SPECIAL, err));
    for (size_t rank = 0, at = 0; at < n; rank++) {
        const char *end = memchr(s + at, '\n', n - at);
        size_t length = end ? (size_t)(end - s) - at : n - at;
        BASE_TRY(read_rank(v, s + at, length, rank, path, err));
        at += length + 1;
    }
    return add_llama3_tokens(v, err);
}

lori_status import_read_tiktoken(const char *path, import_vocab *v,
                                 lori_error *err)
{
    char *bytes;
    size_t n;
    BASE_TRY(base_file_read(path, MAX_FILE, &bytes, &n, err));
    lori_status st = read_ranks(bytes, n, path, v, err);
    free(bytes);
    BASE_TRY(st);
    v->ignore_merges = true;
    BASE_TRY(import_find_merges(v, true, err));
    return import_byte_pipeline(v, false, false, IMPORT_SPLIT_L3("\\p{N}{1,3}"),
                                err);
}

/* ---- tekken ------------------------------------------------------------ */

/* Files of 2024 leave out the special tokens; these are theirs. */
static const char *const tekken_tokens[] = {"<unk>",
                                            "<s>",
                                            "</s>",
                                            "[INST]",
                                            "[/INST]",
                                            "[AVAILABLE_TOOLS]",
                                            "[/AVAILABLE_TOOLS]",
                                            "[TOOL_RESULTS]",
                                            "[/TOOL_RESULTS]",
                                            "[TOOL_CALLS]",
                                            "[IMG]",
                                            "<pad>",
                                            "[IMG_BREAK]",
                                            "[IMG_END]",
                                            "[PREFIX]",
                                            "[MIDDLE]",
                                            "[SUFFIX]",
                                            "[SYSTEM_PROMPT]",
                                            "[/SYSTEM_PROMPT]",
                                            "[TOOL_CONTENT]"};
enum { TEKKEN_NAMED = sizeof tekken_tokens / sizeof *tekken_tokens };

/* special_tokens[i], which has the rank i; or NULL beyond the list. */
static lori_status tekken_name(const json_t *list, size_t i, const char *path,
                               const char **name, lori_error *err)
{
    *name = NULL;
    if (!list) {
        *name = i < TEKKEN_NAMED ? tekken_tokens[i] : NULL;
        return LORI_OK;
    }
    for (size_t k = 0; k < json_array_size(list) && !*name; k++) {
        const json_t *row = json_array_get(list, k);
        const json_t *rank = json_object_get(row, "rank");
        if (json_is_integer(rank) && json_integer_value(rank) == (json_int_t)i)
            *name = json_string_value(json_object_get(row, "token_str"));
    }
    if (!*name && i < json_array_size(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: special_tokens has no text for rank %zu", path,
                         i);
    return LORI_OK;
}

static lori_status add_tekken_special(import_vocab *v, const json_t *list,
                                      size_t n, const char *path,
                                      lori_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const char *name;
        char filler[32];
        BASE_TRY(tekken_name(list, i, path, &name, err));
        snprintf(filler, sizeof filler, "<SPECIAL_%zu>", i);
        BASE_TRY(set_special(v, i, name ? name : filler, err));
        const struct {
            const char *text;
            int64_t *id;
        } named[] = {{"<unk>", &v->unk},
                     {"<s>", &v->bos},
                     {"</s>", &v->eos},
                     {"<pad>", &v->pad}};
        for (size_t k = 0; name && k < 4; k++)
            if (strcmp(name, named[k].text) == 0)
                *named[k].id = (int64_t)i;
    }
    v->add_bos = v->bos >= 0;
    return LORI_OK;
}

static lori_status add_tekken_ranks(import_vocab *v, const json_t *list,
                                    size_t n, size_t special, const char *path,
                                    lori_error *err)
{
    for (size_t rank = 0; rank < n; rank++) {
        const json_t *row = json_array_get(list, rank);
        const json_t *bytes = json_object_get(row, "token_bytes");
        const json_t *said = json_object_get(row, "rank");
        base_str text = {0};
        lori_status st = LORI_OK;
        if (!json_is_string(bytes) || !json_is_integer(said) ||
            json_integer_value(said) != (json_int_t)rank ||
            !spell_base64(json_string_value(bytes), json_string_length(bytes),
                          &text))
            st = base_fail(err, LORI_FORMAT,
                           "%s: vocab[%zu] is not {\"rank\": %zu, "
                           "\"token_bytes\": BASE64}",
                           path, rank, rank);
        if (st == LORI_OK)
            st = set_token(v, special + rank, &text, IMPORT_NORMAL, rank, err);
        base_str_free(&text);
        BASE_TRY(st);
    }
    return LORI_OK;
}

static lori_status read_tekken(const json_t *root, const char *path,
                               import_vocab *v, lori_error *err)
{
    const json_t *config = json_object_get(root, "config");
    const json_t *list = json_object_get(root, "vocab");
    const json_t *special_list = json_object_get(root, "special_tokens");
    const char *pattern = NULL;
    if (!json_is_object(config) || !json_is_array(list) ||
        (special_list && !json_is_array(special_list)))
        return base_fail(err, LORI_FORMAT,
                         "%s: not a tekken file: it needs an object 'config' "
                         "and a list 'vocab'",
                         path);
    size_t named = special_list ? json_array_size(special_list) : TEKKEN_NAMED;
    int64_t special = (int64_t)named;
    int64_t total = (int64_t)json_array_size(list) + special;
    BASE_TRY(format_get_str(config, path, "pattern", true, &pattern, err));
    BASE_TRY(format_get_i64(config, path, "default_num_special_tokens", false,
                            (int64_t)named, MAX_TOKENS, &special, err));
    BASE_TRY(format_get_i64(config, path, "default_vocab_size", false,
                            special + 1, MAX_TOKENS, &total, err));
    size_t ranks = (size_t)(total - special);
    if (ranks > json_array_size(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: default_vocab_size %lld wants %zu tokens, vocab "
                         "has %zu",
                         path, (long long)total, ranks, json_array_size(list));
    BASE_TRY(make_tokens(v, (size_t)total, err));
    BASE_TRY(add_tekken_special(v, special_list, (size_t)special, path, err));
    BASE_TRY(add_tekken_ranks(v, list, ranks, (size_t)special, path, err));
    v->ignore_merges = true;
    BASE_TRY(import_find_merges(v, true, err));
    return import_byte_pipeline(v, false, false, pattern, err);
}

lori_status import_read_tekken(const char *path, import_vocab *v,
                               lori_error *err)
{
    json_t *root = NULL;
    BASE_TRY(format_json_load(path, &root, err));
    lori_status st = read_tekken(root, path, v, err);
    json_decref(root);
    return st;
}

/* ---- SentencePiece ----------------------------------------------------- */

static lori_status check_spm(const format_spm *m, const char *path,
                             lori_error *err)
{
    const char *what = NULL;
    if (m->model_type != 2)
        what = m->model_type == 1 ? "its model is Unigram, not BPE"
                                  : "its model is not BPE";
    else if (!m->byte_fallback)
        what = "it has no byte fallback";
    else if (m->has_charsmap)
        what = "it normalizes characters (precompiled_charsmap)";
    else if (m->remove_extra_whitespaces)
        what = "it removes extra spaces";
    else if (!m->escape_whitespaces || m->whitespace_as_suffix)
        what = "it writes spaces in another way than U+2581 in front of a word";
    if (!what)
        return LORI_OK;
    return base_fail(err, LORI_UNSUPPORTED, "%s: %s; that is not supported",
                     path, what);
}

static lori_status read_spm(const format_spm *m, const char *path,
                            import_vocab *v, lori_error *err)
{
    BASE_TRY(check_spm(m, path, err));
    BASE_TRY(make_tokens(v, m->n, err));
    for (size_t i = 0; i < m->n; i++) {
        const format_spm_piece *p = &m->piece[i];
        base_str text = {0};
        base_str_add(&text, p->text, p->n);
        lori_status st = set_token(v, i, &text, p->type, 0, err);
        base_str_free(&text);
        BASE_TRY(st);
        v->token[i].score = (double)p->score;
    }
    v->unk = m->unk;
    v->bos = (int32_t)m->bos;
    v->eos = (int32_t)m->eos;
    v->pad = (int32_t)m->pad;
    v->add_bos = v->bos >= 0;
    BASE_TRY(import_find_merges(v, false, err));
    return import_spm_pipeline(v, m->add_dummy_prefix != 0, err);
}

lori_status import_read_spm(const char *path, import_vocab *v, lori_error *err)
{
    format_spm m;
    BASE_TRY(format_spm_open(path, &m, err));
    lori_status st = read_spm(&m, path, v, err);
    format_spm_free(&m);
    return st;
}

/* ---- the job ----------------------------------------------------------- */

/* The tokenizer file of a folder, or the file itself; malloc'd. */
static lori_status find_source(const char *source, char **path, lori_error *err)
{
    static const char *const names[] = {"tokenizer.model", "tekken.json"};
    *path = NULL;
    if (!base_is_dir(source)) {
        *path = base_strdup(source);
        return *path ? LORI_OK : base_no_memory(err, strlen(source));
    }
    for (size_t i = 0; i < 2; i++) {
        *path = base_path_join(source, names[i]);
        if (!*path)
            return base_no_memory(err, strlen(source));
        if (base_is_file(*path))
            return LORI_OK;
        free(*path);
        *path = NULL;
    }
    return base_fail(err, LORI_NOT_FOUND,
                     "%s: neither tokenizer.model nor tekken.json in this "
                     "folder",
                     source);
}

/* By what the file begins with: '{', base64, or a protobuf field. */
static lori_status read_source(const char *path, import_vocab *v,
                               const char **kind, lori_error *err)
{
    base_map map;
    BASE_TRY(base_map_open(path, &map, err));
    const char *s = (const char *)map.data;
    size_t n = map.bytes, i = 0;
    while (i < n && i < 400 && (base64_value(s[i]) >= 0 || s[i] == '='))
        i++;
    bool ranks = i > 0 && i + 1 < n && s[i] == ' ' && s[i + 1] == '0';
    bool json = n > 0 && s[0] == '{';
    base_map_close(&map);
    *kind = json ? "tekken" : ranks ? "tiktoken" : "SentencePiece";
    return json    ? import_read_tekken(path, v, err)
           : ranks ? import_read_tiktoken(path, v, err)
                   : import_read_spm(path, v, err);
}

static lori_status convert(const lori_import_options *o, import_vocab *v,
                           const char **kind, lori_error *err)
{
    char *path;
    base_outdir *dir = NULL;
    BASE_TRY(find_source(o->source, &path, err));
    lori_status st = read_source(path, v, kind, err);
    if (st == LORI_OK)
        st = base_outdir_open(o->output, o->replace != 0, "tokenizer.json",
                              &dir, err);
    if (st == LORI_OK) {
        st = import_write(v, base_outdir_path(dir), err);
        if (st != LORI_OK)
            base_prefix(err, st, "%s", path);
    }
    free(path);
    if (st == LORI_OK)
        return base_outdir_commit(dir, err);
    base_outdir_abort(dir);
    return st;
}

lori_status import_tokenizer_alone(const lori_import_options *o,
                                   lori_report **out, lori_error *err)
{
    import_vocab v = {0};
    const char *kind = NULL;
    lori_status st = convert(o, &v, &kind, err);
    size_t n = v.n, merges = json_array_size(v.merges);
    import_vocab_free(&v);
    BASE_TRY(st);
    base_str text = {0};
    base_str_printf(&text, "%s: %zu tokens, %zu merges, from a %s file\n",
                    o->output, n, merges, kind);
    return report_new(json_pack("{sssssssIsI}", "source", o->source, "output",
                                o->output, "kind", kind, "vocab_size",
                                (json_int_t)n, "merges", (json_int_t)merges),
                      &text, out, err);
}
