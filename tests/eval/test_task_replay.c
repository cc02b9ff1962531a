/* test_task_replay.c - the fuzz target of task files on tests/fuzz/corpus/task/.
 */
#include <dirent.h>

#include "eval_test.h"
#include "fuzz/fuzz_task.c"

Test(eval_replay, task)
{
    /* `make` runs in the repository's root. */
    const char *folder = "tests/fuzz/corpus/task";
    DIR *dir = opendir(folder);
    if (!dir)
        cr_skip_test("%s is not there: run from the repository's root", folder);
    int n_files = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = base_path_join(folder, e->d_name), *bytes = NULL;
        size_t n = 0;
        ok(base_file_read(path, 1 << 20, &bytes, &n, err));
        for (size_t cut = 0; cut <= n; cut++)
            fuzz_task((const uint8_t *)bytes, cut);
        free(bytes);
        free(path);
        n_files++;
    }
    closedir(dir);
    cr_expect_geq(n_files, 3);
}
