/* pretokenizer.c - reads the pre-tokenizer of tokenizer.json into the steps
 * that pieces.c runs. A type that is not in `kinds` is refused by name.
 * Includes base, format. Source: spec/text.md 1.3. */
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

/* `behavior`: the default, when the file need not say it, else -1. */
static lori_status read_behavior(const json_t *json, const char *file,
                                 int otherwise, text_behavior *out,
                                 lori_error *err)
{
    static const char *const behaviors[] = {"Isolated", "Removed", "Contiguous",
                                            "MergedWithPrevious",
                                            "MergedWithNext"};
    const char *behavior = otherwise < 0 ? NULL : behaviors[otherwise];
    size_t k = 0;
    BASE_TRY(
        format_get_str(json, file, "behavior", otherwise < 0, &behavior, err));
    while (k < 5 && strcmp(behavior, behaviors[k]) != 0)
        k++;
    if (k == 5)
        return text_unsupported(file, "split behavior", behavior,
                                "Isolated, Removed, Contiguous, "
                                "MergedWithPrevious, MergedWithNext",
                                err);
    *out = (text_behavior)k;
    return LORI_OK;
}

static lori_status parse_split(const json_t *json, const char *file,
                               text_pretokenizer *out, lori_error *err)
{
    text_step step = {.kind = TEXT_SPLIT};
    BASE_TRY(read_behavior(json, file, -1, &step.behavior, err));
    BASE_TRY(format_get_bool(json, file, "invert", false, &step.invert, err));
    const json_t *s;
    bool literal;
    BASE_TRY(text_pattern_parse(json, file, "Split pre-tokenizer", &s, &literal,
                                err));
    return add_split(out, json_string_value(s), json_string_length(s), literal,
                     step, file, err);
}

static bool is_numeric(uint32_t c, uint32_t delimiter)
{
    (void)delimiter;
    return text_is_numeric(c);
}

static bool is_punctuation(uint32_t c, uint32_t delimiter)
{
    (void)delimiter;
    return text_is_punctuation(c);
}

static bool is_space(uint32_t c, uint32_t delimiter)
{
    (void)delimiter;
    return text_is_white_space(c);
}

static bool is_delimiter(uint32_t c, uint32_t delimiter)
{
    return c == delimiter;
}

static lori_status parse_digits(const json_t *json, const char *file,
                                text_pretokenizer *out, lori_error *err)
{
    bool individual = false;
    BASE_TRY(format_get_bool(json, file, "individual_digits", true, &individual,
                             err));
    return add_step(
        out,
        (text_step){.kind = TEXT_SPLIT_CHARS,
                    .is = is_numeric,
                    .behavior = individual ? TEXT_ISOLATED : TEXT_CONTIGUOUS},
        err);
}

static lori_status parse_punctuation(const json_t *json, const char *file,
                                     text_pretokenizer *out, lori_error *err)
{
    text_step step = {.kind = TEXT_SPLIT_CHARS, .is = is_punctuation};
    BASE_TRY(read_behavior(json, file, TEXT_ISOLATED, &step.behavior, err));
    return add_step(out, step, err);
}

static lori_status parse_white_space(const json_t *json, const char *file,
                                     text_pretokenizer *out, lori_error *err)
{
    (void)json;
    (void)file;
    return add_step(out,
                    (text_step){.kind = TEXT_SPLIT_WORDS,
                                .behavior = TEXT_REMOVED,
                                .invert = true},
                    err);
}

static lori_status parse_white_space_split(const json_t *json, const char *file,
                                           text_pretokenizer *out,
                                           lori_error *err)
{
    (void)json;
    (void)file;
    return add_step(out,
                    (text_step){.kind = TEXT_SPLIT_CHARS,
                                .is = is_space,
                                .behavior = TEXT_REMOVED},
                    err);
}

lori_status text_char_parse(const json_t *json, const char *file,
                            const char *key, uint32_t *c, lori_error *err)
{
    const char *s = NULL;
    BASE_TRY(format_get_str(json, file, key, true, &s, err));
    size_t n = json_string_length(json_object_get(json, key));
    if (n == 0 || (size_t)text_utf8_next(s, c) != n)
        return base_fail(err, LORI_FORMAT, "%s: '%s' is not one character",
                         file, key);
    return LORI_OK;
}

static lori_status parse_delimiter(const json_t *json, const char *file,
                                   text_pretokenizer *out, lori_error *err)
{
    text_step step = {
        .kind = TEXT_SPLIT_CHARS, .is = is_delimiter, .behavior = TEXT_REMOVED};
    BASE_TRY(text_char_parse(json, file, "delimiter", &step.delimiter, err));
    return add_step(out, step, err);
}

static lori_status parse_length(const json_t *json, const char *file,
                                text_pretokenizer *out, lori_error *err)
{
    int64_t length = 5;
    BASE_TRY(format_get_i64(json, file, "length", false, 1, INT32_MAX, &length,
                            err));
    return add_step(
        out, (text_step){.kind = TEXT_SPLIT_LENGTH, .length = (uint32_t)length},
        err);
}

lori_status text_scheme_parse(const json_t *json, const char *file,
                              const char *what, enum text_scheme *scheme,
                              lori_error *err)
{
    static const char *const schemes[] = {"always", "first", "never"};
    const char *name = schemes[TEXT_PREPEND_ALWAYS];
    bool prefix = true;
    unsigned k = 0;
    BASE_TRY(format_get_str(json, file, "prepend_scheme", false, &name, err));
    BASE_TRY(
        format_get_bool(json, file, "add_prefix_space", false, &prefix, err));
    while (k < 3 && strcmp(name, schemes[k]) != 0)
        k++;
    if (k == 3)
        return text_unsupported(file, "prepend_scheme", name,
                                "always, first, never", err);
    /* A file of before the schemes; the reference refuses it too. */
    if (!prefix && k != TEXT_PREPEND_NEVER)
        return base_fail(err, LORI_FORMAT,
                         "%s: %s Metaspace has add_prefix_space false, but "
                         "prepend_scheme '%s': write 'never'",
                         file, what, name);
    *scheme = k;
    return LORI_OK;
}

static lori_status parse_metaspace(const json_t *json, const char *file,
                                   text_pretokenizer *out, lori_error *err)
{
    text_step step = {.kind = TEXT_METASPACE};
    bool split = true;
    enum text_scheme scheme = TEXT_PREPEND_ALWAYS;
    BASE_TRY(text_char_parse(json, file, "replacement", &step.delimiter, err));
    BASE_TRY(text_scheme_parse(json, file, "pre-tokenizer", &scheme, err));
    BASE_TRY(format_get_bool(json, file, "split", false, &split, err));
    step.scheme = scheme;
    BASE_TRY(add_step(out, step, err));
    if (!split)
        return LORI_OK;
    return add_step(out,
                    (text_step){.kind = TEXT_SPLIT_CHARS,
                                .is = is_delimiter,
                                .delimiter = step.delimiter,
                                .behavior = TEXT_MERGED_WITH_NEXT},
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
    {"Metaspace", parse_metaspace},
    {"Punctuation", parse_punctuation},
    {"Whitespace", parse_white_space},
    {"WhitespaceSplit", parse_white_space_split},
    {"CharDelimiterSplit", parse_delimiter},
    {"FixedLength", parse_length},
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
                            "ByteLevel, CharDelimiterSplit, Digits, "
                            "FixedLength, Metaspace, Punctuation, Sequence, "
                            "Split, Whitespace, WhitespaceSplit",
                            err);
}

lori_status text_pretokenizer_parse(const json_t *json, const char *file,
                                    text_pretokenizer *out, lori_error *err)
{
    bool changed = false; /* an earlier step changes bytes */
    if (!json || json_is_null(json))
        return LORI_OK;
    BASE_TRY(parse_any(json, file, out, err));
    for (size_t i = 0; i < out->n; i++) {
        const text_step *step = &out->step[i];
        if (step->kind == TEXT_METASPACE &&
            step->scheme == TEXT_PREPEND_FIRST) {
            out->has_first = true;
            out->needs_spans = out->needs_spans || changed;
        }
        changed = changed || step->kind == TEXT_METASPACE ||
                  step->kind == TEXT_PREFIX_SPACE ||
                  step->kind == TEXT_BYTE_MAP;
    }
    return LORI_OK;
}

bool text_pretokenizer_raw(text_pretokenizer *p)
{
    if (p->n == 0 || p->step[p->n - 1].kind != TEXT_BYTE_MAP)
        return false;
    p->n--;
    return true;
}

void text_pretokenizer_free(text_pretokenizer *pretokenizer)
{
    for (size_t i = 0; i < pretokenizer->n; i++)
        text_regex_free(pretokenizer->step[i].regex);
    free(pretokenizer->step);
    *pretokenizer = (text_pretokenizer){0};
}
