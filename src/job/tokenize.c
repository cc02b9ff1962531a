/* tokenize.c - texts to ids and ids to text, of arguments and of files. */
#include "job/job_i.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#define MAX_TEXT ((size_t)INT32_MAX)

/* One of the texts or files of a job. */
typedef struct input {
    const char *name; /* the file, or NULL */
    const char *s;
    size_t n;
    char *owned;
} input;

static lori_status read_input(const char *const *texts,
                              const int64_t *text_bytes, int64_t n_texts,
                              const char *const *files, int64_t i, input *in,
                              lori_error *err)
{
    *in = (input){0};
    if (i < n_texts) {
        in->s = texts[i];
        in->n = text_bytes ? (size_t)text_bytes[i] : strlen(texts[i]);
        return LORI_OK;
    }
    in->name = files[i - n_texts];
    BASE_TRY(base_file_read(in->name, MAX_TEXT, &in->owned, &in->n, err));
    in->s = in->owned;
    return LORI_OK;
}

/* "FILE", or "text 3" for an argument. */
static lori_status prefix_input(const input *in, int64_t i, lori_status st,
                                lori_error *err)
{
    return in->name ? base_prefix(err, st, "%s", in->name)
                    : base_prefix(err, st, "text %lld", (long long)i + 1);
}

/* ---- tokenize ---------------------------------------------------------- */

static json_t *ids_json(const text_ids *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(list, json_integer(ids->ids[i]));
    return list;
}

static json_t *tokens_json(const text_tokenizer *tok, const text_ids *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(list, json_string(text_token(tok, ids->ids[i])));
    return list;
}

static json_t *offsets_json(const text_offset *at, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("[II]", (json_int_t)at[i].start,
                                              (json_int_t)at[i].end));
    return list;
}

static void ids_text(const text_ids *ids, base_str *out)
{
    for (size_t i = 0; i < ids->n; i++)
        base_str_printf(out, i ? " %d" : "%d", ids->ids[i]);
    base_str_puts(out, "\n");
}

/* What one input adds to the report. */
static lori_status tokenize_input(const text_tokenizer *tok,
                                  const lori_tokenize_options *o,
                                  const input *in, json_t *rows, base_str *text,
                                  size_t *total, lori_error *err)
{
    text_ids ids = {0};
    text_offset *at = NULL;
    unsigned flags = (o->no_special_tokens ? 0 : TEXT_ADD_SPECIAL) |
                     (o->plain_special_tokens ? TEXT_PLAIN : 0) |
                     (o->byte_offsets ? TEXT_BYTE_OFFSETS : 0);
    lori_status st =
        o->details
            ? text_encode_offsets(tok, in->s, in->n, flags, &ids, &at, err)
            : text_encode(tok, in->s, in->n, flags, &ids, err);
    if (st == LORI_OK) {
        json_t *row = json_pack("{s[]sI}", "ids", "count", (json_int_t)ids.n);
        if (in->name)
            json_object_set_new(row, "file", json_string(in->name));
        if (o->details) {
            json_object_set_new(row, "ids", ids_json(&ids));
            json_object_set_new(row, "tokens", tokens_json(tok, &ids));
            json_object_set_new(row, "offsets", offsets_json(at, ids.n));
        } else {
            json_object_del(row, "ids");
        }
        if (json_array_append_new(rows, row) != 0)
            st = base_no_memory(err, ids.n);
        if (o->count)
            base_str_printf(text, in->name ? "%zu %s\n" : "%zu\n", ids.n,
                            in->name);
        else
            ids_text(&ids, text);
        *total += ids.n;
    }
    text_ids_free(&ids);
    free(at);
    return st;
}

static lori_status tokenize_all(const text_tokenizer *tok,
                                const lori_tokenize_options *o,
                                const lori_ui *ui, json_t *rows, base_str *text,
                                size_t *total, lori_error *err)
{
    int64_t n = o->n_texts + o->n_files;
    for (int64_t i = 0; i < n; i++) {
        input in;
        if (base_interrupted(ui))
            return base_fail(err, LORI_INTERRUPTED, "tokenizing stopped");
        if (o->n_files > 1)
            base_progress(ui, "tokenize", i, n, "%s",
                          i < o->n_texts ? "" : o->files[i - o->n_texts]);
        BASE_TRY(read_input(o->texts, o->text_bytes, o->n_texts, o->files, i,
                            &in, err));
        lori_status st = tokenize_input(tok, o, &in, rows, text, total, err);
        free(in.owned);
        if (st != LORI_OK)
            return prefix_input(&in, i, st, err);
    }
    return LORI_OK;
}

static lori_status open_tokenizer(const char *hub_cache, const char *name,
                                  text_tokenizer **out, lori_error *err)
{
    char *folder = NULL;
    BASE_TRY(hub_find(hub_cache, name, HUB_FACTS, &folder, err));
    lori_status st = text_tokenizer_open(folder, out, err);
    free(folder);
    return st;
}

lori_status job_tokenize(const lori_tokenize_options *o, const lori_ui *ui,
                         lori_report **out, lori_error *err)
{
    text_tokenizer *tok = NULL;
    base_str text = {0};
    size_t total = 0;
    json_t *rows = json_array();
    *out = NULL;
    lori_status st = job_need(o->model, "a tokenizer (model)", err);
    if (st == LORI_OK && o->n_texts + o->n_files == 0)
        st = base_fail(err, LORI_INVALID, "a text or a file is required");
    if (st == LORI_OK)
        st = open_tokenizer(o->hub_cache, o->model, &tok, err);
    if (st == LORI_OK)
        st = tokenize_all(tok, o, ui, rows, &text, &total, err);
    text_tokenizer_close(tok);
    if (st != LORI_OK) {
        json_decref(rows);
        base_str_free(&text);
        return st;
    }
    if (o->count && o->n_texts + o->n_files > 1)
        base_str_printf(&text, "%zu total\n", total);
    return report_new(json_pack("{sosssI}", "inputs", rows, "offset_unit",
                                o->byte_offsets ? "byte" : "character", "count",
                                (json_int_t)total),
                      &text, out, err);
}

/* ---- detokenize -------------------------------------------------------- */

/* Numbers between anything that may stand between them in a list: "1, 2",
 * "[1 2]", a line each. */
static lori_status parse_ids(const input *in, text_ids *ids, lori_error *err)
{
    size_t i = 0;
    while (i < in->n) {
        char c = in->s[i], number[16];
        size_t digits = 0;
        if (isspace((unsigned char)c) || strchr(",[]", c)) {
            i++;
            continue;
        }
        while (i + digits < in->n && digits < sizeof number - 1 &&
               isdigit((unsigned char)in->s[i + digits])) {
            number[digits] = in->s[i + digits];
            digits++;
        }
        number[digits] = 0;
        long long id = digits ? strtoll(number, NULL, 10) : -1;
        if (id < 0 || id > INT32_MAX)
            return base_fail(err, LORI_FORMAT,
                             "byte %zu: '%.*s' is not a token id", i,
                             (int)(digits ? digits : 1), in->s + i);
        BASE_TRY(text_ids_add(ids, (int32_t)id, err));
        i += digits;
    }
    return LORI_OK;
}

static lori_status detokenize_input(const text_tokenizer *tok,
                                    const lori_detokenize_options *o,
                                    const input *in, json_t *rows,
                                    base_str *text, lori_error *err)
{
    text_ids ids = {0};
    size_t before = text->len;
    lori_status st = parse_ids(in, &ids, err);
    for (size_t i = 0; st == LORI_OK && i < ids.n; i++)
        if (!text_token(tok, ids.ids[i]))
            st = base_fail(err, LORI_INVALID,
                           "id %d is no token (ids are 0 to %d)", ids.ids[i],
                           text_vocab_size(tok) - 1);
    if (st == LORI_OK)
        st = text_decode(tok, ids.ids, ids.n,
                         o->skip_special_tokens ? TEXT_SKIP_SPECIAL : 0, text,
                         err);
    if (st == LORI_OK) {
        json_t *row =
            json_pack("{soss%}", "ids", ids_json(&ids), "text",
                      text->s ? text->s + before : "", text->len - before);
        if (row && in->name)
            json_object_set_new(row, "file", json_string(in->name));
        if (json_array_append_new(rows, row) != 0)
            st = base_no_memory(err, text->len);
        base_str_puts(text, "\n");
    }
    text_ids_free(&ids);
    return st;
}

lori_status job_detokenize(const lori_detokenize_options *o, lori_report **out,
                           lori_error *err)
{
    text_tokenizer *tok = NULL;
    base_str text = {0};
    json_t *rows = json_array();
    *out = NULL;
    lori_status st = job_need(o->model, "a tokenizer (model)", err);
    if (st == LORI_OK && o->n_texts + o->n_files == 0)
        st = base_fail(err, LORI_INVALID, "ids or a file are required");
    if (st == LORI_OK)
        st = open_tokenizer(o->hub_cache, o->model, &tok, err);
    for (int64_t i = 0; st == LORI_OK && i < o->n_texts + o->n_files; i++) {
        input in;
        st = read_input(o->texts, NULL, o->n_texts, o->files, i, &in, err);
        if (st != LORI_OK)
            break;
        st = detokenize_input(tok, o, &in, rows, &text, err);
        free(in.owned);
        if (st != LORI_OK)
            prefix_input(&in, i, st, err);
    }
    text_tokenizer_close(tok);
    if (st == LORI_OK)
        return report_new(json_pack("{so}", "outputs", rows), &text, out, err);
    json_decref(rows);
    base_str_free(&text);
    return st;
}
