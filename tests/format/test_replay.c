/* test_replay.c - the fuzz targets of this room on tests/fuzz/corpus/: seeds
 * and inputs that once broke something. `make fuzz` searches for new ones. */
#include <dirent.h>

#include "base/base.h"
#include "format/temp.h"
#include "fuzz/fuzz.h"

/* The targets themselves: they are no room's sources, so they come in here. */
#include "fuzz/fuzz_gguf.c"
#include "fuzz/fuzz_json.c"
#include "fuzz/fuzz_safetensors.c"
#include "fuzz/fuzz_scan.c"
#include "fuzz/fuzz_spm.c"
#include "fuzz/fuzz_yaml.c"

static void replay(const char *name, int (*target)(const uint8_t *, size_t))
{
    /* `make` runs in the repository's root. */
    char folder[256];
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name);
    DIR *dir = opendir(folder);
    if (!dir)
        cr_skip_test("%s is not there: run from the repository's root", folder);
    int n_files = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = base_path_join(folder, e->d_name), *bytes;
        size_t n;
        lori_error err;
        cr_assert_eq(base_file_read(path, 1 << 24, &bytes, &n, &err), LORI_OK,
                     "%s", err.message);
        /* In memory of exactly its size: a byte too far is noticed by ASan. */
        uint8_t *exact = malloc(n ? n : 1);
        memcpy(exact, bytes, n);
        target(exact, n);
        /* And cut short at many places. */
        for (size_t cut = 0; cut < n; cut += 1 + n / 64)
            target(exact, cut);
        free(exact);
        free(bytes);
        free(path);
        n_files++;
    }
    closedir(dir);
    cr_expect_geq(n_files, 3, "%s has %d files", folder, n_files);
}

Test(replay, json)
{
    replay("json", fuzz_json);
}

Test(replay, yaml)
{
    replay("yaml", fuzz_yaml);
}

Test(replay, safetensors)
{
    replay("safetensors", fuzz_safetensors);
}

Test(replay, gguf)
{
    replay("gguf", fuzz_gguf);
}

Test(replay, scan)
{
    replay("scan", fuzz_scan);
}

Test(replay, spm)
{
    replay("spm", fuzz_spm);
}
