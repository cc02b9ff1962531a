/* decoder.c - reads the decoder of tokenizer.json: none (tokens joined by
 * spaces), or steps that change each token, or all of them at once. Every
 * other type, and an order that cannot be run, is refused by name.
 * Includes base, format. Source: spec/text.md 1.6. */
#include <stdlib.h>

#include "text/text_i.h"

typedef lori_status parse_step(const json_t *json, const char *file,
                               text_decode_step *step, lori_error *err);

static lori_status parse_nothing(const json_t *json, const char *file,
                                 text_decode_step *step, lori_error *err)
{
    (void)json;
    (void)file;
    (void)step;
    (void)err;
    return LORI_OK;
}

static lori_status read_mark(const json_t *json, const char *file,
                             const char *key, text_decode_step *step,
                             lori_error *err)
{
    uint32_t c = 0;
    BASE_TRY(text_char_parse(json, file, key, &c, err));
    step->n_mark = (size_t)text_utf8_put(c, step->mark);
    return LORI_OK;
}

static lori_status parse_strip(const json_t *json, const char *file,
                               text_decode_step *step, lori_error *err)
{
    int64_t start = 0, stop = 0;
    BASE_TRY(read_mark(json, file, "content", step, err));
    BASE_TRY(
        format_get_i64(json, file, "start", true, 0, INT32_MAX, &start, err));
    BASE_TRY(
        format_get_i64(json, file, "stop", true, 0, INT32_MAX, &stop, err));
    step->start = (size_t)start;
    step->stop = (size_t)stop;
    return LORI_OK;
}

static lori_status parse_replace(const json_t *json, const char *file,
                                 text_decode_step *step, lori_error *err)
{
    const json_t *string;
    const char *content = NULL;
    char where[256];
    bool literal;
    BASE_TRY(format_get_str(json, file, "content", true, &content, err));
    step->n_content = json_string_length(json_object_get(json, "content"));
    step->content = base_strndup(content, step->n_content);
    if (!step->content)
        return base_no_memory(err, step->n_content);
    BASE_TRY(text_pattern_parse(json, file, "Replace decoder", &string,
                                &literal, err));
    const char *s = json_string_value(string);
    size_t n = json_string_length(string);
    snprintf(where, sizeof where, "%.200s: decoder Replace", file);
    if (!literal || n == 0)
        return text_regex_new(s, n, literal, where, &step->pattern, err);
    step->n_literal = n;
    step->literal = base_strndup(s, n);
    return step->literal ? LORI_OK : base_no_memory(err, n);
}

static lori_status parse_metaspace(const json_t *json, const char *file,
                                   text_decode_step *step, lori_error *err)
{
    enum text_scheme scheme = TEXT_PREPEND_ALWAYS;
    BASE_TRY(read_mark(json, file, "replacement", step, err));
    BASE_TRY(text_scheme_parse(json, file, "decoder", &scheme, err));
    step->keep_first = scheme == TEXT_PREPEND_NEVER;
    return LORI_OK;
}

static const struct {
    const char *type;
    enum text_decode_kind kind;
    parse_step *parse;
} kinds[] = {
    {"ByteFallback", TEXT_DECODE_FALLBACK, parse_nothing},
    {"ByteLevel", TEXT_DECODE_BYTES, parse_nothing},
    {"Fuse", TEXT_DECODE_FUSE, parse_nothing},
    {"Metaspace", TEXT_DECODE_METASPACE, parse_metaspace},
    {"Replace", TEXT_DECODE_REPLACE, parse_replace},
    {"Strip", TEXT_DECODE_STRIP, parse_strip},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static lori_status add_kind(size_t k, const json_t *json, const char *file,
                            text_decoder *out, lori_error *err)
{
    text_decode_step *step = base_resize(out->step, out->n + 1, sizeof *step);
    if (!step)
        return base_no_memory(err, (out->n + 1) * sizeof *step);
    out->step = step;
    step += out->n++;
    *step = (text_decode_step){.kind = kinds[k].kind};
    lori_status st = kinds[k].parse(json, file, step, err);
    return st == LORI_OK ? st
                         : base_prefix(err, st, "decoder %s", kinds[k].type);
}

static lori_status add_step(const json_t *json, const char *file,
                            text_decoder *out, lori_error *err)
{
    const char *type;
    BASE_TRY(text_component_type(json, file, "decoder", &type, err));
    for (size_t k = 0; k < N_KINDS; k++)
        if (strcmp(type, kinds[k].type) == 0)
            return add_kind(k, json, file, out, err);
    if (strcmp(type, "Sequence") != 0)
        return text_unsupported(file, "decoder", type,
                                "ByteFallback, ByteLevel, Fuse, Metaspace, "
                                "Replace, Sequence, Strip",
                                err);
    const json_t *list = json_object_get(json, "decoders");
    if (!json_is_array(list))
        return base_fail(err, LORI_FORMAT,
                         "%s: a decoder Sequence without a list of decoders",
                         file);
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(add_step(json_array_get(list, i), file, out, err));
    return LORI_OK;
}

/* Steps on tokens, then at most one ByteFallback, then what makes one text of
 * all, then steps on that text. */
static lori_status check_order(text_decoder *d, const char *file,
                               lori_error *err)
{
    bool fallback = false;
    d->fused = d->n;
    for (size_t i = 0; i < d->n; i++) {
        enum text_decode_kind kind = d->step[i].kind;
        bool fuses = kind == TEXT_DECODE_FUSE || kind == TEXT_DECODE_BYTES;
        if (fuses && d->fused == d->n)
            d->fused = i;
        bool after = d->fused < i;
        bool bad = (after && (kind == TEXT_DECODE_BYTES ||
                              kind == TEXT_DECODE_FALLBACK ||
                              kind == TEXT_DECODE_METASPACE)) ||
                   (fallback && !after && !fuses) ||
                   (fallback && kind == TEXT_DECODE_BYTES);
        if (bad)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: decoder: %s is not supported at this place "
                             "(step %zu)",
                             file, kinds[kind].type, i);
        fallback = fallback || kind == TEXT_DECODE_FALLBACK;
        if (after && kind != TEXT_DECODE_FUSE)
            d->needs_all = d->needs_all || kind != TEXT_DECODE_STRIP ||
                           d->step[i].stop > 0 || d->strips;
        if (after && kind == TEXT_DECODE_STRIP) {
            d->strips = true;
            d->strip_at = i;
        }
    }
    return LORI_OK;
}

lori_status text_decoder_parse(const json_t *json, const char *file,
                               text_decoder *out, lori_error *err)
{
    out->spaces = !json || json_is_null(json);
    if (out->spaces)
        return LORI_OK;
    BASE_TRY(add_step(json, file, out, err));
    return check_order(out, file, err);
}

void text_decoder_free(text_decoder *decoder)
{
    for (size_t i = 0; i < decoder->n; i++) {
        text_regex_free(decoder->step[i].pattern);
        free(decoder->step[i].literal);
        free(decoder->step[i].content);
    }
    free(decoder->step);
    *decoder = (text_decoder){0};
}
