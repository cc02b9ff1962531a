/* decoder.c - ids to text, all at once or one by one. Decoders of
 * tokenizer.json that run here: none (tokens joined by spaces), ByteLevel,
 * Fuse, and sequences of them. Every other type is refused by name.
 * Includes base, format. Source: spec/text.md 1.6. */
#include <stdlib.h>

#include "text/text_i.h"

/* ---- loading ----------------------------------------------------------- */

/* Each step in order: `joined` after a Fuse, when later steps would see one
 * token. */
static lori_status add_step(const json_t *json, const char *file,
                            text_decoder *out, bool *joined, lori_error *err)
{
    const char *type;
    BASE_TRY(text_component_type(json, file, "decoder", &type, err));
    if (strcmp(type, "Fuse") == 0) {
        *joined = true;
        return LORI_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        if (*joined || *out == TEXT_DECODE_BYTES)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: decoder: ByteLevel after Fuse or after "
                             "another ByteLevel is not supported",
                             file);
        *out = TEXT_DECODE_BYTES;
        return LORI_OK;
    }
    if (strcmp(type, "Sequence") != 0)
        return text_unsupported(file, "decoder", type,
                                "ByteLevel, Fuse, Sequence", err);
    const json_t *list = json_object_get(json, "decoders");
    if (!json_is_array(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: a decoder Sequence without a list of decoders",
                         file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(add_step(json_array_get(list, i), file, out, joined, err));
    return LORI_OK;
}

lori_status text_decoder_parse(const json_t *json, const char *file,
                               text_decoder *out, lori_error *err)
{
    bool joined = false;
    *out = TEXT_DECODE_SPACES;
    if (!json || json_is_null(json))
        return LORI_OK;
    *out = TEXT_DECODE_CONCAT;
    return add_step(json, file, out, &joined, err);
}

/* ---- running ----------------------------------------------------------- */

/* The token's bytes before UTF-8 repair, or NULL when it adds nothing. */
static const text_token_view *visible(const text_tokenizer *tok, int32_t id,
                                      unsigned flags)
{
    if (id < 0 || id >= tok->n_tokens || !tok->token[id].text)
        return NULL;
    if ((flags & TEXT_SKIP_SPECIAL) && tok->token[id].special)
        return NULL;
    return &tok->token[id];
}

struct text_stream {
    const text_tokenizer *tok;
    unsigned flags;
    bool any;     /* a token was shown */
    char hold[4]; /* an incomplete character */
    size_t n_hold;
    base_str bytes;
};

lori_status text_stream_new(const text_tokenizer *tok, unsigned flags,
                            text_stream **out, lori_error *err)
{
    *out = NULL;
    if (flags & ~(unsigned)TEXT_SKIP_SPECIAL)
        return base_fail(err, LORI_INVALID, "unknown decode flags 0x%x", flags);
    text_stream *stream = base_alloc(1, sizeof *stream);
    if (!stream)
        return base_no_memory(err, sizeof *stream);
    stream->tok = tok;
    stream->flags = flags;
    *out = stream;
    return LORI_OK;
}

static void put(text_stream *stream, int32_t id, base_str *out)
{
    const text_token_view *t = visible(stream->tok, id, stream->flags);
    if (!t)
        return;
    base_str *bytes = &stream->bytes;
    base_str_clear(bytes);
    if (stream->tok->decoder == TEXT_DECODE_SPACES && stream->any)
        base_str_add(bytes, " ", 1);
    stream->any = true;
    if (stream->n_hold)
        base_str_add(bytes, stream->hold, stream->n_hold);
    base_str_add(bytes, t->bytes, t->n_bytes);
    if (bytes->failed) {
        out->failed = true;
        return;
    }
    size_t used =
        bytes->len ? text_utf8_lossy(bytes->s, bytes->len, false, out) : 0;
    /* What is left is the start of one character: at most three bytes. */
    stream->n_hold = bytes->len - used;
    if (stream->n_hold)
        memcpy(stream->hold, bytes->s + used, stream->n_hold);
}

lori_status text_stream_put(text_stream *stream, int32_t id, base_str *out,
                            lori_error *err)
{
    put(stream, id, out);
    return out->failed ? base_no_memory(err, out->len) : LORI_OK;
}

lori_status text_stream_end(text_stream *stream, base_str *out, lori_error *err)
{
    text_utf8_lossy(stream->hold, stream->n_hold, true, out);
    stream->n_hold = 0;
    stream->any = false;
    return out->failed ? base_no_memory(err, out->len) : LORI_OK;
}

void text_stream_free(text_stream *stream)
{
    if (!stream)
        return;
    base_str_free(&stream->bytes);
    free(stream);
}

lori_status text_decode(const text_tokenizer *tok, const int32_t *ids, size_t n,
                        unsigned flags, base_str *out, lori_error *err)
{
    base_str bytes = {0};
    bool any = false;
    if (flags & ~(unsigned)TEXT_SKIP_SPECIAL)
        return base_fail(err, LORI_INVALID, "unknown decode flags 0x%x", flags);
    for (size_t i = 0; i < n; i++) {
        const text_token_view *t = visible(tok, ids[i], flags);
        if (!t)
            continue;
        if (any && tok->decoder == TEXT_DECODE_SPACES)
            base_str_add(&bytes, " ", 1);
        any = true;
        base_str_add(&bytes, t->bytes, t->n_bytes);
    }
    bool failed = bytes.failed;
    if (!failed && bytes.len)
        text_utf8_lossy(bytes.s, bytes.len, true, out);
    base_str_free(&bytes);
    return failed || out->failed ? base_no_memory(err, n) : LORI_OK;
}
