/* test_available.c - the machine's memory under control groups, and sizes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

static char root[256];

static void put(const char *path, const char *text)
{
    char full[512], *slash;
    snprintf(full, sizeof full, "%s%s", root, path);
    slash = strrchr(full, '/');
    *slash = '\0';
    cr_assert_eq(base_mkdirs(full, NULL), LORI_OK);
    *slash = '/';
    cr_assert_eq(base_file_write(full, text, strlen(text), NULL), LORI_OK);
}

static void begin(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/lori-mem-XXXXXX",
             tmp && *tmp ? tmp : P_tmpdir);
    cr_assert_not_null(mkdtemp(root));
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree:   1 kB\n"
                         "MemAvailable:    600 kB\n");
}

static void end(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_assert_eq(system(command), 0);
}
TestSuite(available, .init = begin, .fini = end);

static void expect(int64_t total, int64_t available)
{
    base_memory m = base_memory_at(root);
    cr_expect_eq(m.total, total, "total %lld", (long long)m.total);
    cr_expect_eq(m.available, available, "available %lld",
                 (long long)m.available);
}

Test(available, without_groups)
{
    expect(1024000, 614400);
    base_memory here = base_memory_at("");
    cr_assert(here.available > 0 && here.available <= here.total);
    cr_assert_lt(here.total, INT64_MAX);
}

Test(available, nothing_to_read)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s/proc'", root);
    cr_assert_eq(system(command), 0);
    expect(INT64_MAX, INT64_MAX);
}

Test(available, second_version)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.current", "300000\n");
    expect(1024000, 614400);
    put("/sys/fs/cgroup/a/memory.max", "500000\n"); /* the one above */
    put("/sys/fs/cgroup/a/memory.current", "450000\n");
    expect(500000, 50000);
    /* file cache can be given back, shared memory cannot */
    put("/sys/fs/cgroup/a/memory.stat", "anon 1\nfile 100000\nshmem 20000\n");
    expect(500000, 130000);
    put("/sys/fs/cgroup/a/memory.max", "400000\n");
    expect(400000, 30000);
    put("/sys/fs/cgroup/a/memory.max", "300000\n");
    expect(300000, 0);
}

Test(available, first_version)
{
    put("/proc/self/cgroup", "9:cpu:/x\n4:memory:/x\n0::/\n");
    put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "700000\n");
    put("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "400000\n");
    put("/sys/fs/cgroup/memory/x/memory.stat", "cache 7\ntotal_cache 1000\n");
    expect(700000, 301000);
    put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
        "9223372036854771712\n"); /* its way to say none */
    expect(1024000, 614400);
}

Test(available, processors)
{
    cr_assert_eq(base_cpu_quota_at(root), 0);
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    cr_assert_eq(base_cpu_quota_at(root), 0);
    put("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"); /* the one above */
    cr_assert_eq(base_cpu_quota_at(root), 1.5);
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    cr_assert_eq(base_cpu_quota_at(root), 0.5);
    put("/proc/self/cgroup", "2:cpuacct,cpu:/x\n3:cpuset:/y\n0::/\n");
    put("/sys/fs/cgroup/cpuset/y/cpu.cfs_quota_us", "1\n"); /* not asked */
    put("/sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_quota_us", "-1\n");
    cr_assert_eq(base_cpu_quota_at(root), 0);
    put("/sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_quota_us", "250000\n");
    cr_assert_eq(base_cpu_quota_at(root), 2.5);
    put("/sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_period_us", "0\n");
    cr_assert_eq(base_cpu_quota_at(root), 0);
}

Test(available, hostile_text)
{
    put("/sys/fs/cgroup/cpu.max", "1");

    put("/proc/self/cgroup", "0\n:\n::\n0::\n0::/../..\n4:memory:\n");
    put("/proc/meminfo", "MemTotal: 99999999999999999999 kB\nMemAvailable:");
    base_memory m = base_memory_at(root);
    cr_expect_eq(m.total, INT64_MAX);
}

Test(available, sizes)
{
    static const struct {
        const char *text;
        int64_t bytes; /* -1: none */
    } cases[] = {{"0", 0},
                 {"17", 17},
                 {"6GB", 6000000000},
                 {"6 gb", 6000000000},
                 {"512MiB", 512 << 20},
                 {"1.5KiB", 1536},
                 {"2TB", 2000000000000},
                 {"3 TiB", 3LL << 40},
                 {"", -1},
                 {"GB", -1},
                 {"-1", -1},
                 {"6 G B", -1},
                 {"6G", -1},
                 {"6.GB", 6000000000},
                 {".5GB", -1},
                 {"1e9", -1},
                 {"9999999999999TB", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t got = -1;
        bool is = base_parse_bytes(cases[i].text, &got);
        cr_expect_eq(is ? got : -1, cases[i].bytes, "%s: %lld", cases[i].text,
                     (long long)got);
    }
}
