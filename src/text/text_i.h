/* text_i.h - what the files of the text room share. Private to the room.
 *
 * A text goes through: added tokens found in the raw text -> normalizer ->
 * added tokens found in the normalized text -> pre-tokenizer (pieces) -> BPE
 * (ids of each piece) -> post-processor (BOS, ...). Everything here is built
 * at open and read-only afterwards; a call's scratch memory is text_work. */
#ifndef TEXT_TEXT_I_H
#define TEXT_TEXT_I_H

#include <jansson.h>

#include "format/format.h"
#include "text/text.h"
#include "text/unicode_i.h"

#define TEXT_MAX_ID   ((1 << 21) - 1)
#define TEXT_MAX_TEXT ((size_t)INT32_MAX) /* bytes in one encode call */

/* ---- vocabulary ------------------------------------------------------ */

/* A token: its text as stored and, when every character of it is in the byte
 * alphabet, the bytes it stands for (else `raw` is the text again). Both are
 * offsets into the arena. */
typedef struct text_entry {
    uint32_t text, text_len;
    uint32_t raw, raw_len;
    int32_t id;
    bool is_bytes; /* raw holds mapped bytes */
} text_entry;

typedef struct text_vocab {
    base_str arena;
    text_entry *entry;
    size_t n, cap;
    uint32_t *slot, *raw_slot; /* open addressing: entry index + 1 */
    size_t mask, raw_mask;
    size_t max_raw; /* longest raw of an is_bytes entry */
    size_t max_text;
    int32_t *of_id; /* [n_ids] entry index or -1 */
    int32_t n_ids;  /* 1 + largest id */
} text_vocab;

/* Later duplicates of a text replace the id, as in a JSON object. */
lori_status text_vocab_add(text_vocab *vocab, const char *s, size_t n,
                           int32_t id, lori_error *err);
/* After the last add: ids and raw bytes become searchable. */
lori_status text_vocab_finish(text_vocab *vocab, lori_error *err);
void text_vocab_free(text_vocab *vocab);
/* Entry index or -1. */
int32_t text_vocab_find(const text_vocab *vocab, const char *s, size_t n);
int32_t text_vocab_find_raw(const text_vocab *vocab, const char *s, size_t n);
static inline int32_t text_vocab_id(const text_vocab *vocab, const char *s,
                                    size_t n)
{
    int32_t e = text_vocab_find(vocab, s, n);
    return e < 0 ? -1 : vocab->entry[e].id;
}

/* ---- regex ----------------------------------------------------------- */

/* An Oniguruma (Ruby) pattern run by PCRE2. Constructs whose meaning differs
 * between the two are refused at compile time. */
typedef struct text_regex text_regex;
/* `where` labels errors. `literal`: the pattern is plain text. */
lori_status text_regex_new(const char *pattern, size_t n, bool literal,
                           const char *where, text_regex **out,
                           lori_error *err);
void text_regex_free(text_regex *regex);
/* Scratch for matching; one for each thread. */
typedef struct text_matcher text_matcher;
lori_status text_matcher_new(text_matcher **out, lori_error *err);
void text_matcher_free(text_matcher *matcher);
/* First match in s[0..n) at or after `from`. *found false: none. */
lori_status text_regex_find(const text_regex *regex, text_matcher *matcher,
                            const char *s, size_t n, size_t from, bool *found,
                            size_t *start, size_t *end, lori_error *err);

/* ---- scratch of one encode call -------------------------------------- */

typedef struct text_piece {
    uint32_t at, n;
} text_piece;
typedef struct text_pieces {
    text_piece *p;
    size_t n, cap;
} text_pieces;
lori_status text_pieces_add(text_pieces *pieces, size_t at, size_t n,
                            lori_error *err);

typedef struct text_symbol {
    int32_t id; /* -1: merged into another */
    int32_t prev, next;
} text_symbol;
typedef struct text_merge_entry {
    uint64_t key; /* rank << 32 | position */
    int32_t id;
} text_merge_entry;

typedef struct text_work {
    text_matcher *matcher;     /* made on first use */
    base_str normal[2];        /* normalizer steps take turns */
    base_str buffer[2];        /* pre-tokenizer steps that change bytes */
    text_pieces pieces, spare; /* steps take turns */
    text_symbol *symbol;
    size_t n_symbols, symbols_cap;
    text_merge_entry *heap;
    size_t heap_cap;
} text_work;
void text_work_free(text_work *work);

/* ---- normalizer ------------------------------------------------------ */

typedef struct text_normalizer {
    const struct text_normalizer_kind *kind;
} text_normalizer;
typedef struct text_normalizers {
    text_normalizer *step;
    size_t n;
} text_normalizers;
/* `json` may be NULL or null. `file` labels errors. */
lori_status text_normalizers_parse(const json_t *json, const char *file,
                                   text_normalizers *out, lori_error *err);
void text_normalizers_free(text_normalizers *normalizers);
/* *out is s itself when nothing applies, else a buffer of `work`. */
lori_status text_normalize(const text_normalizers *normalizers, text_work *work,
                           const char *s, size_t n, const char **out,
                           size_t *n_out, lori_error *err);

/* ---- pre-tokenizer --------------------------------------------------- */

typedef enum text_behavior {
    TEXT_ISOLATED,
    TEXT_REMOVED,
    TEXT_CONTIGUOUS,
    TEXT_MERGED_WITH_PREVIOUS,
    TEXT_MERGED_WITH_NEXT
} text_behavior;

typedef struct text_step {
    enum { TEXT_SPLIT, TEXT_DIGITS, TEXT_PREFIX_SPACE, TEXT_BYTE_MAP } kind;
    text_regex *regex; /* TEXT_SPLIT */
    text_behavior behavior;
    bool invert;
} text_step;
typedef struct text_pretokenizer {
    text_step *step;
    size_t n, cap;
    /* The last step was a byte map: pieces are raw bytes, and the model reads
     * each byte as its character of the byte alphabet. */
    bool bytes;
} text_pretokenizer;
lori_status text_pretokenizer_parse(const json_t *json, const char *file,
                                    text_pretokenizer *out, lori_error *err);
void text_pretokenizer_free(text_pretokenizer *pretokenizer);
/* Leaves work->pieces, offsets into *out (s itself or a buffer of `work`). */
lori_status text_pretokenize(const text_pretokenizer *pretokenizer,
                             text_work *work, const char *s, size_t n,
                             const char **out, lori_error *err);

/* ---- model ----------------------------------------------------------- */

typedef struct text_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
    uint32_t rank;
    int32_t id;
} text_merge;

typedef struct text_bpe {
    const text_vocab *vocab;
    text_merge *merge; /* open addressing */
    size_t merge_mask;
    bool bytes; /* pieces are raw bytes */
    bool ignore_merges, byte_fallback, fuse_unk;
    char *unk; /* or NULL */
    int32_t unk_id;
    int32_t byte_id[256];     /* id of the byte's symbol, or -1 */
    int32_t fallback_id[256]; /* id of <0xHH>, or -1 */
    /* [vocab->n] the token's own text gives this token alone, so a piece
     * that equals it needs no merging. */
    bool *whole;
} text_bpe;
lori_status text_bpe_parse(const json_t *model, const char *file, bool bytes,
                           text_vocab *vocab, text_bpe *out, lori_error *err);
void text_bpe_free(text_bpe *bpe);
/* Appends the ids of one piece. */
lori_status text_bpe_encode(const text_bpe *bpe, text_work *work, const char *s,
                            size_t n, text_ids *out, lori_error *err);

/* ---- added tokens ---------------------------------------------------- */

typedef struct text_added {
    char *content;
    size_t n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} text_added;

/* Patterns sorted bytewise; leftmost-longest matching. */
typedef struct text_pattern {
    char *s;
    size_t n;
    size_t token; /* index into text_added_set.token */
} text_pattern;
typedef struct text_patterns {
    text_pattern *p;
    size_t n;
    bool first[256]; /* bytes that begin a pattern */
} text_patterns;

typedef struct text_added_set {
    text_added *token;
    size_t n, cap;
    text_vocab index; /* content -> index into `token` */
    text_patterns raw, normal;
    int32_t max_id; /* largest id of an added token, -1 */
} text_added_set;

/* As AddedVocabulary::add_tokens: the id is the vocabulary's, or an earlier
 * added token's of the same content, or the next free one. Copies content. */
lori_status text_added_add(text_added_set *set, const text_vocab *vocab,
                           const text_added *token, lori_error *err);
/* Index of the token with this content, or -1. */
int32_t text_added_find(const text_added_set *set, const char *s, size_t n);
/* After the last add. */
lori_status text_added_finish(text_added_set *set,
                              const text_normalizers *normalizers,
                              lori_error *err);
void text_added_free(text_added_set *set);

/* Calls `each` for the parts of s in order: text between tokens (token NULL)
 * and tokens. `plain`: special tokens are not looked for. */
typedef lori_status text_added_each(void *context, const char *s, size_t n,
                                    const text_added *token, lori_error *err);
lori_status text_added_scan(const text_added_set *set,
                            const text_patterns *patterns, bool plain,
                            const char *s, size_t n, text_added_each *each,
                            void *context, lori_error *err);

/* ---- post-processor -------------------------------------------------- */

#define TEXT_MAX_POST_ITEMS 1024
typedef struct text_post {
    int32_t *item; /* an id, or -1 for the text's ids */
    size_t n;
} text_post;
lori_status text_post_parse(const json_t *json, const char *file,
                            text_post *out, lori_error *err);
void text_post_free(text_post *post);

/* ---- decoder --------------------------------------------------------- */

typedef enum text_decoder {
    TEXT_DECODE_SPACES, /* none in the file: tokens joined by a space */
    TEXT_DECODE_CONCAT,
    TEXT_DECODE_BYTES
} text_decoder;
lori_status text_decoder_parse(const json_t *json, const char *file,
                               text_decoder *out, lori_error *err);

/* ---- the whole ------------------------------------------------------- */

/* A token by id. */
typedef struct text_token_view {
    const char *text;  /* NULL: no such id */
    const char *bytes; /* what it decodes to, before UTF-8 repair */
    uint32_t n_text, n_bytes;
    bool special;
} text_token_view;

struct text_tokenizer {
    char *file; /* tokenizer.json's path */
    text_vocab vocab;
    text_added_set added;
    text_normalizers normalizers;
    text_pretokenizer pretokenizer;
    text_bpe bpe;
    text_post post;
    text_decoder decoder;
    text_token_view *token; /* [n_tokens] by id */
    int32_t n_tokens;
    char *added_raw; /* decoded bytes of added tokens */
    int32_t bos, eos;
    int32_t *stop;
    size_t n_stops;
    char *chat_template; /* or NULL */
    char *chat_file;     /* where it came from */
};

/* tokenizer.json; leaves added tokens open for those of the folder. */
lori_status text_json_load(text_tokenizer *tok, lori_error *err);
/* The folder's other files. `folder` NULL: tokenizer.json alone. */
lori_status text_folder_load(text_tokenizer *tok, const char *folder,
                             lori_error *err);

/* "file: pre-tokenizer 'X' is not supported (supported: A, B)". */
lori_status text_unsupported(const char *file, const char *what,
                             const char *type, const char *supported,
                             lori_error *err);
/* The "type" of a component. */
lori_status text_component_type(const json_t *json, const char *file,
                                const char *what, const char **type,
                                lori_error *err);

/* Decoded bytes of s when all its characters are in the byte alphabet. Writes
 * at most n bytes to dst (may be s itself), returns the count or SIZE_MAX. */
size_t text_unmap_bytes(const char *s, size_t n, char *dst);

#endif
