/* measure.c - a chunk of documents through the engine: requests of each kind,
 * values and log lines from the results. Includes eval_i.h. */
#include <stdlib.h>

#include "eval/eval_i.h"

static const eval_doc *doc_at(const measuring *m, int64_t i)
{
    return &m->docs->doc[m->first + i];
}

/* Begins with the document's number, row and values. */
json_t *measure_line(const measuring *m, int64_t i)
{
    const char *names[EVAL_VALUES];
    int64_t n = metric_values(m->task->kind, names);
    json_int_t doc = m->first + i, row = doc_at(m, i)->line;
    json_t *line = json_pack("{sIsI}", "doc", doc, "row", row);
    for (int64_t k = 0; line && k < n; k++)
        json_object_set_new(line, names[k], json_real(m->values[i].v[k]));
    return line;
}

lori_status measure_put(const measuring *m, json_t *line, lori_error *err)
{
    if (line)
        format_json_text(line, 0, m->lines);
    base_str_puts(m->lines, "\n");
    bool fine = line && !m->lines->failed;
    json_decref(line);
    return fine ? LORI_OK : base_no_memory(err, m->lines->len);
}

/* Text of a log field. A completion may end inside a character: JSON may not.
 */
static json_t *log_text(const char *s, size_t n)
{
    return json_stringn(s ? s : "", s ? base_utf8_valid(s, n) : 0);
}

/* ---- generate_until ----------------------------------------------------- */

/* Whether the text's answer is the target's; *answer and *want for the log. */
static lori_status judge(const measuring *m, int64_t i, const engine_text *text,
                         base_str *answer, base_str *want, bool *right,
                         lori_error *err)
{
    const eval_task *t = m->task;
    const eval_doc *doc = doc_at(m, i);
    base_str whole = {0};
    bool found, wanted;
    base_str_puts(&whole, t->judge_prompt ? doc->prompt : "");
    base_str_add(&whole, text->text.s, text->text.len);
    lori_status st = whole.failed ? base_no_memory(err, whole.len) : LORI_OK;
    if (!st)
        st = eval_find_answer(t, whole.s, whole.len, answer, &found, err);
    if (!st)
        st = eval_find_target(t, doc->target, want, &wanted, err);
    base_str_free(&whole);
    if (!st)
        *right = found && wanted && eval_same_answer(t, answer->s, want->s);
    return st ? base_prefix(err, st, "%s:%lld", m->docs->path,
                            (long long)doc->line)
              : LORI_OK;
}

static lori_status log_generated(const measuring *m, int64_t i,
                                 const engine_text *text,
                                 const base_str *answer, const base_str *want,
                                 lori_error *err)
{
    const eval_doc *doc = doc_at(m, i);
    json_t *line = measure_line(m, i);
    if (!line)
        return base_no_memory(err, 1);
    json_object_set_new(line, "answer", log_text(answer->s, answer->len));
    json_object_set_new(line, "want", log_text(want->s, want->len));
    json_object_set_new(line, "new_tokens", json_integer(text->n_new));
    json_object_set_new(line, "finish",
                        json_string(text->stopped ? "stop" : "length"));
    if (m->options->log_samples) {
        json_object_set_new(line, "prompt",
                            log_text(doc->prompt, strlen(doc->prompt)));
        json_object_set_new(line, "completion",
                            log_text(text->text.s, text->text.len));
        json_object_set_new(line, "target",
                            log_text(doc->target, strlen(doc->target)));
    }
    return measure_put(m, line, err);
}

static lori_status judge_all(const measuring *m, const engine_text *texts,
                             lori_error *err)
{
    base_str answer = {0}, want = {0};
    lori_status st = LORI_OK;
    for (int64_t i = 0; i < m->n && !st; i++) {
        bool right = false;
        st = judge(m, i, &texts[i], &answer, &want, &right, err);
        m->values[i].v[0] = right;
        if (!st)
            st = log_generated(m, i, &texts[i], &answer, &want, err);
    }
    base_str_free(&answer);
    base_str_free(&want);
    return st;
}

lori_status measure_generate(const measuring *m, lori_error *err)
{
    engine_text *texts = base_alloc((size_t)m->n, sizeof *texts);
    base_str prompt = {0};
    lori_status st =
        texts ? LORI_OK : base_no_memory(err, (size_t)m->n * sizeof *texts);
    for (int64_t i = 0; i < m->n && !st; i++) {
        unsigned flags;
        st = prompt_text(m->subject, m->task, doc_at(m, i), &prompt, &flags,
                         err);
        if (!st)
            st = text_encode(m->subject->tok, prompt.s, prompt.len, flags,
                             &texts[i].prompt, err);
        if (!st && texts[i].prompt.n == 0)
            st = encode_prefix(m->subject->tok, &texts[i].prompt, err);
    }
    if (!st)
        st = engine_generate(m->subject, m->task, texts, m->n, m->first,
                             m->options, err);
    if (!st)
        st = judge_all(m, texts, err);
    for (int64_t i = 0; texts && i < m->n; i++) {
        text_ids_free(&texts[i].prompt);
        base_str_free(&texts[i].text);
    }
    base_str_free(&prompt);
    free(texts);
    return st;
}

/* ---- multiple_choice ---------------------------------------------------- */

static size_t code_points(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* The first largest of ll / length; an empty choice has length 0, and its
 * quotient is -infinity as in numpy. */
static int64_t best(const engine_span *spans, const eval_doc *doc,
                    size_t (*length)(const char *))
{
    int64_t at = 0;
    double most = 0;
    for (int64_t k = 0; k < doc->n_choices; k++) {
        double by = length ? (double)length(doc->choices[k]) : 1;
        double value = spans[k].loglikelihood / by;
        if (k == 0 || value > most) {
            most = value;
            at = k;
        }
    }
    return at;
}

static lori_status log_choice(const measuring *m, int64_t i,
                              const engine_span *spans, lori_error *err)
{
    const eval_doc *doc = doc_at(m, i);
    json_t *line = measure_line(m, i);
    json_t *lls = json_array(), *choices = json_array();
    for (int64_t k = 0; k < doc->n_choices; k++) {
        json_array_append_new(lls, json_real(spans[k].loglikelihood));
        json_array_append_new(choices, json_string(doc->choices[k]));
    }
    if (line) {
        json_object_set_new(line, "gold", json_integer(doc->gold));
        json_object_set(line, "loglikelihoods", lls);
        if (m->options->log_samples) {
            json_object_set_new(line, "prompt",
                                log_text(doc->prompt, strlen(doc->prompt)));
            json_object_set(line, "choices", choices);
        }
    }
    bool fine = lls && choices;
    json_decref(lls);
    json_decref(choices);
    if (!fine) {
        json_decref(line);
        line = NULL;
    }
    return measure_put(m, line, err);
}

static lori_status encode_choices(const measuring *m, int64_t i,
                                  engine_span *spans, lori_error *err)
{
    const eval_doc *doc = doc_at(m, i);
    base_str prompt = {0}, more = {0};
    unsigned flags;
    lori_status st =
        prompt_text(m->subject, m->task, doc, &prompt, &flags, err);
    for (int64_t k = 0; k < doc->n_choices && !st; k++) {
        base_str_clear(&more);
        base_str_puts(&more, m->task->target_delimiter);
        base_str_puts(&more, doc->choices[k]);
        st = more.failed ? base_no_memory(err, more.len)
                         : encode_pair(m->subject, prompt.s, more.s, flags,
                                       &spans[k], err);
    }
    base_str_free(&prompt);
    base_str_free(&more);
    return st ? base_prefix(err, st, "%s:%lld", m->docs->path,
                            (long long)doc->line)
              : LORI_OK;
}

lori_status measure_choice(const measuring *m, lori_error *err)
{
    int64_t total = 0;
    for (int64_t i = 0; i < m->n; i++)
        total += doc_at(m, i)->n_choices;
    engine_span *spans = base_alloc((size_t)total, sizeof *spans), *at = spans;
    lori_status st =
        spans ? LORI_OK : base_no_memory(err, (size_t)total * sizeof *spans);
    for (int64_t i = 0; i < m->n && !st; at += doc_at(m, i++)->n_choices)
        st = encode_choices(m, i, at, err);
    if (!st)
        st = engine_score(m->subject, m->task, spans, total, m->n, m->options,
                          err);
    at = spans;
    for (int64_t i = 0; i < m->n && !st; i++) {
        const eval_doc *doc = doc_at(m, i);
        m->values[i].v[0] = best(at, doc, NULL) == doc->gold;
        m->values[i].v[1] = best(at, doc, code_points) == doc->gold;
        m->values[i].v[2] = best(at, doc, strlen) == doc->gold;
        st = log_choice(m, i, at, err);
        at += doc->n_choices;
    }
    for (int64_t k = 0; spans && k < total; k++)
        text_ids_free(&spans[k].ids);
    free(spans);
    return st;
}
