/* test_conformance_attn.c - attention, its backward and the page pools of
 * every backend against the f64 reference. */
#include <stdlib.h>

#include "backend/conform.h"

/* Lengths of up to four sequences: query rows and key positions. One row; a
 * block of 64 and its neighbours; two blocks of 512; more heads in a group
 * than a kernel may take together; odd widths; windows of 1 and across block
 * edges. */
static const struct attn_case {
    int q[4], k[4]; /* q 0: no queries of this sequence; k 0 ends */
    int H, K, D, pad;
    int64_t window;
} cases[] = {
    {{1}, {1}, 1, 1, 8, 0, 0},
    {{7, 1, 64}, {7, 1, 64}, 4, 2, 16, 0, 0},
    {{65, 130}, {65, 130}, 9, 3, 64, 8, 0},
    {{513}, {513}, 2, 1, 32, 0, 0},
    {{1100}, {1100}, 1, 1, 16, 0, 700},
    {{200, 3}, {200, 3}, 6, 2, 24, 3, 50},
    {{100}, {100}, 4, 1, 128, 0, 0},
    {{130, 64, 1}, {130, 64, 1}, 10, 1, 8, 0, 64},
    {{70, 70}, {70, 70}, 3, 3, 10, 5, 1},
    {{40}, {40}, 2, 2, 7, 0, 0},
    {{1100, 60}, {1100, 60}, 10, 2, 8, 3, 0}, /* heads in parts */
    {{70, 3}, {70, 3}, 2, 1, 256, 0, 0},
    /* With a past: decoding, continued prompts. Not for backward. */
    {{1, 1, 1}, {77, 1, 600}, 9, 3, 64, 0, 0},
    {{1, 5, 64, 0}, {128, 129, 80, 9}, 4, 2, 16, 4, 0},
    {{3, 70}, {200, 300}, 8, 1, 32, 0, 100},
    {{1, 2}, {1300, 256}, 6, 2, 200, 2, 0}, /* keys in parts */
    /* One row: heads in groups of four, chunks that are not whole. */
    {{1, 1}, {300, 65}, 7, 1, 128, 0, 0},
    {{1, 1}, {200, 17}, 16, 2, 80, 4, 150},
    {{1, 1}, {130, 64}, 5, 5, 7, 0, 0},
    {{1, 1}, {129, 31}, 11, 1, 33, 0, 0},
    {{1}, {70}, 2, 1, 256, 0, 0},
    /* A query sees nothing of the part that another one ends, or begins. */
    {{2, 1}, {129, 400}, 4, 2, 16, 0, 0},
    {{2, 2}, {384, 257}, 4, 2, 72, 3, 129},
};

typedef struct attn_run {
    int n_seq;
    int64_t nq, nk, max_q, max_k, width, narrow;
    bool square;
    cf_ints cu_q, cu_k, table;
    cf_operand q, k, v, o, lse;
    const struct attn_case *s;
} attn_run;

static backend_attn desc_of(const attn_run *r, int i)
{
    return (backend_attn){.n_seq = r->n_seq,
                          .cu_q = r->cu_q.p[i],
                          .cu_k = r->cu_k.p[i],
                          .max_q = r->max_q,
                          .max_k = r->max_k,
                          .n_heads = r->s->H,
                          .n_kv_heads = r->s->K,
                          .head_dim = r->s->D,
                          .window = r->s->window,
                          .scale = 2 / sqrt(r->s->D)};
}

static bool on_tiles(const conform *c)
{
    const char *isa = c->be[CF_TWO]->detail;
    return strncmp(isa, "amx", 3) == 0 || strncmp(isa, "avx512bf16", 10) == 0;
}

/* Two rows before the first sequence and one after the last belong to none. */
enum { BEFORE = 2, AFTER = 1 };

static attn_run start(conform *c, const struct attn_case *s, size_t t)
{
    attn_run r = {.s = s, .square = true};
    int32_t cu_q[5] = {BEFORE}, cu_k[5] = {BEFORE};
    for (int n = 0; n < 4 && s->k[n]; n++, r.n_seq++) {
        cu_q[n + 1] = cu_q[n] + s->q[n];
        cu_k[n + 1] = cu_k[n] + s->k[n];
        r.max_q = s->q[n] > r.max_q ? s->q[n] : r.max_q;
        r.max_k = s->k[n] > r.max_k ? s->k[n] : r.max_k;
        r.square = r.square && s->q[n] == s->k[n];
    }
    r.nq = cu_q[r.n_seq] + AFTER;
    r.nk = cu_k[r.n_seq] + AFTER;
    r.width = (int64_t)s->H * s->D;
    r.narrow = (int64_t)s->K * s->D;
    cf_next(c, "case %d: H %d K %d D %d window %d", (int)t, s->H, s->K, s->D,
            (int)s->window);
    r.cu_q = cf_int32(c, cu_q, r.n_seq + 1);
    r.cu_k = cf_int32(c, cu_k, r.n_seq + 1);
    r.q = cf_random(c, CF_ACT, r.nq, r.width, s->pad, 1.5);
    r.k = cf_random(c, CF_ACT, r.nk, r.narrow, s->pad, 1.5);
    r.v = cf_random(c, CF_ACT, r.nk, r.narrow, s->pad, 1);
    r.o = cf_random(c, CF_ACT, r.nq, r.width, s->pad, 1);
    r.lse = cf_random(c, CF_ACC, r.nq, s->H, s->pad, 1);
    return r;
}

static void forward(conform *c, attn_run *r)
{
    CF_EACH(i)
    {
        backend_attn d = desc_of(r, i);
        c->be[i]->attn(c->be[i], r->o.v[i], r->lse.v[i], r->q.v[i], r->k.v[i],
                       r->v.v[i], &d);
    }
}

/* Rows that belong to no sequence keep their old bits. */
static void check_outside(conform *c, const double *old, const cf_operand *o,
                          const char *name)
{
    double *now = cf_values(c, CF_TWO, o);
    int64_t cols = o->v[0].cols, n = o->v[0].rows;
    for (int64_t j = 0; j < n * cols; j++) {
        if (j / cols < BEFORE || j / cols >= n - AFTER)
            cr_expect_eq(now[j], old[j], "%s, %s: %s: row %d was touched",
                         c->label, c->what, name, (int)(j / cols));
    }
    free(now);
}

CONFORM(attn)
{
    for (size_t t = 0; t < COUNT(cases); t++) {
        attn_run r = start(c, &cases[t], t);
        double *old = cf_values(c, CF_TWO, &r.o);
        forward(c, &r);
        /* Scores up to 10 lose 10 * 2^-24 in exp: slack 2. */
        cf_check(c, &r.o, "o", (double)(r.max_k + r.s->D), 2);
        cf_check(c, &r.lse, "lse", (double)(r.max_k + r.s->D), 2);
        check_outside(c, old, &r.o, "o");
        CF_EACH(i)
        {
            backend_attn d = desc_of(&r, i);
            c->be[i]->attn(c->be[i], r.o.v[i], (backend_view){0}, r.q.v[i],
                           r.k.v[i], r.v.v[i], &d);
        }
        cf_check(c, &r.o, "o without lse", (double)(r.max_k + r.s->D), 2);
        free(old);
    }
}

/* Scores grow with the key, so that every block of keys has a far larger
 * maximum than the ones before it, and what was summed must be scaled down. */
CONFORM(attn_growing_scores)
{
    static const struct attn_case s = {{600, 90}, {600, 390}, 4, 2, 32, 3, 0};
    attn_run r = start(c, &s, 99);
    double *k = cf_values(c, CF_REF, &r.k);
    for (int64_t i = 0; i < r.nk * r.narrow; i++)
        k[i] *= 1 + (double)(i / r.narrow % 600) / 60;
    r.k = cf_from(c, CF_ACT, r.nk, r.narrow, s.pad, k);
    forward(c, &r);
    /* Scores up to 80 lose 80 * 2^-24 in exp: slack 8, which bf16 hides. */
    const double slack = c->be[CF_TWO]->act == BASE_BF16 ? 2 : 8;
    cf_check(c, &r.o, "o", (double)(r.max_k + s.D), slack);
    cf_check(c, &r.lse, "lse", (double)(r.max_k + s.D), 2);
    free(k);
}

CONFORM(attn_bwd)
{
    for (size_t t = 0; t < COUNT(cases); t++) {
        attn_run r = start(c, &cases[t], t);
        if (!r.square)
            continue;
        forward(c, &r);
        /* Everybody gets the reference's o and lse, as it would store them. */
        double *o = cf_values(c, CF_REF, &r.o);
        double *lse = cf_values(c, CF_REF, &r.lse);
        int pad = r.s->pad;
        cf_operand o_in = cf_from(c, CF_ACT, r.nq, r.width, pad, o);
        cf_operand lse_in = cf_from(c, CF_ACC, r.nq, r.s->H, pad, lse);
        cf_operand dout = cf_random(c, CF_ACT, r.nq, r.width, pad, 1);
        cf_operand dq = cf_random(c, CF_ACT, r.nq, r.width, pad, 1);
        cf_operand dk = cf_random(c, CF_ACT, r.nk, r.narrow, pad, 1);
        cf_operand dv = cf_random(c, CF_ACT, r.nk, r.narrow, pad, 1);
        cf_operand delta = cf_blank(c, CF_ACC, r.nq, r.s->H, pad);
        CF_EACH(i)
        {
            backend_attn d = desc_of(&r, i);
            c->be[i]->attn_bwd(c->be[i], dq.v[i], dk.v[i], dv.v[i], dout.v[i],
                               r.q.v[i], r.k.v[i], r.v.v[i], o_in.v[i],
                               lse_in.v[i], delta.v[i], &d);
        }
        double terms = (double)(r.max_k * r.s->H / r.s->K + r.s->D);
        /* dp - delta cancels about half of its digits' first bit or two. On
         * tiles, and by AVX512_BF16, P and dS become bf16 before they are
         * summed: two roundings, at most 2.5e-3 in all of these cases. The
         * terms of an element may be large where it is small, and most elements
         * of a long causal sequence are: single ones were found off by 2e-2 of
         * the usual size. */
        const bool bf = c->be[CF_TWO]->act == BASE_BF16, tiles = on_tiles(c);
        double slack = !bf ? 4 : tiles ? 1.5 : 1, single = tiles ? 4 : 1;
        if (r.s->window != 1) { /* one visible key: dq = dk = 0 but for noise */
            cf_check_rounded(c, &dq, "dq", terms, slack, single);
            cf_check_rounded(c, &dk, "dk", terms, slack, single);
        }
        cf_check_rounded(c, &dv, "dv", terms, slack, single);
        free(o);
        free(lse);
    }
}

/* ---- what cannot be seen ---------------------------------------------- */

/* Puts NaN into the rows [from, to) of v and k, in every backend. */
static void spoil(conform *c, const cf_operand *o, int64_t from, int64_t to)
{
    CF_EACH(i)
    {
        const backend_view *v = &o->v[i];
        size_t size = base_dtype_bytes(v->dtype);
        char row[64 * 8];
        for (int64_t j = 0; j < v->cols; j++) {
            if (v->dtype == BASE_F64)
                ((double *)(void *)row)[j] = NAN;
            else if (v->dtype == BASE_F32)
                ((float *)(void *)row)[j] = NAN;
            else
                ((uint16_t *)(void *)row)[j] = 0x7fc0;
        }
        for (int64_t r = from; r < to; r++)
            cf_upload(c, i, (char *)v->data + (size_t)(r * v->ld) * size, row,
                      (size_t)v->cols * size);
    }
}

/* Keys before every window, of another sequence or of none hold NaN: 0 times
 * NaN is NaN, so a kernel that masks by multiplying is found. */
CONFORM(attn_invisible_keys_do_not_matter)
{
    static const struct attn_case s = {{5, 9}, {60, 90}, 4, 2, 16, 0, 20};
    attn_run r = start(c, &s, 99);
    for (int k = 0; k < 2; k++) {
        const cf_operand *o = k ? &r.k : &r.v;
        spoil(c, o, 0, BEFORE);
        spoil(c, o, BEFORE, BEFORE + 60 - 5 - 19);
        spoil(c, o, BEFORE + 60, BEFORE + 60 + 90 - 9 - 19);
        spoil(c, o, r.nk - AFTER, r.nk);
    }
    forward(c, &r);
    cf_check(c, &r.o, "o", 60, 2);
}

CONFORM(attn_other_sequences_do_not_matter)
{
    static const struct attn_case s = {{50, 70, 3}, {50, 70, 3}, 4, 2,
                                       16,          0,           0};
    attn_run r = start(c, &s, 99);
    for (int k = 0; k < 2; k++)
        spoil(c, k ? &r.k : &r.v, BEFORE + 50, BEFORE + 120);
    forward(c, &r);
    double *o = cf_values(c, CF_TWO, &r.o);
    for (int64_t i = BEFORE; i < r.nq - AFTER; i++) {
        bool spoiled = i >= BEFORE + 50 && i < BEFORE + 120;
        for (int64_t j = 0; j < r.width; j++)
            cr_expect_eq(isnan(o[i * r.width + j]) != 0, spoiled, "%s: row %d",
                         c->label, (int)i);
    }
    free(o);
}

/* ---- pages ------------------------------------------------------------ */

static const struct attn_case paged_cases[] = {
    {{1, 1, 1}, {77, 1, 40}, 9, 3, 64, 0, 0},
    {{1, 5, 64, 0}, {128, 129, 80, 9}, 4, 2, 16, 4, 0},
    {{3, 70}, {130, 100}, 8, 1, 32, 0, 33},
    {{31, 32, 33}, {31, 32, 33}, 2, 2, 8, 2, 0},
    {{1, 2}, {700, 300}, 8, 2, 16, 0, 400}, /* keys in parts */
};

/* Pages in shuffled order; the pool starts as NaN, so a read of a row that no
 * sequence owns shows. All keys are written first, as a prompt would be. */
static void paged(conform *c, const struct attn_case *s, int page, size_t t)
{
    attn_run r = start(c, s, t);
    int64_t per = (r.max_k + page - 1) / page + 1, pages = r.n_seq * per + 3;
    int32_t *table = base_alloc((size_t)(r.n_seq * per), sizeof *table);
    for (int64_t j = 0; j < r.n_seq * per; j++)
        table[j] = (int32_t)((j * 7 + 3) % pages);
    while (pages % 7 == 0) /* 7 j mod pages visits every page once */
        pages++;
    for (int64_t j = 0; j < r.n_seq * per; j++)
        table[j] = (int32_t)((j * 7 + 3) % pages);
    r.table = cf_int32(c, table, r.n_seq * per);
    free(table);
    cf_operand pk = cf_blank(c, CF_ACT, pages * page, r.narrow, s->pad);
    cf_operand pv = cf_blank(c, CF_ACT, pages * page, r.narrow, s->pad);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        backend_attn d = desc_of(&r, i);
        d.block_table = r.table.p[i];
        d.table_ld = per;
        d.page = page;
        backend_attn whole = d;
        whole.cu_q = d.cu_k; /* every position is new */
        whole.max_q = d.max_k;
        be->kv_write(be, pk.v[i], pv.v[i], r.k.v[i], r.v.v[i], &whole);
        be->attn(be, r.o.v[i], r.lse.v[i], r.q.v[i], pk.v[i], pv.v[i], &d);
    }
    cf_check(c, &r.o, "o", (double)(r.max_k + s->D), 2);
    cf_check(c, &r.lse, "lse", (double)(r.max_k + s->D), 2);
    cf_check_exact(c, &pk, "k pool");
    cf_check_exact(c, &pv, "v pool");
    /* The same numbers in contiguous rows. */
    double *o = cf_values(c, CF_TWO, &r.o);
    forward(c, &r);
    double *flat = cf_values(c, CF_TWO, &r.o);
    cr_expect_eq(memcmp(o, flat, (size_t)(r.nq * r.width) * sizeof *o), 0,
                 "%s, %s: pages of %d change the bits", c->label, c->what,
                 page);
    free(o);
    free(flat);
}

CONFORM(paged_attn)
{
    static const int sizes[] = {1, 16, 64, 100};
    for (size_t t = 0; t < COUNT(paged_cases); t++) {
        for (size_t p = 0; p < COUNT(sizes); p++)
            paged(c, &paged_cases[t], sizes[p], t);
    }
}

/* Only the new positions are written; the old ones keep their bits. */
CONFORM(kv_write)
{
    static const struct attn_case s = {{2, 1}, {18, 7}, 4, 2, 8, 3, 0};
    attn_run r = start(c, &s, 0);
    static const int32_t table[6] = {4, 1, 0, 3, 5, 2};
    r.table = cf_int32(c, table, 6);
    cf_operand pk = cf_random(c, CF_ACT, 6 * 8, r.narrow, 2, 1);
    cf_operand pv = cf_random(c, CF_ACT, 6 * 8, r.narrow, 4, 1);
    cf_operand k = cf_random(c, CF_ACT, r.nq, r.narrow, 3, 1);
    cf_operand v = cf_random(c, CF_ACT, r.nq, r.narrow, 3, 1);
    double *old = cf_values(c, CF_TWO, &pk);
    CF_EACH(i)
    {
        backend_attn d = desc_of(&r, i);
        d.block_table = r.table.p[i];
        d.table_ld = 3;
        d.page = 8;
        c->be[i]->kv_write(c->be[i], pk.v[i], pv.v[i], k.v[i], v.v[i], &d);
    }
    cf_check_exact(c, &pk, "k pool");
    cf_check_exact(c, &pv, "v pool");
    double *now = cf_values(c, CF_TWO, &pk), *new_k = cf_values(c, CF_TWO, &k);
    /* Positions 16 and 17 of the first sequence are rows 0, 1 of page 0;
     * position 6 of the second is row 6 of page 3. */
    const int64_t to[3] = {0, 1, 3 * 8 + 6};
    for (int64_t row = 0; row < 48; row++) {
        const double *want = old + row * r.narrow;
        for (int64_t n = 0; n < 3; n++)
            want = to[n] == row ? new_k + (BEFORE + n) * r.narrow : want;
        cr_expect_eq(
            memcmp(now + row * r.narrow, want, (size_t)r.narrow * sizeof *want),
            0, "%s: pool row %d", c->label, (int)row);
    }
    free(old);
    free(now);
    free(new_k);
}
