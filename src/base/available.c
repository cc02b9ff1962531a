/* available.c - how much memory this process may still take, and how many
 * processors' time: what the kernel says is free, and what the control groups
 * above the process leave. Refuses nothing: what cannot be read does not limit.
 * Includes base.h and libc. Source: proc_meminfo(5); kernel docs,
 * cgroup-v1/memory.rst, scheduler/sched-bwc.rst, cgroup-v2.rst. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

enum { TEXT = 16384, PATH = 4096 };

/* The start of a small file as text; files of /proc tell no size. */
static bool read_text(const char *root, const char *path, char text[TEXT])
{
    char full[2 * PATH];
    int len = snprintf(full, sizeof full, "%s%s", root, path);
    if (len < 0 || (size_t)len >= sizeof full)
        return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t n = 0;
    ssize_t got;
    while (n < TEXT - 1 && (got = read(fd, text + n, TEXT - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    text[n] = '\0';
    return n > 0;
}

/* The number behind `name` at the start of a line, or -1. */
static int64_t field(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line && *line;) {
        if (!strncmp(line, name, n) && (line[n] == ' ' || line[n] == ':'))
            return strtoll(line + n + 1, NULL, 10);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return -1;
}

/* A file that holds one number; "max" and everything else are -1. */
static int64_t number(const char *root, const char *folder, const char *name)
{
    char path[PATH + 64], text[TEXT];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!read_text(root, path, text) || *text < '0' || *text > '9')
        return -1;
    return strtoll(text, NULL, 10);
}

/* ---- control groups ----------------------------------------------------- */

/* What one group says; v2: in the second version's files. */
typedef void ask_group(const char *root, const char *folder, bool v2,
                       void *out);

/* The group and all above it. */
static void ask_upwards(const char *root, const char *mount, const char *group,
                        bool v2, ask_group *ask, void *out)
{
    char folder[PATH];
    int n = snprintf(folder, sizeof folder, "%s%s", mount, group);
    if (n < 0 || (size_t)n >= sizeof folder)
        return;
    for (size_t least = strlen(mount);;) {
        ask(root, folder, v2, out);
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < least)
            return;
        *slash = '\0';
    }
}

/* Is `name` one of the comma's list? */
static bool lists(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, name, n) && (p[n] == ',' || p[n] == '\0'))
            return true;
    }
    return false;
}

/* Asks the process's groups: of the second version, and of the first's
 * `controller`. */
static void ask_groups(const char *root, const char *controller, ask_group *ask,
                       void *out)
{
    char text[TEXT], mount[PATH];
    if (!read_text(root, "/proc/self/cgroup", text))
        return;
    char *save = NULL; /* lines "4:cpu,cpuacct:/a/b" (v1) and "0::/a/b" (v2) */
    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *kind = strchr(line, ':');
        char *group = kind ? strchr(++kind, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        if (!strcmp(group, "/"))
            *group = '\0';
        int n = snprintf(mount, sizeof mount, "/sys/fs/cgroup/%s", kind);
        if (!*kind)
            ask_upwards(root, "/sys/fs/cgroup", group, true, ask, out);
        else if (lists(kind, controller) && n > 0 && (size_t)n < sizeof mount)
            ask_upwards(root, mount, group, false, ask, out);
    }
}

/* ---- memory ---------------------------------------------------------------
 */

/* What a group leaves. Its file cache counts as free: it is given back under
 * pressure. */
static void ask_memory(const char *root, const char *folder, bool v2, void *to)
{
    base_memory *out = to;
    int64_t limit =
        number(root, folder, v2 ? "memory.max" : "memory.limit_in_bytes");
    int64_t used =
        number(root, folder, v2 ? "memory.current" : "memory.usage_in_bytes");
    if (limit < 0 || used < 0 || limit >= out->total)
        return; /* no limit, or one that the machine sets first */
    char path[PATH + 64], text[TEXT];
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (read_text(root, path, text)) {
        int64_t cache = field(text, v2 ? "file" : "total_cache");
        int64_t shared = field(text, v2 ? "shmem" : "total_shmem");
        cache -= shared > 0 ? shared : 0;
        used -= cache > 0 ? cache : 0;
    }
    int64_t left = limit > used ? limit - used : 0;
    out->total = limit;
    if (left < out->available)
        out->available = left;
}

base_memory base_memory_at(const char *root)
{
    base_memory out = {INT64_MAX, INT64_MAX};
    char text[TEXT];
    if (read_text(root, "/proc/meminfo", text)) {
        int64_t total = field(text, "MemTotal");
        int64_t available = field(text, "MemAvailable");
        if (total > 0 && total < INT64_MAX / 1024)
            out.total = total * 1024;
        if (available >= 0 && available < INT64_MAX / 1024)
            out.available = available * 1024;
    }
    ask_groups(root, "memory", ask_memory, &out);
    return out;
}

/* ---- processors -----------------------------------------------------------
 */

/* "150000 100000" in cpu.max; two files in the first version. */
static void ask_quota(const char *root, const char *folder, bool v2, void *to)
{
    double *out = to;
    int64_t quota = -1, period = -1;
    if (v2) {
        char path[PATH + 64], text[TEXT], *end;
        snprintf(path, sizeof path, "%s/cpu.max", folder);
        if (!read_text(root, path, text) || *text < '0' || *text > '9')
            return; /* "max" */
        quota = strtoll(text, &end, 10);
        period = strtoll(end, NULL, 10);
    } else {
        quota = number(root, folder, "cpu.cfs_quota_us");
        period = number(root, folder, "cpu.cfs_period_us");
    }
    double processors = (double)quota / (double)period;
    if (quota > 0 && period > 0 && (*out == 0 || processors < *out))
        *out = processors;
}

double base_cpu_quota_at(const char *root)
{
    double out = 0;
    ask_groups(root, "cpu", ask_quota, &out);
    return out;
}

/* ---- sizes ------------------------------------------------------------ */

bool base_parse_bytes(const char *text, int64_t *out)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},         {"B", 1},        {"KB", 1e3},
                 {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
                 {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                 {"TiB", 0x1p40}};
    double value = 0, place = 1;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++)
        value = value * 10 + (*p - '0');
    if (p == text)
        return false;
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9'; p++)
            value += (*p - '0') * (place /= 10);
    while (*p == ' ')
        p++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcasecmp(p, units[i].name) && value * units[i].bytes < 0x1p62) {
            *out = (int64_t)(value * units[i].bytes + 0.5);
            return true;
        }
    return false;
}
