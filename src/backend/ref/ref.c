/* ref.c - the reference backend: its handle, memory, weights and sticky error.
 *
 * Owns the state behind backend.impl and the bytes of every weight (converted
 * to the real type when opened: F16 and BF16 exactly, F64 rounded for F32).
 * The operations are in ref_ops.c and ref_attn.c, built for float and double.
 * Everything runs at once in the caller: sync() only reports. May include base
 * and backend.h. */
#include <math.h>
#include <stdlib.h>

#include "backend/ref/ref_i.h"
#include "backend/team.h"

/* ---- errors ---------------------------------------------------------- */

static void keep_error(backend *be, const char *op, const char *text)
{
    ref_state *state = be->impl;
    if (state->failed)
        return;
    state->failed = true;
    base_fail(&state->error, LORI_DEVICE, "backend ref: %s: %s", op, text);
}

static bool view_ok(const backend *be, const backend_view *v)
{
    return v->dtype == be->act && v->rows >= 0 && v->cols >= 0 &&
           v->ld >= v->cols && (v->data || v->rows == 0 || v->cols == 0);
}

bool ref_fits(backend *be, const char *op, bool fits, const backend_view *views,
              int n)
{
    const ref_state *state = be->impl;
    if (state->failed)
        return false;
    bool ok = fits;
    for (int i = 0; i < n; i++)
        ok = ok && view_ok(be, &views[i]);
    if (ok)
        return true;
    base_str text = {0};
    base_str_puts(&text, "operands do not fit:");
    for (int i = 0; i < n; i++)
        base_str_printf(&text, " [%lld, %lld] ld %lld %s%s%s",
                        (long long)views[i].rows, (long long)views[i].cols,
                        (long long)views[i].ld, base_dtype_name(views[i].dtype),
                        views[i].data ? "" : " NULL", i + 1 < n ? "," : "");
    keep_error(be, op, text.failed ? "operands do not fit" : text.s);
    base_str_free(&text);
    return false;
}

bool ref_holds(backend *be, const char *op, bool holds, const char *what)
{
    const ref_state *state = be->impl;
    if (state->failed)
        return false;
    if (!holds)
        keep_error(be, op, what);
    return holds;
}

static lori_status ref_sync(backend *be, lori_error *err)
{
    ref_state *state = be->impl;
    if (!state->failed)
        return LORI_OK;
    state->failed = false;
    return base_fail(err, state->error.status, "%s", state->error.message);
}

/* ---- memory ---------------------------------------------------------- */

static void *ref_alloc(backend *be, size_t bytes)
{
    (void)be;
    size_t padded;
    if (!base_add(bytes, 63, &padded))
        return NULL;
    padded &= ~(size_t)63;
    if (padded == 0)
        padded = 64;
    void *p = aligned_alloc(64, padded);
    if (p)
        memset(p, 0, padded);
    return p;
}

static void ref_free(backend *be, void *p)
{
    (void)be;
    free(p);
}

static void ref_copy(backend *be, void *dst, const void *src, size_t bytes,
                     backend_dir dir)
{
    (void)dir;
    if (bytes && ref_holds(be, "copy", dst && src, "NULL operand"))
        memmove(dst, src, bytes);
}

static void ref_zero(backend *be, void *p, size_t bytes)
{
    if (bytes && ref_holds(be, "zero", p != NULL, "NULL operand"))
        memset(p, 0, bytes);
}

/* ---- weights --------------------------------------------------------- */

/* Element i of the tensor; its bytes may be unaligned in the mapped file. */
static double tensor_at(const backend_tensor *tensor, size_t i)
{
    const char *p =
        (const char *)tensor->data + i * base_dtype_bytes(tensor->dtype);
    uint16_t h;
    float f;
    double d;
    switch (tensor->dtype) {
    case BASE_F16:
        memcpy(&h, p, sizeof h);
        return (double)base_f16_to_f32(h);
    case BASE_BF16:
        memcpy(&h, p, sizeof h);
        return (double)base_bf16_to_f32(h);
    case BASE_F32:
        memcpy(&f, p, sizeof f);
        return (double)f;
    default:
        memcpy(&d, p, sizeof d);
        return d;
    }
}

static lori_status convert(const backend *be, const backend_tensor *tensor,
                           void *data, size_t n, lori_error *err)
{
    for (size_t i = 0; i < n; i++) {
        double x = tensor_at(tensor, i);
        if (be->act == BASE_F64) {
            ((double *)data)[i] = x;
            continue;
        }
        float f = (float)x;
        if (isinf(f) && !isinf(x))
            return base_fail(err, LORI_NUMERIC,
                             "tensor '%s': element %zu, %g, is too large for "
                             "F32; use dtype f64",
                             tensor->name, i, x);
        ((float *)data)[i] = f;
    }
    return LORI_OK;
}

static void ref_weight_close(backend *be, backend_weight *w)
{
    if (!w)
        return;
    ref_free(be, w->data);
    free(w);
}

static lori_status ref_weight_open(backend *be, const backend_tensor *tensor,
                                   backend_weight **out, lori_error *err)
{
    *out = NULL;
    if (!base_dtype_is_float(tensor->dtype) || tensor->rows < 0 ||
        tensor->cols < 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "tensor '%s': %s [%lld, %lld] cannot be a weight",
                         tensor->name, base_dtype_name(tensor->dtype),
                         (long long)tensor->rows, (long long)tensor->cols);
    size_t n, bytes;
    if (!base_mul((size_t)tensor->rows, (size_t)tensor->cols, &n) ||
        !base_mul(n, base_dtype_bytes(be->act), &bytes))
        return base_no_memory(err, SIZE_MAX);
    backend_weight *w = base_alloc(1, sizeof *w);
    if (!w)
        return base_no_memory(err, sizeof *w);
    w->rows = tensor->rows;
    w->cols = tensor->cols;
    w->data = ref_alloc(be, bytes);
    lori_status st = w->data ? convert(be, tensor, w->data, n, err)
                             : base_no_memory(err, bytes);
    if (st != LORI_OK) {
        ref_weight_close(be, w);
        return base_prefix(err, st, "opening weight '%s'", tensor->name);
    }
    *out = w;
    return LORI_OK;
}

/* Nothing is made for speed here. */
static int64_t ref_weight_compact(backend *be, backend_weight *w)
{
    (void)be;
    (void)w;
    return 0;
}

/* Weights always reside in memory here. */
static void ref_weight_use(backend *be, backend_weight *const *w, int n)
{
    (void)be;
    (void)w;
    (void)n;
}

/* ---- handle ---------------------------------------------------------- */

static void ref_close(backend *be)
{
    backend_team_free(be->team);
    free(be->impl);
    free(be);
}

static void fill_table(backend *be)
{
    be->close = ref_close;
    be->alloc = ref_alloc;
    be->free = ref_free;
    be->host_alloc = ref_alloc;
    be->host_free = ref_free;
    be->copy = ref_copy;
    be->zero = ref_zero;
    be->sync = ref_sync;
    be->weight_open = ref_weight_open;
    be->weight_close = ref_weight_close;
    be->weight_compact = ref_weight_compact;
    be->weight_acquire = ref_weight_use;
    be->weight_release = ref_weight_use;
    if (be->act == BASE_F64) {
        ref_ops_f64(be);
        ref_attn_f64(be);
    } else {
        ref_ops_f32(be);
        ref_attn_f32(be);
    }
}

/* options->isa means nothing here and is not looked at. */
lori_status backend_ref_open(const backend_options *options, backend **out,
                             lori_error *err)
{
    *out = NULL;
    if (options->dtype != BASE_F32 && options->dtype != BASE_F64)
        return base_fail(err, LORI_INVALID,
                         "backend ref: dtype %s, expected F32 or F64",
                         base_dtype_name(options->dtype));
    if (options->n_threads < 0)
        return base_fail(err, LORI_INVALID, "backend ref: %d threads",
                         options->n_threads);
    backend *be = base_alloc(1, sizeof *be);
    ref_state *state = base_alloc(1, sizeof *state);
    if (!be || !state) {
        free(be);
        free(state);
        return base_no_memory(err, sizeof *be + sizeof *state);
    }
    be->name = "ref";
    be->act = be->acc = options->dtype;
    be->detail = be->act == BASE_F64 ? "plain C, double" : "plain C, float";
    be->n_threads = options->n_threads ? options->n_threads : backend_threads();
    be->impl = state;
    fill_table(be);
    lori_status st = backend_team_open(be, err);
    if (st)
        be->close(be);
    else
        *out = be;
    return st;
}
