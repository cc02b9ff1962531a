/* lori_facts.c - lori.json, the side file of our adapter folders that PEFT
 * ignores: method, where A comes from, counts. Owns that file's format. An
 * adapter without it is a plain PEFT adapter. */
#include "adapter/adapter_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define FACTS_FORMAT  "lori-adapter"
#define FACTS_VERSION 1

lori_status adapter_origin_read(const json_t *object, const char *file,
                                adapter_origin *out, lori_error *err)
{
    *out = (adapter_origin){0};
    const char *seed = NULL;
    int64_t version = 0;
    BASE_TRY(format_get_str(object, file, "a_seed", false, &seed, err));
    if (!seed)
        return LORI_OK;
    /* A string: JSON readers differ on integers above 2^53. */
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(seed, &end, 10);
    if (strspn(seed, "0123456789") != strlen(seed) || end == seed || errno)
        return base_fail(err, LORI_FORMAT,
                         "%s: a_seed '%s' is not a decimal number below 2^64",
                         file, seed);
    BASE_TRY(format_get_i64(object, file, "a_version", true, 1, 1 << 20,
                            &version, err));
    if (version != 1)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: A is of version %lld; this lori knows version 1",
                         file, (long long)version);
    *out = (adapter_origin){.has_seed = true, .seed = value, .version = 1};
    return LORI_OK;
}

int adapter_origin_write(json_t *object, const adapter_origin *origin)
{
    if (!origin->has_seed)
        return json_object_set_new(object, "a_seed", json_null()) |
               json_object_set_new(object, "a_version", json_null());
    char seed[24];
    base_str text = {0};
    base_str_printf(&text, "%" PRIu64, origin->seed);
    if (text.failed)
        return -1;
    memcpy(seed, text.s, text.len + 1); /* at most 20 digits */
    base_str_free(&text);
    return json_object_set_new(object, "a_seed", json_string(seed)) |
           json_object_set_new(object, "a_version",
                               json_integer(origin->version));
}

static lori_status read_facts(const json_t *root, const char *path, adapter *ad,
                              lori_error *err)
{
    const char *format = NULL, *method = NULL;
    int64_t version = 0;
    if (!json_is_object(root))
        return base_fail(err, LORI_FORMAT, "%s: not a JSON object", path);
    BASE_TRY(format_get_str(root, path, "format", true, &format, err));
    if (strcmp(format, FACTS_FORMAT) != 0)
        return base_fail(err, LORI_FORMAT, "%s: format is '%s', expected '%s'",
                         path, format, FACTS_FORMAT);
    BASE_TRY(
        format_get_i64(root, path, "version", true, 1, 1 << 20, &version, err));
    if (version != FACTS_VERSION)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: version %lld was written by a newer lori", path,
                         (long long)version);
    BASE_TRY(format_get_str(root, path, "method", false, &method, err));
    if (method && !(ad->method = base_strdup(method)))
        return base_no_memory(err, strlen(method));
    return adapter_origin_read(root, path, &ad->origin, err);
}

lori_status adapter_facts_read(const char *folder, adapter *ad, lori_error *err)
{
    char *path = base_path_join(folder, ADAPTER_FACTS_FILE);
    if (!path)
        return base_no_memory(err, strlen(folder));
    json_t *root = NULL;
    lori_status st = LORI_OK;
    if (base_is_file(path)) {
        st = format_json_load(path, &root, err);
        if (st == LORI_OK)
            st = read_facts(root, path, ad, err);
    }
    json_decref(root);
    free(path);
    return st;
}

lori_status adapter_facts_write(const char *folder, const adapter *ad,
                                lori_error *err)
{
    int64_t nonzero = 0, total = adapter_count_b(ad);
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        for (int64_t j = 0; j < s->out * s->rank; j++)
            nonzero += s->B[j] != 0;
    }
    json_t *o = json_object();
    int bad = json_object_set_new(o, "format", json_string(FACTS_FORMAT));
    bad |= json_object_set_new(o, "version", json_integer(FACTS_VERSION));
    bad |= json_object_set_new(
        o, "method", ad->method ? json_string(ad->method) : json_null());
    bad |= adapter_origin_write(o, &ad->origin);
    bad |=
        json_object_set_new(o, "a_entries", json_integer(adapter_count_a(ad)));
    bad |= json_object_set_new(o, "b_entries", json_integer(total));
    bad |= json_object_set_new(o, "b_nonzero", json_integer(nonzero));
    bad |= json_object_set_new(o, "b_sparsity",
                               json_real(1 - (double)nonzero / (double)total));
    char *path = base_path_join(folder, ADAPTER_FACTS_FILE);
    lori_status st =
        bad || !path ? base_no_memory(err, 1024)
                     : format_json_write(path, o,
                                         FORMAT_JSON_SORT | FORMAT_JSON_INDENT |
                                             FORMAT_JSON_ASCII,
                                         true, err);
    free(path);
    json_decref(o);
    return st;
}
