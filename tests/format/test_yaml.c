/* test_yaml.c - the strict part of YAML that recipes are written in. */
#include "format/format.h"
#include "format/temp.h"

static format_yaml_node *parse(const char *text)
{
    format_yaml_node *root;
    lori_error err = {0};
    cr_assert_eq(format_yaml_parse(text, strlen(text), "r.yaml", &root, &err),
                 LORI_OK, "%s", err.message);
    return root;
}

static void refused(const char *text, const char *message)
{
    format_yaml_node *root;
    lori_error err = {0};
    cr_expect_eq(format_yaml_parse(text, strlen(text), "r.yaml", &root, &err),
                 LORI_FORMAT, "%s", text);
    cr_expect_null(root);
    cr_expect_eq(strncmp(err.message, message, strlen(message)), 0,
                 "'%s' gives: %s", text, err.message);
}

Test(yaml, tree)
{
    format_yaml_node *r = parse("model: m # comment\n"
                                "tasks:\n"
                                "  - name: a\n"
                                "    lr: 1e-4\n"
                                "  - {name: 'b', lr: \"2\"}\n"
                                "empty:\n"
                                "long: |\n"
                                "  x\n"
                                "  y\n");
    cr_assert(r->kind == FORMAT_YAML_MAP && r->n_children == 4);
    cr_expect(r->key == NULL && r->line == 1 && r->column == 1);
    const format_yaml_node *c = r->children;
    cr_expect_str_eq(c[0].key, "model");
    cr_expect_str_eq(c[0].text, "m");
    cr_expect(!c[0].quoted && c[0].line == 1 && c[0].column == 8);
    cr_assert(c[1].kind == FORMAT_YAML_LIST && c[1].n_children == 2);
    cr_expect(c[1].key_line == 2 && c[1].key_column == 1);
    const format_yaml_node *b = &c[1].children[1];
    cr_assert(b->kind == FORMAT_YAML_MAP && b->n_children == 2);
    cr_expect(b->key == NULL);
    cr_expect(b->children[0].quoted && b->children[1].quoted);
    cr_expect(b->children[1].key_line == 5 && b->children[1].key_column == 17);
    cr_expect_str_eq(b->children[1].text, "2");
    cr_expect(c[2].kind == FORMAT_YAML_SCALAR && !c[2].quoted);
    cr_expect_str_eq(c[2].text, "");
    cr_expect_str_eq(c[3].text, "x\ny\n");
    cr_expect(c[3].quoted);
    format_yaml_free(r);
    format_yaml_free(NULL);
}

Test(yaml, what_is_left_out_is_refused)
{
    refused("a: 1\nb: &x 2\n", "r.yaml:2:4: anchors");
    refused("a: 1\nb: *x\n", "r.yaml:2:4: aliases");
    refused("a: !!int 1\n", "r.yaml:1:4: tags");
    refused("a: ! 1\n", "r.yaml:1:4: tags");
    refused("&x [1]\n", "r.yaml:1:1: anchors");
    refused("!m {a: 1}\n", "r.yaml:1:1: tags");
    refused("&k a: 1\n", "r.yaml:1:1: anchors");
    refused("a: 1\n---\nb: 2\n", "r.yaml:2:1: a second document");
    refused("", "r.yaml:1:1: the file holds no values");
    refused("[a]: 1\n", "r.yaml:1:1: a key");
    refused("a: \"\\0\"\n", "r.yaml:1:4: a NUL");
}

Test(yaml, errors)
{
    refused("a: 1\nb: 2\na: 3\n", "r.yaml:3:1: key 'a' was already given on "
                                  "line 1");
    refused("x:\n  b: 1\n  c: 1\n  'b': 2\n", "r.yaml:4:3: key 'b'");
    refused("a: [1\nb: 2", "r.yaml:2:");
    refused("a:\n\t- b\n", "r.yaml:2:1:");
    refused("\xff", "r.yaml: byte 1:");
    refused("\xff\xfe"
            "a",
            "r.yaml: byte 1:"); /* no UTF-16 */
    char deep[200];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    refused(deep, "r.yaml:1:65: nested too deeply");
}

Test(yaml, limits)
{
    size_t n = (4 << 20) + 1;
    char *text = malloc(n);
    memset(text, ' ', n);
    format_yaml_node *root;
    lori_error err;
    cr_expect_eq(format_yaml_parse(text, n, "r.yaml", &root, &err),
                 LORI_UNSUPPORTED);
    cr_expect_null(root);
    for (size_t i = 0; i < 300000; i++)
        text[i] = i == 0 ? '[' : i % 2 ? '1' : ',';
    cr_expect_eq(format_yaml_parse(text, 300000, "r.yaml", &root, &err),
                 LORI_FORMAT);
    cr_expect_not_null(strstr(err.message, "too many"), "%s", err.message);
    free(text);
}

Test(yaml, load)
{
    temp t;
    temp_open(&t);
    format_yaml_node *root;
    lori_error err;
    cr_assert_eq(
        format_yaml_load(temp_file(&t, "r.yaml", "a: 1", 4), &root, &err),
        LORI_OK);
    cr_expect_str_eq(root->children[0].text, "1");
    format_yaml_free(root);
    cr_expect_eq(format_yaml_load(temp_path(&t, "no"), &root, &err),
                 LORI_NOT_FOUND);
    temp_close(&t);
}
