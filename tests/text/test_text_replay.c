/* test_text_replay.c - the tokenizer's fuzz target on its corpus: seeds and
 * inputs that once broke something, whole and cut short. `make fuzz` searches
 * for new ones. */
#include <dirent.h>

#include "base/base.h"
#include "text/text_test.h"

/* The target itself: it is no room's source, so it comes in here. */
#include "fuzz/fuzz_tokenizer.c"

Test(text_replay, tokenizer)
{
    /* `make` runs in the repository's root. */
    static const char folder[] = "tests/fuzz/corpus/tokenizer";
    int n_files = 0;
    DIR *dir = opendir(folder);
    cr_assert_not_null(dir, "%s: run from the repository's root", folder);
    for (const struct dirent *e; (e = readdir(dir));) {
        char *path, *bytes;
        size_t n;
        lori_error err = {0};
        if (e->d_name[0] == '.')
            continue;
        cr_assert_not_null(path = base_path_join(folder, e->d_name));
        cr_assert_eq(base_file_read(path, 1 << 24, &bytes, &n, &err), LORI_OK,
                     "%s", err.message);
        /* In memory of exactly its size: a byte too far is noticed by ASan. */
        uint8_t *exact = malloc(n ? n : 1);
        cr_assert_not_null(exact);
        memcpy(exact, bytes, n);
        fuzz_tokenizer(exact, n);
        for (size_t cut = 0; cut < n; cut += 1 + n / 64)
            fuzz_tokenizer(exact, cut);
        free(exact);
        free(bytes);
        free(path);
        n_files++;
    }
    closedir(dir);
    cr_expect_geq(n_files, 3);
}
