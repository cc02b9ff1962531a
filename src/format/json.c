/* json.c - JSON text to jansson values, and typed fields of objects. Refuses
 * duplicate keys, texts over 1 GiB and more than 2048 levels (jansson's bound).
 * Includes base and jansson. */
#include <limits.h>
#include <stdlib.h>

#include "format/format_i.h"

/* Copies JSON text, with ".0" behind integers of more than 18 digits: jansson
 * refuses those beyond 64 bits, and Hugging Face's files hold them
 * (model_max_length 1000000000000000019884624838656). They become reals. */
static void widen_integers(const char *s, size_t n, base_str *out)
{
    bool quoted = false;
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        if (quoted || s[i] < '0' || s[i] > '9') {
            bool escape = quoted && s[i] == '\\' && i + 1 < n;
            if (s[i] == '"')
                quoted = !quoted;
            i += escape ? 2 : 1;
            continue;
        }
        size_t start = i;
        while (i < n && s[i] >= '0' && s[i] <= '9')
            i++;
        bool whole = i == n || (s[i] != '.' && s[i] != 'e' && s[i] != 'E');
        bool fraction = start > 0 && strchr(".eE+", s[start - 1]);
        if (i - start > 18 && whole && !fraction) {
            base_str_add(out, s + from, i - from);
            base_str_puts(out, ".0");
            from = i;
        }
    }
    base_str_add(out, s + from, n - from);
}

static json_t *parse_wide(const char *bytes, size_t n, size_t flags,
                          json_error_t *place)
{
    base_str wide = {0};
    widen_integers(bytes, n, &wide);
    json_t *value =
        wide.failed ? NULL : json_loadb(wide.s, wide.len, flags, place);
    base_str_free(&wide);
    return value;
}

lori_status format_json_parse_at(const char *bytes, size_t n, const char *name,
                                 int64_t first_line, json_t **out,
                                 lori_error *err)
{
    *out = NULL;
    if (n > FORMAT_TEXT_MAX)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: over 1 GiB of JSON text, too large here", name);
    json_error_t place;
    const size_t flags =
        JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY;
    *out = json_loadb(n ? bytes : "", n, flags, &place);
    if (!*out && json_error_code(&place) == json_error_numeric_overflow)
        *out = parse_wide(bytes, n, flags, &place);
    if (*out)
        return LORI_OK;
    if (json_error_code(&place) == json_error_out_of_memory)
        return base_fail(err, LORI_NO_MEMORY, "%s: out of memory", name);
    int64_t line = first_line - 1 + (place.line > 0 ? place.line : 1);
    return base_fail(err, LORI_FORMAT, "%s:%lld:%d: %s", name, (long long)line,
                     place.column, place.text);
}

lori_status format_json_parse(const char *bytes, size_t n, const char *name,
                              json_t **out, lori_error *err)
{
    return format_json_parse_at(bytes, n, name, 1, out, err);
}

lori_status format_json_load(const char *path, json_t **out, lori_error *err)
{
    *out = NULL;
    char *bytes;
    size_t n;
    BASE_TRY(base_file_read(path, FORMAT_TEXT_MAX, &bytes, &n, err));
    lori_status status = format_json_parse(bytes, n, path, out, err);
    free(bytes);
    return status;
}

const char *format_json_kind(const json_t *value)
{
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "an unknown value";
}

/* The value, or NULL when it is absent or null, which `required` forbids. */
static lori_status get(const json_t *object, const char *file, const char *key,
                       bool required, const json_t **value, lori_error *err)
{
    *value = json_object_get(object, key);
    if (*value && !json_is_null(*value))
        return LORI_OK;
    if (required)
        return base_fail(err, LORI_NOT_FOUND, "%s: '%s' is %s", file, key,
                         *value ? "null" : "missing");
    *value = NULL;
    return LORI_OK;
}

static lori_status wrong_kind(const json_t *value, const char *file,
                              const char *key, const char *expected,
                              lori_error *err)
{
    return base_fail(err, LORI_FORMAT, "%s: '%s' is %s, expected %s", file, key,
                     format_json_kind(value), expected);
}

lori_status format_get_i64(const json_t *object, const char *file,
                           const char *key, bool required, int64_t lo,
                           int64_t hi, int64_t *io, lori_error *err)
{
    const json_t *value;
    BASE_TRY(get(object, file, key, required, &value, err));
    if (!value)
        return LORI_OK;
    if (!json_is_integer(value))
        return wrong_kind(value, file, key, "an integer", err);
    int64_t x = json_integer_value(value);
    if (x < lo || x > hi)
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' is %lld, expected %lld to %lld", file, key,
                         (long long)x, (long long)lo, (long long)hi);
    *io = x;
    return LORI_OK;
}

lori_status format_get_f64(const json_t *object, const char *file,
                           const char *key, bool required, double *io,
                           lori_error *err)
{
    const json_t *value;
    BASE_TRY(get(object, file, key, required, &value, err));
    if (!value)
        return LORI_OK;
    if (!json_is_number(value))
        return wrong_kind(value, file, key, "a number", err);
    *io = json_number_value(value);
    return LORI_OK;
}

lori_status format_get_bool(const json_t *object, const char *file,
                            const char *key, bool required, bool *io,
                            lori_error *err)
{
    const json_t *value;
    BASE_TRY(get(object, file, key, required, &value, err));
    if (!value)
        return LORI_OK;
    if (!json_is_boolean(value))
        return wrong_kind(value, file, key, "true or false", err);
    *io = json_is_true(value);
    return LORI_OK;
}

lori_status format_get_str(const json_t *object, const char *file,
                           const char *key, bool required, const char **io,
                           lori_error *err)
{
    const json_t *value;
    BASE_TRY(get(object, file, key, required, &value, err));
    if (!value)
        return LORI_OK;
    if (!json_is_string(value))
        return wrong_kind(value, file, key, "a string", err);
    const char *s = json_string_value(value);
    /* *io is a C string: a NUL inside would cut it without notice. */
    if (strlen(s) != json_string_length(value))
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' holds a NUL character (\\u0000)", file, key);
    *io = s;
    return LORI_OK;
}
