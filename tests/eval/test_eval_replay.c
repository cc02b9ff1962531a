/* test_eval_replay.c - this room's fuzz target on its corpus, cut at every
 * byte. `make fuzz` searches for new inputs. */
#include <dirent.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "fuzz/fuzz_expression.c"

Test(eval_replay, expression)
{
    static const char folder[] = "tests/fuzz/corpus/expression";
    DIR *dir = opendir(folder);
    cr_assert(dir, "%s is not there: run from the repository's root", folder);
    int n_files = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = base_path_join(folder, e->d_name), *bytes;
        size_t n;
        lori_error err;
        cr_assert_eq(base_file_read(path, 1 << 20, &bytes, &n, &err), LORI_OK,
                     "%s", err.message);
        for (size_t cut = 0; cut <= n; cut++) {
            uint8_t *exact = malloc(cut ? cut : 1); /* for ASan's eyes */
            memcpy(exact, bytes, cut);
            fuzz_expression(exact, cut);
            free(exact);
        }
        free(bytes);
        free(path);
        n_files++;
    }
    closedir(dir);
    cr_expect_geq(n_files, 3, "%s has %d files", folder, n_files);
}
