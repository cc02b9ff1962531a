/* hub_server.c - a hub for tests of `lori pull`, on 127.0.0.1. Every
 * "ORG/NAME" holds the files of one folder; the ORG says how the server
 * misbehaves (see `faults`). Prints its port, logs a line a request to stderr,
 * and ends with its standard input.
 *   hub_server FOLDER */
#include <arpa/inet.h>
#include <dirent.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

typedef enum fault {
    GOOD,
    CUT,       /* the first answer with a large file ends in the middle */
    NO_RANGE,  /* the same, and Range is ignored */
    WRONG,     /* a byte of large files is another one */
    WRONG_GIT, /* a byte of small files is another one */
    GATED,     /* files: 403 */
    PRIVATE,   /* 401 without the token "secret" */
    MISSING,   /* 404 */
    MOVED,     /* large files are redirected to another port, without token */
    SHORTER,   /* the list says more bytes than there are */
    LONGER,    /* the list says fewer */
    HUGE_FILE, /* the list says half a petabyte */
    ABSURD,    /* the list says 2^60 bytes */
    EVIL,      /* the list holds ../../evil */
    GARBAGE,   /* the list is no JSON */
    ENDLESS,   /* the list does not end */
    LATE,      /* large files stop in the middle until FOLDER.go is there */
    BUSY,      /* every third answer is one, the others 503 */
    CHATTY,    /* a page about an error that does not end */
    LOOP       /* redirected to itself for ever */
} fault;
static const char *const faults[] = {
    "good",    "cut",     "no-range", "wrong",  "wrong-git",
    "gated",   "private", "missing",  "moved",  "shorter",
    "longer",  "huge",    "absurd",   "evil",   "garbage",
    "endless", "late",    "busy",     "chatty", "loop"};
#define N_FAULTS (sizeof faults / sizeof *faults)

typedef struct file {
    char name[64];
    unsigned char *bytes;
    size_t n;
    bool lfs;
    char hash[65];
} file;

static file files[32];
static size_t n_files;
static int ports[2]; /* the hub, and the host of moved files */
static char go_file[4096];
static atomic_int cuts[2][32], answers;

/* ---- the files ------------------------------------------------------- */

static void hash_file(file *f)
{
    unsigned char digest[64];
    unsigned n = 0;
    char head[32];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_DigestInit_ex(md, f->lfs ? EVP_sha256() : EVP_sha1(), NULL);
    if (!f->lfs)
        EVP_DigestUpdate(md, head,
                         (size_t)snprintf(head, 32, "blob %zu", f->n) + 1);
    EVP_DigestUpdate(md, f->bytes, f->n);
    EVP_DigestFinal_ex(md, digest, &n);
    EVP_MD_CTX_free(md);
    for (unsigned i = 0; i < n; i++)
        snprintf(f->hash + 2 * i, 3, "%02x", digest[i]);
}

static bool read_files(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;
    while (dir && (e = readdir(dir)) && n_files < 32) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        file *f = &files[n_files];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        snprintf(f->name, sizeof f->name, "%s", e->d_name);
        FILE *in = fopen(path, "rb");
        if (!in)
            continue;
        f->bytes = malloc(1 << 24);
        f->n = f->bytes ? fread(f->bytes, 1, 1 << 24, in) : 0;
        fclose(in);
        f->lfs = strstr(f->name, ".safetensors") || strstr(f->name, ".bin");
        hash_file(f);
        n_files++;
    }
    return dir && !closedir(dir) && n_files > 0;
}

/* ---- answers --------------------------------------------------------- */

static void send_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    for (ssize_t put; n && (put = send(fd, p, n, MSG_NOSIGNAL)) > 0;
         p += put, n -= (size_t)put)
        ;
}

static void reply(int fd, const char *fmt, ...)
{
    char text[1 << 16];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    send_all(fd, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void status(int fd, const char *line, const char *headers)
{
    reply(fd,
          "HTTP/1.1 %s\r\n%sContent-Length: 5\r\nConnection: close\r\n\r\n"
          "page\n",
          line, headers);
}

static void send_list(int fd, fault how)
{
    char text[1 << 14];
    size_t at = 0;
    reply(fd, "HTTP/1.1 %s\r\nConnection: close\r\n\r\n",
          how == CHATTY ? "404 Not Found" : "200 OK");
    memset(text, ' ', sizeof text);
    for (int i = 0; (how == ENDLESS || how == CHATTY) && i < 5000; i++)
        send_all(fd, text, sizeof text); /* 80 MB of spaces */
    at +=
        (size_t)snprintf(text, sizeof text,
                         "{\"id\":\"x\",\"sha\":\"" COMMIT "\",\"siblings\":[");
    for (size_t i = 0; i < n_files; i++) {
        const file *f = &files[i];
        long long n = (long long)f->n;
        if (f->lfs && how == SHORTER)
            n += 7;
        if (f->lfs && how == LONGER)
            n -= 7;
        if (f->lfs && how == HUGE_FILE)
            n = 1LL << 49;
        if (f->lfs && how == ABSURD)
            n = 1LL << 60;
        const char *name = how == EVIL && i == 0 ? "../../evil" : f->name;
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "%s{\"rfilename\":\"%s\",\"size\":%lld,"
                               "\"blobId\":\"%.40s\"",
                               i ? "," : "", name, n, f->hash);
        if (f->lfs)
            at += (size_t)snprintf(text + at, sizeof text - at,
                                   ",\"lfs\":{\"sha256\":\"%s\",\"size\":%lld,"
                                   "\"pointerSize\":130}",
                                   f->hash, n);
        at += (size_t)snprintf(text + at, sizeof text - at, "}");
    }
    at += (size_t)snprintf(text + at, sizeof text - at,
                           how == GARBAGE ? "oh no" : "]}");
    send_all(fd, text, at);
}

/* The list as huggingface_hub asks for it. */
static void send_tree(int fd)
{
    reply(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[");
    for (size_t i = 0; i < n_files; i++) {
        const file *f = &files[i];
        reply(fd,
              "%s{\"type\":\"file\",\"path\":\"%s\",\"size\":%zu,"
              "\"oid\":\"%.40s\"",
              i ? "," : "", f->name, f->n, f->hash);
        if (f->lfs)
            reply(fd,
                  ",\"lfs\":{\"oid\":\"%s\",\"size\":%zu,"
                  "\"pointerSize\":130}",
                  f->hash, f->n);
        reply(fd, "}");
    }
    reply(fd, "]");
}

static void send_head(int fd, const file *f)
{
    reply(fd,
          "HTTP/1.1 200 OK\r\nX-Repo-Commit: " COMMIT "\r\n"
          "ETag: \"%s\"\r\nContent-Length: %zu\r\n"
          "Connection: close\r\n\r\n",
          f->hash, f->n);
}

/* Half of it, and the rest when FOLDER.go is there or after a minute. */
static void send_late(int fd, const unsigned char *bytes, size_t n)
{
    send_all(fd, bytes, n / 2);
    for (int i = 0; i < 3000 && access(go_file, F_OK) != 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    send_all(fd, bytes + n / 2, n - n / 2);
}

static void send_file(int fd, fault how, size_t index, long long from)
{
    const file *f = &files[index];
    unsigned char *bytes = malloc(f->n + 1);
    if (!bytes)
        return;
    memcpy(bytes, f->bytes, f->n);
    if (f->n && ((how == WRONG && f->lfs) || (how == WRONG_GIT && !f->lfs)))
        bytes[f->n / 2] ^= 1;
    if (how == NO_RANGE || from < 0)
        from = 0;
    if (from > (long long)f->n) {
        status(fd, "416 Range Not Satisfiable", "");
        free(bytes);
        return;
    }
    size_t n = f->n - (size_t)from;
    if (from > 0)
        reply(fd,
              "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes "
              "%lld-%zu/%zu\r\n",
              from, f->n - 1, f->n);
    else
        reply(fd, "HTTP/1.1 200 OK\r\n");
    if (how != LONGER)
        reply(fd, "Content-Length: %zu\r\n", n);
    reply(fd, "ETag: \"%s\"\r\nConnection: close\r\n\r\n", f->hash);
    bool cut = (how == CUT || how == NO_RANGE) && f->lfs && from == 0 &&
               atomic_fetch_add(&cuts[how == CUT][index], 1) == 0;
    if (how == LATE && f->lfs)
        send_late(fd, bytes + from, n);
    else
        send_all(fd, bytes + from, cut ? n / 2 : n);
    free(bytes);
}

/* ---- requests -------------------------------------------------------- */

static size_t find(const char *path)
{
    const char *name = strrchr(path, '/');
    for (size_t i = 0; name && i < n_files; i++)
        if (strcmp(files[i].name, name + 1) == 0)
            return i;
    return 32;
}

static void serve(int fd, const char *path, fault how, bool second,
                  const char *auth, long long from, bool head)
{
    bool list = strncmp(path, "/api/", 5) == 0, secret = false;
    size_t index = find(path);
    char to[1200];
    if (auth)
        secret = strncmp(auth, "Authorization: Bearer secret\r", 29) == 0;
    if (how == BUSY && atomic_fetch_add(&answers, 1) % 3 != 2)
        status(fd, "503 Service Unavailable", "Retry-After: 1\r\n");
    else if (second && auth)
        status(fd, "400 Bad Request", "X-Error-Message: a token\r\n");
    else if (how == MISSING)
        status(fd, "404 Not Found", "X-Error-Code: RepoNotFound\r\n");
    else if ((how == PRIVATE || how == MOVED) && !secret && !second)
        status(fd, "401 Unauthorized", "");
    else if (how == GATED && !list)
        status(fd, "403 Forbidden", "X-Error-Code: GatedRepo\r\n");
    else if (how == CHATTY)
        send_list(fd, how);
    else if (how == LOOP) {
        snprintf(to, sizeof to, "Location: %.1000s\r\n", path);
        status(fd, "302 Found", to);
    } else if (list && strstr(path, "/tree/"))
        send_tree(fd);
    else if (list)
        send_list(fd, how);
    else if (index == 32)
        status(fd, "404 Not Found", "X-Error-Code: EntryNotFound\r\n");
    else if (how == MOVED && files[index].lfs && !second) {
        snprintf(to, sizeof to, "Location: http://127.0.0.1:%d%.1000s\r\n",
                 ports[1], path);
        status(fd, "302 Found", to);
    } else if (head)
        send_head(fd, &files[index]);
    else
        send_file(fd, how, index, from);
}

static void answer(int fd, bool second)
{
    char text[8192] = "", path[1024] = "";
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && !strstr(text, "\r\n\r\n") &&
                      (got = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0;
         text[n] = 0)
        n += (size_t)got;
    bool head = sscanf(text, "HEAD %1023s", path) == 1;
    if (!head && sscanf(text, "GET %1023s", path) != 1)
        return;
    const char *range = strstr(text, "Range: bytes=");
    const char *auth = strstr(text, "Authorization:");
    long long from = range ? atoll(range + 13) : -1;
    const char *org = path + (strncmp(path, "/api/models/", 12) == 0 ? 12 : 1);
    fault how = GOOD;
    for (size_t i = 0; i < N_FAULTS; i++)
        if (strncmp(org, faults[i], strlen(faults[i])) == 0 &&
            org[strlen(faults[i])] == '/')
            how = (fault)i;
    fprintf(stderr, "%s from=%lld token=%s port=%d\n", path, from,
            auth ? "yes" : "no", second ? 2 : 1);
    serve(fd, path, how, second, auth, from, head);
}

static void *connection(void *at)
{
    int fd = (int)((long)at >> 1);
    answer(fd, (long)at & 1);
    shutdown(fd, SHUT_WR);
    close(fd);
    return NULL;
}

static void *listener(void *at)
{
    int fd = (int)((long)at >> 1);
    for (;;) {
        int got = accept(fd, NULL, NULL);
        pthread_t thread;
        if (got < 0)
            return NULL;
        if (pthread_create(&thread, NULL, connection,
                           (void *)((long)got << 1 | ((long)at & 1))) == 0)
            pthread_detach(thread);
        else
            close(got);
    }
}

static bool start(long which)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    pthread_t thread;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        return false;
    ports[which] = ntohs(a.sin_port);
    return !pthread_create(&thread, NULL, listener,
                           (void *)((long)fd << 1 | which));
}

int main(int argc, char **argv)
{
    char c;
    signal(SIGPIPE, SIG_IGN);
    snprintf(go_file, sizeof go_file, "%s.go", argc > 1 ? argv[1] : "");
    setvbuf(stderr, NULL, _IOLBF, 4096);
    if (argc < 2 || !read_files(argv[1]) || !start(0) || !start(1))
        return 1;
    printf("%d\n", ports[0]);
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    return 0;
}
