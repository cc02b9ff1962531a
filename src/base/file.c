/* file.c - paths, reading whole files and mapping them. Refuses files over
 * the caller's bound. Includes base.h and libc. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

char *base_path_join(const char *dir, const char *name)
{
    base_str path = {0};
    base_str_puts(&path, dir);
    if (path.len && dir[path.len - 1] != '/')
        base_str_puts(&path, "/");
    base_str_puts(&path, name);
    return base_str_take(&path);
}

const char *base_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool base_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool base_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

lori_status base_mkdirs(const char *path, lori_error *err)
{
    char *copy = base_strdup(path);
    if (!copy)
        return base_no_memory(err, strlen(path));
    lori_status status = LORI_OK;
    for (char *p = copy; *p && !status;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char saved = *p;
        *p = '\0';
        /* mkdir of what is there may also fail with EROFS or EACCES. */
        if (*copy && mkdir(copy, 0777) != 0) {
            int code = errno;
            if (!base_is_dir(copy))
                status = base_fail_errno(err, code,
                                         "cannot make the folder '%s'", copy);
        }
        *p = saved;
    }
    free(copy);
    return status;
}

static lori_status open_read(const char *path, int *fd, struct stat *st,
                             lori_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return base_fail_errno(err, errno, "cannot open '%s'", path);
    int code = fstat(*fd, st) == 0 ? 0 : errno;
    if (!code && S_ISDIR(st->st_mode))
        code = EISDIR;
    if (code) {
        close(*fd);
        *fd = -1;
        return base_fail_errno(err, code, "cannot read '%s'", path);
    }
    return LORI_OK;
}

static lori_status too_large(const char *path, size_t max, lori_error *err)
{
    char text[32];
    return base_fail(err, LORI_UNSUPPORTED, "'%s' is over %s, too large here",
                     path, base_human_bytes((double)max, text, sizeof text));
}

/* Reads to the end of the file rather than to the size stat gave: pipes and
 * /proc have none, and a regular file may grow meanwhile. */
static lori_status read_all(int fd, const char *path, size_t max, base_str *out,
                            lori_error *err)
{
    for (;;) {
        if (out->cap - out->len < 2) {
            size_t cap = out->cap > SIZE_MAX / 2 ? SIZE_MAX : out->cap * 2;
            char *s = base_resize(out->s, cap, 1);
            if (!s)
                return base_no_memory(err, cap);
            out->s = s;
            out->cap = cap;
        }
        ssize_t got = read(fd, out->s + out->len, out->cap - out->len - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return base_fail_errno(err, errno, "cannot read '%s'", path);
        if (got == 0)
            return LORI_OK;
        out->len += (size_t)got;
        if (out->len > max)
            return too_large(path, max, err);
    }
}

lori_status base_file_read(const char *path, size_t max, char **bytes,
                           size_t *n, lori_error *err)
{
    *bytes = NULL;
    *n = 0;
    int fd;
    struct stat st;
    BASE_TRY(open_read(path, &fd, &st, err));
    lori_status status = LORI_OK;
    base_str text = {0};
    if (st.st_size > 0 && (uint64_t)st.st_size > max) {
        status = too_large(path, max, err);
    } else {
        text.cap = (st.st_size > 0 ? (size_t)st.st_size : 4096) + 2;
        text.s = base_resize(NULL, text.cap, 1);
        if (text.s)
            status = read_all(fd, path, max, &text, err);
        else
            status = base_no_memory(err, text.cap);
    }
    close(fd);
    if (status) {
        base_str_free(&text);
        return status;
    }
    text.s[text.len] = '\0';
    *bytes = text.s;
    *n = text.len;
    return LORI_OK;
}

lori_status base_map_open(const char *path, base_map *map, lori_error *err)
{
    *map = (base_map){0};
    int fd;
    struct stat st;
    BASE_TRY(open_read(path, &fd, &st, err));
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return base_fail(err, LORI_IO, "'%s' is not a regular file", path);
    }
    if (st.st_size == 0) {
        close(fd);
        return LORI_OK;
    }
    size_t bytes = (size_t)st.st_size;
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    int code = errno;
    close(fd);
    if (data == MAP_FAILED)
        return base_fail_errno(err, code, "cannot map '%s' into memory", path);
    *map = (base_map){data, bytes};
    return LORI_OK;
}

void base_map_close(base_map *map)
{
    if (map->data) {
        union {
            const unsigned char *read;
            void *any;
        } data = {map->data};
        munmap(data.any, map->bytes);
    }
    *map = (base_map){0};
}
