/* base.h - what every room stands on: errors, memory, strings, files, dtypes,
 * random numbers, callbacks. Includes only lori_core.h and libc. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lori_core.h"

#define BASE_PRINTF(fmt_arg, first)                                            \
    __attribute__((format(printf, fmt_arg, first)))

/* ---- errors --------------------------------------------------------- */

/* Sets *err (may be NULL) and returns `status`. One line, no final dot. */
lori_status base_fail(lori_error *err, lori_status status, const char *fmt, ...)
    BASE_PRINTF(3, 4);
/* Puts "<text>: " before the message of *err (may be NULL); returns `status`,
 * so a caller can write `return base_prefix(err, st, "reading %s", path)`. */
lori_status base_prefix(lori_error *err, lori_status status, const char *fmt,
                        ...) BASE_PRINTF(3, 4);
/* The same, with ": <what errno value `code` means>" at the end. The status is
 * NOT_FOUND for ENOENT and ENOTDIR, NO_MEMORY for ENOMEM, else IO. */
lori_status base_fail_errno(lori_error *err, int code, const char *fmt, ...)
    BASE_PRINTF(3, 4);
/* LORI_NO_MEMORY with a message naming the size. */
lori_status base_no_memory(lori_error *err, size_t bytes);
const char *base_status_name(lori_status status); /* "INVALID" */

#ifdef __clang_analyzer__
/* The analyzer sees one file at a time: it must know that a failure is one. */
#define base_fail(err, status, ...)                                            \
    (base_fail(err, status, __VA_ARGS__), status)
#define base_no_memory(err, bytes) (base_no_memory(err, bytes), LORI_NO_MEMORY)
#endif

#define BASE_TRY(expr)                                                         \
    do {                                                                       \
        lori_status base_try_status_ = (expr);                                 \
        if (base_try_status_ != LORI_OK)                                       \
            return base_try_status_;                                           \
    } while (0)

/* ---- memory --------------------------------------------------------- */

/* n * size zeroed bytes, or NULL when out of memory or the product overflows.
 * Free with free(). n * size == 0 gives a unique pointer. */
void *base_alloc(size_t n, size_t size);
/* realloc with overflow check; on failure NULL and `p` stays valid. */
void *base_resize(void *p, size_t n, size_t size);
char *base_strdup(const char *s);
char *base_strndup(const char *s, size_t n);
bool base_mul(size_t a, size_t b, size_t *out); /* false on overflow */
bool base_add(size_t a, size_t b, size_t *out);
bool base_mul64(int64_t a, int64_t b, int64_t *out); /* both >= 0 */

/* Plan, then place. The same layout function runs first with base NULL (only
 * `used` grows: that is the size to allocate) and again with the memory. */
typedef struct base_plan {
    unsigned char *base; /* NULL while counting; 64-byte aligned */
    size_t used;         /* bytes handed out so far, multiple of 64 */
    bool overflow;
} base_plan;
/* n * size bytes at a multiple of 64; NULL while counting. */
void *base_plan_take(base_plan *plan, size_t n, size_t size);

/* ---- growing strings ------------------------------------------------ */

/* Zero-initialise to start. `s` is NUL-terminated once anything was added. A
 * failed allocation sets `failed` and makes later calls no-ops: check once. */
typedef struct base_str {
    char *s;
    size_t len, cap;
    bool failed;
} base_str;
void base_str_add(base_str *str, const char *bytes, size_t n);
void base_str_puts(base_str *str, const char *z);
void base_str_printf(base_str *str, const char *fmt, ...) BASE_PRINTF(2, 3);
void base_str_vprintf(base_str *str, const char *fmt, __builtin_va_list ap)
    BASE_PRINTF(2, 0);
void base_str_clear(base_str *str); /* keeps the memory */
void base_str_free(base_str *str);
/* Gives the buffer away (never NULL unless `failed`); caller frees. */
char *base_str_take(base_str *str);

/* Facts about a file, collected to be reported together: a line each, until
 * base_diag_end hands them over. Control characters in a line become spaces. */
typedef struct base_diag {
    base_str lines;
    int64_t n;   /* all that were added */
    int64_t max; /* lines kept; the rest is only counted. 0: all */
} base_diag;
void base_diag_add(base_diag *d, const char *fmt, ...) BASE_PRINTF(2, 3);
/* OK when nothing was added; else *err holds the lines, and "... and N more"
 * where they do not fit. Frees `d` either way. */
lori_status base_diag_end(base_diag *d, lori_status status, lori_error *err);

/* The candidate nearest to `word` by edit distance, or NULL when none is near
 * enough to be a likely typing error. */
const char *base_nearest(const char *word, const char *const *candidates,
                         size_t n);
/* Bytes as "12.3 MB"; into caller's buffer, returned. */
char *base_human_bytes(double bytes, char *buf, size_t n);
/* "6GB", "512MiB", "1.5 TB", "1048576": KB is 1000 bytes, KiB 1024. */
bool base_parse_bytes(const char *text, int64_t *out);
/* Shortest decimal that reads back to the same float / double, always with a
 * "." or an exponent (HF checks JSON types); Python repr style: 1e-05, 0.1. */
char *base_f32_text(float x, char buf[32]);
char *base_f64_text(double x, char buf[32]);
/* Length of a valid UTF-8 prefix of s[0..n): n when all is valid. */
size_t base_utf8_valid(const char *s, size_t n);

/* ---- files ---------------------------------------------------------- */

/* dir + "/" + name, malloc'd; NULL when out of memory. */
char *base_path_join(const char *dir, const char *name);
const char *base_path_name(const char *path); /* after the last '/' */
bool base_is_dir(const char *path);
bool base_is_file(const char *path);
/* Whole file, NUL-terminated beyond `*n`. Refuses files over `max` bytes. */
lori_status base_file_read(const char *path, size_t max, char **bytes,
                           size_t *n, lori_error *err);

/* A read-only shared map. Owned by the caller; base_map_close when no view of
 * it lives. An empty file maps to data NULL, bytes 0. */
typedef struct base_map {
    const unsigned char *data;
    size_t bytes;
} base_map;
lori_status base_map_open(const char *path, base_map *map, lori_error *err);
void base_map_close(base_map *map);

/* A file that appears whole or not at all: written beside its place under a
 * temporary name, flushed, renamed on commit (mode 0644 & ~umask). */
typedef struct base_out base_out;
lori_status base_out_open(const char *path, base_out **out, lori_error *err);
lori_status base_out_write(base_out *out, const void *bytes, size_t n,
                           lori_error *err);
lori_status base_out_commit(base_out *out, lori_error *err); /* frees */
void base_out_abort(base_out *out); /* removes the temporary; NULL is fine */
/* The three calls in one. */
lori_status base_file_write(const char *path, const void *bytes, size_t n,
                            lori_error *err);

/* A folder that appears whole or not at all. `open` makes a temporary sibling
 * whose path is base_outdir_path(); `commit` moves it to `path`. An existing
 * `path` is an error at `open` unless `replace`, which swaps it atomically
 * (renameat2 EXCHANGE, else rename aside) and only removes a folder that
 * holds `marker` (e.g. "adapter_config.json") or is empty. */
typedef struct base_outdir base_outdir;
lori_status base_outdir_open(const char *path, bool replace, const char *marker,
                             base_outdir **out, lori_error *err);
const char *base_outdir_path(const base_outdir *out);
lori_status base_outdir_commit(base_outdir *out, lori_error *err); /* frees */
void base_outdir_abort(base_outdir *out);
lori_status base_mkdirs(const char *path, lori_error *err);

/* ---- numbers -------------------------------------------------------- */

typedef enum base_dtype {
    BASE_BOOL,
    BASE_U8,
    BASE_I8,
    BASE_U16,
    BASE_I16,
    BASE_F16,
    BASE_BF16,
    BASE_U32,
    BASE_I32,
    BASE_F32,
    BASE_U64,
    BASE_I64,
    BASE_F64,
    BASE_DTYPES
} base_dtype;
size_t base_dtype_bytes(base_dtype dtype);
const char *base_dtype_name(base_dtype dtype); /* "BF16": safetensors names */
bool base_dtype_parse(const char *name, size_t n, base_dtype *out);

static inline float base_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Round to nearest even; NaN stays a quiet NaN. */
static inline uint16_t base_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)((u >> 16) | 0x40U);
    return (uint16_t)((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}
/* bf16_rne of a double in one rounding (via float would round twice). */
uint16_t base_f64_to_bf16(double x);
float base_f16_to_f32(uint16_t h);
uint16_t base_f32_to_f16(float f); /* RNE, overflow to infinity */
/* n elements of src (F16, BF16, F32, F64) to float / from float. */
void base_to_f32(const void *src, base_dtype dtype, float *dst, size_t n);
void base_from_f32(const float *src, void *dst, base_dtype dtype, size_t n);

static inline bool base_dtype_is_float(base_dtype d)
{
    return d == BASE_F16 || d == BASE_BF16 || d == BASE_F32 || d == BASE_F64;
}

/* FNV-1a, 64 bit. Start with BASE_FNV_START and chain. */
#define BASE_FNV_START 0xcbf29ce484222325ULL
uint64_t base_fnv1a(uint64_t hash, const void *bytes, size_t n);

/* Adds a file's content, or the names and contents of a folder's files (not of
 * folders inside), to *hash (start with BASE_FNV_START). Not cryptographic. */
lori_status base_hash_file(const char *path, uint64_t *hash, lori_error *err);
lori_status base_hash_path(const char *path, uint64_t *hash, lori_error *err);

/* Philox4x32-10 (Salmon et al. 2011; Random123): four words for a counter. */
void base_philox(const uint32_t counter[4], const uint32_t key[2],
                 uint32_t out[4]);

/* A stream of random numbers from (seed, stream); same numbers everywhere. */
typedef struct base_rng {
    uint32_t key[2], counter[4], buffer[4];
    int left;
} base_rng;
void base_rng_start(base_rng *rng, uint64_t seed, uint64_t stream);
uint32_t base_rng_u32(base_rng *rng);
double base_rng_uniform(base_rng *rng);             /* [0, 1), 53 bits */
uint64_t base_rng_below(base_rng *rng, uint64_t n); /* unbiased, n >= 1 */
/* Fisher-Yates on order[0..n). */
void base_rng_shuffle(base_rng *rng, int64_t *order, int64_t n);

/* ---- time and callbacks --------------------------------------------- */

double base_now_s(void); /* monotonic */
/* Peak resident memory of this process, and its private part and its mapped
 * files now; bytes. */
int64_t base_rss_peak_bytes(void);
int64_t base_rss_anon_bytes(void);
int64_t base_rss_file_bytes(void);
/* The memory that this process lives in: all of it (the machine's, or the
 * smallest limit of its control groups), and what could still be taken.
 * INT64_MAX: unknown. `root` is "", or a folder that plays / in tests. */
typedef struct base_memory {
    int64_t total, available;
} base_memory;
base_memory base_memory_at(const char *root);
/* How many processors' time the control groups leave, 1.5 for one and a half;
 * 0: no limit. */
double base_cpu_quota_at(const char *root);

void base_log(const lori_ui *ui, lori_log_level level, const char *fmt, ...)
    BASE_PRINTF(3, 4);
void base_progress(const lori_ui *ui, const char *what, int64_t done,
                   int64_t total, const char *detail_fmt, ...)
    BASE_PRINTF(5, 6);
/* The same, when `done` and `total` are bytes. */
void base_progress_bytes(const lori_ui *ui, const char *what, int64_t done,
                         int64_t total, const char *detail_fmt, ...)
    BASE_PRINTF(5, 6);
bool base_interrupted(const lori_ui *ui);

#endif
