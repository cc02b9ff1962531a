/* cpu_k_keys.h - the keys of one sequence, for the attention of isa/ and of
 * tile/: where they lie. */
#ifndef CPU_K_KEYS_H
#define CPU_K_KEYS_H

#include "backend/cpu/isa/cpu_vec.h"

/* The row of a key, and how many from there on follow each other. */
INLINE int64_t key_run(const int32_t *table, int page, int64_t key,
                       int64_t *rows)
{
    if (!table) {
        *rows = INT64_MAX;
        return key;
    }
    const int64_t in = key % page;
    *rows = page - in;
    return (int64_t)table[key / page] * page + in;
}

/* The rows of successive keys: one after the other within a page. */
typedef struct key_walk {
    const int32_t *table; /* NULL: key j is row j */
    int page;
    int64_t row, left; /* the next one, and how many the page still has */
} key_walk;

INLINE int64_t key_row(key_walk *w, int64_t key)
{
    if (w->left == 0)
        w->row = key_run(w->table, w->page, key, &w->left);
    --w->left;
    return w->row++;
}

#endif
