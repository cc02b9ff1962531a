/* cpu_k_compact.c - products of few rows with a weight's compact copy
 * (cpu_compact.h). As in cpu_k_gemm.c every element of x w^T is one chain of
 * multiply-adds over k, in order, from zero: the same bits.
 *
 * Blocks of 32 rows of w are opened two pairs of columns at a time, and a group
 * of rows of x uses them at once, so that opening and multiplying overlap; the
 * next group opens them again. Where 16 registers make groups too small for
 * that, blocks become panels of floats in the first cache. */
#include "backend/cpu/cpu_compact.h"
#include "backend/cpu/isa/cpu_k_tile.h"

#if VL > 4 /* one instruction looks up a vector of bytes */

#include "backend/cpu/isa/cpu_k_open.h"

enum {
    SIDE = CPU_COMPACT_SIDE,
    BLOCK = CPU_COMPACT_BLOCK,
    VECTORS = COMPACT_VECTORS,
    GROUP = VL / 2, /* rows of x that use w as it is opened: registers */
};

/* ---- closing a block --------------------------------------------------- */

INLINE int words_least(vb v)
{
    uint16_t word[2 * VL];
    memcpy(word, &v, sizeof word);
    for (int i = 1; i < 2 * VL; ++i)
        word[0] = word[i] < word[0] ? word[i] : word[0];
    return word[0];
}
INLINE int words_most(vb v)
{
    uint16_t word[2 * VL];
    memcpy(word, &v, sizeof word);
    for (int i = 1; i < 2 * VL; ++i)
        word[0] = word[i] > word[0] ? word[i] : word[0];
    return word[0];
}
INLINE uint32_t lanes_or(vu v)
{
    uint32_t all = 0;
    for (int i = 0; i < VL; ++i)
        all |= v[i];
    return all;
}

/* High bytes of both words of a pair, and what they have besides the sign: an
 * exponent without its last bit, here called a size. */
INLINE vb high_bytes(vu pair)
{
    return (vb)(pair >> 8 & 0xff00ffU);
}
INLINE vb sizes(vu pair)
{
    return (vb)(pair >> 8 & 0x7f007fU);
}

/* The least size and the largest. */
typedef struct span {
    int least, most;
} span;

INLINE span span_of(vu (*pair)[VECTORS])
{
    vb least = sizes(pair[0][0]), most = least;
    for (int p = 0; p < SIDE / 2; ++p)
        for (int v = 0; v < VECTORS; ++v) {
            const vb e = sizes(pair[p][v]);
            least = VB_LEAST(least, e);
            most = VB_MOST(most, e);
        }
    return (span){words_least(least), words_most(most)};
}

/* Sizes are counted down from the largest; those FAR below it or more must be
 * all the same (zeros, mostly) and count as FAR. */
enum { FAR = 15 };

/* Bit i, and 16 + i for negative numbers: a size is i below the largest. 0:
 * more than one is far below. */
INLINE uint32_t distances(vu (*pair)[VECTORS], span s)
{
    const vu most = (vu){0} + (uint32_t)s.most, far = (vu){0} + FAR;
    const vb above = (vb)((vu){0} + (uint32_t)(s.least + 1) * 0x10001U);
    vb second = (vb)((vu){0} - 1U);
    vu seen = {0};
    for (int p = 0; p < SIDE / 2; ++p)
        for (int v = 0; v < VECTORS; ++v) {
            const vu w = pair[p][v], e = (vu)sizes(w);
            const vu low = VU_LEAST(most - (e & 0xffffU), far);
            const vu high = VU_LEAST(most - (e >> 16), far);
            seen |= VU_ONE_LEFT(low | (w >> 11 & 16)) |
                    VU_ONE_LEFT(high | (w >> 27 & 16));
            /* the least one itself wraps around to the largest word */
            second = VB_LEAST(second, VB_WORDS_LESS((vb)e, above));
        }
    if (s.most - (s.least + 1 + words_least(second)) >= FAR)
        return 0;
    return lanes_or(seen);
}

/* Bytes of a pair of columns from words of it, those of each vector. */
INLINE vb bytes_of_words(const vb *words, int part)
{
    return VB_NARROW(words[part], words[part + COMPACT_PARTS]);
}

/* Codes of high bytes, by the distance of their size from the largest. */
typedef struct coder {
    vb plus, minus; /* for both signs */
    vb most;
} coder;

INLINE vb codes_of(const coder *c, vb high)
{
    const vb sign = VB_BYTES(0x80);
    const vb d = VB_BYTES_LEAST(VB_BYTES_LESS(c->most, high & VB_BYTES(0x7f)),
                                VB_BYTES(FAR));
    /* An index of 128 and more gives 0. */
    return VB_LOOK_UP(c->plus, d | (high & sign)) |
           VB_LOOK_UP(c->minus, d | (~high & sign));
}

INLINE vb codes_by_distance(const uint8_t *code)
{
    return VB_EVERYWHERE(_mm_loadu_si128((const __m128i *)(const void *)code));
}

/* The list of high bytes, and how to code them. False: more than 16. */
INLINE bool open_coder(coder *c, uint8_t *list, uint32_t seen, span s)
{
    uint8_t code[32] = {0};
    int n = 0;
    memset(list, 0, 16);
    for (; seen; seen &= seen - 1, ++n) {
        const int at = __builtin_ctz(seen), d = at % 16;
        if (n == 16)
            return false;
        list[n] = (uint8_t)((d == FAR ? s.least : s.most - d) | at / 16 << 7);
        code[at] = (uint8_t)n;
    }
    c->plus = codes_by_distance(code);
    c->minus = codes_by_distance(code + 16);
    c->most = VB_BYTES(s.most);
    return n > 0;
}

INLINE void turn_block(vu (*pair)[VECTORS], const uint16_t *w, int64_t ld,
                       int64_t n)
{
    for (int v = 0; v < VECTORS; ++v) {
        const char *row[VL];
        for (int i = 0; i < VL; ++i) {
            const int64_t r = v * VL + i;
            row[i] = (const char *)(w + (r < n ? r : n - 1) * ld);
        }
        for (int t = 0; t < SIDE; t += K_STEP(true)) {
            vf part[VL];
            turn_rows(part, row, t, K_STEP(true), true);
            for (int i = 0; i < VL; ++i)
                pair[t / 2 + i][v] = (vu)part[i];
        }
    }
}

/* Low bytes of a pair of columns, and the codes of their high ones. */
INLINE void close_pair(uint8_t *to, vb *code, const vu *pair, const coder *c)
{
    vb low[VECTORS], high[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
        low[v] = (vb)(pair[v] & 0xff00ffU);
        high[v] = high_bytes(pair[v]);
    }
    for (int part = 0; part < COMPACT_PARTS; ++part) {
        const vb bytes = bytes_of_words(low, part);
        memcpy(to + part * (int)sizeof bytes, &bytes, sizeof bytes);
        code[part] = codes_of(c, bytes_of_words(high, part));
    }
}

bool CPU_NAME(cpu_compact_write)(uint8_t *out, const uint16_t *w, int64_t ld,
                                 int64_t n)
{
    vu pair[SIDE / 2][VECTORS];
    turn_block(pair, w, ld, n);
    const span s = span_of(pair);
    coder c;
    if (!open_coder(&c, out, distances(pair, s), s))
        return false;
    uint8_t *low = out + 16, *codes = low + SIDE * SIDE;
    for (int p = 0; p < SIDE / 2; p += 2) {
        vb even[COMPACT_PARTS], odd[COMPACT_PARTS];
        close_pair(low + p * 2 * SIDE, even, pair[p], &c);
        close_pair(low + (p + 1) * 2 * SIDE, odd, pair[p + 1], &c);
        for (int part = 0; part < COMPACT_PARTS; ++part) {
            const vb both = even[part] | VB_LEFT(odd[part], 4);
            memcpy(codes + p / 2 * 2 * SIDE + part * (int)sizeof both, &both,
                   sizeof both);
        }
    }
    return true;
}

/* ---- rows of x that use w as it is opened ------------------------------- */

/* So far ahead memory is asked for. */
enum { AHEAD = 8 * BLOCK };

/* What is asked for: blocks of this product, then what follows after it. */
typedef struct walk {
    stream next;
    bool last; /* it is what follows */
} walk;

INLINE void go_on(walk *w, const cpu_few *f)
{
    if (w->next.left <= 0 && !w->last) {
        w->next = (stream){(uintptr_t)f->after, f->after_bytes};
        w->last = true;
    }
}

INLINE void ask_for_block(walk *w, const cpu_few *f)
{
    go_on(w, f);
    stream_bytes(&w->next, BLOCK);
}

INLINE int64_t bytes_of(const cpu_few *f)
{
    return cpu_compact_blocks(f->n) * cpu_compact_blocks(f->k) * BLOCK;
}

/* Sums of a row of x, those of rows of w in their parts. */
typedef vf part_sums[COMPACT_PARTS][2];

/* Adds `count` columns of parts [part, end) of a block, for m rows of x, all of
 * them constants. */
INLINE void add_columns(int m, part_sums *sum, const compact_block *b,
                        const float *x, int64_t count, int part, int end,
                        bool whole)
{
    for (int64_t t = 0; t < count; t += 4) {
        vu w[COMPACT_PARTS][2][2];
        for (int p = part; p < end; ++p)
            compact_open(w[p], b, t / 4, p, whole);
        for (int e = 0; e < 4 && t + e < count; ++e) {
            vf column[COMPACT_PARTS][2];
            for (int p = part; p < end; ++p)
                for (int v = 0; v < 2; ++v)
                    column[p][v] = expand_pairs(w[p][e / 2][v], e);
            for (int i = 0; i < m; ++i) {
                const vf xs = splat(x[i * CPU_GEMM_LD + t + e]);
                for (int p = part; p < end; ++p)
                    for (int v = 0; v < 2; ++v)
                        sum[i][p][v] = madd(xs, column[p][v], sum[i][p][v]);
            }
        }
    }
}

INLINE void add_block(int m, part_sums *sum, const compact_block *b,
                      const float *x, int64_t count, int part, int end)
{
    if (b->whole)
        add_columns(m, sum, b, x, count, part, end, true);
    else if (count == SIDE)
        add_columns(m, sum, b, x, SIDE, part, end, false);
    else
        add_columns(m, sum, b, x, count, part, end, false);
}

/* Rows of x from column t on, as few_compact_x() left them. */
INLINE const float *x_at(const cpu_few *f, int64_t t)
{
    return f->x + t / CPU_GEMM_K * f->m * CPU_GEMM_LD + t % CPU_GEMM_K;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* m rows of x from `row` on, and parts [part, end) of the 32 rows of w at j,
 * whose blocks begin at `at`. `next`: what is asked for meanwhile, or NULL. */
INLINE void add_parts(int m, const cpu_few *f, int64_t row, int64_t j,
                      const uint8_t *at, int part, int end, walk *next)
{
    part_sums sum[GROUP] = {{{{0}}}};
    for (int64_t t = 0; t < f->k; t += SIDE, at += BLOCK) {
        const compact_block b = compact_at(f, at);
        if (next)
            ask_for_block(next, f);
        add_block(m, sum, &b, x_at(f, t) + row * CPU_GEMM_LD,
                  least(f->k - t, SIDE), part, end);
    }
    for (int p = part; p < end; ++p)
        for (int v = 0; v < 2; ++v) {
            const int64_t col = j + (v * COMPACT_PARTS + p) * VL;
            for (int i = 0; i < m && col < f->n; ++i)
                few_put(f, row + i, col, (const float *)&sum[i][p][v],
                        least(f->n - col, VL));
        }
}

/* With one or two rows all parts at once, or their sums wait for each other;
 * with more each by itself, or there are not registers enough. */
INLINE void add_rows(int m, const cpu_few *f, int64_t row, int64_t j,
                     const uint8_t *at, walk *next)
{
    const int end = m <= 2 ? COMPACT_PARTS : 1;
    if (next)
        add_parts(m, f, row, j, at, 0, end, next);
    else
        add_parts(m, f, row, j, at, 0, end, NULL);
    for (int part = end; part < COMPACT_PARTS; ++part)
        add_parts(m, f, row, j, at, part, part + 1, NULL);
}

static walk first_walk(const cpu_few *f)
{
    return (walk){.next = {(uintptr_t)f->blocks + AHEAD, bytes_of(f) - AHEAD}};
}

/* One row or two (m is a constant), the most frequent case: all in one loop,
 * and too little is written for it to be fetched. */
INLINE void one_or_two(int m, const cpu_few *f)
{
    const int64_t step = cpu_compact_blocks(f->k) * BLOCK;
    const uint8_t *at = f->blocks;
    walk next = first_walk(f);
    for (int64_t j = 0; j < f->n; j += SIDE, at += step)
        add_rows(m, f, 0, j, at, &next);
}

#define ROWS(m)                                                                \
    case m:                                                                    \
        add_rows(m, f, row, j, at, next);                                      \
        break;

static void add_some_rows(int64_t m, const cpu_few *f, int64_t row, int64_t j,
                          const uint8_t *at, walk *next)
{
    switch (m) {
        ROWS(3)
        ROWS(4)
#if VL == 16
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
#endif
    }
}

#undef ROWS

/* Equal groups of at most GROUP rows of x, one after the other: blocks that the
 * first one has opened are in the first caches, and opened again. */
static void few_groups(const cpu_few *f)
{
    const int64_t groups = (f->m + GROUP - 1) / GROUP;
    const int64_t step = cpu_compact_blocks(f->k) * BLOCK;
    const uint8_t *at = f->blocks;
    walk next = first_walk(f);
    for (int64_t j = 0; j < f->n; j += SIDE, at += step) {
        cpu_few_fetch_c(f, j, SIDE);
        for (int64_t i = 0; i < groups; ++i) {
            const int64_t row = f->m * i / groups;
            add_some_rows(f->m * (i + 1) / groups - row, f, row, j, at,
                          i ? NULL : &next);
        }
    }
}

#if VL < 16

/* ---- more rows than a group: from floats --------------------------------- */

enum {
    CHUNK = 128, /* columns of a panel */
    PANELS = SIDE / PANEL,
};
_Static_assert(CPU_GEMM_K % CHUNK == 0 && CHUNK % SIDE == 0,
               "a panel's rows of x lie together");

/* Floats of a chunk of columns: panels of PANEL rows of w, [CHUNK][PANEL]. */
typedef struct chunk {
    float panel[PANELS][CHUNK * PANEL];
} chunk;

INLINE void expand_columns(chunk *c, int64_t from, const compact_block *b,
                           bool whole)
{
    for (int64_t t = 0; t < SIDE; t += 4)
        for (int part = 0; part < COMPACT_PARTS; ++part) {
            vu w[2][2];
            compact_open(w, b, t / 4, part, whole);
            for (int e = 0; e < 4; ++e)
                for (int i = 0; i < 2; ++i) {
                    const int v = i * COMPACT_PARTS + part;
                    store(c->panel[v / 2] + (from + t + e) * PANEL + v % 2 * VL,
                          expand_pairs(w[e / 2][i], e));
                }
        }
}

/* Sums of a group of rows of w: for each panel [CPU_FEW_ROWS][PANEL]. */
typedef struct sums {
    float panel[PANELS][CPU_FEW_ROWS * PANEL];
} sums;

/* As many blocks of what is asked for. */
INLINE cpu_ahead take_blocks(walk *w, const cpu_few *f, int64_t blocks)
{
    go_on(w, f);
    const int64_t bytes = least(w->next.left, blocks * BLOCK);
    const cpu_ahead part = {(const char *)w->next.at, 0, bytes > 0,
                            (bytes + 63) / 64};
    w->next.at += (uintptr_t)bytes;
    w->next.left -= bytes;
    return part;
}

/* Adds `count` columns from t on, and asks for `next` meanwhile. */
INLINE void add_chunk(const cpu_few *f, sums *s, const chunk *c, int64_t t,
                      int64_t count, const cpu_ahead *next)
{
    const int64_t tiles = (f->m + MM_ROWS - 1) / MM_ROWS;
    const int64_t steps =
        PANELS * tiles * ((count + AHEAD_STEP - 1) / AHEAD_STEP);
    ahead a = {.part = next,
               .row = next->at,
               .rows = next->rows,
               .each = (next->lines + steps - 1) / steps};
    for (int p = 0; p < PANELS; ++p)
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t row = f->m * i / tiles;
            const int64_t rows = f->m * (i + 1) / tiles - row;
            float *sum = s->panel[p] + row * PANEL;
            tile_of(rows, 2, count, x_at(f, t) + row * CPU_GEMM_LD, c->panel[p],
                    t > 0 ? sum : NULL, sum, &a);
        }
}

INLINE void few_tiles(const cpu_few *f)
{
    const uint8_t *at = f->blocks;
    walk next = first_walk(f);
    chunk c;
    sums s;
    for (int64_t j = 0; j < f->n; j += SIDE) {
        cpu_few_fetch_c(f, j, SIDE);
        for (int64_t t = 0; t < f->k; t += CHUNK) {
            const int64_t count = least(f->k - t, CHUNK);
            for (int64_t from = 0; from < count; from += SIDE, at += BLOCK) {
                const compact_block b = compact_at(f, at);
                if (b.whole)
                    expand_columns(&c, from, &b, true);
                else
                    expand_columns(&c, from, &b, false);
            }
            const cpu_ahead part =
                take_blocks(&next, f, cpu_compact_blocks(count));
            add_chunk(f, &s, &c, t, count, &part);
        }
        for (int64_t i = 0; i < f->m; ++i)
            for (int64_t p = 0; p < PANELS && j + p * PANEL < f->n; ++p)
                few_put(f, i, j + p * PANEL, s.panel[p] + i * PANEL,
                        least(f->n - j - p * PANEL, PANEL));
    }
}

#endif

void CPU_NAME(cpu_few_compact)(const cpu_few *f)
{
    if (f->m == 1)
        one_or_two(1, f);
    else if (f->m == 2)
        one_or_two(2, f);
#if VL < 16
    else if (f->m > GROUP)
        few_tiles(f);
#endif
    else
        few_groups(f);
}

void CPU_NAME(cpu_few_compact_x)(float *dst, const void *x, int64_t ldx,
                                 int64_t m, int64_t k, bool bf)
{
    for (int64_t t = 0; t < k; t += CPU_GEMM_K) {
        CPU_NAME(cpu_load_rows)
        (dst, CPU_GEMM_LD, (const char *)x + (size_t)t * (bf ? 2 : 4), ldx, m,
         least(k - t, CPU_GEMM_K), bf);
        dst += m * CPU_GEMM_LD;
    }
}

#endif
