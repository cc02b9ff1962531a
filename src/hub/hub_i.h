/* hub_i.h - what the files of hub/ share. */
#ifndef HUB_HUB_I_H
#define HUB_HUB_I_H

#include "format/format.h"
#include "hub/hub.h"

/* ---- names and places (hub_name.c) ------------------------------------ */

/* "org/name@revision" taken apart; the parts are malloc'd. */
typedef struct hub_name {
    char *repo;     /* "org/name" or "name" */
    char *revision; /* "main" when none was given */
    char *folder;   /* CACHE/models--org--name */
} hub_name;
/* LORI_INVALID when `text` cannot be a name of the hub. */
lori_status hub_name_parse(const char *text, const char *revision,
                           const char *cache, hub_name *out, lori_error *err);
void hub_name_free(hub_name *name);
bool hub_name_is(const char *text); /* could it be one? */
/* A relative path of plain parts: none empty, ".", ".." or with a control
 * character or backslash, 1024 bytes at most. */
bool hub_path_is_safe(const char *path);
bool hub_is_hex(const char *s, size_t n); /* n lower-case digits, then NUL */
/* "folder/part/name", malloc'd; NULL when out of memory. */
char *hub_path(const char *folder, const char *part, const char *name);

/* ---- what a repository holds (hub_list.c) ------------------------------ */

typedef struct hub_file {
    char *path;
    int64_t size;
    char blob[65]; /* sha256 if lfs, else git's sha1 of the blob */
    bool lfs;
} hub_file;

typedef struct hub_list {
    char commit[41];
    hub_file *files; /* sorted by path */
    size_t n;
} hub_list;

#define HUB_LIST_MAX  ((size_t)64 << 20) /* bytes of the hub's answer */
#define HUB_FILES_MAX 100000
#define HUB_SIZE_MAX  ((int64_t)1 << 50)
/* The hub's answer to /api/models/REPO/revision/REV?blobs=true. `from` labels
 * errors. Every path, hash and size is checked: see the bounds above. */
lori_status hub_list_parse(const char *bytes, size_t n, const char *from,
                           hub_list *out, lori_error *err);
void hub_list_free(hub_list *list);
/* Drops the files that the options do not ask for. */
void hub_list_select(hub_list *list, const hub_pull_options *options);

/* Percent-encodes all but unreserved characters and those in `keep`. */
void hub_url_escape(const char *text, const char *keep, base_str *out);

/* ---- HTTP (hub_http.c) -------------------------------------------------- */

typedef struct hub_http hub_http;
lori_status hub_http_open(const char *endpoint, const char *token,
                          const lori_ui *ui, hub_http **out, lori_error *err);
void hub_http_close(hub_http *http);

/* Where the bytes of an answer go. */
typedef struct hub_sink {
    void *context;
    int64_t have; /* bytes that are there; counted up by hub_http_get */
    int64_t size; /* of the whole, -1: unknown, but at most `max` */
    int64_t max;
    lori_status (*put)(void *context, const void *bytes, size_t n,
                       lori_error *err);
    /* Forget everything: the answer starts with byte 0 again. */
    lori_status (*restart)(void *context, lori_error *err);
} hub_sink;
/* GET endpoint + path (percent-encoded) into the sink, from byte `have` on.
 * Follows redirects, sends the token to the endpoint's host only, tries again
 * after connections that broke and answers that say "later". `what` names the
 * thing in errors. */
lori_status hub_http_get(hub_http *http, const char *path, const char *what,
                         hub_sink *sink, lori_error *err);

/* ---- one file of a pull (hub_blob.c) ----------------------------------- */

typedef struct hub_pull_state {
    const hub_name *name;
    const char *cache;
    const char *commit;
    hub_http *http;
    const lori_ui *ui;
    int64_t done, total; /* bytes of all files */
    int64_t pulled;
    double start_s;
} hub_pull_state;
/* Bytes of the file's blob that are here already. */
int64_t hub_blob_have(const hub_name *name, const hub_file *file);
/* The blob is downloaded and verified if it is not there, and linked into the
 * snapshot. */
lori_status hub_blob_get(hub_pull_state *pull, const hub_file *file,
                         lori_error *err);

#endif
