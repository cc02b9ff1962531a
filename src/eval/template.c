/* template.c - "{{field}}" in prompts, targets and choices. Names only: no
 * expressions, so a task file says all there is to say. Includes eval_i.h. */
#include <stdlib.h>

#include "eval/eval_i.h"

/* A piece of a template: text, or the name inside braces. */
typedef struct span {
    const char *s;
    size_t n;
    bool field;
} span;

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

/* False at the end, and on an error (*fact set). */
static bool next_span(const char **p, span *out, const char **fact)
{
    const char *s = *p, *open = strstr(s, "{{");
    if (!*s)
        return false;
    if (open != s) {
        *out = (span){.s = s, .n = open ? (size_t)(open - s) : strlen(s)};
        *p = s + out->n;
        return true;
    }
    const char *end = strstr(s + 2, "}}");
    if (!end) {
        *fact = "a '{{' has no '}}'";
        return false;
    }
    const char *from = s + 2, *to = end;
    while (from < to && *from == ' ')
        from++;
    while (to > from && to[-1] == ' ')
        to--;
    for (const char *c = from; c < to; c++)
        if (!name_char(*c))
            *fact = "only the name of a field can stand in {{ }}, no "
                    "expression";
    if (from == to)
        *fact = "{{ }} names no field";
    if (*fact)
        return false;
    *out = (span){.s = from, .n = (size_t)(to - from), .field = true};
    *p = end + 2;
    return true;
}

const char *template_check(const char *text)
{
    const char *fact = NULL;
    span piece;
    while (next_span(&text, &piece, &fact))
        ;
    return fact;
}

char *template_field(const char *text)
{
    const char *fact = NULL;
    span piece;
    if (!next_span(&text, &piece, &fact) || !piece.field || *text)
        return NULL;
    return base_strndup(piece.s, piece.n);
}

const json_t *template_value(const json_t *row, const char *path)
{
    const json_t *at = json_object_get(row, path);
    while (!at && row) { /* "a.b": the field b of the object a */
        const char *dot = strchr(path, '.');
        char *name = dot ? base_strndup(path, (size_t)(dot - path)) : NULL;
        row = name ? json_object_get(row, name) : NULL;
        free(name);
        path = dot ? dot + 1 : path;
        at = row ? json_object_get(row, path) : NULL;
    }
    return at;
}

static void list_fields(const json_t *row, base_str *out)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        (void)value;
        base_str_printf(out, "%s%s", out->len ? ", " : "", key);
    }
}

static bool add_value(const json_t *value, base_str *out)
{
    if (json_is_string(value))
        base_str_puts(out, json_string_value(value));
    else if (json_is_number(value) || json_is_boolean(value))
        format_json_text(value, 0, out);
    else
        return false;
    return true;
}

static bool fill_field(const span *piece, const json_t *row, const char *place,
                       base_str *out, base_diag *d)
{
    char *name = base_strndup(piece->s, piece->n);
    if (!name) {
        out->failed = true;
        return false;
    }
    const json_t *value = template_value(row, name);
    size_t n = json_is_string(value) ? json_string_length(value) : 0;
    bool whole = n == 0 || strlen(json_string_value(value)) == n;
    bool fine = value && whole && add_value(value, out);
    if (!whole)
        base_diag_add(d, "%s: field '%s' holds a NUL character", place, name);
    else if (!value) {
        base_str has = {0};
        list_fields(row, &has);
        base_diag_add(d, "%s: field '%s' is missing (row has: %s)", place, name,
                      has.s ? has.s : "");
        base_str_free(&has);
    } else if (!fine)
        base_diag_add(d,
                      "%s: field '%s' is %s, a text or a number is needed "
                      "here",
                      place, name, format_json_kind(value));
    free(name);
    return fine;
}

bool template_fill(const char *text, const json_t *row, const char *place,
                   base_str *out, base_diag *d)
{
    const char *fact = NULL;
    span piece;
    bool fine = true;
    while (next_span(&text, &piece, &fact)) {
        if (piece.field)
            fine &= fill_field(&piece, row, place, out, d);
        else
            base_str_add(out, piece.s, piece.n);
    }
    return fine && !out->failed;
}
