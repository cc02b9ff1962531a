/* yaml_keys.c - maps of a YAML file into structs, by a table of keys. Collects
 * every wrong key and value with its place; decides nothing that more than one
 * key decides. Includes base and libc. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "format/format_i.h"

typedef struct reading {
    const char *file;
    const format_yaml_node *node; /* the value being read */
    const format_key *key;
    base_diag *d;
} reading;

static void *field(const format_key *key, void *out)
{
    return (char *)out + key->offset;
}

static int64_t *count_of(const format_key *key, void *out)
{
    return (int64_t *)(void *)((char *)out + key->count);
}

bool format_yaml_is_null(const format_yaml_node *node)
{
    return node->kind == FORMAT_YAML_SCALAR && !node->quoted &&
           (!*node->text || !strcmp(node->text, "~") ||
            !strcasecmp(node->text, "null"));
}

/* "file:line:column: key: <fact>"; false, for `return wrong(...)`. */
static bool wrong(const reading *r, const char *fact)
{
    base_diag_add(r->d, "%s:%d:%d: %s: %s", r->file, r->node->line,
                  r->node->column, r->key->name, fact);
    return false;
}

static bool read_bool(const reading *r, bool *out)
{
    const char *text = r->node->text;
    if (!strcmp(text, "true") || !strcmp(text, "True"))
        return *out = true, true;
    if (!strcmp(text, "false") || !strcmp(text, "False"))
        return *out = false, true;
    return wrong(r, "expected true or false");
}

static bool outside(const reading *r)
{
    char fact[96];
    snprintf(fact, sizeof fact, "'%.20s' is not between %.15g and %.15g",
             r->node->text, r->key->lo, r->key->hi);
    return wrong(r, fact);
}

static bool read_int(const reading *r, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(r->node->text, &end, 10);
    if (end == r->node->text || *end)
        return wrong(r, "expected a whole number");
    if (errno || (double)v < r->key->lo || (double)v > r->key->hi)
        return outside(r);
    *out = v;
    return true;
}

bool format_real(const char *text, double *out)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return false;
    char *end;
    double v = strtod_l(text, &end, c);
    freelocale(c);
    if (end == text || *end || !isfinite(v) || strpbrk(text, "xX"))
        return false;
    *out = v;
    return true;
}

static bool read_real(const reading *r, double *out)
{
    double v;
    if (!format_real(r->node->text, &v))
        return wrong(r, "expected a number");
    if (v < r->key->lo || v > r->key->hi)
        return outside(r);
    *out = v;
    return true;
}

static bool read_choice(const reading *r, int *out)
{
    const char *names[16];
    size_t n = 0;
    base_str fact = {0};
    base_str_printf(&fact, "'%s' is not known", r->node->text);
    for (const format_choice *c = r->key->choices; c->name; c++) {
        if (!strcmp(c->name, r->node->text)) {
            base_str_free(&fact);
            return *out = c->value, true;
        }
        base_str_printf(&fact, "%s%s", n ? ", " : "; known are ", c->name);
        names[n++] = c->name;
    }
    const char *near = base_nearest(r->node->text, names, n);
    if (near) {
        base_str_clear(&fact);
        base_str_printf(&fact, "'%s' is not known; did you mean '%s'?",
                        r->node->text, near);
    }
    wrong(r, fact.s ? fact.s : "not known");
    base_str_free(&fact);
    return false;
}

static bool copy(const reading *r, const char *text, char **out)
{
    *out = base_strdup(text);
    return *out ? true : wrong(r, "out of memory");
}

/* A list of scalars; one scalar counts as a list of one. */
static bool read_list(const reading *r, char ***out, int64_t *count)
{
    const format_yaml_node *node = r->node;
    bool one = node->kind == FORMAT_YAML_SCALAR;
    size_t n = one ? 1 : node->n_children;
    *out = base_alloc(n, sizeof **out);
    if (!*out)
        return wrong(r, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const format_yaml_node *item = one ? node : &node->children[i];
        reading at = *r;
        at.node = item;
        if (item->kind != FORMAT_YAML_SCALAR)
            return wrong(&at, "expected a list of single values");
        if (!copy(&at, item->text, &(*out)[i]))
            return false;
        ++*count;
    }
    return true;
}

static bool read_value(const reading *r, void *out)
{
    const format_yaml_node *node = r->node;
    void *at = field(r->key, out);
    if (r->key->type == FORMAT_KEY_NODE) {
        *(const format_yaml_node **)at = node;
        return true;
    }
    if (r->key->type == FORMAT_KEY_LIST && node->kind != FORMAT_YAML_MAP)
        return read_list(r, at, count_of(r->key, out));
    if (node->kind != FORMAT_YAML_SCALAR)
        return wrong(r, r->key->type == FORMAT_KEY_LIST
                            ? "expected a list, not a map"
                        : node->kind == FORMAT_YAML_LIST
                            ? "expected one value, not a list"
                            : "expected one value, not a map");
    switch (r->key->type) {
    case FORMAT_KEY_STRING:
        return copy(r, node->text, at);
    case FORMAT_KEY_BOOL:
        return read_bool(r, at);
    case FORMAT_KEY_INT:
        return read_int(r, at);
    case FORMAT_KEY_REAL:
        return read_real(r, at);
    case FORMAT_KEY_CHOICE:
        return read_choice(r, at);
    case FORMAT_KEY_LIST:
    case FORMAT_KEY_NODE:
        break;
    }
    return false;
}

static void unknown(const char *file, const format_yaml_node *node,
                    const format_key *keys, size_t n, base_diag *d)
{
    const char *names[FORMAT_KEYS_MAX];
    base_str known = {0};
    for (size_t i = 0; i < n && i < FORMAT_KEYS_MAX; i++) {
        names[i] = keys[i].name;
        base_str_printf(&known, "%s%s", i ? ", " : "", keys[i].name);
    }
    const char *near = base_nearest(node->key, names, n);
    if (near)
        base_diag_add(d, "%s:%d:%d: unknown key '%s'; did you mean '%s'?", file,
                      node->key_line, node->key_column, node->key, near);
    else
        base_diag_add(d, "%s:%d:%d: unknown key '%s'; known are %s", file,
                      node->key_line, node->key_column, node->key,
                      known.s ? known.s : "");
    base_str_free(&known);
}

void format_keys_read(const format_yaml_node *map, const char *file,
                      const format_key *keys, size_t n, void *out, base_diag *d)
{
    bool seen[FORMAT_KEYS_MAX] = {false};
    if (map->kind != FORMAT_YAML_MAP) {
        base_diag_add(d, "%s:%d:%d: expected a map of keys, like %s: ...", file,
                      map->line, map->column, keys[0].name);
        return;
    }
    for (size_t i = 0; i < map->n_children; i++) {
        const format_yaml_node *node = &map->children[i];
        size_t k = 0;
        while (k < n && strcmp(keys[k].name, node->key) != 0)
            k++;
        if (k == n) {
            unknown(file, node, keys, n, d);
            continue;
        }
        if (format_yaml_is_null(node))
            continue;
        seen[k] = true;
        reading r = {file, node, &keys[k], d};
        read_value(&r, out);
    }
    for (size_t k = 0; k < n; k++)
        if (keys[k].required && !seen[k])
            base_diag_add(d, "%s:%d: %s is missing", file, map->line,
                          keys[k].name);
}

void format_keys_free(const format_key *keys, size_t n, void *out)
{
    for (size_t k = 0; k < n; k++) {
        if (keys[k].type == FORMAT_KEY_STRING) {
            char **s = field(&keys[k], out);
            free(*s);
            *s = NULL;
        } else if (keys[k].type == FORMAT_KEY_LIST) {
            char ***list = field(&keys[k], out);
            int64_t *count = count_of(&keys[k], out);
            for (int64_t i = 0; i < *count; i++)
                free((*list)[i]);
            free(*list);
            *list = NULL;
            *count = 0;
        }
    }
}
