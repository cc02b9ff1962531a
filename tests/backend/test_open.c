/* test_open.c - opening backends by name; memory, and how rows lie in it; the
 * machine's line. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/backend.h"

Test(open, an_unknown_name_is_refused_with_the_nearest)
{
    backend_options options = {.name = "reff", .dtype = BASE_F32};
    backend *be = (backend *)1;
    lori_error err = {0};
    cr_assert_eq(backend_open(&options, &be, &err), LORI_INVALID);
    cr_assert_null(be);
    cr_assert(strstr(err.message, "'reff'") && strstr(err.message, "'ref'"),
              "%s", err.message);
    backend_close(NULL);
}

Test(open, the_default_is_cpu)
{
    backend_options options = {.dtype = BASE_F32};
    backend *be = NULL;
    lori_error err = {0};
    cr_assert_eq(backend_open(&options, &be, &err), LORI_OK, "%s", err.message);
    cr_assert_str_eq(be->name, "cpu");
    cr_assert(be->n_threads >= 1 && be->detail && *be->detail);
    backend_close(be);
}

Test(open, types_that_a_backend_lacks_are_refused)
{
    backend_options options = {.name = "ref", .dtype = BASE_BF16};
    backend *be = NULL;
    cr_assert_neq(backend_open(&options, &be, NULL), LORI_OK);
    options = (backend_options){.name = "cpu", .dtype = BASE_F64};
    cr_assert_neq(backend_open(&options, &be, NULL), LORI_OK);
    options = (backend_options){.name = "cpu", .dtype = BASE_F32, .isa = "mmx"};
    cr_assert_neq(backend_open(&options, &be, NULL), LORI_OK);
    cr_assert_null(be);
}

Test(open, memory_is_aligned_and_zeroed)
{
    static const char *const names[] = {"ref", "cpu", "cuda"};
    for (int t = 0; t < 3; t++) {
        backend_options options = {.name = names[t], .dtype = BASE_F32};
        backend *be = NULL;
        lori_status st = backend_open(&options, &be, NULL);
        if (t == 2 && st == LORI_UNSUPPORTED)
            break; /* no GPU here: see the next test */
        cr_assert_eq(st, LORI_OK);
        unsigned char *p = be->alloc(be, 1000), *h = be->host_alloc(be, 1000);
        cr_assert(p && h);
        cr_assert_eq((uintptr_t)p % 64, 0);
        memset(h, 7, 1000);
        be->copy(be, h, p, 1000, BACKEND_TO_HOST);
        cr_assert_eq(be->sync(be, NULL), LORI_OK);
        for (int i = 0; i < 1000; i++)
            cr_assert_eq(h[i], 0);
        memset(h, 7, 1000);
        be->copy(be, p, h, 1000, BACKEND_TO_DEVICE);
        be->zero(be, p, 500);
        be->copy(be, p + 250, p + 750, 250, BACKEND_ON_DEVICE);
        be->copy(be, h, p, 1000, BACKEND_TO_HOST);
        cr_assert_eq(be->sync(be, NULL), LORI_OK);
        for (int i = 0; i < 1000; i++)
            cr_assert_eq(h[i], i < 250 ? 0 : 7);
        /* Nothing to give: an answer, not a crash. */
        cr_assert_null(be->alloc(be, SIZE_MAX - 8));
        be->free(be, be->alloc(be, 0));
        be->free(be, p);
        be->host_free(be, h);
        backend_close(be);
    }
}

/* Where there is no GPU, or no CUDA in the build, the answer says so and names
 * what can be done. */
Test(open, cuda_opens_or_says_why)
{
    backend_options options = {.name = "cuda", .dtype = BASE_BF16};
    backend *be = NULL;
    lori_error err = {0};
    lori_status st = backend_open(&options, &be, &err);
    if (st == LORI_OK) {
        cr_assert(be->act == BASE_BF16 && be->acc == BASE_F32 && *be->detail);
    } else {
        cr_assert_eq(st, LORI_UNSUPPORTED, "%s", err.message);
        cr_assert_null(be);
        cr_assert(strstr(err.message, "cuda") &&
                      strstr(err.message, "use backend cpu"),
                  "%s", err.message);
    }
    backend_close(be);
}

/* The first failure is kept, what follows does nothing, sync() clears it. */
Test(open, a_failure_is_kept_until_sync)
{
    static const char *const names[] = {"ref", "cuda"};
    for (int t = 0; t < 2; t++) {
        backend_options options = {.name = names[t], .dtype = BASE_F32};
        backend *be = NULL;
        lori_error err = {0};
        if (backend_open(&options, &be, NULL) == LORI_UNSUPPORTED && t == 1)
            break; /* no GPU here */
        cr_assert_not_null(be);
        float x[4] = {1, 2, 3, 4}, *p = be->alloc(be, sizeof x);
        be->copy(be, p, x, sizeof x, BACKEND_TO_DEVICE);
        be->copy(be, NULL, x, sizeof x, BACKEND_TO_DEVICE);
        be->zero(be, p, sizeof x);
        cr_assert_eq(be->sync(be, &err), LORI_DEVICE, "%s", err.message);
        cr_assert(strstr(err.message, "copy"), "%s", err.message);
        memset(x, 0, sizeof x);
        be->copy(be, x, p, sizeof x, BACKEND_TO_HOST);
        cr_assert_eq(be->sync(be, &err), LORI_OK, "%s", err.message);
        cr_assert(x[0] == 1 && x[3] == 4);
        be->free(be, p);
        backend_close(be);
    }
}

Test(open, the_machine_is_one_line)
{
    base_str line = {0};
    backend_machine(&line);
    cr_assert(!line.failed && line.len > 10);
    cr_assert_null(strchr(line.s, '\n'));
    cr_assert(strstr(line.s, "thread"));
    base_str_free(&line);
}

/* The threads of this process, at most 64; signals that each blocks. */
static int list_threads(int ids[64], unsigned long long blocked[64])
{
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *t; tasks && n < 64 && (t = readdir(tasks));) {
        char path[288], line[256];
        if ((ids[n] = atoi(t->d_name)) <= 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", t->d_name);
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "SigBlk: %llx", &blocked[n]) == 1)
                break;
        if (f)
            fclose(f);
        n++;
    }
    if (tasks)
        closedir(tasks);
    return n;
}

static bool has(const int *list, int n, int x)
{
    while (n > 0)
        if (list[--n] == x)
            return true;
    return false;
}

/* An editor's handler on a worker thread read what the main thread freed. */
Test(open, workers_take_no_signals)
{
    int before[64], after[64], workers = 0;
    unsigned long long blocked[64] = {0};
    backend_options options = {.dtype = BASE_F32, .n_threads = 3};
    backend *be = NULL;
    lori_error err = {0};
    int n_before = list_threads(before, blocked);
    cr_assert_eq(backend_open(&options, &be, &err), LORI_OK, "%s", err.message);
    int n = list_threads(after, blocked);
    for (int i = 0; i < n; ++i) {
        const unsigned long long hup = 1ull << (SIGHUP - 1),
                                 bus = 1ull << (SIGBUS - 1);
        if (!has(before, n_before, after[i])) {
            workers++;
            cr_assert(blocked[i] & hup);
            cr_assert_not(blocked[i] & bus);
        } else if (after[i] == getpid()) {
            cr_assert_not(blocked[i] & hup);
        }
    }
    cr_assert_eq(workers, 2);
    backend_close(be);
}

/* 384 bf16 of each of 32 rows in a first cache of 64 sets: at most 10 of a
 * set's 12 lines. Side by side, rows of 2048 elements take 32.
 */
Test(open, rows_apart_spread_over_the_sets_of_a_cache)
{
    enum { ROWS = 32, LINES = 12, SETS = 64 };
    for (int64_t cols = 384; cols <= 16384; cols += 32) {
        const int64_t stride = backend_row_stride(BASE_BF16, cols);
        int most = 0, used[SETS] = {0};
        cr_assert(stride >= cols && stride <= cols + 96 && stride % 32 == 0);
        for (int64_t i = 0; i < ROWS * LINES; i++) {
            const int64_t line = i / LINES * stride / 32 + i % LINES;
            if (++used[line % SETS] > most)
                most = used[line % SETS];
        }
        cr_expect_leq(most, 10, "%d columns: %d lines of a set", (int)cols,
                      most);
    }
    cr_expect_eq(backend_row_stride(BASE_BF16, 576), 576);
    cr_expect_eq(backend_row_stride(BASE_BF16, 32), 32);
    cr_expect_eq(backend_row_stride(BASE_F32, 49152), 49152 + 32);
    cr_expect_eq(backend_row_stride(BASE_F64, 1001), 1001);
}
