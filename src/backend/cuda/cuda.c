/* cuda.c - the CUDA backend: its handle, errors, memory and frozen weights.
 *
 * Activations are F32 or BF16, everything that accumulates is float. Frozen
 * weights are copied to the GPU when they are opened, converted to the type of
 * the activations. All work runs in order on one stream, which only sync() and
 * the opening of a weight wait for. May include base and backend.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/cuda_i.h"
#include "backend/team.h"

/* ---- errors ------------------------------------------------------------ */

void cuda_fail(cuda_backend *cuda, lori_status status, const char *fmt, ...)
{
    if (cuda->failed)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cuda->failed = base_fail(&cuda->first, status, "%s", text);
}

static lori_status status_of(cudaError_t status)
{
    return status == cudaErrorMemoryAllocation ? LORI_NO_MEMORY : LORI_DEVICE;
}

void cuda_check(cuda_backend *cuda, const char *op, cudaError_t status)
{
    if (status != cudaSuccess)
        cuda_fail(cuda, status_of(status), "backend cuda: %s: %s (%s)", op,
                  cudaGetErrorString(status), cudaGetErrorName(status));
}

static lori_status table_sync(backend *be, lori_error *err)
{
    cuda_backend *cuda = cuda_of(be);
    cuda_check(cuda, "a queued operation", cudaStreamSynchronize(cuda->stream));
    lori_status st = cuda->failed;
    cuda->failed = LORI_OK;
    return st ? base_fail(err, st, "%s", cuda->first.message) : LORI_OK;
}

/* ---- memory ------------------------------------------------------------ */

/* NULL when there is none left: an answer, no failed operation. Anything else
 * is an earlier operation's failure that shows here. */
static void *given(cuda_backend *cuda, void *p, cudaError_t status)
{
    if (status == cudaSuccess)
        return p;
    (void)cudaGetLastError();
    if (status != cudaErrorMemoryAllocation)
        cuda_check(cuda, "alloc", status);
    return NULL;
}

static void *device_memory(cuda_backend *cuda, size_t bytes)
{
    void *p = NULL;
    cudaError_t status = cudaMalloc(&p, bytes ? bytes : 1);
    return given(cuda, p, status);
}

static void *table_alloc(backend *be, size_t bytes)
{
    cuda_backend *cuda = cuda_of(be);
    void *p = device_memory(cuda, bytes);
    if (p)
        cuda_check(cuda, "alloc", cudaMemsetAsync(p, 0, bytes, cuda->stream));
    return p;
}

/* Grows geometrically: a sequence that gets longer seldom waits for it. */
void *cuda_scratch(cuda_backend *cuda, size_t bytes)
{
    if (bytes <= cuda->scratch_bytes)
        return cuda->scratch;
    cuda_check(cuda, "scratch", cudaFree(cuda->scratch));
    cuda->scratch_bytes = bytes + bytes / 2;
    cuda->scratch = device_memory(cuda, cuda->scratch_bytes);
    if (!cuda->scratch) {
        cuda_fail(cuda, LORI_NO_MEMORY,
                  "backend cuda: scratch: %zu bytes are not to be had on the "
                  "GPU",
                  cuda->scratch_bytes);
        cuda->scratch_bytes = 0;
    }
    return cuda->scratch;
}

/* Waits for what still uses the memory. */
static void table_free(backend *be, void *p)
{
    cuda_check(cuda_of(be), "free", cudaFree(p));
}

static void *table_host_alloc(backend *be, size_t bytes)
{
    void *p = NULL;
    cudaError_t status =
        cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault);
    p = given(cuda_of(be), p, status);
    return p ? memset(p, 0, bytes) : NULL;
}

static void table_host_free(backend *be, void *p)
{
    cuda_check(cuda_of(be), "host_free", cudaFreeHost(p));
}

static void table_copy(backend *be, void *dst, const void *src, size_t bytes,
                       backend_dir dir)
{
    static const enum cudaMemcpyKind kinds[] = {
        [BACKEND_TO_DEVICE] = cudaMemcpyHostToDevice,
        [BACKEND_TO_HOST] = cudaMemcpyDeviceToHost,
        [BACKEND_ON_DEVICE] = cudaMemcpyDeviceToDevice,
    };
    cuda_backend *cuda = cuda_of(be);
    if (!cuda->failed && bytes)
        cuda_check(cuda, "copy",
                   cudaMemcpyAsync(dst, src, bytes, kinds[dir], cuda->stream));
}

static void table_zero(backend *be, void *p, size_t bytes)
{
    cuda_backend *cuda = cuda_of(be);
    if (!cuda->failed && bytes)
        cuda_check(cuda, "zero", cudaMemsetAsync(p, 0, bytes, cuda->stream));
}

/* ---- frozen weights ----------------------------------------------------- */

static void table_weight_close(backend *be, backend_weight *w)
{
    if (!w)
        return;
    table_free(be, w->data);
    free(w);
}

/* Copies to the device and waits, so that `bytes` of host memory are free. */
static lori_status upload(cuda_backend *cuda, void *to, const void *from,
                          size_t bytes, lori_error *err)
{
    cudaError_t status =
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda->stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(cuda->stream);
    if (status == cudaSuccess)
        return LORI_OK;
    return base_fail(err, status_of(status),
                     "backend cuda: copying a weight: %s (%s)",
                     cudaGetErrorString(status), cudaGetErrorName(status));
}

static lori_status fill_weight(backend *be, const backend_tensor *t,
                               backend_weight *w, lori_error *err)
{
    size_t n, bytes = 0;
    if (!base_mul((size_t)t->rows, (size_t)t->cols, &n) ||
        !base_mul(n, base_dtype_bytes(be->act), &bytes))
        return base_no_memory(err, SIZE_MAX);
    w->data = device_memory(cuda_of(be), bytes);
    if (!w->data)
        return base_fail(err, LORI_NO_MEMORY,
                         "tensor '%s': %zu bytes are not to be had on the GPU",
                         t->name ? t->name : "?", bytes);
    if (t->dtype == be->act)
        return upload(cuda_of(be), w->data, t->data, bytes, err);
    void *converted = base_alloc(n, base_dtype_bytes(be->act));
    if (!converted)
        return base_no_memory(err, bytes);
    lori_status st = backend_convert(be, t, converted, err);
    if (!st)
        st = upload(cuda_of(be), w->data, converted, bytes, err);
    free(converted);
    return st;
}

static lori_status table_weight_open(backend *be, const backend_tensor *t,
                                     backend_weight **out, lori_error *err)
{
    *out = NULL;
    CUDA_REQUIRE(base_dtype_is_float(t->dtype) && t->rows > 0 && t->cols > 0);
    backend_weight *w = base_alloc(1, sizeof *w);
    if (!w)
        return base_no_memory(err, sizeof *w);
    w->rows = t->rows;
    w->cols = t->cols;
    lori_status st = fill_weight(be, t, w, err);
    if (st) {
        table_weight_close(be, w);
        return st;
    }
    *out = w;
    return LORI_OK;
}

/* A GPU's memory has better uses. */
static int64_t table_weight_compact(backend *be, backend_weight *w)
{
    (void)be;
    (void)w;
    return 0;
}

/* Weights always lie in the GPU's memory. */
static void table_weight_hold(backend *be, backend_weight *const *w, int n)
{
    (void)be;
    (void)w;
    (void)n;
}

/* ---- open and close ----------------------------------------------------- */

static void table_close(backend *be)
{
    cuda_backend *cuda = cuda_of(be);
    if (cuda->stream) {
        (void)cudaStreamSynchronize(cuda->stream);
        (void)cudaStreamDestroy(cuda->stream);
    }
    cuda_lt_close(cuda->lt);
    (void)cudaFree(cuda->workspace);
    (void)cudaFree(cuda->partial);
    (void)cudaFree(cuda->scratch);
    backend_team_free(cuda->be.team);
    base_str_free(&cuda->detail);
    free(cuda);
}

/* Every number of rows has plans of its own for its products (cuda_lt.c). */
static int64_t table_round_rows(int64_t n)
{
    if (n <= 16) { /* decode: a row that is not there costs as much as one */
        int64_t p = n > 0;
        while (p < n)
            p *= 2;
        return p;
    }
    const int64_t step = n <= 64 ? 16 : 64;
    return (n + step - 1) / step * step;
}

static void fill(backend *be)
{
    be->name = "cuda";
    be->close = table_close;
    be->round_rows = table_round_rows;
    be->alloc = table_alloc;
    be->free = table_free;
    be->host_alloc = table_host_alloc;
    be->host_free = table_host_free;
    be->copy = table_copy;
    be->zero = table_zero;
    be->sync = table_sync;
    be->weight_open = table_weight_open;
    be->weight_close = table_weight_close;
    be->weight_compact = table_weight_compact;
    be->weight_acquire = table_weight_hold;
    be->weight_release = table_weight_hold;
    cuda_linear_fill(be);
    cuda_ops_fill(be);
}

static lori_status no_device(cudaError_t status, lori_error *err)
{
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    return base_fail(err, LORI_UNSUPPORTED,
                     "backend cuda: no GPU can be used: %s; check `nvidia-smi` "
                     "and CUDA_VISIBLE_DEVICES, or use backend cpu",
                     driver == 0 ? "this machine has no NVIDIA driver"
                                 : cudaGetErrorString(status));
}

/* The kernels are built for compute capability 8.0 and later. */
static lori_status find_device(struct cudaDeviceProp *device, lori_error *err)
{
    int n = 0;
    cudaError_t status = cudaGetDeviceCount(&n);
    if (status == cudaSuccess)
        status = n > 0 ? cudaGetDeviceProperties(device, 0) : cudaErrorNoDevice;
    if (status != cudaSuccess)
        return no_device(status, err);
    if (device->major < 8)
        return base_fail(err, LORI_UNSUPPORTED,
                         "backend cuda: %s has compute capability %d.%d, at "
                         "least 8.0 is needed; use backend cpu",
                         device->name, device->major, device->minor);
    return LORI_OK;
}

static lori_status start(cuda_backend *cuda, lori_error *err)
{
    BASE_TRY(cuda_lt_open(&cuda->lt, err));
    cudaError_t status =
        cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    if (status == cudaSuccess)
        status = cudaMalloc(&cuda->workspace, CUDA_WORKSPACE);
    if (status == cudaSuccess)
        status = cudaMalloc((void **)&cuda->partial,
                            CUDA_SUM_BLOCKS * sizeof *cuda->partial);
    if (status == cudaSuccess)
        return LORI_OK;
    return base_fail(err, status_of(status), "backend cuda: starting: %s (%s)",
                     cudaGetErrorString(status), cudaGetErrorName(status));
}

/* options->isa means nothing here and is not looked at; threads only convert
 * weights. */
lori_status backend_cuda_open(const backend_options *options, backend **out,
                              lori_error *err)
{
    *out = NULL;
    struct cudaDeviceProp device;
    if (options->dtype != BASE_F32 && options->dtype != BASE_BF16)
        return base_fail(err, LORI_UNSUPPORTED,
                         "the cuda backend computes in F32 or BF16, not %s",
                         base_dtype_name(options->dtype));
    BASE_TRY(find_device(&device, err));
    cuda_backend *cuda = base_alloc(1, sizeof *cuda);
    if (!cuda)
        return base_no_memory(err, sizeof *cuda);
    cuda->be.impl = cuda;
    cuda->be.act = options->dtype;
    cuda->be.acc = BASE_F32;
    cuda->be.n_threads =
        options->n_threads > 0 ? options->n_threads : backend_threads();
    fill(&cuda->be);
    lori_status st = backend_team_open(&cuda->be, err);
    if (!st)
        st = start(cuda, err);
    if (!st) {
        base_str_printf(&cuda->detail, "%s, cuBLASLt ", device.name);
        cuda_lt_version(cuda->lt, &cuda->detail);
        if (cuda->detail.failed)
            st = base_no_memory(err, 0);
    }
    if (st) {
        table_close(&cuda->be);
        return st;
    }
    cuda->be.detail = cuda->detail.s;
    *out = &cuda->be;
    return LORI_OK;
}
