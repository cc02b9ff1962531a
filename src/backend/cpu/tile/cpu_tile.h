/* cpu_tile.h - tiles of the AMX unit: eight registers of 16 rows of 64 bytes,
 * how operands are laid out for them, and vectors that multiply the same
 * operands. Private to tile/.
 *
 * c += a b on tiles: c [16, 16] float, a [16, 32] bf16 by rows, b [32, 16] bf16
 * in pairs: row p of the tile holds b[2p][j], b[2p + 1][j] for j = 0 .. 15.
 * Even and odd terms are summed apart over the 32, added up, and then added to
 * c; denormals are zeros. So an element's bits depend on its own operands and
 * on where k is cut into 32s, always from 0, and on nothing else.
 * Source: Intel SDM, TDPBF16PS.
 *
 * The files of tile/ are compiled three times: for processors that have the
 * unit; with CPU_TILE_VECTORS for those that have AVX512_BF16 instead, where
 * an element is one chain of products of two terms each, in order; and with
 * CPU_TILE_EMULATED for tests on those that have neither (AVX-512 and tiles in
 * memory: slow, the unit's sums). */
#ifndef CPU_TILE_H
#define CPU_TILE_H

#include "backend/cpu/cpu_tiles.h"
#include "backend/cpu/isa/cpu_vec.h"

#define LINE       64
#define TILE_BYTES 1024
#define TILE       512 /* bf16 elements of a tile */
#define TILE_SIDE  16  /* rows; floats in a row */
#define TILE_K     32  /* bf16 in a row */

#if defined CPU_TILE_VECTORS || defined CPU_TILE_EMULATED
/* No state to give a thread. */
INLINE void tile_start(void)
{
}
INLINE void tile_stop(void)
{
}
#endif

#ifndef CPU_TILE_VECTORS

/* `t` is a number 0 .. 7, written out. tile_start before the first of them on
 * a thread, tile_stop after the last: the state costs a switch of threads. */
#ifdef CPU_TILE_EMULATED

/* What would be registers of the thread. */
static _Thread_local _Alignas(64) unsigned char emulated[8][TILE_BYTES];

/* Called, not inlined: compilers take a minute for it otherwise. */
#define EMULATED static __attribute__((noinline, unused)) void

EMULATED tile_zero(int t)
{
    memset(emulated[t], 0, TILE_BYTES);
}
EMULATED tile_load(int t, const void *p, int64_t stride)
{
    for (int i = 0; i < TILE_SIDE; i++)
        memcpy(emulated[t] + i * 64, (const char *)p + i * stride, 64);
}
#define tile_load_once tile_load
EMULATED tile_store(int t, void *p, int64_t stride)
{
    for (int i = 0; i < TILE_SIDE; i++)
        memcpy((char *)p + i * stride, emulated[t] + i * 64, 64);
}
EMULATED tile_mul(int c, int a, int b)
{
    for (int i = 0; i < TILE_SIDE; i++) {
        __m512 even = _mm512_setzero_ps(), odd = even;
        for (int p = 0; p < TILE_SIDE; p++) {
            uint32_t pair;
            memcpy(&pair, emulated[a] + i * 64 + p * 4, 4);
            const __m512i row = _mm512_load_si512(emulated[b] + p * 64);
            const __m512 a0 =
                _mm512_castsi512_ps(_mm512_set1_epi32((int32_t)(pair << 16)));
            const __m512 a1 = _mm512_castsi512_ps(
                _mm512_set1_epi32((int32_t)(pair & 0xffff0000U)));
            const __m512 b0 = _mm512_castsi512_ps(_mm512_slli_epi32(row, 16));
            const __m512 b1 = _mm512_castsi512_ps(
                _mm512_and_si512(row, _mm512_set1_epi32((int32_t)0xffff0000U)));
            even = _mm512_fmadd_ps(a0, b0, even);
            odd = _mm512_fmadd_ps(a1, b1, odd);
        }
        float *to = (float *)(void *)(emulated[c] + i * 64);
        _mm512_store_ps(
            to, _mm512_add_ps(_mm512_load_ps(to), _mm512_add_ps(even, odd)));
    }
}

#else

/* Palette 1, all tiles of 16 rows of 64 bytes. */
typedef struct tile_shape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shape;

/* Constant: gcc's _tile_loadconfig says that it reads 8 bytes of it, and the
 * others of a variable would never be written. */
static const _Alignas(64) tile_shape tile_all = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE,
             TILE_SIDE, TILE_SIDE},
};

INLINE void tile_start(void)
{
    _tile_loadconfig(&tile_all);
}
#define tile_stop()  _tile_release()
#define tile_zero(t) _tile_zero(t)
/* gcc does not know that a load reads memory: what was stored before must be
 * there. */
#define tile_load(t, p, step)                                                  \
    do {                                                                       \
        __asm__ volatile("" ::: "memory");                                     \
        _tile_loadd(t, p, (size_t)(step));                                     \
    } while (0)
/* The same for what the first cache need not keep. */
#define tile_load_once(t, p, step)                                             \
    do {                                                                       \
        __asm__ volatile("" ::: "memory");                                     \
        _tile_stream_loadd(t, p, (size_t)(step));                              \
    } while (0)
#define tile_store(t, p, step) _tile_stored(t, p, (size_t)(step))
#define tile_mul(c, a, b)      _tile_dpbf16ps(c, a, b)

#endif

/* ---- a square of sums ------------------------------------------------- */

/* Tiles 0 to 3 are 2 x 2 tiles of sums, 4 and 5 of a, 6 and 7 of b. In memory
 * the sums are four tiles, one after the other. */
INLINE void square_clear(void)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}
INLINE void square_load(const float *sum)
{
    const int64_t floats = TILE_BYTES / 4;
    tile_load(0, sum, 64);
    tile_load(1, sum + floats, 64);
    tile_load(2, sum + 2 * floats, 64);
    tile_load(3, sum + 3 * floats, 64);
}
INLINE void square_store(float *sum)
{
    const int64_t floats = TILE_BYTES / 4;
    tile_store(0, sum, 64);
    tile_store(1, sum + floats, 64);
    tile_store(2, sum + 2 * floats, 64);
    tile_store(3, sum + 3 * floats, 64);
}
INLINE void square_multiply(void)
{
    tile_mul(0, 4, 6);
    tile_mul(1, 4, 7);
    tile_mul(2, 5, 6);
    tile_mul(3, 5, 7);
}

#endif

/* ---- operands ----------------------------------------------------------- */

/* rows[j] word p -> rows[p] word j, words of 32 bits. */
INLINE void turn16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) {
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + 2 + h]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + 2 + h]);
        }
    /* r[4q + c] now holds, in lane l, words 4l + c of rows 4q .. 4q + 3. */
    for (int c = 0; c < 4; c++) {
        t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        t[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
        r[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
        r[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
        r[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
    }
}

/* A mask of the first n of 32 halfwords. */
INLINE __mmask32 first_of_32(int64_t n)
{
    return n >= 32 ? 0xffffffffU : n <= 0 ? 0 : (1U << n) - 1;
}

/* An a tile from rows of a matrix [rows, k] at p, ld elements apart; what is
 * outside is zero. */
INLINE void tile_a(uint16_t *to, const uint16_t *p, int64_t ld, int64_t rows,
                   int64_t k)
{
    const __mmask32 mask = first_of_32(k);
    for (int i = 0; i < TILE_SIDE; i++)
        _mm512_store_si512(to + i * TILE_K,
                           i < rows ? _mm512_maskz_loadu_epi16(mask, p + i * ld)
                                    : _mm512_setzero_si512());
}

/* A b tile of op(b) = transposed matrix: row j of the matrix [cols, k] at p is
 * column j of b. */
INLINE void tile_b_turned(uint16_t *to, const uint16_t *p, int64_t ld,
                          int64_t cols, int64_t k)
{
    __m512i r[16];
    const __mmask32 mask = first_of_32(k);
    for (int j = 0; j < 16; j++)
        r[j] = j < cols ? _mm512_maskz_loadu_epi16(mask, p + j * ld)
                        : _mm512_setzero_si512();
    turn16(r);
    for (int j = 0; j < 16; j++)
        _mm512_store_si512(to + j * TILE_K, r[j]);
}

INLINE void store_words(uint16_t *to, vu words)
{
    _mm512_store_si512(to, (__m512i)words);
}

/* Two rows of 32 halfwords as pairs: *left of columns 0 .. 15, *right of the
 * others. */
INLINE void pair_rows(__m512i even, __m512i odd, __m512i *left, __m512i *right)
{
    const __m512i lo = _mm512_unpacklo_epi16(even, odd);
    const __m512i hi = _mm512_unpackhi_epi16(even, odd);
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    *left = _mm512_permutex2var_epi64(lo, first, hi);
    *right = _mm512_permutex2var_epi64(lo, last, hi);
}

/* Two a tiles, rows 0 .. 15 and 16 .. 31, of the transpose of a matrix
 * [k, rows] at p. */
INLINE void tile_a_turned(uint16_t *top, uint16_t *bottom, const uint16_t *p,
                          int64_t ld, int64_t rows, int64_t k)
{
    uint16_t *const to[2] = {top, bottom};
    __m512i r[2][16];
    const __mmask32 mask = first_of_32(rows);
    for (int i = 0; i < 16; i++) {
        const __m512i none = _mm512_setzero_si512();
        const uint16_t *row = p + 2 * i * ld;
        const __m512i even =
            2 * i < k ? _mm512_maskz_loadu_epi16(mask, row) : none;
        const __m512i odd =
            2 * i + 1 < k ? _mm512_maskz_loadu_epi16(mask, row + ld) : none;
        pair_rows(even, odd, &r[0][i], &r[1][i]);
    }
    for (int h = 0; h < 2; h++) {
        turn16(r[h]);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(to[h] + i * TILE_K, r[h][i]);
    }
}

#endif
