/* outfile.c - files and folders that appear whole or not at all: made beside
 * their place under a temporary name, flushed to the disk, then renamed.
 * Refuses to remove a folder that does not look like the one it replaces.
 * Includes base.h and libc. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

/* ---- temporary names ------------------------------------------------ */

/* "<path>.tmp-<pid>-<hex>" for attempt `attempt`. Not secret, only unlikely to
 * be taken: creation is exclusive, and a taken name means another attempt. */
static char *temporary_name(const char *path, unsigned attempt)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t hash = base_fnv1a(BASE_FNV_START, &t, sizeof t);
    hash = base_fnv1a(hash, &attempt, sizeof attempt);
    base_str name = {0};
    base_str_printf(&name, "%s.tmp-%ld-%08x", path, (long)getpid(),
                    (unsigned)(hash & 0xffffffffU));
    return base_str_take(&name);
}

/* Folder that holds `path`, malloc'd; NULL when out of memory. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return base_strdup(".");
    return slash == path ? base_strdup("/")
                         : base_strndup(path, (size_t)(slash - path));
}

/* Makes a rename in (or the entries of) folder `path` survive a power cut.
 * Some file systems cannot sync a folder and say EINVAL: nothing to do there.
 */
static lori_status sync_folder(const char *path, lori_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return base_fail_errno(err, errno, "cannot open the folder '%s'", path);
    int code = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    if (code && code != EINVAL && code != ENOTSUP)
        return base_fail_errno(err, code, "cannot flush the folder '%s'", path);
    return LORI_OK;
}

static lori_status sync_parent(const char *path, lori_error *err)
{
    char *parent = parent_of(path);
    if (!parent)
        return base_no_memory(err, strlen(path));
    lori_status status = sync_folder(parent, err);
    free(parent);
    return status;
}

/* ---- files ---------------------------------------------------------- */

#define BUFFER_BYTES 65536

struct base_out {
    int fd;
    char *path, *temporary;
    size_t filled;
    unsigned char buffer[BUFFER_BYTES];
};

static void free_out(base_out *out)
{
    if (out->fd >= 0)
        close(out->fd);
    free(out->path);
    free(out->temporary);
    free(out);
}

/* Opens a new file beside `out->path`. Created with mode 0644, so the kernel
 * applies the umask: reading it would change it for other threads. */
static lori_status create_temporary(base_out *out, lori_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        out->temporary = temporary_name(out->path, attempt);
        if (!out->temporary)
            return base_no_memory(err, strlen(out->path));
        out->fd =
            open(out->temporary,
                 O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (out->fd >= 0)
            return LORI_OK;
        int code = errno;
        free(out->temporary);
        out->temporary = NULL;
        if (code != EEXIST || attempt >= 100)
            return base_fail_errno(err, code, "cannot write '%s'", out->path);
    }
}

lori_status base_out_open(const char *path, base_out **result, lori_error *err)
{
    *result = NULL;
    if (!*base_path_name(path) || base_is_dir(path))
        return base_fail(err, LORI_IO,
                         "cannot write '%s': it is a folder, not a file", path);
    base_out *out = base_alloc(1, sizeof *out);
    if (!out)
        return base_no_memory(err, sizeof *out);
    out->fd = -1;
    out->path = base_strdup(path);
    lori_status status = out->path ? create_temporary(out, err)
                                   : base_no_memory(err, strlen(path));
    if (status) {
        free_out(out);
        return status;
    }
    *result = out;
    return LORI_OK;
}

static lori_status write_all(base_out *out, const unsigned char *p, size_t n,
                             lori_error *err)
{
    while (n) {
        ssize_t put = write(out->fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return base_fail_errno(err, errno, "cannot write '%s'", out->path);
        p += put;
        n -= (size_t)put;
    }
    return LORI_OK;
}

lori_status base_out_write(base_out *out, const void *bytes, size_t n,
                           lori_error *err)
{
    if (n == 0)
        return LORI_OK;
    if (n > BUFFER_BYTES - out->filled) {
        BASE_TRY(write_all(out, out->buffer, out->filled, err));
        out->filled = 0;
    }
    if (n >= BUFFER_BYTES)
        return write_all(out, bytes, n, err);
    memcpy(out->buffer + out->filled, bytes, n);
    out->filled += n;
    return LORI_OK;
}

static lori_status finish_file(base_out *out, lori_error *err)
{
    BASE_TRY(write_all(out, out->buffer, out->filled, err));
    if (fsync(out->fd) != 0 && errno != EINVAL)
        return base_fail_errno(err, errno, "cannot flush '%s' to the disk",
                               out->path);
    int fd = out->fd;
    out->fd = -1;
    /* Network file systems report a full disk as late as here. */
    if (close(fd) != 0)
        return base_fail_errno(err, errno, "cannot write '%s'", out->path);
    if (rename(out->temporary, out->path) != 0)
        return base_fail_errno(err, errno, "cannot rename '%s' to '%s'",
                               out->temporary, out->path);
    return LORI_OK;
}

lori_status base_out_commit(base_out *out, lori_error *err)
{
    lori_status status = finish_file(out, err);
    if (status) {
        base_out_abort(out);
        return status;
    }
    status = sync_parent(out->path, err);
    free_out(out);
    return status;
}

void base_out_abort(base_out *out)
{
    if (!out)
        return;
    unlink(out->temporary);
    free_out(out);
}

lori_status base_file_write(const char *path, const void *bytes, size_t n,
                            lori_error *err)
{
    base_out *out;
    BASE_TRY(base_out_open(path, &out, err));
    lori_status status = base_out_write(out, bytes, n, err);
    if (status) {
        base_out_abort(out);
        return status;
    }
    return base_out_commit(out, err);
}

/* ---- folders -------------------------------------------------------- */

struct base_outdir {
    char *path, *temporary, *marker;
    bool replace;
};

static void free_outdir(base_outdir *out)
{
    free(out->path);
    free(out->temporary);
    free(out->marker);
    free(out);
}

static int remove_entry(const char *path, const struct stat *st, int type,
                        struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* Removes what it can; does not follow links or leave the file system. */
static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static bool is_empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    bool empty = true;
    const struct dirent *entry;
    while (empty && (entry = readdir(dir)))
        empty =
            strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return empty;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* May what stands at out->path be replaced? */
static lori_status check_place(const base_outdir *out, lori_error *err)
{
    if (!exists(out->path))
        return LORI_OK;
    if (!base_is_dir(out->path))
        return base_fail(err, LORI_IO, "'%s' exists and is not a folder",
                         out->path);
    if (!out->replace)
        return base_fail(err, LORI_IO,
                         "the folder '%s' exists; choose another or ask to "
                         "replace it",
                         out->path);
    if (is_empty_folder(out->path))
        return LORI_OK;
    char *marker = base_path_join(out->path, out->marker);
    if (!marker)
        return base_no_memory(err, strlen(out->path));
    bool ours = *out->marker && exists(marker);
    free(marker);
    if (!ours)
        return base_fail(err, LORI_IO,
                         "the folder '%s' holds other files and no %s: not "
                         "replacing it; choose another folder",
                         out->path, *out->marker ? out->marker : "marker");
    return LORI_OK;
}

/* The place itself: a link's target if there is one, no slash at the end. */
static char *real_place(const char *path)
{
    char *real = realpath(path, NULL);
    if (real)
        return real;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return base_strndup(path, n);
}

static lori_status create_folder(base_outdir *out, lori_error *err)
{
    char *parent = parent_of(out->path);
    if (!parent)
        return base_no_memory(err, strlen(out->path));
    lori_status status = base_mkdirs(parent, err);
    free(parent);
    for (unsigned attempt = 0; !status; attempt++) {
        out->temporary = temporary_name(out->path, attempt);
        if (!out->temporary)
            return base_no_memory(err, strlen(out->path));
        if (mkdir(out->temporary, 0777) == 0)
            return LORI_OK;
        int code = errno;
        free(out->temporary);
        out->temporary = NULL;
        if (code != EEXIST || attempt >= 100)
            status = base_fail_errno(err, code, "cannot make the folder '%s'",
                                     out->path);
    }
    return status;
}

lori_status base_outdir_open(const char *path, bool replace, const char *marker,
                             base_outdir **result, lori_error *err)
{
    *result = NULL;
    if (!*path)
        return base_fail(err, LORI_INVALID, "the output folder has no name");
    base_outdir *out = base_alloc(1, sizeof *out);
    if (!out)
        return base_no_memory(err, sizeof *out);
    out->replace = replace;
    out->path = real_place(path);
    out->marker = base_strdup(marker ? marker : "");
    lori_status status = LORI_OK;
    if (!out->path || !out->marker)
        status = base_no_memory(err, strlen(path));
    if (!status)
        status = check_place(out, err);
    if (!status)
        status = create_folder(out, err);
    if (status) {
        free_outdir(out);
        return status;
    }
    *result = out;
    return LORI_OK;
}

const char *base_outdir_path(const base_outdir *out)
{
    return out->temporary;
}

/* Swaps the two folders where the file system cannot do it in one step. The
 * old one comes back if the new one cannot take its place. */
static int swap_in_steps(const base_outdir *out)
{
    char *aside = temporary_name(out->path, 1000);
    if (!aside)
        return ENOMEM;
    int code = rename(out->path, aside) == 0 ? 0 : errno;
    if (!code && rename(out->temporary, out->path) != 0) {
        code = errno;
        (void)!rename(aside, out->path);
    }
    if (!code && rename(aside, out->temporary) != 0)
        remove_tree(aside);
    free(aside);
    return code;
}

static bool cannot_flag(int code)
{
    return code == EINVAL || code == ENOSYS || code == ENOTSUP;
}

static int move_into_place(const base_outdir *out)
{
    bool taken = exists(out->path);
    unsigned flag = taken ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    if (renameat2(AT_FDCWD, out->temporary, AT_FDCWD, out->path, flag) == 0)
        return 0;
    if (!cannot_flag(errno))
        return errno;
    if (taken)
        return swap_in_steps(out);
    return rename(out->temporary, out->path) == 0 ? 0 : errno;
}

lori_status base_outdir_commit(base_outdir *out, lori_error *err)
{
    /* Asked again: much may have happened since open. */
    lori_status status = check_place(out, err);
    if (!status)
        status = sync_folder(out->temporary, err);
    if (!status) {
        int code = move_into_place(out);
        if (code)
            status = base_fail_errno(err, code, "cannot move '%s' to '%s'",
                                     out->temporary, out->path);
    }
    if (status) {
        base_outdir_abort(out);
        return status;
    }
    status = sync_parent(out->path, err);
    /* After a swap the old folder stands under the temporary name. */
    if (exists(out->temporary))
        remove_tree(out->temporary);
    free_outdir(out);
    return status;
}

void base_outdir_abort(base_outdir *out)
{
    if (!out)
        return;
    remove_tree(out->temporary);
    free_outdir(out);
}
