/* infer_draft.c - tokens guessed ahead of a reply. Text repeats itself: where
 * its last tokens stood before, those that followed there are guessed. A step
 * computes them as rows of its own beside the reply's newest token, and keeps
 * those that the reply turns out to have. A step of a few rows reads the
 * weights once as one of one row does, so right guesses are nearly free; how
 * nearly is measured, and how often they are right is counted. A row's bits do
 * not depend on other rows, so neither do replies on guesses.
 * Source: prompt lookup decoding (A. Saxena 2023; transformers'
 * prompt_lookup_num_tokens), verified as in arXiv:2211.17192. */
#include "infer/infer_i.h"

enum {
    MATCH_LEAST = 2,  /* tokens that must have stood there before */
    MATCH_MOST = 8,   /* more are no better */
    STALE_AFTER = 128 /* steps until a measured time is forgotten */
};

/* ---- what followed before ------------------------------------------------ */

/* Prompt and reply, one after the other. */
typedef struct history {
    const int32_t *prompt, *reply;
    int64_t n_prompt, n;
} history;

static int32_t at(const history *h, int64_t i)
{
    return i < h->n_prompt ? h->prompt[i] : h->reply[i - h->n_prompt];
}

/* So many tokens before `end` are the last ones. */
static int64_t match(const history *h, int64_t end)
{
    int64_t n = 0;
    while (n < MATCH_MOST && n < end &&
           at(h, end - 1 - n) == at(h, h->n - 1 - n))
        n++;
    return n;
}

/* Behind the latest of the longest matches, or 0. */
static int64_t find(const history *h)
{
    int64_t best = 0, longest = MATCH_LEAST - 1;
    for (int64_t end = h->n - 1; end > 0 && longest < MATCH_MOST; end--) {
        const int64_t n = match(h, end);
        if (n > longest) {
            longest = n;
            best = end;
        }
    }
    return best;
}

/* Guesses go on in themselves where the match is near the end. */
static void look_up(infer_slot *s, int64_t most)
{
    const infer_result *r = s->job->result;
    const history h = {s->job->prompt, r->ids, s->job->n_prompt,
                       s->job->n_prompt + r->n};
    const int64_t from = find(&h);
    if (from == 0)
        return;
    for (int64_t i = 0; i < most; i++)
        s->draft[i] =
            from + i < h.n ? at(&h, from + i) : s->draft[from + i - h.n];
    s->n_draft = most > 0 ? most : 0;
}

/* ---- how many pay -------------------------------------------------------- */

/* Tokens that a step with n guesses brings. Before any were counted every other
 * one is right. */
static double expected(const infer_slot *s, int64_t n)
{
    const double right = (s->right + 1) / (s->guessed + 2);
    double sum = 1, chance = 1;
    for (int64_t i = 0; i < n; i++)
        sum += chance *= right;
    return sum;
}

/* The nearest measured number of rows from `rows` on in a direction, or 0. */
static int64_t measured(const infer_pace *p, int64_t rows, int direction)
{
    while (rows > 0 && rows <= INFER_DRAFT_ROWS && p->seconds[rows] <= 0)
        rows += direction;
    return rows > INFER_DRAFT_ROWS ? 0 : rows;
}

/* Seconds of a step of so many rows, between measured ones or on from them.
 * More than twice as many rows as are known say nothing: 0. */
static double seconds_of(const infer_pace *p, int64_t rows)
{
    int64_t below = measured(p, rows, -1), above = measured(p, rows, 1);
    if (below == 0 || below == rows)
        return below || above ? p->seconds[below ? below : above] : 0;
    if (above == 0) {
        if (rows > 2 * below)
            return 0;
        above = below;
        below = measured(p, below - 1, -1);
        if (below == 0)
            return p->seconds[above];
    }
    const double slope =
        (p->seconds[above] - p->seconds[below]) / (double)(above - below);
    return p->seconds[below] + (slope > 0 ? slope : 0) * (double)(rows - below);
}

static int64_t rows_with(const infer_engine *e, int64_t most)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < e->n_slots; i++)
        rows += 1 + infer_least(e->slots[i].n_draft, most);
    return rows;
}

/* Guesses for every reply that bring most tokens a second. */
static int64_t best_number(const infer_engine *e)
{
    int64_t best = 0;
    double fastest = 0;
    for (int64_t most = 0; most <= INFER_DRAFT; most++) {
        const int64_t rows = rows_with(e, most);
        double tokens = 0;
        if (rows > INFER_DRAFT_ROWS || rows > e->max_rows)
            break;
        for (int64_t i = 0; i < e->n_slots; i++)
            tokens +=
                expected(&e->slots[i], infer_least(e->slots[i].n_draft, most));
        const double seconds = seconds_of(&e->pace, rows);
        if (seconds > 0 && tokens / seconds > fastest) {
            fastest = tokens / seconds;
            best = most;
        }
    }
    return best;
}

/* As many as were asked for and there is room for. */
static int64_t asked_number(const infer_engine *e)
{
    int64_t most = infer_least(e->draft_tokens, INFER_DRAFT);
    while (most > 0 && rows_with(e, most) > e->max_rows)
        most--;
    return most;
}

void infer_guess(infer_engine *e)
{
    bool replies = e->draft_tokens >= 0 && e->n_slots < INFER_DRAFT_ROWS;
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        s->n_draft = 0;
        replies = replies && !s->job->score && s->past >= s->job->n_prompt;
    }
    if (!replies)
        return;
    for (int64_t i = 0; i < e->n_slots; i++) {
        infer_slot *s = &e->slots[i];
        const infer_job *job = s->job;
        const int64_t left = job->request.max_new_tokens - job->result->n;
        look_up(s, infer_least(INFER_DRAFT, left - 1));
    }
    const int64_t most = e->draft_tokens > 0 ? asked_number(e) : best_number(e);
    for (int64_t i = 0; i < e->n_slots; i++)
        e->slots[i].n_draft = infer_least(e->slots[i].n_draft, most);
}

/* ---- what is learned ----------------------------------------------------- */

void infer_guessed(infer_slot *s, int64_t right)
{
    const double keep = 0.95; /* of twenty steps or so */
    s->right = s->right * keep + (double)right;
    s->guessed = s->guessed * keep + (double)(right + (right < s->n_draft));
}

void infer_took(infer_pace *p, int64_t rows, double seconds)
{
    p->step++;
    for (int64_t i = 1; i <= INFER_DRAFT_ROWS; i++)
        if (p->step - p->seen[i] > STALE_AFTER)
            p->seconds[i] = 0;
    if (rows > INFER_DRAFT_ROWS)
        return;
    const double before = p->seconds[rows];
    p->seconds[rows] = before > 0 ? before + (seconds - before) / 4 : seconds;
    p->seen[rows] = p->step;
}
