/* cpu_attn.c - attention on the CPU: cuts packed sequences into tasks (a
 * sequence, a group of heads that share keys and values, a block of queries),
 * longest first, and runs the kernels of isa/ or tile/ on all threads. One row
 * with many keys is several tasks, one for each part of the keys, and what
 * these give is joined (Flash-Decoding, Dao et al. 2023). Backward
 * takes a whole sequence and one key/value head a task (of a long sequence,
 * some of its query heads): every sum then has one owner, so there are no
 * atomics and no order to depend on. */
#include "backend/cpu/cpu_i.h"

typedef struct task {
    int32_t seq, kv_head, head; /* head: the first within the group */
    int32_t heads;
    int64_t first, n;
    int64_t key, key_end; /* those that its queries see, or a part of them */
    int64_t part, parts;  /* its number among all parts, or -1: it is none;
                           * parts: on the first of them how many follow each
                           * other, elsewhere 0 */
} task;

static int64_t lengths(const backend_attn *d, int s, int64_t *len_k)
{
    *len_k = d->cu_k[s + 1] - d->cu_k[s];
    return d->cu_q[s + 1] - d->cu_q[s];
}

static void require(const backend *be, const backend_attn *d, backend_view q,
                    backend_view k, backend_view v)
{
    CPU_REQUIRE(d->n_heads > 0 && d->n_kv_heads > 0 && d->head_dim > 0);
    CPU_REQUIRE(d->n_heads % d->n_kv_heads == 0 && d->scale > 0);
    CPU_REQUIRE(q.cols == (int64_t)d->n_heads * d->head_dim);
    CPU_REQUIRE(k.cols == (int64_t)d->n_kv_heads * d->head_dim);
    CPU_REQUIRE(v.cols == k.cols);
    CPU_REQUIRE(q.dtype == be->act && k.dtype == be->act && v.dtype == be->act);
}

/* ---- forward --------------------------------------------------------- */

/* Query positions of a task. */
static int64_t task_block(const cpu_backend *cpu, const backend_attn *d)
{
    int heads = d->n_heads / d->n_kv_heads;
    heads = heads < CPU_HEADS ? heads : CPU_HEADS;
    return cpu->tiles ? CPU_TILE_LANES / heads : cpu_attn_block(heads);
}

/* Tasks, counted or written. */
typedef struct task_list {
    task *list; /* NULL: only counted */
    int64_t n, parts;
} task_list;

static void add_task(task_list *to, task t)
{
    if (to->list)
        to->list[to->n] = t;
    to->n++;
}

/* Parts of the keys that one row sees. */
static void add_parts_of(task_list *to, task t, int64_t from, int64_t end)
{
    const int64_t first = from / CPU_ATTN_PART;
    const int64_t parts = (end - 1) / CPU_ATTN_PART + 1 - first;
    for (int64_t i = 0; i < parts; ++i) {
        const int64_t key = (first + i) * CPU_ATTN_PART;
        t.key = i ? key : from;
        t.key_end = i + 1 < parts ? key + CPU_ATTN_PART : end;
        t.part = to->parts++;
        t.parts = i ? 0 : parts;
        add_task(to, t);
    }
}

/* A block of queries of one group of heads. */
static void add_block(task_list *to, const backend_attn *d, task t,
                      int64_t past)
{
    const int64_t low = past + t.first, end = low + t.n;
    const int64_t from = cpu_attn_first(low, d->window);
    if (t.n == 1 && from / CPU_ATTN_PART < (end - 1) / CPU_ATTN_PART) {
        add_parts_of(to, t, from, end);
        return;
    }
    t.key = from;
    t.key_end = end;
    t.part = -1;
    add_task(to, t);
}

/* Appends the tasks of sequence s whose last key lies in key block `b`; of any
 * block where b < 0. */
static void add_tasks(task_list *to, const backend_attn *d, int64_t block,
                      int s, int64_t b)
{
    int64_t len_k, len_q = lengths(d, s, &len_k), past = len_k - len_q;
    const int group = d->n_heads / d->n_kv_heads;
    for (int64_t first = 0; first < len_q; first += block) {
        const int64_t n = len_q - first < block ? len_q - first : block;
        if (b >= 0 && (past + first + n - 1) / CPU_KEYS != b)
            continue;
        for (int kv = 0; kv < d->n_kv_heads; ++kv)
            for (int h = 0; h < group; h += CPU_HEADS) {
                const task t = {.seq = s,
                                .kv_head = kv,
                                .head = h,
                                .heads = group - h < CPU_HEADS ? group - h
                                                               : CPU_HEADS,
                                .first = first,
                                .n = n};
                add_block(to, d, t, past);
            }
    }
}

/* What one operation's tasks share. */
typedef struct attention {
    cpu_backend *cpu;
    const backend_attn *d;
    backend_view o, lse, q, k, v;
    float *parts;
    task_list tasks;
    int64_t at_once;          /* of them, to one thread */
    backend_tasks all, joins; /* all: so many at once */
} attention;

static cpu_attn_task open_task(const attention *a, const task *t)
{
    const backend_attn *d = a->d;
    const int D = d->head_dim, group = d->n_heads / d->n_kv_heads;
    const int64_t head = (int64_t)t->kv_head * group + t->head;
    const int64_t row = d->cu_q[t->seq], col = head * D;
    const int64_t kv_row = d->block_table ? 0 : d->cu_k[t->seq];
    const int64_t kv_col = (int64_t)t->kv_head * D;
    int64_t len_k, len_q = lengths(d, t->seq, &len_k);
    return (cpu_attn_task){
        .q = cpu_at(a->q, row, col),
        .o = cpu_at(a->o, row, col),
        .lse = a->lse.data ? cpu_at(a->lse, row, head) : NULL,
        .ldq = a->q.ld,
        .ldo = a->o.ld,
        .ldlse = a->lse.ld,
        .k = cpu_at(a->k, kv_row, kv_col),
        .v = cpu_at(a->v, kv_row, kv_col),
        .ldk = a->k.ld,
        .ldv = a->v.ld,
        .table = d->block_table ? d->block_table + t->seq * d->table_ld : NULL,
        .page = d->page,
        .heads = t->heads,
        .head_dim = D,
        .first = t->first,
        .n = t->n,
        .past = len_k - len_q,
        .window = d->window,
        .scale = (float)d->scale,
        .bf = a->q.dtype == BASE_BF16,
        .key = t->key,
        .key_end = t->key_end,
        .part =
            t->part < 0 ? NULL : a->parts + t->part * cpu_attn_part_floats(D),
    };
}

/* What is not cut into parts is one. */
static void run_row(const cpu_kernels *k, cpu_attn_task at, char *scratch)
{
    const bool whole = !at.part;
    if (whole)
        at.part = (float *)(void *)(scratch + k->attn_row_bytes(at.head_dim));
    k->attn_row(&at, scratch);
    if (whole)
        k->attn_join(&at, 1, scratch);
}

static void run_task(const attention *a, const cpu_attn_task *t, int thread)
{
    void *scratch = cpu_scratch_of(a->cpu, thread);
    if (t->n == 1)
        run_row(a->cpu->k, *t, scratch);
    else if (a->cpu->tiles)
        a->cpu->tiles->attn(t, scratch);
    else
        a->cpu->k->attn(t, scratch);
}

/* Tasks that a thread takes at a time. One row takes a microsecond, as long as
 * asking other threads whether a task is free; but all threads must find some,
 * and come to the end together. */
static int64_t tasks_at_once(const attention *a)
{
    enum { SHARES = 4, MOST = 8 };
    if (a->d->max_q > 1)
        return 1;
    return cpu_clamp(a->tasks.n / (SHARES * a->cpu->be.n_threads), 1, MOST);
}

/* Each task knows the next one of those taken with it. */
static void run_tasks(attention *a, int thread)
{
    int64_t i;
    while (backend_take(&a->all, &i)) {
        const int64_t left = a->tasks.n - i * a->at_once;
        const int64_t n = left < a->at_once ? left : a->at_once;
        const task *t = a->tasks.list + i * a->at_once;
        cpu_attn_task opened[2];
        opened[0] = open_task(a, t);
        for (int64_t k = 0; k < n; ++k) {
            cpu_attn_task *now = &opened[k % 2], *next = &opened[(k + 1) % 2];
            if (k + 1 < n) {
                *next = open_task(a, &t[k + 1]);
                now->next = next;
            }
            run_task(a, now, thread);
        }
    }
}

static void join_parts(const attention *a, const task *t, int thread)
{
    const cpu_attn_task at = open_task(a, t);
    a->cpu->k->attn_join(&at, t->parts, cpu_scratch_of(a->cpu, thread));
}

static void attn_part(void *context, int thread, int n)
{
    attention *a = context;
    const task *t = a->tasks.list;
    int64_t i;
    run_tasks(a, thread);
    if (a->tasks.parts == 0)
        return;
    backend_team_meet(a->cpu->be.team, n);
    while (backend_take(&a->joins, &i))
        if (t[i].parts > 0)
            join_parts(a, &t[i], thread);
}

static int64_t scratch_bytes(const cpu_backend *cpu, int head_dim)
{
    const int64_t part = 4 * cpu_attn_part_floats(head_dim);
    const int64_t row = cpu->k->attn_row_bytes(head_dim) + part;
    const int64_t many = cpu->tiles ? cpu->tiles->attn_bytes(head_dim)
                                    : cpu->k->attn_bytes(head_dim);
    return row > many ? row : many;
}

static void cpu_attn(backend *be, backend_view o, backend_view lse,
                     backend_view q, backend_view k, backend_view v,
                     const backend_attn *d)
{
    cpu_backend *cpu = cpu_of(be);
    require(be, d, q, k, v);
    CPU_REQUIRE(o.dtype == be->act && o.cols == q.cols);
    CPU_REQUIRE(!d->block_table || d->page > 0);
    if (cpu->failed)
        return;
    const int64_t block = task_block(cpu, d);
    int64_t longest = 0;
    task_list all = {0};
    for (int s = 0; s < d->n_seq; ++s) {
        int64_t len_k, len_q = lengths(d, s, &len_k);
        CPU_REQUIRE(len_q >= 0 && len_k >= len_q);
        longest = len_k > longest ? len_k : longest;
        add_tasks(&all, d, block, s, -1);
    }
    const int64_t bytes = scratch_bytes(cpu, d->head_dim);
    attention a = {
        .cpu = cpu, .d = d, .o = o, .lse = lse, .q = q, .k = k, .v = v};
    const size_t floats =
        (size_t)(all.parts * cpu_attn_part_floats(d->head_dim));
    base_plan plan = {0};
    base_plan_take(&plan, floats, sizeof(float));
    base_plan_take(&plan, (size_t)all.n, sizeof(task));
    plan = (base_plan){.base = cpu_list(cpu, plan.used)};
    if (!plan.base || !cpu_scratch(cpu, (size_t)bytes))
        return;
    a.parts = base_plan_take(&plan, floats, sizeof(float));
    all =
        (task_list){.list = base_plan_take(&plan, (size_t)all.n, sizeof(task))};
    for (int64_t b = longest / CPU_KEYS; b >= 0; --b)
        for (int s = 0; s < d->n_seq; ++s)
            add_tasks(&all, d, block, s, b);
    a.tasks = all;
    a.at_once = tasks_at_once(&a);
    a.all.count = (all.n + a.at_once - 1) / a.at_once;
    a.joins.count = all.n;
    backend_team_run(be->team, all.n > 1 ? be->n_threads : 1, attn_part, &a);
}

/* ---- backward -------------------------------------------------------- */

typedef struct grad_views {
    backend_view dq, dk, dv, dout, q, k, v, o, lse, delta;
} grad_views;

/* Some query heads of one K/V head of a sequence. */
typedef struct grad_task {
    int32_t seq, kv_head, head, heads; /* head: the first within the group */
    float *dk_part, *dv_part;          /* NULL: the whole group is here */
} grad_task;

/* A sequence longer than SPLIT_LENGTH has few tasks for its work, so its heads
 * are dealt out two at a time; their dK and dV are added afterwards, in order.
 * By the length alone: a sequence's bits do not depend on its company. */
enum { SPLIT_LENGTH = 1024, SPLIT_HEADS = 2 };

static int64_t grad_pieces(const backend_attn *d, int s)
{
    int64_t len_k, len_q = lengths(d, s, &len_k);
    int group = d->n_heads / d->n_kv_heads;
    CPU_REQUIRE(len_q == len_k);
    return len_q > SPLIT_LENGTH ? (group + SPLIT_HEADS - 1) / SPLIT_HEADS : 1;
}

/* Floats of one dK (or dV) of a sequence. */
static int64_t part_floats(const backend_attn *d, int s)
{
    return (int64_t)(d->cu_q[s + 1] - d->cu_q[s]) * CPU_ROUND_UP(d->head_dim);
}

static void run_grad(cpu_backend *cpu, const grad_task *t, const grad_views *g,
                     const backend_attn *d, int thread)
{
    const int D = d->head_dim, s = t->seq;
    const int64_t row = d->cu_q[s], kv_row = d->cu_k[s];
    const int64_t head =
        (int64_t)t->kv_head * (d->n_heads / d->n_kv_heads) + t->head;
    const int64_t col = head * D, kv_col = (int64_t)t->kv_head * D;
    const cpu_attn_grad at = {
        .q = cpu_at(g->q, row, col),
        .k = cpu_at(g->k, kv_row, kv_col),
        .v = cpu_at(g->v, kv_row, kv_col),
        .o = cpu_at(g->o, row, col),
        .dout = cpu_at(g->dout, row, col),
        .dq = cpu_at(g->dq, row, col),
        .dk = cpu_at(g->dk, kv_row, kv_col),
        .dv = cpu_at(g->dv, kv_row, kv_col),
        .lse = cpu_at(g->lse, row, head),
        .delta = cpu_at(g->delta, row, head),
        .ldq = g->q.ld,
        .ldk = g->k.ld,
        .ldv = g->v.ld,
        .ldo = g->o.ld,
        .lddo = g->dout.ld,
        .lddq = g->dq.ld,
        .lddk = g->dk.ld,
        .lddv = g->dv.ld,
        .ldlse = g->lse.ld,
        .lddelta = g->delta.ld,
        .dk_part = t->dk_part,
        .dv_part = t->dv_part,
        .heads = t->heads,
        .head_dim = D,
        .n = d->cu_q[s + 1] - row,
        .window = d->window,
        .scale = (float)d->scale,
        .bf = g->q.dtype == BASE_BF16,
    };
    void *scratch = cpu_scratch_of(cpu, thread);
    if (cpu->tiles)
        cpu->tiles->attn_grad(&at, scratch);
    else
        cpu->k->attn_grad(&at, scratch);
}

/* Sequences by falling length, equal ones in order. */
static void sort_sequences(const backend_attn *d, int32_t *order)
{
    for (int s = 0; s < d->n_seq; ++s) {
        int32_t n = d->cu_q[s + 1] - d->cu_q[s];
        int i = s;
        for (; i > 0; --i) {
            int32_t before = order[i - 1];
            if (d->cu_q[before + 1] - d->cu_q[before] >= n)
                break;
            order[i] = before;
        }
        order[i] = s;
    }
}

/* The tasks, longest first; the pieces of a group follow each other, and so do
 * their parts. */
static void fill_grad_tasks(const backend_attn *d, const int32_t *order,
                            grad_task *out, float *parts)
{
    const int group = d->n_heads / d->n_kv_heads;
    for (int i = 0; i < d->n_seq; ++i) {
        const int s = order[i];
        const int64_t pieces = grad_pieces(d, s), floats = part_floats(d, s);
        for (int kv = 0; kv < d->n_kv_heads; ++kv)
            for (int64_t p = 0; p < pieces; ++p) {
                int head = (int)p * SPLIT_HEADS, left = group - head;
                grad_task t = {s, kv, head, group, NULL, NULL};
                if (pieces > 1) {
                    t.heads = left < SPLIT_HEADS ? left : SPLIT_HEADS;
                    t.dk_part = parts;
                    t.dv_part = parts + floats;
                    parts += 2 * floats;
                }
                *out++ = t;
            }
    }
}

/* dk, dv of one group: the sum of the parts of its pieces. */
static void add_parts(cpu_backend *cpu, const grad_task *t, int64_t pieces,
                      const grad_views *g, const backend_attn *d)
{
    const int64_t D = d->head_dim, ld = CPU_ROUND_UP(D);
    const int64_t row = d->cu_k[t->seq], n = d->cu_k[t->seq + 1] - row;
    const bool bf = g->dk.dtype == BASE_BF16;
    for (int64_t p = 1; p < pieces; ++p) {
        cpu->k->add(t->dk_part, t[p].dk_part, n * ld, false);
        cpu->k->add(t->dv_part, t[p].dv_part, n * ld, false);
    }
    for (int64_t i = 0; i < n; ++i) {
        cpu->k->axpby(cpu_at(g->dk, row + i, t->kv_head * D),
                      t->dk_part + i * ld, 1, 0, D, bf);
        cpu->k->axpby(cpu_at(g->dv, row + i, t->kv_head * D),
                      t->dv_part + i * ld, 1, 0, D, bf);
    }
}

/* What cpu_attn_bwd() gives its threads. */
typedef struct gradient {
    cpu_backend *cpu;
    const grad_task *list;
    const grad_views *views;
    const backend_attn *d;
    backend_tasks all, sums;
} gradient;

static void grad_part(void *context, int thread, int n)
{
    gradient *g = context;
    int64_t i;
    while (backend_take(&g->all, &i))
        if (part_floats(g->d, g->list[i].seq))
            run_grad(g->cpu, &g->list[i], g->views, g->d, thread);
    if (g->sums.count == 0)
        return;
    backend_team_meet(g->cpu->be.team, n);
    while (backend_take(&g->sums, &i)) {
        const grad_task *t = &g->list[i];
        if (t->dk_part && t->head == 0)
            add_parts(g->cpu, t, grad_pieces(g->d, t->seq), g->views, g->d);
    }
}

static void cpu_attn_bwd(backend *be, backend_view dq, backend_view dk,
                         backend_view dv, backend_view dout, backend_view q,
                         backend_view k, backend_view v, backend_view o,
                         backend_view lse, backend_view delta,
                         const backend_attn *d)
{
    cpu_backend *cpu = cpu_of(be);
    require(be, d, q, k, v);
    require(be, d, dq, dk, dv);
    require(be, d, dout, k, v);
    CPU_REQUIRE(!d->block_table && o.dtype == be->act && o.cols == q.cols);
    CPU_REQUIRE(lse.dtype == be->acc && delta.dtype == be->acc);
    if (cpu->failed)
        return;
    int64_t longest = 0, n = 0, floats = 0;
    for (int s = 0; s < d->n_seq; ++s) {
        int64_t len_k, len_q = lengths(d, s, &len_k);
        int64_t pieces = grad_pieces(d, s);
        longest = len_q > longest ? len_q : longest;
        n += d->n_kv_heads * pieces;
        if (pieces > 1)
            floats += d->n_kv_heads * pieces * 2 * part_floats(d, s);
    }
    const grad_views views = {dq, dk, dv, dout, q, k, v, o, lse, delta};
    base_plan plan = {0};
    base_plan_take(&plan, (size_t)floats, sizeof(float));
    base_plan_take(&plan, (size_t)n, sizeof(grad_task));
    base_plan_take(&plan, (size_t)d->n_seq, sizeof(int32_t));
    size_t bytes =
        (size_t)(cpu->tiles ? cpu->tiles->attn_grad_bytes(d->head_dim, longest)
                            : cpu->k->attn_grad_bytes(d->head_dim, longest));
    plan = (base_plan){.base = cpu_list(cpu, plan.used)};
    if (!plan.base || !cpu_scratch(cpu, bytes))
        return;
    float *parts = base_plan_take(&plan, (size_t)floats, sizeof(float));
    grad_task *tasks = base_plan_take(&plan, (size_t)n, sizeof(grad_task));
    int32_t *order = base_plan_take(&plan, (size_t)d->n_seq, sizeof(int32_t));
    sort_sequences(d, order);
    fill_grad_tasks(d, order, tasks, parts);
    gradient g = {.cpu = cpu, .list = tasks, .views = &views, .d = d};
    g.all.count = n;
    g.sums.count = floats > 0 ? n : 0;
    backend_team_run(be->team, be->n_threads, grad_part, &g);
}

/* ---- pages ----------------------------------------------------------- */

static void cpu_kv_write(backend *be, backend_view k_pool, backend_view v_pool,
                         backend_view k, backend_view v, const backend_attn *d)
{
    CPU_REQUIRE(k_pool.cols == k.cols && v_pool.cols == v.cols);
    CPU_REQUIRE(k_pool.dtype == k.dtype && v_pool.dtype == v.dtype);
    CPU_REQUIRE(!d->block_table || d->page > 0);
    if (cpu_of(be)->failed)
        return;
    const size_t k_bytes = (size_t)k.cols * base_dtype_bytes(k.dtype);
    const size_t v_bytes = (size_t)v.cols * base_dtype_bytes(v.dtype);
    for (int s = 0; s < d->n_seq; ++s) {
        int64_t len_k, len_q = lengths(d, s, &len_k);
        for (int64_t i = 0; i < len_q; ++i) {
            int64_t at = len_k - len_q + i, row = d->cu_k[s] + at;
            if (d->block_table)
                row = (int64_t)d->block_table[s * d->table_ld + at / d->page] *
                          d->page +
                      at % d->page;
            memcpy(cpu_at(k_pool, row, 0), cpu_at(k, d->cu_q[s] + i, 0),
                   k_bytes);
            memcpy(cpu_at(v_pool, row, 0), cpu_at(v, d->cu_q[s] + i, 0),
                   v_bytes);
        }
    }
}

void cpu_attn_fill(backend *be)
{
    be->attn = cpu_attn;
    be->attn_bwd = cpu_attn_bwd;
    be->kv_write = cpu_kv_write;
}
