/* decode.c - ids to text, all at once or one by one. Both run the same steps:
 * a token goes through those that change tokens, what it leaves becomes part
 * of the text, and the steps on the text come last. Includes base.
 * Source: huggingface/tokenizers decoders; spec/text.md 1.6, 3. */
#include <stdlib.h>

#include "text/text_i.h"

struct text_stream {
    const text_tokenizer *tok;
    unsigned flags;
    bool whole;     /* text_decode: nothing has to come out early */
    bool any;       /* a token was shown */
    bool bad_run;   /* the run of byte tokens has a wrong byte */
    base_str hold;  /* bytes that are not yet a character, or not yet certain */
    base_str token; /* the token on its way through the steps */
    base_str spare;
    base_str raw;      /* a token's bytes */
    base_str all;      /* what is held back for steps that need all of it */
    size_t left_strip; /* of the text: characters that Strip may still take */
    text_matcher *matcher; /* made on first use */
};

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* ---- steps on a token or on the text ----------------------------------- */

static lori_status replace_regex(text_stream *stream,
                                 const text_decode_step *step, const char *s,
                                 size_t n, base_str *out, lori_error *err)
{
    text_matches matches = {.regex = step->pattern, .s = s, .n = n};
    size_t done = 0, start, end;
    bool found;
    if (!stream->matcher)
        BASE_TRY(text_matcher_new(&stream->matcher, err));
    for (;;) {
        BASE_TRY(text_regex_next(&matches, stream->matcher, &found, &start,
                                 &end, err));
        if (!found)
            break;
        base_str_add(out, s + done, start - done);
        base_str_add(out, step->content, step->n_content);
        done = end;
    }
    base_str_add(out, s + done, n - done);
    return LORI_OK;
}

static void replace_literal(const text_decode_step *step, const char *s,
                            size_t n, base_str *out)
{
    const char *end = s + n, *at;
    while ((at = memmem(s, (size_t)(end - s), step->literal,
                        step->n_literal)) != NULL) {
        base_str_add(out, s, (size_t)(at - s));
        base_str_add(out, step->content, step->n_content);
        s = at + step->n_literal;
    }
    base_str_add(out, s, (size_t)(end - s));
}

/* Takes up to `most` marks off the front; returns how many. */
static size_t strip_front(const text_decode_step *step, size_t most,
                          const char **s, size_t *n)
{
    size_t taken = 0;
    while (taken < most && *n >= step->n_mark &&
           memcmp(*s, step->mark, step->n_mark) == 0) {
        *s += step->n_mark;
        *n -= step->n_mark;
        taken++;
    }
    return taken;
}

static void strip(const text_decode_step *step, const char *s, size_t n,
                  base_str *out)
{
    strip_front(step, step->start, &s, &n);
    for (size_t i = 0;
         i < step->stop && n >= step->n_mark &&
         memcmp(s + n - step->n_mark, step->mark, step->n_mark) == 0;
         i++)
        n -= step->n_mark;
    base_str_add(out, s, n);
}

/* The mark is a space; in the first token it is nothing. */
static void metaspace(const text_decode_step *step, bool first, const char *s,
                      size_t n, base_str *out)
{
    const char *end = s + n, *at;
    while ((at = memmem(s, (size_t)(end - s), step->mark, step->n_mark)) !=
           NULL) {
        base_str_add(out, s, (size_t)(at - s));
        if (!first || step->keep_first)
            base_str_add(out, " ", 1);
        s = at + step->n_mark;
    }
    base_str_add(out, s, (size_t)(end - s));
}

/* stream->token through steps [from, to). */
static lori_status run_steps(text_stream *stream, size_t from, size_t to,
                             lori_error *err)
{
    for (size_t i = from; i < to; i++) {
        const text_decode_step *step = &stream->tok->decoder.step[i];
        const char *s = stream->token.s ? stream->token.s : "";
        size_t n = stream->token.len;
        base_str *out = &stream->spare;
        base_str_clear(out);
        switch (step->kind) {
        case TEXT_DECODE_REPLACE:
            if (step->pattern)
                BASE_TRY(replace_regex(stream, step, s, n, out, err));
            else
                replace_literal(step, s, n, out);
            break;
        case TEXT_DECODE_STRIP:
            strip(step, s, n, out);
            break;
        case TEXT_DECODE_METASPACE:
            metaspace(step, !stream->any, s, n, out);
            break;
        case TEXT_DECODE_BYTES:
        case TEXT_DECODE_FALLBACK:
        case TEXT_DECODE_FUSE:
            continue; /* these are no steps on one token */
        }
        base_str swap = stream->token;
        stream->token = stream->spare;
        stream->spare = swap;
    }
    return LORI_OK;
}

/* ---- the text ---------------------------------------------------------- */

/* s[0..n) is the next part of the text that all tokens make. */
static void put_text(text_stream *stream, const char *s, size_t n,
                     base_str *out)
{
    const text_decoder *d = &stream->tok->decoder;
    if (d->needs_all) {
        base_str_add(&stream->all, s, n);
        return;
    }
    if (stream->left_strip) {
        const text_decode_step *step = &d->step[d->strip_at];
        stream->left_strip -= strip_front(step, stream->left_strip, &s, &n);
        if (n) /* something else: nothing after it is stripped */
            stream->left_strip = 0;
    }
    base_str_add(out, s, n);
}

/* The value of a token <0xHH>, or -1. */
static int byte_value(const char *s, size_t n)
{
    int value = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        int c = s[i], digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static void put_marks(text_stream *stream, size_t n, base_str *out)
{
    while (n-- > 0)
        put_text(stream, REPLACEMENT, 3, out);
}

/* The run of byte tokens is over: all of it is text, or each byte is wrong. */
static void end_run(text_stream *stream, base_str *out)
{
    base_str *hold = &stream->hold;
    bool good = hold->len && base_utf8_valid(hold->s, hold->len) == hold->len;
    if (good)
        put_text(stream, hold->s, hold->len, out);
    else
        put_marks(stream, hold->len, out);
    base_str_clear(hold);
    stream->bad_run = false;
}

static void put_byte(text_stream *stream, int value, base_str *out)
{
    base_str *hold = &stream->hold;
    char byte = (char)value;
    uint32_t c;
    base_str_add(hold, &byte, 1);
    if (stream->whole || hold->failed)
        return;
    int length = text_utf8_get(hold->s, hold->len, &c);
    if (stream->bad_run || length < 0) {
        put_marks(stream, hold->len, out);
        stream->bad_run = true;
    } else if (length > 0) {
        put_text(stream, hold->s, hold->len, out);
    } else {
        return; /* not yet a character */
    }
    base_str_clear(hold);
}

/* Bytes of the byte alphabet: what is incomplete at the end is held. */
static void put_bytes(text_stream *stream, const char *s, size_t n,
                      base_str *out)
{
    base_str *hold = &stream->hold, *text = &stream->spare;
    base_str_add(hold, s, n);
    if (stream->whole || hold->failed || hold->len == 0)
        return;
    base_str_clear(text);
    size_t used = text_utf8_lossy(hold->s, hold->len, false, text);
    if (text->len)
        put_text(stream, text->s, text->len, out);
    out->failed = out->failed || text->failed;
    memmove(hold->s, hold->s + used, hold->len - used);
    hold->len -= used;
}

/* ---- tokens ------------------------------------------------------------ */

/* The token, or NULL when it adds nothing. */
static const text_token_view *visible(const text_tokenizer *tok, int32_t id,
                                      unsigned flags)
{
    if (id < 0 || id >= tok->n_tokens || !tok->token[id].text)
        return NULL;
    if ((flags & TEXT_SKIP_SPECIAL) && tok->token[id].special)
        return NULL;
    return &tok->token[id];
}

/* A token's text after the steps on tokens. */
static void put_token(text_stream *stream, const char *s, size_t n,
                      base_str *out)
{
    const text_decoder *d = &stream->tok->decoder;
    bool fallback =
        d->fused > 0 && d->step[d->fused - 1].kind == TEXT_DECODE_FALLBACK;
    int value = fallback ? byte_value(s, n) : -1;
    if (value >= 0) {
        put_byte(stream, value, out);
        return;
    }
    if (stream->hold.len || stream->bad_run)
        end_run(stream, out);
    put_text(stream, s, n, out);
}

static lori_status put(text_stream *stream, int32_t id, base_str *out,
                       lori_error *err)
{
    const text_decoder *d = &stream->tok->decoder;
    const text_token_view *t = visible(stream->tok, id, stream->flags);
    if (!t)
        return LORI_OK;
    if (d->spaces && stream->any)
        put_text(stream, " ", 1, out);
    if (d->n == 0 || d->fused == 0) { /* nothing is done to tokens */
        bool bytes = d->n && d->step[0].kind == TEXT_DECODE_BYTES;
        (bytes ? put_bytes : put_text)(stream, t->bytes, t->n_bytes, out);
        stream->any = true;
        return LORI_OK;
    }
    base_str *token = &stream->token;
    base_str_clear(token);
    base_str_add(token, t->text, t->n_text);
    BASE_TRY(run_steps(stream, 0, d->fused, err));
    const char *s = token->s ? token->s : "";
    if (d->fused < d->n && d->step[d->fused].kind == TEXT_DECODE_BYTES) {
        base_str_clear(&stream->raw);
        base_str_add(&stream->raw, s, token->len); /* room for the bytes */
        size_t n = stream->raw.failed
                       ? SIZE_MAX
                       : text_unmap_bytes(s, token->len, stream->raw.s);
        if (n == SIZE_MAX)
            put_bytes(stream, s, token->len, out);
        else
            put_bytes(stream, stream->raw.s, n, out);
    } else {
        put_token(stream, s, token->len, out);
    }
    stream->any = true;
    return LORI_OK;
}

static lori_status finish(text_stream *stream, base_str *out, lori_error *err)
{
    const text_decoder *d = &stream->tok->decoder;
    bool bytes = d->fused < d->n && d->step[d->fused].kind == TEXT_DECODE_BYTES;
    if (bytes) {
        base_str_clear(&stream->spare);
        if (stream->hold.len)
            text_utf8_lossy(stream->hold.s, stream->hold.len, true,
                            &stream->spare);
        if (stream->spare.len)
            put_text(stream, stream->spare.s, stream->spare.len, out);
        base_str_clear(&stream->hold);
    } else {
        end_run(stream, out);
    }
    if (!d->needs_all)
        return LORI_OK;
    base_str swap = stream->token;
    stream->token = stream->all;
    stream->all = swap;
    BASE_TRY(run_steps(stream, d->fused + 1, d->n, err));
    if (stream->token.len)
        base_str_add(out, stream->token.s, stream->token.len);
    return LORI_OK;
}

/* ---- streams ----------------------------------------------------------- */

static void start(text_stream *stream)
{
    const text_decoder *d = &stream->tok->decoder;
    stream->any = stream->bad_run = false;
    stream->left_strip = d->strips ? d->step[d->strip_at].start : 0;
    base_str_clear(&stream->hold);
    base_str_clear(&stream->all);
}

static void release(text_stream *stream)
{
    base_str_free(&stream->hold);
    base_str_free(&stream->token);
    base_str_free(&stream->spare);
    base_str_free(&stream->raw);
    base_str_free(&stream->all);
    text_matcher_free(stream->matcher);
}

static lori_status check(const text_stream *stream, const base_str *out,
                         lori_error *err)
{
    if (out->failed || stream->hold.failed || stream->token.failed ||
        stream->spare.failed || stream->raw.failed || stream->all.failed)
        return base_no_memory(err, out->len);
    return LORI_OK;
}

static lori_status check_flags(unsigned flags, lori_error *err)
{
    if (flags & ~(unsigned)TEXT_SKIP_SPECIAL)
        return base_fail(err, LORI_INVALID, "unknown decode flags 0x%x", flags);
    return LORI_OK;
}

lori_status text_stream_new(const text_tokenizer *tok, unsigned flags,
                            text_stream **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(check_flags(flags, err));
    text_stream *stream = base_alloc(1, sizeof *stream);
    if (!stream)
        return base_no_memory(err, sizeof *stream);
    stream->tok = tok;
    stream->flags = flags;
    start(stream);
    *out = stream;
    return LORI_OK;
}

lori_status text_stream_put(text_stream *stream, int32_t id, base_str *out,
                            lori_error *err)
{
    BASE_TRY(put(stream, id, out, err));
    return check(stream, out, err);
}

lori_status text_stream_end(text_stream *stream, base_str *out, lori_error *err)
{
    BASE_TRY(finish(stream, out, err));
    BASE_TRY(check(stream, out, err));
    start(stream);
    return LORI_OK;
}

void text_stream_free(text_stream *stream)
{
    if (!stream)
        return;
    release(stream);
    free(stream);
}

lori_status text_decode(const text_tokenizer *tok, const int32_t *ids, size_t n,
                        unsigned flags, base_str *out, lori_error *err)
{
    text_stream stream = {.tok = tok, .flags = flags, .whole = true};
    lori_status st = check_flags(flags, err);
    if (st == LORI_OK)
        start(&stream);
    for (size_t i = 0; st == LORI_OK && i < n; i++)
        st = put(&stream, ids[i], out, err);
    if (st == LORI_OK)
        st = finish(&stream, out, err);
    if (st == LORI_OK)
        st = check(&stream, out, err);
    release(&stream);
    return st;
}
