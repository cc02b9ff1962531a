/* tokenizer.c - opens a tokenizer; ids and texts of single tokens. Includes
 * base, format. */
#include <stdlib.h>

#include "text/text_i.h"

/* ---- small shared parts ------------------------------------------------ */

lori_status text_unsupported(const char *file, const char *what,
                             const char *type, const char *supported,
                             lori_error *err)
{
    return base_fail(err, LORI_UNSUPPORTED,
                     "%s: %s '%s' is not supported (supported: %s)", file, what,
                     type, supported);
}

lori_status text_component_type(const json_t *json, const char *file,
                                const char *what, const char **type,
                                lori_error *err)
{
    *type = NULL;
    if (!json_is_object(json))
        return base_fail(err, LORI_FORMAT, "%s: the %s is not an object", file,
                         what);
    lori_status st = format_get_str(json, file, "type", true, type, err);
    return st == LORI_OK ? st : base_prefix(err, st, "%s", what);
}

lori_status text_ids_add(text_ids *ids, int32_t id, lori_error *err)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 64;
        int32_t *grown = base_resize(ids->ids, cap, sizeof *grown);
        if (!grown)
            return base_no_memory(err, cap * sizeof *grown);
        ids->ids = grown;
        ids->cap = cap;
    }
    ids->ids[ids->n++] = id;
    return LORI_OK;
}

void text_ids_free(text_ids *ids)
{
    free(ids->ids);
    *ids = (text_ids){0};
}

/* ---- open -------------------------------------------------------------- */

/* The decoder begins with the byte alphabet, so a token's bytes are known. */
static bool decodes_bytes(const text_tokenizer *tok)
{
    return tok->decoder.n && tok->decoder.step[0].kind == TEXT_DECODE_BYTES;
}

/* Decoded bytes go to added_raw at *at; they are never more than the text's. */
static void fill_view(text_tokenizer *tok, const text_added *t, size_t *at)
{
    text_token_view *view = &tok->token[t->id];
    *view = (text_token_view){.text = t->content,
                              .bytes = t->content,
                              .n_text = (uint32_t)t->n,
                              .n_bytes = (uint32_t)t->n,
                              .special = t->special};
    if (!decodes_bytes(tok))
        return;
    /* Added tokens go through the byte alphabet too, as in the reference. */
    char *dst = tok->added_raw + *at;
    size_t n = text_unmap_bytes(t->content, t->n, dst);
    if (n == SIZE_MAX)
        return;
    view->bytes = dst;
    view->n_bytes = (uint32_t)n;
    *at += n;
}

/* The table by id, from the vocabulary and then the added tokens. */
static lori_status fill_tokens(text_tokenizer *tok, lori_error *err)
{
    const text_vocab *v = &tok->vocab;
    size_t bytes = 0, at = 0;
    tok->n_tokens = v->n_ids;
    for (size_t i = 0; i < tok->added.n; i++) {
        bytes += tok->added.token[i].n;
        if (tok->added.token[i].id >= tok->n_tokens)
            tok->n_tokens = tok->added.token[i].id + 1;
    }
    tok->token = base_alloc((size_t)tok->n_tokens, sizeof *tok->token);
    if (!tok->token)
        return base_no_memory(err, (size_t)tok->n_tokens * sizeof *tok->token);
    for (int32_t id = 0; id < v->n_ids; id++) {
        if (v->of_id[id] < 0)
            continue;
        const text_entry *e = &v->entry[v->of_id[id]];
        text_token_view *view = &tok->token[id];
        view->text = v->arena.s + e->text;
        view->n_text = e->text_len;
        bool raw = decodes_bytes(tok);
        view->bytes = v->arena.s + (raw ? e->raw : e->text);
        view->n_bytes = raw ? e->raw_len : e->text_len;
    }
    tok->added_raw = base_alloc(bytes + 1, 1);
    if (!tok->added_raw)
        return base_no_memory(err, bytes + 1);
    for (size_t i = 0; i < tok->added.n; i++)
        fill_view(tok, &tok->added.token[i], &at);
    return LORI_OK;
}

static lori_status open_all(text_tokenizer *tok, const char *path,
                            lori_error *err)
{
    bool folder = base_is_dir(path);
    tok->bos = tok->eos = -1;
    tok->file =
        folder ? base_path_join(path, "tokenizer.json") : base_strdup(path);
    if (!tok->file)
        return base_no_memory(err, strlen(path));
    if (folder && !base_is_file(tok->file))
        return base_fail(err, LORI_NOT_FOUND,
                         "%s: no tokenizer.json in this folder", path);
    BASE_TRY(text_json_load(tok, err));
    BASE_TRY(text_folder_load(tok, folder ? path : NULL, err));
    BASE_TRY(text_added_finish(&tok->added, &tok->normalizers, err));
    return fill_tokens(tok, err);
}

lori_status text_tokenizer_open(const char *path, text_tokenizer **out,
                                lori_error *err)
{
    *out = NULL;
    text_tokenizer *tok = base_alloc(1, sizeof *tok);
    if (!tok)
        return base_no_memory(err, sizeof *tok);
    lori_status st = open_all(tok, path, err);
    if (st != LORI_OK) {
        text_tokenizer_close(tok);
        return st;
    }
    *out = tok;
    return LORI_OK;
}

void text_tokenizer_close(text_tokenizer *tok)
{
    if (!tok)
        return;
    text_vocab_free(&tok->vocab);
    text_added_free(&tok->added);
    text_normalizers_free(&tok->normalizers);
    text_pretokenizer_free(&tok->pretokenizer);
    text_bpe_free(&tok->bpe);
    text_post_free(&tok->post);
    text_decoder_free(&tok->decoder);
    free(tok->added_raw);
    free(tok->token);
    free(tok->stop);
    json_decref(tok->named);
    json_decref(tok->templates);
    free(tok->file);
    free(tok);
}

/* ---- single tokens ----------------------------------------------------- */

int32_t text_vocab_size(const text_tokenizer *tok)
{
    return tok->n_tokens;
}

int32_t text_token_id(const text_tokenizer *tok, const char *token)
{
    size_t n = strlen(token);
    int32_t added = text_added_find(&tok->added, token, n);
    return added >= 0 ? tok->added.token[added].id
                      : text_vocab_id(&tok->vocab, token, n);
}

const char *text_token(const text_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_tokens ? tok->token[id].text : NULL;
}

bool text_is_special(const text_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_tokens && tok->token[id].special;
}

int32_t text_bos(const text_tokenizer *tok)
{
    return tok->bos;
}

int32_t text_eos(const text_tokenizer *tok)
{
    return tok->eos;
}

const int32_t *text_stops(const text_tokenizer *tok, size_t *n)
{
    *n = tok->n_stops;
    return tok->stop;
}
