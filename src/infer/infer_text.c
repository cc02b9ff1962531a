/* infer_text.c - the text of a reply as it grows: decoding token by token,
 * stop strings, and what has to be held back because of them. */
#include "infer/infer_i.h"

#include <stdlib.h>

struct infer_text {
    text_stream *decode;
    base_str held; /* decoded, not shown yet */
    char **stops;
    size_t *len; /* of each stop string */
    int64_t n_stops;
};

lori_status infer_text_new(const text_tokenizer *tok, const char *const *stops,
                           int64_t n_stops, infer_text **out, lori_error *err)
{
    *out = NULL;
    infer_text *t = base_alloc(1, sizeof *t);
    if (!t)
        return base_no_memory(err, sizeof *t);
    t->stops = base_alloc((size_t)n_stops, sizeof *t->stops);
    t->len = base_alloc((size_t)n_stops, sizeof *t->len);
    lori_status st =
        t->stops && t->len
            ? text_stream_new(tok, TEXT_SKIP_SPECIAL, &t->decode, err)
            : base_no_memory(err, (size_t)n_stops);
    for (int64_t i = 0; i < n_stops && !st; i++) {
        t->stops[i] = base_strdup(stops[i]);
        t->len[i] = strlen(stops[i]);
        t->n_stops = i + 1;
        if (!t->stops[i])
            st = base_no_memory(err, t->len[i]);
        else if (!t->len[i])
            st = base_fail(err, LORI_INVALID, "stop string %lld is empty",
                           (long long)i);
    }
    if (st)
        infer_text_free(t);
    else
        *out = t;
    return st;
}

void infer_text_free(infer_text *t)
{
    if (!t)
        return;
    for (int64_t i = 0; i < t->n_stops; i++)
        free(t->stops[i]);
    free(t->stops);
    free(t->len);
    text_stream_free(t->decode);
    base_str_free(&t->held);
    free(t);
}

/* Place of the earliest stop string in the held text (the longest of those
 * that begin there), or its length without one. */
static size_t find_stop(const infer_text *t, int64_t *which)
{
    *which = -1;
    for (size_t at = 0; at < t->held.len; at++) {
        size_t left = t->held.len - at;
        for (int64_t i = 0; i < t->n_stops; i++)
            if (t->len[i] <= left &&
                !memcmp(t->held.s + at, t->stops[i], t->len[i]) &&
                (*which < 0 || t->len[i] > t->len[*which]))
                *which = i;
        if (*which >= 0)
            return at;
    }
    return t->held.len;
}

/* Where the first beginning of a stop string starts that the held text ends
 * in the middle of. */
static size_t certain(const infer_text *t)
{
    for (size_t at = 0; at < t->held.len; at++) {
        size_t left = t->held.len - at;
        for (int64_t i = 0; i < t->n_stops; i++)
            if (left < t->len[i] && !memcmp(t->held.s + at, t->stops[i], left))
                return at;
    }
    return t->held.len;
}

/* Moves the first n held bytes to `out`. */
static void show(infer_text *t, size_t n, base_str *out)
{
    if (n == 0)
        return;
    base_str_add(out, t->held.s, n);
    memmove(t->held.s, t->held.s + n, t->held.len - n);
    t->held.len -= n;
}

lori_status infer_text_put(infer_text *t, int32_t id, base_str *out,
                           int64_t *stop, lori_error *err)
{
    *stop = -1;
    BASE_TRY(text_stream_put(t->decode, id, &t->held, err));
    if (t->held.failed)
        return base_no_memory(err, t->held.len);
    if (!t->held.len)
        return LORI_OK;
    size_t n = find_stop(t, stop);
    show(t, *stop < 0 ? certain(t) : n, out);
    return LORI_OK;
}

lori_status infer_text_end(infer_text *t, base_str *out, lori_error *err)
{
    BASE_TRY(text_stream_end(t->decode, &t->held, err));
    if (t->held.failed)
        return base_no_memory(err, t->held.len);
    int64_t stop;
    show(t, find_stop(t, &stop), out);
    return LORI_OK;
}
