/* probe_text.c - lets a script ask the text room: JSON lines in, JSON lines
 * out. For developers' comparisons only; links text, format and base.
 *
 * usage: probe_text TOKENIZER_PATH [--special] [--plain] [--skip]
 *   {"text": "..."}      -> {"ids": [...]}   (--special: with BOS and the like,
 *                                            --plain: special text is plain)
 *   {"ids": [...]}       -> {"text": "..."}  (--skip: without special tokens;
 *                                            streamed text must be the same)
 *   {"bench": "..."}     -> {"seconds": s, "tokens": n} for one encode call
 *   {"info": 1}          -> {"bos": id, "eos": id, "size": n, "stops": [...]}
 *   any of them          -> {"error": "..."} */
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"
#include "text/text.h"

typedef struct probe {
    text_tokenizer *tok;
    unsigned encode_flags, decode_flags;
} probe;

static lori_status encode(const probe *p, const json_t *text, json_t *answer,
                          lori_error *err)
{
    text_ids ids = {0};
    lori_status st =
        text_encode(p->tok, json_string_value(text), json_string_length(text),
                    p->encode_flags, &ids, err);
    json_t *list = json_array();
    for (size_t i = 0; i < ids.n; i++)
        json_array_append_new(list, json_integer(ids.ids[i]));
    json_object_set_new(answer, "ids", list);
    text_ids_free(&ids);
    return st;
}

static lori_status stream(const probe *p, const text_ids *ids, base_str *out,
                          lori_error *err)
{
    text_stream *s;
    BASE_TRY(text_stream_new(p->tok, p->decode_flags, &s, err));
    lori_status st = LORI_OK;
    for (size_t i = 0; st == LORI_OK && i < ids->n; i++)
        st = text_stream_put(s, ids->ids[i], out, err);
    if (st == LORI_OK)
        st = text_stream_end(s, out, err);
    text_stream_free(s);
    return st;
}

static lori_status decode(const probe *p, const json_t *list, json_t *answer,
                          lori_error *err)
{
    text_ids ids = {0};
    base_str whole = {0}, parts = {0};
    lori_status st = LORI_OK;
    for (size_t i = 0; st == LORI_OK && i < json_array_size(list); i++)
        st = text_ids_add(
            &ids, (int32_t)json_integer_value(json_array_get(list, i)), err);
    if (st == LORI_OK)
        st = text_decode(p->tok, ids.ids, ids.n, p->decode_flags, &whole, err);
    if (st == LORI_OK)
        st = stream(p, &ids, &parts, err);
    if (st == LORI_OK &&
        (whole.len != parts.len ||
         (whole.len && memcmp(whole.s, parts.s, whole.len) != 0)))
        st = base_fail(err, LORI_MISMATCH, "streamed text differs");
    json_object_set_new(answer, "text",
                        json_stringn(whole.len ? whole.s : "", whole.len));
    base_str_free(&whole);
    base_str_free(&parts);
    text_ids_free(&ids);
    return st;
}

static lori_status bench(const probe *p, const json_t *text, json_t *answer,
                         lori_error *err)
{
    text_ids ids = {0};
    double start = base_now_s();
    lori_status st =
        text_encode(p->tok, json_string_value(text), json_string_length(text),
                    p->encode_flags, &ids, err);
    json_object_set_new(answer, "seconds", json_real(base_now_s() - start));
    json_object_set_new(answer, "tokens", json_integer((json_int_t)ids.n));
    text_ids_free(&ids);
    return st;
}

static lori_status info(const probe *p, json_t *answer)
{
    size_t n;
    const int32_t *stop = text_stops(p->tok, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(stop[i]));
    json_object_set_new(answer, "bos", json_integer(text_bos(p->tok)));
    json_object_set_new(answer, "eos", json_integer(text_eos(p->tok)));
    json_object_set_new(answer, "size", json_integer(text_vocab_size(p->tok)));
    json_object_set_new(answer, "stops", list);
    return LORI_OK;
}

static void answer_line(const probe *p, const char *line, size_t n)
{
    lori_error err = {0};
    json_t *question = NULL, *answer = json_object();
    lori_status st = format_json_parse(line, n, "stdin", &question, &err);
    if (st == LORI_OK) {
        const json_t *text = json_object_get(question, "text");
        const json_t *ids = json_object_get(question, "ids");
        const json_t *timed = json_object_get(question, "bench");
        if (text)
            st = encode(p, text, answer, &err);
        else if (ids)
            st = decode(p, ids, answer, &err);
        else if (json_object_get(question, "info"))
            st = info(p, answer);
        else
            st = bench(p, timed, answer, &err);
    }
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
    probe p = {0};
    lori_error err = {0};
    if (argc < 2) {
        fprintf(stderr,
                "usage: %s TOKENIZER_PATH [--special] [--plain] "
                "[--skip]\n",
                argv[0]);
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--special") == 0)
            p.encode_flags |= TEXT_ADD_SPECIAL;
        else if (strcmp(argv[i], "--plain") == 0)
            p.encode_flags |= TEXT_PLAIN;
        else if (strcmp(argv[i], "--skip") == 0)
            p.decode_flags |= TEXT_SKIP_SPECIAL;
        else
            return 2;
    }
    double start = base_now_s();
    if (text_tokenizer_open(argv[1], &p.tok, &err) != LORI_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    fprintf(stderr, "loaded in %.3f s, %d ids, bos %d eos %d\n",
            base_now_s() - start, text_vocab_size(p.tok), text_bos(p.tok),
            text_eos(p.tok));
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0)
        answer_line(&p, line, (size_t)n);
    free(line);
    text_tokenizer_close(p.tok);
    return 0;
}
