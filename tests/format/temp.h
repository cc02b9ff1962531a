/* temp.h - a folder of a test's own, removed at its end. */
#ifndef TESTS_FORMAT_TEMP_H
#define TESTS_FORMAT_TEMP_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct temp {
    char dir[512], path[1024];
} temp;

static inline void temp_open(temp *t)
{
    const char *root = getenv("TMPDIR");
    snprintf(t->dir, sizeof t->dir, "%s/lori-test-XXXXXX",
             root && *root ? root : P_tmpdir);
    cr_assert_not_null(mkdtemp(t->dir));
}

/* Path of `name` in the folder; good until the next call. */
static inline const char *temp_path(temp *t, const char *name)
{
    snprintf(t->path, sizeof t->path, "%s/%s", t->dir, name);
    return t->path;
}

/* Writes a file plainly, not through the code under test. */
static inline const char *temp_file(temp *t, const char *name,
                                    const void *bytes, size_t n)
{
    FILE *f = fopen(temp_path(t, name), "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(bytes, 1, n, f), n);
    cr_assert_eq(fclose(f), 0);
    return t->path;
}

static inline int temp_remove(const char *path, const struct stat *st, int type,
                              struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline void temp_close(temp *t)
{
    nftw(t->dir, temp_remove, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
