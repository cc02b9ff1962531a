/* rows.c - records of a JSON Lines file or of one JSON array. Reads a line at
 * a time, so a JSON Lines file may be larger than memory; one line, or a whole
 * array, is at most 1 GiB. Includes base and jansson. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format_i.h"

typedef lori_status row_call(void *context, int64_t line, const json_t *object,
                             lori_error *err);

typedef struct reader {
    const char *path;
    int fd;
    int64_t line; /* of `text`, from 1 */
    bool end;     /* nothing left after `text` */
    base_str text;
    size_t at, filled;
    char buffer[65536];
} reader;

static lori_status fill(reader *r, lori_error *err)
{
    for (;;) {
        ssize_t got = read(r->fd, r->buffer, sizeof r->buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return base_fail_errno(err, errno, "cannot read '%s'", r->path);
        r->at = 0;
        r->filled = (size_t)got;
        r->end = got == 0;
        return LORI_OK;
    }
}

/* Adds to r->text up to and with `stop` (-1: up to the end of the file). */
static lori_status take(reader *r, int stop, lori_error *err)
{
    for (;;) {
        if (r->at == r->filled) {
            BASE_TRY(fill(r, err));
            if (r->end)
                return LORI_OK;
        }
        const char *from = r->buffer + r->at;
        size_t n = r->filled - r->at;
        const char *hit = stop < 0 ? NULL : memchr(from, stop, n);
        if (hit)
            n = (size_t)(hit - from) + 1;
        if (r->text.len + n > FORMAT_TEXT_MAX)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s:%lld: over 1 GiB without an end; write one "
                             "JSON object a line",
                             r->path, (long long)r->line);
        base_str_add(&r->text, from, n);
        if (r->text.failed)
            return base_no_memory(err, r->text.len + n);
        r->at += n;
        if (hit)
            return LORI_OK;
    }
}

/* Blank bytes at the start of the text; a byte order mark counts as one. */
static size_t leading_blanks(const reader *r)
{
    const char *s = r->text.s;
    size_t i = 0, n = r->text.len;
    if (r->line == 1 && n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0)
        i = 3;
    while (i < n &&
           (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n'))
        i++;
    return i;
}

static lori_status read_line(reader *r, lori_error *err)
{
    base_str_clear(&r->text);
    r->line++;
    return take(r, '\n', err);
}

static lori_status one_row(const reader *r, size_t skip, row_call *row,
                           void *context, lori_error *err)
{
    json_t *object;
    size_t end = r->text.len; /* an object that ends early ends on its line */
    while (end > skip && strchr("\r\n", r->text.s[end - 1]))
        end--;
    BASE_TRY(format_json_parse_at(r->text.s + skip, end - skip, r->path,
                                  r->line, &object, err));
    lori_status status;
    if (json_is_object(object))
        status = row(context, r->line, object, err);
    else
        status = base_fail(err, LORI_FORMAT,
                           "%s:%lld: expected a JSON object, found %s", r->path,
                           (long long)r->line, format_json_kind(object));
    json_decref(object);
    return status;
}

/* The rest of the file is one array, which begins on this line. */
static lori_status array_rows(reader *r, size_t skip, row_call *row,
                              void *context, lori_error *err)
{
    BASE_TRY(take(r, -1, err));
    json_t *array;
    BASE_TRY(format_json_parse_at(r->text.s + skip, r->text.len - skip, r->path,
                                  r->line, &array, err));
    /* The text is not needed any more and may be as large as the values. */
    base_str_free(&r->text);
    lori_status status = LORI_OK;
    size_t n = json_array_size(array);
    for (size_t i = 0; i < n && !status; i++) {
        const json_t *object = json_array_get(array, i);
        if (json_is_object(object))
            status = row(context, (int64_t)i + 1, object, err);
        else
            status = base_fail(err, LORI_FORMAT,
                               "%s: element %zu of the list is %s, expected an "
                               "object",
                               r->path, i + 1, format_json_kind(object));
    }
    json_decref(array);
    return status;
}

static lori_status all_rows(reader *r, row_call *row, void *context,
                            lori_error *err)
{
    bool first = true;
    while (!r->end) {
        BASE_TRY(read_line(r, err));
        if (!r->text.len)
            break;
        size_t skip = leading_blanks(r);
        if (skip == r->text.len)
            continue;
        if (first && r->text.s[skip] == '[')
            return array_rows(r, skip, row, context, err);
        first = false;
        BASE_TRY(one_row(r, skip, row, context, err));
    }
    return LORI_OK;
}

lori_status format_rows_read(const char *path,
                             lori_status (*row)(void *context, int64_t line,
                                                const json_t *object,
                                                lori_error *err),
                             void *context, lori_error *err)
{
    reader *r = base_alloc(1, sizeof *r);
    if (!r)
        return base_no_memory(err, sizeof *r);
    r->path = path;
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    lori_status status;
    if (r->fd < 0) {
        status = base_fail_errno(err, errno, "cannot open '%s'", path);
    } else {
        status = all_rows(r, row, context, err);
        close(r->fd);
    }
    base_str_free(&r->text);
    free(r);
    return status;
}
