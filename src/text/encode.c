/* encode.c - runs the pipeline on a text: ids and, when asked for, where in
 * the text each comes from. Includes base.
 * Source: huggingface/tokenizers tokenizer/{mod,pre_tokenizer,encoding}.rs. */
#include <stdlib.h>

#include "text/text_i.h"

void text_work_free(text_work *work)
{
    text_matcher_free(work->matcher);
    for (int i = 0; i < 2; i++) {
        text_buffer_free(&work->normal[i]);
        text_buffer_free(&work->buffer[i]);
    }
    free(work->pieces.p);
    free(work->spare.p);
    free(work->symbol);
    free(work->heap);
    base_str_free(&work->affixed);
    text_ids_free(&work->lengths);
    *work = (text_work){0};
}

/* Where a token comes from, in bytes, and how many characters of white space
 * it begins and ends with. */
typedef struct place {
    text_span span;
    uint32_t lead, trail;
} place;

typedef struct encoding {
    const text_tokenizer *tok;
    bool plain, want_places;
    text_work work;
    text_slice raw;    /* the user's text */
    text_slice normal; /* what is being searched for added tokens */
    text_ids *out;
    place *place; /* [n_places] one an id of the text */
    size_t n_places, places_cap;
} encoding;

/* ---- places ------------------------------------------------------------ */

static lori_status add_place(encoding *e, place p, lori_error *err)
{
    if (e->n_places == e->places_cap) {
        size_t cap = e->places_cap ? 2 * e->places_cap : 64;
        place *grown = base_resize(e->place, cap, sizeof *grown);
        if (!grown)
            return base_no_memory(err, cap * sizeof *grown);
        e->place = grown;
        e->places_cap = cap;
    }
    e->place[e->n_places++] = p;
    return LORI_OK;
}

/* U+0120 is the byte alphabet's space. */
static bool is_blank(uint32_t c)
{
    return c == 0x120 || text_is_white_space(c);
}

static void count_blanks(const char *s, size_t n, place *p)
{
    uint32_t c;
    p->lead = p->trail = 0;
    for (size_t i = 0; i < n; p->lead++) {
        i += (size_t)text_utf8_next(s + i, &c);
        if (!is_blank(c))
            break;
    }
    for (size_t i = n; i > 0; p->trail++) {
        i -= (size_t)text_utf8_before(s, i, &c);
        if (!is_blank(c))
            break;
    }
}

/* The place of bytes [from, to) of a slice that has spans. An end beyond the
 * slice is the model's count of a text that it dropped characters of: the
 * reference then keeps the numbers as they are. */
static text_span span_of(const text_slice *slice, size_t from, size_t to)
{
    if (from >= to || to > slice->n)
        return (text_span){(uint32_t)from, (uint32_t)to};
    return (text_span){slice->span[from].first, slice->span[to - 1].end};
}

/* Index of the byte whose spelling in the byte alphabet covers byte `at` of
 * the whole spelling. */
static size_t raw_index(const text_slice *piece, size_t at)
{
    size_t length = 0;
    for (size_t i = 0; i < piece->n; i++) {
        length += text_byte_length((uint8_t)piece->s[i]);
        if (at < length)
            return i;
    }
    return piece->n;
}

/* Places of the tokens of a piece, from work.lengths. */
static lori_status add_places(encoding *e, const text_slice *piece,
                              lori_error *err)
{
    const text_ids *lengths = &e->work.lengths;
    const bool bytes = e->tok->bpe.bytes;
    size_t from = 0, raw_from = 0, raw_at = 0;
    for (size_t i = 0; i < lengths->n; i++) {
        place p = {0};
        size_t to = from + (size_t)lengths->ids[i];
        int32_t id = e->out->ids[e->out->n - lengths->n + i];
        const text_token_view *token = &e->tok->token[id];
        if (bytes && to > from) {
            /* Usually the token's end is a byte's end: step there. */
            text_slice rest =
                text_slice_part(piece, raw_from, piece->n - raw_from);
            size_t last = raw_from + raw_index(&rest, to - 1 - raw_at);
            size_t first = raw_from + raw_index(&rest, from - raw_at);
            p.span = span_of(piece, first, last + 1);
            while (raw_from < last) {
                raw_at += text_byte_length((uint8_t)piece->s[raw_from]);
                raw_from++;
            }
        } else {
            p.span = span_of(piece, from, to);
        }
        if (e->tok->post.n_trims)
            count_blanks(token->text, token->n_text, &p);
        BASE_TRY(add_place(e, p, err));
        from = to;
    }
    return LORI_OK;
}

/* ---- the pipeline ------------------------------------------------------ */

static lori_status add_found(encoding *e, const text_slice *slice,
                             const text_added *token, lori_error *err)
{
    if (e->want_places) {
        place p = {.span = span_of(slice, 0, slice->n)};
        if (e->tok->post.n_trims)
            count_blanks(slice->s, slice->n, &p);
        BASE_TRY(add_place(e, p, err));
    }
    return text_ids_add(e->out, token->id, err);
}

/* Normalized text, or a token found in it. */
static lori_status encode_normal(void *context, const char *s, size_t n,
                                 const text_added *token, lori_error *err)
{
    encoding *e = context;
    const text_tokenizer *tok = e->tok;
    text_slice text = text_slice_part(&e->normal, (size_t)(s - e->normal.s), n);
    if (token)
        return add_found(e, &text, token, err);
    BASE_TRY(text_pretokenize(&tok->pretokenizer, &e->work, text, &text, err));
    for (size_t i = 0; i < e->work.pieces.n; i++) {
        text_piece piece = e->work.pieces.p[i];
        BASE_TRY(text_bpe_encode(&tok->bpe, &e->work, text.s + piece.at,
                                 piece.n, e->out, err));
        if (!e->want_places)
            continue;
        text_slice slice = text_slice_part(&text, piece.at, piece.n);
        BASE_TRY(add_places(e, &slice, err));
    }
    return LORI_OK;
}

/* Raw text, or a token found in it. */
static lori_status encode_raw(void *context, const char *s, size_t n,
                              const text_added *token, lori_error *err)
{
    encoding *e = context;
    text_slice text = text_slice_part(&e->raw, (size_t)(s - e->raw.s), n);
    if (token)
        return add_found(e, &text, token, err);
    BASE_TRY(
        text_normalize(&e->tok->normalizers, &e->work, text, &e->normal, err));
    return text_added_scan(&e->tok->added, &e->tok->added.normal, e->plain,
                           e->normal.s, e->normal.n, encode_normal, e, err);
}

/* The post-processor's items; the text is encoded at its first place and
 * copied to any further one. */
static lori_status encode_items(encoding *e, bool special, lori_error *err)
{
    const text_post *post = &e->tok->post;
    size_t first = SIZE_MAX, length = 0;
    for (size_t i = 0; i < post->n; i++) {
        if (post->item[i] >= 0) {
            if (special)
                BASE_TRY(text_ids_add(e->out, post->item[i], err));
        } else if (first == SIZE_MAX) {
            first = e->out->n;
            BASE_TRY(text_added_scan(&e->tok->added, &e->tok->added.raw,
                                     e->plain, e->raw.s, e->raw.n, encode_raw,
                                     e, err));
            length = e->out->n - first;
        } else {
            for (size_t k = 0; k < length; k++)
                BASE_TRY(text_ids_add(e->out, e->out->ids[first + k], err));
        }
    }
    return LORI_OK;
}

static lori_status check_text(const char *s, size_t n, unsigned flags,
                              lori_error *err)
{
    if (flags & ~(unsigned)(TEXT_ADD_SPECIAL | TEXT_PLAIN | TEXT_BYTE_OFFSETS))
        return base_fail(err, LORI_INVALID, "unknown encode flags 0x%x", flags);
    if (n > TEXT_MAX_TEXT)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a text of %zu bytes; encode at most %zu at a time", n,
                         TEXT_MAX_TEXT);
    size_t valid = n ? base_utf8_valid(s, n) : 0;
    if (valid != n)
        return base_fail(err, LORI_FORMAT,
                         "the text is not UTF-8 at byte %zu (0x%02X)", valid,
                         (unsigned)(unsigned char)s[valid]);
    return LORI_OK;
}

/* Every byte of the user's text stands for its character. */
static lori_status fill_spans(encoding *e, text_span **spans, lori_error *err)
{
    const char *s = e->raw.s;
    *spans = base_alloc(e->raw.n, sizeof **spans);
    if (!*spans)
        return base_no_memory(err, e->raw.n * sizeof **spans);
    for (size_t i = 0; i < e->raw.n;) {
        uint32_t c;
        size_t end = i + (size_t)text_utf8_next(s + i, &c);
        text_span span = {(uint32_t)i, (uint32_t)end};
        while (i < end)
            (*spans)[i++] = span;
    }
    e->raw.span = *spans;
    return LORI_OK;
}

static lori_status encode(encoding *e, const char *s, size_t n, unsigned flags,
                          lori_error *err)
{
    text_span *spans = NULL;
    lori_status st = LORI_OK;
    e->raw = (text_slice){.s = s, .n = n};
    e->plain = (flags & TEXT_PLAIN) != 0;
    e->work.want_lengths = e->want_places;
    if (e->want_places || e->tok->needs_spans)
        st = fill_spans(e, &spans, err);
    if (st == LORI_OK)
        st = encode_items(e, (flags & TEXT_ADD_SPECIAL) != 0, err);
    text_work_free(&e->work);
    free(spans);
    return st;
}

lori_status text_encode(const text_tokenizer *tok, const char *s, size_t n,
                        unsigned flags, text_ids *out, lori_error *err)
{
    size_t before = out->n;
    encoding e = {.tok = tok, .out = out};
    BASE_TRY(check_text(s, n, flags, err));
    lori_status st = encode(&e, s, n, flags, err);
    if (st != LORI_OK)
        out->n = before;
    return st;
}

/* ---- offsets ----------------------------------------------------------- */

/* Characters of the text, and back: character of each byte, first byte of
 * each character; both have one more for the end. */
typedef struct positions {
    uint32_t *of_byte, *of_char;
    size_t n, n_chars;
} positions;

static lori_status positions_fill(const char *s, size_t n, positions *p,
                                  lori_error *err)
{
    *p = (positions){.of_byte = base_alloc(n + 1, sizeof(uint32_t)),
                     .of_char = base_alloc(n + 1, sizeof(uint32_t)),
                     .n = n};
    if (!p->of_byte || !p->of_char)
        return base_no_memory(err, (n + 1) * 2 * sizeof(uint32_t));
    for (size_t i = 0; i < n; p->n_chars++) {
        uint32_t c;
        size_t end = i + (size_t)text_utf8_next(s + i, &c);
        p->of_char[p->n_chars] = (uint32_t)i;
        while (i < end)
            p->of_byte[i++] = (uint32_t)p->n_chars;
    }
    p->of_byte[n] = p->of_char[p->n_chars] = (uint32_t)n;
    return LORI_OK;
}

/* Bytes to characters as the reference does: an end inside a character is
 * that character, a start at the end of the text stays as it is. */
static text_offset to_characters(const positions *p, text_span span)
{
    text_offset out = {span.first, span.end};
    if (span.first >= p->n)
        return out;
    out.start = p->of_byte[span.first];
    if (span.end < p->n)
        out.end = p->of_byte[span.end];
    else if (span.end >= 1 && span.end - 1 < p->n)
        out.end = (size_t)p->of_byte[span.end - 1] + 1;
    else
        out.end = out.start + 2;
    return out;
}

/* ByteLevel post-processors: white space that a token begins or ends with is
 * not part of its place, but for one space that may have been put in front of
 * the text. */
static void trim(const text_post *post, const place *p, bool first,
                 text_offset *at)
{
    for (size_t k = 0; k < post->n_trims; k++) {
        size_t lead = p->lead, trail = p->trail;
        if (lead > 0) {
            if (lead == 1 && (first || at->start == 0) && post->trim_prefix[k])
                lead = 0;
            at->start = at->start + lead < at->end ? at->start + lead : at->end;
        }
        if (trail > 0 && at->end >= trail)
            at->end = at->end - trail > at->start ? at->end - trail : at->start;
    }
}

static void to_bytes(const positions *p, text_offset *at)
{
    at->start = p->of_char[at->start < p->n_chars ? at->start : p->n_chars];
    at->end = p->of_char[at->end < p->n_chars ? at->end : p->n_chars];
}

/* One offset for each of the ids from `first` on: those of the template have
 * none. */
static void place_ids(const encoding *e, const positions *p, unsigned flags,
                      text_offset *out)
{
    const text_post *post = &e->tok->post;
    size_t at = 0;
    for (size_t i = 0; i < post->n; i++) {
        if (post->item[i] >= 0) {
            if (flags & TEXT_ADD_SPECIAL)
                out[at++] = (text_offset){0, 0};
            continue;
        }
        for (size_t k = 0; k < e->n_places; k++, at++) {
            out[at] = to_characters(p, e->place[k].span);
            trim(post, &e->place[k], k == 0, &out[at]);
            if (flags & TEXT_BYTE_OFFSETS)
                to_bytes(p, &out[at]);
        }
    }
}

size_t text_suffix(const text_tokenizer *tok)
{
    const text_post *post = &tok->post;
    size_t n = 0;
    while (n < post->n && post->item[post->n - 1 - n] >= 0)
        n++;
    return n;
}

lori_status text_encode_offsets(const text_tokenizer *tok, const char *s,
                                size_t n, unsigned flags, text_ids *out,
                                text_offset **offsets, lori_error *err)
{
    size_t before = out->n;
    encoding e = {.tok = tok, .out = out, .want_places = true};
    positions p = {0};
    *offsets = NULL;
    BASE_TRY(check_text(s, n, flags, err));
    lori_status st = encode(&e, s, n, flags, err);
    if (st == LORI_OK)
        st = positions_fill(s, n, &p, err);
    if (st == LORI_OK &&
        !(*offsets = base_alloc(out->n - before, sizeof **offsets)))
        st = base_no_memory(err, (out->n - before) * sizeof **offsets);
    if (st == LORI_OK)
        place_ids(&e, &p, flags, *offsets);
    else
        out->n = before;
    free(e.place);
    free(p.of_byte);
    free(p.of_char);
    return st;
}
