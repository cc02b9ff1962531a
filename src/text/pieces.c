/* pieces.c - runs the pre-tokenizer: steps that cut a text into pieces, and
 * steps that change the bytes of every piece. Includes base only.
 * Source: huggingface/tokenizers pre_tokenizers; spec/text.md 1.3. */
#include <stdlib.h>

#include "text/text_i.h"

/* ---- cutting ----------------------------------------------------------- */

lori_status text_pieces_add(text_pieces *pieces, size_t at, size_t n,
                            lori_error *err)
{
    if (pieces->n == pieces->cap) {
        size_t cap = pieces->cap ? 2 * pieces->cap : 64;
        text_piece *p = base_resize(pieces->p, cap, sizeof *p);
        if (!p)
            return base_no_memory(err, cap * sizeof *p);
        pieces->p = p;
        pieces->cap = cap;
    }
    pieces->p[pieces->n++] = (text_piece){(uint32_t)at, (uint32_t)n};
    return LORI_OK;
}

/* How the matches and gaps of one piece become pieces. */
typedef struct splitter {
    text_behavior behavior;
    bool invert;
    size_t base;      /* of the piece in the text */
    size_t first;     /* of this piece's output in `out` */
    bool after_match; /* the previous part was a match */
    text_pieces *out;
    lori_error *err;
} splitter;

/* The next part [start, end) of the piece; parts come in order. An empty part
 * still counts as what stands before the next one. */
static lori_status add_part(splitter *sp, size_t start, size_t end, bool match)
{
    text_pieces *out = sp->out;
    bool before = sp->after_match, join = false;
    match = match != sp->invert;
    sp->after_match = match;
    switch (sp->behavior) {
    case TEXT_ISOLATED:
        break;
    case TEXT_REMOVED:
        if (match)
            return LORI_OK;
        break;
    case TEXT_CONTIGUOUS:
        join = match == before;
        break;
    case TEXT_MERGED_WITH_PREVIOUS:
        join = match && !before;
        break;
    case TEXT_MERGED_WITH_NEXT:
        join = before && !match;
        break;
    }
    if (join && out->n > sp->first) {
        out->p[out->n - 1].n += (uint32_t)(end - start);
        return LORI_OK;
    }
    return text_pieces_add(out, sp->base + start, end - start, sp->err);
}

/* A match [start, end), after the gap that began at *done. */
static lori_status add_match(splitter *sp, size_t *done, size_t start,
                             size_t end)
{
    if (*done < start)
        BASE_TRY(add_part(sp, *done, start, false));
    *done = end;
    return add_part(sp, start, end, true);
}

static lori_status split_regex(splitter *sp, const text_regex *regex,
                               text_matcher *matcher, const char *s, size_t n)
{
    text_matches matches = {.regex = regex, .s = s, .n = n};
    size_t done = 0, start, end;
    for (;;) {
        bool found;
        BASE_TRY(
            text_regex_next(&matches, matcher, &found, &start, &end, sp->err));
        if (!found)
            break;
        BASE_TRY(add_match(sp, &done, start, end));
    }
    return done < n ? add_part(sp, done, n, false) : LORI_OK;
}

static lori_status split_chars(splitter *sp, const text_step *step,
                               const char *s, size_t n)
{
    size_t done = 0, i = 0;
    while (i < n) {
        uint32_t c;
        size_t at = i;
        i += (size_t)text_utf8_next(s + i, &c);
        if (step->is(c, step->delimiter))
            BASE_TRY(add_match(sp, &done, at, i));
    }
    return done < n ? add_part(sp, done, n, false) : LORI_OK;
}

static int word_class(uint32_t c)
{
    return text_is_word(c) ? 1 : text_is_white_space(c) ? 0 : 2;
}

/* Runs of word characters, and of what is neither that nor white space. */
static lori_status split_words(splitter *sp, const char *s, size_t n)
{
    size_t done = 0, i = 0, start = 0;
    int class = 0;
    while (i < n) {
        uint32_t c;
        size_t at = i;
        i += (size_t)text_utf8_next(s + i, &c);
        int next = word_class(c);
        if (next == class)
            continue;
        if (class)
            BASE_TRY(add_match(sp, &done, start, at));
        class = next;
        start = at;
    }
    if (class)
        BASE_TRY(add_match(sp, &done, start, n));
    return done < n ? add_part(sp, done, n, false) : LORI_OK;
}

static lori_status split_length(splitter *sp, uint32_t length, const char *s,
                                size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t start = i;
        uint32_t c;
        for (uint32_t k = 0; k < length && i < n; k++)
            i += (size_t)text_utf8_next(s + i, &c);
        BASE_TRY(
            text_pieces_add(sp->out, sp->base + start, i - start, sp->err));
    }
    return LORI_OK;
}

static lori_status cut_piece(splitter *sp, const text_step *step,
                             text_matcher *matcher, const char *s, size_t n)
{
    switch (step->kind) {
    case TEXT_SPLIT:
        return split_regex(sp, step->regex, matcher, s, n);
    case TEXT_SPLIT_CHARS:
        return split_chars(sp, step, s, n);
    case TEXT_SPLIT_WORDS:
        return split_words(sp, s, n);
    case TEXT_SPLIT_LENGTH:
        return split_length(sp, step->length, s, n);
    case TEXT_PREFIX_SPACE:
    case TEXT_METASPACE:
    case TEXT_BYTE_MAP:
        break;
    }
    return text_pieces_add(sp->out, sp->base, n, sp->err);
}

/* Cuts every piece; drops what is empty. */
static lori_status cut_pieces(const text_step *step, text_work *work,
                              const char *text, lori_error *err)
{
    text_pieces *out = &work->spare;
    out->n = 0;
    if (step->kind == TEXT_SPLIT && !work->matcher)
        BASE_TRY(text_matcher_new(&work->matcher, err));
    for (size_t i = 0; i < work->pieces.n; i++) {
        text_piece piece = work->pieces.p[i];
        splitter sp = {.behavior = step->behavior,
                       .invert = step->invert,
                       .base = piece.at,
                       .first = out->n,
                       .out = out,
                       .err = err};
        BASE_TRY(cut_piece(&sp, step, work->matcher, text + piece.at, piece.n));
        size_t kept = sp.first;
        for (size_t k = sp.first; k < out->n; k++)
            if (out->p[k].n)
                out->p[kept++] = out->p[k];
        out->n = kept;
    }
    text_pieces swap = work->pieces;
    work->pieces = work->spare;
    work->spare = swap;
    return LORI_OK;
}

/* ---- changing ---------------------------------------------------------- */

/* s[0..n) in front of the piece; it stands for the first character, `length`
 * bytes of the source, which itself is written by the caller. */
static void put_front(text_edit *edit, const char *s, size_t n, size_t length)
{
    text_edit_put(edit, s, n, length);
    edit->at = 0;
}

static void prefix_space(text_edit *edit)
{
    uint32_t c;
    if (edit->from.s[0] != ' ')
        put_front(edit, " ", 1, (size_t)text_utf8_next(edit->from.s, &c));
    text_edit_keep(edit, edit->from.n);
}

/* Whether the piece is the beginning of the user's text. */
static bool begins_text(const text_slice *piece)
{
    return piece->span ? piece->span[0].first == 0 : piece->origin == 0;
}

static void metaspace(text_edit *edit, const text_step *step)
{
    char mark[4];
    const char *s = edit->from.s;
    size_t n_mark = (size_t)text_utf8_put(step->delimiter, mark);
    uint32_t first;
    size_t length = (size_t)text_utf8_next(s, &first);
    bool marked = first == step->delimiter || first == ' ';
    if (!marked &&
        (step->scheme == TEXT_PREPEND_ALWAYS ||
         (step->scheme == TEXT_PREPEND_FIRST && begins_text(&edit->from))))
        put_front(edit, mark, n_mark, length);
    const char *space;
    while (edit->at < edit->from.n &&
           (space = memchr(s + edit->at, ' ', edit->from.n - edit->at))) {
        text_edit_keep(edit, (size_t)(space - s) - edit->at);
        text_edit_put(edit, mark, n_mark, 1);
    }
    text_edit_keep(edit, edit->from.n - edit->at);
}

static void byte_map(text_edit *edit)
{
    while (edit->at < edit->from.n) {
        char bytes[4];
        uint8_t byte = (uint8_t)edit->from.s[edit->at];
        int n = text_utf8_put(text_byte_char(byte), bytes);
        text_edit_put(edit, bytes, (size_t)n, 1);
    }
}

/* Writes every piece anew, to the buffer that `text` is not in. */
static lori_status rewrite_pieces(const text_step *step, text_work *work,
                                  text_slice *text, lori_error *err)
{
    bool second = text->s == work->buffer[0].text.s;
    text_buffer *out = &work->buffer[second];
    text_slice whole = {.s = ""};
    base_str_clear(&out->text);
    for (size_t i = 0; i < work->pieces.n; i++) {
        text_piece *piece = &work->pieces.p[i];
        size_t at = out->text.len;
        text_edit edit = {.from = text_slice_part(text, piece->at, piece->n),
                          .out = out};
        if (step->kind == TEXT_PREFIX_SPACE)
            prefix_space(&edit);
        else if (step->kind == TEXT_METASPACE)
            metaspace(&edit, step);
        else
            byte_map(&edit);
        BASE_TRY(text_edit_end(&edit, 0, &whole, err));
        *piece = (text_piece){(uint32_t)at, (uint32_t)(out->text.len - at)};
    }
    if (work->pieces.n)
        *text = whole;
    return LORI_OK;
}

lori_status text_pretokenize(const text_pretokenizer *pretokenizer,
                             text_work *work, text_slice in, text_slice *out,
                             lori_error *err)
{
    work->pieces.n = 0;
    BASE_TRY(text_pieces_add(&work->pieces, 0, in.n, err));
    for (size_t i = 0; i < pretokenizer->n; i++) {
        const text_step *step = &pretokenizer->step[i];
        if (step->kind == TEXT_PREFIX_SPACE || step->kind == TEXT_METASPACE ||
            step->kind == TEXT_BYTE_MAP)
            BASE_TRY(rewrite_pieces(step, work, &in, err));
        else
            BASE_TRY(cut_pieces(step, work, in.s, err));
    }
    *out = in;
    return LORI_OK;
}
