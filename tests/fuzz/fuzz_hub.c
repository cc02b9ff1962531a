/* fuzz_hub.c - the hub's list of files, and names: whatever is accepted must
 * stay inside the cache and inside the bounds. */
#include <stdlib.h>

#include "fuzz/fuzz.h"
#include "hub/hub_i.h"

static void check_list(const uint8_t *data, size_t n)
{
    hub_list list;
    lori_error err = {0};
    const char *const patterns[] = {"*.json", "[a-m]*", "*\\"};
    hub_pull_options some = {.include = patterns,
                             .n_include = 2,
                             .exclude = patterns + 2,
                             .n_exclude = 1};
    for (int round = 0; round < 2; round++) {
        if (hub_list_parse((const char *)data, n, "fuzz", &list, &err)) {
            FUZZ_CHECK(err.message[0] && !list.files && list.n == 0);
            return;
        }
        size_t all = list.n;
        for (size_t i = 0; i < all; i++) {
            const hub_file *f = &list.files[i];
            FUZZ_CHECK(hub_path_is_safe(f->path) && f->path[0] != '/');
            FUZZ_CHECK(hub_is_hex(f->blob, f->lfs ? 64 : 40));
            FUZZ_CHECK(f->size >= 0 && f->size <= HUB_SIZE_MAX);
        }
        hub_list_select(&list, round ? &some : &(hub_pull_options){0});
        FUZZ_CHECK(list.n <= all);
        hub_list_free(&list);
    }
}

int fuzz_hub(const uint8_t *data, size_t n)
{
    hub_name name;
    char *text = base_strndup((const char *)data, n);
    check_list(data, n);
    if (!hub_name_parse(text, NULL, "/cache", &name, NULL)) {
        FUZZ_CHECK(strncmp(name.folder, "/cache/models--", 15) == 0);
        FUZZ_CHECK(!strchr(name.folder + 15, '/'));
        FUZZ_CHECK(hub_path_is_safe(name.revision));
        hub_name_free(&name);
    }
    free(text);
    return 0;
}

FUZZ_TARGET(fuzz_hub)
