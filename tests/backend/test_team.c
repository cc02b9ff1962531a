/* test_team.c - the threads of a backend: every task is done once, meetings
 * separate what comes before from what comes after, and threads that fell
 * asleep are woken. More threads than most machines have processors. */
#include <criterion/criterion.h>
#include <sched.h>
#include <time.h>

#include "backend/team.h"

enum { THREADS = 7, TASKS = 1000, ROUNDS = 300 };

typedef struct work {
    backend_team *team;
    backend_tasks tasks;
    _Atomic int done[TASKS];
    _Atomic int threads, before, early;
    int64_t share[THREADS + 1];
} work;

static void count_tasks(void *context, int thread, int n)
{
    work *w = context;
    int64_t i;
    w->threads++;
    w->share[thread] = backend_share(TASKS, thread, n);
    while (backend_take(&w->tasks, &i))
        w->done[i]++;
}

Test(team, every_task_is_done_once)
{
    backend_team *t = backend_team_new(THREADS);
    cr_assert(t);
    for (int round = 0; round < ROUNDS; round++) {
        const int n = 1 + round % (THREADS + 2),
                  used = n < THREADS ? n : THREADS;
        work w = {.tasks.count = TASKS};
        backend_team_run(t, n, count_tasks, &w);
        cr_assert_eq(w.threads, used);
        for (int i = 0; i < TASKS; i++)
            cr_assert_eq(w.done[i], 1, "round %d, task %d", round, i);
        cr_assert_eq(w.share[0], 0);
        cr_assert_eq(backend_share(TASKS, used, used), TASKS);
        for (int i = 1; i < used; i++)
            cr_assert_geq(w.share[i], w.share[i - 1]);
    }
    backend_team_free(t);
}

static void meet_often(void *context, int thread, int n)
{
    work *w = context;
    for (int i = 0; i < 5; i++) {
        w->before++;
        backend_team_meet(w->team, n);
        w->early += w->before < (i + 1) * n;
        if (thread == i % n) /* somebody is late for the next one */
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        backend_team_meet(w->team, n);
    }
}

Test(team, meetings_wait_for_all)
{
    backend_team *t = backend_team_new(THREADS);
    cr_assert(t);
    for (int round = 0; round < ROUNDS; round++) {
        work w = {.team = t};
        const int n = 1 + round % THREADS;
        backend_team_run(t, n, meet_often, &w);
        cr_assert_eq(w.before, 5 * n);
        cr_assert_eq(w.early, 0, "round %d: %d threads went on alone", round,
                     w.early);
    }
    backend_team_free(t);
}

/* The caller is the one who is waited for, then the one who waits. */
static void be_late(void *context, int thread, int n)
{
    work *w = context;
    (void)n;
    w->threads++;
    if (thread == 1)
        nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    w->before++;
}

Test(team, sleepers_are_woken)
{
    backend_team *t = backend_team_new(3);
    cr_assert(t);
    for (int round = 0; round < 5; round++) {
        work w = {0};
        nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
        backend_team_run(t, 3, be_late, &w);
        cr_assert_eq(w.threads, 3);
        cr_assert_eq(w.before, 3);
    }
    backend_team_free(t);
}

static void look_where(void *context, int thread, int n)
{
    (void)n;
    cpu_set_t *may = context;
    cr_assert_eq(sched_getaffinity(0, sizeof *may, &may[thread]), 0);
}

/* A thread that is woken on its caller's processor leaves it; afterwards it may
 * run wherever it could before. */
Test(team, threads_stay_free)
{
    cpu_set_t before, may[THREADS];
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    backend_team *t = backend_team_new(THREADS);
    cr_assert(t);
    for (int round = 0; round < 10; round++) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        backend_team_run(t, THREADS, look_where, may);
        for (int i = 0; i < THREADS; i++)
            cr_assert(CPU_EQUAL(&may[i], &before), "thread %d", i);
    }
    backend_team_free(t);
}

Test(team, ends_while_its_threads_sleep_or_wait)
{
    for (int i = 0; i < 50; i++) {
        backend_team *t = backend_team_new(1 + i % 4);
        cr_assert(t);
        if (i % 10 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
        backend_team_free(t);
    }
    backend_team_free(NULL);
}
