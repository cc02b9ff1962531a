/* lori_core.h - status codes, errors and callbacks that every part of lori
 * shares. Included by lori.h; programs include lori.h. */
#ifndef LORI_CORE_H
#define LORI_CORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, what it means). 0 is success everywhere. */
#define LORI_STATUS_LIST(X)                                                    \
    X(OK, 0, "success")                                                        \
    X(INVALID, 1, "bad argument, recipe key or option")                        \
    X(IO, 2, "a file could not be read or written")                            \
    X(FORMAT, 3, "a file's bytes are not what its format says")                \
    X(UNSUPPORTED, 4, "valid, but not something this build can honour")        \
    X(MISMATCH, 5, "two inputs do not fit each other")                         \
    X(NOT_FOUND, 6, "a file, tensor or field is missing")                      \
    X(NO_MEMORY, 7, "memory could not be allocated")                           \
    X(NUMERIC, 8, "NaN or infinity where a number was due")                    \
    X(INTERRUPTED, 9, "the caller asked to stop")                              \
    X(DEVICE, 10, "the compute backend failed")

typedef enum lori_status {
#define LORI_STATUS_ENUM(name, value, text) LORI_##name = (value),
    LORI_STATUS_LIST(LORI_STATUS_ENUM)
#undef LORI_STATUS_ENUM
} lori_status;

/* Caller-owned, fixed size, never allocates. Functions accept NULL instead.
 * After a failure `message` is one line: what was being done, the file and
 * place, the fact, and the remedy where one is known. */
typedef struct lori_error {
    lori_status status;
    char message[2044];
} lori_error;

/* What long work reports. Any callback may be NULL. Called from the thread
 * that called into the library. */
typedef struct lori_progress {
    const char *what;   /* "train", "import", ... */
    int64_t done;       /* units finished */
    int64_t total;      /* 0: unknown */
    const char *detail; /* "loss 1.234  812 tok/s", or "" */
    int bytes;          /* the units are bytes */
} lori_progress;

typedef enum lori_log_level {
    LORI_LOG_INFO = 0,
    LORI_LOG_WARNING = 1
} lori_log_level;

typedef struct lori_ui {
    void *context;
    void (*log)(void *context, lori_log_level level, const char *line);
    void (*progress)(void *context, const lori_progress *progress);
    /* Non-zero asks the work to stop at the next safe point; what was
     * finished is saved and the call returns LORI_INTERRUPTED. */
    int (*interrupted)(void *context);
} lori_ui;

#ifdef __cplusplus
}
#endif
#endif
