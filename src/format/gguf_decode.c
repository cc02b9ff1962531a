/* gguf_decode.c - ggml's tensor types as float. Every product is exact in
 * float (at most 24 significant bits); only the last addition rounds, so the
 * result has one right value. Refuses infinite and NaN scales.
 * Source: ggml's block layouts as recorded in spec/gguf.md, section 2. */
#include <math.h>

#include "format/gguf_i.h"

static float half_at(const uint8_t *b, size_t at)
{
    return base_f16_to_f32((uint16_t)(b[at] | b[at + 1] << 8));
}

static int signed_at(const uint8_t *b, size_t at)
{
    return b[at] < 128 ? b[at] : b[at] - 256;
}

/* Four bits of value i of a 32-value block: the low nibbles are the first
 * half, the high ones the second. */
static int nibble(const uint8_t *q, int i)
{
    return q[i % 16] >> 4 * (i / 16) & 15;
}

static int bit(const uint8_t *bits, int i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void q4_0(const uint8_t *b, float *y)
{
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(nibble(b + 2, i) - 8);
}

static void q4_1(const uint8_t *b, float *y)
{
    const float d = half_at(b, 0), m = half_at(b, 2);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)nibble(b + 4, i) + m;
}

static void q5_0(const uint8_t *b, float *y)
{
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)((nibble(b + 6, i) | bit(b + 2, i) << 4) - 16);
}

static void q5_1(const uint8_t *b, float *y)
{
    const float d = half_at(b, 0), m = half_at(b, 2);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(nibble(b + 8, i) | bit(b + 4, i) << 4) + m;
}

static void q8_0(const uint8_t *b, float *y)
{
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)signed_at(b, 2 + (size_t)i);
}

/* Two bits of value i of a 256-value block: 32 bytes hold 128 values, four
 * planes of 32. */
static int two_bits(const uint8_t *q, int i)
{
    const int r = i % 128;
    return q[32 * (i / 128) + r % 32] >> 2 * (r / 32) & 3;
}

static void q2_k(const uint8_t *b, float *y)
{
    const float d = half_at(b, 80), m = half_at(b, 82);
    for (int i = 0; i < 256; i++) {
        const int s = b[i / 16];
        y[i] = d * (float)(s & 15) * (float)two_bits(b + 16, i) -
               m * (float)(s >> 4);
    }
}

/* Six-bit scale k of 16: low four bits in sc[0..8), high two in sc[8..12). */
static int q3_scale(const uint8_t *sc, int k)
{
    const int low = k < 8 ? sc[k] & 15 : sc[k - 8] >> 4;
    return low | (sc[8 + k % 4] >> 2 * (k / 4) & 3) << 4;
}

static void q3_k(const uint8_t *b, float *y)
{
    const float d = half_at(b, 108);
    for (int i = 0; i < 256; i++) {
        const float scale = d * (float)(q3_scale(b + 96, i / 16) - 32);
        const int high = b[i % 32] >> i / 32 & 1;
        y[i] = scale * (float)(two_bits(b + 32, i) - (high ? 0 : 4));
    }
}

/* Six-bit scale and minimum j of 8, packed in twelve bytes. */
static void q45_scale(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
}

/* Q4_K and Q5_K: `low` the four-bit planes, `high` the fifth bits or NULL. */
static void q45_k(const uint8_t *b, const uint8_t *low, const uint8_t *high,
                  float *y)
{
    const float d = half_at(b, 0), m = half_at(b, 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        q45_scale(b + 4, j, &scale, &min);
        const float step = d * (float)scale, base = m * (float)min;
        for (int k = 0; k < 32; k++) {
            int q = low[32 * (j / 2) + k] >> 4 * (j & 1) & 15;
            if (high)
                q |= (high[k] >> j & 1) << 4;
            y[32 * j + k] = step * (float)q - base;
        }
    }
}

static void q4_k(const uint8_t *b, float *y)
{
    q45_k(b, b + 16, NULL, y);
}

static void q5_k(const uint8_t *b, float *y)
{
    q45_k(b, b + 48, b + 16, y);
}

static void q6_k(const uint8_t *b, float *y)
{
    const float d = half_at(b, 208);
    for (int i = 0; i < 256; i++) {
        const int r = i % 128;
        const int low = b[64 * (i / 128) + r % 64] >> 4 * (r / 64) & 15;
        const int q = low | two_bits(b + 128, i) << 4;
        const float scale = d * (float)signed_at(b, 192 + (size_t)(i / 16));
        y[i] = scale * (float)(q - 32);
    }
}

static void f32(const uint8_t *b, float *y)
{
    memcpy(y, b, sizeof *y);
}

static void f16(const uint8_t *b, float *y)
{
    *y = half_at(b, 0);
}

static void bf16(const uint8_t *b, float *y)
{
    *y = base_bf16_to_f32((uint16_t)(b[0] | b[1] << 8));
}

/* `scales` f16 fields begin at byte `at` of a block. */
static const struct {
    uint32_t type;
    const char *name;
    int values, bytes;
    void (*decode)(const uint8_t *block, float *y);
    int at, scales;
} types[] = {
    {0, "F32", 1, 4, f32, 0, 0},
    {1, "F16", 1, 2, f16, 0, 0},
    {2, "Q4_0", 32, 18, q4_0, 0, 1},
    {3, "Q4_1", 32, 20, q4_1, 0, 2},
    {6, "Q5_0", 32, 22, q5_0, 0, 1},
    {7, "Q5_1", 32, 24, q5_1, 0, 2},
    {8, "Q8_0", 32, 34, q8_0, 0, 1},
    {10, "Q2_K", 256, 84, q2_k, 80, 2},
    {11, "Q3_K", 256, 110, q3_k, 108, 1},
    {12, "Q4_K", 256, 144, q4_k, 0, 2},
    {13, "Q5_K", 256, 176, q5_k, 0, 2},
    {14, "Q6_K", 256, 210, q6_k, 208, 1},
    {30, "BF16", 1, 2, bf16, 0, 0},
    /* Known by name only, to say what a refused file holds. */
    {4, "Q4_2", 0, 0, NULL, 0, 0},
    {5, "Q4_3", 0, 0, NULL, 0, 0},
    {9, "Q8_1", 0, 0, NULL, 0, 0},
    {15, "Q8_K", 0, 0, NULL, 0, 0},
    {16, "IQ2_XXS", 0, 0, NULL, 0, 0},
    {17, "IQ2_XS", 0, 0, NULL, 0, 0},
    {18, "IQ3_XXS", 0, 0, NULL, 0, 0},
    {19, "IQ1_S", 0, 0, NULL, 0, 0},
    {20, "IQ4_NL", 0, 0, NULL, 0, 0},
    {21, "IQ3_S", 0, 0, NULL, 0, 0},
    {22, "IQ2_S", 0, 0, NULL, 0, 0},
    {23, "IQ4_XS", 0, 0, NULL, 0, 0},
    {24, "I8", 0, 0, NULL, 0, 0},
    {25, "I16", 0, 0, NULL, 0, 0},
    {26, "I32", 0, 0, NULL, 0, 0},
    {27, "I64", 0, 0, NULL, 0, 0},
    {28, "F64", 0, 0, NULL, 0, 0},
    {29, "IQ1_M", 0, 0, NULL, 0, 0},
    {31, "Q4_0_4_4", 0, 0, NULL, 0, 0},
    {32, "Q4_0_4_8", 0, 0, NULL, 0, 0},
    {33, "Q4_0_8_8", 0, 0, NULL, 0, 0},
    {34, "TQ1_0", 0, 0, NULL, 0, 0},
    {35, "TQ2_0", 0, 0, NULL, 0, 0},
    {39, "MXFP4", 0, 0, NULL, 0, 0},
    {40, "NVFP4", 0, 0, NULL, 0, 0},
    {41, "Q1_0", 0, 0, NULL, 0, 0},
    {42, "Q2_0", 0, 0, NULL, 0, 0},
};
#define N_TYPES (sizeof types / sizeof *types)

static size_t find_type(uint32_t type)
{
    size_t i = 0;
    while (i < N_TYPES && types[i].type != type)
        i++;
    return i;
}

const char *format_gguf_type_name(uint32_t type)
{
    const size_t i = find_type(type);
    return i < N_TYPES ? types[i].name : "unknown";
}

bool format_gguf_block(uint32_t type, int64_t *values, size_t *bytes)
{
    const size_t i = find_type(type);
    if (i == N_TYPES || !types[i].decode)
        return false;
    *values = types[i].values;
    *bytes = (size_t)types[i].bytes;
    return true;
}

lori_status format_gguf_decode(uint32_t type, const void *blocks, int64_t n,
                               float *dst, lori_error *err)
{
    const size_t t = find_type(type);
    if (t == N_TYPES || !types[t].decode)
        return base_fail(err, LORI_UNSUPPORTED,
                         "ggml type %u (%s) is not decoded here",
                         (unsigned)type, format_gguf_type_name(type));
    if (n < 0 || n % types[t].values)
        return base_fail(err, LORI_INVALID,
                         "%lld values are not whole blocks of %s", (long long)n,
                         types[t].name);
    const uint8_t *b = blocks;
    for (int64_t i = 0; i < n; i += types[t].values, b += types[t].bytes) {
        for (int k = 0; k < types[t].scales; k++)
            if (!isfinite(half_at(b, (size_t)(types[t].at + 2 * k))))
                return base_fail(err, LORI_NUMERIC,
                                 "value %lld is in a %s block whose scale is "
                                 "infinite or NaN; the file is damaged",
                                 (long long)i, types[t].name);
        types[t].decode(b, dst + i);
    }
    return LORI_OK;
}
