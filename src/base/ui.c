/* ui.c - clocks, this process's memory, and calls into the caller's
 * callbacks. Includes base.h and libc. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

double base_now_s(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        return 0;
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A "Field:   123 kB" line of /proc/self/status in bytes, 0 if unknown. */
static int64_t status_bytes(const char *field)
{
    char text[8192];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size_t n = 0;
    ssize_t got;
    while (n < sizeof text - 1 &&
           (got = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    text[n] = '\0';
    const char *at = strstr(text, field);
    return at ? strtoll(at + strlen(field), NULL, 10) * 1024 : 0;
}

int64_t base_rss_peak_bytes(void)
{
    return status_bytes("\nVmHWM:");
}

int64_t base_rss_anon_bytes(void)
{
    return status_bytes("\nRssAnon:");
}

int64_t base_rss_file_bytes(void)
{
    return status_bytes("\nRssFile:");
}

void base_log(const lori_ui *ui, lori_log_level level, const char *fmt, ...)
{
    if (!ui || !ui->log)
        return;
    base_str line = {0};
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&line, fmt, ap);
    va_end(ap);
    if (!line.failed)
        ui->log(ui->context, level, line.s ? line.s : "");
    base_str_free(&line);
}

static BASE_PRINTF(2, 0) void report(const lori_ui *ui, const char *detail_fmt,
                                     va_list ap, lori_progress progress)
{
    if (!ui || !ui->progress)
        return;
    char detail[512] = "";
    if (detail_fmt && vsnprintf(detail, sizeof detail, detail_fmt, ap) < 0)
        detail[0] = '\0';
    progress.detail = detail;
    ui->progress(ui->context, &progress);
}

void base_progress(const lori_ui *ui, const char *what, int64_t done,
                   int64_t total, const char *detail_fmt, ...)
{
    va_list ap;
    va_start(ap, detail_fmt);
    report(ui, detail_fmt, ap,
           (lori_progress){.what = what, .done = done, .total = total});
    va_end(ap);
}

void base_progress_bytes(const lori_ui *ui, const char *what, int64_t done,
                         int64_t total, const char *detail_fmt, ...)
{
    va_list ap;
    va_start(ap, detail_fmt);
    report(ui, detail_fmt, ap,
           (lori_progress){
               .what = what, .done = done, .total = total, .bytes = 1});
    va_end(ap);
}

bool base_interrupted(const lori_ui *ui)
{
    return ui && ui->interrupted && ui->interrupted(ui->context) != 0;
}
