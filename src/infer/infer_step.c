/* infer_step.c - one step of the engine: requests start, share what is there,
 * are given tokens to compute, and take what came of it. */
#include "infer/infer_i.h"

#include <math.h>
#include <stdlib.h>

#define RNG_STREAM 0x696e666572ULL /* "infer" */

static uint64_t key_of(const infer_job *job)
{
    return job->score ? job->score->adapter_key : job->request.adapter_key;
}

static const model_adapter *adapter_of(const infer_job *job)
{
    return job->score ? job->score->adapter : job->request.adapter;
}

static int32_t token_at(const infer_job *job, int64_t position)
{
    return position < job->n_prompt
               ? job->prompt[position]
               : job->result->ids[position - job->n_prompt];
}

/* A prompt is never computed one row at a time, unless that is all of it: a
 * backend may take other sums for a single row (backend.h, attn), and results
 * would depend on what is there and on who else is in the step. */
enum { LEAST_ROWS = 2 };

/* Positions that need not be computed when they are there: the next one's
 * logits are the first that are wanted. */
static int64_t shareable(const infer_job *job)
{
    const int64_t first = job->score ? job->score->first - 1 : job->n_prompt;
    const int64_t n = infer_least(first, job->n_prompt - LEAST_ROWS);
    return n > 0 ? n : 0;
}

/* ---- pages of a slot ----------------------------------------------------- */

static int32_t last_page(const infer_engine *e, const infer_slot *s)
{
    return s->n_pages ? s->pages[s->n_pages - 1] : infer_pages_root(&e->pages);
}

static void push_page(infer_engine *e, infer_slot *s, int32_t page)
{
    s->pages[s->n_pages++] = page;
    e->promised--;
}

/* A full page with the tokens from `past` on, below `parent`; or -1. */
static int32_t find_full(const infer_engine *e, const infer_job *job,
                         int32_t parent, int64_t past)
{
    int same = 0;
    if (past + INFER_PAGE > shareable(job))
        return -1;
    int32_t page =
        infer_pages_find(&e->pages, parent, key_of(job), job->prompt + past,
                         INFER_PAGE, false, &same);
    return same == INFER_PAGE ? page : -1;
}

/* Copies the beginning of a page that goes on differently. */
static void share_part(infer_engine *e, infer_slot *s)
{
    const infer_job *job = s->job;
    int same = 0;
    int32_t parent = last_page(e, s);
    int32_t from =
        infer_pages_find(&e->pages, parent, key_of(job), job->prompt + s->past,
                         shareable(job) - s->past, true, &same);
    if (from < 0)
        return;
    infer_pages_hold(&e->pages, from); /* must not be taken for the copy */
    if (e->pages.n_free > 0) {
        int32_t to = infer_pages_take(&e->pages, parent, key_of(job));
        push_page(e, s, to);
        model_cache_copy(e->cache, to, from, same);
        infer_pages_add(&e->pages, to, job->prompt + s->past, same);
        e->pages.at[to].ready = same;
        s->past += same;
    }
    infer_pages_drop(&e->pages, from);
}

/* Takes over what others have of the prompt, or compute in this step: keys are
 * written before anyone reads them. */
static void share(infer_engine *e, infer_slot *s)
{
    int64_t before = s->past;
    while (s->past % INFER_PAGE == 0) {
        int32_t page = find_full(e, s->job, last_page(e, s), s->past);
        if (page < 0)
            break;
        infer_pages_hold(&e->pages, page);
        push_page(e, s, page);
        s->past += INFER_PAGE;
    }
    if (s->past % INFER_PAGE == 0 && s->past < shareable(s->job))
        share_part(e, s);
    if (s->job->result)
        s->job->result->n_cached += s->past - before;
}

/* The slot's page for a position, the last one's or the next's. */
static int32_t page_for(infer_engine *e, infer_slot *s, int64_t at)
{
    if (at / INFER_PAGE == s->n_pages)
        push_page(e, s,
                  infer_pages_take(&e->pages, last_page(e, s), key_of(s->job)));
    return s->pages[at / INFER_PAGE];
}

/* Books the slot's `feed` tokens into pages. Guesses only get their place. */
static void write_tokens(infer_engine *e, infer_slot *s)
{
    const int64_t given = s->past + s->feed;
    for (int64_t at = s->past; at < given; at++) {
        int32_t id = token_at(s->job, at);
        infer_pages_add(&e->pages, page_for(e, s, at), &id, 1);
    }
    for (int64_t at = given; at < given + s->n_draft; at++)
        page_for(e, s, at);
}

/* ---- starting -------------------------------------------------------------
 */

/* Pages of the prompt that somebody holds: they cost nothing. */
static int64_t held_pages(const infer_engine *e, const infer_job *job)
{
    int32_t page = infer_pages_root(&e->pages);
    for (int64_t n = 0;; n++) {
        page = find_full(e, job, page, n * INFER_PAGE);
        if (page < 0 || e->pages.at[page].holders == 0)
            return n;
    }
}

static bool has_room(const infer_engine *e, const infer_job *job)
{
    int64_t most = job->score ? e->max_slots : e->max_batch;
    if (e->n_slots >= most)
        return false;
    if (e->n_slots && !e->slots[0].job->score != !job->score)
        return false; /* texts to score and requests do not share steps */
    int64_t need = infer_pages_of(job->positions) - held_pages(e, job);
    return e->promised + need <= e->pages.n_free;
}

static lori_status take_results(const infer_job *job, lori_error *err)
{
    infer_result *r = job->result;
    size_t n = (size_t)job->request.max_new_tokens, top = 0;
    if (!base_mul(n, (size_t)job->request.top_logprobs, &top))
        return base_no_memory(err, SIZE_MAX);
    r->ids = base_alloc(n, sizeof *r->ids);
    r->logprob = base_alloc(n, sizeof *r->logprob);
    r->top = base_alloc(top, sizeof *r->top);
    return r->ids && r->logprob && r->top
               ? LORI_OK
               : base_no_memory(err, n * sizeof *r->logprob);
}

static void tell_done(const infer_hooks *h, int64_t tag)
{
    if (h && h->done)
        h->done(h->context, tag);
}

static lori_status start_jobs(infer_engine *e, const infer_hooks *hooks,
                              lori_error *err)
{
    while (e->first && has_room(e, e->first)) {
        infer_job *job = e->first;
        infer_slot *s = &e->slots[e->n_slots];
        if (job->result)
            BASE_TRY(take_results(job, err));
        e->first = job->next;
        e->last = e->first ? e->last : NULL;
        e->n_waiting--;
        e->n_slots++;
        s->job = job;
        s->past = s->feed = s->n_pages = s->n_draft = 0;
        s->right = s->guessed = 0;
        s->ended = false;
        e->promised += infer_pages_of(job->positions);
        base_rng_start(&s->rng, job->request.sampling.seed, RNG_STREAM);
        if (job->result && job->request.max_new_tokens == 0) {
            int64_t tag = job->request.tag;
            job->result->finish = INFER_LENGTH;
            infer_end_slot(e, e->n_slots - 1);
            tell_done(hooks, tag);
        }
    }
    return LORI_OK;
}

/* ---- who computes what ------------------------------------------------------
 */

/* So many of a prompt's tokens as there is room for, in whole pages when it is
 * not all; 0: it waits. With room for a page and one token more it goes on. */
static int64_t piece(const infer_slot *s, int64_t room)
{
    const int64_t left = s->job->n_prompt - s->past;
    if (left <= room)
        return left;
    const int64_t end = (s->past + room) / INFER_PAGE * INFER_PAGE;
    int64_t n = end - s->past;
    if (left - n < LEAST_ROWS)
        n = left - LEAST_ROWS;
    return n < LEAST_ROWS ? 0 : n;
}

/* A running reply gives its last token; prompts, in their order, a piece. There
 * is room for a page beside max_batch replies, so the first prompt always goes
 * on. */
static void give_tokens(infer_engine *e)
{
    int64_t room = e->max_tokens;
    infer_guess(e);
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        s->feed = s->past >= s->job->n_prompt;
        room -= s->feed + s->n_draft;
        write_tokens(e, s);
    }
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        if (s->feed)
            continue;
        share(e, s);
        s->feed = piece(s, room);
        room -= s->feed;
        write_tokens(e, s);
    }
}

/* e->order: slots by adapter, so that each one's rows lie together; equal
 * ones by arrival. */
static void sort_slots(infer_engine *e)
{
    for (int64_t i = 0; i < e->n_slots; i++) {
        uint64_t key = key_of(e->slots[i].job);
        int64_t at = i;
        for (; at > 0 && key_of(e->slots[e->order[at - 1]].job) > key; at--)
            e->order[at] = e->order[at - 1];
        e->order[at] = i;
    }
}

/* Tokens of a slot from position `from` on, as one sequence. */
static void add_sequence(infer_engine *e, const infer_slot *s, int64_t from,
                         int64_t n, model_step *step)
{
    const int64_t given = s->past + s->feed;
    for (int64_t at = from; at < from + n; at++)
        e->ids[step->n_tokens++] =
            at < given ? token_at(s->job, at) : s->draft[at - given];
    e->past[step->n_seqs] = (int32_t)from;
    memcpy(e->table + step->n_seqs * e->table_ld, s->pages,
           (size_t)s->n_pages * sizeof *e->table);
    e->cu[++step->n_seqs] = (int32_t)step->n_tokens;
}

/* Rows whose logits are wanted, of a slot whose tokens end at n_tokens. */
static void add_rows(infer_engine *e, infer_slot *s, model_step *step)
{
    const infer_job *job = s->job;
    const int64_t n = s->feed + s->n_draft;
    int64_t first = job->score ? job->score->first - 1 : job->n_prompt - 1;
    if (!job->score && s->past > first)
        first = s->past;
    s->first_row = step->n_rows;
    for (int64_t k = 0; k < n; k++) {
        int64_t at = s->past + k;
        if (at < first)
            continue;
        e->row[step->n_rows] = (int32_t)(step->n_tokens - n + k);
        if (job->score)
            e->target[step->n_rows] = job->score->ids[at + 1];
        step->n_rows++;
    }
    s->n_rows = step->n_rows - s->first_row;
}

static void add_segment(infer_engine *e, const infer_slot *s, model_step *step)
{
    const model_adapter *ad = adapter_of(s->job);
    model_segment *last = &e->segments[step->n_segments];
    if (step->n_segments && last[-1].adapter == ad)
        last--;
    else
        step->n_segments++;
    *last = (model_segment){step->n_tokens, ad};
}

static model_step build_step(infer_engine *e)
{
    model_step step = {.ids = e->ids,
                       .cu = e->cu,
                       .past = e->past,
                       .table = e->table,
                       .table_ld = e->table_ld,
                       .row = e->row,
                       .segments = e->segments};
    sort_slots(e);
    e->cu[0] = 0;
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[e->order[i]];
        s->n_rows = 0;
        if (s->feed == 0)
            continue;
        add_sequence(e, s, s->past, s->feed, &step);
        /* Each by itself, as it would be computed if it were no guess. */
        for (int64_t k = 0; k < s->n_draft; k++)
            add_sequence(e, s, s->past + s->feed + k, 1, &step);
        add_rows(e, &e->slots[e->order[i]], &step);
        add_segment(e, s, &step);
    }
    if (e->slots[0].job->score)
        step.target = e->target;
    return step;
}

/* ---- what came of it
 * --------------------------------------------------------- */

static void mark_ready(infer_engine *e)
{
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        for (int64_t k = s->past / INFER_PAGE; k < s->n_pages; k++)
            e->pages.at[s->pages[k]].ready = e->pages.at[s->pages[k]].n;
        s->past += s->feed;
    }
}

/* A row of logits as floats, in place or in c->buffer. */
static const float *logits_row(const infer_engine *e, infer_chooser *c,
                               int64_t row)
{
    int64_t vocab = e->config->vocab;
    if (e->acc == BASE_F32)
        return (const float *)e->logits + row * vocab;
    const double *x = (const double *)e->logits + row * vocab;
    for (int64_t i = 0; i < vocab; i++)
        c->buffer[i] = (float)x[i];
    return c->buffer;
}

/* Of row `row` of the step's logits: token n of the slot's reply, and those to
 * report. */
static int32_t choose(const infer_engine *e, infer_chooser *c, infer_slot *s,
                      int64_t row, int64_t n)
{
    int64_t vocab = e->config->vocab;
    const infer_request *q = &s->job->request;
    const infer_result *r = s->job->result;
    const float *x = logits_row(e, c, row);
    double lse = e->lse[row];
    infer_top_tokens(x, vocab, lse, r->top + n * q->top_logprobs,
                     q->top_logprobs);
    const float *from = x;
    if (infer_changes_logits(&q->sampling)) {
        memcpy(c->changed, x, (size_t)vocab * sizeof *x);
        infer_process(c->changed, q, r->ids, n, c->zeros);
        from = c->changed;
    }
    const int32_t id =
        infer_sample(from, vocab, &q->sampling, &s->rng, c->scratch);
    r->ids[n] = id;
    r->logprob[n] = (double)x[id] - lse;
    return id;
}

/* A slot's next token, and those behind it as long as guesses are right. Slots
 * may choose at once, each with a chooser of its own. */
static void choose_tokens(const infer_engine *e, infer_chooser *c,
                          infer_slot *s)
{
    const infer_result *r = s->job->result;
    bool right = true;
    for (s->n_new = 0; s->n_new < s->n_rows && right; s->n_new++) {
        const int64_t k = s->n_new;
        const int32_t id = choose(e, c, s, s->first_row + k, r->n + k);
        right = k < s->n_draft && id == s->draft[k];
    }
}

/* Decides whether the request ends with its newest token. */
static void judge(infer_slot *s, int32_t id, const infer_hooks *hooks)
{
    const infer_request *q = &s->job->request;
    infer_result *r = s->job->result;
    bool stop = false;
    for (int64_t i = 0; i < q->n_stops; i++)
        stop |= q->stops[i] == id;
    infer_next next = hooks && hooks->token
                          ? hooks->token(hooks->context, q->tag, id)
                          : INFER_GO_ON;
    s->ended = true;
    if (stop || next == INFER_END_STOP)
        r->finish = INFER_STOP;
    else if (next == INFER_GO_ON && r->n == q->max_new_tokens)
        r->finish = INFER_LENGTH;
    else
        s->ended = next == INFER_END_CANCEL;
}

static void choose_part(void *context, int thread, int n)
{
    infer_engine *e = context;
    const int64_t end = backend_share(e->n_slots, thread + 1, n);
    for (int64_t i = backend_share(e->n_slots, thread, n); i < end; i++)
        choose_tokens(e, &e->choosers[thread], &e->slots[e->order[i]]);
}

/* The newest token was guessed: its keys and values are there. */
static void keep_guess(infer_engine *e, infer_slot *s)
{
    const infer_result *r = s->job->result;
    const int32_t i = s->pages[s->past / INFER_PAGE];
    infer_pages_add(&e->pages, i, &r->ids[r->n - 1], 1);
    e->pages.at[i].ready = e->pages.at[i].n;
    s->past++;
}

static void take_tokens(infer_engine *e, const infer_hooks *hooks)
{
    backend_parallel(model_get_backend(e->m),
                     e->n_slots > 1 ? e->n_choosers : 1, choose_part, e);
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[e->order[i]];
        infer_result *r = s->job->result;
        if (s->n_draft > 0)
            infer_guessed(s, s->n_new - 1);
        for (int64_t k = 0; k < s->n_new && !s->ended; k++) {
            if (k > 0)
                keep_guess(e, s);
            judge(s, r->ids[r->n++], hooks);
        }
    }
}

static void take_scores(infer_engine *e)
{
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        const infer_score_item *item = s->job->score;
        const int64_t begin = s->past - s->feed - (item->first - 1);
        double *nll = item->nll + (begin > 0 ? begin : 0);
        for (int64_t k = 0; k < s->n_rows; k++)
            nll[k] = e->nll[s->first_row + k];
        s->ended = s->past == s->job->n_prompt;
    }
}

static void remove_ended(infer_engine *e, const infer_hooks *hooks)
{
    for (int64_t i = 0; i < e->n_slots;) {
        if (!e->slots[i].ended) {
            i++;
            continue;
        }
        int64_t tag = e->slots[i].job->request.tag;
        infer_end_slot(e, i);
        tell_done(hooks, tag);
    }
}

/* ---- the step
 * ------------------------------------------------------------------ */

static void drop_cancelled(infer_engine *e, const infer_hooks *h)
{
    if (!h || !h->cancelled)
        return;
    for (int64_t i = 0; i < e->n_slots; i++)
        e->slots[i].ended =
            h->cancelled(h->context, e->slots[i].job->request.tag);
    remove_ended(e, h);
    infer_job *last = NULL;
    for (infer_job **at = &e->first; *at;) {
        infer_job *job = *at;
        if (!h->cancelled(h->context, job->request.tag)) {
            last = job;
            at = &job->next;
            continue;
        }
        int64_t tag = job->request.tag;
        *at = job->next;
        free(job);
        e->n_waiting--;
        tell_done(h, tag);
    }
    e->last = last;
}

/* The workspace, made anew for an adapter of higher rank. */
static lori_status ensure_run(infer_engine *e, lori_error *err)
{
    if (e->run && e->run_rank >= e->max_rank)
        return LORI_OK;
    model_run_free(e->run);
    e->run = NULL;
    e->run_rank = e->max_rank;
    model_limits limits = {.tokens = e->max_tokens,
                           .seqs = e->max_slots,
                           .rows = e->max_tokens,
                           .rank = e->max_rank};
    return model_run_new(e->m, &limits, &e->run, err);
}

/* What may be spent on compact copies: half of the memory that stays free
 * when the mapped weights, which prompts still need, keep their pages. */
static int64_t compact_most(const infer_engine *e)
{
    size_t mapped, converted;
    if (e->compact_bytes > 0)
        return e->compact_bytes;
    model_weight_bytes(e->m, &mapped, &converted);
    return (base_memory_at("").available - (int64_t)mapped) / 2;
}

/* No piece of a prompt, but its last token. */
static bool only_replies(const model_step *step)
{
    return !step->target && step->n_tokens == step->n_rows;
}

/* Makes compact copies of the weights, once, when a step has only replies and
 * one of them is long enough to pay for it: a copy takes as long as 4 to 13
 * steps (fresh memory is slow), and saves a quarter to a third of each. */
static void compact_weights(infer_engine *e, const model_step *step)
{
    enum { PAYS_FROM = 64 };
    int64_t left = 0;
    if (e->compact_bytes < 0 || !only_replies(step))
        return;
    for (int64_t i = 0; i < e->n_slots; i++) {
        const infer_job *job = e->slots[i].job;
        int64_t n = job->request.max_new_tokens - job->result->n;
        left = n > left ? n : left;
    }
    if (left < PAYS_FROM)
        return;
    model_compact(e->m, compact_most(e));
    e->compact_bytes = -1;
}

static lori_status advance(infer_engine *e, const infer_hooks *hooks,
                           lori_error *err)
{
    BASE_TRY(start_jobs(e, hooks, err));
    if (e->n_slots == 0)
        return LORI_OK;
    BASE_TRY(ensure_run(e, err));
    give_tokens(e);
    model_step step = build_step(e);
    compact_weights(e, &step);
    const double start = base_now_s();
    if (step.target)
        BASE_TRY(model_score_cached(e->run, e->cache, &step, e->nll, err));
    else
        BASE_TRY(model_forward_cached(e->run, e->cache, &step, e->logits,
                                      e->lse, err));
    if (only_replies(&step))
        infer_took(&e->pace, step.n_rows, base_now_s() - start);
    mark_ready(e);
    if (step.target)
        take_scores(e);
    else
        take_tokens(e, hooks);
    remove_ended(e, hooks);
    return LORI_OK;
}

lori_status infer_step(infer_engine *e, const infer_hooks *hooks,
                       lori_error *err)
{
    drop_cancelled(e, hooks);
    lori_status st = advance(e, hooks, err);
    if (st)
        infer_clear(e);
    return st;
}
