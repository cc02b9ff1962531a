/* probe_tokens.c - lets a script ask the text room everything about a string
 * at once: JSON lines in, JSON lines out. For developers' comparisons only.
 *
 * usage: probe_tokens TOKENIZER_PATH
 *   {"text": "..."} -> {"ids", "offsets", "special", "special_offsets", "plain"}
 *                      ids without and with special tokens, each with offsets
 *                      [start, end, ...], and with special text as plain text
 *   {"ids": [...]}  -> {"text", "skip"} decoded with and without special
 *                      tokens; "stream", "stream_skip" where a stream differs
 *   {"bench": [s], "times": n} -> {"seconds": [...], "tokens": n}
 *   {"bench_ids": [...], "times": n} -> {"seconds": [...], "bytes": n}
 *   {"load": path, "times": n} -> {"seconds": [...]}
 *   {"vocab": 1}    -> {"tokens": [text or null, ...]}
 *   any of them     -> {"error": "..."} */
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"
#include "text/text.h"

static json_t *numbers(const text_ids *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(list, json_integer(ids->ids[i]));
    return list;
}

/* Ids with offsets; plain text_encode must give the same ids. */
static lori_status encode(const text_tokenizer *tok, const json_t *text,
                          unsigned flags, const char *name, const char *places,
                          json_t *answer, lori_error *err)
{
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    text_ids ids = {0}, quick = {0};
    text_offset *at = NULL;
    lori_status st = text_encode_offsets(tok, s, n, flags, &ids, &at, err);
    if (st == LORI_OK)
        st = text_encode(tok, s, n, flags, &quick, err);
    if (st == LORI_OK &&
        (ids.n != quick.n ||
         (ids.n && memcmp(ids.ids, quick.ids, ids.n * sizeof *ids.ids) != 0)))
        st = base_fail(err, LORI_MISMATCH, "ids differ without offsets");
    if (st == LORI_OK) {
        json_t *list = json_array();
        for (size_t i = 0; i < ids.n; i++) {
            json_array_append_new(list, json_integer((json_int_t)at[i].start));
            json_array_append_new(list, json_integer((json_int_t)at[i].end));
        }
        json_object_set_new(answer, name, numbers(&ids));
        if (places)
            json_object_set_new(answer, places, list);
        else
            json_decref(list);
    }
    free(at);
    text_ids_free(&ids);
    text_ids_free(&quick);
    return st;
}

static lori_status stream(const text_tokenizer *tok, const text_ids *ids,
                          unsigned flags, base_str *out, lori_error *err)
{
    text_stream *s;
    BASE_TRY(text_stream_new(tok, flags, &s, err));
    lori_status st = LORI_OK;
    for (size_t i = 0; st == LORI_OK && i < ids->n; i++) {
        st = text_stream_put(s, ids->ids[i], out, err);
        if (st == LORI_OK && out->len &&
            base_utf8_valid(out->s, out->len) != out->len)
            st = base_fail(err, LORI_MISMATCH, "half a character came out");
    }
    if (st == LORI_OK)
        st = text_stream_end(s, out, err);
    text_stream_free(s);
    return st;
}

static lori_status decode(const text_tokenizer *tok, const text_ids *ids,
                          unsigned flags, const char *name, const char *other,
                          json_t *answer, lori_error *err)
{
    base_str whole = {0}, parts = {0};
    lori_status st = text_decode(tok, ids->ids, ids->n, flags, &whole, err);
    if (st == LORI_OK)
        st = stream(tok, ids, flags, &parts, err);
    json_object_set_new(answer, name,
                        json_stringn(whole.len ? whole.s : "", whole.len));
    if (whole.len != parts.len ||
        (whole.len && memcmp(whole.s, parts.s, whole.len) != 0))
        json_object_set_new(answer, other,
                            json_stringn(parts.len ? parts.s : "", parts.len));
    base_str_free(&whole);
    base_str_free(&parts);
    return st;
}

static lori_status read_ids(const json_t *list, text_ids *ids, lori_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        BASE_TRY(text_ids_add(
            ids, (int32_t)json_integer_value(json_array_get(list, i)), err));
    return LORI_OK;
}

static lori_status encode_texts(const text_tokenizer *tok, const json_t *texts,
                                text_ids *ids, lori_error *err)
{
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *text = json_array_get(texts, i);
        BASE_TRY(text_encode(tok, json_string_value(text),
                             json_string_length(text), 0, ids, err));
    }
    return LORI_OK;
}

static lori_status bench(const text_tokenizer *tok, const json_t *question,
                         json_t *answer, lori_error *err)
{
    const json_t *text = json_object_get(question, "bench");
    const json_t *list = json_object_get(question, "bench_ids");
    const char *path = json_string_value(json_object_get(question, "load"));
    json_int_t times = json_integer_value(json_object_get(question, "times"));
    json_t *seconds = json_array();
    text_ids given = {0};
    size_t size = 0;
    lori_status st = read_ids(list, &given, err);
    for (json_int_t i = 0; st == LORI_OK && i < times; i++) {
        text_ids ids = {0};
        base_str out = {0};
        text_tokenizer *loaded = NULL;
        double start = base_now_s();
        if (path)
            st = text_tokenizer_open(path, &loaded, err);
        else if (text)
            st = encode_texts(tok, text, &ids, err);
        else
            st = text_decode(tok, given.ids, given.n, 0, &out, err);
        json_array_append_new(seconds, json_real(base_now_s() - start));
        size = text ? ids.n : out.len;
        text_ids_free(&ids);
        base_str_free(&out);
        text_tokenizer_close(loaded);
    }
    text_ids_free(&given);
    json_object_set_new(answer, "seconds", seconds);
    json_object_set_new(answer, text ? "tokens" : "bytes",
                        json_integer((json_int_t)size));
    return st;
}

static void vocab(const text_tokenizer *tok, json_t *answer)
{
    json_t *list = json_array();
    for (int32_t id = 0; id < text_vocab_size(tok); id++) {
        const char *token = text_token(tok, id);
        json_array_append_new(list, token ? json_string(token) : json_null());
    }
    json_object_set_new(answer, "tokens", list);
}

static lori_status answer_question(const text_tokenizer *tok,
                                   const json_t *question, json_t *answer,
                                   lori_error *err)
{
    const json_t *text = json_object_get(question, "text");
    const json_t *list = json_object_get(question, "ids");
    if (text) {
        BASE_TRY(encode(tok, text, 0, "ids", "offsets", answer, err));
        BASE_TRY(encode(tok, text, TEXT_ADD_SPECIAL, "special",
                        "special_offsets", answer, err));
        return encode(tok, text, TEXT_PLAIN, "plain", NULL, answer, err);
    }
    if (list) {
        text_ids ids = {0};
        lori_status st = read_ids(list, &ids, err);
        if (st == LORI_OK)
            st = decode(tok, &ids, 0, "text", "stream", answer, err);
        if (st == LORI_OK)
            st = decode(tok, &ids, TEXT_SKIP_SPECIAL, "skip", "stream_skip",
                        answer, err);
        text_ids_free(&ids);
        return st;
    }
    if (json_object_get(question, "vocab")) {
        vocab(tok, answer);
        return LORI_OK;
    }
    return bench(tok, question, answer, err);
}

static void answer_line(const text_tokenizer *tok, const char *line, size_t n)
{
    lori_error err = {0};
    json_t *question = NULL, *answer = json_object();
    lori_status st = format_json_parse(line, n, "stdin", &question, &err);
    if (st == LORI_OK)
        st = answer_question(tok, question, answer, &err);
    if (st != LORI_OK) {
        json_object_clear(answer);
        json_object_set_new(answer, "error", json_string(err.message));
    }
    char *z = json_dumps(answer, JSON_ENSURE_ASCII | JSON_COMPACT);
    puts(z ? z : "{\"error\":\"no memory\"}");
    fflush(stdout);
    free(z);
    json_decref(question);
    json_decref(answer);
}

int main(int argc, char **argv)
{
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: %s TOKENIZER_PATH\n", argv[0]);
        return 2;
    }
    if (text_tokenizer_open(argv[1], &tok, &err) != LORI_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0)
        answer_line(tok, line, (size_t)n);
    free(line);
    text_tokenizer_close(tok);
    return 0;
}
