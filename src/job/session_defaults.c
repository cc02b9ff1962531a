/* session_defaults.c - what a model folder says about sampling where a request
 * says nothing. Source: transformers GenerationConfig; spec/hf.md 1.5. */
#include "job/session_i.h"

#include <math.h>
#include <stdlib.h>

/* Settings that change replies in transformers and are not honoured here, with
 * the value that switches each off. */
#define NONE ((double)NAN) /* only null does */
static const struct {
    const char *key;
    double off;
} ignored[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"no_repeat_ngram_size", 0},
    {"encoder_repetition_penalty", 1},
    {"encoder_no_repeat_ngram_size", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"top_h", NONE},
    {"penalty_alpha", 0},
    {"guidance_scale", 1},
    {"suppress_tokens", NONE},
    {"begin_suppress_tokens", NONE},
    {"forced_bos_token_id", NONE},
    {"forced_eos_token_id", NONE},
    {"bad_words_ids", NONE},
    {"sequence_bias", NONE},
    {"exponential_decay_length_penalty", NONE},
    {"stop_strings", NONE},
};

static void warn_ignored(const json_t *object, const char *file,
                         const lori_ui *ui)
{
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        const json_t *value = json_object_get(object, ignored[i].key);
        bool off = !value || json_is_null(value) ||
                   (json_is_number(value) &&
                    json_number_value(value) == ignored[i].off);
        if (!off)
            base_log(ui, LORI_LOG_WARNING, "%s: '%s' is not honoured", file,
                     ignored[i].key);
    }
}

static lori_status check(const session_defaults *d, const char *file,
                         lori_error *err)
{
    infer_sampling s = {.sample = true,
                        .temperature = d->temperature != 0 ? d->temperature : 1,
                        .top_k = d->top_k,
                        .top_p = d->top_p != 0 ? d->top_p : 1,
                        .min_p = d->min_p,
                        .repetition_penalty = d->repetition_penalty};
    lori_status st = infer_sampling_check(&s, err);
    return st ? base_prefix(err, LORI_FORMAT, "%s", file) : LORI_OK;
}

static lori_status read_fields(const json_t *object, const char *file,
                               session_defaults *d, lori_error *err)
{
    const struct {
        const char *key;
        double *at;
    } reals[] = {{"temperature", &d->temperature},
                 {"top_p", &d->top_p},
                 {"min_p", &d->min_p},
                 {"repetition_penalty", &d->repetition_penalty}};
    const struct {
        const char *key;
        int64_t *at;
    } counts[] = {{"top_k", &d->top_k},
                  {"max_new_tokens", &d->max_new_tokens},
                  {"min_new_tokens", &d->min_new_tokens},
                  {"max_length", &d->max_length}};
    BASE_TRY(
        format_get_bool(object, file, "do_sample", false, &d->do_sample, err));
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        BASE_TRY(format_get_f64(object, file, reals[i].key, false, reals[i].at,
                                err));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        BASE_TRY(format_get_i64(object, file, counts[i].key, false, 0,
                                INT64_MAX, counts[i].at, err));
    return check(d, file, err);
}

static void log_defaults(const session_defaults *d, const char *file,
                         const lori_ui *ui)
{
    base_str s = {0};
    if (d->temperature != 0 && d->temperature != 1)
        base_str_printf(&s, ", temperature %g", d->temperature);
    if (d->top_k > 0)
        base_str_printf(&s, ", top_k %lld", (long long)d->top_k);
    if (d->top_p > 0 && d->top_p < 1)
        base_str_printf(&s, ", top_p %g", d->top_p);
    if (d->min_p > 0)
        base_str_printf(&s, ", min_p %g", d->min_p);
    if (d->repetition_penalty != 0 && d->repetition_penalty != 1)
        base_str_printf(&s, ", repetition_penalty %g", d->repetition_penalty);
    if (d->max_new_tokens)
        base_str_printf(&s, ", max_new_tokens %lld",
                        (long long)d->max_new_tokens);
    if (d->do_sample || s.len)
        base_log(ui, LORI_LOG_INFO, "%s: %s%s unless told otherwise", file,
                 d->do_sample ? "sampling" : "greedy", s.s ? s.s : "");
    base_str_free(&s);
}

lori_status session_defaults_load(const char *folder, session_defaults *out,
                                  const lori_ui *ui, lori_error *err)
{
    *out = (session_defaults){0};
    char *path = base_path_join(folder, "generation_config.json");
    if (path && !base_is_file(path)) {
        free(path);
        path = base_path_join(folder, "config.json");
    }
    if (!path)
        return base_no_memory(err, strlen(folder));
    json_t *object = NULL;
    lori_status st = format_json_load(path, &object, err);
    if (!st && !json_is_object(object))
        st = base_fail(err, LORI_FORMAT, "%s: not an object", path);
    if (!st)
        st = read_fields(object, path, out, err);
    if (!st) {
        warn_ignored(object, path, ui);
        log_defaults(out, path, ui);
    }
    json_decref(object);
    free(path);
    return st;
}
