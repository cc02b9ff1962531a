/* text.h - strings <-> token ids, and chat templates.
 * Runs what tokenizer.json says; never decides by model name. Refuses what it
 * cannot run exactly (unknown normalizer, pre-tokenizer, model, ...).
 * Source: huggingface/tokenizers 0.23, spec/text.md. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include <jansson.h>

#include "base/base.h"

/* Immutable after open; may be used from several threads at once. */
typedef struct text_tokenizer text_tokenizer;

/* `path`: a model folder (tokenizer.json, and when present
 * tokenizer_config.json, special_tokens_map.json, generation_config.json,
 * config.json for the special ids, chat_template.jinja) or one tokenizer.json
 * file. */
lori_status text_tokenizer_open(const char *path, text_tokenizer **out,
                                lori_error *err);
void text_tokenizer_close(text_tokenizer *tok);

#define TEXT_ADD_SPECIAL 1 /* run the post-processor (BOS, ...) */
#define TEXT_PLAIN       2 /* special tokens in the text are ordinary text */

/* UTF-8 in (invalid bytes are LORI_FORMAT with the byte offset). Appends to
 * *ids (malloc'd, grown; start with NULL, 0). */
typedef struct text_ids {
    int32_t *ids;
    size_t n, cap;
} text_ids;
void text_ids_free(text_ids *ids);
lori_status text_encode(const text_tokenizer *tok, const char *s, size_t n,
                        unsigned flags, text_ids *out, lori_error *err);
lori_status text_ids_add(text_ids *ids, int32_t id, lori_error *err);
/* Ids that TEXT_ADD_SPECIAL puts behind a text (EOS). */
size_t text_suffix(const text_tokenizer *tok);

#define TEXT_BYTE_OFFSETS 4 /* offsets count bytes, not characters */
/* Where in the text a token comes from, [start, end), as the tokenizers
 * package tells it in Python: in characters, without the white space that the
 * post-processor trims, 0 and 0 for a token that the post-processor added. */
typedef struct text_offset {
    size_t start, end;
} text_offset;
/* text_encode, and an offset for each id that it appended: *offsets is
 * malloc'd. Slower than text_encode. */
lori_status text_encode_offsets(const text_tokenizer *tok, const char *s,
                                size_t n, unsigned flags, text_ids *out,
                                text_offset **offsets, lori_error *err);

#define TEXT_SKIP_SPECIAL 1
/* Appends the text of ids; unknown ids add nothing. */
lori_status text_decode(const text_tokenizer *tok, const int32_t *ids, size_t n,
                        unsigned flags, base_str *out, lori_error *err);

/* Streaming decode: feeds one id, appends to `out` what has become certain,
 * never half a character. The concatenation equals text_decode of all ids, but
 * for one case: byte tokens (<0xHH>) that make a character are shown at once,
 * while text_decode replaces a whole run of them by U+FFFD when any byte of it
 * is wrong. A decoder that needs the whole text comes out at the end. */
typedef struct text_stream text_stream;
lori_status text_stream_new(const text_tokenizer *tok, unsigned flags,
                            text_stream **out, lori_error *err);
lori_status text_stream_put(text_stream *stream, int32_t id, base_str *out,
                            lori_error *err);
lori_status text_stream_end(text_stream *stream, base_str *out,
                            lori_error *err);
void text_stream_free(text_stream *stream);

/* Appends the spelling of bytes in GPT-2's byte alphabet, as byte-level
 * vocabularies are written. */
void text_spell_bytes(const char *bytes, size_t n, base_str *out);

int32_t text_vocab_size(const text_tokenizer *tok); /* 1 + largest id */
/* Id of an exact token text, or -1. */
int32_t text_token_id(const text_tokenizer *tok, const char *token);
/* Text of a token as stored in the vocabulary, or NULL. Borrowed. */
const char *text_token(const text_tokenizer *tok, int32_t id);
bool text_is_special(const text_tokenizer *tok, int32_t id);
/* Named ids from the folder's files, -1 when not set. */
int32_t text_bos(const text_tokenizer *tok);
int32_t text_eos(const text_tokenizer *tok);
/* Ids that end generation: generation_config.json's eos_token_id (int or
 * list) when that file exists, else config.json's, else the tokenizer's eos. */
const int32_t *text_stops(const text_tokenizer *tok, size_t *n);

/* ---- chat ----------------------------------------------------------- */

/* Compiled chat templates; immutable, may render in several threads at once,
 * and independent of the tokenizer once open. */
typedef struct text_chat text_chat;

/* `choice` NULL: the templates of the tokenizer's folder, chosen among and run
 * as transformers 5 does (LORI_NOT_FOUND when it has none). Else one of our
 * own, for models without: "alpaca", "llama3", "chatml", or "none" (BOS and
 * the contents, a line each). Else the path of a template file. */
lori_status text_chat_open(const text_tokenizer *tok, const char *choice,
                           text_chat **out, lori_error *err);
void text_chat_close(text_chat *chat);

typedef struct text_chat_input {
    json_t *messages;  /* list of objects: role, content, ... */
    json_t *tools;     /* list, or NULL: none */
    json_t *documents; /* list, or NULL: none */
    json_t *variables; /* object of further variables, or NULL */
    const char *name;  /* NULL: "tool_use" with tools, else "default" */
    bool add_generation_prompt;  /* the head of a reply follows */
    bool continue_final_message; /* ends inside the last message */
    int64_t now_s; /* for templates that print the date; 0: the clock */
} text_chat_input;

/* Appends the prompt's text, to be encoded without TEXT_ADD_SPECIAL. What the
 * template refuses (raise_exception) is an error in its own words; errors name
 * the template and its line. The JSON values stay the caller's. */
lori_status text_chat_render(const text_chat *chat,
                             const text_chat_input *input, base_str *out,
                             lori_error *err);
/* The same of one user's message, up to the head of the reply. */
lori_status text_chat_user(const text_chat *chat, const char *words,
                           base_str *out, lori_error *err);

#endif
