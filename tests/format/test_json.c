/* test_json.c - JSON in and out, typed fields, records. Texts expected here are
 * what Python's json.dumps prints. */
#include "format/format.h"
#include "format/temp.h"

static json_t *parse(const char *text)
{
    json_t *value;
    lori_error err = {0};
    cr_assert_eq(format_json_parse(text, strlen(text), "f.json", &value, &err),
                 LORI_OK, "%s", err.message);
    return value;
}

static void refused(const char *text, size_t n, const char *start,
                    const char *word)
{
    json_t *value;
    lori_error err = {0};
    cr_expect_eq(format_json_parse(text, n, "f.json", &value, &err),
                 LORI_FORMAT, "%s", text);
    cr_expect_null(value);
    cr_expect_eq(strncmp(err.message, start, strlen(start)), 0, "%s",
                 err.message);
    cr_expect_not_null(strstr(err.message, word), "%s", err.message);
}

#define REFUSED(text, start, word) refused(text, sizeof(text) - 1, start, word)

Test(json, errors_name_the_place)
{
    REFUSED("{\"a\": 1,\n \"b\": }", "f.json:2:", "unexpected");
    REFUSED("{\"a\": 1,\n\n\"a\": 2}", "f.json:3:", "duplicate");
    REFUSED("[1] 2", "f.json:1:", "end of file");
    REFUSED("", "f.json:1:", "end of file");
    REFUSED("[\"\xff\"]", "f.json:1:", "decode");
    REFUSED("[NaN]", "f.json:1:", "");
    REFUSED("[1e999]", "f.json:1:", "overflow");
    REFUSED("[1e999]", "f.json:1:", "real");
    char deep[6000];
    memset(deep, '[', sizeof deep);
    refused(deep, sizeof deep, "f.json:1:", "depth");
}

Test(json, any_value_and_nul)
{
    json_t *v = parse("\"a\\u0000b\"");
    cr_expect_eq(json_string_length(v), 3);
    json_decref(v);
    v = parse(" null ");
    cr_expect(json_is_null(v));
    json_decref(v);
    /* Not NUL-terminated, and n decides. */
    lori_error err;
    cr_assert_eq(format_json_parse("12345", 2, "x", &v, &err), LORI_OK);
    cr_expect_eq(json_integer_value(v), 12);
    json_decref(v);
}

static void expect_text(const json_t *v, unsigned flags, const char *text)
{
    base_str out = {0};
    format_json_text(v, flags, &out);
    cr_assert_not(out.failed);
    cr_expect_str_eq(out.s, text);
    base_str_free(&out);
}

Test(json, text_as_python_prints_it)
{
    json_t *v = parse("{\"b\":[1,2.0,1e-5,true,null,[],{}],\"a\":"
                      "\"q\\\" \\\\ / \\n\\u0001\\u007f\\u00e9\\ud83d\\ude00\","
                      "\"A\":{\"z\":-0.0}}");
    expect_text(v, 0,
                "{\"b\": [1, 2.0, 1e-05, true, null, [], {}], \"a\": "
                "\"q\\\" \\\\ / \\n\\u0001\x7f\xc3\xa9\xf0\x9f\x98\x80\", "
                "\"A\": {\"z\": -0.0}}");
    expect_text(v, FORMAT_JSON_SORT | FORMAT_JSON_ASCII,
                "{\"A\": {\"z\": -0.0}, \"a\": \"q\\\" \\\\ / "
                "\\n\\u0001\\u007f\\u00e9\\ud83d\\ude00\", "
                "\"b\": [1, 2.0, 1e-05, true, null, [], {}]}");
    json_decref(v);
    v = parse("{\"b\":[1,{}],\"a\":{\"c\":[]}}");
    expect_text(v, FORMAT_JSON_SORT | FORMAT_JSON_INDENT,
                "{\n  \"a\": {\n    \"c\": []\n  },\n  \"b\": [\n    1,\n"
                "    {}\n  ]\n}");
    json_decref(v);
}

Test(json, keys_sort_by_code_point)
{
    json_t *v = parse("{\"a\":1,\"\xc3\xa9\":2,\"Z\":3,\"ab\":4,\"\":5,"
                      "\"\xf0\x9f\x98\x80\":6,\"\xef\xbf\xbd\":7}");
    expect_text(v, FORMAT_JSON_SORT,
                "{\"\": 5, \"Z\": 3, \"a\": 1, \"ab\": 4, \"\xc3\xa9\": 2, "
                "\"\xef\xbf\xbd\": 7, \"\xf0\x9f\x98\x80\": 6}");
    json_decref(v);
}

Test(json, write_and_load)
{
    temp t;
    temp_open(&t);
    json_t *v = parse("{\"x\": 0.1, \"y\": 123456789012}"), *again;
    lori_error err;
    cr_assert_eq(format_json_write(temp_path(&t, "c.json"), v,
                                   FORMAT_JSON_INDENT, true, &err),
                 LORI_OK);
    char *bytes;
    size_t n;
    cr_assert_eq(base_file_read(t.path, 1000, &bytes, &n, &err), LORI_OK);
    cr_expect_str_eq(bytes, "{\n  \"x\": 0.1,\n  \"y\": 123456789012\n}\n");
    free(bytes);
    cr_assert_eq(format_json_load(t.path, &again, &err), LORI_OK);
    cr_expect(json_equal(v, again));
    json_decref(again);
    cr_expect_eq(format_json_load(temp_path(&t, "no"), &again, &err),
                 LORI_NOT_FOUND);
    cr_expect_null(again);
    json_decref(v);
    temp_close(&t);
}

Test(json, typed_fields)
{
    json_t *o = parse("{\"i\":5,\"r\":2.0,\"s\":\"t\",\"n\":null,\"b\":true,"
                      "\"z\":\"a\\u0000b\"}");
    lori_error err;
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = "default";
#define I64(key, required, lo, hi)                                             \
    format_get_i64(o, "c.json", key, required, lo, hi, &i, &err)
    cr_expect_eq(I64("i", true, 5, 5), LORI_OK);
    cr_expect_eq(i, 5);
    cr_expect_eq(I64("i", true, 6, 9), LORI_FORMAT);
    cr_expect_str_eq(err.message, "c.json: 'i' is 5, expected 6 to 9");
    cr_expect_eq(I64("r", true, 0, 9), LORI_FORMAT); /* 2.0 is no integer */
    cr_expect_eq(I64("b", true, 0, 9), LORI_FORMAT);
    cr_expect_eq(I64("n", false, 0, 9), LORI_OK);
    cr_expect_eq(I64("none", false, 0, 9), LORI_OK);
    cr_expect_eq(i, 5);
    cr_expect_eq(I64("n", true, 0, 9), LORI_NOT_FOUND);
    cr_expect_eq(I64("none", true, 0, 9), LORI_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "'none' is missing"));
    cr_expect_eq(format_get_f64(o, "c", "i", true, &r, &err), LORI_OK);
    cr_expect_eq(r, 5.0);
    cr_expect_eq(format_get_f64(o, "c", "s", true, &r, &err), LORI_FORMAT);
    cr_expect_eq(format_get_bool(o, "c", "b", true, &b, &err), LORI_OK);
    cr_expect(b);
    cr_expect_eq(format_get_bool(o, "c", "i", true, &b, &err), LORI_FORMAT);
    cr_expect_eq(format_get_str(o, "c", "s", true, &s, &err), LORI_OK);
    cr_expect_str_eq(s, "t");
    cr_expect_eq(format_get_str(o, "c", "n", false, &s, &err), LORI_OK);
    cr_expect_str_eq(s, "t");
    cr_expect_eq(format_get_str(o, "c", "z", true, &s, &err), LORI_FORMAT);
    json_decref(o);
}

/* ---- records -------------------------------------------------------- */

typedef struct rows {
    int64_t line[16], id[16];
    int n, stop_at;
} rows;

static lori_status on_row(void *context, int64_t line, const json_t *object,
                          lori_error *err)
{
    rows *r = context;
    cr_assert_lt(r->n, 16);
    r->line[r->n] = line;
    r->id[r->n] = json_integer_value(json_object_get(object, "id"));
    r->n++;
    if (r->n == r->stop_at)
        return base_fail(err, LORI_INTERRUPTED, "stop");
    return LORI_OK;
}

static lori_status read_rows(temp *t, const char *text, rows *r,
                             lori_error *err)
{
    *r = (rows){.stop_at = -1};
    *err = (lori_error){0};
    return format_rows_read(temp_file(t, "d.jsonl", text, strlen(text)), on_row,
                            r, err);
}

Test(rows, lines)
{
    temp t;
    temp_open(&t);
    rows r;
    lori_error err;
    cr_assert_eq(read_rows(&t,
                           "\xef\xbb\xbf\n{\"id\":1}\n\r\n \t\n{\"id\":2}\r\n"
                           "{\"id\":3}",
                           &r, &err),
                 LORI_OK, "%s", err.message);
    cr_assert_eq(r.n, 3);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(r.id[i], i + 1);
    cr_expect(r.line[0] == 2 && r.line[1] == 5 && r.line[2] == 6);
    cr_assert_eq(read_rows(&t, "", &r, &err), LORI_OK);
    cr_expect_eq(r.n, 0);
    cr_expect_eq(read_rows(&t, "{\"id\":1}\n\n{\"id\":}\n", &r, &err),
                 LORI_FORMAT);
    cr_expect_not_null(strstr(err.message, "d.jsonl:3:"), "%s", err.message);
    cr_expect_eq(read_rows(&t, "{}\n[1]\n", &r, &err), LORI_FORMAT);
    cr_expect_not_null(strstr(err.message, "d.jsonl:2:"), "%s", err.message);
    cr_expect_not_null(strstr(err.message, "a list"), "%s", err.message);
    r = (rows){.stop_at = 1};
    temp_file(&t, "d.jsonl", "{}\n{}\n", 6);
    cr_expect_eq(format_rows_read(t.path, on_row, &r, &err), LORI_INTERRUPTED);
    cr_expect_eq(r.n, 1);
    cr_expect_eq(format_rows_read(temp_path(&t, "no"), on_row, &r, &err),
                 LORI_NOT_FOUND);
    temp_close(&t);
}

Test(rows, array)
{
    temp t;
    temp_open(&t);
    rows r;
    lori_error err;
    cr_assert_eq(
        read_rows(&t, "\n [\n{\"id\":1},\n\n{\"id\":2}\n]\n", &r, &err),
        LORI_OK, "%s", err.message);
    cr_assert_eq(r.n, 2);
    cr_expect(r.line[0] == 1 && r.line[1] == 2 && r.id[1] == 2);
    cr_expect_eq(read_rows(&t, "\n\n[{\"id\":1},\n5x]", &r, &err), LORI_FORMAT);
    cr_expect_not_null(strstr(err.message, "d.jsonl:4:"), "%s", err.message);
    cr_expect_eq(read_rows(&t, "[{\"id\":1}, 5]", &r, &err), LORI_FORMAT);
    cr_expect_not_null(strstr(err.message, "element 2"), "%s", err.message);
    temp_close(&t);
}

/* A line longer than the reader's buffer, and lines that end on its edge. */
Test(rows, long_lines)
{
    temp t;
    temp_open(&t);
    for (size_t pad = 65500; pad < 65560; pad++) {
        base_str s = {0};
        base_str_printf(&s, "{\"x\":\"%*s\",\"id\":1}\n{\"id\":2}\n", (int)pad,
                        "");
        rows r;
        lori_error err;
        cr_assert_eq(read_rows(&t, s.s, &r, &err), LORI_OK, "%s", err.message);
        cr_assert(r.n == 2 && r.id[0] == 1 && r.id[1] == 2 && r.line[1] == 2);
        base_str_free(&s);
    }
    temp_close(&t);
}

/* transformers writes "no limit" as an integer that 64 bits cannot hold. */
Test(json, huge_integers_are_reals)
{
    const char *text =
        "{\"a\": 1000000000000000019884624838656, \"s\": \"\\\"9999999999"
        "9999999999\", \"b\": [-99999999999999999999, 7], \"c\": 1e2}";
    json_t *v = NULL;
    lori_error err;
    cr_assert_eq(format_json_parse(text, strlen(text), "t", &v, &err), LORI_OK,
                 "%s", err.message);
    double a = json_real_value(json_object_get(v, "a"));
    double b = json_real_value(json_array_get(json_object_get(v, "b"), 0));
    cr_expect(a == 1e30 && b == -1e20);
    cr_expect_str_eq(json_string_value(json_object_get(v, "s")),
                     "\"99999999999999999999");
    cr_expect_eq(json_integer_value(json_array_get(json_object_get(v, "b"), 1)),
                 7);
    json_decref(v);
}
