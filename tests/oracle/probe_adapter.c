/* probe_adapter.c - reads and writes adapter folders for the comparison with
 * peft (oracle_adapter.py). A developer's tool, not part of the product. It
 * owns no rule of the format: it only calls adapter.h.
 *
 *   probe_adapter make SPEC.json FOLDER   an adapter with random A and B.
 *       SPEC: {"seed": n, "rslora": b, "dtype": "F32", "init_a": b,
 *              "sites": [{"path", "in", "out", "rank", "alpha"}, ...]}
 *   probe_adapter read FOLDER...          one line a folder:
 *       {"sites": [{"path", "in", "out", "rank", "scale", "a", "b"}, ...]}
 *       (a, b: sums of all entries) or {"error": message} */
#include <stdio.h>
#include <stdlib.h>

#include "adapter/adapter.h"
#include "format/format.h"

static void fill(base_rng *rng, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(base_rng_uniform(rng) - 0.5);
}

static lori_status build(const json_t *spec, adapter **out, lori_error *err)
{
    const json_t *sites = json_object_get(spec, "sites");
    size_t n = json_array_size(sites);
    adapter_site_spec *specs = base_alloc(n, sizeof *specs);
    if (!specs)
        return base_no_memory(err, n * sizeof *specs);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_array_get(sites, i);
        specs[i] = (adapter_site_spec){
            .path = json_string_value(json_object_get(s, "path")),
            .in = json_integer_value(json_object_get(s, "in")),
            .out = json_integer_value(json_object_get(s, "out")),
            .rank = json_integer_value(json_object_get(s, "rank")),
            .alpha = json_number_value(json_object_get(s, "alpha"))};
    }
    lori_status st =
        adapter_new(specs, (int64_t)n,
                    json_is_true(json_object_get(spec, "rslora")), out, err);
    free(specs);
    return st;
}

static lori_status make(const char *spec_path, const char *folder,
                        lori_error *err)
{
    json_t *spec = NULL;
    adapter *ad = NULL;
    BASE_TRY(format_json_load(spec_path, &spec, err));
    lori_status st = build(spec, &ad, err);
    if (st == LORI_OK) {
        base_rng rng;
        uint64_t seed =
            (uint64_t)json_integer_value(json_object_get(spec, "seed"));
        base_rng_start(&rng, seed, 1);
        for (int64_t i = 0; i < ad->n_sites; i++) {
            adapter_site *s = &ad->sites[i];
            fill(&rng, s->A, s->rank * s->in);
            fill(&rng, s->B, s->rank * s->out);
        }
        if (json_is_true(json_object_get(spec, "init_a")))
            adapter_init_a(ad, seed);
        const char *name = json_string_value(json_object_get(spec, "dtype"));
        adapter_write_options options = {.dtype = BASE_F32};
        if (name)
            base_dtype_parse(name, strlen(name), &options.dtype);
        st = adapter_write(ad, folder, &options, err);
    }
    adapter_free(ad);
    json_decref(spec);
    return st;
}

static double sum(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i];
    return s;
}

static json_t *describe(const adapter *ad)
{
    json_t *sites = json_array();
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        json_array_append_new(
            sites, json_pack("{sssIsIsIsfsfsf}", "path", s->path, "in",
                             (json_int_t)s->in, "out", (json_int_t)s->out,
                             "rank", (json_int_t)s->rank, "scale", s->scale,
                             "a", sum(s->A, s->rank * s->in), "b",
                             sum(s->B, s->rank * s->out)));
    }
    return json_pack("{so}", "sites", sites);
}

static void read_one(const char *folder)
{
    adapter *ad = NULL;
    lori_error err = {0};
    json_t *o = adapter_read(folder, &ad, &err) == LORI_OK
                    ? describe(ad)
                    : json_pack("{ss}", "error", err.message);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
    adapter_free(ad);
}

int main(int argc, char **argv)
{
    lori_error err = {0};
    if (argc == 4 && strcmp(argv[1], "make") == 0) {
        if (make(argv[2], argv[3], &err) == LORI_OK)
            return 0;
        fprintf(stderr, "probe_adapter: %s\n", err.message);
        return 1;
    }
    if (argc >= 3 && strcmp(argv[1], "read") == 0) {
        for (int i = 2; i < argc; i++)
            read_one(argv[i]);
        return 0;
    }
    fputs("usage: probe_adapter make SPEC.json FOLDER | read FOLDER...\n",
          stderr);
    return 2;
}
