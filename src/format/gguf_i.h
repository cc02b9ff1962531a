/* gguf_i.h - between gguf_read.c (the container), gguf.c (what is asked of it)
 * and gguf_decode.c (the blocks). */
#ifndef FORMAT_GGUF_I_H
#define FORMAT_GGUF_I_H

#include "format/format.h"

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} gguf_type;

/* A key and its value, owned. A scalar is an array of one element. */
typedef struct gguf_kv {
    char *key;
    bool is_array;
    gguf_type type; /* of the elements; never GGUF_ARRAY */
    size_t count;
    char *bytes; /* the elements packed; strings each with a NUL after it */
    const char **strings; /* into `bytes`; NULL unless strings */
    size_t *lengths;
} gguf_kv;

struct format_gguf {
    char *path;
    int fd;
    uint64_t file_bytes, data_start;
    gguf_kv *kvs; /* sorted by key */
    size_t n_kvs;
    format_gguf_tensor *tensors; /* in file order; names owned */
    size_t n_tensors;
    const format_gguf_tensor **by_name;
};

/* Reads everything before the data. g->path, fd and file_bytes are set; what
 * was read before a failure is freed with *g. */
lori_status format_gguf_read_header(format_gguf *g, lori_error *err);

size_t format_gguf_value_bytes(gguf_type type); /* 0 for strings, arrays */
const char *format_gguf_value_name(gguf_type type);

/* `n` bytes of the file at `at` into dst; an early end is LORI_FORMAT. */
lori_status format_gguf_pread(const format_gguf *g, void *dst, size_t n,
                              uint64_t at, lori_error *err);

/* Values a block holds and bytes it takes; false for a type not decoded. */
bool format_gguf_block(uint32_t type, int64_t *values, size_t *bytes);

#endif
