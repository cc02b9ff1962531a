/* pty.c - runs a program in a terminal of its own and talks with it as a script
 * on standard input says; everything the program wrote goes to stdout.
 *   pty COMMAND...
 *   wait TEXT    until TEXT comes, behind what was waited for before
 *   send TEXT    as if typed; C escapes: \n \r \t \e \xHH
 *   pause MS     milliseconds (only where nothing can be waited for)
 *   end          until the program ends
 * Exit: the program's own status, 98 when a signal ended it; 99 when something
 * did not come within 60 s.
 */
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int terminal;
static char *seen;          /* all output */
static size_t n_seen, from; /* waited for up to `from` */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* More output, for `ms` at most; false at its end. */
static bool more(int ms)
{
    struct pollfd p = {.fd = terminal, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0)
        return true;
    char *grown = realloc(seen, n_seen + 4097);
    if (!grown)
        exit(99);
    seen = grown;
    ssize_t got = read(terminal, seen + n_seen, 4096);
    if (got <= 0) /* EIO: the last program closed it */
        return false;
    fwrite(seen + n_seen, 1, (size_t)got, stdout);
    fflush(stdout);
    n_seen += (size_t)got;
    seen[n_seen] = 0;
    return true;
}

static void fail(const char *what, const char *text)
{
    fprintf(stderr, "pty: %s '%s'\n", what, text);
    exit(99);
}

static void wait_for(const char *text)
{
    double end = now_s() + 60;
    for (;;) {
        const char *at =
            seen ? memmem(seen + from, n_seen - from, text, strlen(text))
                 : NULL;
        if (at) {
            from = (size_t)(at - seen) + strlen(text);
            return;
        }
        if (now_s() > end)
            fail("waited 60 s for", text);
        if (!more(100))
            fail("the program ended before", text);
    }
}

/* The script's escapes, in place; the length. */
static size_t unescape(char *s)
{
    static const char names[] = "nrte", values[] = "\n\r\t\033";
    char *to = s;
    const char *const start = s;
    for (; *s; s++) {
        const char *name = *s == '\\' && s[1] ? strchr(names, s[1]) : NULL;
        if (name) {
            *to++ = values[name - names];
            s++;
        } else if (*s == '\\' && s[1] == 'x') {
            char hex[3] = {s[2], s[2] ? s[3] : 0, 0};
            *to++ = (char)strtol(hex, NULL, 16);
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    return (size_t)(to - start);
}

static void step(char *line)
{
    char *text = strchr(line, ' ');
    text = text ? text + 1 : line + strlen(line);
    if (!strncmp(line, "wait ", 5)) {
        wait_for(text);
    } else if (!strncmp(line, "send ", 5)) {
        size_t n = unescape(text);
        if (write(terminal, text, n) != (ssize_t)n)
            fail("cannot send", text);
    } else if (!strncmp(line, "pause ", 6)) {
        double end = now_s() + atof(text) / 1000;
        while (now_s() < end && more(10))
            ;
    } else if (!strcmp(line, "end")) {
        double end = now_s() + 60;
        while (more(100))
            if (now_s() > end)
                fail("no end after 60 s of", "the program");
    } else if (*line && *line != '#') {
        fail("unknown step", line);
    }
}

int main(int argc, char **argv)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    char line[4096];
    pid_t child = argc < 2 ? -1 : forkpty(&terminal, NULL, NULL, &size);
    if (child < 0)
        return 99;
    if (child == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        step(line);
    }
    int status = 0;
    double last = now_s() + 60;
    close(terminal); /* a program that still runs is told by SIGHUP */
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now_s() > last) {
            kill(child, SIGKILL);
            fail("no end after 60 s without a terminal of", argv[1]);
        }
        usleep(10000);
    }
    free(seen);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}
