/* hub_blob.c - one file of a pull: locked, continued, verified, linked. The
 * blob appears whole or not at all. Includes base, OpenSSL and libc. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hub/hub_i.h"

/* ---- the lock that huggingface_hub takes, too --------------------------- */

static lori_status lock_path(const hub_pull_state *pull, const hub_file *file,
                             char **out, lori_error *err)
{
    base_str path = {0};
    base_str_printf(&path, "%s/.locks/%s", pull->cache,
                    base_path_name(pull->name->folder));
    lori_status st =
        path.failed ? base_no_memory(err, 1) : base_mkdirs(path.s, err);
    base_str_printf(&path, "/%s.lock", file->blob);
    *out = base_str_take(&path);
    return st ? st : *out ? LORI_OK : base_no_memory(err, 1);
}

/* *fd holds the lock until it is closed. The file stays: removing it would let
 * two processes hold "the" lock. */
static lori_status take_lock(const hub_pull_state *pull, const hub_file *file,
                             int *fd, lori_error *err)
{
    char *path = NULL;
    *fd = -1;
    lori_status st = lock_path(pull, file, &path, err);
    if (!st && (*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
        st = base_fail_errno(err, errno, "cannot open the lock '%s'", path);
    for (bool told = false; !st && flock(*fd, LOCK_EX | LOCK_NB) != 0;) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            st = base_fail_errno(err, errno, "cannot lock '%s'", path);
        else if (base_interrupted(pull->ui))
            st = base_fail(err, LORI_INTERRUPTED, "%s", file->path);
        if (!told)
            base_log(pull->ui, LORI_LOG_INFO,
                     "%s: another program is downloading it, waiting",
                     file->path);
        told = true;
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    if (st && *fd >= 0)
        close(*fd);
    free(path);
    return st;
}

/* ---- the file being downloaded ------------------------------------------ */

typedef struct part {
    hub_pull_state *pull;
    const hub_file *file;
    char *path; /* of *.incomplete */
    int fd;
    EVP_MD_CTX *hash;
    int64_t begun; /* progress of the whole pull before this file */
    hub_sink sink;
} part;

static lori_status start_hash(part *p, lori_error *err)
{
    char head[32];
    int n = snprintf(head, sizeof head, "blob %lld", (long long)p->file->size);
    const EVP_MD *kind = p->file->lfs ? EVP_sha256() : EVP_sha1();
    /* git's hash of a blob: over "blob SIZE", NUL, the bytes. */
    if (EVP_DigestInit_ex(p->hash, kind, NULL) == 1 &&
        (p->file->lfs || EVP_DigestUpdate(p->hash, head, (size_t)n + 1) == 1))
        return LORI_OK;
    return base_fail(err, LORI_UNSUPPORTED,
                     "this system's OpenSSL refuses %s, by which '%s' is "
                     "verified",
                     p->file->lfs ? "SHA-256" : "SHA-1", p->file->path);
}

static void show(const part *p)
{
    hub_pull_state *pull = p->pull;
    char speed[32];
    double s = base_now_s() - pull->start_s;
    base_progress_bytes(pull->ui, "pull", p->begun + p->sink.have, pull->total,
                        "%s/s  %s",
                        base_human_bytes(s > 0 ? (double)pull->pulled / s : 0,
                                         speed, sizeof speed),
                        p->file->path);
}

static lori_status put(void *context, const void *bytes, size_t n,
                       lori_error *err)
{
    part *p = context;
    const unsigned char *from = bytes;
    for (size_t left = n; left;) {
        ssize_t put = write(p->fd, from, left);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return base_fail_errno(
                err, errno, "cannot write '%s' (what is there can be resumed)",
                p->path);
        from += put;
        left -= (size_t)put;
    }
    EVP_DigestUpdate(p->hash, bytes, n);
    p->pull->pulled += (int64_t)n;
    show(p);
    return LORI_OK;
}

static lori_status restart(void *context, lori_error *err)
{
    part *p = context;
    if (ftruncate(p->fd, 0) != 0 || lseek(p->fd, 0, SEEK_SET) != 0)
        return base_fail_errno(err, errno, "cannot empty '%s'", p->path);
    p->sink.have = 0;
    return start_hash(p, err);
}

/* What an interrupted download left is read back: the hash needs it. */
static lori_status read_back(part *p, lori_error *err)
{
    unsigned char *buffer = malloc(1 << 20);
    if (!buffer)
        return base_no_memory(err, 1 << 20);
    lori_status st = LORI_OK;
    ssize_t got = 0;
    while (!st && (got = read(p->fd, buffer, 1 << 20)) > 0) {
        EVP_DigestUpdate(p->hash, buffer, (size_t)got);
        p->sink.have += got;
        show(p);
        if (base_interrupted(p->pull->ui))
            st = base_fail(err, LORI_INTERRUPTED, "%s", p->file->path);
    }
    if (got < 0)
        st = base_fail_errno(err, errno, "cannot read '%s'", p->path);
    free(buffer);
    if (!st && p->sink.have > p->file->size)
        st = restart(p, err);
    return st;
}

static lori_status download(part *p, lori_error *err)
{
    if (p->sink.have == p->file->size)
        return LORI_OK;
    const hub_pull_state *pull = p->pull;
    base_str path = {0};
    base_str_printf(&path, "/%s/resolve/%s/", pull->name->repo, pull->commit);
    hub_url_escape(p->file->path, "/", &path);
    lori_status st = path.failed ? base_no_memory(err, 1)
                                 : hub_http_get(pull->http, path.s,
                                                p->file->path, &p->sink, err);
    base_str_free(&path);
    return st;
}

static bool hash_fits(part *p, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(p->hash, digest, &n);
    for (unsigned i = 0; i < n && i < 32; i++)
        snprintf(hex + (size_t)2 * i, 3, "%02x", digest[i]);
    return strcmp(hex, p->file->blob) == 0;
}

/* Downloads and verifies. A part left by somebody else may be wrong: then once
 * more, from the start. */
static lori_status fill(part *p, lori_error *err)
{
    char hex[65] = "";
    bool resumed = p->sink.have > 0;
    BASE_TRY(download(p, err));
    if (hash_fits(p, hex))
        return LORI_OK;
    BASE_TRY(restart(p, err));
    if (resumed) {
        base_log(p->pull->ui, LORI_LOG_WARNING,
                 "%s: what was left of an earlier download is damaged; "
                 "downloading all of it again",
                 p->file->path);
        BASE_TRY(download(p, err));
        if (hash_fits(p, hex))
            return LORI_OK;
        BASE_TRY(restart(p, err));
    }
    return base_fail(err, LORI_FORMAT,
                     "%s: the %s of what the server sent is %s, but the hub "
                     "says %s; the bytes were thrown away, pull again",
                     p->file->path, p->file->lfs ? "sha256" : "git sha1", hex,
                     p->file->blob);
}

static lori_status open_part(part *p, lori_error *err)
{
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (p->fd < 0)
        return base_fail_errno(err, errno, "cannot write '%s'", p->path);
    p->hash = EVP_MD_CTX_new();
    if (!p->hash)
        return base_no_memory(err, 1);
    BASE_TRY(start_hash(p, err));
    return read_back(p, err);
}

static lori_status make_blob(hub_pull_state *pull, const hub_file *file,
                             const char *blob, lori_error *err)
{
    part p = {.pull = pull, .file = file, .fd = -1, .begun = pull->done};
    p.sink = (hub_sink){.context = &p,
                        .size = file->size,
                        .max = file->size,
                        .put = put,
                        .restart = restart};
    base_str path = {0};
    base_str_printf(&path, "%s.incomplete", blob);
    p.path = base_str_take(&path);
    lori_status st = p.path ? open_part(&p, err) : base_no_memory(err, 1);
    if (!st)
        st = fill(&p, err);
    if (!st && fsync(p.fd) != 0)
        st = base_fail_errno(err, errno, "cannot flush '%s' to the disk",
                             p.path);
    if (!st && rename(p.path, blob) != 0)
        st = base_fail_errno(err, errno, "cannot rename '%s' to '%s'", p.path,
                             blob);
    struct stat left;
    if (st && p.fd >= 0 && fstat(p.fd, &left) == 0 && left.st_size == 0)
        unlink(p.path); /* nothing to resume */
    if (p.fd >= 0)
        close(p.fd);
    EVP_MD_CTX_free(p.hash);
    free(p.path);
    return st;
}

/* ---- the snapshot's link ------------------------------------------------ */

static lori_status link_blob(const hub_pull_state *pull, const hub_file *file,
                             lori_error *err)
{
    base_str target = {0}, path = {0};
    base_str_printf(&path, "%s/snapshots/%s/%s", pull->name->folder,
                    pull->commit, file->path);
    /* From the link's own folder up to models--org--name. */
    base_str_puts(&target, "../../");
    for (const char *s = file->path; (s = strchr(s, '/')); s++)
        base_str_puts(&target, "../");
    base_str_printf(&target, "blobs/%s", file->blob);
    lori_status st = LORI_OK;
    if (path.failed || target.failed) {
        st = base_no_memory(err, 1);
    } else {
        char *slash = strrchr(path.s, '/');
        *slash = '\0';
        st = base_mkdirs(path.s, err);
        *slash = '/';
    }
    if (!st && symlink(target.s, path.s) != 0 &&
        (errno != EEXIST || unlink(path.s) != 0 ||
         symlink(target.s, path.s) != 0))
        st = base_fail_errno(err, errno, "cannot make the link '%s'", path.s);
    base_str_free(&path);
    base_str_free(&target);
    return st;
}

/* Size of "blobs/<hash><suffix>"; -1 when it is not there. */
static int64_t blob_size(const hub_name *name, const hub_file *file,
                         const char *suffix)
{
    struct stat st;
    base_str path = {0};
    base_str_printf(&path, "%s/blobs/%s%s", name->folder, file->blob, suffix);
    bool there = !path.failed && stat(path.s, &st) == 0;
    base_str_free(&path);
    return there ? (int64_t)st.st_size : -1;
}

int64_t hub_blob_have(const hub_name *name, const hub_file *file)
{
    if (blob_size(name, file, "") == file->size)
        return file->size;
    int64_t half = blob_size(name, file, ".incomplete");
    return half >= 0 && half <= file->size ? half : 0;
}

lori_status hub_blob_get(hub_pull_state *pull, const hub_file *file,
                         lori_error *err)
{
    int lock = -1;
    lori_status st = LORI_OK;
    if (blob_size(pull->name, file, "") != file->size) {
        BASE_TRY(take_lock(pull, file, &lock, err));
        char *blob = hub_path(pull->name->folder, "blobs", file->blob);
        if (!blob)
            st = base_no_memory(err, 1);
        else if (blob_size(pull->name, file, "") != file->size)
            st = make_blob(pull, file, blob, err);
        free(blob);
    }
    if (!st)
        st = link_blob(pull, file, err);
    if (lock >= 0)
        close(lock);
    pull->done += file->size;
    return st;
}
