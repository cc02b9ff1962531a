/* cpu_dnnl.c - oneDNN, behind a narrow door: one matrix product of plain
 * row-major operands, made for one thread and run on the calling thread. The
 * only file that includes dnnl.h; speaks the C APIs of oneDNN 2 and 3.
 *
 * Why one thread: oneDNN splits a product by the number of threads it sees,
 * and at some shapes sums in another order then. The caller cuts a product
 * into pieces by shape alone and runs each piece here on one thread, so the
 * sums are the same for any number of threads. oneDNN reads OpenMP's setting
 * both when a primitive is made and when it runs; both happen inside a region
 * whose own setting is 1, which touches nobody else's.
 *
 * Owns the primitives, kept in a hash table by cpu_product_key. Scratchpads
 * are the caller's, so after the first use of a shape nothing is allocated
 * here. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include <dnnl.h>

#include "backend/cpu/cpu_i.h"

#define MAX_PRODUCTS 4096
#define BUCKETS      1024

typedef struct handles {
    dnnl_memory_t a, b, c, scratch;
} handles;

struct cpu_product {
    cpu_product_key key;
    cpu_product *next;
    dnnl_primitive_t primitive; /* NULL: oneDNN has none for this key */
    dnnl_stream_t stream;       /* borrowed */
    size_t scratch_bytes;
    int n_threads;
    handles *at; /* [n_threads] */
};

struct cpu_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int n_threads;
    int n_products;
    char version[32];
    cpu_product *bucket[BUCKETS];
};

static lori_status failed(lori_error *err, dnnl_status_t status,
                          const char *what)
{
    if (status == dnnl_out_of_memory)
        return base_fail(err, LORI_NO_MEMORY, "oneDNN: %s: out of memory",
                         what);
    return base_fail(err, LORI_DEVICE, "oneDNN: %s failed with status %d", what,
                     (int)status);
}

/* ---- the parts where versions 2 and 3 differ ------------------------- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout; /* owned */

static dnnl_status_t layout_make(layout *out, const dnnl_dims_t dims,
                                 dnnl_data_type_t type,
                                 const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(out, 2, dims, type, strides);
}
static void layout_drop(layout *l)
{
    if (*l)
        dnnl_memory_desc_destroy(*l);
}
static dnnl_status_t set_alpha(dnnl_primitive_attr_t attr, dnnl_post_ops_t ops,
                               float alpha)
{
    (void)attr;
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, 0.0f);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops, float scale)
{
    return dnnl_post_ops_append_sum(ops, scale, 0, dnnl_data_type_undef);
}
static dnnl_status_t describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                              const layout *a, const layout *b, const layout *c,
                              dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c,
                                             attr);
}
static dnnl_status_t memory_make(dnnl_memory_t *out, const layout *l,
                                 dnnl_engine_t engine)
{
    return dnnl_memory_create(out, *l, engine, NULL);
}
static dnnl_status_t scratch_make(dnnl_memory_t *out, size_t *bytes,
                                  const_dnnl_primitive_desc_t desc,
                                  dnnl_engine_t engine)
{
    const_dnnl_memory_desc_t md =
        dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    *bytes = md ? dnnl_memory_desc_get_size(md) : 0;
    return *bytes ? dnnl_memory_create(out, md, engine, NULL) : dnnl_success;
}
#else
typedef dnnl_memory_desc_t layout; /* a value */

static dnnl_status_t layout_make(layout *out, const dnnl_dims_t dims,
                                 dnnl_data_type_t type,
                                 const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}
static void layout_drop(layout *l)
{
    (void)l;
}
static dnnl_status_t set_alpha(dnnl_primitive_attr_t attr, dnnl_post_ops_t ops,
                               float alpha)
{
    (void)ops;
    return dnnl_primitive_attr_set_output_scales(attr, 1, 0, &alpha);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops, float scale)
{
    return dnnl_post_ops_append_sum(ops, scale);
}
static dnnl_status_t describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                              const layout *a, const layout *b, const layout *c,
                              dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    dnnl_status_t st = dnnl_matmul_desc_init(&op, a, b, NULL, c);
    return st != dnnl_success
               ? st
               : dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
}
static dnnl_status_t memory_make(dnnl_memory_t *out, const layout *l,
                                 dnnl_engine_t engine)
{
    return dnnl_memory_create(out, l, engine, DNNL_MEMORY_NONE);
}
static dnnl_status_t scratch_make(dnnl_memory_t *out, size_t *bytes,
                                  const_dnnl_primitive_desc_t desc,
                                  dnnl_engine_t engine)
{
    const dnnl_memory_desc_t *md =
        dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    *bytes = md ? dnnl_memory_desc_get_size(md) : 0;
    return *bytes ? dnnl_memory_create(out, md, engine, DNNL_MEMORY_NONE)
                  : dnnl_success;
}
#endif

/* ---- open and close ------------------------------------------------- */

lori_status cpu_dnnl_open(int n_threads, cpu_dnnl **out, lori_error *err)
{
    *out = NULL;
    cpu_dnnl *d = base_alloc(1, sizeof *d);
    if (!d)
        return base_no_memory(err, sizeof *d);
    d->n_threads = n_threads;
    const dnnl_version_t *v = dnnl_version();
    snprintf(d->version, sizeof d->version, "%d.%d.%d", v->major, v->minor,
             v->patch);
    lori_status st = LORI_OK;
    /* Headers and library must speak the same API; a mix would crash. */
    if (v->major != DNNL_VERSION_MAJOR)
        st = base_fail(err, LORI_DEVICE,
                       "built for oneDNN %d, but the library is %s; install "
                       "the matching library or build again",
                       DNNL_VERSION_MAJOR, d->version);
    dnnl_status_t got = dnnl_success;
    if (!st && (got = dnnl_engine_create(&d->engine, dnnl_cpu, 0)))
        st = failed(err, got, "opening the CPU engine");
    if (!st && (got = dnnl_stream_create(&d->stream, d->engine,
                                         dnnl_stream_default_flags)))
        st = failed(err, got, "opening a stream");
    if (st) {
        cpu_dnnl_close(d);
        return st;
    }
    *out = d;
    return LORI_OK;
}

const char *cpu_dnnl_version(const cpu_dnnl *d)
{
    return d->version;
}

bool cpu_dnnl_bf16(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    const unsigned bf16 = dnnl_cpu_isa_avx512_core_bf16;
    return (isa & bf16) == bf16;
}

static void product_free(cpu_product *p)
{
    if (!p)
        return;
    for (int i = 0; p->at && i < p->n_threads; ++i) {
        handles *h = &p->at[i];
        dnnl_memory_t all[4] = {h->a, h->b, h->c, h->scratch};
        for (int j = 0; j < 4; ++j)
            if (all[j])
                dnnl_memory_destroy(all[j]);
    }
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    free(p->at);
    free(p);
}

static void forget_all(cpu_dnnl *d)
{
    for (int i = 0; i < BUCKETS; ++i) {
        while (d->bucket[i]) {
            cpu_product *p = d->bucket[i];
            d->bucket[i] = p->next;
            product_free(p);
        }
    }
    d->n_products = 0;
}

void cpu_dnnl_close(cpu_dnnl *d)
{
    if (!d)
        return;
    forget_all(d);
    if (d->stream)
        dnnl_stream_destroy(d->stream);
    if (d->engine)
        dnnl_engine_destroy(d->engine);
    free(d);
}

void cpu_dnnl_trim(cpu_dnnl *d)
{
    if (d->n_products >= MAX_PRODUCTS)
        forget_all(d);
}

/* ---- making a product ------------------------------------------------ */

static dnnl_data_type_t type_of(int32_t dtype)
{
    return dtype == BASE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t attributes(const cpu_product_key *key,
                                dnnl_primitive_attr_t attr)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t st = dnnl_post_ops_create(&ops);
    if (!st)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr,
                                                     dnnl_scratchpad_mode_user);
    if (!st && key->alpha != 1.0f)
        st = set_alpha(attr, ops, key->alpha);
    if (!st && key->beta != 0.0f)
        st = append_sum(ops, key->beta);
    if (!st)
        st = dnnl_primitive_attr_set_post_ops(attr, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return st;
}

static dnnl_status_t make_handles(cpu_dnnl *d, cpu_product *p,
                                  const layout *abc,
                                  const_dnnl_primitive_desc_t desc)
{
    dnnl_status_t st = dnnl_success;
    for (int i = 0; i < p->n_threads && !st; ++i) {
        handles *h = &p->at[i];
        st = memory_make(&h->a, &abc[0], d->engine);
        if (!st)
            st = memory_make(&h->b, &abc[1], d->engine);
        if (!st)
            st = memory_make(&h->c, &abc[2], d->engine);
        if (!st)
            st = scratch_make(&h->scratch, &p->scratch_bytes, desc, d->engine);
    }
    return st;
}

static dnnl_status_t build(cpu_dnnl *d, cpu_product *p)
{
    const cpu_product_key *k = &p->key;
    const dnnl_dims_t a_dims = {k->m, k->k}, b_dims = {k->k, k->n},
                      c_dims = {k->m, k->n};
    const dnnl_dims_t a_step = {k->lda, 1}, c_step = {k->ldc, 1};
    const dnnl_dims_t b_step = {k->b_rows_n ? 1 : k->ldb,
                                k->b_rows_n ? k->ldb : 1};
    layout abc[3];
    memset(abc, 0, sizeof abc);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t st = layout_make(&abc[0], a_dims, type_of(k->ab), a_step);
    if (!st)
        st = layout_make(&abc[1], b_dims, type_of(k->ab), b_step);
    if (!st)
        st = layout_make(&abc[2], c_dims, type_of(k->c), c_step);
    if (!st)
        st = dnnl_primitive_attr_create(&attr);
    if (!st)
        st = attributes(k, attr);
    if (!st)
        st = describe(&desc, d->engine, &abc[0], &abc[1], &abc[2], attr);
    if (!st)
        st = dnnl_primitive_create(&p->primitive, desc);
    if (!st)
        st = make_handles(d, p, abc, desc);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    for (int i = 0; i < 3; ++i)
        layout_drop(&abc[i]);
    return st;
}

static size_t bucket_of(const cpu_product_key *key)
{
    return (size_t)(base_fnv1a(BASE_FNV_START, key, sizeof *key) % BUCKETS);
}

static lori_status product_new(cpu_dnnl *d, const cpu_product_key *key,
                               cpu_product **out, lori_error *err)
{
    *out = NULL;
    cpu_product *p = base_alloc(1, sizeof *p);
    if (!p)
        return base_no_memory(err, sizeof *p);
    p->key = *key;
    p->stream = d->stream;
    p->n_threads = d->n_threads;
    p->at = base_alloc((size_t)d->n_threads, sizeof *p->at);
    dnnl_status_t st = dnnl_out_of_memory;
    if (p->at) {
#pragma omp parallel num_threads(1)
        {
            omp_set_num_threads(1);
            st = build(d, p);
        }
    }
    if (st == dnnl_unimplemented && p->primitive) {
        dnnl_primitive_destroy(p->primitive);
        p->primitive = NULL;
    } else if (st && st != dnnl_unimplemented) {
        product_free(p);
        return failed(err, st, "preparing a matrix product");
    }
    *out = p;
    return LORI_OK;
}

lori_status cpu_dnnl_get(cpu_dnnl *d, const cpu_product_key *key,
                         const cpu_product **out, lori_error *err)
{
    *out = NULL;
    cpu_product **head = &d->bucket[bucket_of(key)], *p = *head;
    while (p && memcmp(&p->key, key, sizeof *key) != 0)
        p = p->next;
    if (!p) {
        BASE_TRY(product_new(d, key, &p, err));
        p->next = *head;
        *head = p;
        d->n_products++;
    }
    if (!p->primitive)
        return base_fail(err, LORI_UNSUPPORTED,
                         "oneDNN %s has no product %lld x %lld x %lld here",
                         d->version, (long long)key->m, (long long)key->n,
                         (long long)key->k);
    *out = p;
    return LORI_OK;
}

/* ---- running --------------------------------------------------------- */

size_t cpu_product_scratch_bytes(const cpu_product *p)
{
    return p->scratch_bytes;
}

static void *writable(const void *p)
{
    void *out; /* oneDNN's handles are not const; inputs are not written */
    memcpy(&out, &p, sizeof out);
    return out;
}

int cpu_product_run(const cpu_product *p, int thread, const void *a,
                    const void *b, void *c, void *scratch)
{
    const handles *h = &p->at[thread];
    dnnl_status_t st = dnnl_memory_set_data_handle(h->a, writable(a));
    if (!st)
        st = dnnl_memory_set_data_handle(h->b, writable(b));
    if (!st)
        st = dnnl_memory_set_data_handle(h->c, c);
    if (!st && h->scratch)
        st = dnnl_memory_set_data_handle(h->scratch, scratch);
    dnnl_exec_arg_t args[4] = {{DNNL_ARG_SRC, h->a},
                               {DNNL_ARG_WEIGHTS, h->b},
                               {DNNL_ARG_DST, h->c},
                               {DNNL_ARG_SCRATCHPAD, h->scratch}};
    if (!st)
        st = dnnl_primitive_execute(p->primitive, p->stream, h->scratch ? 4 : 3,
                                    args);
    return (int)st;
}
