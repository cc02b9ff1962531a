/* cpu_k_keys.h - the keys of one sequence, for the attention of isa/ and of
 * tile/: where they lie. */
#ifndef CPU_K_KEYS_H
#define CPU_K_KEYS_H

#include "backend/cpu/isa/cpu_vec.h"

/* The rows of successive keys: one after the other within a page. */
typedef struct key_walk {
    const int32_t *table; /* NULL: key j is row j */
    int page;
    int64_t row, left; /* the next one, and how many the page still has */
} key_walk;

INLINE int64_t key_row(key_walk *w, int64_t key)
{
    if (!w->table)
        return key;
    if (w->left == 0) {
        int64_t in = key % w->page;
        w->row = (int64_t)w->table[key / w->page] * w->page + in;
        w->left = w->page - in;
    }
    --w->left;
    return w->row++;
}

#endif
