/* cpu.c - the CPU backend: opens and closes it, owns its memory, keeps its
 * first failure, and chooses the instruction set. Activations are bf16 or
 * float, everything that accumulates is float. Frozen weights of the type of
 * the activations are used in place (a mapped checkpoint is never copied);
 * other types are converted once. */
#include <cpuid.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/cpu/cpu_i.h"

void cpu_fail(cpu_backend *cpu, lori_status status, const char *fmt, ...)
{
    if (cpu->failed)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cpu->failed = base_fail(&cpu->first, status, "%s", text);
}

/* ---- memory ---------------------------------------------------------- */

/* Sanitizers see the bounds of malloc's blocks only. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MAP_FROM SIZE_MAX
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MAP_FROM SIZE_MAX
#endif
#ifndef MAP_FROM
#define MAP_FROM ((size_t)1 << 20)
#endif
#define HUGE_PAGE ((size_t)2 << 20)

/* Stands before every block, 64 bytes. */
typedef struct head {
    void *start;
    size_t mapped; /* bytes of the map; 0: from malloc */
} head;
_Static_assert(sizeof(head) <= 64, "the head fits before the block");

/* A map is zero without being touched: memory planned for the longest batch
 * costs nothing until a batch is that long. */
static void *map_block(size_t bytes)
{
    size_t all;
    if (!base_add(bytes, 64 + HUGE_PAGE, &all))
        return NULL;
    void *start = mmap(NULL, all, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (bytes >= 2 * HUGE_PAGE)
        (void)madvise(start, all, MADV_HUGEPAGE); /* only a wish */
    char *p = (char *)start + 64;
    *(head *)(void *)(p - 64) = (head){start, all};
    return p;
}

void *cpu_memory(size_t bytes)
{
    if (bytes >= MAP_FROM)
        return map_block(bytes);
    size_t all;
    if (!base_add(bytes, 127, &all))
        return NULL;
    all = all / 64 * 64; /* the block rounded up, and its head */
    char *start = aligned_alloc(64, all);
    if (!start)
        return NULL;
    memset(start, 0, all);
    *(head *)(void *)start = (head){start, 0};
    return start + 64;
}

void cpu_memory_free(void *p)
{
    if (!p)
        return;
    head h = *(head *)(void *)((char *)p - 64);
    if (h.mapped)
        munmap(h.start, h.mapped);
    else
        free(h.start);
}

/* Grows geometrically, so slowly growing batches do not reallocate at each. */
static bool grow(cpu_backend *cpu, void **p, size_t *have, size_t want)
{
    if (*p && want <= *have)
        return true;
    cpu_memory_free(*p);
    *p = NULL;
    *have = 0;
    size_t more;
    void *fresh = base_add(want, want / 4, &more) ? cpu_memory(more) : NULL;
    if (fresh) {
        *have = more;
    } else {
        fresh = cpu_memory(want);
        *have = fresh ? want : 0;
    }
    *p = fresh;
    if (!fresh)
        cpu_fail(cpu, LORI_NO_MEMORY,
                 "the CPU backend's scratch: %zu bytes are not to be had",
                 want);
    return fresh != NULL;
}

bool cpu_scratch(cpu_backend *cpu, size_t each)
{
    size_t all;
    each = (each + 4095) / 4096 * 4096 + 4096;
    if (!base_mul(each, (size_t)cpu->be.n_threads, &all)) {
        cpu_fail(cpu, LORI_NO_MEMORY, "the CPU backend's scratch overflows");
        return false;
    }
    if (!grow(cpu, &cpu->scratch, &cpu->scratch_bytes, all))
        return false;
    cpu->scratch_each =
        cpu->scratch_bytes / (size_t)cpu->be.n_threads / 64 * 64;
    return true;
}

void *cpu_list(cpu_backend *cpu, size_t bytes)
{
    bytes = bytes < 4096 ? 4096 : bytes;
    return grow(cpu, &cpu->list, &cpu->list_bytes, bytes) ? cpu->list : NULL;
}

static void *table_alloc(backend *be, size_t bytes)
{
    (void)be;
    return cpu_memory(bytes);
}

static void table_free(backend *be, void *p)
{
    (void)be;
    cpu_memory_free(p);
}

static void table_copy(backend *be, void *dst, const void *src, size_t bytes,
                       backend_dir dir)
{
    (void)dir; /* host and device are one memory here */
    if (!cpu_of(be)->failed && bytes)
        memmove(dst, src, bytes);
}

static void table_zero(backend *be, void *p, size_t bytes)
{
    if (!cpu_of(be)->failed && bytes)
        memset(p, 0, bytes);
}

static lori_status table_sync(backend *be, lori_error *err)
{
    cpu_backend *cpu = cpu_of(be);
    lori_status st = cpu->failed;
    cpu->failed = LORI_OK;
    return st ? base_fail(err, st, "%s", cpu->first.message) : LORI_OK;
}

/* ---- the instruction set ---------------------------------------------- */

/* The best first. After base, which every processor runs, come those that are
 * only for tests. */
static const struct rung {
    const char *isa;
    const cpu_kernels *k;
    const cpu_tile_kernels *tiles; /* of bf16, or NULL */
} rungs[] = {
    {"amx", &cpu_kernels_avx512bf16, &cpu_tile_kernels_amx},
    {"avx512bf16", &cpu_kernels_avx512bf16, &cpu_tile_kernels_vectors},
    {"avx512", &cpu_kernels_avx512, NULL},
    {"avx2", &cpu_kernels_avx2, NULL},
    {"base", &cpu_kernels_base, NULL},
    {"amx-emulated", &cpu_kernels_avx512, &cpu_tile_kernels_emulated},
};
enum { RUNGS = sizeof rungs / sizeof *rungs };

/* Whether the processor has tiles of bf16, and the system lets this process
 * use them. Source: Intel SDM, CPUID leaf 7; Linux, Documentation/arch/x86/
 * xstate.rst. */
static bool tiles_run(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    const bool tiles = d & 1U << 24, bf16 = d & 1U << 22;
    return tiles && bf16 &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool rung_runs(int i)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                  __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512dq");
    bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    const bool runs[RUNGS] = {
        bf16 && tiles_run(), bf16, avx512, avx2, true, avx512};
    return runs[i];
}

/* Intel's AVX512_BF16 runs at half the rate of float FMA, AMD's at twice. By
 * the kind of processor, never by a measurement: the choice changes the last
 * bits of results. */
static bool rung_is_fast(int i)
{
    return rungs[i].tiles != &cpu_tile_kernels_vectors ||
           !__builtin_cpu_is("intel");
}

static lori_status refuse(const char *isa, lori_error *err)
{
    base_str runs = {0};
    for (int i = 0; i < RUNGS; ++i)
        if (rung_runs(i))
            base_str_printf(&runs, "%s%s", runs.len ? ", " : "", rungs[i].isa);
    lori_status st = base_fail(err, LORI_UNSUPPORTED,
                               "this processor does not run instruction set "
                               "'%s', only %s",
                               isa, runs.s ? runs.s : "base");
    base_str_free(&runs);
    return st;
}

/* The best rung, or the one named. */
static lori_status choose_rung(const char *isa, int *out, lori_error *err)
{
    int i = 0;
    if (isa) {
        while (i < RUNGS && strcmp(rungs[i].isa, isa) != 0)
            ++i;
        if (i == RUNGS)
            return base_fail(err, LORI_INVALID,
                             "instruction set '%s' is not known; there are "
                             "amx, avx512bf16, avx512, avx2 and base",
                             isa);
        if (!rung_runs(i))
            return refuse(isa, err);
    }
    while (!rung_runs(i) || (!isa && !rung_is_fast(i)))
        ++i;
    *out = i;
    return LORI_OK;
}

/* Own products are cut for the second cache, as the system reports it: within
 * what is usual, or 1 MB where nothing is said. */
static size_t second_cache(void)
{
    const int64_t kb = 1024;
    long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (size_t)(bytes <= 0 ? 1024 * kb
                               : cpu_clamp(bytes, 256 * kb, 2048 * kb));
}

/* "avx512 kernels and products, 2 threads" */
static void describe(cpu_backend *cpu, const char *isa)
{
    const int n = cpu->be.n_threads;
    base_str_printf(&cpu->detail, "%s kernels and products, %d thread%s", isa,
                    n, n == 1 ? "" : "s");
}

/* ---- frozen weights ---------------------------------------------------- */

static void table_weight_close(backend *be, backend_weight *w)
{
    cpu_backend *cpu = cpu_of(be);
    if (!w)
        return;
    if (cpu->last == w)
        cpu->last = NULL;
    cpu_memory_free(w->owned);
    cpu_compact_free(&w->compact);
    free(w->after);
    free(w);
}

static lori_status table_weight_open(backend *be, const backend_tensor *t,
                                     backend_weight **out, lori_error *err)
{
    *out = NULL;
    CPU_REQUIRE(base_dtype_is_float(t->dtype) && t->rows > 0 && t->cols > 0);
    backend_weight *w = base_alloc(1, sizeof *w);
    if (!w)
        return base_no_memory(err, sizeof *w);
    w->rows = t->rows;
    w->cols = t->cols;
    w->data = t->data;
    w->after = base_alloc(1, sizeof *w->after);
    lori_status st = w->after ? LORI_OK : base_no_memory(err, sizeof *w->after);
    if (!st && t->dtype != be->act) {
        size_t n, bytes = 0;
        bool fits = base_mul((size_t)t->rows, (size_t)t->cols, &n) &&
                    base_mul(n, base_dtype_bytes(be->act), &bytes);
        w->data = w->owned = fits ? cpu_memory(bytes) : NULL;
        st = w->owned ? backend_convert(be, t, w->owned, err)
                      : base_no_memory(err, bytes);
    }
    if (st) {
        table_weight_close(be, w);
        return st;
    }
    *out = w;
    return LORI_OK;
}

static int64_t table_weight_compact(backend *be, backend_weight *w)
{
    cpu_backend *cpu = cpu_of(be);
    size_t bytes = 0;
    if (!w->compact.blocks && be->act == BASE_BF16 && cpu->k->few_compact)
        cpu_compact_make(cpu, w->data, w->rows, w->cols, &w->compact, &bytes);
    return (int64_t)bytes;
}

/* Weights always lie in this machine's memory. */
static void table_weight_hold(backend *be, backend_weight *const *w, int n)
{
    (void)be;
    (void)w;
    (void)n;
}

/* ---- open and close ---------------------------------------------------- */

static void table_close(backend *be)
{
    cpu_backend *cpu = cpu_of(be);
    backend_team_free(cpu->be.team);
    cpu_memory_free(cpu->scratch);
    cpu_memory_free(cpu->list);
    base_str_free(&cpu->detail);
    free(cpu);
}

static void fill(backend *be)
{
    be->name = "cpu";
    be->close = table_close;
    be->alloc = table_alloc;
    be->free = table_free;
    be->host_alloc = table_alloc;
    be->host_free = table_free;
    be->copy = table_copy;
    be->zero = table_zero;
    be->sync = table_sync;
    be->weight_open = table_weight_open;
    be->weight_close = table_weight_close;
    be->weight_compact = table_weight_compact;
    be->weight_acquire = table_weight_hold;
    be->weight_release = table_weight_hold;
    cpu_linear_fill(be);
    cpu_rows_fill(be);
    cpu_attn_fill(be);
}

lori_status backend_cpu_open(const backend_options *options, backend **out,
                             lori_error *err)
{
    *out = NULL;
    int rung = 0;
    if (options->dtype != BASE_F32 && options->dtype != BASE_BF16)
        return base_fail(err, LORI_UNSUPPORTED,
                         "the cpu backend computes in F32 or BF16, not %s",
                         base_dtype_name(options->dtype));
    BASE_TRY(choose_rung(options->isa, &rung, err));
    cpu_backend *cpu = base_alloc(1, sizeof *cpu);
    if (!cpu)
        return base_no_memory(err, sizeof *cpu);
    cpu->be.impl = cpu;
    cpu->be.act = options->dtype;
    cpu->be.acc = BASE_F32;
    cpu->be.n_threads =
        options->n_threads > 0 ? options->n_threads : backend_threads();
    fill(&cpu->be);
    cpu->k = rungs[rung].k;
    cpu->tiles = options->dtype == BASE_BF16 ? rungs[rung].tiles : NULL;
    cpu->l2_bytes = second_cache();
    lori_status st = backend_team_open(&cpu->be, err);
    if (!st) {
        describe(cpu, rungs[rung].isa);
        if (cpu->detail.failed)
            st = base_no_memory(err, 0);
    }
    if (st) {
        table_close(&cpu->be);
        return st;
    }
    cpu->be.detail = cpu->detail.s;
    *out = &cpu->be;
    return LORI_OK;
}
