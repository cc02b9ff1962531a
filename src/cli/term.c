/* term.c - the terminal: progress, log lines, streamed text, signals. */
#include "cli/cli.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts;

/* ---- signals --------------------------------------------------------- */

static volatile sig_atomic_t patient;

static void on_interrupt(int signal)
{
    (void)signal;
    if (++interrupts > 1 && !patient)
        _exit(EXIT_INTERRUPTED);
}

static void say(const char *s)
{
    if (write(STDERR_FILENO, s, strlen(s)) < 0)
        _exit(EXIT_FAILED);
}

/* Hexadecimal number at *p, which moves behind it and one separator. */
static uintptr_t read_hex(const char **p)
{
    uintptr_t x = 0;
    for (;; ++*p) {
        char c = **p;
        if (c >= '0' && c <= '9')
            x = x * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            x = x * 16 + (uintptr_t)(c - 'a' + 10);
        else
            break;
    }
    if (**p)
        ++*p;
    return x;
}

/* A mapped file that shrinks raises SIGBUS at the first touch of a lost page.
 * Names the file (from /proc/self/maps) with calls that a handler may make. */
static void on_bus(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    static atomic_flag one = ATOMIC_FLAG_INIT;
    static char buf[1 << 16];
    while (atomic_flag_test_and_set(&one))
        pause(); /* another thread met it first, and ends the program */
    uintptr_t at = (uintptr_t)info->si_addr;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    for (ssize_t got; fd >= 0 && n < sizeof buf - 1 &&
                      (got = read(fd, buf + n, sizeof buf - 1 - n)) > 0;)
        n += (size_t)got;
    buf[n] = 0;
    for (char *line = buf; *line;) {
        char *end = strchr(line, '\n');
        if (!end)
            break;
        *end = 0;
        const char *p = line;
        uintptr_t lo = read_hex(&p), hi = read_hex(&p);
        const char *name = strchr(p, '/');
        if (at >= lo && at < hi && name) {
            say("lori: ");
            say(name);
            say(": the file became shorter while it was in use; put the whole "
                "file back and run the command again\n");
            _exit(EXIT_FAILED);
        }
        line = end + 1;
    }
    say("lori: a mapped file became unreadable while it was in use\n");
    _exit(EXIT_FAILED);
}

void cli_signals(void)
{
    struct sigaction stop = {.sa_handler = on_interrupt,
                             .sa_flags = SA_RESTART};
    struct sigaction bus = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGBUS, &bus, NULL);
    signal(SIGPIPE, SIG_IGN);
}

void cli_signals_patient(void)
{
    patient = 1;
    signal(SIGTERM, SIG_DFL);
}

bool cli_interrupted(void)
{
    return interrupts != 0;
}

void cli_interrupt_clear(void)
{
    interrupts = 0;
}

/* ---- progress -------------------------------------------------------- */

/* One bar at a time: the only state of the terminal. */
typedef struct bar {
    char what[32];
    int64_t first; /* units already done when it started (a resumed run) */
    int64_t done;
    double start_s, shown_s;
    bool open; /* a line without its end is on the screen */
} bar;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void clock_text(double s, char buf[32])
{
    unsigned t = s > 0 ? (unsigned)fmin(s, 359999) : 0;
    if (t >= 3600)
        snprintf(buf, 32, "%u:%02u:%02u", t / 3600, t / 60 % 60, t % 60);
    else
        snprintf(buf, 32, "%02u:%02u", t / 60, t % 60);
}

int cli_columns(void)
{
    struct winsize w = {0};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col
                                                                      : 80;
}

static void units_text(int64_t n, bool bytes, char buf[32])
{
    static const char *const scale[] = {"B", "KB", "MB", "GB", "TB"};
    size_t i = 0;
    double x = (double)n;
    for (; bytes && x >= 1000 && i < 4; i++)
        x /= 1000;
    if (i > 0)
        snprintf(buf, 32, "%.1f %s", x, scale[i]);
    else
        snprintf(buf, 32, "%lld", (long long)n);
}

static void draw(const bar *b, const lori_progress *p, double now)
{
    char passed[32], left[32] = "?", cells[21], line[512], done[32], total[32];
    int full = p->total > 0 ? (int)(20 * p->done / p->total) : 0;
    for (int i = 0; i < 20; i++)
        cells[i] = i < full ? '#' : '.';
    cells[20] = 0;
    clock_text(now - b->start_s, passed);
    if (p->total > 0 && p->done > b->first)
        clock_text((now - b->start_s) * (double)(p->total - p->done) /
                       (double)(p->done - b->first),
                   left);
    units_text(p->done, p->bytes, done);
    units_text(p->total, p->bytes, total);
    int n =
        snprintf(line, sizeof line, "%s [%s] %s/%s %s<%s %s", p->what, cells,
                 done, total, passed, left, p->detail ? p->detail : "");
    int width = cli_columns() - 1;
    if (n > width)
        line[width] = 0;
    fprintf(stderr, "\r\033[K%s", line);
}

static void on_progress(void *context, const lori_progress *p)
{
    bar *b = context;
    double now = now_s();
    bool screen = isatty(STDERR_FILENO);
    bool last = p->total > 0 && p->done >= p->total;
    if (strcmp(b->what, p->what) != 0 || p->done < b->done) {
        cli_ui_end();
        *b = (bar){.first = p->done, .start_s = now};
        b->shown_s = screen ? 0 : now; /* plain lines: from 10 s on */
        snprintf(b->what, sizeof b->what, "%s", p->what);
    }
    b->done = p->done;
    if (!last && now - b->shown_s < (screen ? 0.1 : 10.0))
        return;
    if (last && b->shown_s < 0)
        return; /* the end was shown */
    b->shown_s = last ? -1 : now;
    if (screen) {
        draw(b, p, now);
        b->open = true;
        if (last)
            cli_ui_end();
        return;
    }
    char done[32], total[32];
    units_text(p->done, p->bytes, done);
    units_text(p->total, p->bytes, total);
    fprintf(stderr, "%s %s/%s %s\n", p->what, done, total,
            p->detail ? p->detail : "");
}

static void on_log(void *context, lori_log_level level, const char *line)
{
    (void)context;
    cli_ui_end();
    fprintf(stderr, "%s%s\n", level == LORI_LOG_WARNING ? "warning: " : "",
            line);
}

static int on_ask(void *context)
{
    (void)context;
    return cli_interrupted();
}

static bar the_bar;

void cli_ui_end(void)
{
    if (the_bar.open)
        fputc('\n', stderr);
    the_bar.open = false;
}

const lori_ui *cli_ui(void)
{
    static lori_ui ui;
    ui = (lori_ui){.context = &the_bar,
                   .log = on_log,
                   .progress = on_progress,
                   .interrupted = on_ask};
    return &ui;
}

int cli_finish(lori_status status, lori_report *report, const lori_error *err,
               bool json)
{
    cli_ui_end();
    if (report)
        fputs(json ? lori_report_json(report) : lori_report_text(report),
              stdout);
    lori_report_free(report);
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (status && status != LORI_INTERRUPTED)
        fprintf(stderr, "lori: %s\n", err->message);
    else if (status)
        fputs("lori: interrupted\n", stderr);
    if (!status && lost) {
        fputs("lori: standard output could not be written\n", stderr);
        return EXIT_FAILED;
    }
    return !status                      ? EXIT_OK
           : status == LORI_INTERRUPTED ? EXIT_INTERRUPTED
           : status == LORI_INVALID     ? EXIT_USAGE
                                        : EXIT_FAILED;
}
