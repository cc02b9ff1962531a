/* yaml.c - a small, strict part of YAML 1.1: scalars, lists and maps of one
 * document, as a tree of nodes that know their place. Refuses anchors, aliases,
 * tags, a second document, duplicate or non-scalar keys, and more than 4 MiB,
 * 100,000 nodes or 64 levels. Includes base and libyaml. */
#include <stdlib.h>
#include <yaml.h>

#include "format/format_i.h"

#define TEXT_MAX  ((size_t)4 << 20)
#define NODES_MAX 100000
#define DEPTH_MAX 64

typedef struct reader {
    yaml_parser_t yaml;
    const char *name;
    size_t n_nodes;
    lori_error *err;
} reader;

static lori_status fail_at(const reader *r, yaml_mark_t at, const char *what)
{
    return base_fail(r->err, LORI_FORMAT, "%s:%zu:%zu: %s", r->name,
                     at.line + 1, at.column + 1, what);
}

static lori_status syntax_error(const reader *r)
{
    const yaml_parser_t *y = &r->yaml;
    const char *problem = y->problem ? y->problem : "not valid YAML";
    if (y->error == YAML_MEMORY_ERROR)
        return base_fail(r->err, LORI_NO_MEMORY, "%s: out of memory", r->name);
    if (y->error == YAML_READER_ERROR)
        return base_fail(r->err, LORI_FORMAT, "%s: byte %zu: %s", r->name,
                         y->problem_offset + 1, problem);
    if (!y->context)
        return fail_at(r, y->problem_mark, problem);
    return base_fail(r->err, LORI_FORMAT, "%s:%zu:%zu: %s (%s, line %zu)",
                     r->name, y->problem_mark.line + 1,
                     y->problem_mark.column + 1, problem, y->context,
                     y->context_mark.line + 1);
}

/* On success the caller deletes *event. */
static lori_status next(reader *r, yaml_event_t *event)
{
    if (!yaml_parser_parse(&r->yaml, event))
        return syntax_error(r);
    return LORI_OK;
}

/* A copy of the scalar's text. */
static lori_status copy_text(const reader *r, const yaml_event_t *event,
                             char **out)
{
    const char *s = (const char *)event->data.scalar.value;
    size_t n = event->data.scalar.length;
    if (memchr(s, '\0', n))
        return fail_at(r, event->start_mark,
                       "a NUL character is not allowed here");
    *out = base_strndup(s, n);
    return *out ? LORI_OK : base_no_memory(r->err, n);
}

/* What this subset leaves out, said where it stands. */
static lori_status check_features(const reader *r, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        return fail_at(r, event->start_mark,
                       "aliases (*name) are not supported; write the value "
                       "out");
    default:
        return fail_at(r, event->start_mark, "expected a value");
    }
    if (anchor)
        return fail_at(r, event->start_mark,
                       "anchors (&name) are not supported; write the value "
                       "out");
    if (tag)
        return fail_at(r, event->start_mark,
                       "tags (!name) are not supported; quote a value to make "
                       "it a string");
    return LORI_OK;
}

static lori_status add_child(reader *r, format_yaml_node *node, size_t *room,
                             yaml_mark_t at)
{
    if (++r->n_nodes > NODES_MAX)
        return fail_at(r, at, "over 100000 values, too many here");
    if (node->n_children == *room) {
        size_t most = *room ? *room * 2 : 8;
        format_yaml_node *grown =
            base_resize(node->children, most, sizeof *grown);
        if (!grown)
            return base_no_memory(r->err, most * sizeof *grown);
        node->children = grown;
        *room = most;
    }
    node->children[node->n_children++] = (format_yaml_node){0};
    return LORI_OK;
}

static lori_status read_value(reader *r, const yaml_event_t *event, int depth,
                              format_yaml_node *node);

static lori_status read_list(reader *r, int depth, format_yaml_node *node)
{
    size_t room = 0;
    lori_status status = LORI_OK;
    bool end = false;
    while (!status && !end) {
        yaml_event_t event;
        BASE_TRY(next(r, &event));
        end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!end)
            status = add_child(r, node, &room, event.start_mark);
        if (!end && !status)
            status = read_value(r, &event, depth + 1,
                                &node->children[node->n_children - 1]);
        yaml_event_delete(&event);
    }
    return status;
}

static int by_key(const void *pa, const void *pb)
{
    const format_yaml_node *const *a = pa, *const *b = pb;
    int order = strcmp((*a)->key, (*b)->key);
    if (order)
        return order;
    /* Children of one map lie in file order. */
    return (*a > *b) - (*a < *b);
}

static lori_status check_keys(const reader *r, const format_yaml_node *map)
{
    size_t n = map->n_children;
    const format_yaml_node **sorted = base_alloc(n, sizeof *sorted);
    if (!sorted)
        return base_no_memory(r->err, n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &map->children[i];
    qsort(sorted, n, sizeof *sorted, by_key);
    const format_yaml_node *first = NULL, *again = NULL;
    for (size_t i = 1; i < n; i++) {
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) != 0)
            continue;
        if (!again || sorted[i] < again) {
            first = sorted[i - 1];
            again = sorted[i];
        }
    }
    free(sorted);
    if (!again)
        return LORI_OK;
    return base_fail(r->err, LORI_FORMAT,
                     "%s:%d:%d: key '%s' was already given on line %d", r->name,
                     again->key_line, again->key_column, again->key,
                     first->key_line);
}

static lori_status read_key(const reader *r, const yaml_event_t *event,
                            format_yaml_node *node)
{
    BASE_TRY(check_features(r, event));
    if (event->type != YAML_SCALAR_EVENT)
        return fail_at(r, event->start_mark,
                       "a key must be a plain word, not a list or a map");
    node->key_line = (int)event->start_mark.line + 1;
    node->key_column = (int)event->start_mark.column + 1;
    return copy_text(r, event, &node->key);
}

static lori_status read_map(reader *r, int depth, format_yaml_node *node)
{
    size_t room = 0;
    lori_status status = LORI_OK;
    for (bool end = false; !status && !end;) {
        yaml_event_t event;
        BASE_TRY(next(r, &event));
        end = event.type == YAML_MAPPING_END_EVENT;
        format_yaml_node *child = NULL;
        if (!end)
            status = add_child(r, node, &room, event.start_mark);
        if (!end && !status) {
            child = &node->children[node->n_children - 1];
            status = read_key(r, &event, child);
        }
        yaml_event_delete(&event);
        if (end || status)
            continue;
        BASE_TRY(next(r, &event));
        status = read_value(r, &event, depth + 1, child);
        yaml_event_delete(&event);
    }
    return status ? status : check_keys(r, node);
}

/* Fills `node`, whose key is set already, from `event` and those after it.
 * What is half-built on failure still hangs in the tree and is freed with it.
 */
static lori_status read_value(reader *r, const yaml_event_t *event, int depth,
                              format_yaml_node *node)
{
    BASE_TRY(check_features(r, event));
    node->line = (int)event->start_mark.line + 1;
    node->column = (int)event->start_mark.column + 1;
    if (depth >= DEPTH_MAX)
        return fail_at(r, event->start_mark, "nested too deeply");
    if (event->type == YAML_SEQUENCE_START_EVENT) {
        node->kind = FORMAT_YAML_LIST;
        return read_list(r, depth, node);
    }
    if (event->type == YAML_MAPPING_START_EVENT) {
        node->kind = FORMAT_YAML_MAP;
        return read_map(r, depth, node);
    }
    node->kind = FORMAT_YAML_SCALAR;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return copy_text(r, event, &node->text);
}

/* Reads and drops an event that must be of this type. */
static lori_status expect(reader *r, yaml_event_type_t type, const char *what)
{
    yaml_event_t event;
    BASE_TRY(next(r, &event));
    lori_status status = LORI_OK;
    if (event.type != type)
        status = fail_at(r, event.start_mark, what);
    yaml_event_delete(&event);
    return status;
}

static lori_status read_document(reader *r, format_yaml_node *root)
{
    BASE_TRY(expect(r, YAML_STREAM_START_EVENT, "not a YAML text"));
    BASE_TRY(expect(r, YAML_DOCUMENT_START_EVENT, "the file holds no values"));
    yaml_event_t event;
    BASE_TRY(next(r, &event));
    lori_status status = read_value(r, &event, 0, root);
    yaml_event_delete(&event);
    if (status)
        return status;
    BASE_TRY(expect(r, YAML_DOCUMENT_END_EVENT, "expected the document's end"));
    return expect(r, YAML_STREAM_END_EVENT,
                  "a second document begins here; only one is supported");
}

lori_status format_yaml_parse(const char *bytes, size_t n, const char *name,
                              format_yaml_node **out, lori_error *err)
{
    *out = NULL;
    if (n > TEXT_MAX)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: over 4 MiB of YAML, too large here", name);
    reader r = {.name = name, .err = err};
    format_yaml_node *root = base_alloc(1, sizeof *root);
    if (!root)
        return base_no_memory(err, sizeof *root);
    if (!yaml_parser_initialize(&r.yaml)) {
        free(root);
        return base_no_memory(err, sizeof r.yaml);
    }
    /* Otherwise a byte order mark could switch to UTF-16. */
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)bytes, n);
    lori_status status = read_document(&r, root);
    yaml_parser_delete(&r.yaml);
    if (status) {
        format_yaml_free(root);
        return status;
    }
    *out = root;
    return LORI_OK;
}

lori_status format_yaml_load(const char *path, format_yaml_node **out,
                             lori_error *err)
{
    *out = NULL;
    char *bytes;
    size_t n;
    BASE_TRY(base_file_read(path, TEXT_MAX, &bytes, &n, err));
    lori_status status = format_yaml_parse(bytes, n, path, out, err);
    free(bytes);
    return status;
}

/* Recursion is bounded by DEPTH_MAX. */
static void free_inside(format_yaml_node *node)
{
    for (size_t i = 0; i < node->n_children; i++)
        free_inside(&node->children[i]);
    free(node->children);
    free(node->key);
    free(node->text);
}

void format_yaml_free(format_yaml_node *root)
{
    if (!root)
        return;
    free_inside(root);
    free(root);
}
