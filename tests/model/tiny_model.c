/* tiny_model.c - see tiny_model.h. */
#include "tiny_model.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"

char *tiny_folder(void)
{
    const char *dir = getenv("TMPDIR");
    char *path = NULL;
    cr_assert(asprintf(&path, "%s/lori-model-XXXXXX", dir ? dir : P_tmpdir) >
              0);
    cr_assert_not_null(mkdtemp(path));
    return path;
}

void tiny_remove(char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *e;
    while (dir && (e = readdir(dir)))
        if (e->d_name[0] != '.') {
            char *path = base_path_join(folder, e->d_name);
            unlink(path);
            free(path);
        }
    if (dir)
        closedir(dir);
    rmdir(folder);
    free(folder);
}

void tiny_put(const char *folder, const char *name, const char *text)
{
    char *path = base_path_join(folder, name);
    cr_assert_eq(base_file_write(path, text, strlen(text), NULL), LORI_OK);
    free(path);
}

tiny_spec tiny_defaults(const tiny_spec *spec)
{
    tiny_spec s = *spec;
    s.family = s.family ? s.family : "llama";
    s.vocab = s.vocab ? s.vocab : 101;
    s.d = s.d ? s.d : 32;
    s.ffn = s.ffn ? s.ffn : 56;
    s.layers = s.layers ? s.layers : 2;
    s.heads = s.heads ? s.heads : 4;
    s.kv_heads = s.kv_heads ? s.kv_heads : 2;
    s.head_dim = s.head_dim ? s.head_dim : 8;
    s.dtype = s.dtype ? s.dtype : BASE_F32;
    return s;
}

static void write_config(const char *folder, const tiny_spec *s)
{
    static const char *const rope[] = {
        "{\"rope_type\": \"default\", \"rope_theta\": 10000.0}",
        "{\"rope_type\": \"linear\", \"factor\": 4.0, \"rope_theta\": 10000.0}",
        "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": "
        "1.0, \"high_freq_factor\": 4.0, "
        "\"original_max_position_embeddings\": 64, \"rope_theta\": 500000.0}"};
    base_str t = {0};
    base_str_printf(
        &t,
        "{\"model_type\": \"%s\", \"vocab_size\": %lld, \"hidden_size\": %lld, "
        "\"intermediate_size\": %lld, \"num_hidden_layers\": %lld, "
        "\"num_attention_heads\": %lld, \"num_key_value_heads\": %lld, "
        "\"head_dim\": %lld, \"max_position_embeddings\": 512, "
        "\"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
        "\"tie_word_embeddings\": %s, \"attention_bias\": %s, "
        "\"mlp_bias\": %s, \"rope_parameters\": %s",
        s->family, (long long)s->vocab, (long long)s->d, (long long)s->ffn,
        (long long)s->layers, (long long)s->heads, (long long)s->kv_heads,
        (long long)s->head_dim, s->tied ? "true" : "false",
        s->attention_bias ? "true" : "false", s->mlp_bias ? "true" : "false",
        rope[s->rope]);
    if (s->window)
        base_str_printf(&t, ", \"sliding_window\": %lld", (long long)s->window);
    else
        base_str_puts(&t, ", \"sliding_window\": null");
    base_str_puts(&t, "}\n");
    tiny_put(folder, "config.json", t.s);
    base_str_free(&t);
}

/* ---- tensors ------------------------------------------------------------ */

typedef struct pile {
    format_desc desc[128];
    size_t n;
    base_rng rng;
    const tiny_spec *s;
} pile;

static double normal(base_rng *rng)
{
    double u = 1.0 - base_rng_uniform(rng), v = base_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

static void add(pile *p, const char *name, int64_t rows, int64_t cols,
                double mean)
{
    const tiny_spec *s = p->s;
    if (s->missing && !strcmp(name, s->missing))
        return;
    if (s->wrong && !strcmp(name, s->wrong))
        rows++;
    size_t n = (size_t)(rows * (cols ? cols : 1));
    float *f = base_alloc(n, sizeof *f);
    void *data = base_alloc(n, base_dtype_bytes(s->dtype));
    for (size_t i = 0; i < n; i++)
        f[i] = (float)(mean + 0.1 * normal(&p->rng));
    for (size_t i = 0; s->coarse && i < n; i++)
        f[i] = roundf(f[i] * 64.0F) / 64.0F;
    base_from_f32(f, data, s->dtype, n);
    free(f);
    bool strip = s->bare_names && !strncmp(name, "model.", 6);
    cr_assert_lt(p->n, 128);
    p->desc[p->n++] = (format_desc){.name = base_strdup(name + (strip ? 6 : 0)),
                                    .dtype = s->dtype,
                                    .n_dims = cols ? 2 : 1,
                                    .shape = {rows, cols},
                                    .data = data};
}

static void add_layer(pile *p, int64_t l)
{
    const tiny_spec *s = p->s;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int64_t out, in;
        bool bias;
    } linear[] = {{"self_attn.q_proj", q, s->d, s->attention_bias},
                  {"self_attn.k_proj", kv, s->d, s->attention_bias},
                  {"self_attn.v_proj", kv, s->d, s->attention_bias},
                  {"self_attn.o_proj", s->d, q, s->attention_bias},
                  {"mlp.gate_proj", s->ffn, s->d, s->mlp_bias},
                  {"mlp.up_proj", s->ffn, s->d, s->mlp_bias},
                  {"mlp.down_proj", s->d, s->ffn, s->mlp_bias}};
    char name[128];
    for (size_t i = 0; i < 7; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)l,
                 linear[i].name);
        add(p, name, linear[i].out, linear[i].in, 0.0);
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", (int)l,
                 linear[i].name);
        if (linear[i].bias)
            add(p, name, linear[i].out, 0, 0.0);
    }
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight",
             (int)l);
    add(p, name, s->d, 0, 1.0);
    snprintf(name, sizeof name,
             "model.layers.%d.post_attention_layernorm.weight", (int)l);
    add(p, name, s->d, 0, 1.0);
}

static void add_head(pile *p)
{
    const tiny_spec *s = p->s;
    if (!s->tied || (s->other_head && !strcmp(s->other_head, "other")))
        add(p, "lm_head.weight", s->vocab, s->d, 0.0);
    if (s->tied && s->other_head && !strcmp(s->other_head, "same")) {
        size_t bytes = (size_t)(s->vocab * s->d) * base_dtype_bytes(s->dtype);
        format_desc d = p->desc[0];
        d.name = base_strdup("lm_head.weight");
        d.data = memcpy(base_alloc(bytes, 1), d.data, bytes);
        p->desc[p->n++] = d;
    }
}

static void write_shards(const char *folder, const pile *p)
{
    base_str index = {0};
    base_str_puts(&index, "{\"metadata\": {\"total_size\": 1}, "
                          "\"weight_map\": {");
    size_t from = 0;
    for (int k = 0; k < p->s->shards; k++) {
        size_t to = p->n * (size_t)(k + 1) / (size_t)p->s->shards;
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k + 1,
                 p->s->shards);
        char *path = base_path_join(folder, name);
        format_pair pt = {"format", "pt"};
        cr_assert_eq(
            format_st_write(path, p->desc + from, to - from, &pt, 1, NULL),
            LORI_OK);
        free(path);
        for (; from < to; from++)
            base_str_printf(&index, "%s\"%s\": \"%s\"", from ? ", " : "",
                            p->desc[from].name, name);
    }
    base_str_puts(&index, "}}\n");
    tiny_put(folder, "model.safetensors.index.json", index.s);
    base_str_free(&index);
}

void tiny_write(const char *folder, const tiny_spec *spec)
{
    tiny_spec s = tiny_defaults(spec);
    write_config(folder, &s);
    pile p = {.s = &s};
    base_rng_start(&p.rng, s.seed, 1);
    add(&p, "model.embed_tokens.weight", s.vocab, s.d, 0.0);
    for (int64_t l = 0; l < s.layers; l++)
        add_layer(&p, l);
    add(&p, "model.norm.weight", s.d, 0, 1.0);
    add_head(&p);
    if (s.extra)
        add(&p, s.extra, 2, 3, 0.0);
    if (s.shards) {
        write_shards(folder, &p);
    } else {
        char *path = base_path_join(folder, "model.safetensors");
        format_pair pt = {"format", "pt"};
        lori_error err = {0};
        cr_assert_eq(format_st_write(path, p.desc, p.n, &pt, 1, &err), LORI_OK,
                     "%s", err.message);
        free(path);
    }
    for (size_t i = 0; i < p.n; i++) {
        free((void *)p.desc[i].name);
        free((void *)p.desc[i].data);
    }
}

/* ---- open things ----------------------------------------------------------
 */

tiny tiny_open(const tiny_spec *spec, const char *backend_name,
               base_dtype dtype, int n_threads)
{
    tiny t = {.folder = tiny_folder()};
    lori_error err = {0};
    tiny_write(t.folder, spec);
    backend_options o = {
        .name = backend_name, .dtype = dtype, .n_threads = n_threads};
    if (strcmp(backend_name, "cpu") == 0) {
        o.name = getenv("LORI_BACKEND"); /* "cuda": on a GPU */
        o.isa = getenv("LORI_ISA");      /* make check-rungs */
    }
    cr_assert_eq(backend_open(&o, &t.be, &err), LORI_OK, "%s", err.message);
    cr_assert_eq(model_open(t.folder, t.be, &t.m, &err), LORI_OK, "%s",
                 err.message);
    return t;
}

void tiny_close(tiny *t)
{
    tiny_free_gradients(t);
    model_adapter_free(t->ma);
    adapter_free(t->ad);
    model_close(t->m);
    backend_close(t->be);
    tiny_remove(t->folder);
}

void tiny_adapt(tiny *t, int64_t rank, uint64_t seed)
{
    lori_error err = {0};
    adapter_site_spec *specs;
    int64_t n;
    cr_assert_eq(model_sites(model_get_config(t->m), NULL, 0, rank,
                             1.5 * (double)rank, &specs, &n, &err),
                 LORI_OK, "%s", err.message);
    cr_assert_eq(adapter_new(specs, n, false, &t->ad, &err), LORI_OK, "%s",
                 err.message);
    model_sites_free(specs, n);
    base_rng rng;
    base_rng_start(&rng, seed, 2);
    for (int64_t i = 0; i < t->ad->n_sites; i++) {
        adapter_site *s = &t->ad->sites[i];
        for (int64_t k = 0; k < s->rank * s->in; k++)
            s->A[k] =
                base_bf16_to_f32(base_f32_to_bf16((float)(0.3 * normal(&rng))));
        for (int64_t k = 0; k < s->out * s->rank; k++)
            s->B[k] = (float)(0.3 * normal(&rng));
    }
    cr_assert_eq(model_adapter_new(t->m, t->ad, &t->ma, &err), LORI_OK, "%s",
                 err.message);
}

void tiny_gradients(tiny *t, bool want_a)
{
    size_t size = base_dtype_bytes(t->be->acc);
    for (int64_t i = 0; i < t->ma->n_sites; i++) {
        model_site *s = &t->ma->sites[i];
        s->gB = t->be->alloc(t->be, (size_t)(s->out * s->rank) * size);
        if (want_a)
            s->gA = t->be->alloc(t->be, (size_t)(s->in * s->rank) * size);
        cr_assert(s->gB && (s->gA || !want_a));
    }
}

void tiny_zero_gradients(tiny *t)
{
    size_t size = base_dtype_bytes(t->be->acc);
    for (int64_t i = 0; i < t->ma->n_sites; i++) {
        model_site *s = &t->ma->sites[i];
        t->be->zero(t->be, s->gB, (size_t)(s->out * s->rank) * size);
        if (s->gA)
            t->be->zero(t->be, s->gA, (size_t)(s->in * s->rank) * size);
    }
}

void tiny_free_gradients(tiny *t)
{
    for (int64_t i = 0; t->ma && i < t->ma->n_sites; i++) {
        model_site *s = &t->ma->sites[i];
        if (s->gB)
            t->be->free(t->be, s->gB);
        if (s->gA)
            t->be->free(t->be, s->gA);
        s->gA = s->gB = NULL;
    }
}

double *tiny_fetch(backend *be, const void *device, int64_t n)
{
    double *out = base_alloc((size_t)n, sizeof *out);
    float *narrow = base_alloc((size_t)n, sizeof *narrow);
    bool wide = be->acc == BASE_F64;
    be->copy(be, wide ? (void *)out : (void *)narrow, device,
             (size_t)n * base_dtype_bytes(be->acc), BACKEND_TO_HOST);
    cr_assert_eq(be->sync(be, NULL), LORI_OK);
    for (int64_t i = 0; !wide && i < n; i++)
        out[i] = narrow[i];
    free(narrow);
    return out;
}

/* ---- batches ---------------------------------------------------------------
 */

void tiny_batch_make(tiny_batch *out, int64_t vocab, const int *lengths,
                     int n_seqs, uint64_t seed)
{
    base_rng rng;
    base_rng_start(&rng, seed, 3);
    int32_t t = 0, r = 0;
    for (int s = 0; s < n_seqs; s++) {
        out->cu[s] = t;
        for (int i = 0; i < lengths[s]; i++, t++) {
            out->ids[t] = (int32_t)base_rng_below(&rng, (uint64_t)vocab);
            if (i < lengths[s] / 3 || i + 1 == lengths[s])
                continue; /* the prompt; the last token has no target */
            out->row[r] = t;
            out->target[r] = (int32_t)base_rng_below(&rng, (uint64_t)vocab);
            out->weight[r++] = 0.25F + (float)base_rng_uniform(&rng);
        }
    }
    out->cu[n_seqs] = t;
    cr_assert(t <= 256 && n_seqs < 16);
    out->b = (model_batch){.n_tokens = t,
                           .n_seqs = n_seqs,
                           .n_rows = r,
                           .ids = out->ids,
                           .cu = out->cu,
                           .row = out->row,
                           .target = out->target,
                           .weight = out->weight};
}

model_run *tiny_run(tiny *t, const tiny_batch *batch, bool backward,
                    model_schedule schedule, int64_t rank)
{
    model_limits limits = {.tokens = batch->b.n_tokens,
                           .seqs = batch->b.n_seqs,
                           .rows = batch->b.n_rows,
                           .backward = backward,
                           .rank = rank};
    if (schedule == MODEL_KEEP_ALL)
        limits.keep_all = INT64_MAX;
    if (schedule == MODEL_KEEP_NO_MLP)
        limits.keep_no_mlp = INT64_MAX;
    model_run *run;
    lori_error err = {0};
    cr_assert_eq(model_run_new(t->m, &limits, &run, &err), LORI_OK, "%s",
                 err.message);
    return run;
}
