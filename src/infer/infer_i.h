/* infer_i.h - private to src/infer. Who does what:
 *   infer_sample.c  from logits to a token
 *   infer_text.c    from tokens to text, stop strings
 *   infer_pages.c   pages of keys and values, and which prefixes they hold
 *   infer_engine.c  requests in and out, memory
 *   infer_step.c    one step: who computes what, and what comes of it
 *   infer_draft.c   tokens guessed ahead
 *   infer_score.c   log-probabilities of given texts */
#ifndef INFER_INFER_I_H
#define INFER_INFER_I_H

#include "infer/infer.h"

static inline int64_t infer_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- sampling ------------------------------------------------------- */

/* A token that survives the filters. */
typedef struct infer_candidate {
    double p; /* probability among the survivors; they sum to 1 */
    float x;  /* logit over temperature */
    int32_t id;
} infer_candidate;

/* Whether infer_process would change anything. */
bool infer_changes_logits(const infer_sampling *s);
/* Bias, penalties and min_new_tokens, in place on x [vocab]. zeros [vocab]:
 * scratch that is zero before and after. */
void infer_process(float *x, const infer_request *q, const int32_t *reply,
                   int64_t n_reply, int32_t *zeros);
/* Temperature, top-k, top-p, min-p: fills c [vocab] with the survivors and
 * returns their number (>= 1). By id when no filter is on, else most likely
 * first, equal logits by id. */
int64_t infer_filter(const float *logits, int64_t vocab,
                     const infer_sampling *s, infer_candidate *c);
int64_t infer_argmax(const float *x, int64_t n);
/* The n_top (<= vocab) largest as log-probabilities, equal ones by id. */
void infer_top_tokens(const float *x, int64_t vocab, double lse, infer_top *top,
                      int64_t n_top);

/* ---- pages ---------------------------------------------------------- */

#define INFER_PAGE 16 /* positions */
static inline int64_t infer_pages_of(int64_t positions)
{
    return (positions + INFER_PAGE - 1) / INFER_PAGE;
}

/* A page is a node of a tree: its tokens follow those of its parent. A path
 * from the root is a prefix whose keys and values are there. Requests hold the
 * pages of their path; a page that nobody holds stays in the tree until its
 * memory is needed for another, least recently used first. */
typedef struct infer_page {
    int32_t parent, child, next, prev; /* next, prev: siblings */
    int32_t newer, older;              /* among pages that nobody holds */
    int32_t holders;
    int32_t n;     /* tokens in it, with those of the step in progress */
    int32_t ready; /* of which computed */
    uint64_t key;  /* adapter */
} infer_page;

typedef struct infer_pages {
    infer_page *at;  /* [n + 1]; the last is the root */
    int32_t *tokens; /* [n, INFER_PAGE] */
    int64_t n;
    int64_t n_free;         /* pages that nobody holds */
    int32_t oldest, newest; /* of these; -1: none */
} infer_pages;

lori_status infer_pages_init(infer_pages *p, int64_t n, lori_error *err);
void infer_pages_fini(infer_pages *p);
int32_t infer_pages_root(const infer_pages *p);
/* The child of `parent` that shares most of tokens[0..n), -1 when none shares
 * any; *same: how many. `ready`: only computed tokens count. */
int32_t infer_pages_find(const infer_pages *p, int32_t parent, uint64_t key,
                         const int32_t *tokens, int64_t n, bool ready,
                         int *same);
void infer_pages_hold(infer_pages *p, int32_t page);
/* A held page without tokens, child of `parent`. There must be a free one. */
int32_t infer_pages_take(infer_pages *p, int32_t parent, uint64_t key);
void infer_pages_add(infer_pages *p, int32_t page, const int32_t *tokens,
                     int n);
/* The other way round: children before their parents. Tokens of a step that
 * failed are forgotten. */
void infer_pages_drop(infer_pages *p, int32_t page);

/* ---- the engine ----------------------------------------------------- */

/* A request or a text to score, waiting or running. */
typedef struct infer_job {
    struct infer_job *next; /* in the queue */
    infer_request request;
    infer_result *result;
    infer_score_item *score; /* NULL: a request */
    const int32_t *prompt;   /* tokens that are given */
    int64_t n_prompt;
    int64_t positions; /* that it may come to occupy */
} infer_job;

#define INFER_DRAFT_ROWS 16 /* rows of a step that guesses, at most */

typedef struct infer_slot {
    infer_job *job;
    int64_t past; /* positions in the cache before this step */
    int64_t feed; /* tokens given to this step */
    int64_t n_pages;
    int32_t *pages; /* [table_ld] */
    base_rng rng;
    int64_t n_draft; /* guesses behind `feed` */
    int32_t draft[INFER_DRAFT];
    double right, guessed;     /* guesses of the last steps, as far as the first
                                  wrong one */
    int64_t first_row, n_rows; /* of logits that this step gives it */
    int64_t n_new;             /* tokens that came of it */
    bool ended;
} infer_slot;

/* Seconds of steps that have only replies, by their rows; 0: not known. */
typedef struct infer_pace {
    double seconds[INFER_DRAFT_ROWS + 1];
    int64_t seen[INFER_DRAFT_ROWS + 1], step; /* when */
} infer_pace;

/* A thread's memory for choosing tokens, [vocab] each. */
typedef struct infer_chooser {
    infer_candidate *scratch;
    float *buffer, *changed;
    int32_t *zeros;
} infer_chooser;

struct infer_engine {
    model *m;
    const model_config *config;
    base_dtype acc;
    int64_t max_batch, step_tokens, context;
    int64_t compact_bytes; /* as in infer_limits; -1 also when they are made */
    int64_t draft_tokens;  /* as in infer_limits */
    int64_t max_slots, max_tokens, table_ld;
    int64_t max_rows; /* of logits */
    int64_t max_rank; /* of the adapters seen */
    int64_t run_rank; /* of `run` */

    infer_job *first, *last; /* waiting, in their order */
    int64_t n_waiting;
    infer_slot *slots; /* [max_slots], the first n_slots run, by arrival */
    int64_t n_slots;
    int64_t promised; /* pages that running requests may still take */
    infer_pages pages;
    infer_pace pace;

    /* one step's operands */
    int32_t *ids, *cu, *past, *table, *row, *target;
    model_segment *segments;
    int64_t *order;          /* [max_slots] slots by adapter */
    double *nll;             /* [max_tokens] */
    double *lse;             /* [max_rows], of a row of logits */
    void *logits;            /* [max_rows, vocab] acc */
    infer_chooser *choosers; /* [n_choosers], one for every thread */
    int n_choosers;
    model_run *run;
    model_cache *cache;
};

/* LORI_INVALID naming `what` and the place when an id is not in [0, vocab). */
lori_status infer_check_ids(const int32_t *ids, int64_t n, int64_t vocab,
                            const char *what, int64_t index, lori_error *err);
/* LORI_INVALID when it can never run. */
lori_status infer_check_request(const infer_engine *e, const infer_request *q,
                                lori_error *err);
/* Puts a copy of `job` at the end of the queue. */
lori_status infer_enqueue(infer_engine *e, const infer_job *job,
                          lori_error *err);
/* Its pages go back, its job is freed; slots behind it move up. */
void infer_end_slot(infer_engine *e, int64_t at);

/* Fills the drafts of all slots, where that pays; else with none. */
void infer_guess(infer_engine *e);
/* Of a slot's guesses, the first `right` were. */
void infer_guessed(infer_slot *s, int64_t right);
/* A step of replies took so long. */
void infer_took(infer_pace *p, int64_t rows, double seconds);

#endif
