/* normalizer.c - the normalizers of tokenizer.json: none, NFC, NFD, Prepend,
 * Replace, Strip, sequences. Every other type is refused by name. A new one is
 * a row of `kinds`. Includes base, format. Source: spec/text.md 1.2. */
#include <stdlib.h>

#include "text/text_i.h"

typedef lori_status run_step(const text_normalizer *step, text_work *work,
                             text_edit *edit, lori_error *err);

struct text_normalizer_kind {
    const char *type;
    lori_status (*parse)(const json_t *json, const char *file,
                         text_normalizer *step, lori_error *err);
    /* Whether s would come out unchanged (cheap, may say no when it would). */
    bool (*skip)(const text_normalizer *step, const char *s, size_t n);
    run_step *run;
};

/* ---- NFC, NFD ---------------------------------------------------------- */

static lori_status parse_nothing(const json_t *json, const char *file,
                                 text_normalizer *step, lori_error *err)
{
    (void)json;
    (void)file;
    (void)step;
    (void)err;
    return LORI_OK;
}

static bool all_below(const char *s, size_t n, unsigned char byte)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= byte)
            return false;
    return true;
}

static bool skip_nfc(const text_normalizer *step, const char *s, size_t n)
{
    (void)step;
    return all_below(s, n, 0xCC); /* characters below U+0300: all stable */
}

static lori_status run_nfc(const text_normalizer *step, text_work *work,
                           text_edit *edit, lori_error *err)
{
    (void)step;
    (void)work;
    return text_normal_form(edit, true, err);
}

static bool skip_nfd(const text_normalizer *step, const char *s, size_t n)
{
    (void)step;
    return all_below(s, n, 0xC3); /* below U+00C0 */
}

static lori_status run_nfd(const text_normalizer *step, text_work *work,
                           text_edit *edit, lori_error *err)
{
    (void)step;
    (void)work;
    return text_normal_form(edit, false, err);
}

/* ---- Prepend ----------------------------------------------------------- */

static lori_status copy_content(const json_t *json, const char *file,
                                const char *key, text_normalizer *step,
                                lori_error *err)
{
    const char *s = NULL;
    BASE_TRY(format_get_str(json, file, key, true, &s, err));
    step->n = json_string_length(json_object_get(json, key));
    step->content = base_strndup(s, step->n);
    return step->content ? LORI_OK : base_no_memory(err, step->n);
}

static lori_status parse_prepend(const json_t *json, const char *file,
                                 text_normalizer *step, lori_error *err)
{
    return copy_content(json, file, "prepend", step, err);
}

static bool skip_prepend(const text_normalizer *step, const char *s, size_t n)
{
    (void)s;
    return n == 0 || step->n == 0;
}

/* What is put in front stands for the first character, which stays: both have
 * its span. */
static lori_status run_prepend(const text_normalizer *step, text_work *work,
                               text_edit *edit, lori_error *err)
{
    uint32_t c;
    (void)work;
    (void)err;
    size_t first = (size_t)text_utf8_next(edit->from.s, &c);
    text_edit_put(edit, step->content, step->n, first);
    edit->at = 0;
    text_edit_keep(edit, edit->from.n);
    return LORI_OK;
}

/* ---- Replace ----------------------------------------------------------- */

lori_status text_pattern_parse(const json_t *json, const char *file,
                               const char *what, const json_t **string,
                               bool *literal, lori_error *err)
{
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *text = json_object_get(pattern, "String");
    const json_t *regex = json_object_get(pattern, "Regex");
    if (json_is_string(text) == json_is_string(regex))
        return base_fail(err, LORI_FORMAT,
                         "%s: the pattern of a %s is neither {\"String\": ...} "
                         "nor {\"Regex\": ...}",
                         file, what);
    *literal = json_is_string(text);
    *string = *literal ? text : regex;
    return LORI_OK;
}

static lori_status parse_replace(const json_t *json, const char *file,
                                 text_normalizer *step, lori_error *err)
{
    const json_t *string;
    char where[256];
    bool literal;
    snprintf(where, sizeof where, "%.200s: normalizer Replace", file);
    BASE_TRY(copy_content(json, file, "content", step, err));
    BASE_TRY(text_pattern_parse(json, file, "Replace normalizer", &string,
                                &literal, err));
    const char *s = json_string_value(string);
    size_t n = json_string_length(string);
    if (literal && n > 0) {
        step->n_literal = n;
        step->literal = base_strndup(s, n);
        return step->literal ? LORI_OK : base_no_memory(err, n);
    }
    return text_regex_new(s, n, literal, where, &step->pattern, err);
}

static bool skip_replace(const text_normalizer *step, const char *s, size_t n)
{
    return n == 0 ||
           (step->literal && !memmem(s, n, step->literal, step->n_literal));
}

/* The new text has the span of the last byte of what it replaces. */
static void replace_match(const text_normalizer *step, text_edit *edit,
                          size_t start, size_t end)
{
    text_edit_keep(edit, start - edit->at);
    text_edit_drop(edit, end - start);
    text_edit_put(edit, step->content, step->n, 0);
}

static lori_status run_replace(const text_normalizer *step, text_work *work,
                               text_edit *edit, lori_error *err)
{
    const char *s = edit->from.s;
    const size_t n = edit->from.n;
    if (step->literal) {
        const char *at = s;
        while ((at = memmem(at, n - (size_t)(at - s), step->literal,
                            step->n_literal)) != NULL) {
            size_t start = (size_t)(at - s);
            at += step->n_literal;
            replace_match(step, edit, start, start + step->n_literal);
        }
        text_edit_keep(edit, n - edit->at);
        return LORI_OK;
    }
    if (!work->matcher)
        BASE_TRY(text_matcher_new(&work->matcher, err));
    text_matches matches = {.regex = step->pattern, .s = s, .n = n};
    bool found;
    for (;;) {
        size_t start, end;
        BASE_TRY(text_regex_next(&matches, work->matcher, &found, &start, &end,
                                 err));
        if (!found)
            break;
        replace_match(step, edit, start, end);
    }
    text_edit_keep(edit, n - edit->at);
    return LORI_OK;
}

/* ---- Strip ------------------------------------------------------------- */

static lori_status parse_strip(const json_t *json, const char *file,
                               text_normalizer *step, lori_error *err)
{
    BASE_TRY(format_get_bool(json, file, "strip_left", true, &step->left, err));
    return format_get_bool(json, file, "strip_right", true, &step->right, err);
}

static bool skip_strip(const text_normalizer *step, const char *s, size_t n)
{
    uint32_t first, last;
    if (n == 0)
        return true;
    text_utf8_next(s, &first);
    text_utf8_before(s, n, &last);
    return !(step->left && text_is_white_space(first)) &&
           !(step->right && text_is_white_space(last));
}

static lori_status run_strip(const text_normalizer *step, text_work *work,
                             text_edit *edit, lori_error *err)
{
    const char *s = edit->from.s;
    size_t start = 0, end = edit->from.n;
    (void)work;
    (void)err;
    while (step->left && start < end) {
        uint32_t c;
        size_t length = (size_t)text_utf8_next(s + start, &c);
        if (!text_is_white_space(c))
            break;
        start += length;
    }
    while (step->right && end > start) {
        uint32_t c;
        size_t length = (size_t)text_utf8_before(s, end, &c);
        if (!text_is_white_space(c))
            break;
        end -= length;
    }
    text_edit_drop(edit, start);
    text_edit_keep(edit, end - start);
    return LORI_OK;
}

/* ---- all --------------------------------------------------------------- */

static const struct text_normalizer_kind kinds[] = {
    {"NFC", parse_nothing, skip_nfc, run_nfc},
    {"NFD", parse_nothing, skip_nfd, run_nfd},
    {"Prepend", parse_prepend, skip_prepend, run_prepend},
    {"Replace", parse_replace, skip_replace, run_replace},
    {"Strip", parse_strip, skip_strip, run_strip},
};

static lori_status add_kind(const struct text_normalizer_kind *kind,
                            const json_t *json, const char *file,
                            text_normalizers *out, lori_error *err)
{
    text_normalizer *step = base_resize(out->step, out->n + 1, sizeof *step);
    if (!step)
        return base_no_memory(err, (out->n + 1) * sizeof *step);
    out->step = step;
    step += out->n++;
    *step = (text_normalizer){.kind = kind};
    lori_status st = kind->parse(json, file, step, err);
    return st == LORI_OK ? st
                         : base_prefix(err, st, "normalizer %s", kind->type);
}

static lori_status add_step(const json_t *json, const char *file,
                            text_normalizers *out, lori_error *err)
{
    const char *type;
    if (!json || json_is_null(json))
        return LORI_OK;
    BASE_TRY(text_component_type(json, file, "normalizer", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "normalizers");
        if (!json_is_array(list))
            return base_fail(err, LORI_FORMAT,
                             "%s: a normalizer Sequence without a list of "
                             "normalizers",
                             file);
        for (size_t i = 0; i < json_array_size(list); i++)
            BASE_TRY(add_step(json_array_get(list, i), file, out, err));
        return LORI_OK;
    }
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (strcmp(type, kinds[k].type) == 0)
            return add_kind(&kinds[k], json, file, out, err);
    return text_unsupported(file, "normalizer", type,
                            "NFC, NFD, Prepend, Replace, Sequence, Strip", err);
}

lori_status text_normalizers_parse(const json_t *json, const char *file,
                                   text_normalizers *out, lori_error *err)
{
    return add_step(json, file, out, err);
}

void text_normalizers_free(text_normalizers *normalizers)
{
    for (size_t i = 0; i < normalizers->n; i++) {
        text_regex_free(normalizers->step[i].pattern);
        free(normalizers->step[i].content);
        free(normalizers->step[i].literal);
    }
    free(normalizers->step);
    *normalizers = (text_normalizers){0};
}

lori_status text_normalize(const text_normalizers *normalizers, text_work *work,
                           text_slice in, text_slice *out, lori_error *err)
{
    for (size_t i = 0; i < normalizers->n; i++) {
        const text_normalizer *step = &normalizers->step[i];
        if (step->kind->skip(step, in.s, in.n))
            continue;
        bool second = in.s == work->normal[0].text.s;
        text_edit edit = {.from = in, .out = &work->normal[second]};
        base_str_clear(&edit.out->text);
        BASE_TRY(step->kind->run(step, work, &edit, err));
        BASE_TRY(text_edit_end(&edit, 0, &in, err));
    }
    *out = in;
    return LORI_OK;
}
