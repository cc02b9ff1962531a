/* fuzz_yaml.c - YAML text: a tree that comes out is whole and within bounds. */
#include "fuzz/fuzz.h"

#include "format/format.h"

static size_t walk(const format_yaml_node *node, int depth)
{
    size_t n = 1;
    FUZZ_CHECK(depth < 64 && node->line > 0 && node->column > 0);
    FUZZ_CHECK((node->kind == FORMAT_YAML_SCALAR) == (node->text != NULL));
    for (size_t i = 0; i < node->n_children; i++) {
        const format_yaml_node *child = &node->children[i];
        FUZZ_CHECK((node->kind == FORMAT_YAML_MAP) == (child->key != NULL));
        n += walk(child, depth + 1);
    }
    return n;
}

int fuzz_yaml(const uint8_t *data, size_t n)
{
    format_yaml_node *root = NULL;
    lori_error err = {0};
    if (format_yaml_parse((const char *)data, n, "fuzz", &root, &err) !=
        LORI_OK) {
        FUZZ_CHECK(!root && err.message[0]);
        return 0;
    }
    FUZZ_CHECK(walk(root, 0) <= 100001);
    format_yaml_free(root);
    return 0;
}

FUZZ_TARGET(fuzz_yaml)
