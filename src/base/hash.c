/* hash.c - the hash of files and folders: to see whether what something was
 * made from is still the same. Fast, not cryptographic. Includes base.h and
 * libc. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "base/base.h"

#define LANES 4
#define PRIME UINT64_C(0x9e3779b97f4a7c15)

/* Every word goes through a multiplication of its own lane: four at a time
 * run at the speed of memory, so that whole models can be hashed. */
static uint64_t hash_bytes(const unsigned char *bytes, size_t n)
{
    uint64_t lane[LANES] = {1, 2, 3, 4}, word;
    size_t i = 0;
    for (; i + LANES * sizeof word <= n; i += LANES * sizeof word)
        for (int k = 0; k < LANES; k++) {
            memcpy(&word, bytes + i + (size_t)k * sizeof word, sizeof word);
            lane[k] = (lane[k] ^ word) * PRIME;
            lane[k] ^= lane[k] >> 32;
        }
    uint64_t hash = base_fnv1a(BASE_FNV_START, lane, sizeof lane);
    hash = base_fnv1a(hash, bytes + i, n - i);
    return base_fnv1a(hash, &n, sizeof n);
}

lori_status base_hash_file(const char *path, uint64_t *hash, lori_error *err)
{
    base_map map;
    BASE_TRY(base_map_open(path, &map, err));
    uint64_t content = map.bytes ? hash_bytes(map.data, map.bytes) : 0;
    base_map_close(&map);
    *hash = base_fnv1a(*hash, &content, sizeof content);
    return LORI_OK;
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

typedef struct names {
    char **name;
    size_t n, room;
} names;

static lori_status list_folder(const char *folder, names *list, lori_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return base_fail_errno(err, errno, "cannot read folder '%s'", folder);
    lori_status st = LORI_OK;
    for (struct dirent *e; !st && (e = readdir(dir));) {
        if (list->n == list->room) {
            size_t room = list->room ? list->room * 2 : 16;
            char **grown = base_resize(list->name, room, sizeof *grown);
            if (!grown) {
                st = base_no_memory(err, room * sizeof *grown);
                break;
            }
            list->name = grown;
            list->room = room;
        }
        list->name[list->n] = base_path_join(folder, e->d_name);
        st = list->name[list->n] ? LORI_OK : base_no_memory(err, 1);
        list->n += !st;
    }
    closedir(dir);
    return st;
}

lori_status base_hash_path(const char *path, uint64_t *hash, lori_error *err)
{
    if (!base_is_dir(path))
        return base_hash_file(path, hash, err);
    names list = {0};
    lori_status st = list_folder(path, &list, err);
    if (list.n)
        qsort(list.name, list.n, sizeof *list.name, by_name);
    for (size_t i = 0; i < list.n; i++) {
        const char *name = base_path_name(list.name[i]);
        if (!st && base_is_file(list.name[i])) {
            *hash = base_fnv1a(*hash, name, strlen(name) + 1);
            st = base_hash_file(list.name[i], hash, err);
        }
        free(list.name[i]);
    }
    free(list.name);
    return st;
}
