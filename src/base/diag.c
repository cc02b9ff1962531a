/* diag.c - errors that are collected and reported together: a recipe's, a
 * task's, a dataset's. Owns their text until it is handed over. Includes
 * base.h and libc. */
#include <stdarg.h>
#include <stdio.h>

#include "base/base.h"

void base_diag_add(base_diag *d, const char *fmt, ...)
{
    d->n++;
    if (d->max && d->n > d->max)
        return;
    if (d->lines.len)
        base_str_puts(&d->lines, "\n");
    size_t start = d->lines.len;
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&d->lines, fmt, ap);
    va_end(ap);
    if (d->lines.failed)
        return;
    for (size_t i = start; i < d->lines.len; i++) {
        unsigned char c = (unsigned char)d->lines.s[i];
        if (c < 0x20 || c == 0x7f)
            d->lines.s[i] = ' ';
    }
}

/* Bytes of whole lines that fit into `room`; *n counts them. */
static size_t fitting(const base_diag *d, size_t room, int64_t *n)
{
    size_t fit = 0;
    *n = 0;
    for (size_t i = 0; i <= d->lines.len && i <= room; i++)
        if (i == d->lines.len || d->lines.s[i] == '\n') {
            fit = i;
            ++*n;
        }
    return fit;
}

/* Written by hand: base_fail would make one line of it. */
static void hand_over(const base_diag *d, lori_error *err)
{
    char more[64];
    int64_t shown;
    size_t room = sizeof err->message - sizeof more;
    size_t fit = fitting(d, room, &shown);
    if (shown == 0) { /* the first line alone is too long */
        fit = base_utf8_valid(d->lines.s, room);
        shown = 1;
    }
    memcpy(err->message, d->lines.s, fit);
    err->message[fit] = '\0';
    if (shown < d->n) {
        snprintf(more, sizeof more, "\n... and %lld more",
                 (long long)(d->n - shown));
        memcpy(err->message + fit, more, strlen(more) + 1);
    }
}

lori_status base_diag_end(base_diag *d, lori_status status, lori_error *err)
{
    if (d->lines.failed)
        status = base_no_memory(err, d->lines.len);
    else if (d->n == 0)
        status = LORI_OK;
    else if (err) {
        err->status = status;
        hand_over(d, err);
    }
    base_str_free(&d->lines);
    *d = (base_diag){.max = d->max};
    return status;
}
