/* test_safetensors.c - reader and writer of safetensors. The expected bytes
 * are those of safetensors 0.7's own writer for the same tensors. */
#include <sys/stat.h>

#include "format/format.h"
#include "format/temp.h"

static const float floats[6] = {1, 2, 3, 4, 5, 6};
static const uint16_t halves[2] = {0x3f80, 0xc000};

static const format_desc tensors[] = {
    {"b", BASE_F32, 2, {2, 3}, floats},
    {"a", BASE_F32, 1, {2}, floats},
    {"h\"\xc3\xa9", BASE_BF16, 1, {2}, halves},
    {"s", BASE_F32, 0, {0}, floats},
    {"z", BASE_I32, 1, {0}, floats},
};
static const format_pair pt = {"format", "pt"};

static const char expected_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
    "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[32,36]},"
    "\"z\":{\"dtype\":\"I32\",\"shape\":[0],\"data_offsets\":[36,36]},"
    "\"h\\\"\xc3\xa9\":{\"dtype\":\"BF16\",\"shape\":[2],"
    "\"data_offsets\":[36,40]}}";

static void write_all(temp *t, const char *name)
{
    lori_error err = {0};
    cr_assert_eq(format_st_write(temp_path(t, name), tensors, 5, &pt, 1, &err),
                 LORI_OK, "%s", err.message);
}

Test(safetensors, bytes_of_the_reference_writer)
{
    temp t;
    temp_open(&t);
    write_all(&t, "x.safetensors");
    char *bytes;
    size_t n;
    lori_error err;
    cr_assert_eq(base_file_read(t.path, 10000, &bytes, &n, &err), LORI_OK);
    size_t text = sizeof expected_header - 1, padded = (text + 7) & ~(size_t)7;
    cr_assert_eq(n, 8 + padded + 40);
    uint64_t length;
    memcpy(&length, bytes, 8);
    cr_expect_eq(length, padded);
    cr_expect_arr_eq(bytes + 8, expected_header, text);
    for (size_t i = text; i < padded; i++)
        cr_expect_eq(bytes[8 + i], ' ');
    const char *data = bytes + 8 + padded;
    cr_expect_arr_eq(data, floats, 8);
    cr_expect_arr_eq(data + 8, floats, 24);
    cr_expect_arr_eq(data + 32, floats, 4);
    cr_expect_arr_eq(data + 36, halves, 4);
    free(bytes);
    temp_close(&t);
}

Test(safetensors, types_in_file_order)
{
    /* U64 I64 F64 F32 U32 I32 BF16 F16 U16 I16 I8 U8 BOOL. */
    static const char order[] = "KLMJHIGFEDCBA";
    static const base_dtype types[] = {
        BASE_U64, BASE_I64, BASE_F64, BASE_F32, BASE_U32, BASE_I32, BASE_BF16,
        BASE_F16, BASE_U16, BASE_I16, BASE_I8,  BASE_U8,  BASE_BOOL};
    format_desc d[13];
    char names[13][2] = {{0}};
    static const uint64_t zero;
    for (int i = 0; i < 13; i++) {
        names[i][0] = order[i]; /* in no order by name */
        d[12 - i] = (format_desc){names[i], types[i], 1, {1}, &zero};
    }
    temp t;
    temp_open(&t);
    lori_error err;
    cr_assert_eq(format_st_write(temp_path(&t, "x"), d, 13, NULL, 0, &err),
                 LORI_OK);
    char *bytes;
    size_t n;
    cr_assert_eq(base_file_read(t.path, 10000, &bytes, &n, &err), LORI_OK);
    const char *at = bytes + 8;
    for (int i = 0; i < 13; i++) {
        char key[8];
        snprintf(key, sizeof key, "\"%c\":{", order[i]);
        const char *found = strstr(at, key);
        cr_assert_not_null(found, "%s is not where it belongs", key);
        at = found;
    }
    free(bytes);
    temp_close(&t);
}

Test(safetensors, reads_back)
{
    temp t;
    temp_open(&t);
    write_all(&t, "x.safetensors");
    format_store *s;
    lori_error err = {0};
    cr_assert_eq(format_store_open_file(t.path, &s, &err), LORI_OK, "%s",
                 err.message);
    cr_assert_eq(format_store_count(s), 5);
    static const char *const names[] = {"a", "b", "h\"\xc3\xa9", "s", "z"};
    for (size_t i = 0; i < 5; i++)
        cr_expect_str_eq(format_store_at(s, i)->name, names[i]);
    const format_tensor *b = format_store_find(s, "b");
    cr_assert_not_null(b);
    cr_expect(b->dtype == BASE_F32 && b->n_dims == 2 && b->bytes == 24);
    cr_expect(b->shape[0] == 2 && b->shape[1] == 3);
    cr_expect_arr_eq(b->data, floats, 24);
    cr_expect_str_eq(b->file, t.path);
    cr_expect_null(format_store_find(s, "c"));
    cr_expect_null(format_store_find(s, "__metadata__"));
    cr_expect_str_eq(format_store_metadata(s, "format"), "pt");
    cr_expect_null(format_store_metadata(s, "nothing"));
    format_store_close(s);
    format_store_close(NULL);
    temp_close(&t);
}

/* ---- foreign headers ------------------------------------------------ */

/* A file of this header and `data` bytes 0, 1, 2, ... */
static lori_status open_text(temp *t, const char *header, size_t data,
                             format_store **s, lori_error *err)
{
    char file[4096];
    uint64_t n = strlen(header);
    cr_assert_lt(n + data + 8, sizeof file);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data; i++)
        file[8 + n + i] = (char)i;
    *err = (lori_error){0};
    return format_store_open_file(temp_file(t, "x.st", file, 8 + n + data), s,
                                  err);
}

Test(safetensors, unpadded_header_still_gives_aligned_data)
{
    temp t;
    temp_open(&t);
    static const char *const headers[] = {
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
        "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[12,16]}}",
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[1,13]},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[13,16]}}"};
    for (int k = 0; k < 2; k++) {
        for (int pad = 0; pad < 9; pad++) {
            char header[400];
            snprintf(header, sizeof header, "%s%*s", headers[k], pad, "");
            format_store *s;
            lori_error err;
            cr_assert_eq(open_text(&t, header, 16, &s, &err), LORI_OK, "%s",
                         err.message);
            const format_tensor *w = format_store_find(s, "w");
            cr_assert_eq((uintptr_t)w->data % sizeof(float), 0);
            const unsigned char *p = w->data;
            for (int i = 0; i < 12; i++)
                cr_expect_eq(p[i], i + k);
            format_store_close(s);
        }
    }
    temp_close(&t);
}

static void refused(temp *t, const char *header, size_t data,
                    lori_status status, const char *word)
{
    format_store *s;
    lori_error err;
    cr_expect_eq(open_text(t, header, data, &s, &err), status, "%s: %s", header,
                 err.message);
    cr_expect_null(s);
    cr_expect_not_null(strstr(err.message, word), "no '%s' in: %s", word,
                       err.message);
    cr_expect_not_null(strstr(err.message, "x.st"));
}

#define W(dtype, shape, offsets)                                               \
    "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape                         \
    ",\"data_offsets\":" offsets "}}"

Test(safetensors, lies_are_refused)
{
    temp t;
    temp_open(&t);
    refused(&t, W("F32", "[2]", "[0,8]"), 12, LORI_FORMAT, "after the last");
    refused(&t, W("F32", "[2]", "[0,8]"), 4, LORI_FORMAT, "cut short");
    refused(&t, W("F32", "[2]", "[4,12]"), 12, LORI_FORMAT, "unused bytes");
    refused(&t, W("F32", "[2]", "[8,0]"), 8, LORI_FORMAT, "8 to 0");
    refused(&t, W("F32", "[2]", "[-8,0]"), 8, LORI_FORMAT, "-8");
    refused(&t, W("F32", "[3]", "[0,8]"), 8, LORI_FORMAT, "8 bytes of data");
    refused(&t, W("F32", "[-2]", "[0,8]"), 8, LORI_FORMAT, "dimension");
    refused(&t, W("F32", "[2.0]", "[0,8]"), 8, LORI_FORMAT, "dimension");
    refused(&t, W("F32", "[4611686018427387906]", "[0,8]"), 8, LORI_FORMAT,
            "overflows");
    refused(&t, W("F32", "[4294967296,4294967296,0]", "[0,0]"), 0, LORI_FORMAT,
            "overflows");
    refused(&t, W("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, LORI_UNSUPPORTED,
            "dimensions");
    refused(&t, W("F8_E4M3", "[8]", "[0,8]"), 8, LORI_UNSUPPORTED, "'w'");
    refused(&t, W("Q7", "[8]", "[0,8]"), 8, LORI_UNSUPPORTED, "Q7");
    refused(&t, W("f32", "[2]", "[0,8]"), 8, LORI_UNSUPPORTED, "f32");
    refused(&t, W("F32", "2", "[0,8]"), 8, LORI_FORMAT, "shape");
    refused(&t, W("F32", "[2]", "[0]"), 8, LORI_FORMAT, "data_offsets");
    refused(&t, W("F32", "[2]", "[0,8,9]"), 8, LORI_FORMAT, "data_offsets");
    refused(&t, W("F32", "[2]", "[0,8.0]"), 8, LORI_FORMAT, "data_offsets");
    refused(&t, "{\"w\":{\"dtype\":\"F32\"}}", 0, LORI_FORMAT, "shape");
    refused(&t, "{\"w\":5}", 0, LORI_FORMAT, "not an object");
    refused(&t, "[]", 0, LORI_FORMAT, "a list");
    refused(&t, "{", 0, LORI_FORMAT, "header:1:");
    refused(&t, "{\"__metadata__\":{\"a\":1}}", 0, LORI_FORMAT,
            "expected a "
            "string");
    refused(&t, "{\"__metadata__\":[]}", 0, LORI_FORMAT, "__metadata__");
#define U8(name, offsets)                                                      \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets "}"
    refused(&t, "{" U8("a", "[0,4]") "," U8("b", "[2,6]") "}", 6, LORI_FORMAT,
            "overlaps");
    refused(&t, "{" U8("a", "[0,4]") "," U8("b", "[0,4]") "}", 4, LORI_FORMAT,
            "overlaps");
    refused(&t, "{" U8("a", "[0,4]") "," U8("a", "[4,8]") "}", 8, LORI_FORMAT,
            "duplicate");
    format_store *s;
    lori_error err;
    cr_assert_eq(open_text(&t, "{}", 0, &s, &err), LORI_OK);
    cr_expect_eq(format_store_count(s), 0);
    cr_expect_null(format_store_find(s, "w"));
    format_store_close(s);
    temp_close(&t);
}

/* What a valid store offers is touched, so that a wrong bound is noticed. */
static void touch(const format_store *s)
{
    volatile unsigned char sum = 0;
    for (size_t i = 0; i < format_store_count(s); i++) {
        const format_tensor *t = format_store_at(s, i);
        const unsigned char *p = t->data;
        for (size_t k = 0; k < t->bytes; k++)
            sum = (unsigned char)(sum + p[k]);
    }
}

Test(safetensors, cut_and_changed_everywhere)
{
    temp t;
    temp_open(&t);
    write_all(&t, "x");
    char *good;
    size_t n;
    lori_error err;
    cr_assert_eq(base_file_read(t.path, 10000, &good, &n, &err), LORI_OK);
    for (size_t cut = 0; cut < n; cut++) {
        format_store *s;
        err = (lori_error){0};
        cr_expect_neq(
            format_store_open_file(temp_file(&t, "c", good, cut), &s, &err),
            LORI_OK, "cut at %zu", cut);
        cr_expect_null(s);
        cr_expect_neq(err.message[0], '\0');
    }
    static const char flips[] = {0x01, 0x20, (char)0x80, (char)0xff};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof flips; k++) {
            good[i] = (char)(good[i] ^ flips[k]);
            format_store *s;
            if (format_store_open_file(temp_file(&t, "c", good, n), &s, &err) ==
                LORI_OK)
                touch(s);
            else
                cr_expect_null(s);
            format_store_close(s);
            good[i] = (char)(good[i] ^ flips[k]);
        }
    }
    free(good);
    temp_close(&t);
}

/* ---- writer's contract ---------------------------------------------- */

static lori_status emit_wrong(void *context, const format_desc *desc,
                              format_sink *sink, lori_error *err)
{
    size_t n = *(const size_t *)context;
    (void)desc;
    return format_sink_write(sink, floats, n, err);
}

Test(safetensors, writer_refuses)
{
    temp t;
    temp_open(&t);
    lori_error err;
    const char *path = temp_path(&t, "x");
    format_desc d = {"w", BASE_F32, 1, {2}, floats};
    for (size_t n = 4; n <= 12; n += 8) {
        cr_expect_eq(format_st_emit(path, &d, 1, NULL, 0, emit_wrong, &n, &err),
                     LORI_INVALID);
        cr_expect_not(base_is_file(path));
    }
    const format_desc twice[] = {d, d};
    cr_expect_eq(format_st_write(path, twice, 2, NULL, 0, &err), LORI_INVALID);
    static const format_desc bad[] = {
        {"__metadata__", BASE_F32, 1, {2}, floats},
        {"\xff", BASE_F32, 1, {2}, floats},
        {"w", BASE_F32, 1, {-2}, floats},
        {"w", BASE_F32, 2, {-2, -1}, floats},
        {"w", BASE_F32, 2, {1LL << 40, 1LL << 40}, floats},
        {"w", BASE_DTYPES, 1, {2}, floats},
        {"w", BASE_F32, 9, {2}, floats},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(format_st_write(path, &bad[i], 1, NULL, 0, &err),
                     LORI_INVALID, "%zu", i);
    cr_expect_not(base_is_file(path));
    temp_close(&t);
}

/* ---- folders -------------------------------------------------------- */

static lori_status emit_data(void *context, const format_desc *desc,
                             format_sink *sink, lori_error *err)
{
    int *left = context;
    if (left && (*left)-- == 0)
        return base_fail(err, LORI_NUMERIC, "made to fail");
    size_t n = base_dtype_bytes(desc->dtype);
    for (int i = 0; i < desc->n_dims; i++)
        n *= (size_t)desc->shape[i];
    return format_sink_write(sink, desc->data, n, err);
}

static void expect_shard(temp *t, const char *name, const char *names)
{
    format_store *s;
    lori_error err = {0};
    cr_assert_eq(format_store_open_file(temp_path(t, name), &s, &err), LORI_OK,
                 "%s", err.message);
    char found[64] = "";
    for (size_t i = 0; i < format_store_count(s); i++)
        strcat(found, format_store_at(s, i)->name);
    cr_expect_str_eq(found, names, "%s", name);
    cr_expect_str_eq(format_store_metadata(s, "format"), "pt");
    format_store_close(s);
}

/* Sizes 8, 24, 4, 100 with a limit of 32, as huggingface_hub splits them: the
 * large one gets its shard at once, before the open one is closed. */
Test(safetensors, shards)
{
    static const unsigned char many[100];
    static const format_desc d[] = {{"a", BASE_F32, 1, {2}, floats},
                                    {"b", BASE_U8, 1, {100}, many},
                                    {"c", BASE_F32, 1, {6}, floats},
                                    {"d", BASE_BF16, 1, {2}, halves}};
    temp t;
    temp_open(&t);
    lori_error err = {0};
    cr_assert_eq(
        format_st_emit_folder(t.dir, "model", d, 4, 32, emit_data, NULL, &err),
        LORI_OK, "%s", err.message);
    expect_shard(&t, "model-00001-of-00003.safetensors", "b");
    expect_shard(&t, "model-00002-of-00003.safetensors", "ac");
    expect_shard(&t, "model-00003-of-00003.safetensors", "d");
    char *text;
    size_t n;
    cr_assert_eq(base_file_read(temp_path(&t, "model.safetensors.index.json"),
                                10000, &text, &n, &err),
                 LORI_OK);
    cr_expect_str_eq(text, "{\n  \"metadata\": {\n"
                           "    \"total_parameters\": 110,\n"
                           "    \"total_size\": 136\n  },\n"
                           "  \"weight_map\": {\n"
                           "    \"a\": \"model-00002-of-00003.safetensors\",\n"
                           "    \"b\": \"model-00001-of-00003.safetensors\",\n"
                           "    \"c\": \"model-00002-of-00003.safetensors\",\n"
                           "    \"d\": \"model-00003-of-00003.safetensors\"\n"
                           "  }\n}\n");
    free(text);
    format_store *s;
    cr_assert_eq(format_store_open_folder(t.dir, "model", &s, &err), LORI_OK,
                 "%s", err.message);
    cr_expect_eq(format_store_count(s), 4);
    cr_expect_arr_eq(format_store_find(s, "c")->data, floats, 24);
    format_store_close(s);
    unlink(temp_path(&t, "model-00002-of-00003.safetensors"));
    cr_expect_eq(format_store_open_folder(t.dir, "model", &s, &err),
                 LORI_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "model-00002-of-00003.safetensors"));
    cr_expect_null(s);
    temp_close(&t);
}

Test(safetensors, one_shard_has_the_plain_name)
{
    temp t;
    temp_open(&t);
    lori_error err;
    cr_assert_eq(format_st_emit_folder(t.dir, "model", tensors, 5, 40,
                                       emit_data, NULL, &err),
                 LORI_OK);
    cr_expect(base_is_file(temp_path(&t, "model.safetensors")));
    cr_expect(!base_is_file(temp_path(&t, "model.safetensors.index.json")));
    temp_close(&t);
}

Test(safetensors, failed_folder_leaves_no_shard)
{
    temp t;
    temp_open(&t);
    lori_error err;
    int left = 2;
    cr_assert_eq(format_st_emit_folder(t.dir, "m", tensors, 5, 8, emit_data,
                                       &left, &err),
                 LORI_NUMERIC);
    cr_expect_eq(rmdir(t.dir), 0); /* empty */
}

static void index_refused(temp *t, const char *text, lori_status status,
                          const char *word)
{
    temp_file(t, "m.safetensors.index.json", text, strlen(text));
    format_store *s;
    lori_error err = {0};
    cr_expect_eq(format_store_open_folder(t->dir, "m", &s, &err), status,
                 "%s: %s", text, err.message);
    cr_expect_null(s);
    cr_expect_not_null(strstr(err.message, word), "%s", err.message);
}

#define MAP(name) "{\"weight_map\":{\"a\":\"" name "\"}}"

Test(safetensors, index)
{
    temp t;
    temp_open(&t);
    format_store *s;
    lori_error err;
    cr_expect_eq(format_store_open_folder(t.dir, "m", &s, &err),
                 LORI_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "m.safetensors"));
    cr_expect_eq(format_store_open_folder("/no/such", "m", &s, &err),
                 LORI_NOT_FOUND);
    write_all(&t, "p");
    write_all(&t, "q");
    index_refused(&t, "{}", LORI_FORMAT, "weight_map");
    index_refused(&t, "{\"weight_map\":{}}", LORI_FORMAT, "weight_map");
    index_refused(&t, "{\"weight_map\":{\"a\":5}}", LORI_FORMAT, "'a'");
    index_refused(&t, MAP("../p"), LORI_FORMAT, "plain file name");
    index_refused(&t, MAP("/etc/passwd"), LORI_FORMAT, "plain file name");
    index_refused(&t, MAP(".."), LORI_FORMAT, "plain file name");
    index_refused(&t, MAP(""), LORI_FORMAT, "plain file name");
    index_refused(&t, MAP("p\\u0000"), LORI_FORMAT, "plain file name");
    index_refused(&t, MAP("none"), LORI_NOT_FOUND, "'none'");
    index_refused(&t, "{\"weight_map\":{\"a\":\"p\",\"b\":\"q\"}}", LORI_FORMAT,
                  "in both");
    /* The set of files counts, not which tensor is said to be where. */
    static const char ok[] = "{\"weight_map\":{\"no\":\"p\",\"yes\":\"p\"}}";
    temp_file(&t, "m.safetensors.index.json", ok, sizeof ok - 1);
    cr_assert_eq(format_store_open_folder(t.dir, "m", &s, &err), LORI_OK, "%s",
                 err.message);
    cr_expect_eq(format_store_count(s), 5);
    format_store_close(s);
    /* A single file wins over the index. */
    lori_status status = format_st_write(temp_path(&t, "m.safetensors"),
                                         tensors, 1, NULL, 0, &err);
    cr_assert_eq(status, LORI_OK);
    cr_assert_eq(format_store_open_folder(t.dir, "m", &s, &err), LORI_OK);
    cr_expect_eq(format_store_count(s), 1);
    cr_expect_null(format_store_metadata(s, "format"));
    format_store_close(s);
    temp_close(&t);
}
