/* team.c - threads that wait for parts of an operation (team.h). */
#include "backend/team.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "base/base.h"

enum {
    SPINS = 200,   /* pauses of 10 to 50 ns */
    YIELD_MS = 10, /* then this long; then sleep */
};

/* Most of what a part costs is lines that go from one processor to the other:
 * 60 ns each on one chip, 250 between two. What tells the workers of a part is
 * one, and what tells the caller of a worker's end is one that nobody else
 * writes. */

typedef struct worker {
    _Alignas(64) _Atomic uint32_t done; /* `go` of its last part */
    backend_team *team;
    pthread_t thread;
    int number; /* 1 and on */
} worker;

struct backend_team {
    int n; /* with the caller */
    int started;
    worker *workers;
    _Alignas(64) _Atomic uint32_t go; /* counts parts */
    /* What is to be done; changed before `go`. */
    int n_part;
    backend_part *part;
    void *context;
    int cpu; /* the caller's, when it began */
    bool stop;
    _Alignas(64) _Atomic int here; /* threads that wait to meet */
    _Atomic uint32_t meetings;
    _Alignas(64) _Atomic int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

/* ---- waiting ------------------------------------------------------------ */

/* Whether what a thread waits for has come. */
typedef bool came(backend_team *t, uint32_t before);

static bool next_part(backend_team *t, uint32_t before)
{
    return atomic_load_explicit(&t->go, memory_order_acquire) != before;
}
static bool all_done(backend_team *t, uint32_t go)
{
    for (int i = 0; i < t->started; ++i)
        if (atomic_load_explicit(&t->workers[i].done, memory_order_acquire) !=
            go)
            return false;
    return true;
}
static bool all_here(backend_team *t, uint32_t before)
{
    return atomic_load_explicit(&t->meetings, memory_order_acquire) != before;
}

/* Whoever makes something come changes it first and looks for sleepers then; a
 * sleeper counts itself first and looks whether it came then. */
static void sleep_until(backend_team *t, came *f, uint32_t before)
{
    pthread_mutex_lock(&t->mutex);
    atomic_fetch_add(&t->sleepers, 1);
    atomic_thread_fence(memory_order_seq_cst);
    while (!f(t, before))
        pthread_cond_wait(&t->changed, &t->mutex);
    atomic_fetch_sub(&t->sleepers, 1);
    pthread_mutex_unlock(&t->mutex);
}

static void wake(backend_team *t)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&t->sleepers) == 0)
        return;
    pthread_mutex_lock(&t->mutex);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

/* True: it slept. */
static bool wait_until(backend_team *t, came *f, uint32_t before)
{
    for (int i = 0; i < SPINS; ++i) {
        if (f(t, before))
            return false;
        _mm_pause();
    }
    const double end = base_now_s() + YIELD_MS * 1e-3;
    do {
        sched_yield();
        if (f(t, before))
            return false;
    } while (base_now_s() < end);
    sleep_until(t, f, before);
    return true;
}

/* Linux likes to wake a thread on its waker's processor, and takes 5 to 60 ms
 * to part the two again. */
static void leave_caller(const backend_team *t, int number)
{
    cpu_set_t allowed, one;
    if (t->cpu < 0 || sched_getcpu() != t->cpu ||
        sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
        CPU_COUNT(&allowed) < 2)
        return;
    const size_t caller = (size_t)t->cpu;
    size_t cpu = caller;
    for (int left = number; left > 0;) {
        cpu = (cpu + 1) % CPU_SETSIZE;
        if (CPU_ISSET(cpu, &allowed) && cpu != caller)
            left--;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

/* ---- parts -------------------------------------------------------------- */

static void *work(void *context)
{
    worker *w = context;
    backend_team *t = w->team;
    for (uint32_t seen = 0;;) {
        const bool slept = wait_until(t, next_part, seen);
        if (t->stop)
            return NULL;
        if (slept || seen == 0)
            leave_caller(t, w->number);
        seen++;
        if (w->number < t->n_part)
            t->part(t->context, w->number, t->n_part);
        atomic_store_explicit(&w->done, seen, memory_order_release);
        wake(t);
    }
}

void backend_team_run(backend_team *t, int n, backend_part *part, void *context)
{
    if (n > t->n)
        n = t->n;
    if (n <= 1) {
        part(context, 0, 1);
        return;
    }
    const uint32_t go = atomic_load_explicit(&t->go, memory_order_relaxed) + 1;
    t->part = part;
    t->context = context;
    t->n_part = n;
    t->cpu = sched_getcpu();
    atomic_store_explicit(&t->go, go, memory_order_release);
    wake(t);
    part(context, 0, n);
    wait_until(t, all_done, go);
}

void backend_team_meet(backend_team *t, int n)
{
    if (n <= 1)
        return;
    const uint32_t before = atomic_load(&t->meetings);
    if (atomic_fetch_add(&t->here, 1) + 1 < n) {
        wait_until(t, all_here, before);
        return;
    }
    atomic_store(&t->here, 0);
    atomic_fetch_add(&t->meetings, 1);
    wake(t);
}

/* ---- start and end ------------------------------------------------------ */

/* A handler of the program's (an editor's, say) must run on a thread of the
 * program's. What a fault raises stays open. */
static void block_signals(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; ++i)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, before);
}

static bool start(backend_team *t)
{
    sigset_t before;
    block_signals(&before);
    for (; t->started < t->n - 1; t->started++) {
        worker *w = &t->workers[t->started];
        *w = (worker){.team = t, .number = t->started + 1};
        if (pthread_create(&w->thread, NULL, work, w) != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t->started == t->n - 1;
}

static void arrive(void *context, int thread, int n)
{
    (void)context;
    (void)thread;
    (void)n;
}

backend_team *backend_team_new(int n)
{
    backend_team *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    if (!t)
        return NULL;
    *t = (backend_team){.n = n};
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->changed, NULL);
    t->workers = aligned_alloc(64, (size_t)n * sizeof *t->workers);
    if (!t->workers || !start(t)) {
        backend_team_free(t);
        return NULL;
    }
    /* From here on all of them run, with their own signal masks. */
    backend_team_run(t, n, arrive, NULL);
    return t;
}

void backend_team_free(backend_team *t)
{
    if (!t)
        return;
    t->stop = true;
    atomic_fetch_add(&t->go, 1);
    wake(t);
    for (int i = 0; i < t->started; ++i)
        pthread_join(t->workers[i].thread, NULL);
    free(t->workers);
    pthread_mutex_destroy(&t->mutex);
    pthread_cond_destroy(&t->changed);
    free(t);
}
