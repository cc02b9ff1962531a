/* error.c - how a failure gets its one-line message. Owns nothing: the error
 * belongs to the caller. Includes base.h and libc. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/base.h"

#undef base_fail /* the analyzer's, see base.h */
#undef base_no_memory

static const struct {
    lori_status status;
    const char *name;
} status_names[] = {
#define ROW(name, value, text) {LORI_##name, #name},
    LORI_STATUS_LIST(ROW)
#undef ROW
};

const char *base_status_name(lori_status status)
{
    for (size_t i = 0; i < sizeof status_names / sizeof *status_names; i++)
        if (status_names[i].status == status)
            return status_names[i].name;
    return "UNKNOWN";
}

/* A message is one line of plain UTF-8 whatever a file's bytes put into it:
 * control characters (a terminal would obey them) become spaces, stray bytes
 * question marks, and a message that was cut ends on a whole character. */
static void tidy(char *message)
{
    size_t n = strlen(message), i = 0;
    const bool full = n + 1 == sizeof((lori_error *)0)->message;
    while ((i += base_utf8_valid(message + i, n - i)) < n) {
        if (full && n - i < 4)
            n = i;
        else
            message[i++] = '?';
    }
    message[n] = '\0';
    for (i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)message[i];
        const unsigned char next = (unsigned char)message[i + 1];
        if (c < 0x20 || c == 0x7f)
            message[i] = ' ';
        if (c == 0xc2 && next < 0xa0) /* U+0080 to U+009F */
            message[i] = message[i + 1] = ' ';
    }
}

/* Cuts where the message is full. */
static void append(lori_error *err, const char *text)
{
    size_t used = strlen(err->message), n = strlen(text);
    if (n > sizeof err->message - 1 - used)
        n = sizeof err->message - 1 - used;
    memcpy(err->message + used, text, n);
    err->message[used + n] = '\0';
}

/* The formatted text, then ": " and `tail` unless that is NULL. */
BASE_PRINTF(2, 0)
static void set(lori_error *err, const char *fmt, va_list ap, const char *tail)
{
    if (vsnprintf(err->message, sizeof err->message, fmt, ap) < 0)
        err->message[0] = '\0';
    if (tail) {
        append(err, ": ");
        append(err, tail);
    }
    tidy(err->message);
}

lori_status base_fail(lori_error *err, lori_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    err->status = status;
    va_list ap;
    va_start(ap, fmt);
    set(err, fmt, ap, NULL);
    va_end(ap);
    return status;
}

lori_status base_fail_errno(lori_error *err, int code, const char *fmt, ...)
{
    lori_status status = LORI_IO;
    if (code == ENOENT || code == ENOTDIR)
        status = LORI_NOT_FOUND;
    else if (code == ENOMEM)
        status = LORI_NO_MEMORY;
    if (!err)
        return status;
    err->status = status;
    /* The GNU strerror_r: strerror is not for several threads. */
    char text[64];
    const char *what = strerror_r(code, text, sizeof text);
    va_list ap;
    va_start(ap, fmt);
    set(err, fmt, ap, what);
    va_end(ap);
    return status;
}

lori_status base_prefix(lori_error *err, lori_status status, const char *fmt,
                        ...)
{
    if (!err)
        return status;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    old[sizeof old - 1] = '\0';
    err->status = status;
    va_list ap;
    va_start(ap, fmt);
    set(err, fmt, ap, old);
    va_end(ap);
    return status;
}

lori_status base_no_memory(lori_error *err, size_t bytes)
{
    char text[32];
    return base_fail(err, LORI_NO_MEMORY, "out of memory: %s could not be had",
                     base_human_bytes((double)bytes, text, sizeof text));
}
