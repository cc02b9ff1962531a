/* rolling.c - log-likelihoods of whole texts in windows, and their tokens,
 * words and bytes: perplexities. Windows as lm-evaluation-harness makes them:
 * every token is predicted once, the last window is filled up with context. A
 * task with a doc_to_text scores the target behind it instead, as training
 * does.
 * Source: lm_eval utils.get_rolling_token_windows, make_disjoint_window.
 * Includes eval_i.h. */
#include <stdlib.h>

#include "eval/eval_i.h"

typedef struct span_list {
    engine_span *spans;
    int64_t n, room;
} span_list;

static lori_status add_span(span_list *list, const int32_t *ids, int64_t n,
                            int64_t first, lori_error *err)
{
    if (list->n == list->room) {
        int64_t room = list->room ? list->room * 2 : 64;
        engine_span *grown =
            base_resize(list->spans, (size_t)room, sizeof *grown);
        if (!grown)
            return base_no_memory(err, (size_t)room * sizeof *grown);
        list->spans = grown;
        list->room = room;
    }
    engine_span *span = &list->spans[list->n++];
    *span = (engine_span){.first = first};
    for (int64_t i = 0; i < n; i++)
        BASE_TRY(text_ids_add(&span->ids, ids[i], err));
    return LORI_OK;
}

/* ids[0] stands before the text; windows feed at most `most` tokens. */
static lori_status add_windows(span_list *list, const int32_t *ids, int64_t n,
                               int64_t most, lori_error *err)
{
    for (int64_t done = 1; done < n;) {
        int64_t end = done + most < n ? done + most : n;
        int64_t start = end - most - 1 > 0 ? end - most - 1 : 0;
        BASE_TRY(add_span(list, ids + start, end - start, done - start, err));
        done = end;
    }
    return LORI_OK;
}

static lori_status add_doc(const measuring *m, const eval_doc *doc,
                           span_list *list, lori_error *err)
{
    const eval_subject *s = m->subject;
    base_str prompt = {0};
    unsigned flags;
    BASE_TRY(prompt_text(s, m->task, doc, &prompt, &flags, err));
    lori_status st = LORI_OK;
    if (*prompt.s) {
        base_str target = {0};
        base_str_puts(&target, m->task->target_delimiter);
        base_str_puts(&target, doc->target);
        st = target.failed ? base_no_memory(err, target.len)
                           : add_span(list, NULL, 0, 0, err);
        if (!st)
            st = encode_row(s, prompt.s, target.s, flags,
                            &list->spans[list->n - 1], err);
        base_str_free(&target);
    } else {
        text_ids ids = {0};
        st = encode_prefix(s->tok, &ids, err);
        if (!st)
            st = text_encode(s->tok, doc->target, strlen(doc->target), 0, &ids,
                             err);
        if (!st)
            st = add_windows(list, ids.ids, (int64_t)ids.n,
                             model_get_config(s->model)->max_positions, err);
        text_ids_free(&ids);
    }
    base_str_free(&prompt);
    return st;
}

/* Python's white space in UTF-8 at s: its bytes, or 0. Source: str.isspace,
 * which \s of re follows. */
static size_t white_space(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    if (*u == ' ' || (*u >= 0x09 && *u <= 0x0d) || (*u >= 0x1c && *u <= 0x1f))
        return 1;
    if (u[0] == 0xc2 && (u[1] == 0x85 || u[1] == 0xa0))
        return 2;
    if (u[0] == 0xe1 && u[1] == 0x9a && u[2] == 0x80)
        return 3;
    if (u[0] == 0xe2 && u[1] == 0x80 &&
        ((u[2] >= 0x80 && u[2] <= 0x8a) || u[2] == 0xa8 || u[2] == 0xa9 ||
         u[2] == 0xaf))
        return 3;
    if (u[0] == 0xe2 && u[1] == 0x81 && u[2] == 0x9f)
        return 3;
    return u[0] == 0xe3 && u[1] == 0x80 && u[2] == 0x80 ? 3 : 0;
}

/* len(re.split(r"\s+", text)): runs of white space, and one. */
static int64_t count_words(const char *text)
{
    int64_t n = 1;
    for (bool in_space = false; *text;) {
        size_t width = white_space(text);
        n += width && !in_space;
        in_space = width > 0;
        text += width ? width : 1;
    }
    return n;
}

static lori_status finish_doc(const measuring *m, int64_t i,
                              const engine_span *spans, int64_t n,
                              lori_error *err)
{
    const eval_doc *doc = &m->docs->doc[m->first + i];
    double *value = m->values[i].v;
    m->values[i] = (eval_values){0};
    for (int64_t k = 0; k < n; k++) {
        value[0] += spans[k].loglikelihood;
        value[1] += (double)((int64_t)spans[k].ids.n - spans[k].first);
    }
    value[2] = (double)count_words(doc->target);
    value[3] = (double)strlen(doc->target);
    json_t *line = measure_line(m, i);
    if (line && m->options->log_samples) {
        json_object_set_new(line, "prompt", json_string(doc->prompt));
        json_object_set_new(line, "target", json_string(doc->target));
    }
    return measure_put(m, line, err);
}

lori_status measure_rolling(const measuring *m, lori_error *err)
{
    span_list list = {0};
    int64_t *ends = base_alloc((size_t)m->n, sizeof *ends);
    lori_status st =
        ends ? LORI_OK : base_no_memory(err, (size_t)m->n * sizeof *ends);
    for (int64_t i = 0; i < m->n && !st; i++) {
        const eval_doc *doc = &m->docs->doc[m->first + i];
        st = add_doc(m, doc, &list, err);
        if (st)
            base_prefix(err, st, "%s:%lld", m->docs->path,
                        (long long)doc->line);
        ends[i] = list.n;
    }
    if (!st)
        st = engine_score(m->subject, m->task, list.spans, list.n, m->n,
                          m->options, err);
    for (int64_t i = 0, at = 0; i < m->n && !st; at = ends[i++])
        st = finish_doc(m, i, list.spans + at, ends[i] - at, err);
    for (int64_t k = 0; k < list.n; k++)
        text_ids_free(&list.spans[k].ids);
    free(list.spans);
    free(ends);
    return st;
}
