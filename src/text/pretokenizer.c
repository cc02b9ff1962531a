/* pretokenizer.c - cuts a text into the pieces that the model sees: Split,
 * Digits, ByteLevel and sequences of them. Every other type is refused by
 * name; a new one is a row of `kinds`, made of the steps below.
 * Includes base, format. Source: spec/text.md 1.3. */
#include <stdio.h>
#include <stdlib.h>

#include "text/text_i.h"

static const char GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
    "\\s+(?!\\S)|\\s+";

/* ---- loading ----------------------------------------------------------- */

static lori_status add_step(text_pretokenizer *p, text_step step,
                            lori_error *err)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 8;
        text_step *grown = base_resize(p->step, cap, sizeof *grown);
        if (!grown) {
            text_regex_free(step.regex);
            return base_no_memory(err, cap * sizeof *grown);
        }
        p->step = grown;
        p->cap = cap;
    }
    p->step[p->n++] = step;
    return LORI_OK;
}

static lori_status add_split(text_pretokenizer *p, const char *pattern,
                             size_t n, bool literal, text_step step,
                             const char *file, lori_error *err)
{
    char where[256];
    snprintf(where, sizeof where, "%.200s: pre_tokenizer step %zu", file, p->n);
    BASE_TRY(text_regex_new(pattern, n, literal, where, &step.regex, err));
    return add_step(p, step, err);
}

static lori_status parse_byte_level(const json_t *json, const char *file,
                                    text_pretokenizer *out, lori_error *err)
{
    bool prefix = false, regex = true;
    BASE_TRY(
        format_get_bool(json, file, "add_prefix_space", true, &prefix, err));
    BASE_TRY(format_get_bool(json, file, "use_regex", false, &regex, err));
    if (prefix)
        BASE_TRY(add_step(out, (text_step){.kind = TEXT_PREFIX_SPACE}, err));
    if (regex)
        BASE_TRY(add_split(
            out, GPT2_PATTERN, sizeof GPT2_PATTERN - 1, false,
            (text_step){.kind = TEXT_SPLIT, .behavior = TEXT_ISOLATED}, file,
            err));
    return add_step(out, (text_step){.kind = TEXT_BYTE_MAP}, err);
}

static lori_status parse_split(const json_t *json, const char *file,
                               text_pretokenizer *out, lori_error *err)
{
    static const char *const behaviors[] = {"Isolated", "Removed", "Contiguous",
                                            "MergedWithPrevious",
                                            "MergedWithNext"};
    text_step step = {.kind = TEXT_SPLIT};
    const char *behavior = NULL;
    size_t k = 0;
    BASE_TRY(format_get_str(json, file, "behavior", true, &behavior, err));
    BASE_TRY(format_get_bool(json, file, "invert", false, &step.invert, err));
    while (k < 5 && strcmp(behavior, behaviors[k]) != 0)
        k++;
    if (k == 5)
        return text_unsupported(file, "Split behavior", behavior,
                                "Isolated, Removed, Contiguous, "
                                "MergedWithPrevious, MergedWithNext",
                                err);
    step.behavior = (text_behavior)k;
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *text = json_object_get(pattern, "String");
    const json_t *regex = json_object_get(pattern, "Regex");
    if (json_is_string(text) == json_is_string(regex))
        return base_fail(err, LORI_FORMAT,
                         "%s: the pattern of a Split pre-tokenizer is neither "
                         "{\"String\": ...} nor {\"Regex\": ...}",
                         file);
    const json_t *s = json_is_string(text) ? text : regex;
    return add_split(out, json_string_value(s), json_string_length(s),
                     s == text, step, file, err);
}

static lori_status parse_digits(const json_t *json, const char *file,
                                text_pretokenizer *out, lori_error *err)
{
    bool individual = false;
    BASE_TRY(format_get_bool(json, file, "individual_digits", true, &individual,
                             err));
    return add_step(
        out,
        (text_step){.kind = TEXT_DIGITS,
                    .behavior = individual ? TEXT_ISOLATED : TEXT_CONTIGUOUS},
        err);
}

static lori_status parse_any(const json_t *json, const char *file,
                             text_pretokenizer *out, lori_error *err);

static lori_status parse_sequence(const json_t *json, const char *file,
                                  text_pretokenizer *out, lori_error *err)
{
    const json_t *list = json_object_get(json, "pretokenizers");
    if (!json_is_array(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: a pre-tokenizer Sequence without a list of "
                         "pretokenizers",
                         file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(parse_any(json_array_get(list, i), file, out, err));
    return LORI_OK;
}

static const struct {
    const char *type;
    lori_status (*parse)(const json_t *json, const char *file,
                         text_pretokenizer *out, lori_error *err);
} kinds[] = {
    {"Sequence", parse_sequence},
    {"Split", parse_split},
    {"Digits", parse_digits},
    {"ByteLevel", parse_byte_level},
};

static lori_status parse_any(const json_t *json, const char *file,
                             text_pretokenizer *out, lori_error *err)
{
    const char *type;
    BASE_TRY(text_component_type(json, file, "pre-tokenizer", &type, err));
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (strcmp(type, kinds[k].type) == 0)
            return kinds[k].parse(json, file, out, err);
    return text_unsupported(file, "pre-tokenizer", type,
                            "ByteLevel, Digits, Sequence, Split", err);
}

lori_status text_pretokenizer_parse(const json_t *json, const char *file,
                                    text_pretokenizer *out, lori_error *err)
{
    if (!json || json_is_null(json))
        return LORI_OK;
    BASE_TRY(parse_any(json, file, out, err));
    if (out->n && out->step[out->n - 1].kind == TEXT_BYTE_MAP) {
        /* The usual end: the model reads the bytes themselves. */
        out->n--;
        out->bytes = true;
    }
    return LORI_OK;
}

void text_pretokenizer_free(text_pretokenizer *pretokenizer)
{
    for (size_t i = 0; i < pretokenizer->n; i++)
        text_regex_free(pretokenizer->step[i].regex);
    free(pretokenizer->step);
    *pretokenizer = (text_pretokenizer){0};
}

/* ---- running ----------------------------------------------------------- */

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

static lori_status split_regex(splitter *sp, const text_regex *regex,
                               text_matcher *matcher, const char *s, size_t n)
{
    size_t done = 0, from = 0, last_end = SIZE_MAX, start, end;
    /* At the end only an empty match is left, which changes nothing. */
    while (from < n) {
        bool found;
        BASE_TRY(text_regex_find(regex, matcher, s, n, from, &found, &start,
                                 &end, sp->err));
        if (!found)
            break;
        if (start == end && end == last_end) {
            /* No empty match right after a match: step over a character. */
            uint32_t c;
            from += (size_t)text_utf8_next(s + from, &c);
            continue;
        }
        from = last_end = end;
        if (done < start)
            BASE_TRY(add_part(sp, done, start, false));
        BASE_TRY(add_part(sp, start, end, true));
        done = end;
    }
    return done < n ? add_part(sp, done, n, false) : LORI_OK;
}

static lori_status split_digits(splitter *sp, const char *s, size_t n)
{
    size_t done = 0, i = 0;
    while (i < n) {
        uint32_t c;
        size_t at = i;
        i += (size_t)text_utf8_next(s + i, &c);
        if (!text_is_numeric(c))
            continue;
        if (done < at)
            BASE_TRY(add_part(sp, done, at, false));
        BASE_TRY(add_part(sp, at, i, true));
        done = i;
    }
    return done < n ? add_part(sp, done, n, false) : LORI_OK;
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
        const char *s = text + piece.at;
        if (step->kind == TEXT_SPLIT)
            BASE_TRY(split_regex(&sp, step->regex, work->matcher, s, piece.n));
        else
            BASE_TRY(split_digits(&sp, s, piece.n));
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

/* Steps that change the bytes of every piece: a space in front, or the byte
 * alphabet. The new text goes to the buffer that `text` is not in. */
static lori_status rewrite_pieces(const text_step *step, text_work *work,
                                  const char **text, lori_error *err)
{
    base_str *out = &work->buffer[*text == work->buffer[0].s ? 1 : 0];
    base_str_clear(out);
    for (size_t i = 0; i < work->pieces.n; i++) {
        text_piece *piece = &work->pieces.p[i];
        const char *s = *text + piece->at;
        size_t at = out->len;
        if (step->kind == TEXT_PREFIX_SPACE) {
            if (s[0] != ' ')
                base_str_add(out, " ", 1);
            base_str_add(out, s, piece->n);
        } else {
            for (size_t k = 0; k < piece->n; k++) {
                char bytes[4];
                int n = text_utf8_put(text_byte_char((uint8_t)s[k]), bytes);
                base_str_add(out, bytes, (size_t)n);
            }
        }
        if (out->failed)
            return base_no_memory(err, out->len);
        if (out->len > TEXT_MAX_TEXT)
            return base_fail(err, LORI_UNSUPPORTED,
                             "a text of more than %zu bytes", TEXT_MAX_TEXT);
        *piece = (text_piece){(uint32_t)at, (uint32_t)(out->len - at)};
    }
    if (out->s)
        *text = out->s;
    return LORI_OK;
}

lori_status text_pretokenize(const text_pretokenizer *pretokenizer,
                             text_work *work, const char *s, size_t n,
                             const char **out, lori_error *err)
{
    work->pieces.n = 0;
    BASE_TRY(text_pieces_add(&work->pieces, 0, n, err));
    for (size_t i = 0; i < pretokenizer->n; i++) {
        const text_step *step = &pretokenizer->step[i];
        if (step->kind == TEXT_SPLIT || step->kind == TEXT_DIGITS)
            BASE_TRY(cut_pieces(step, work, s, err));
        else
            BASE_TRY(rewrite_pieces(step, work, &s, err));
    }
    *out = s;
    return LORI_OK;
}
