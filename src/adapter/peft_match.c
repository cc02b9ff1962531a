/* peft_match.c - which module paths a PEFT config adapts, and with what rank
 * and alpha. The regular expressions come from a file: they are compiled with
 * PCRE2 under limits, never with its verbs. Owns no reading of files.
 * Source: peft 0.21 tuners_utils.check_target_module_exists and
 * utils.get_pattern_key; spec/peft.md 1.2, 1.3. */
#include "adapter/adapter_i.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Longest pattern taken from a config, and bounds of one match. */
#define PATTERN_BYTES 4096
#define MATCH_LIMIT   1000000U
#define DEPTH_LIMIT   10000U

/* Modules PEFT adapts in the families lori knows when target_modules is null.
 * Source: peft TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING. */
static const char *const family_targets[] = {"q_proj", "v_proj"};
#define N_FAMILY_TARGETS (sizeof family_targets / sizeof *family_targets)

/* Matches `head` pattern `tail` at the start of `text` (to its end with
 * anchor_end). *number (may be NULL) is what the last group caught. */
static lori_status match_from_start(const char *file, const char *head,
                                    const char *pattern, const char *tail,
                                    bool anchor_end, const char *text,
                                    bool *out, int64_t *number, lori_error *err)
{
    *out = false;
    if (strlen(pattern) > PATTERN_BYTES || strncmp(pattern, "(*", 2) == 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: '%.60s' is not a usable pattern", file, pattern);
    base_str full = {0};
    base_str_printf(&full, "%s%s%s", head, pattern, tail);
    if (full.failed)
        return base_no_memory(err, strlen(pattern));
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t flags = PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C |
                     (anchor_end ? PCRE2_ENDANCHORED : 0U);
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)full.s, full.len, flags, &code, &at, NULL);
    base_str_free(&full);
    if (!re) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return base_fail(err, LORI_FORMAT, "%s: pattern '%s': %s", file,
                         pattern, (const char *)why);
    }
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    lori_status st = LORI_OK;
    if (!data || !context) {
        st = base_no_memory(err, 4096);
    } else {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_depth_limit(context, DEPTH_LIMIT);
        int n = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, data,
                            context);
        *out = n > 0;
        if (n < 0 && n != PCRE2_ERROR_NOMATCH)
            st = base_fail(err, LORI_FORMAT,
                           "%s: pattern '%s' cannot be matched against '%s'",
                           file, pattern, text);
        if (n > 1 && number) {
            const PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
            *number = strtoll(text + v[2 * (size_t)(n - 1)], NULL, 10);
        }
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    return st;
}

/* `name` equals `item` or ends with "." + item. */
static bool is_suffix(const char *name, const char *item, bool *equal)
{
    size_t n = strlen(name), k = strlen(item);
    *equal = strcmp(name, item) == 0;
    return *equal ||
           (n > k && name[n - k - 1] == '.' && strcmp(name + n - k, item) == 0);
}

/* modules_to_save: PEFT takes "(^|.*\.)item($|\..*)", so whole components. */
static bool is_saved(const json_t *saved, const char *path)
{
    size_t i;
    json_t *item;
    json_array_foreach(saved, i, item)
    {
        const char *name = json_string_value(item);
        size_t n = strlen(name);
        for (const char *p = path; (p = strstr(p, name)); p++)
            if ((p == path || p[-1] == '.') && (p[n] == '\0' || p[n] == '.'))
                return true;
    }
    return false;
}

static bool has_layer(const json_t *layers, int64_t layer)
{
    if (json_is_integer(layers))
        return json_integer_value(layers) == layer;
    size_t i;
    json_t *item;
    json_array_foreach(layers, i, item)
    {
        if (json_integer_value(item) == layer)
            return true;
    }
    return false;
}

/* layers_to_transform, after a suffix match. No index found: not targeted. */
static lori_status in_layers(const adapter_peft *p, const char *path, bool *out,
                             lori_error *err)
{
    *out = false;
    int64_t layer = -1;
    bool found = false;
    const json_t *list = p->layer_patterns;
    if (!list) {
        BASE_TRY(match_from_start(p->file, "", ".*?\\.[^.]*\\.(\\d+)\\.", "",
                                  false, path, &found, &layer, err));
    } else {
        size_t n = json_is_array(list) ? json_array_size(list) : 1;
        for (size_t i = 0; i < n && !found; i++) {
            const char *pattern = json_string_value(
                json_is_array(list) ? json_array_get(list, i) : list);
            BASE_TRY(match_from_start(p->file, ".*?\\.", pattern,
                                      "\\.(\\d+)\\.", false, path, &found,
                                      &layer, err));
        }
    }
    *out = found && has_layer(p->layers, layer);
    return LORI_OK;
}

/* A string (whole-name pattern) or a list (names or dotted suffixes). */
static lori_status in_names(const adapter_peft *p, const json_t *names,
                            const char *path, bool *out, bool *equal,
                            lori_error *err)
{
    *out = *equal = false;
    if (json_is_string(names))
        return match_from_start(p->file, "(?:", json_string_value(names), ")",
                                true, path, out, NULL, err);
    size_t i;
    json_t *item;
    json_array_foreach(names, i, item)
    {
        bool same = false;
        *out |= is_suffix(path, json_string_value(item), &same);
        *equal |= same;
    }
    return LORI_OK;
}

lori_status adapter_peft_targets(const adapter_peft *p, const char *path,
                                 bool *out, lori_error *err)
{
    bool match = false, equal = false;
    *out = false;
    if (p->excludes) {
        BASE_TRY(in_names(p, p->excludes, path, &match, &equal, err));
        if (match)
            return LORI_OK;
    }
    if (is_saved(p->saved, path))
        return LORI_OK;
    if (json_is_string(p->targets) &&
        strcasecmp(json_string_value(p->targets), "all-linear") == 0) {
        *out = strcmp(adapter_path_last(path), "lm_head") != 0;
        return LORI_OK;
    }
    if (p->targets)
        BASE_TRY(in_names(p, p->targets, path, &match, &equal, err));
    for (size_t i = 0; !p->targets && i < N_FAMILY_TARGETS; i++)
        match |= is_suffix(path, family_targets[i], &equal);
    if (match && !equal && p->layers)
        return in_layers(p, path, out, err);
    *out = match;
    return LORI_OK;
}

/* The first pattern whose "(.*\.)?(KEY)$" matches from the start. */
static lori_status first_pattern(const adapter_peft *p,
                                 const adapter_peft_pattern *patterns, size_t n,
                                 const char *path, double *value,
                                 lori_error *err)
{
    for (size_t i = 0; i < n; i++) {
        bool match = false;
        BASE_TRY(match_from_start(p->file, "(?:.*\\.)?(?:", patterns[i].key,
                                  ")$", false, path, &match, NULL, err));
        if (match) {
            *value = patterns[i].value;
            break;
        }
    }
    return LORI_OK;
}

lori_status adapter_peft_values(const adapter_peft *p, const char *path,
                                int64_t *rank, double *alpha, lori_error *err)
{
    double r = (double)p->r;
    *alpha = p->alpha;
    BASE_TRY(first_pattern(p, p->ranks, p->n_ranks, path, &r, err));
    BASE_TRY(first_pattern(p, p->alphas, p->n_alphas, path, alpha, err));
    *rank = (int64_t)r;
    return LORI_OK;
}
