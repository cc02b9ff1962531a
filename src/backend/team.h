/* team.h - the threads that a backend computes with on this machine's
 * processors. Private to backend/; others have backend_parallel().
 *
 * Why not OpenMP's: a step of decoding is 150 parts of 20 to 90 us, and a
 * thread that waits must neither sleep (waking it takes 40 us, on some virtual
 * machines 500) nor spin (another program that wants the processor pays for
 * every spin). GNU's and LLVM's runtimes do one or the other. Here it spins for
 * some microseconds, then offers its processor to others again and again, and
 * sleeps when nothing came for some milliseconds. */
#ifndef BACKEND_TEAM_H
#define BACKEND_TEAM_H

#include <stdatomic.h>

#include "backend/backend.h"

/* n threads, of which the calling one is the first: n - 1 are started, with
 * all signals blocked but those of faults. NULL: no memory, or no thread. */
backend_team *backend_team_new(int n);
void backend_team_free(backend_team *t); /* NULL is fine */

/* Calls part(context, thread, n) on threads 0, the caller, to n - 1, and
 * returns when all are done. n 1: on the caller alone. Not from within a part,
 * nor from two threads at once. */
void backend_team_run(backend_team *t, int n, backend_part *part,
                      void *context);

/* Inside a part: waits until all n threads are here. */
void backend_team_meet(backend_team *t, int n);

/* ---- dealing out tasks ------------------------------------------------- */

/* Tasks 0 to count - 1, each to who asks first. In the context of a part. */
typedef struct backend_tasks {
    _Atomic int64_t next;
    int64_t count;
} backend_tasks;

static inline bool backend_take(backend_tasks *t, int64_t *i)
{
    *i = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
    return *i < t->count;
}

#endif
