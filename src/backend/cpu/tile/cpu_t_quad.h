/* cpu_t_quad.h - products of 32 x 32 numbers, four tiles of results at a time,
 * at once or in steps between which vectors do other work. Private to tile/.
 *   A pair   is two tiles of operands, 32 terms deep: of a, rows 0 .. 15 and
 *            16 .. 31; of b, columns 0 .. 15 and 16 .. 31.
 *   A quad   is 32 x 32 floats of results: 32 rows of its left half, then those
 *            of its right half. */
#ifndef CPU_T_QUAD_H
#define CPU_T_QUAD_H

#include "backend/cpu/tile/cpu_t.h"

#define SIDE  32
#define PAIR  (2 * TILE)    /* elements of a pair */
#define QUAD  (SIDE * SIDE) /* floats of a quad */
#define BELOW 256           /* from its upper tiles to its lower ones */
#define RIGHT 512           /* from its left tiles to its right ones */

/* Columns 16 half .. of a row of a quad. */
INLINE float *quad_row(float *quad, int row, int half)
{
    return quad + half * RIGHT + row * 16;
}

/* quad (+)= the sum of n products of a pair of a and a pair of b; successive
 * ones are so many elements apart. */
typedef struct quad_product {
    float *quad;
    bool add;
    int n; /* at least 1 */
    const uint16_t *a, *b;
    int64_t a_step, b_step;
} quad_product;

#ifdef CPU_TILE_VECTORS

INLINE void multiply(const quad_product *p)
{
    multiply_first(&(product){.sum = p->quad,
                              .row = 16,
                              .right = RIGHT,
                              .below = BELOW,
                              .a = p->a,
                              .a_row = TILE_K,
                              .a_below = TILE,
                              .a_step = p->a_step,
                              .b = p->b,
                              .b_step = p->b_step,
                              .steps = p->n,
                              .add = p->add},
                   SIDE);
}

/* Vectors do one thing after the other. */
typedef struct queue {
    int count, left;
} queue;

INLINE void queue_run(queue *q, int left)
{
    (void)q;
    (void)left;
}

INLINE void queue_push(queue *q, quad_product p)
{
    (void)q;
    multiply(&p);
}

#else

INLINE void product_begin(const quad_product *p)
{
    if (p->add) {
        tile_load(0, p->quad, 64);
        tile_load(1, p->quad + RIGHT, 64);
        tile_load(2, p->quad + BELOW, 64);
        tile_load(3, p->quad + RIGHT + BELOW, 64);
    } else {
        square_clear();
    }
}
INLINE void product_step(const uint16_t *a, const uint16_t *b)
{
    tile_load(4, a, 64);
    tile_load(6, b, 64);
    tile_mul(0, 4, 6);
    tile_load(7, b + TILE, 64);
    tile_mul(1, 4, 7);
    tile_load(5, a + TILE, 64);
    tile_mul(2, 5, 6);
    tile_mul(3, 5, 7);
}
INLINE void product_end(const quad_product *p)
{
    tile_store(0, p->quad, 64);
    tile_store(1, p->quad + RIGHT, 64);
    tile_store(2, p->quad + BELOW, 64);
    tile_store(3, p->quad + RIGHT + BELOW, 64);
}

/* Not while a queue holds a product. */
INLINE void multiply(const quad_product *p)
{
    const uint16_t *a = p->a, *b = p->b;
    product_begin(p);
    for (int i = 0; i < p->n; ++i, a += p->a_step, b += p->b_step)
        product_step(a, b);
    product_end(p);
}

/* ---- products while vectors work ---------------------------------------- */

/* Products in their order. The tiles multiply for 64 cycles a step, in which
 * the processor goes on with what comes after it: rows of exponentials. */
#define QUEUE 16
typedef struct queue {
    quad_product p[QUEUE];
    int first, count;
    int step; /* of the first one */
    int left; /* steps of all */
} queue;

INLINE void queue_step(queue *q)
{
    quad_product *p = q->p + q->first;
    if (q->step == 0)
        product_begin(p);
    product_step(p->a, p->b);
    p->a += p->a_step;
    p->b += p->b_step;
    --q->left;
    if (++q->step < p->n)
        return;
    product_end(p);
    q->step = 0;
    q->first = (q->first + 1) % QUEUE;
    --q->count;
}

/* Goes on until so many steps are left. */
INLINE void queue_run(queue *q, int left)
{
    while (q->left > left)
        queue_step(q);
}

INLINE void queue_push(queue *q, quad_product p)
{
    while (q->count == QUEUE)
        queue_step(q);
    q->p[(q->first + q->count++) % QUEUE] = p;
    q->left += p.n;
}

#endif

#endif
