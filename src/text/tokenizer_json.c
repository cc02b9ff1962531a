/* tokenizer_json.c - reads tokenizer.json into a tokenizer's parts.
 * `truncation` and `padding` are ignored, as transformers does.
 * Includes base, format. Source: spec/text.md 1. */
#include <stdio.h>
#include <stdlib.h>

#include "text/text_i.h"

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

static lori_status load_parts(text_tokenizer *tok, const json_t *root,
                              lori_error *err)
{
    const char *version = NULL;
    if (!json_is_object(root))
        return base_fail(err, LORI_FORMAT,
                         "%s: not a tokenizer: the file is not a JSON object",
                         tok->file);
    BASE_TRY(format_get_str(root, tok->file, "version", true, &version, err));
    if (strcmp(version, "1.0") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: version '%s', only 1.0 is supported", tok->file,
                         version);
    BASE_TRY(text_normalizers_parse(json_object_get(root, "normalizer"),
                                    tok->file, &tok->normalizers, err));
    BASE_TRY(text_pretokenizer_parse(json_object_get(root, "pre_tokenizer"),
                                     tok->file, &tok->pretokenizer, err));
    BASE_TRY(text_post_parse(json_object_get(root, "post_processor"), tok->file,
                             &tok->post, err));
    BASE_TRY(text_decoder_parse(json_object_get(root, "decoder"), tok->file,
                                &tok->decoder, err));
    BASE_TRY(text_bpe_parse(json_object_get(root, "model"), tok->file,
                            tok->pretokenizer.bytes, &tok->vocab, &tok->bpe,
                            err));
    return add_tokens(tok, root, err);
}

lori_status text_json_load(text_tokenizer *tok, lori_error *err)
{
    json_t *root = NULL;
    BASE_TRY(format_json_load(tok->file, &root, err));
    lori_status st = load_parts(tok, root, err);
    json_decref(root);
    return st;
}
