/* test_hash.c - the hash of files and folders moves with every byte, name and
 * length, and with nothing else. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/base.h"
#include "format/temp.h"

static uint64_t hash_of(const char *path)
{
    uint64_t hash = BASE_FNV_START;
    lori_error err;
    cr_assert_eq(base_hash_path(path, &hash, &err), LORI_OK, "%s", err.message);
    return hash;
}

Test(hash, every_byte_counts)
{
    temp t;
    temp_open(&t);
    unsigned char bytes[100] = {0};
    char path[1024];
    snprintf(path, sizeof path, "%s", temp_file(&t, "x", bytes, sizeof bytes));
    uint64_t seen[sizeof bytes + 2], n = 0;
    seen[n++] = hash_of(path);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 1;
        temp_file(&t, "x", bytes, sizeof bytes);
        seen[n++] = hash_of(path);
        bytes[i] = 0;
    }
    temp_file(&t, "x", bytes, sizeof bytes - 1); /* one zero less */
    seen[n++] = hash_of(path);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < i; k++)
            cr_assert_neq(seen[i], seen[k], "%d %d", (int)i, (int)k);
    temp_file(&t, "x", bytes, sizeof bytes);
    cr_assert_eq(hash_of(path), seen[0]);
    temp_close(&t);
}

Test(hash, a_folder_is_its_files)
{
    temp t;
    temp_open(&t);
    temp_file(&t, "a", "1", 1);
    temp_file(&t, "b", "2", 1);
    uint64_t first = hash_of(t.dir);
    temp_file(&t, "b", "3", 1);
    cr_assert_neq(hash_of(t.dir), first);
    temp_file(&t, "b", "2", 1);
    cr_assert_eq(hash_of(t.dir), first);
    cr_assert_eq(remove(temp_path(&t, "b")), 0);
    temp_file(&t, "c", "2", 1); /* another name */
    cr_assert_neq(hash_of(t.dir), first);
    uint64_t hash = BASE_FNV_START;
    lori_error err;
    cr_assert_eq(base_hash_path(temp_path(&t, "none"), &hash, &err),
                 LORI_NOT_FOUND);
    temp_close(&t);
}
