/* json_text.c - jansson values to JSON text, byte for byte as Python's json
 * module writes them (Hugging Face's files). Jansson's own writer differs in
 * reals ("%.17g") and upper-case escapes. Includes base and jansson. */
#include <stdio.h>
#include <stdlib.h>

#include "format/format_i.h"

/* Code point at s, valid UTF-8; *len bytes long. */
static unsigned code_point(const unsigned char *s, size_t *len)
{
    if (s[0] < 0xe0) {
        *len = 2;
        return (s[0] & 0x1fU) << 6 | (s[1] & 0x3fU);
    }
    if (s[0] < 0xf0) {
        *len = 3;
        return (s[0] & 0x0fU) << 12 | (s[1] & 0x3fU) << 6 | (s[2] & 0x3fU);
    }
    *len = 4;
    return (s[0] & 0x07U) << 18 | (s[1] & 0x3fU) << 12 | (s[2] & 0x3fU) << 6 |
           (s[3] & 0x3fU);
}

static void escape_wide(unsigned code, base_str *out)
{
    if (code < 0x10000) {
        base_str_printf(out, "\\u%04x", code);
        return;
    }
    code -= 0x10000;
    base_str_printf(out, "\\u%04x\\u%04x", 0xd800 + (code >> 10),
                    0xdc00 + (code & 0x3ff));
}

static void escape_byte(unsigned char c, base_str *out)
{
    static const char named[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c ? strchr(named, c) : NULL;
    if (at) {
        char text[2] = {'\\', letter[at - named]};
        base_str_add(out, text, 2);
    } else {
        base_str_printf(out, "\\u%04x", c);
    }
}

void format_json_quote(const char *s, size_t n, bool ascii, base_str *out)
{
    base_str_add(out, "\"", 1);
    size_t start = 0, i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        bool plain = c >= 0x20 && c != '"' && c != '\\' && (!ascii || c < 0x7f);
        if (plain) {
            i++;
            continue;
        }
        base_str_add(out, s + start, i - start);
        size_t len = 1;
        if (c < 0x80)
            escape_byte(c, out);
        else
            escape_wide(code_point((const unsigned char *)s + i, &len), out);
        i += len;
        start = i;
    }
    base_str_add(out, s + start, n - start);
    base_str_add(out, "\"", 1);
}

static void new_line(int level, base_str *out)
{
    base_str_puts(out, "\n");
    for (int i = 0; i < level; i++)
        base_str_puts(out, "  ");
}

static void separate(size_t i, unsigned flags, int level, base_str *out)
{
    if (flags & FORMAT_JSON_INDENT) {
        if (i)
            base_str_puts(out, ",");
        new_line(level, out);
    } else if (i) {
        base_str_puts(out, ", ");
    }
}

typedef struct member {
    const char *key;
    size_t key_len;
    const json_t *value;
} member;

static int by_key(const void *pa, const void *pb)
{
    const member *a = pa, *b = pb;
    size_t n = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = memcmp(a->key, b->key, n);
    if (order)
        return order;
    return a->key_len < b->key_len ? -1 : a->key_len > b->key_len;
}

/* The members of `object` in the order to write; NULL when out of memory. */
static member *members(const json_t *object, unsigned flags, size_t *n)
{
    *n = 0;
    member *list = base_alloc(json_object_size(object), sizeof *list);
    if (!list)
        return NULL;
    /* Iterating does not change the object; jansson's types do not say so. */
    union {
        const json_t *in;
        json_t *out;
    } any = {object};
    for (void *it = json_object_iter(any.out); it;
         it = json_object_iter_next(any.out, it))
        list[(*n)++] =
            (member){json_object_iter_key(it), json_object_iter_key_len(it),
                     json_object_iter_value(it)};
    if (flags & FORMAT_JSON_SORT)
        qsort(list, *n, sizeof *list, by_key);
    return list;
}

static void put(const json_t *value, unsigned flags, int level, base_str *out);

static void put_object(const json_t *value, unsigned flags, int level,
                       base_str *out)
{
    size_t n;
    member *list = members(value, flags, &n);
    if (!list) {
        out->failed = true;
        return;
    }
    base_str_puts(out, "{");
    for (size_t i = 0; i < n; i++) {
        separate(i, flags, level + 1, out);
        format_json_quote(list[i].key, list[i].key_len,
                          flags & FORMAT_JSON_ASCII, out);
        base_str_puts(out, ": ");
        put(list[i].value, flags, level + 1, out);
    }
    free(list);
    if (n && flags & FORMAT_JSON_INDENT)
        new_line(level, out);
    base_str_puts(out, "}");
}

static void put_array(const json_t *value, unsigned flags, int level,
                      base_str *out)
{
    size_t n = json_array_size(value);
    base_str_puts(out, "[");
    for (size_t i = 0; i < n; i++) {
        separate(i, flags, level + 1, out);
        put(json_array_get(value, i), flags, level + 1, out);
    }
    if (n && flags & FORMAT_JSON_INDENT)
        new_line(level, out);
    base_str_puts(out, "]");
}

/* Recursion is bounded by the value's depth: 2048 for what jansson parsed. */
static void put(const json_t *value, unsigned flags, int level, base_str *out)
{
    char text[32];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_object(value, flags, level, out);
        return;
    case JSON_ARRAY:
        put_array(value, flags, level, out);
        return;
    case JSON_STRING:
        format_json_quote(json_string_value(value), json_string_length(value),
                          flags & FORMAT_JSON_ASCII, out);
        return;
    case JSON_INTEGER:
        base_str_printf(out, "%lld", (long long)json_integer_value(value));
        return;
    case JSON_REAL:
        base_str_puts(out, base_f64_text(json_real_value(value), text));
        return;
    case JSON_TRUE:
        base_str_puts(out, "true");
        return;
    case JSON_FALSE:
        base_str_puts(out, "false");
        return;
    case JSON_NULL:
        base_str_puts(out, "null");
        return;
    }
}

void format_json_text(const json_t *value, unsigned flags, base_str *out)
{
    put(value, flags, 0, out);
}

lori_status format_json_write(const char *path, const json_t *value,
                              unsigned flags, bool final_newline,
                              lori_error *err)
{
    base_str text = {0};
    format_json_text(value, flags, &text);
    if (final_newline)
        base_str_puts(&text, "\n");
    lori_status status = text.failed
                             ? base_no_memory(err, text.len)
                             : base_file_write(path, text.s, text.len, err);
    base_str_free(&text);
    return status;
}
