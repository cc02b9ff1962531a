/* merge_base.c - base weights plus adapters as a complete model folder:
 * W' = round(W + sum_i w_i s_i B_i A_i), summed in float, rounded once.
 * config.json is written so that transformers 4 and 5 read the same model;
 * tokenizer and generation files are copied. Source: spec/hf.md 1.3,
 * spec/peft.md 4.2. */
#include "job/job_i.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>

#define SHARD_BYTES 50000000000ULL
#define COPY_MAX    ((size_t)256 << 20)

typedef struct merger {
    const format_store *store;
    adapter *const *adapters;
    const double *weights;
    int64_t n_adapters;
    int64_t done, total;
    const lori_ui *ui;
} merger;

/* "model.layers.0..." and "layers.0..." name the same module. */
static const char *bare(const char *name)
{
    while (!strncmp(name, "model.", 6))
        name += 6;
    return name;
}

static bool names_site(const char *tensor, const char *path)
{
    const char *t = bare(tensor), *p = bare(path);
    size_t n = strlen(p);
    return !strncmp(t, p, n) && !strcmp(t + n, ".weight");
}

/* The site of adapter `a` that changes this tensor, or NULL. */
static const adapter_site *site_of(const adapter *a, const char *tensor)
{
    for (int64_t i = 0; i < a->n_sites; i++)
        if (names_site(tensor, a->sites[i].path))
            return &a->sites[i];
    return NULL;
}

/* Every site must meet a matrix of its shape, or the merge would lose it. */
static lori_status check_sites(const merger *m, const adapter *a,
                               const char *base, lori_error *err)
{
    for (int64_t i = 0; i < a->n_sites; i++) {
        const adapter_site *site = &a->sites[i];
        const format_tensor *t = NULL;
        for (size_t j = 0; j < format_store_count(m->store) && !t; j++) {
            const format_tensor *at = format_store_at(m->store, j);
            if (names_site(at->name, site->path))
                t = at;
        }
        if (!t)
            return base_fail(err, LORI_MISMATCH,
                             "adapter of another base: %s has no '%s.weight'",
                             base, site->path);
        if (t->n_dims != 2 || t->shape[0] != site->out ||
            t->shape[1] != site->in)
            return base_fail(err, LORI_MISMATCH,
                             "adapter of another base: '%s' is [%lld, %lld] in "
                             "%s, the adapter's is [%lld, %lld]",
                             t->name, (long long)t->shape[0],
                             (long long)(t->n_dims > 1 ? t->shape[1] : 1),
                             t->file, (long long)site->out,
                             (long long)site->in);
    }
    return LORI_OK;
}

static lori_status emit_merged(const merger *m, const format_tensor *t,
                               base_dtype dtype, format_sink *sink,
                               lori_error *err)
{
    size_t n = (size_t)(t->shape[0] * t->shape[1]);
    float *w = base_alloc(n, sizeof *w);
    void *out = base_alloc(n, base_dtype_bytes(dtype));
    lori_status st = LORI_OK;
    if (!w || !out)
        st = base_no_memory(err, n * sizeof *w);
    if (!st) {
        base_to_f32(t->data, t->dtype, w, n);
        for (int64_t i = 0; i < m->n_adapters; i++) {
            const adapter_site *site = site_of(m->adapters[i], t->name);
            if (site)
                adapter_add_delta(site, m->weights[i], w);
        }
        for (size_t i = 0; i < n && !st; i++)
            if (!isfinite(w[i]))
                st = base_fail(err, LORI_NUMERIC,
                               "'%s' is not finite after the merge", t->name);
    }
    if (!st) {
        base_from_f32(w, out, dtype, n);
        st = format_sink_write(sink, out, n * base_dtype_bytes(dtype), err);
    }
    free(w);
    free(out);
    return st;
}

/* Unchanged values, in the new dtype. */
static lori_status emit_copy(const format_tensor *t, base_dtype dtype,
                             format_sink *sink, lori_error *err)
{
    if (t->dtype == dtype)
        return format_sink_write(sink, t->data, t->bytes, err);
    size_t n = t->bytes / base_dtype_bytes(t->dtype), chunk = (size_t)1 << 20;
    float *w = base_alloc(chunk, sizeof *w);
    void *out = base_alloc(chunk, base_dtype_bytes(dtype));
    lori_status st = w && out ? LORI_OK : base_no_memory(err, chunk * 4);
    for (size_t i = 0; i < n && !st; i += chunk) {
        size_t take = n - i < chunk ? n - i : chunk;
        const char *from =
            (const char *)t->data + i * base_dtype_bytes(t->dtype);
        base_to_f32(from, t->dtype, w, take);
        base_from_f32(w, out, dtype, take);
        st = format_sink_write(sink, out, take * base_dtype_bytes(dtype), err);
    }
    free(w);
    free(out);
    return st;
}

static lori_status emit_tensor(void *context, const format_desc *desc,
                               format_sink *sink, lori_error *err)
{
    merger *m = context;
    const format_tensor *t = format_store_find(m->store, desc->name);
    if (base_interrupted(m->ui))
        return base_fail(err, LORI_INTERRUPTED, "merge stopped");
    base_progress(m->ui, "merge", m->done++, m->total, "%s", desc->name);
    for (int64_t i = 0; i < m->n_adapters; i++)
        if (site_of(m->adapters[i], desc->name))
            return emit_merged(m, t, desc->dtype, sink, err);
    return emit_copy(t, desc->dtype, sink, err);
}

/* ---- the other files ------------------------------------------------- */

/* Both forms of the rope settings and of the dtype (spec/hf.md 1.3). */
static void complete_config(json_t *c, base_dtype dtype)
{
    json_t *old = json_object_get(c, "rope_scaling");
    bool use_old = json_is_object(old) && json_object_size(old) > 0;
    json_t *rope = use_old ? old : json_object_get(c, "rope_parameters");
    rope = json_is_object(rope) ? json_deep_copy(rope) : json_object();
    json_t *theta = json_object_get(rope, "rope_theta");
    if (!theta)
        theta = json_object_get(c, "rope_theta");
    theta = theta ? json_incref(theta) : json_real(10000.0);
    json_t *type = json_object_get(rope, "rope_type");
    if (!type)
        type = json_object_get(rope, "type");
    const char *kind =
        json_is_string(type) ? json_string_value(type) : "default";
    bool scaled = strcmp(kind, "default") != 0;
    json_object_set_new(rope, "rope_type", json_string(kind));
    json_object_del(rope, "rope_theta");
    json_object_set_new(c, "rope_scaling",
                        scaled ? json_deep_copy(rope) : json_null());
    json_object_set(rope, "rope_theta", theta);
    json_object_set_new(c, "rope_parameters", rope);
    json_object_set_new(c, "rope_theta", theta);
    const char *name = dtype == BASE_F32   ? "float32"
                       : dtype == BASE_F16 ? "float16"
                                           : "bfloat16";
    json_object_set_new(c, "dtype", json_string(name));
    json_object_set_new(c, "torch_dtype", json_string(name));
}

static lori_status write_config(const char *base, const char *folder,
                                base_dtype dtype, lori_error *err)
{
    char *from = base_path_join(base, "config.json");
    json_t *c = NULL;
    lori_status st =
        from ? format_json_load(from, &c, err) : base_no_memory(err, 1);
    if (!st) {
        complete_config(c, dtype);
        st = job_write_json(folder, "config.json", c, JOB_CONFIG, true, err);
    }
    json_decref(c);
    free(from);
    return st;
}

static lori_status copy_file(const char *base, const char *folder,
                             const char *name, lori_error *err)
{
    char *from = base_path_join(base, name), *to = base_path_join(folder, name);
    char *bytes = NULL;
    size_t n = 0;
    lori_status st = from && to ? LORI_OK : base_no_memory(err, 1);
    if (!st && base_is_file(from)) {
        st = base_file_read(from, COPY_MAX, &bytes, &n, err);
        if (!st)
            st = base_file_write(to, bytes, n, err);
    }
    free(bytes);
    free(from);
    free(to);
    return st;
}

static lori_status copy_templates(const char *base, const char *folder,
                                  lori_error *err)
{
    char *from = base_path_join(base, "additional_chat_templates");
    char *to = base_path_join(folder, "additional_chat_templates");
    DIR *dir = from ? opendir(from) : NULL;
    lori_status st = from && to ? LORI_OK : base_no_memory(err, 1);
    if (!st && dir)
        st = base_mkdirs(to, err);
    for (struct dirent *e; !st && dir && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            st = copy_file(from, to, e->d_name, err);
    if (dir)
        closedir(dir);
    free(from);
    free(to);
    return st;
}

static lori_status copy_others(const char *base, const char *folder,
                               lori_error *err)
{
    static const char *const names[] = {"generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "chat_template.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        BASE_TRY(copy_file(base, folder, names[i], err));
    return copy_templates(base, folder, err);
}

/* ---- the job --------------------------------------------------------- */

static lori_status write_weights(merger *m, const char *folder,
                                 base_dtype dtype, lori_error *err)
{
    size_t n = format_store_count(m->store);
    format_desc *descs = base_alloc(n, sizeof *descs);
    if (!descs)
        return base_no_memory(err, n * sizeof *descs);
    lori_status st = LORI_OK;
    for (size_t i = 0; i < n && !st; i++) {
        const format_tensor *t = format_store_at(m->store, i);
        descs[i] =
            (format_desc){.name = t->name, .dtype = dtype, .n_dims = t->n_dims};
        memcpy(descs[i].shape, t->shape, sizeof t->shape);
        if (!base_dtype_is_float(t->dtype))
            st = base_fail(err, LORI_UNSUPPORTED,
                           "%s: tensor '%s' is %s, not a float", t->file,
                           t->name, base_dtype_name(t->dtype));
    }
    m->total = (int64_t)n;
    if (!st)
        st = format_st_emit_folder(folder, "model", descs, n, SHARD_BYTES,
                                   emit_tensor, m, err);
    free(descs);
    base_progress(m->ui, "merge", m->done, m->total, "done");
    return st;
}

static base_dtype store_dtype(const format_store *store)
{
    const format_tensor *first = format_store_at(store, 0);
    return first ? first->dtype : BASE_BF16;
}

lori_status merge_into_base(const lori_merge_options *o, const char *base,
                            adapter *const *adapters, const double *weights,
                            const lori_ui *ui, lori_report **out,
                            lori_error *err)
{
    model_config config; /* refuses what we do not understand */
    format_store *store = NULL;
    base_outdir *dir = NULL;
    BASE_TRY(model_config_load(base, &config, err));
    BASE_TRY(format_store_open_folder(base, "model", &store, err));
    merger m = {store, adapters, weights, o->n_adapters, 0, 0, ui};
    base_dtype dtype = job_dtype(o->dtype, store_dtype(store));
    lori_status st = LORI_OK;
    for (int64_t i = 0; i < o->n_adapters && !st; i++) {
        st = check_sites(&m, adapters[i], o->into, err);
        if (st)
            base_prefix(err, st, "%s", o->adapters[i]);
    }
    if (!st)
        st = base_outdir_open(o->output, o->replace != 0, "config.json", &dir,
                              err);
    if (!st)
        st = write_config(base, base_outdir_path(dir), dtype, err);
    if (!st)
        st = copy_others(base, base_outdir_path(dir), err);
    if (!st)
        st = write_weights(&m, base_outdir_path(dir), dtype, err);
    int64_t n = (int64_t)format_store_count(store);
    format_store_close(store);
    if (st) {
        base_outdir_abort(dir);
        return st;
    }
    BASE_TRY(base_outdir_commit(dir, err));
    base_str text = {0};
    base_str_printf(&text,
                    "%s: %s with %lld adapter%s merged in, %lld tensors "
                    "in %s\n",
                    o->output, o->into, (long long)o->n_adapters,
                    o->n_adapters > 1 ? "s" : "", (long long)n,
                    base_dtype_name(dtype));
    return report_new(json_pack("{sssssIsIss}", "base", o->into, "output",
                                o->output, "adapters",
                                (json_int_t)o->n_adapters, "tensors",
                                (json_int_t)n, "dtype", base_dtype_name(dtype)),
                      &text, out, err);
}
