/* test_hub.c - names, lists of files, and the cache as it stands on the disk;
 * the downloads themselves are tested by tests/cli/run_pull.sh. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>

#include "hub/hub_i.h"

/* The target itself: it is no room's source, so it comes in here. */
#include "fuzz/fuzz_hub.c"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define SHA256                                                                 \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

Test(hub, names)
{
    static const char *const good[] = {"org/name", "gpt2",          "a-b/c.d_e",
                                       "o/n@main", "o/n@refs/pr/1", "O/N@v1.0",
                                       "_o/n_"};
    static const char *const bad[] = {
        "",       "/x",     "./x",        "../x",  "a/b/c", "a//b",
        "a/",     "-a/b",   "a/b.",       "a/--b", "a/b c", "a/b@",
        "a/b@/x", "a/b@..", "a/b@x/../y", "~/a",   "a\\b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(hub_name_is(good[i]), "'%s'", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect(!hub_name_is(bad[i]), "'%s'", bad[i]);
    hub_name name;
    cr_assert_eq(hub_name_parse("o/n@refs/pr/1", NULL, "/c", &name, NULL), 0);
    cr_expect_str_eq(name.folder, "/c/models--o--n");
    cr_expect_str_eq(name.repo, "o/n");
    cr_expect_str_eq(name.revision, "refs/pr/1");
    hub_name_free(&name);
    cr_expect_eq(hub_name_parse("o/n@a", "b", "/c", &name, NULL), LORI_INVALID);
}

#define SIBLINGS(files) "{\"sha\":\"" COMMIT "\",\"siblings\":[" files "]}"
#define SMALL(name)                                                            \
    "{\"rfilename\":\"" name "\",\"size\":3,\"blobId\":\"" COMMIT "\"}"
#define LARGE(name)                                                            \
    "{\"rfilename\":\"" name "\",\"size\":5,\"lfs\":{\"size\":5,"              \
    "\"sha256\":\"" SHA256 "\"}}"

static lori_status parse(const char *text, hub_list *list, lori_error *err)
{
    return hub_list_parse(text, strlen(text), "list", list, err);
}

Test(hub, lists_that_are_refused)
{
    static const struct {
        const char *text, *fact;
    } cases[] = {
        {"[]", "not an object"},
        {"{\"sha\":\"x\",\"siblings\":[]}", "not a commit"},
        {SIBLINGS(""), "1 to 100000 files"},
        {SIBLINGS("7"), "not an object"},
        {SIBLINGS(SMALL("a/../b")), "could leave"},
        {SIBLINGS(SMALL("/a")), "could leave"},
        {SIBLINGS(SMALL("a\\nb")), "could leave"},
        {SIBLINGS(SMALL("a") "," SMALL("a")), "twice"},
        {SIBLINGS("{\"rfilename\":\"a\",\"size\":-1,\"blobId\":\"" COMMIT
                  "\"}"),
         "size"},
        {SIBLINGS("{\"rfilename\":\"a\",\"size\":1}"), "blobId"},
        {SIBLINGS("{\"rfilename\":\"a\",\"size\":1,\"lfs\":{\"size\":1,"
                  "\"sha256\":\"" COMMIT "\"}}"),
         "hash of 64 digits"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hub_list list;
        lori_error err = {0};
        cr_expect_neq(parse(cases[i].text, &list, &err), LORI_OK, "%s",
                      cases[i].text);
        cr_expect(strstr(err.message, cases[i].fact), "%s: %s", cases[i].text,
                  err.message);
        cr_expect_null(list.files);
    }
}

static void expect_files(const char *json, const hub_pull_options *o,
                         const char *names)
{
    hub_list list;
    lori_error err = {0};
    base_str got = {0};
    cr_assert_eq(parse(json, &list, &err), LORI_OK, "%s", err.message);
    hub_list_select(&list, o);
    for (size_t i = 0; i < list.n; i++)
        base_str_printf(&got, "%s ", list.files[i].path);
    cr_expect_str_eq(got.s ? got.s : "", names);
    base_str_free(&got);
    hub_list_free(&list);
}

Test(hub, only_what_is_needed)
{
    static const char json[] = SIBLINGS(
        SMALL("README.md") "," SMALL("config.json") "," SMALL("merges.txt") "," SMALL("original/params.json") "," SMALL("additional_chat_templates/rag.jinja") "," LARGE(
            "pytorch_model.bin") "," LARGE("model.gguf") "," LARGE("consolidate"
                                                                   "d."
                                                                   "safetensor"
                                                                   "s") "," LARGE("tokenizer.model") "," LARGE("model-00001-of-00002.safetensors"));
    expect_files(json, &(hub_pull_options){0},
                 "additional_chat_templates/rag.jinja config.json merges.txt "
                 "model-00001-of-00002.safetensors tokenizer.model ");
    const char *include[] = {"*.gguf", "*.json"}, *exclude[] = {"config*"};
    expect_files(json,
                 &(hub_pull_options){.include = include,
                                     .n_include = 2,
                                     .exclude = exclude,
                                     .n_exclude = 1},
                 "model.gguf original/params.json ");
    /* Where they are the only weights, they are wanted. */
    expect_files(SIBLINGS(LARGE("consolidated.safetensors")),
                 &(hub_pull_options){0}, "consolidated.safetensors ");
}

Test(hub, url_escape)
{
    base_str s = {0};
    hub_url_escape("a b/\xc3\xa9?#%", "/", &s);
    cr_expect_str_eq(s.s, "a%20b/%C3%A9%3F%23%25");
    base_str_free(&s);
}

/* A name that needs no cache is handed back, whatever it is. */
Test(hub, paths_stay_paths)
{
    static const char *const paths[] = {"/tmp", "/no/such", "./x", "a/b/c",
                                        "gpt2"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char *folder = NULL;
        cr_assert_eq(
            hub_find("/no/cache", paths[i], HUB_WEIGHTS, &folder, NULL),
            LORI_OK);
        cr_expect_str_eq(folder, paths[i]);
        free(folder);
    }
    char *folder = NULL;
    lori_error err = {0};
    cr_expect_eq(hub_find("/no/cache", "o/n", HUB_FACTS, &folder, &err),
                 LORI_NOT_FOUND);
    cr_expect(strstr(err.message, "`lori pull o/n` downloads it"), "%s",
              err.message);
    cr_expect_null(folder);
    /* Without a cache the caller's own words must do. */
    cr_expect_eq(hub_find(NULL, "o/n", HUB_FACTS, &folder, &err), LORI_OK);
    free(folder);
}

Test(hub, replay)
{
    DIR *dir = opendir("tests/fuzz/corpus/hub");
    if (!dir)
        cr_skip_test("no corpus: run from the repository's root");
    int n_files = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = base_path_join("tests/fuzz/corpus/hub", e->d_name);
        char *bytes;
        size_t n;
        cr_assert_eq(base_file_read(path, 1 << 24, &bytes, &n, NULL), 0);
        for (size_t cut = 0; cut <= n; cut++) {
            uint8_t *exact = malloc(cut ? cut : 1);
            memcpy(exact, bytes, cut);
            fuzz_hub(exact, cut);
            free(exact);
        }
        free(bytes);
        free(path);
        n_files++;
    }
    closedir(dir);
    cr_expect_geq(n_files, 7);
}
