/* dataset.c - a file of rows becomes tokens with targets. Owns the tokens of a
 * dataset and the rules of tokenizing it (spec/lori.md 3.3-3.5, trainer.md
 * 1d): prompt and completion apart, EOS after the completion, no row without
 * a target. Forms of rows stand in row_text.c. Includes train_i.h, format.h.
 */
#include <stdlib.h>

#include "format/format.h"
#include "train/train_i.h"

#define EMPTY                                                                  \
    "%s: the dataset has no rows; it takes JSON Lines, an object a line, or "  \
    "a "                                                                       \
    "JSON array of objects"

#define SHOWN_ERRORS 8      /* of wrong rows */
#define REPORT_EVERY 256    /* rows between two progress calls */
#define NO_LOSS      (-100) /* a label that is no target; Hugging Face's */

typedef struct loader {
    const char *path;
    const text_tokenizer *tok;
    const train_data_options *o;
    const lori_ui *ui;
    int64_t vocab;
    rows_form form;
    diag d;
    bool full; /* max_samples reached: reading stops */
    int64_t n_seen;
    size_t cap_ids, cap_rows;
    base_str prompt, turn;
    text_chat *chat; /* NULL: prompts as they are */
    text_ids ids;
    train_data *data;
} loader;

/* ---- growing -------------------------------------------------------- */

static lori_status reserve(loader *l, size_t n, lori_error *err)
{
    train_data *t = l->data;
    size_t rows = (size_t)t->n_rows + 2, ids = (size_t)t->n_tokens + n;
    if (rows > l->cap_rows) {
        size_t cap = rows * 2;
        int64_t *start = base_resize(t->start, cap, sizeof *start);
        if (!start)
            return base_no_memory(err, cap * sizeof *start);
        t->start = start;
        l->cap_rows = cap;
    }
    if (ids > l->cap_ids) {
        size_t cap = ids * 2;
        int32_t *grown = base_resize(t->ids, cap, sizeof *grown);
        if (!grown)
            return base_no_memory(err, cap * sizeof *grown);
        t->ids = grown;
        uint8_t *label = base_resize(t->label, cap, sizeof *label);
        if (!label)
            return base_no_memory(err, cap);
        t->label = label;
        l->cap_ids = cap;
    }
    return LORI_OK;
}

/* The n tokens (and labels) that stand behind the last row become a row: cut
 * at max_seq_length, dropped when nothing is left to predict. */
static void close_row(loader *l, int64_t n)
{
    train_data *t = l->data;
    if (n > l->o->max_seq_length) {
        n = l->o->max_seq_length;
        t->n_truncated++;
    }
    int64_t targets = 0;
    if (n)
        t->label[t->n_tokens] = 0; /* nothing stands before it */
    for (int64_t i = 0; i < n; i++)
        targets += t->label[t->n_tokens + i];
    if (targets == 0) {
        t->n_dropped++;
        return;
    }
    t->start[t->n_rows++] = t->n_tokens;
    t->n_tokens += n;
    t->n_targets += targets;
    t->start[t->n_rows] = t->n_tokens;
}

/* ---- rows of tokens ------------------------------------------------- */

/* One id of `list`, in [0, vocab); false adds to the errors. */
static bool token_at(loader *l, const json_t *list, size_t i, const char *place,
                     int32_t *id)
{
    const json_t *v = json_array_get(list, i);
    if (!json_is_integer(v)) {
        diag_add(&l->d, "%s: input_ids[%zu] is not a whole number", place, i);
        return false;
    }
    json_int_t x = json_integer_value(v);
    if (x < 0 || x >= l->vocab) {
        diag_add(&l->d,
                 "%s: input_ids[%zu] is %lld, outside the vocabulary of %lld",
                 place, i, (long long)x, (long long)l->vocab);
        return false;
    }
    *id = (int32_t)x;
    return true;
}

/* labels[i]: NO_LOSS, or the id itself. */
static bool label_at(loader *l, const json_t *list, size_t i, const char *place,
                     int32_t id, uint8_t *label)
{
    const json_t *v = json_array_get(list, i);
    json_int_t x = json_is_integer(v) ? json_integer_value(v) : -1;
    if (x == NO_LOSS || x == id) {
        *label = x == id;
        return true;
    }
    if (json_is_integer(v))
        diag_add(&l->d,
                 "%s: labels[%zu] is %lld; -100 or the token itself, %d, is "
                 "possible",
                 place, i, (long long)x, id);
    else
        diag_add(&l->d, "%s: labels[%zu] is not a whole number", place, i);
    return false;
}

static lori_status token_row(loader *l, const json_t *row, const char *place,
                             lori_error *err)
{
    const json_t *ids = json_object_get(row, "input_ids");
    const json_t *labels = json_object_get(row, "labels");
    size_t n = json_array_size(ids);
    bool need = l->o->completion_only_loss;
    if (!json_is_array(ids) || (!json_is_array(labels) && (labels || need))) {
        const char *name = json_is_array(ids) ? "labels" : "input_ids";
        base_str has = {0};
        rows_fields(row, &has);
        if (json_object_get(row, name))
            diag_add(&l->d, "%s: field '%s' is not a list", place, name);
        else
            diag_add(&l->d, "%s: field '%s' is missing (row has: %s)", place,
                     name, has.s ? has.s : "");
        base_str_free(&has);
        return LORI_OK;
    }
    if (labels && json_array_size(labels) != n) {
        diag_add(&l->d, "%s: %zu labels for %zu input_ids", place,
                 json_array_size(labels), n);
        return LORI_OK;
    }
    BASE_TRY(reserve(l, n + 1, err));
    int32_t *id = l->data->ids + l->data->n_tokens;
    uint8_t *label = l->data->label + l->data->n_tokens;
    for (size_t i = 0; i < n; i++) {
        label[i] = 1;
        if (!token_at(l, ids, i, place, &id[i]) ||
            (labels && !label_at(l, labels, i, place, id[i], &label[i])))
            return LORI_OK;
    }
    close_row(l, (int64_t)n);
    return LORI_OK;
}

/* ---- rows of text --------------------------------------------------- */

/* Copies ids behind the last row, at offset `at`. */
static bool take_ids(loader *l, int64_t at, const int32_t *ids, size_t n,
                     bool target, const char *place)
{
    int32_t *id = l->data->ids + l->data->n_tokens + at;
    uint8_t *label = l->data->label + l->data->n_tokens + at;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= l->vocab) {
            diag_add(&l->d,
                     "%s: the tokenizer makes token %d, but the model's "
                     "vocabulary has %lld: they do not belong together",
                     place, ids[i], (long long)l->vocab);
            return false;
        }
        id[i] = ids[i];
        label[i] = target;
    }
    return true;
}

/* The ids of the row's prompt, into l->ids. */
static lori_status prompt_ids(loader *l, const char *place, lori_error *err)
{
    const base_str *text = l->chat ? &l->turn : &l->prompt;
    lori_status st = LORI_OK;
    base_str_clear(&l->turn);
    if (l->chat)
        st = text_chat_user(l->chat, l->prompt.s ? l->prompt.s : "", &l->turn,
                            err);
    l->ids.n = 0;
    if (!st)
        st = text_encode(l->tok, text->s ? text->s : "", text->len,
                         l->chat ? 0 : TEXT_ADD_SPECIAL, &l->ids, err);
    if (st)
        return base_prefix(err, st, "%s: prompt", place);
    if (!l->chat) /* not between prompt and completion */
        l->ids.n -= text_suffix(l->tok);
    return LORI_OK;
}

static lori_status text_row(loader *l, const json_t *row, const char *place,
                            lori_error *err)
{
    const char *completion;
    size_t n;
    if (!rows_texts(&l->form, row, place, &l->prompt, &completion, &n, &l->d))
        return l->prompt.failed ? base_no_memory(err, l->prompt.len) : LORI_OK;
    if (l->prompt.failed)
        return base_no_memory(err, l->prompt.len);
    lori_status st = prompt_ids(l, place, err);
    if (st)
        return st;
    size_t n_prompt = l->ids.n;
    st = text_encode(l->tok, completion, n, 0, &l->ids, err);
    if (st)
        return base_prefix(err, st, "%s: completion", place);
    int32_t eos = text_eos(l->tok);
    if (eos >= 0)
        BASE_TRY(text_ids_add(&l->ids, eos, err));
    BASE_TRY(reserve(l, l->ids.n + 1, err));
    if (!take_ids(l, 0, l->ids.ids, n_prompt, !l->o->completion_only_loss,
                  place) ||
        !take_ids(l, (int64_t)n_prompt, l->ids.ids + n_prompt,
                  l->ids.n - n_prompt, true, place))
        return LORI_OK;
    close_row(l, (int64_t)l->ids.n);
    return LORI_OK;
}

/* ---- the file ------------------------------------------------------- */

static lori_status first_row(loader *l, const json_t *row, const char *place,
                             lori_error *err)
{
    if (!rows_find_form(l->o, row, place, &l->form, &l->d))
        return diag_end(&l->d, LORI_FORMAT, err);
    if (l->form.kind == ROWS_TOKENS)
        return LORI_OK;
    if (!l->tok)
        return base_fail(err, LORI_MISMATCH,
                         "%s: rows of text need a tokenizer, and the model has "
                         "none (tokenizer.json); give input_ids and labels",
                         place);
    if (text_eos(l->tok) < 0)
        base_log(l->ui, LORI_LOG_WARNING,
                 "the tokenizer names no end-of-text token: completions are "
                 "trained without an end");
    if (!l->o->apply_chat_template)
        return LORI_OK;
    lori_status st = text_chat_open(l->tok, l->o->chat_template, &l->chat, err);
    return st ? base_prefix(err, st, "apply_chat_template") : LORI_OK;
}

static lori_status add_row(void *context, int64_t line, const json_t *row,
                           lori_error *err)
{
    loader *l = context;
    if (l->o->max_samples > 0 && l->n_seen >= l->o->max_samples) {
        l->full = true;
        return LORI_INTERRUPTED; /* ends the reading; not an error */
    }
    if (l->n_seen % REPORT_EVERY == 0) {
        if (base_interrupted(l->ui))
            return base_fail(err, LORI_INTERRUPTED, "reading %s: interrupted",
                             l->path);
        base_progress(l->ui, "tokenize", l->n_seen, 0, "%s", l->path);
    }
    base_str place = {0};
    base_str_printf(&place, "%s:%lld", l->path, (long long)line);
    if (place.failed)
        return base_no_memory(err, strlen(l->path));
    lori_status st = LORI_OK;
    if (!l->form.known)
        st = first_row(l, row, place.s, err);
    if (!st && l->form.kind == ROWS_TOKENS)
        st = token_row(l, row, place.s, err);
    else if (!st)
        st = text_row(l, row, place.s, err);
    l->n_seen++;
    base_str_free(&place);
    return st;
}

static lori_status check_rows(const loader *l, lori_error *err)
{
    if (l->n_seen == 0)
        return base_fail(err, LORI_FORMAT, EMPTY, l->path);
    if (l->data->n_rows == 0)
        return base_fail(err, LORI_FORMAT,
                         "%s: none of %lld rows has a token to predict within "
                         "max_seq_length %lld",
                         l->path, (long long)l->n_seen,
                         (long long)l->o->max_seq_length);
    return LORI_OK;
}

/* Lists grow to twice their need; what is kept is not that large. */
static void trim(train_data *t)
{
    int64_t *start =
        base_resize(t->start, (size_t)t->n_rows + 1, sizeof *start);
    int32_t *ids = base_resize(t->ids, (size_t)t->n_tokens, sizeof *ids);
    uint8_t *label = base_resize(t->label, (size_t)t->n_tokens, sizeof *label);
    t->start = start ? start : t->start;
    t->ids = ids ? ids : t->ids;
    t->label = label ? label : t->label;
}

lori_status train_data_load(const char *path, const text_tokenizer *tok,
                            const train_data_options *options, int64_t vocab,
                            const lori_ui *ui, train_data **out,
                            lori_error *err)
{
    *out = NULL;
    loader l = {.path = path,
                .tok = tok,
                .o = options,
                .ui = ui,
                .vocab = vocab,
                .d = {.max = SHOWN_ERRORS}};
    l.data = base_alloc(1, sizeof *l.data);
    if (!l.data)
        return base_no_memory(err, sizeof *l.data);
    lori_status st = format_rows_read(path, add_row, &l, err);
    if (st == LORI_INTERRUPTED && l.full)
        st = LORI_OK;
    if (st == LORI_FORMAT && l.d.n && err)
        diag_add(&l.d, "%s", err->message); /* after the wrong rows before */
    if (!st || (st == LORI_FORMAT && l.d.n))
        st = diag_end(&l.d, LORI_FORMAT, err);
    if (!st)
        st = check_rows(&l, err);
    base_str_free(&l.d.lines);
    base_str_free(&l.prompt);
    base_str_free(&l.turn);
    text_chat_close(l.chat);
    text_ids_free(&l.ids);
    if (st) {
        train_data_free(l.data);
        return st;
    }
    trim(l.data);
    *out = l.data;
    return LORI_OK;
}

void train_data_free(train_data *data)
{
    if (!data)
        return;
    free(data->start);
    free(data->ids);
    free(data->label);
    free(data);
}

/* ---- texts alone ---------------------------------------------------- */

typedef struct text_loader {
    const char *path;
    const train_data_options *o;
    rows_form form;
    diag d;
    bool full;
    base_str prompt;
    train_text_row *rows;
    int64_t n, cap;
} text_loader;

static char *copy_text(const char *s, size_t n)
{
    char *copy = base_alloc(n + 1, 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

static lori_status keep_text(text_loader *l, const char *completion, size_t n,
                             lori_error *err)
{
    if (l->n == l->cap) {
        int64_t cap = l->cap ? 2 * l->cap : 64;
        train_text_row *rows = base_resize(l->rows, (size_t)cap, sizeof *rows);
        if (!rows)
            return base_no_memory(err, (size_t)cap * sizeof *rows);
        l->rows = rows;
        l->cap = cap;
    }
    train_text_row *row = &l->rows[l->n];
    row->prompt = copy_text(l->prompt.s, l->prompt.len);
    row->completion = copy_text(completion, n);
    l->n++;
    if (!row->prompt || !row->completion)
        return base_no_memory(err, n);
    return LORI_OK;
}

static lori_status add_text(void *context, int64_t line, const json_t *row,
                            lori_error *err)
{
    text_loader *l = context;
    if (l->o->max_samples > 0 && l->n >= l->o->max_samples) {
        l->full = true;
        return LORI_INTERRUPTED;
    }
    base_str place = {0};
    const char *completion;
    size_t n;
    base_str_printf(&place, "%s:%lld", l->path, (long long)line);
    const char *at = place.s ? place.s : l->path;
    lori_status st = LORI_OK;
    if (!l->form.known && !rows_find_form(l->o, row, at, &l->form, &l->d))
        st = diag_end(&l->d, LORI_FORMAT, err);
    else if (l->form.kind == ROWS_TOKENS)
        st = base_fail(err, LORI_MISMATCH,
                       "%s: rows of tokens have no texts; rows with prompt and "
                       "completion are needed here",
                       at);
    else if (rows_texts(&l->form, row, at, &l->prompt, &completion, &n, &l->d))
        st = keep_text(l, completion, n, err);
    if (!st && (l->prompt.failed || place.failed))
        st = base_no_memory(err, l->prompt.len);
    base_str_free(&place);
    return st;
}

lori_status train_texts_load(const char *path,
                             const train_data_options *options,
                             train_text_row **rows, int64_t *n, lori_error *err)
{
    *rows = NULL;
    *n = 0;
    text_loader l = {.path = path, .o = options, .d = {.max = SHOWN_ERRORS}};
    lori_status st = format_rows_read(path, add_text, &l, err);
    if (st == LORI_INTERRUPTED && l.full)
        st = LORI_OK;
    if (!st)
        st = diag_end(&l.d, LORI_FORMAT, err);
    if (!st && l.n == 0)
        st = base_fail(err, LORI_FORMAT, EMPTY, path);
    base_str_free(&l.d.lines);
    base_str_free(&l.prompt);
    if (st) {
        train_texts_free(l.rows, l.n);
        return st;
    }
    *rows = l.rows;
    *n = l.n;
    return LORI_OK;
}

void train_texts_free(train_text_row *rows, int64_t n)
{
    for (int64_t i = 0; rows && i < n; i++) {
        free(rows[i].prompt);
        free(rows[i].completion);
    }
    free(rows);
}
