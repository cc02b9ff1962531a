/* cpu_k_open.h - opens blocks of a weight's compact copy (cpu_compact.h) in
 * vectors. Private to isa/ and tile/. */
#ifndef CPU_K_OPEN_H
#define CPU_K_OPEN_H

#include "backend/cpu/isa/cpu_vec.h"

/* Vectors of 32 rows. The bytes of a pair of columns are one or two vectors,
 * parts, of two vectors of rows each. */
enum {
    COMPACT_VECTORS = CPU_COMPACT_SIDE / VL,
    COMPACT_PARTS = COMPACT_VECTORS / 2
};

#if VL == 16
typedef __m512i vb;
#define VB_LOAD(p)          _mm512_loadu_si512(p)
#define VB_BYTES(x)         _mm512_set1_epi8((char)(x))
#define VB_RIGHT(v, n)      _mm512_srli_epi16(v, n)
#define VB_LOOK_UP(t, i)    _mm512_shuffle_epi8(t, i)
#define VB_EVERYWHERE(v)    _mm512_broadcast_i32x4(v)
#define VB_WORDS_LOW(a, b)  _mm512_unpacklo_epi8(a, b)
#define VB_WORDS_HIGH(a, b) _mm512_unpackhi_epi8(a, b)
#define VB_LEFT(v, n)       _mm512_slli_epi16(v, n)
/* Words to bytes, and back by VB_WORDS */
#define VB_NARROW(a, b)      _mm512_packus_epi16(a, b)
#define VB_LEAST(a, b)       _mm512_min_epu16(a, b)
#define VB_MOST(a, b)        _mm512_max_epu16(a, b)
#define VB_WORDS_LESS(a, b)  _mm512_sub_epi16(a, b)
#define VB_BYTES_LESS(a, b)  _mm512_sub_epi8(a, b)
#define VB_BYTES_LEAST(a, b) _mm512_min_epu8(a, b)
/* In every float's place: the less of two numbers, and 1 << n. */
#define VU_LEAST(a, b) (vu) _mm512_min_epu32((__m512i)(a), (__m512i)(b))
#define VU_ONE_LEFT(n)                                                         \
    (vu) _mm512_sllv_epi32(_mm512_set1_epi32(1), (__m512i)(n))
#else
typedef __m256i vb;
#define VB_LEFT(v, n)        _mm256_slli_epi16(v, n)
#define VB_NARROW(a, b)      _mm256_packus_epi16(a, b)
#define VB_LEAST(a, b)       _mm256_min_epu16(a, b)
#define VB_MOST(a, b)        _mm256_max_epu16(a, b)
#define VB_WORDS_LESS(a, b)  _mm256_sub_epi16(a, b)
#define VB_BYTES_LESS(a, b)  _mm256_sub_epi8(a, b)
#define VB_BYTES_LEAST(a, b) _mm256_min_epu8(a, b)
#define VU_LEAST(a, b)       (vu) _mm256_min_epu32((__m256i)(a), (__m256i)(b))
#define VU_ONE_LEFT(n)                                                         \
    (vu) _mm256_sllv_epi32(_mm256_set1_epi32(1), (__m256i)(n))
#define VB_LOAD(p)          _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define VB_BYTES(x)         _mm256_set1_epi8((char)(x))
#define VB_RIGHT(v, n)      _mm256_srli_epi16(v, n)
#define VB_LOOK_UP(t, i)    _mm256_shuffle_epi8(t, i)
#define VB_EVERYWHERE(v)    _mm256_broadcastsi128_si256(v)
#define VB_WORDS_LOW(a, b)  _mm256_unpacklo_epi8(a, b)
#define VB_WORDS_HIGH(a, b) _mm256_unpackhi_epi8(a, b)
#endif

/* ---- a block ---------------------------------------------------------- */

typedef struct compact_block {
    const uint8_t *low, *codes;
    const uint16_t *whole; /* NULL: it has a list */
    vb high;               /* bytes by their code */
} compact_block;

INLINE compact_block compact_at(const cpu_few *f, const uint8_t *at)
{
    compact_block b = {.low = at + 16,
                       .codes = at + 16 + CPU_COMPACT_SIDE * CPU_COMPACT_SIDE};
    if (at[0] == 255 && at[1] == 255) {
        int32_t number;
        memcpy(&number, at + 2, sizeof number);
        b.whole =
            f->whole + (int64_t)number * (CPU_COMPACT_SIDE * CPU_COMPACT_SIDE);
        return b;
    }
    b.high = VB_EVERYWHERE(_mm_loadu_si128((const __m128i *)(const void *)at));
    return b;
}

/* Columns 4 at to 4 at + 3 of a part, as pairs: lane i of w[.][v] is of row
 * (v COMPACT_PARTS + part) VL + i. */
INLINE void compact_open(vu (*w)[2], const compact_block *b, int64_t at,
                         int part, bool whole)
{
    if (whole) {
        const uint16_t *from = b->whole + at * 4 * CPU_COMPACT_SIDE;
        for (int p = 0; p < 2; ++p, from += 2 * CPU_COMPACT_SIDE)
            for (int v = 0; v < 2; ++v)
                memcpy(&w[p][v], from + (v * COMPACT_PARTS + part) * 2 * VL,
                       sizeof w[p][v]);
        return;
    }
    const uint8_t *from =
        b->low + at * 4 * CPU_COMPACT_SIDE + part * (int)sizeof(vb);
    const vb codes =
        VB_LOAD(b->codes + at * 2 * CPU_COMPACT_SIDE + part * (int)sizeof(vb));
    for (int p = 0; p < 2; ++p) {
        const vb code = (p ? VB_RIGHT(codes, 4) : codes) & VB_BYTES(15);
        const vb low = VB_LOAD(from + p * 2 * CPU_COMPACT_SIDE);
        const vb high = VB_LOOK_UP(b->high, code);
        w[p][0] = (vu)VB_WORDS_LOW(low, high);
        w[p][1] = (vu)VB_WORDS_HIGH(low, high);
    }
}

#endif
