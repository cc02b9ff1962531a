/* test_text_replay.c - the room's fuzz targets on their corpora: seeds and
 * inputs that once broke something, whole and cut short. `make fuzz` searches
 * for new ones. */
#include <dirent.h>

#include "base/base.h"
#include "text/text_test.h"

/* The targets themselves: they are no room's source, so they come in here. */
#include "fuzz/fuzz_jinja.c"
#include "fuzz/fuzz_tokenizer.c"

typedef int target(const uint8_t *data, size_t n);

/* In memory of exactly its size: a byte too far is noticed by ASan. */
static void replay(target *run, const char *path)
{
    char *bytes;
    size_t n;
    lori_error err = {0};
    cr_assert_eq(base_file_read(path, 1 << 24, &bytes, &n, &err), LORI_OK, "%s",
                 err.message);
    uint8_t *exact = malloc(n ? n : 1);
    cr_assert_not_null(exact);
    memcpy(exact, bytes, n);
    run(exact, n);
    for (size_t cut = 0; cut < n; cut += 1 + n / 64)
        run(exact, cut);
    free(exact);
    free(bytes);
}

/* The number of files. `make` runs in the repository's root. */
static int replay_folder(target *run, const char *folder)
{
    int n_files = 0;
    DIR *dir = opendir(folder);
    cr_assert_not_null(dir, "%s: run from the repository's root", folder);
    for (const struct dirent *e; (e = readdir(dir));) {
        char *path;
        if (e->d_name[0] == '.')
            continue;
        cr_assert_not_null(path = base_path_join(folder, e->d_name));
        replay(run, path);
        free(path);
        n_files++;
    }
    closedir(dir);
    return n_files;
}

Test(text_replay, tokenizer)
{
    cr_expect_geq(replay_folder(fuzz_tokenizer, "tests/fuzz/corpus/tokenizer"),
                  3);
}

Test(text_replay, jinja)
{
    cr_expect_geq(replay_folder(fuzz_jinja, "tests/fuzz/corpus/jinja"), 3);
    cr_expect_geq(replay_folder(fuzz_jinja, "tests/text/templates"), 60);
}
