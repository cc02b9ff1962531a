/* import_i.h - a vocabulary on its way to tokenizer.json, whatever file it
 * comes from: GGUF, SentencePiece, tiktoken or tekken. */
#ifndef JOB_IMPORT_I_H
#define JOB_IMPORT_I_H

#include "job/job_i.h"

/* Kinds of tokens, numbered as GGUF and SentencePiece do. */
enum {
    IMPORT_NORMAL = 1,
    IMPORT_UNKNOWN = 2,
    IMPORT_CONTROL = 3,
    IMPORT_USER_DEFINED = 4,
    IMPORT_UNUSED = 5
};

typedef struct import_token {
    const char *text; /* NUL-terminated; borrowed unless in `texts` */
    size_t n;
    double score; /* or the rank, negated */
    int kind;
} import_token;

typedef struct import_vocab {
    import_token *token; /* [n] by id; owned */
    size_t n;
    char **texts; /* [n_texts] texts made here; owned */
    size_t n_texts;
    bool spm; /* SentencePiece's rules: unknown token, byte fallback */
    bool ignore_merges;
    /* Owned; NULL is null. import_write takes none of them. */
    json_t *merges, *normalizer, *pre_tokenizer, *decoder;
    int64_t bos, eos, unk, pad; /* -1: none */
    bool add_bos, add_eos;
    int64_t context; /* 0: not known */
} import_vocab;
void import_vocab_free(import_vocab *vocab);
/* Takes `text` (malloc'd) as one of vocab->texts; false when out of memory. */
bool import_keep_text(import_vocab *vocab, char *text);

/* Merges of the normal tokens: every split of a token into two of them. By
 * score (falling), then by the characters of the left and the right side
 * (falling), as transformers sorts SentencePiece's; or by rank, then by the
 * ranks of both sides, as it sorts tiktoken's. */
lori_status import_find_merges(import_vocab *vocab, bool by_rank,
                               lori_error *err);
/* The pipelines: SentencePiece's with or without a space in front; the byte
 * alphabet after a split (NULL: GPT-2's), perhaps of single digits. */
lori_status import_spm_pipeline(import_vocab *vocab, bool prefix,
                                lori_error *err);
lori_status import_byte_pipeline(import_vocab *vocab, bool nfc, bool digits,
                                 const char *split, lori_error *err);
/* tokenizer.json and tokenizer_config.json. */
lori_status import_write(const import_vocab *vocab, const char *folder,
                         lori_error *err);

/* Llama 3's split, also of other byte-level tokenizers; `digits` is the
 * pattern of a number. */
#define IMPORT_SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define IMPORT_SPLIT_L3(digits)                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits       \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" IMPORT_SPACES

/* tiktoken: "base64 rank" lines. tekken: Mistral's JSON. */
lori_status import_read_tiktoken(const char *path, import_vocab *vocab,
                                 lori_error *err);
lori_status import_read_tekken(const char *path, import_vocab *vocab,
                               lori_error *err);
lori_status import_read_spm(const char *path, import_vocab *vocab,
                            lori_error *err);

#endif
