/* backend.c - opens a backend by name and describes the machine.
 *
 * Knows the names of the backends and nothing about what they compute. May
 * include base and backend.h. */
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/team.h"

typedef lori_status open_fn(const backend_options *options, backend **out,
                            lori_error *err);

static const char *const backend_names[] = {"cpu", "cuda", "ref"};
static open_fn *const backend_opens[] = {backend_cpu_open, backend_cuda_open,
                                         backend_ref_open};
#define N_BACKENDS (sizeof backend_names / sizeof backend_names[0])

/* ---- operations that others make up ------------------------------------ */

static void gemm_swiglu(backend *be, backend_view a, backend_view g,
                        backend_view u, backend_view x,
                        backend_weight *const w[2], const backend_low *low)
{
    be->gemm_ws(be, 2, (backend_view[]){g, u}, x, w, low);
    be->swiglu(be, a, g, u);
}

static void gemm_swiglu_bwd(backend *be, backend_view g, backend_view u,
                            backend_view da, backend_view dy,
                            const backend_weight *w, const backend_low *low)
{
    be->gemm_wt(be, da, dy, w, low, 0);
    be->swiglu_bwd(be, g, u, da);
}

lori_status backend_open(const backend_options *options, backend **out,
                         lori_error *err)
{
    *out = NULL;
    const char *name = options->name ? options->name : backend_names[0];
    for (size_t i = 0; i < N_BACKENDS; i++) {
        if (strcmp(name, backend_names[i]) != 0)
            continue;
        BASE_TRY(backend_opens[i](options, out, err));
        backend *be = *out;
        if (!be->gemm_swiglu)
            be->gemm_swiglu = gemm_swiglu;
        if (!be->gemm_swiglu_bwd)
            be->gemm_swiglu_bwd = gemm_swiglu_bwd;
        return LORI_OK;
    }
    const char *near = base_nearest(name, backend_names, N_BACKENDS);
    return base_fail(err, LORI_INVALID,
                     "backend '%s' does not exist; there are cpu, cuda and "
                     "ref%s%s%s",
                     name, near ? " (did you mean '" : "", near ? near : "",
                     near ? "'?)" : "");
}

lori_status backend_team_open(backend *be, lori_error *err)
{
    be->team = backend_team_new(be->n_threads);
    if (be->team)
        return LORI_OK;
    return base_fail(err, LORI_NO_MEMORY,
                     "backend %s: %d threads cannot be started; use fewer",
                     be->name, be->n_threads);
}

void backend_parallel(backend *be, int n, backend_part *part, void *context)
{
    backend_team_run(be->team, n, part, context);
}

void backend_close(backend *be)
{
    if (be)
        be->close(be);
}

/* ---- the machine ----------------------------------------------------- */

/* The value of "key<blanks>: value" in one line of /proc/cpuinfo, or NULL. The
 * line's newline is removed. */
static char *cpuinfo_value(char *line, const char *key)
{
    size_t n = strlen(key);
    if (strncmp(line, key, n) != 0)
        return NULL;
    char *p = line + n;
    p += strspn(p, " \t");
    if (*p != ':')
        return NULL;
    p++;
    p += strspn(p, " \t");
    p[strcspn(p, "\n")] = '\0';
    return p;
}

/* Those of the flags that decide which kernels run. The kernel lists a flag
 * only when it also saves that part of the register state. */
static void add_flags(base_str *out, char *flags)
{
    static const char *const known[] = {
        "avx2",        "fma",      "f16c",        "avx_vnni",
        "avx512f",     "avx512bw", "avx512_vnni", "avx512_bf16",
        "avx512_fp16", "amx_tile", "amx_bf16",    "amx_int8",
        "asimd",       "asimdhp",  "bf16",        "sve",
    };
    char *rest = NULL;
    const char *sep = "";
    for (char *w = strtok_r(flags, " \t", &rest); w;
         w = strtok_r(NULL, " \t", &rest)) {
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (strcmp(w, known[i]) != 0)
                continue;
            base_str_printf(out, "%s%s", sep, w);
            sep = " ";
        }
    }
    if (!*sep)
        base_str_puts(out, "no vector extensions beyond the baseline");
}

/* OpenMP counts the processors that this process may run on (affinity), not
 * the time that a container gets: threads beyond it only wait for each other.
 */
static int quota_threads(void)
{
    double quota = base_cpu_quota_at("");
    if (quota <= 0 || getenv("OMP_NUM_THREADS"))
        return INT_MAX;
    return quota < INT_MAX ? (int)fmax(1, ceil(quota)) : INT_MAX;
}

int backend_threads(void)
{
    int quota = quota_threads(), all = omp_get_max_threads();
    return quota < all ? quota : all;
}

static void add_threads(base_str *out)
{
    int threads = backend_threads();
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    base_str_printf(out, "; %d thread%s", threads, threads == 1 ? "" : "s");
    if (getenv("OMP_NUM_THREADS"))
        base_str_puts(out, " (OMP_NUM_THREADS)");
    else if (threads == quota_threads() && threads < omp_get_max_threads())
        base_str_printf(out, " (a quota of %.2g of %ld processors)",
                        base_cpu_quota_at(""), online);
    else if (threads < online)
        base_str_printf(out, " (affinity; %ld processors)", online);
}

void backend_machine(base_str *out)
{
    char *line = NULL, *name = NULL, *flags = NULL;
    size_t cap = 0;
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && !(name && flags) && getline(&line, &cap, f) > 0) {
        char *value = cpuinfo_value(line, "model name");
        if (value && !name)
            name = base_strdup(value);
        value = cpuinfo_value(line, "flags");
        if (!value)
            value = cpuinfo_value(line, "Features");
        if (value && !flags)
            flags = base_strdup(value);
    }
    if (f)
        fclose(f);
    base_str_printf(out, "%s; ", name ? name : "unknown processor");
    if (flags)
        add_flags(out, flags);
    else
        base_str_puts(out, "unknown instruction sets");
    add_threads(out);
    free(line);
    free(name);
    free(flags);
}
