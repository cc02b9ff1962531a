/* hub.h - models by name: a name "org/name" or "org/name@revision" is looked up
 * in Hugging Face's local cache, and hub_pull downloads into that cache. The
 * layout is huggingface_hub's own, so both programs find each other's files:
 *
 *   CACHE/models--org--name/refs/main               a commit
 *                          /snapshots/COMMIT/FILE   a link to the blob
 *                          /blobs/HASH              sha256 (LFS) or git's sha1
 *                          /blobs/HASH.incomplete   a download to resume
 *   CACHE/.locks/models--org--name/HASH.lock        flock while downloading
 *
 * Nothing is downloaded but by hub_pull. May include base and format. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "base/base.h"

/* How much of a snapshot must be there. */
typedef enum hub_need {
    HUB_FACTS,  /* its JSON files: facts are counted from config.json */
    HUB_WEIGHTS /* and all weights that its index names */
} hub_need;

/* The folder that `name` stands for, malloc'd. A path that exists is itself; so
 * is what cannot be a name of the hub ("/x", "./x", "a/b/c"), whose absence the
 * caller notices. Else the snapshot in `cache` (NULL: none is looked at). A
 * name that is not there is NOT_FOUND, a snapshot that was downloaded by half
 * is MISMATCH; both say what was looked for and that `lori pull` gets it. */
lori_status hub_find(const char *cache, const char *name, hub_need need,
                     char **folder, lori_error *err);

typedef struct hub_pull_options {
    const char *name; /* "org/name" or "org/name@revision" */
    const char
        *revision;     /* branch, tag or commit; NULL: of the name, or main */
    const char *cache; /* made when it is not there */
    const char *endpoint; /* "https://huggingface.co" */
    const char *token;    /* NULL: none. Sent to the endpoint's host only */
    /* fnmatch patterns of paths, where * also matches a slash. Without include:
     * what is needed to run (safetensors, JSON, tokenizer, templates). */
    const char *const *include, *const *exclude;
    int64_t n_include, n_exclude;
} hub_pull_options;

typedef struct hub_pull_result {
    char *folder; /* the snapshot; free() */
    char commit[41];
    int64_t files, bytes; /* of the snapshot that were asked for */
    int64_t pulled_bytes; /* that came over the network now */
} hub_pull_result;

/* Downloads what is missing, verifies every file's hash, and then makes the
 * revision point to the new snapshot. Stopped or failed, it leaves
 * *.incomplete files that the next call continues; a snapshot that was there
 * before stays in use. Several processes may pull the same model at once. */
lori_status hub_pull(const hub_pull_options *options, const lori_ui *ui,
                     hub_pull_result *out, lori_error *err);

/* "libcurl/7.88.1 OpenSSL/3.0.19", or NULL when this build cannot download. */
const char *hub_http_library(void);

#endif
