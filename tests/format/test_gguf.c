/* test_gguf.c - the container's limits and the block decoders. The vectors and
 * the 256-byte file are those of spec/gguf.md, measured with gguf-py. */
#include <math.h>

#include "format/format.h"
#include "format/temp.h"
#include "sha256.h"

/* ---- blocks --------------------------------------------------------- */

typedef struct vector {
    uint32_t type;
    int values, bytes;
    int d_at, m_at; /* -1: none */
    unsigned d, m;  /* f16 bits put there */
    double sum;
    float first[4], rest[4]; /* 0-3; 16, 17, n/2, n-1 (NAN: not recorded) */
    const char *sha;         /* first 16 hex digits */
} vector;

#define NONE                                                                   \
    {                                                                          \
        NAN, NAN, NAN, NAN                                                     \
    }
static const vector vectors[] = {
    {2,
     32,
     18,
     0,
     -1,
     0x3800,
     0,
     -10.5,
     {-1.5F, 1, 3.5F, -2},
     {-1.5F, -.5F, -1.5F, 0},
     "5d4f9284148ffbc0"},
    {3,
     32,
     20,
     0,
     2,
     0x3800,
     0xbd00,
     82.5,
     {6.25F, .75F, 3.25F, 5.75F},
     {3.25F, 4.75F, 3.25F, 4.75F},
     "4731e30e31084f88"},
    {6,
     32,
     22,
     0,
     -1,
     0x3800,
     0,
     7.5,
     {4.5F, -1, 1.5F, -4},
     {7, 0, 7, .5F},
     "ffd3db2e131f64ec"},
    {7,
     32,
     24,
     0,
     2,
     0x3800,
     0xbd00,
     212.5,
     {8.25F, 10.75F, 13.25F, 7.75F},
     {8.25F, 1.25F, 8.25F, 1.25F},
     "0eb2869a97df6e3e"},
    {8,
     32,
     34,
     0,
     -1,
     0x3800,
     0,
     -88,
     {42.5F, 61, -48.5F, -30},
     {-45.5F, -27, -45.5F, -24},
     "9388312316008992"},
    {10,
     256,
     84,
     80,
     82,
     0x3800,
     0x3400,
     1029.5,
     {16.5F, 0, 5.5F, 11},
     {-.75F, -.75F, 3.75F, 2.25F},
     "9eec0635a588be5d"},
    {11,
     256,
     110,
     108,
     -1,
     0x3800,
     0,
     479,
     {40.5F, -54, 13.5F, -27},
     {-48, 64, 1, 21},
     "504a4bdf2f8e1bf6"},
    {12,
     256,
     144,
     0,
     2,
     0x3800,
     0x3400,
     27220,
     {157.75F, -12.75F, 64.75F, 142.25F},
     {157.75F, -12.75F, 211.5F, 24.25F},
     "0b9f414ce9a98aa3"},
    {13,
     256,
     176,
     0,
     2,
     0x3800,
     0x3400,
     58108,
     {405.75F, -12.75F, 312.75F, 142.25F},
     {405.75F, -12.75F, 523.5F, 54.25F},
     "aef895af439bb011"},
    {14,
     256,
     210,
     208,
     -1,
     0x3800,
     0,
     2306,
     {-715.5F, 848, 291.5F, -265},
     {-216, 256, -175.5F, -30},
     "59b04fb417bc6ef8"},
    /* every f16 field 0.5 */
    {3,
     32,
     20,
     0,
     2,
     0x3800,
     0x3800,
     138.5,
     {8, 2.5F, 5, 7.5F},
     NONE,
     "393f8e89a542c0b2"},
    {7,
     32,
     24,
     0,
     2,
     0x3800,
     0x3800,
     268.5,
     {10, 12.5F, 15, 9.5F},
     NONE,
     "37b3e8a5c6c78951"},
    {10,
     256,
     84,
     80,
     82,
     0x3800,
     0x3800,
     609.5,
     {16.5F, 0, 5.5F, 11},
     NONE,
     "88cf09b4d33b30a2"},
    {12,
     256,
     144,
     0,
     2,
     0x3800,
     0x3800,
     25108,
     {145, -25.5F, 52, 129.5F},
     NONE,
     "4373a8eb16764836"},
    {13,
     256,
     176,
     0,
     2,
     0x3800,
     0x3800,
     55996,
     {393, -25.5F, 300, 129.5F},
     NONE,
     "378b05b3428db1cf"},
};

static void make_block(const vector *v, unsigned char *b)
{
    for (int k = 0; k < v->bytes; k++)
        b[k] = (unsigned char)(37 * k + 11);
    b[v->d_at] = (unsigned char)v->d;
    b[v->d_at + 1] = (unsigned char)(v->d >> 8);
    if (v->m_at >= 0) {
        b[v->m_at] = (unsigned char)v->m;
        b[v->m_at + 1] = (unsigned char)(v->m >> 8);
    }
}

Test(gguf, block_vectors)
{
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) {
        const vector *v = &vectors[k];
        unsigned char block[256];
        float y[256];
        make_block(v, block);
        lori_error err = {0};
        cr_assert_eq(format_gguf_decode(v->type, block, v->values, y, &err),
                     LORI_OK, "%s", err.message);
        const char *name = format_gguf_type_name(v->type);
        const int at[4] = {16, 17, v->values / 2, v->values - 1};
        double sum = 0;
        for (int i = 0; i < v->values; i++)
            sum += y[i];
        /* All values are short binary fractions: the sum is exact. */
        cr_expect_eq(sum, v->sum, "%s: sum %g, expected %g", name, sum, v->sum);
        for (int i = 0; i < 4; i++) {
            cr_expect_eq(y[i], v->first[i], "%s[%d] = %g", name, i, y[i]);
            if (!isnan(v->rest[i]))
                cr_expect_eq(y[at[i]], v->rest[i], "%s[%d] = %g", name, at[i],
                             y[at[i]]);
        }
        char hex[65];
        sha256_of(y, (size_t)v->values * sizeof *y, hex);
        cr_expect_eq(strncmp(hex, v->sha, 16), 0, "%s: sha256 %s", name, hex);
    }
}

Test(gguf, plain_types)
{
    static const unsigned char b[8] = {0x0b, 0x30, 0x55, 0x7a,
                                       0x9f, 0xc4, 0xe9, 0x0e};
    static const float f16[4] = {0.12634277F, 51872, -4.6210938F,
                                 0.00042176247F};
    static const float bf16[4] = {5.0567905e-10F, 2.7648981e+35F, -1272,
                                  5.7438935e-30F};
    float y[4];
    lori_error err;
    cr_assert_eq(format_gguf_decode(1, b, 4, y, &err), LORI_OK);
    cr_expect_arr_eq(y, f16, sizeof f16);
    cr_assert_eq(format_gguf_decode(30, b, 4, y, &err), LORI_OK);
    cr_expect_arr_eq(y, bf16, sizeof bf16);
}

Test(gguf, bad_scales_and_types_are_refused)
{
    static const unsigned bad[] = {0x7c00, 0xfc00, 0x7e00};
    for (size_t k = 0; k < 10; k++) {
        vector v = vectors[k];
        unsigned char block[256];
        float y[256];
        lori_error err;
        for (int i = 0; i < 3; i++) {
            v.d = bad[i];
            make_block(&v, block);
            cr_expect_eq(format_gguf_decode(v.type, block, v.values, y, &err),
                         LORI_NUMERIC);
        }
        cr_expect_eq(format_gguf_decode(v.type, block, v.values / 2, y, &err),
                     LORI_INVALID);
    }
    for (uint32_t type = 0; type < 200; type++) {
        lori_error err;
        float y[1];
        if (type > 30 || (type > 14 && type < 30))
            cr_expect_eq(format_gguf_decode(type, "", 0, y, &err),
                         LORI_UNSUPPORTED, "type %u", type);
    }
    cr_expect_str_eq(format_gguf_type_name(3), "Q4_1");
    cr_expect_str_eq(format_gguf_type_name(20), "IQ4_NL");
    cr_expect_str_eq(format_gguf_type_name(4000000000U), "unknown");
}

/* ---- the 256-byte file ---------------------------------------------- */

typedef struct bytes {
    unsigned char b[4096];
    size_t n;
} bytes;

static void raw(bytes *f, const void *p, size_t n)
{
    cr_assert_leq(f->n + n, sizeof f->b);
    memcpy(f->b + f->n, p, n);
    f->n += n;
}

static void u32(bytes *f, uint32_t x)
{
    raw(f, &x, sizeof x);
}

static void u64(bytes *f, uint64_t x)
{
    raw(f, &x, sizeof x);
}

static void string(bytes *f, const char *s)
{
    u64(f, strlen(s));
    raw(f, s, strlen(s));
}

static void pad_to(bytes *f, size_t n)
{
    while (f->n < n)
        raw(f, "", 1);
}

static void small_file(bytes *f)
{
    static const float t[6] = {1, 2, 3, 4, 5, 6};
    f->n = 0;
    raw(f, "GGUF", 4);
    u32(f, 3);
    u64(f, 2);
    u64(f, 2);
    string(f, "general.architecture");
    u32(f, 8);
    string(f, "llama");
    string(f, "x.y");
    u32(f, 9);
    u32(f, 5);
    u64(f, 2);
    u32(f, 7);
    u32(f, 0xffffffff);
    string(f, "t");
    u32(f, 2);
    u64(f, 3);
    u64(f, 2);
    u32(f, 0);
    u64(f, 0);
    string(f, "u");
    u32(f, 1);
    u64(f, 1);
    u32(f, 1);
    u64(f, 32);
    pad_to(f, 192);
    raw(f, t, sizeof t);
    pad_to(f, 224);
    raw(f, "\0\x38", 2);
    pad_to(f, 256);
}

/* Opens the bytes as a file; returns the status. */
static lori_status open_bytes(temp *t, const bytes *f, format_gguf **g,
                              lori_error *err)
{
    *err = (lori_error){0};
    return format_gguf_open(temp_file(t, "x.gguf", f->b, f->n), g, err);
}

Test(gguf, small_file)
{
    bytes f;
    small_file(&f);
    char hex[65];
    sha256_of(f.b, f.n, hex);
    cr_assert_str_eq(hex, "60573087ad231f58fb07134b2249334fa380f247a556c868"
                          "584863238bb92130");
    temp dir;
    temp_open(&dir);
    format_gguf *g;
    lori_error err;
    cr_assert_eq(open_bytes(&dir, &f, &g, &err), LORI_OK, "%s", err.message);
    const char *arch = NULL;
    size_t n = 0, count = 0;
    cr_assert_eq(
        format_gguf_str(g, "general.architecture", true, &arch, &n, &err),
        LORI_OK);
    cr_expect_str_eq(arch, "llama");
    cr_expect_eq(n, 5);
    const int32_t *xy;
    cr_assert_eq(format_gguf_i32s(g, "x.y", true, &count, &xy, &err), LORI_OK);
    cr_assert_eq(count, 2);
    cr_expect(xy[0] == 7 && xy[1] == -1);
    cr_expect_eq(format_gguf_count(g), 2);
    const format_gguf_tensor *t = format_gguf_find(g, "t");
    cr_assert_not_null(t);
    cr_expect_null(format_gguf_find(g, "tt"));
    cr_expect(t == format_gguf_at(g, 0) && t->n_dims == 2);
    cr_expect(t->shape[0] == 2 && t->shape[1] == 3);
    cr_expect(t->offset == 192 && t->bytes == 24);
    float y[6], expected[3] = {4, 5, 6};
    cr_assert_eq(format_gguf_rows(g, t, 1, 1, y, &err), LORI_OK);
    cr_expect_arr_eq(y, expected, sizeof expected);
    cr_assert_eq(format_gguf_rows(g, format_gguf_find(g, "u"), 0, 1, y, &err),
                 LORI_OK);
    cr_expect_eq(y[0], 0.5F);
    cr_expect_eq(format_gguf_rows(g, t, 1, 2, y, &err), LORI_INVALID);
    cr_expect_eq(format_gguf_rows(g, t, 3, 0, y, &err), LORI_INVALID);
    cr_expect_eq(format_gguf_rows(g, t, -1, 1, y, &err), LORI_INVALID);
    format_gguf_close(g);
    temp_close(&dir);
}

/* Reads everything a valid file offers, so that a lie in it is touched. */
static void read_all(format_gguf *g)
{
    lori_error err;
    for (size_t i = 0; i < format_gguf_count(g); i++) {
        const format_gguf_tensor *t = format_gguf_at(g, i);
        int64_t rows = 1;
        for (int k = 0; k + 1 < t->n_dims; k++)
            rows *= t->shape[k];
        float y[256];
        int64_t cols = t->shape[t->n_dims - 1];
        for (int64_t r = 0; cols <= 256 && r < rows; r++)
            format_gguf_rows(g, t, r, 1, y, &err);
    }
}

Test(gguf, cut_at_every_length)
{
    bytes f;
    small_file(&f);
    temp dir;
    temp_open(&dir);
    for (size_t n = 0; n < 256; n++) {
        format_gguf *g;
        lori_error err;
        f.n = n;
        lori_status status = open_bytes(&dir, &f, &g, &err);
        /* Only the last tensor's padding may be missing. */
        cr_expect_eq(status == LORI_OK, n >= 226, "cut at %zu: %s", n,
                     err.message);
        if (status) {
            cr_expect_null(g);
            cr_expect_neq(err.message[0], '\0');
            cr_expect_not_null(strstr(err.message, "x.gguf"));
        } else {
            read_all(g);
        }
        format_gguf_close(g);
    }
    temp_close(&dir);
}

Test(gguf, every_byte_changed)
{
    bytes good;
    small_file(&good);
    temp dir;
    temp_open(&dir);
    static const unsigned char flips[] = {0x01, 0x80, 0xff, 0x10};
    int refused = 0;
    for (size_t i = 0; i < good.n; i++) {
        for (size_t k = 0; k < sizeof flips; k++) {
            bytes f = good;
            f.b[i] ^= flips[k];
            format_gguf *g;
            lori_error err;
            lori_status status = open_bytes(&dir, &f, &g, &err);
            if (status) {
                cr_expect_null(g);
                refused++;
            } else {
                read_all(g);
            }
            format_gguf_close(g);
        }
    }
    /* The header's fields are checked: far from all changes pass. */
    cr_expect_gt(refused, 400, "only %d refused", refused);
    temp_close(&dir);
}

/* A 64-bit field of the small file replaced. */
static void expect_refused(temp *dir, size_t at, uint64_t value, size_t width,
                           lori_status expected, const char *word)
{
    bytes f;
    small_file(&f);
    memcpy(f.b + at, &value, width);
    format_gguf *g;
    lori_error err;
    cr_expect_eq(open_bytes(dir, &f, &g, &err), expected, "%s: %s", word,
                 err.message);
    cr_expect_not_null(strstr(err.message, word), "no '%s' in: %s", word,
                       err.message);
    format_gguf_close(g);
}

Test(gguf, lies)
{
    temp dir;
    temp_open(&dir);
    const size_t kv = 24 + 8 + 20 + 4 + 8 + 5; /* x.y: its key's length */
    const size_t info = kv + 8 + 3 + 4 + 4 + 8 + 8;
    const size_t info2 = info + 8 + 1 + 4 + 16 + 4 + 8;
    expect_refused(&dir, 4, 1, 4, LORI_UNSUPPORTED, "version 1");
    expect_refused(&dir, 4, 0x03000000, 4, LORI_UNSUPPORTED, "big-endian");
    expect_refused(&dir, 8, 1ULL << 60, 8, LORI_FORMAT, "tensors");
    expect_refused(&dir, 16, UINT64_MAX, 8, LORI_FORMAT, "keys");
    expect_refused(&dir, 24, UINT64_MAX, 8, LORI_FORMAT, "a key");
    expect_refused(&dir, 24, 0, 8, LORI_FORMAT, "empty");
    expect_refused(&dir, 24 + 28, 13, 4, LORI_FORMAT, "value type 13");
    expect_refused(&dir, kv + 15, 9, 4, LORI_UNSUPPORTED, "arrays in an array");
    expect_refused(&dir, kv + 19, (1ULL << 62) + 2, 8, LORI_FORMAT, "elements");
    expect_refused(&dir, info + 9, 5, 4, LORI_FORMAT, "5 dimensions");
    expect_refused(&dir, info + 9, 0, 4, LORI_FORMAT, "0 dimensions");
    expect_refused(&dir, info + 13, 0, 8, LORI_FORMAT, "dimension 0");
    expect_refused(&dir, info + 13, 1ULL << 63, 8, LORI_FORMAT, "dimension");
    expect_refused(&dir, info + 13, 1ULL << 62, 8, LORI_FORMAT, "dimension");
    expect_refused(&dir, info + 13, 1ULL << 61, 8, LORI_FORMAT, "too large");
    expect_refused(&dir, info + 29, 20, 4, LORI_UNSUPPORTED, "IQ4_NL");
    expect_refused(&dir, info + 29, UINT32_MAX, 4, LORI_UNSUPPORTED, "unknown");
    expect_refused(&dir, info + 29, 2, 4, LORI_FORMAT, "whole blocks of Q4_0");
    expect_refused(&dir, info2 + 25, 0, 8, LORI_FORMAT, "overlap");
    expect_refused(&dir, info2 + 25, 64, 8, LORI_FORMAT, "gap");
    expect_refused(&dir, info2 + 25, 33, 8, LORI_FORMAT, "alignment");
    expect_refused(&dir, info2 + 8, 't', 1, LORI_FORMAT, "twice");
    temp_close(&dir);
}

static void begin(bytes *f, uint64_t n_kvs)
{
    f->n = 0;
    raw(f, "GGUF", 4);
    u32(f, 2);
    u64(f, 0);
    u64(f, n_kvs);
}

Test(gguf, key_values)
{
    bytes f;
    begin(&f, 10);
    string(&f, "u8"), u32(&f, 0), raw(&f, "\xff", 1);
    string(&f, "i8"), u32(&f, 1), raw(&f, "\xff", 1);
    string(&f, "i16"), u32(&f, 3), raw(&f, "\xfe\xff", 2);
    string(&f, "u64"), u32(&f, 10), u64(&f, UINT64_MAX);
    string(&f, "i64"), u32(&f, 11), u64(&f, (uint64_t)INT64_MIN);
    string(&f, "f32"), u32(&f, 6), u32(&f, 0x3f800000);
    string(&f, "bool"), u32(&f, 7), raw(&f, "\1", 1);
    string(&f, "same"), u32(&f, 9), u32(&f, 4), u64(&f, 2), u32(&f, 3),
        u32(&f, 3);
    string(&f, "mixed"), u32(&f, 9), u32(&f, 4), u64(&f, 2), u32(&f, 3),
        u32(&f, 0x80000000);
    string(&f, "words"), u32(&f, 9), u32(&f, 8), u64(&f, 3);
    string(&f, "a"), string(&f, ""), u64(&f, 3), raw(&f, "b\0c", 3);
    temp dir;
    temp_open(&dir);
    format_gguf *g;
    lori_error err;
    cr_assert_eq(open_bytes(&dir, &f, &g, &err), LORI_OK, "%s", err.message);
    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"u8", 255}, {"i8", -1}, {"i16", -2}, {"i64", INT64_MIN}};
    for (int i = 0; i < 4; i++) {
        int64_t x = 0;
        cr_expect_eq(format_gguf_i64(g, integers[i].key, true, INT64_MIN,
                                     INT64_MAX, &x, &err),
                     LORI_OK);
        cr_expect_eq(x, integers[i].value, "%s", integers[i].key);
    }
    int64_t x = 77;
    cr_expect_eq(format_gguf_i64(g, "u64", true, 0, INT64_MAX, &x, &err),
                 LORI_FORMAT);
    cr_expect_eq(format_gguf_i64(g, "u8", true, 0, 254, &x, &err), LORI_FORMAT);
    cr_expect_eq(format_gguf_i64(g, "f32", true, 0, 9, &x, &err), LORI_FORMAT);
    cr_expect_eq(format_gguf_i64(g, "same", true, 0, 9, &x, &err), LORI_FORMAT);
    cr_expect_eq(format_gguf_i64(g, "none", true, 0, 9, &x, &err),
                 LORI_NOT_FOUND);
    cr_expect_eq(format_gguf_i64(g, "none", false, 0, 9, &x, &err), LORI_OK);
    cr_expect_eq(x, 77);
    cr_expect_eq(format_gguf_i64_same(g, "same", true, 0, 9, &x, &err),
                 LORI_OK);
    cr_expect_eq(x, 3);
    cr_expect_eq(format_gguf_i64_same(g, "u8", true, 0, 255, &x, &err),
                 LORI_OK);
    cr_expect_eq(x, 255);
    cr_expect_eq(format_gguf_i64_same(g, "mixed", true, 0, 9, &x, &err),
                 LORI_UNSUPPORTED);
    float real = 0;
    cr_expect_eq(format_gguf_f32(g, "f32", true, &real, &err), LORI_OK);
    cr_expect_eq(real, 1.0F);
    bool yes = false;
    cr_expect_eq(format_gguf_bool(g, "bool", true, &yes, &err), LORI_OK);
    cr_expect(yes);
    size_t n;
    const int32_t *ints;
    cr_expect_eq(format_gguf_i32s(g, "mixed", true, &n, &ints, &err),
                 LORI_FORMAT);
    const char *const *words;
    const size_t *lengths;
    cr_assert_eq(
        format_gguf_strings(g, "words", true, &n, &words, &lengths, &err),
        LORI_OK);
    cr_assert_eq(n, 3);
    cr_expect(lengths[0] == 1 && lengths[1] == 0 && lengths[2] == 3);
    cr_expect_str_eq(words[0], "a");
    cr_expect_str_eq(words[1], "");
    cr_expect_eq(memcmp(words[2], "b\0c", 4), 0);
    format_gguf_close(g);
    temp_close(&dir);
}

Test(gguf, bad_key_values)
{
    bytes f[4];
    begin(&f[0], 1), string(&f[0], "b"), u32(&f[0], 7), raw(&f[0], "\2", 1);
    begin(&f[1], 1), string(&f[1], "general.alignment"), u32(&f[1], 4);
    u32(&f[1], 24);
    begin(&f[2], 1), string(&f[2], "general.alignment"), u32(&f[2], 8);
    string(&f[2], "");
    begin(&f[3], 2);
    for (int i = 0; i < 2; i++)
        string(&f[3], "k"), u32(&f[3], 0), raw(&f[3], "", 1);
    static const char *const word[] = {"bool", "alignment", "alignment",
                                       "twice"};
    temp dir;
    temp_open(&dir);
    for (int i = 0; i < 4; i++) {
        /* Room enough for the least size of what the counts announce. */
        pad_to(&f[i], f[i].n + 32);
        format_gguf *g;
        lori_error err;
        cr_expect_eq(open_bytes(&dir, &f[i], &g, &err), LORI_FORMAT, "%d", i);
        cr_expect_not_null(strstr(err.message, word[i]), "%s", err.message);
    }
    temp_close(&dir);
}
