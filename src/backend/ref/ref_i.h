/* ref_i.h - private to ref/: what ref.c and the files compiled twice share.
 */
#ifndef BACKEND_REF_I_H
#define BACKEND_REF_I_H

#include "backend/backend.h"

/* Attention keeps one row of double sums on the stack. */
#define REF_MAX_HEAD_DIM 1024

typedef struct ref_state {
    lori_error error; /* the first failure, until sync() */
    bool failed;
} ref_state;

struct backend_weight {
    int64_t rows, cols;
    void *data; /* [rows, cols] act, owned */
};

/* The one check of operands. True when no failure is pending, every view has
 * dtype act and is well formed, and `fits`. Otherwise keeps the error (the
 * first one): the operation's name and the shape of every view. An operation
 * that gets false does nothing. */
bool ref_fits(backend *be, const char *op, bool fits, const backend_view *views,
              int n);
/* The same for a fact that is not a shape: an id, an offset, a page number.
 */
bool ref_holds(backend *be, const char *op, bool holds, const char *what);

/* Fill the compute operations of the table. */
void ref_ops_f32(backend *be);
void ref_ops_f64(backend *be);
void ref_attn_f32(backend *be);
void ref_attn_f64(backend *be);

#endif
