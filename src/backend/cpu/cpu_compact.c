/* cpu_compact.c - makes the compact copy of a weight (cpu_compact.h). */
#include "backend/cpu/cpu_compact.h"

#include "backend/cpu/cpu_i.h"

enum {
    SIDE = CPU_COMPACT_SIDE,
    PAIRS = SIDE / 2,
    PAIR = 2 * SIDE, /* elements of a pair of columns */
    LIST = 16,
    LOW_AT = LIST,
    CODES_AT = LOW_AT + PAIRS * PAIR,
    NO_LIST = 255,
};

/* ---- a block ----------------------------------------------------------- */

/* [pair][row][2]; the last row repeated, zeros past the last column. */
typedef struct block {
    uint16_t at[PAIRS][SIDE][2];
} block;

static void load_block(block *b, const uint16_t *w, int64_t ld, int64_t n,
                       int64_t k)
{
    const bool whole = k >= SIDE;
    for (int r = 0; r < SIDE; ++r) {
        const uint16_t *row = w + (r < n ? r : n - 1) * ld;
        for (int p = 0; p < PAIRS && whole; ++p)
            memcpy(b->at[p][r], row + 2 * p, 4);
        for (int j = 0; j < SIDE && !whole; ++j)
            b->at[j / 2][r][j % 2] = j < k ? row[j] : 0;
    }
}

/* Sign and exponent without its last bit. */
static uint8_t high_byte(uint16_t x)
{
    return (uint8_t)(x >> 8);
}

/* The place of each high byte in list[]; false when there are too many. */
static bool list_bytes(const block *b, uint8_t *list, uint8_t *place)
{
    const uint16_t *x = b->at[0][0];
    bool seen[256] = {false};
    int count = 0;
    for (int i = 0; i < SIDE * SIDE; ++i)
        seen[high_byte(x[i])] = true;
    for (int high = 0; high < 256; ++high)
        if (seen[high]) {
            if (count == LIST)
                return false;
            place[high] = (uint8_t)count;
            list[count++] = (uint8_t)high;
        }
    return true;
}

/* Two pairs share their bytes of codes. */
static void write_pairs(const uint16_t (*even)[2], const uint16_t (*odd)[2],
                        const uint8_t *place, uint8_t *low, uint8_t *codes)
{
    for (int i = 0; i < PAIR; ++i) {
        const int row = i / 16 * 4 + i % 8 / 2 + i % 16 / 8 * 16;
        const uint16_t a = even[row][i % 2], b = odd[row][i % 2];
        low[i] = (uint8_t)a;
        low[PAIR + i] = (uint8_t)b;
        codes[i] = (uint8_t)(place[high_byte(a)] | place[high_byte(b)] << 4);
    }
}

/* False: the block must be kept whole; its place is marked. */
static bool write_block(const block *b, uint8_t *out)
{
    uint8_t list[LIST] = {0}, place[256];
    if (!list_bytes(b, list, place)) {
        memset(out, NO_LIST, 2);
        return false;
    }
    memcpy(out, list, LIST);
    for (int p = 0; p < PAIRS; p += 2)
        write_pairs(b->at[p], b->at[p + 1], place, out + LOW_AT + p * PAIR,
                    out + CODES_AT + p / 2 * PAIR);
    return true;
}

/* ---- a weight ----------------------------------------------------------- */

typedef struct weight {
    const cpu_kernels *kernels;
    const uint16_t *w;
    int64_t n, k, across, count; /* blocks in a row of them, and in all */
    uint8_t *out;
    _Atomic int64_t whole; /* blocks that must be kept whole */
} weight;

/* Where block i begins, and how much is left from there. */
typedef struct corner {
    const uint16_t *w;
    int64_t n, k;
} corner;

static corner corner_of(const weight *w, int64_t i)
{
    const int64_t row = i / w->across * SIDE, col = i % w->across * SIDE;
    return (corner){w->w + row * w->k + col, w->n - row, w->k - col};
}

/* False: it must be kept whole. */
static bool write_at(const weight *w, int64_t i, uint8_t *out)
{
    const corner at = corner_of(w, i);
    if (at.k >= SIDE && w->kernels->compact_write(out, at.w, w->k, at.n))
        return true;
    block b;
    load_block(&b, at.w, w->k, at.n, at.k);
    return write_block(&b, out);
}

static void write_part(void *context, int thread, int n)
{
    weight *w = context;
    const int64_t end = backend_share(w->count, thread + 1, n);
    int64_t whole = 0;
    for (int64_t i = backend_share(w->count, thread, n); i < end; ++i)
        whole += !write_at(w, i, w->out + i * CPU_COMPACT_BLOCK);
    w->whole += whole;
}

static void write_whole(const weight *w, const cpu_compact *c)
{
    int32_t number = 0;
    for (int64_t i = 0; i < w->count; ++i) {
        uint8_t *head = c->blocks + i * CPU_COMPACT_BLOCK;
        if (head[0] != NO_LIST || head[1] != NO_LIST)
            continue;
        const corner at = corner_of(w, i);
        load_block((block *)(void *)((char *)c->whole +
                                     (size_t)number * CPU_COMPACT_WHOLE),
                   at.w, w->k, at.n, at.k);
        memcpy(head + 2, &number, sizeof number);
        number++;
    }
}

bool cpu_compact_make(const cpu_backend *cpu, const uint16_t *data, int64_t n,
                      int64_t k, cpu_compact *out, size_t *bytes)
{
    _Static_assert(sizeof(block) == CPU_COMPACT_WHOLE, "a block is its bytes");
    weight w = {.kernels = cpu->k,
                .w = data,
                .n = n,
                .k = k,
                .across = cpu_compact_blocks(k),
                .count = cpu_compact_blocks(n) * cpu_compact_blocks(k)};
    const size_t all = (size_t)w.count * CPU_COMPACT_BLOCK;
    *out = (cpu_compact){.blocks = cpu_memory(all)};
    *bytes = 0;
    if (!out->blocks)
        return false;
    w.out = out->blocks;
    backend_team_run(cpu->be.team, cpu->be.n_threads, write_part, &w);
    const int64_t whole = w.whole;
    const size_t more = (size_t)whole * CPU_COMPACT_WHOLE;
    const bool gains = all + more < (size_t)(n * k) * 2 / 8 * 7;
    if (gains && whole > 0)
        out->whole = cpu_memory(more);
    if (!gains || (whole > 0 && !out->whole)) {
        cpu_compact_free(out);
        return false;
    }
    if (whole > 0)
        write_whole(&w, out);
    *bytes = all + more;
    return true;
}

void cpu_compact_free(cpu_compact *c)
{
    cpu_memory_free(c->blocks);
    cpu_memory_free(c->whole);
    *c = (cpu_compact){0};
}
