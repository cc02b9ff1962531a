/* cpu_tiles.c - products of bf16 on tiles (AMX): cuts a product into blocks
 * that fit the second cache and runs them on all threads. Three ways: many
 * rows, few rows, and sums over tokens. The sums of an element never depend on
 * the way or the cut (cpu_tiles.h). */
#include "backend/cpu/cpu_i.h"

enum { SIDE = CPU_TILE_SIDE, STEP = CPU_TILE_STEP, UNIT = CPU_TILE_UNIT };

/* A panel of b, MOST_K long, takes half of the first cache (48 KB); sums
 * [most_m(), MOST_N] and rows of a for two blocks share the second. A single
 * block, which needs no sums, may be longer, and every block by OVER if that
 * saves one: a low rank's terms. */
enum { MOST_K = 384, ONE_K = 576, OVER = 64, MOST_N = 384 };

/* A thread keeps so many elements of packed columns of op(b) for its next rows
 * of a: more fall out of the third cache. */
enum { MOST_KEPT = 2 << 20 };

static int64_t most_m(const cpu_backend *cpu)
{
    return cpu->l2_bytes < 2 << 20 ? 256 : 512;
}

/* ---- many rows ------------------------------------------------------- */

/* The terms along k of a call, then those of the calls that are added to it.
 * Each of these parts is filled up to whole steps. */
enum { PARTS = CPU_TILE_PARTS };
_Static_assert(PARTS >= 2 * BACKEND_GROUP, "weights, each with a low rank");
typedef struct part {
    const cpu_call *p;
    int64_t first;          /* of the terms of all parts */
    int64_t direct, packed; /* panels of a used in place, and packed */
    uint16_t *at;           /* where those are */
    bool found;             /* packed for a product before */
} part;

typedef struct plan {
    cpu_cut m, n, k; /* k: all parts */
    part part[PARTS];
    int parts;
} plan;

/* Terms [at, at + n) of a part. */
typedef struct terms {
    int64_t at, n;
} terms;

/* Those that belong to a block along k. */
static terms terms_of(const plan *s, const part *t, int64_t block)
{
    int64_t from = block * s->k.size - t->first, to = from + s->k.size;
    from = from > 0 ? from : 0;
    to = to < t->p->k ? to : t->p->k;
    return (terms){from, to > from ? to - from : 0};
}

/* Whether panels of a are read well where they are: whole lines, and rows that
 * spread over the sets of the caches (64 of 12 lines in the first). */
static bool lies_well(const cpu_call *p, int64_t block)
{
    enum { LINE = 64, SETS = 64, WAYS = 10 };
    const int64_t row = p->a.ld * 2;
    block = block < p->k ? block : p->k;
    if ((uintptr_t)p->a.data % LINE || row % LINE || p->k % STEP)
        return false;
    uint8_t used[SETS] = {0};
    for (int64_t i = 0; i < SIDE; i++)
        for (int64_t line = 0; line < block * 2 / LINE; line++)
            if (++used[(i * row / LINE + line) % SETS] > WAYS)
                return false;
    return true;
}

/* The time of a piece [m, n] in tile rows: packing a column of op(b) takes as
 * long as about 64 of its products. */
static double piece_cost(cpu_cut m, cpu_cut n, int n_threads)
{
    const int64_t rounds = (m.count * n.count + n_threads - 1) / n_threads;
    return (double)rounds * (double)n.size * ((double)m.size + 64);
}

static void cut_pieces(const cpu_backend *cpu, const cpu_call *p, plan *s)
{
    const int n_threads = cpu->be.n_threads;
    const int64_t m = p->a.rows, n = p->c.cols;
    const int64_t m0 = s->k.count > 1 ? (m + most_m(cpu) - 1) / most_m(cpu) : 1;
    const int64_t n0 = (n + MOST_N - 1) / MOST_N;
    double best = 0;
    for (int64_t pm = m0; pm <= m0 + n_threads; pm++)
        for (int64_t pn = n0; pn <= n0 + n_threads; pn++) {
            const cpu_cut cm = cpu_cut_even(m, pm, SIDE),
                          cn = cpu_cut_even(n, pn, SIDE);
            const double cost = piece_cost(cm, cn, n_threads);
            if (best == 0 || cost < best) {
                best = cost;
                s->m = cm;
                s->n = cn;
            }
            if (pm * pn >= 4 * n_threads)
                break; /* even enough */
        }
}

static plan cut(const cpu_backend *cpu, const cpu_call *p)
{
    plan s = {.parts = 0};
    const int64_t m = p->a.rows;
    int64_t k = 0;
    for (const cpu_call *q = p; q; q = q->then) {
        CPU_REQUIRE(s.parts < PARTS);
        s.part[s.parts++] = (part){.p = q, .first = k};
        k += cpu_tile_steps(q->k) * STEP;
    }
    const int64_t blocks =
        k <= ONE_K + OVER ? 1 : (k - OVER + MOST_K - 1) / MOST_K;
    s.k = cpu_cut_even(k, blocks, STEP);
    cut_pieces(cpu, p, &s);
    for (int i = 0; i < s.parts; i++) {
        part *t = &s.part[i];
        t->direct = lies_well(t->p, s.k.size) ? m / SIDE : 0;
        t->packed = cpu_tile_panels(m) - t->direct;
    }
    return s;
}

static int64_t packed_elements(const part *t)
{
    return t->packed * cpu_tile_steps(t->p->k) * UNIT;
}

/* A thread's memory: a packed panel of b, the panels of a piece's blocks, as
 * many as are kept, and sums. */
static int64_t panel_elements(const plan *s)
{
    return cpu_tile_steps(s->k.size) * UNIT;
}
static int64_t block_elements(const plan *s)
{
    return cpu_tile_panels(s->n.size) * panel_elements(s);
}
static size_t sum_floats(const plan *s)
{
    return s->k.count > 1 ? (size_t)(cpu_tile_panels(s->m.size) *
                                     cpu_tile_panels(s->n.size) * UNIT)
                          : 0;
}

/* A product, cut. */
typedef struct product {
    const cpu_call *p;
    plan s;
    int64_t kept; /* where its panels of b begin */
} product;

/* Products cut alike, and a thread's place in them: pieces are dealt out in
 * turn, of a piece one product comes after the other, and each is walked along
 * k. */
typedef struct walk {
    const cpu_backend *cpu;
    const product *of;
    int n;
    const cpu_glu *glu; /* of the products, or NULL */
    uint16_t *b;        /* a panel */
    uint16_t *kept; /* panels for the next piece of these columns, or NULL */
    float *sum;
} walk;

typedef struct place {
    const product *of;
    int64_t row, m, col, n, block; /* m 0: the end */
    bool again; /* the thread's piece before had these columns */
} place;

static place place_at(const product *of, int64_t piece, int64_t block,
                      int n_threads)
{
    const plan *s = &of->s;
    const int64_t i = piece % s->m.count, j = piece / s->m.count;
    if (j >= s->n.count)
        return (place){0};
    return (place){of,
                   i * s->m.size,
                   cpu_cut_length(s->m, i),
                   j * s->n.size,
                   cpu_cut_length(s->n, j),
                   block,
                   i >= n_threads};
}

/* A part's terms k at a place. */
static cpu_tile_b block_of_b(const part *t, terms k, place at)
{
    const cpu_call *p = t->p;
    return (cpu_tile_b){.b = (const void *)cpu_b_at(p, k.at, at.col),
                        .ldb = p->ldb,
                        .n = at.n,
                        .k = k.n,
                        .b_rows_n = p->b_rows_n};
}

/* Packed panels lie together by blocks along k, so that those of one block
 * spread over the sets of the second cache. */
static uint16_t *packed_at(const part *t, terms k)
{
    return t->at + t->packed * cpu_tile_steps(k.at) * UNIT;
}

static cpu_tile_a block_of_a(const part *t, terms k, place at)
{
    const int64_t left = t->direct - at.row / SIDE;
    const int64_t steps = cpu_tile_steps(k.n);
    const int64_t skip = left < 0 ? -left * steps * UNIT : 0;
    return (cpu_tile_a){.rows = cpu_at(t->p->a, at.row, k.at),
                        .ld = t->p->a.ld,
                        .direct = left > 0 ? left : 0,
                        .packed = packed_at(t, k) + skip,
                        .steps = steps};
}

/* The parts that have terms in a block. */
static void block_parts(place at, cpu_tile_block *g)
{
    const plan *s = &at.of->s;
    for (int i = 0; i < s->parts; i++) {
        const part *t = &s->part[i];
        const terms k = terms_of(s, t, at.block);
        if (k.n == 0)
            continue;
        g->a[g->parts] = block_of_a(t, k, at);
        g->b[g->parts++] = block_of_b(t, k, at);
    }
}

/* Where its panels of b are kept; NULL: not. */
static uint16_t *block_kept(const walk *w, place at)
{
    const int64_t n = block_elements(&at.of->s);
    const int64_t first = at.of->kept + at.block * n;
    return w->kept && first + n <= MOST_KEPT ? w->kept + first : NULL;
}

/* What is fetched of the next block: its first part. */
static void block_next(const walk *w, place then, cpu_tile_block *g)
{
    if (then.m == 0)
        return;
    if (then.again)
        g->next_panel = block_kept(w, then);
    const plan *s = &then.of->s;
    const part *t = s->part;
    while (terms_of(s, t, then.block).n == 0)
        t++;
    const terms k = terms_of(s, t, then.block);
    g->next_b = block_of_b(t, k, then);
    if (!g->last)
        g->next_a = block_of_a(t, k, then);
}

/* Where a piece begins. */
static cpu_tile_glu block_glu(const cpu_glu *glu, place at)
{
    cpu_tile_glu g = {.gate = cpu_at(glu->gate, at.row, at.col),
                      .ld_gate = glu->gate.ld};
    if (glu->back) {
        g.up = cpu_at(glu->up, at.row, at.col);
        g.ld_up = glu->up.ld;
    } else {
        g.out = cpu_at(glu->a, at.row, at.col);
        g.ld_out = glu->a.ld;
    }
    return g;
}

static void run_block(const walk *w, place at, place then)
{
    const cpu_call *p = at.of->p;
    const bool last = at.block + 1 == at.of->s.k.count;
    uint16_t *kept = block_kept(w, at);
    cpu_tile_block g = {.m = at.m,
                        .n = at.n,
                        .panel = kept ? kept : w->b,
                        .keep = kept != NULL,
                        .again = kept && at.again,
                        .sum = w->sum,
                        .first = at.block == 0,
                        .last = last,
                        .c = cpu_at(p->c, at.row, at.col),
                        .plus = cpu_plus_at(p, at.row, at.col),
                        .ldc = p->c.ld,
                        .c_bf = p->c.dtype == BASE_BF16,
                        .alpha = p->alpha,
                        .beta = p->beta};
    block_parts(at, &g);
    block_next(w, then, &g);
    if (w->glu && last && at.of == w->of + w->n - 1)
        g.glu = block_glu(w->glu, at);
    w->cpu->tiles->gemm(&g);
}

static void run_pieces(const walk *w, int thread, int n_threads)
{
    int64_t piece = thread, block = 0;
    const product *of = w->of;
    place at = place_at(of, piece, block, n_threads);
    while (at.m > 0) {
        if (++block == of->s.k.count) {
            block = 0;
            if (++of == w->of + w->n) {
                of = w->of;
                piece += n_threads;
            }
        }
        const place then = place_at(of, piece, block, n_threads);
        run_block(w, at, then);
        at = then;
    }
}

/* A thread's share of packing a. */
static void pack_rows(const cpu_backend *cpu, const plan *s, const part *t,
                      int thread, int n_threads)
{
    const backend_view a = t->p->a;
    const int64_t count = s->k.count * t->packed;
    const int64_t end = backend_share(count, thread + 1, n_threads);
    for (int64_t at = backend_share(count, thread, n_threads); at < end; at++) {
        const int64_t i = at % t->packed, row = (t->direct + i) * SIDE;
        const terms k = terms_of(s, t, at / t->packed);
        if (k.n > 0)
            cpu->tiles->pack_a(packed_at(t, k) + i * cpu_tile_steps(k.n) * UNIT,
                               cpu_at(a, row, k.at), a.ld, a.rows - row, k.n);
    }
}

/* What run_products() gives its threads. */
typedef struct tiles_call {
    const cpu_backend *cpu;
    const product *of;
    int n;
    const cpu_glu *glu;
    int64_t panel, kept; /* elements of a thread */
} tiles_call;

static void tiles_part(void *context, int thread, int n)
{
    const tiles_call *c = context;
    uint16_t *mine = cpu_scratch_of(c->cpu, thread);
    const walk w = {.cpu = c->cpu,
                    .of = c->of,
                    .n = c->n,
                    .glu = c->glu,
                    .b = mine,
                    .kept = c->kept ? mine + c->panel : NULL,
                    .sum = (float *)(void *)(mine + c->panel + c->kept)};
    bool packs = false;
    c->cpu->tiles->start();
    for (int j = 0; j < c->n; j++) {
        const plan *s = &c->of[j].s;
        for (int i = 0; i < s->parts; i++)
            if (s->part[i].packed > 0 && !s->part[i].found) {
                pack_rows(c->cpu, s, &s->part[i], thread, n);
                packs = true;
            }
    }
    if (packs)
        backend_team_meet(c->cpu->be.team, n);
    run_pieces(&w, thread, n);
    c->cpu->tiles->stop();
}

/* Room for what is packed: their common a once, if it is cut alike. */
static bool place_packed(cpu_backend *cpu, product *of, int n)
{
    int64_t room = 0;
    for (int j = 0; j < n; j++)
        for (int i = 0; i < of[j].s.parts; i++) {
            part *t = &of[j].s.part[i];
            t->found = j > 0 && i == 0 && of[j].s.k.size == of[0].s.k.size;
            room += t->found ? 0 : packed_elements(t);
        }
    uint16_t *to = cpu_list(cpu, (size_t)room * sizeof *to);
    for (int j = 0; j < n && to; j++)
        for (int i = 0; i < of[j].s.parts; i++) {
            part *t = &of[j].s.part[i];
            t->at = t->found ? of[0].s.part[0].at : to;
            to += t->found ? 0 : packed_elements(t);
        }
    return to != NULL;
}

/* Products cut alike. */
static void run_products(cpu_backend *cpu, product *of, int n,
                         const cpu_glu *glu)
{
    int64_t panel = 0, kept = 0;
    size_t sums = 0;
    for (int i = 0; i < n; i++) {
        const plan *s = &of[i].s;
        const int64_t own_panel = panel_elements(s);
        const size_t own_sums = sum_floats(s);
        panel = own_panel > panel ? own_panel : panel;
        sums = own_sums > sums ? own_sums : sums;
        of[i].kept = kept;
        kept += s->k.count * block_elements(s);
    }
    const bool returns = of->s.m.count > cpu->be.n_threads; /* to columns */
    kept = returns ? cpu_clamp(kept, 0, MOST_KEPT) : 0;
    const size_t elements = (size_t)(panel + kept);
    if (!place_packed(cpu, of, n) ||
        !cpu_scratch(cpu, elements * sizeof(uint16_t) + sums * sizeof(float)))
        return;
    tiles_call c = {cpu, of, n, glu, panel, kept};
    backend_team_run(cpu->be.team, cpu->be.n_threads, tiles_part, &c);
}

static bool same_cut(cpu_cut a, cpu_cut b)
{
    return a.total == b.total && a.size == b.size;
}

void cpu_gemm_tiles(cpu_backend *cpu, const cpu_call *p, int n,
                    const cpu_glu *glu)
{
    product of[BACKEND_GROUP] = {{0}};
    bool alike = true;
    for (int i = 0; i < n; i++) {
        of[i].p = &p[i];
        if (p[i].c.cols > 0)
            of[i].s = cut(cpu, &p[i]);
        alike = alike && same_cut(of[i].s.m, of[0].s.m) &&
                same_cut(of[i].s.n, of[0].s.n);
    }
    if (alike && of[0].s.parts > 0) {
        run_products(cpu, of, n, glu);
        return;
    }
    for (int i = 0; i < n; i++)
        if (of[i].s.parts > 0)
            run_products(cpu, &of[i], 1, NULL);
    if (glu)
        cpu_glu_rows(cpu, glu);
}

/* ---- sums over tokens ------------------------------------------------ */

/* What cpu_sum_tiles() gives its threads. */
typedef struct sum_call {
    const cpu_backend *cpu;
    backend_view c, x, y;
    float alpha, beta;
    int64_t q, steps; /* panels of y, steps of each */
    uint16_t *turned;
    backend_tasks squares;
} sum_call;

static void sum_square(const sum_call *s, int64_t i, int64_t j)
{
    const int64_t rows = s->c.rows - i * SIDE, cols = s->c.cols - j * SIDE;
    const cpu_tile_sum sum = {.rows = s->x.rows,
                              .block = BACKEND_TOKEN_BLOCK,
                              .p = rows < SIDE ? rows : SIDE,
                              .q = cols < SIDE ? cols : SIDE,
                              .x = cpu_at(s->x, 0, i * SIDE),
                              .y_turned = s->turned + j * s->steps * UNIT,
                              .ldx = s->x.ld,
                              .c = cpu_at(s->c, i * SIDE, j * SIDE),
                              .ldc = s->c.ld,
                              .alpha = s->alpha,
                              .beta = s->beta};
    s->cpu->tiles->sum(&sum);
}

static void sum_part(void *context, int thread, int n)
{
    sum_call *s = context;
    const int64_t end = backend_share(s->q, thread + 1, n);
    s->cpu->tiles->start();
    for (int64_t j = backend_share(s->q, thread, n); j < end; j++)
        s->cpu->tiles->turn(s->turned + j * s->steps * UNIT,
                            cpu_at(s->y, 0, j * SIDE), s->y.ld, s->y.rows,
                            BACKEND_TOKEN_BLOCK, s->c.cols - j * SIDE);
    backend_team_meet(s->cpu->be.team, n);
    int64_t at;
    while (backend_take(&s->squares, &at))
        sum_square(s, at / s->q, at % s->q);
    s->cpu->tiles->stop();
}

void cpu_sum_tiles(cpu_backend *cpu, backend_view c, backend_view x,
                   backend_view y, float alpha, float beta)
{
    int64_t steps = 0;
    for (int64_t t = 0; t < x.rows; t += BACKEND_TOKEN_BLOCK)
        steps += cpu_tile_steps(x.rows - t < BACKEND_TOKEN_BLOCK
                                    ? x.rows - t
                                    : BACKEND_TOKEN_BLOCK);
    const int64_t p = cpu_tile_panels(c.rows), q = cpu_tile_panels(c.cols);
    uint16_t *turned =
        cpu_list(cpu, (size_t)(q * steps * UNIT) * sizeof(uint16_t));
    if (!turned)
        return;
    sum_call s = {.cpu = cpu,
                  .c = c,
                  .x = x,
                  .y = y,
                  .alpha = alpha,
                  .beta = beta,
                  .q = q,
                  .steps = steps,
                  .turned = turned};
    s.squares.count = p * q;
    backend_team_run(cpu->be.team, cpu->be.n_threads, sum_part, &s);
}
