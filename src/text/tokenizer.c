/* tokenizer.c - opens a tokenizer and runs its pipeline; ids and texts of
 * single tokens. Includes base, format. */
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

void text_work_free(text_work *work)
{
    text_matcher_free(work->matcher);
    for (int i = 0; i < 2; i++) {
        base_str_free(&work->normal[i]);
        base_str_free(&work->buffer[i]);
    }
    free(work->pieces.p);
    free(work->spare.p);
    free(work->symbol);
    free(work->heap);
    *work = (text_work){0};
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

/* Decoded bytes go to added_raw at *at; they are never more than the text's. */
static void fill_view(text_tokenizer *tok, const text_added *t, size_t *at)
{
    text_token_view *view = &tok->token[t->id];
    *view = (text_token_view){.text = t->content,
                              .bytes = t->content,
                              .n_text = (uint32_t)t->n,
                              .n_bytes = (uint32_t)t->n,
                              .special = t->special};
    if (tok->decoder != TEXT_DECODE_BYTES)
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
        bool raw = tok->decoder == TEXT_DECODE_BYTES;
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
    free(tok->added_raw);
    free(tok->token);
    free(tok->stop);
    free(tok->chat_template);
    free(tok->chat_file);
    free(tok->file);
    free(tok);
}

/* ---- encode ------------------------------------------------------------ */

typedef struct encoding {
    const text_tokenizer *tok;
    bool plain;
    text_work work;
    text_ids *out;
} encoding;

/* Normalized text, or a token found in it. */
static lori_status encode_normal(void *context, const char *s, size_t n,
                                 const text_added *token, lori_error *err)
{
    encoding *e = context;
    const text_tokenizer *tok = e->tok;
    const char *text;
    if (token)
        return text_ids_add(e->out, token->id, err);
    BASE_TRY(text_pretokenize(&tok->pretokenizer, &e->work, s, n, &text, err));
    for (size_t i = 0; i < e->work.pieces.n; i++) {
        text_piece piece = e->work.pieces.p[i];
        BASE_TRY(text_bpe_encode(&tok->bpe, &e->work, text + piece.at, piece.n,
                                 e->out, err));
    }
    return LORI_OK;
}

/* Raw text, or a token found in it. */
static lori_status encode_raw(void *context, const char *s, size_t n,
                              const text_added *token, lori_error *err)
{
    encoding *e = context;
    if (token)
        return text_ids_add(e->out, token->id, err);
    BASE_TRY(text_normalize(&e->tok->normalizers, &e->work, s, n, &s, &n, err));
    return text_added_scan(&e->tok->added, &e->tok->added.normal, e->plain, s,
                           n, encode_normal, e, err);
}

static lori_status encode_text(encoding *e, const char *s, size_t n,
                               lori_error *err)
{
    return text_added_scan(&e->tok->added, &e->tok->added.raw, e->plain, s, n,
                           encode_raw, e, err);
}

/* The post-processor's items; the text is encoded at its first place and
 * copied to any further one. */
static lori_status encode_items(encoding *e, const char *s, size_t n,
                                bool special, lori_error *err)
{
    const text_post *post = &e->tok->post;
    size_t first = SIZE_MAX, length = 0;
    for (size_t i = 0; i < post->n; i++) {
        if (post->item[i] >= 0) {
            if (special)
                BASE_TRY(text_ids_add(e->out, post->item[i], err));
        } else if (first == SIZE_MAX) {
            first = e->out->n;
            BASE_TRY(encode_text(e, s, n, err));
            length = e->out->n - first;
        } else {
            for (size_t k = 0; k < length; k++)
                BASE_TRY(text_ids_add(e->out, e->out->ids[first + k], err));
        }
    }
    return LORI_OK;
}

lori_status text_encode(const text_tokenizer *tok, const char *s, size_t n,
                        unsigned flags, text_ids *out, lori_error *err)
{
    if (flags & ~(unsigned)(TEXT_ADD_SPECIAL | TEXT_PLAIN))
        return base_fail(err, LORI_INVALID, "unknown encode flags 0x%x", flags);
    if (n > TEXT_MAX_TEXT)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a text of %zu bytes; encode at most %zu at a time", n,
                         TEXT_MAX_TEXT);
    size_t valid = n ? base_utf8_valid(s, n) : 0, before = out->n;
    if (valid != n)
        return base_fail(err, LORI_FORMAT,
                         "the text is not UTF-8 at byte %zu (0x%02X)", valid,
                         (unsigned)(unsigned char)s[valid]);
    encoding e = {.tok = tok, .plain = (flags & TEXT_PLAIN) != 0, .out = out};
    lori_status st =
        encode_items(&e, s, n, (flags & TEXT_ADD_SPECIAL) != 0, err);
    text_work_free(&e.work);
    if (st != LORI_OK)
        out->n = before;
    return st;
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
