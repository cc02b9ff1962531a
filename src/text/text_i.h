/* text_i.h - what the files of the text room share. Private to the room.
 *
 * A text goes through: added tokens found in the raw text -> normalizer ->
 * added tokens found in the normalized text -> pre-tokenizer (pieces) -> BPE
 * (ids of each piece) -> post-processor (BOS, ...). Everything here is built
 * at open and read-only afterwards; a call's scratch memory is text_work. */
#ifndef TEXT_TEXT_I_H
#define TEXT_TEXT_I_H

#include <jansson.h>
#include <stdio.h>

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

/* Entry index + 1 (0: empty), the hash of the text (or of the raw bytes), and
 * where in the arena it is: a search looks at nothing else. */
typedef struct text_slot {
    uint32_t entry, hash, at, n;
} text_slot;

typedef struct text_vocab {
    base_str arena;
    text_entry *entry;
    size_t n, cap;
    text_slot *slot, *raw_slot; /* open addressing */
    size_t mask;                /* of both */
    size_t max_raw;             /* longest raw of an is_bytes entry */
    size_t max_text;
    int32_t *of_id; /* [n_ids] entry index or -1 */
    int32_t n_ids;  /* 1 + largest id */
} text_vocab;

/* A new text, not searchable before text_vocab_finish. */
lori_status text_vocab_append(text_vocab *vocab, const char *s, size_t n,
                              int32_t id, lori_error *err);
/* Searchable at once; a text that is there gets the new id. */
lori_status text_vocab_add(text_vocab *vocab, const char *s, size_t n,
                           int32_t id, lori_error *err);
/* After the last append: texts, ids and raw bytes become searchable. Refuses a
 * text that is there twice and an id of two tokens; `file` labels the error. */
lori_status text_vocab_finish(text_vocab *vocab, const char *file,
                              lori_error *err);
void text_vocab_free(text_vocab *vocab);
/* Brings to the processor what text_vocab_find will want, in two calls: the
 * slot, and some time later the text. */
void text_vocab_expect(const text_vocab *vocab, uint32_t hash, bool later);
uint32_t text_vocab_hash(const char *s, size_t n);
/* Entry index or -1. */
int32_t text_vocab_find_hashed(const text_vocab *vocab, uint32_t hash,
                               const char *s, size_t n);
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
/* All matches in s[0..n), one a call; zero-initialise but for the first three
 * members. No empty match comes right after a match. *found false: no more. */
typedef struct text_matches {
    const text_regex *regex;
    const char *s;
    size_t n;
    size_t from, last_end;
    bool any;
} text_matches;
lori_status text_regex_next(text_matches *matches, text_matcher *matcher,
                            bool *found, size_t *start, size_t *end,
                            lori_error *err);

/* ---- texts that know where they come from ---------------------------- */

/* The bytes [first, end) of the user's text that a byte stands for. */
typedef struct text_span {
    uint32_t first, end;
} text_span;

/* A part of a text. `span` [n] is NULL when nobody needs it; then `origin` is
 * where the part begins in the user's text, if nothing was changed. */
typedef struct text_slice {
    const char *s;
    const text_span *span;
    size_t n, origin;
} text_slice;
text_slice text_slice_part(const text_slice *slice, size_t at, size_t n);

typedef struct text_buffer {
    base_str text;
    text_span *span; /* [text.len] of a text that has spans */
    size_t cap;
} text_buffer;
void text_buffer_free(text_buffer *buffer);

/* Writes a changed form of `from` to the end of `out`. Spans follow the rules
 * of the tokenizers package: what replaces a character has its span; what is
 * inserted has the span of the byte before it. */
typedef struct text_edit {
    text_slice from;
    size_t at; /* bytes of `from` that are done */
    text_buffer *out;
} text_edit;
void text_edit_keep(text_edit *edit, size_t n);
void text_edit_drop(text_edit *edit, size_t n);
/* s[0..n) stands for the next `replaced` bytes; 0: it is inserted. */
void text_edit_put(text_edit *edit, const char *s, size_t n, size_t replaced);
/* The result, from byte `start` of `out` on; a failed edit is NO_MEMORY, a
 * text that grew too long is refused. */
lori_status text_edit_end(const text_edit *edit, size_t start, text_slice *out,
                          lori_error *err);

/* Appends NFC (`compose`) or NFD of Unicode 9. Source: UAX #15;
 * huggingface/tokenizers' normalizers. */
lori_status text_normal_form(text_edit *edit, bool compose, lori_error *err);

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
    uint32_t n; /* bytes, as the model counts them */
} text_symbol;
typedef struct text_merge_entry {
    uint64_t key; /* rank << 32 | position */
    int32_t id;
} text_merge_entry;

typedef struct text_work {
    text_matcher *matcher;     /* made on first use */
    text_buffer normal[2];     /* normalizer steps take turns */
    text_buffer buffer[2];     /* pre-tokenizer steps that change bytes */
    text_pieces pieces, spare; /* steps take turns */
    text_symbol *symbol;
    size_t n_symbols, symbols_cap;
    text_merge_entry *heap;
    size_t heap_cap;
    base_str affixed; /* a character with the model's affixes */
    bool want_lengths;
    text_ids lengths; /* of the piece's tokens */
} text_work;
void text_work_free(text_work *work);

/* ---- normalizer ------------------------------------------------------ */

typedef struct text_normalizer {
    const struct text_normalizer_kind *kind;
    text_regex *pattern; /* Replace */
    char *content;       /* Replace, Prepend */
    size_t n;            /* of content */
    char *literal;       /* Replace of plain text */
    size_t n_literal;
    bool left, right; /* Strip */
} text_normalizer;
typedef struct text_normalizers {
    text_normalizer *step;
    size_t n;
} text_normalizers;
/* `json` may be NULL or null. `file` labels errors. */
lori_status text_normalizers_parse(const json_t *json, const char *file,
                                   text_normalizers *out, lori_error *err);
void text_normalizers_free(text_normalizers *normalizers);
/* *out is `in` itself when nothing applies, else in a buffer of `work`. */
lori_status text_normalize(const text_normalizers *normalizers, text_work *work,
                           text_slice in, text_slice *out, lori_error *err);
/* {"String": ...} or {"Regex": ...}: the one string and which it is. */
lori_status text_pattern_parse(const json_t *json, const char *file,
                               const char *what, const json_t **string,
                               bool *literal, lori_error *err);

/* ---- pre-tokenizer --------------------------------------------------- */

typedef enum text_behavior {
    TEXT_ISOLATED,
    TEXT_REMOVED,
    TEXT_CONTIGUOUS,
    TEXT_MERGED_WITH_PREVIOUS,
    TEXT_MERGED_WITH_NEXT
} text_behavior;

typedef struct text_step {
    enum {
        TEXT_SPLIT,        /* at the matches of `regex` */
        TEXT_SPLIT_CHARS,  /* at the characters that `is` accepts */
        TEXT_SPLIT_WORDS,  /* \w+ and [^\w\s]+ are the pieces */
        TEXT_SPLIT_LENGTH, /* every `length` characters */
        TEXT_PREFIX_SPACE,
        TEXT_METASPACE,
        TEXT_BYTE_MAP
    } kind;
    text_regex *regex;
    text_behavior behavior;
    bool invert;
    bool (*is)(uint32_t c, uint32_t delimiter);
    uint32_t delimiter; /* also Metaspace's replacement */
    uint32_t length;
    enum text_scheme {
        TEXT_PREPEND_ALWAYS,
        TEXT_PREPEND_FIRST,
        TEXT_PREPEND_NEVER
    } scheme;
} text_step;
typedef struct text_pretokenizer {
    text_step *step;
    size_t n, cap;
    /* A step asks whether a piece begins the user's text (Metaspace "first");
     * needs_spans: and steps before it change texts. */
    bool has_first, needs_spans;
} text_pretokenizer;
lori_status text_pretokenizer_parse(const json_t *json, const char *file,
                                    text_pretokenizer *out, lori_error *err);
void text_pretokenizer_free(text_pretokenizer *pretokenizer);
/* Takes a byte map off the end, if one is there: pieces are then raw bytes,
 * and the model reads each as its character of the byte alphabet. */
bool text_pretokenizer_raw(text_pretokenizer *pretokenizer);
/* Leaves work->pieces, offsets into *out (`in` or a buffer of `work`). */
lori_status text_pretokenize(const text_pretokenizer *pretokenizer,
                             text_work *work, text_slice in, text_slice *out,
                             lori_error *err);
/* "always", "first", "never", else refused by name. */
lori_status text_scheme_parse(const json_t *json, const char *file,
                              const char *what, enum text_scheme *scheme,
                              lori_error *err);
/* The one character of a string member. */
lori_status text_char_parse(const json_t *json, const char *file,
                            const char *key, uint32_t *c, lori_error *err);

/* ---- model ----------------------------------------------------------- */

typedef struct text_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
    uint32_t rank;
    int32_t id;
} text_merge;

/* Whether a token's own text gives this token alone, so that a piece that
 * equals it needs no merging: found out when it is first asked for. Any thread
 * may write the answer; all write the same. */
enum { TEXT_WHOLE_UNKNOWN, TEXT_WHOLE_YES, TEXT_WHOLE_NO };

typedef struct text_bpe {
    const text_vocab *vocab;
    text_merge *merge; /* open addressing */
    size_t merge_mask;
    bool bytes; /* pieces are raw bytes */
    bool ignore_merges, byte_fallback, fuse_unk;
    char *prefix, *suffix; /* of characters inside and at the end, or NULL */
    char *unk;             /* or NULL */
    int32_t unk_id;
    int32_t byte_id[256];     /* id of the byte's symbol, or -1 */
    int32_t fallback_id[256]; /* id of <0xHH>, or -1 */
    unsigned char *whole;     /* [vocab->n], read and written atomically */
    /* No token has U+2581 after a byte that is not in after_byte: a piece may
     * be cut there without any effect on its ids. */
    bool cuts, after_byte[256];
} text_bpe;
/* model.vocab, at the scan's place. */
lori_status text_vocab_scan(text_vocab *vocab, format_scan *scan,
                            lori_error *err);
/* `model`: the members of "model" but the vocabulary and the merges.
 * First model.merges, at the scan's place: needs a finished vocabulary and, if
 * the model has it, this member. */
#define TEXT_BPE_PREFIX "continuing_subword_prefix"
lori_status text_bpe_load_merges(text_bpe *bpe, const json_t *model,
                                 const text_vocab *vocab, format_scan *scan,
                                 lori_error *err);
/* The rest, after the merges. */
lori_status text_bpe_load(text_bpe *bpe, const json_t *model, const char *file,
                          text_pretokenizer *pretokenizer, lori_error *err);
void text_bpe_free(text_bpe *bpe);
/* Brings to the processor what text_merge_slot will look at. */
void text_merge_expect(const text_bpe *bpe, uint64_t pair);
size_t text_merge_slot(const text_bpe *bpe, uint64_t pair);
static inline uint64_t text_merge_pair(int32_t a, int32_t b)
{
    return (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
}
/* Appends the ids of one piece. With work->lengths their bytes too, as the
 * model counts them: of the piece, or of its byte-alphabet spelling. */
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
#define TEXT_MAX_TRIMS      4
typedef struct text_post {
    int32_t *item; /* an id, or -1 for the text's ids */
    size_t n;
    /* ByteLevel processors that take white space off the offsets. They run on
     * the text's tokens; the reference runs one that comes after a template on
     * its tokens too, which have no width. */
    size_t n_trims;
    bool trim_prefix[TEXT_MAX_TRIMS]; /* add_prefix_space of each */
} text_post;
lori_status text_post_parse(const json_t *json, const char *file,
                            text_post *out, lori_error *err);
void text_post_free(text_post *post);

/* ---- decoder --------------------------------------------------------- */

typedef struct text_decode_step {
    enum text_decode_kind {
        TEXT_DECODE_FALLBACK, /* runs of <0xHH> */
        TEXT_DECODE_BYTES,    /* byte alphabet; what follows is one text */
        TEXT_DECODE_FUSE,
        TEXT_DECODE_METASPACE,
        TEXT_DECODE_REPLACE,
        TEXT_DECODE_STRIP
    } kind;
    text_regex *pattern; /* Replace; or NULL and a literal */
    char *literal, *content;
    size_t n_literal, n_content;
    char mark[4]; /* Strip, Metaspace: the character */
    size_t n_mark;
    size_t start, stop; /* Strip: how many at most */
    bool keep_first;    /* Metaspace "never": nothing is special at first */
} text_decode_step;
typedef struct text_decoder {
    text_decode_step *step;
    size_t n;
    bool spaces;  /* no decoder in the file: tokens joined by spaces */
    size_t fused; /* index of the step that makes one text of all, or n */
    /* Steps after it: a Strip of the text's start alone, at strip_at, or
     * others that need the whole text, which a stream then holds back. */
    bool strips, needs_all;
    size_t strip_at;
} text_decoder;
lori_status text_decoder_parse(const json_t *json, const char *file,
                               text_decoder *out, lori_error *err);
void text_decoder_free(text_decoder *decoder);

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
    bool needs_spans; /* ids depend on where a piece comes from */
    char *added_raw;  /* decoded bytes of added tokens */
    int32_t bos, eos;
    int32_t *stop;
    size_t n_stops;
    json_t *named;     /* "bos_token", ... -> text, as the folder names them */
    json_t *templates; /* chat: name -> [file, text]; NULL when there is none */
};

/* tokenizer.json; leaves added tokens open for those of the folder. */
lori_status text_json_load(text_tokenizer *tok, lori_error *err);
/* The folder's other files. `folder` NULL: tokenizer.json alone. */
lori_status text_folder_load(text_tokenizer *tok, const char *folder,
                             lori_error *err);

/* The folder's chat templates. `config` is tokenizer_config.json or NULL. */
lori_status text_chat_find(text_tokenizer *tok, const char *folder,
                           json_t *config, const char *config_path,
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
