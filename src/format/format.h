/* format.h - bytes <-> structure: JSON, YAML, safetensors, GGUF. Every reader
 * here is bounded (sizes are checked before memory is taken), names file and
 * place in its errors, and is fuzzed. Nothing here knows what a model is. */
#ifndef FORMAT_FORMAT_H
#define FORMAT_FORMAT_H

#include <jansson.h>

#include "base/base.h"

/* ---- JSON ----------------------------------------------------------- */

/* Whole text as one JSON value (any type). Keys keep file order, a duplicate
 * key is an error, NUL inside strings is allowed. `name` labels errors:
 * "name:line:column: ...". Caller json_decref()s *out. */
lori_status format_json_parse(const char *bytes, size_t n, const char *name,
                              json_t **out, lori_error *err);
lori_status format_json_load(const char *path, json_t **out, lori_error *err);

/* Typed fields of `object`. Absent or null leaves *io alone (the default)
 * unless `required`. A wrong type or range is LORI_FORMAT naming `file` and
 * `key`. Integers do not accept reals; reals accept integers. */
lori_status format_get_i64(const json_t *object, const char *file,
                           const char *key, bool required, int64_t lo,
                           int64_t hi, int64_t *io, lori_error *err);
lori_status format_get_f64(const json_t *object, const char *file,
                           const char *key, bool required, double *io,
                           lori_error *err);
lori_status format_get_bool(const json_t *object, const char *file,
                            const char *key, bool required, bool *io,
                            lori_error *err);
/* *io is borrowed from `object`. */
lori_status format_get_str(const json_t *object, const char *file,
                           const char *key, bool required, const char **io,
                           lori_error *err);

/* "an object", "a string", ... for messages; NULL is "nothing". */
const char *format_json_kind(const json_t *value);

/* JSON text. Reals in shortest form that reads back equal (base_f64_text). */
#define FORMAT_JSON_SORT   1 /* sort keys at all levels */
#define FORMAT_JSON_INDENT 2 /* two spaces a level; else compact ", " ": " */
#define FORMAT_JSON_ASCII  4 /* escape non-ASCII */
void format_json_text(const json_t *value, unsigned flags, base_str *out);
/* s[0..n) as a JSON string with its quotes, other bytes kept (ascii: escaped
 * as \uXXXX). `s` is valid UTF-8. */
void format_json_quote(const char *s, size_t n, bool ascii, base_str *out);
/* HF's form of config files: sorted, indented, ASCII, final LF if asked. */
lori_status format_json_write(const char *path, const json_t *value,
                              unsigned flags, bool final_newline,
                              lori_error *err);

/* JSON Lines, or one JSON array of objects: calls `row` for each object in
 * order with its 1-based line (array: element) number. */
lori_status format_rows_read(const char *path,
                             lori_status (*row)(void *context, int64_t line,
                                                const json_t *object,
                                                lori_error *err),
                             void *context, lori_error *err);

/* ---- JSON, read as a stream ------------------------------------------ */

/* One value after another from text in memory, without a tree, for members
 * that are too large for one. `more` says whether a list or an object goes on;
 * between two calls exactly one value (an object: key and value) is read or
 * skipped. Errors are "name:line:column: ...". */
typedef struct format_scan {
    const char *s;
    size_t n, at;
    const char *name;
    bool first;    /* an opened list or object had no value yet */
    base_str text; /* a string that had escapes */
} format_scan;
/* Checks that all is UTF-8. bytes and name are borrowed. */
lori_status format_scan_start(format_scan *scan, const char *bytes, size_t n,
                              const char *name, lori_error *err);
void format_scan_free(format_scan *scan);
/* The first character of the next value, ',', ':' or bracket; -1 at the end. */
int format_scan_peek(format_scan *scan);
/* Expects '{' or '['. */
lori_status format_scan_open(format_scan *scan, char bracket, lori_error *err);
/* `bracket` closes: '}' or ']'; it is consumed when *more is false. */
lori_status format_scan_more(format_scan *scan, char bracket, bool *more,
                             lori_error *err);
/* *s is borrowed until the next call; not NUL-terminated. */
lori_status format_scan_string(format_scan *scan, const char **s, size_t *n,
                               lori_error *err);
lori_status format_scan_key(format_scan *scan, const char **s, size_t *n,
                            lori_error *err);
/* *good false: the value, which was skipped, is no integer from lo to hi. */
lori_status format_scan_int(format_scan *scan, int64_t lo, int64_t hi,
                            int64_t *value, bool *good, lori_error *err);
/* Any value, as its text: to be parsed by somebody who checks it. */
lori_status format_scan_skip(format_scan *scan, const char **s, size_t *n,
                             lori_error *err);
lori_status format_scan_end(format_scan *scan, lori_error *err);
int64_t format_scan_line(const format_scan *scan, size_t at); /* from 1 */
/* format_json_parse of a part of a file that begins at `first_line`. */
lori_status format_json_parse_at(const char *bytes, size_t n, const char *name,
                                 int64_t first_line, json_t **out,
                                 lori_error *err);

/* ---- SentencePiece -------------------------------------------------- */

typedef struct format_spm_piece {
    const char *text; /* UTF-8, not NUL-terminated */
    size_t n;
    float score;
    int type; /* 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused,
                 6 byte */
} format_spm_piece;
/* tokenizer.model. Numbers and flags as the file has them, or its format's
 * defaults; ids are -1 when not set. */
typedef struct format_spm {
    format_spm_piece *piece;
    size_t n;
    int64_t model_type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    int64_t byte_fallback, whitespace_as_suffix;
    int64_t add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    bool has_charsmap; /* normalizes characters */
    int64_t unk, bos, eos, pad;
    char *bytes; /* owned; NULL when the caller's */
} format_spm;
lori_status format_spm_open(const char *path, format_spm *out, lori_error *err);
/* Pieces are borrowed from `bytes`. */
lori_status format_spm_parse(const char *bytes, size_t n, const char *name,
                             format_spm *out, lori_error *err);
void format_spm_free(format_spm *spm);

/* ---- YAML ----------------------------------------------------------- */

typedef enum format_yaml_kind {
    FORMAT_YAML_SCALAR,
    FORMAT_YAML_LIST,
    FORMAT_YAML_MAP
} format_yaml_kind;

/* A node of a YAML document; owned by the document. Anchors, aliases, tags
 * and several documents in one file are refused. */
typedef struct format_yaml_node {
    format_yaml_kind kind;
    int line, column; /* 1-based */
    char *key;        /* name inside a parent map, else NULL */
    int key_line, key_column;
    char *text;  /* scalar text */
    bool quoted; /* scalar was quoted: always a string */
    struct format_yaml_node *children;
    size_t n_children;
} format_yaml_node;

lori_status format_yaml_parse(const char *bytes, size_t n, const char *name,
                              format_yaml_node **out, lori_error *err);
lori_status format_yaml_load(const char *path, format_yaml_node **out,
                             lori_error *err);
void format_yaml_free(format_yaml_node *root);

/* Maps read into a struct, by a table. Each key is a row: its name, what it
 * holds, and where in the struct that goes. */
typedef enum format_key_type {
    FORMAT_KEY_STRING, /* char *, owned */
    FORMAT_KEY_BOOL,
    FORMAT_KEY_INT,    /* int64_t in [lo, hi] */
    FORMAT_KEY_REAL,   /* double in [lo, hi] */
    FORMAT_KEY_CHOICE, /* an enum (int) */
    FORMAT_KEY_LIST,   /* char **, owned, and its int64_t count at `count` */
    FORMAT_KEY_NODE    /* const format_yaml_node *: the caller reads it */
} format_key_type;
typedef struct format_choice {
    const char *name; /* NULL ends the table */
    int value;
} format_choice;
typedef struct format_key {
    const char *name;
    format_key_type type;
    size_t offset, count; /* into the struct */
    double lo, hi;
    const format_choice *choices; /* at most 16 */
    bool required;
} format_key;
#define FORMAT_KEYS_MAX 64

/* Fills `out`, which holds the defaults; null means not given. Adds to `d`
 * every unknown key (with the nearest name), wrong value and missing key as
 * "file:line:column: ...". */
void format_keys_read(const format_yaml_node *map, const char *file,
                      const format_key *keys, size_t n, void *out,
                      base_diag *d);
/* Frees strings and lists of `out`. */
void format_keys_free(const format_key *keys, size_t n, void *out);
bool format_yaml_is_null(const format_yaml_node *node);
/* A finite decimal number and nothing else, whatever the locale. */
bool format_real(const char *text, double *out);

/* ---- safetensors ---------------------------------------------------- */
/* Source: huggingface/safetensors README (format); layout spec/peft.md 2.1. */

#define FORMAT_MAX_DIMS 8
typedef struct format_tensor {
    const char *name;
    base_dtype dtype;
    int n_dims;
    int64_t shape[FORMAT_MAX_DIMS];
    const void *data; /* into the map */
    size_t bytes;
    const char *file; /* path of the file that holds it */
} format_tensor;

/* The tensors of one file, or of a folder (stem.safetensors, or the shards
 * that stem.safetensors.index.json names). Zero-copy: views live until
 * format_store_close. Tensors are sorted by name. */
typedef struct format_store format_store;
lori_status format_store_open_file(const char *path, format_store **out,
                                   lori_error *err);
lori_status format_store_open_folder(const char *folder, const char *stem,
                                     format_store **out, lori_error *err);
void format_store_close(format_store *store);
size_t format_store_count(const format_store *store);
const format_tensor *format_store_at(const format_store *store, size_t i);
const format_tensor *format_store_find(const format_store *store,
                                       const char *name);
/* Value of `key` in __metadata__ of the (first) file, or NULL. */
const char *format_store_metadata(const format_store *store, const char *key);

/* Writing: tensors are described first, then `emit` is called once a tensor in
 * file order (dtype descending, name ascending) and writes exactly its bytes
 * through format_sink_write. The file appears whole or not at all. */
typedef struct format_sink format_sink;
lori_status format_sink_write(format_sink *sink, const void *bytes, size_t n,
                              lori_error *err);
typedef struct format_desc {
    const char *name;
    base_dtype dtype;
    int n_dims;
    int64_t shape[FORMAT_MAX_DIMS];
    const void *data; /* for format_st_write; unused by the emit form */
} format_desc;
typedef struct format_pair {
    const char *key, *value;
} format_pair;
typedef lori_status format_emit(void *context, const format_desc *desc,
                                format_sink *sink, lori_error *err);
/* metadata: pairs in the order to write; HF readers want {"format","pt"}. */
lori_status format_st_write(const char *path, const format_desc *tensors,
                            size_t n, const format_pair *metadata,
                            size_t n_meta, lori_error *err);
lori_status format_st_emit(const char *path, const format_desc *tensors,
                           size_t n, const format_pair *metadata, size_t n_meta,
                           format_emit *emit, void *context, lori_error *err);
/* stem.safetensors, or shards of at most `max_shard_bytes` (greedy in the
 * given order; a larger tensor gets its own) with stem.safetensors.index.json.
 * Metadata is {"format":"pt"}. On failure no shard of this call is left. */
lori_status format_st_emit_folder(const char *folder, const char *stem,
                                  const format_desc *tensors, size_t n,
                                  uint64_t max_shard_bytes, format_emit *emit,
                                  void *context, lori_error *err);

/* ---- GGUF ----------------------------------------------------------- */
/* Source: ggml docs/gguf.md as recorded in spec/gguf.md. Read with pread. */

typedef struct format_gguf format_gguf;
typedef struct format_gguf_tensor {
    const char *name;
    uint32_t type; /* ggml type code, one of those we decode */
    int n_dims;
    int64_t shape[4]; /* HF order: outermost first */
    uint64_t offset;  /* from the start of the file */
    uint64_t bytes;
} format_gguf_tensor;

lori_status format_gguf_open(const char *path, format_gguf **out,
                             lori_error *err);
void format_gguf_close(format_gguf *gguf);
size_t format_gguf_count(const format_gguf *gguf);
const format_gguf_tensor *format_gguf_at(const format_gguf *gguf, size_t i);
const format_gguf_tensor *format_gguf_find(const format_gguf *gguf,
                                           const char *name);
const char *format_gguf_type_name(uint32_t type); /* "Q4_1" */

/* Key-values. Scalars: absent leaves *io alone unless required. Any integer
 * type is accepted for integers, with range check. Strings are borrowed. */
bool format_gguf_has(const format_gguf *gguf, const char *key);
lori_status format_gguf_i64(const format_gguf *gguf, const char *key,
                            bool required, int64_t lo, int64_t hi, int64_t *io,
                            lori_error *err);
/* As above, but an array whose elements are all equal is accepted too. */
lori_status format_gguf_i64_same(const format_gguf *gguf, const char *key,
                                 bool required, int64_t lo, int64_t hi,
                                 int64_t *io, lori_error *err);
lori_status format_gguf_f32(const format_gguf *gguf, const char *key,
                            bool required, float *io, lori_error *err);
lori_status format_gguf_bool(const format_gguf *gguf, const char *key,
                             bool required, bool *io, lori_error *err);
lori_status format_gguf_str(const format_gguf *gguf, const char *key,
                            bool required, const char **bytes, size_t *n,
                            lori_error *err);
/* Arrays: count, then elements by index (strings borrowed, NUL-terminated). */
lori_status format_gguf_strings(const format_gguf *gguf, const char *key,
                                bool required, size_t *count,
                                const char *const **strings,
                                const size_t **lengths, lori_error *err);
lori_status format_gguf_f32s(const format_gguf *gguf, const char *key,
                             bool required, size_t *count, const float **values,
                             lori_error *err);
/* i32 and u32 arrays. */
lori_status format_gguf_i32s(const format_gguf *gguf, const char *key,
                             bool required, size_t *count,
                             const int32_t **values, lori_error *err);

/* Rows [row, row + rows) of a tensor (last dimension = columns; 1-D tensors
 * are one row) decoded to float: dst [rows, cols]. Exact. */
lori_status format_gguf_rows(const format_gguf *gguf,
                             const format_gguf_tensor *tensor, int64_t row,
                             int64_t rows, float *dst, lori_error *err);
/* One type's blocks to floats; n a multiple of the block. For tests. */
lori_status format_gguf_decode(uint32_t type, const void *blocks, int64_t n,
                               float *dst, lori_error *err);

#endif
