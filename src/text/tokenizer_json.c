/* tokenizer_json.c - reads tokenizer.json into a tokenizer's parts.
 * `truncation` and `padding` are ignored, as transformers does.
 * Includes base, format. Source: spec/text.md 1. */
#include <stdlib.h>

#include "text/text_i.h"

#define MAX_FILE ((size_t)1 << 30)

static lori_status add_token(text_tokenizer *tok, const json_t *item, size_t i,
                             lori_error *err)
{
    char where[64];
    text_added t = {0};
    const char *content = NULL;
    if (!json_is_object(item))
        return base_fail(err, LORI_FORMAT,
                         "%s: added_tokens[%zu] is not an object", tok->file,
                         i);
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    lori_status st =
        format_get_str(item, tok->file, "content", true, &content, err);
    const struct {
        const char *key;
        bool *to;
    } flags[] = {{"single_word", &t.single_word},
                 {"lstrip", &t.lstrip},
                 {"rstrip", &t.rstrip},
                 {"normalized", &t.normalized},
                 {"special", &t.special}};
    for (size_t k = 0; st == LORI_OK && k < sizeof flags / sizeof *flags; k++)
        st = format_get_bool(item, tok->file, flags[k].key, true, flags[k].to,
                             err);
    if (st == LORI_OK) {
        const json_t *s = json_object_get(item, "content");
        char *z = base_strndup(json_string_value(s), json_string_length(s));
        if (!z)
            return base_no_memory(err, json_string_length(s));
        t.content = z;
        t.n = json_string_length(s);
        st = text_added_add(&tok->added, &tok->vocab, &t, err);
        free(z);
    }
    return st == LORI_OK ? st : base_prefix(err, st, "%s", where);
}

static lori_status add_tokens(text_tokenizer *tok, const json_t *root,
                              lori_error *err)
{
    const json_t *list = json_object_get(root, "added_tokens");
    if (!list || json_is_null(list))
        return LORI_OK;
    if (!json_is_array(list))
        return base_fail(err, LORI_FORMAT, "%s: 'added_tokens' is not a list",
                         tok->file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(add_token(tok, json_array_get(list, i), i, err));
    return LORI_OK;
}

/* ---- the file ---------------------------------------------------------- */

/* The small members as trees; the two large ones of "model" are read from the
 * text: its merges where they are if what they need came before, else last. */
typedef struct json_parts {
    json_t *root, *model;
    bool has_vocab;
    const char *merges; /* text of model.merges, or NULL */
    bool merges_read;
} json_parts;

/* A member of an object, parsed. */
static lori_status add_member(format_scan *scan, json_t *object,
                              const char *key, size_t n, lori_error *err)
{
    const char *s;
    size_t length, at = scan->at;
    json_t *value = NULL;
    if (json_object_getn(object, key, n))
        return base_fail(err, LORI_FORMAT, "%s:%lld: '%.*s' is there twice",
                         scan->name, (long long)format_scan_line(scan, at),
                         (int)n, key);
    char *copy = base_strndup(key, n); /* the next call ends the key's life */
    if (!copy)
        return base_no_memory(err, n);
    lori_status st = format_scan_skip(scan, &s, &length, err);
    if (st == LORI_OK)
        st = format_json_parse_at(s, length, scan->name,
                                  format_scan_line(scan, (size_t)(s - scan->s)),
                                  &value, err);
    if (st == LORI_OK && json_object_setn_new(object, copy, n, value) != 0)
        st = base_no_memory(err, n);
    free(copy);
    return st;
}

static bool is_key(const char *key, size_t n, const char *name)
{
    return n == strlen(name) && memcmp(key, name, n) == 0;
}

static lori_status scan_merges(text_tokenizer *tok, format_scan *scan,
                               json_parts *parts, lori_error *err)
{
    size_t length;
    parts->merges_read = parts->has_vocab &&
                         json_object_get(parts->model, TEXT_BPE_PREFIX) != NULL;
    if (!parts->merges_read)
        return format_scan_skip(scan, &parts->merges, &length, err);
    parts->merges = scan->s + scan->at;
    return text_bpe_load_merges(&tok->bpe, parts->model, &tok->vocab, scan,
                                err);
}

static lori_status scan_model(text_tokenizer *tok, format_scan *scan,
                              json_parts *parts, lori_error *err)
{
    bool more;
    if (format_scan_peek(scan) != '{')
        return base_fail(err, LORI_FORMAT, "%s: 'model' is not an object",
                         tok->file);
    BASE_TRY(format_scan_open(scan, '{', err));
    for (;;) {
        const char *key, *s;
        size_t n, length;
        BASE_TRY(format_scan_more(scan, '}', &more, err));
        if (!more)
            return LORI_OK;
        BASE_TRY(format_scan_key(scan, &key, &n, err));
        bool vocab = is_key(key, n, "vocab"), merges = is_key(key, n, "merges");
        if (vocab ? parts->has_vocab : merges && parts->merges)
            return base_fail(err, LORI_FORMAT,
                             "%s:%lld: 'model' has '%.*s' twice", tok->file,
                             (long long)format_scan_line(scan, scan->at),
                             (int)n, key);
        if (vocab && format_scan_peek(scan) == '{') {
            parts->has_vocab = true;
            BASE_TRY(text_vocab_scan(&tok->vocab, scan, err));
            BASE_TRY(text_vocab_finish(&tok->vocab, tok->file, err));
        } else if (merges) {
            BASE_TRY(scan_merges(tok, scan, parts, err));
        } else if (vocab) {
            BASE_TRY(format_scan_skip(scan, &s, &length, err));
        } else {
            BASE_TRY(add_member(scan, parts->model, key, n, err));
        }
    }
}

static lori_status scan_file(text_tokenizer *tok, format_scan *scan,
                             json_parts *parts, lori_error *err)
{
    bool more;
    if (format_scan_peek(scan) != '{')
        return base_fail(err, LORI_FORMAT,
                         "%s: not a tokenizer: the file is not a JSON object",
                         tok->file);
    BASE_TRY(format_scan_open(scan, '{', err));
    for (;;) {
        const char *key;
        size_t n;
        BASE_TRY(format_scan_more(scan, '}', &more, err));
        if (!more)
            return format_scan_end(scan, err);
        BASE_TRY(format_scan_key(scan, &key, &n, err));
        if (!is_key(key, n, "model")) {
            BASE_TRY(add_member(scan, parts->root, key, n, err));
            continue;
        }
        if (parts->model)
            return base_fail(err, LORI_FORMAT, "%s: 'model' is there twice",
                             tok->file);
        parts->model = json_object();
        if (!parts->model)
            return base_no_memory(err, 64);
        BASE_TRY(scan_model(tok, scan, parts, err));
    }
}

static lori_status load_model(text_tokenizer *tok, format_scan *scan,
                              const json_parts *parts, lori_error *err)
{
    const char *type = "BPE"; /* files of before 2020 have no type */
    if (!parts->model)
        return base_fail(err, LORI_FORMAT, "%s: there is no 'model'",
                         tok->file);
    BASE_TRY(
        format_get_str(parts->model, tok->file, "type", false, &type, err));
    if (strcmp(type, "BPE") != 0)
        return text_unsupported(tok->file, "model", type, "BPE", err);
    if (!parts->has_vocab)
        return base_fail(err, LORI_FORMAT, "%s: model.vocab is not an object",
                         tok->file);
    if (!parts->merges)
        return base_fail(err, LORI_FORMAT, "%s: model.merges is not a list",
                         tok->file);
    scan->at = (size_t)(parts->merges - scan->s);
    if (!parts->merges_read)
        BASE_TRY(text_bpe_load_merges(&tok->bpe, parts->model, &tok->vocab,
                                      scan, err));
    return text_bpe_load(&tok->bpe, parts->model, tok->file, &tok->pretokenizer,
                         err);
}

static lori_status load_parts(text_tokenizer *tok, format_scan *scan,
                              json_parts *parts, lori_error *err)
{
    const char *version = NULL, *file = tok->file;
    const json_t *root = parts->root;
    BASE_TRY(scan_file(tok, scan, parts, err));
    BASE_TRY(format_get_str(root, file, "version", true, &version, err));
    if (strcmp(version, "1.0") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: version '%s', only 1.0 is supported", file,
                         version);
    BASE_TRY(text_normalizers_parse(json_object_get(root, "normalizer"), file,
                                    &tok->normalizers, err));
    BASE_TRY(text_pretokenizer_parse(json_object_get(root, "pre_tokenizer"),
                                     file, &tok->pretokenizer, err));
    BASE_TRY(text_post_parse(json_object_get(root, "post_processor"), file,
                             &tok->post, err));
    BASE_TRY(text_decoder_parse(json_object_get(root, "decoder"), file,
                                &tok->decoder, err));
    BASE_TRY(load_model(tok, scan, parts, err));
    tok->needs_spans = tok->pretokenizer.needs_spans ||
                       (tok->pretokenizer.has_first && tok->normalizers.n > 0);
    return add_tokens(tok, root, err);
}

lori_status text_json_load(text_tokenizer *tok, lori_error *err)
{
    base_map map;
    format_scan scan = {0};
    json_parts parts = {0};
    BASE_TRY(base_map_open(tok->file, &map, err));
    lori_status st = map.bytes > MAX_FILE
                         ? base_fail(err, LORI_UNSUPPORTED,
                                     "%s: over %zu bytes", tok->file, MAX_FILE)
                         : format_scan_start(&scan, (const char *)map.data,
                                             map.bytes, tok->file, err);
    parts.root = json_object();
    if (st == LORI_OK && !parts.root)
        st = base_no_memory(err, 64);
    if (st == LORI_OK)
        st = load_parts(tok, &scan, &parts, err);
    json_decref(parts.root);
    json_decref(parts.model);
    format_scan_free(&scan);
    base_map_close(&map);
    return st;
}
