/* normalizer.c - the normalizers of tokenizer.json: none, NFC, sequences.
 * Every other type is refused by name. A new one is a row of `kinds`.
 * Includes base, format. Source: spec/text.md 1.2. */
#include <stdlib.h>

#include "text/text_i.h"

struct text_normalizer_kind {
    const char *type;
    /* Whether s would come out unchanged (cheap, may say no when it would). */
    bool (*skip)(const text_normalizer *step, const char *s, size_t n);
    void (*run)(const text_normalizer *step, const char *s, size_t n,
                base_str *out);
};

static bool skip_nfc(const text_normalizer *step, const char *s, size_t n)
{
    (void)step;
    /* Bytes below 0xCC: only characters below U+0300, all stable. */
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0xCC)
            return false;
    return true;
}

static void run_nfc(const text_normalizer *step, const char *s, size_t n,
                    base_str *out)
{
    (void)step;
    text_nfc(s, n, out);
}

static const struct text_normalizer_kind kinds[] = {
    {"NFC", skip_nfc, run_nfc},
};

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
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (strcmp(type, kinds[k].type) != 0)
            continue;
        text_normalizer *step =
            base_resize(out->step, out->n + 1, sizeof *step);
        if (!step)
            return base_no_memory(err, (out->n + 1) * sizeof *step);
        out->step = step;
        out->step[out->n++] = (text_normalizer){&kinds[k]};
        return LORI_OK;
    }
    return text_unsupported(file, "normalizer", type, "NFC, Sequence", err);
}

lori_status text_normalizers_parse(const json_t *json, const char *file,
                                   text_normalizers *out, lori_error *err)
{
    return add_step(json, file, out, err);
}

void text_normalizers_free(text_normalizers *normalizers)
{
    free(normalizers->step);
    *normalizers = (text_normalizers){0};
}

lori_status text_normalize(const text_normalizers *normalizers, text_work *work,
                           const char *s, size_t n, const char **out,
                           size_t *n_out, lori_error *err)
{
    for (size_t i = 0; i < normalizers->n; i++) {
        const text_normalizer *step = &normalizers->step[i];
        base_str *buffer = &work->normal[s == work->normal[0].s ? 1 : 0];
        if (step->kind->skip(step, s, n))
            continue;
        base_str_clear(buffer);
        step->kind->run(step, s, n, buffer);
        if (buffer->failed)
            return base_no_memory(err, n);
        s = buffer->s ? buffer->s : "";
        n = buffer->len;
    }
    if (n > TEXT_MAX_TEXT)
        return base_fail(err, LORI_UNSUPPORTED, "a text of more than %zu bytes",
                         TEXT_MAX_TEXT);
    *out = s;
    *n_out = n;
    return LORI_OK;
}
