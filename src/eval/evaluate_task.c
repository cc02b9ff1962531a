/* evaluate_task.c - one subject on one task, chunk by chunk, from where a
 * former run stopped. Includes eval_i.h. */
#include "eval/eval_i.h"

static lori_status measure_chunk(const measuring *m, lori_error *err)
{
    switch (m->task->kind) {
    case EVAL_GENERATE:
        return measure_generate(m, err);
    case EVAL_CHOICE:
        return measure_choice(m, err);
    case EVAL_ROLLING:
        break;
    }
    return measure_rolling(m, err);
}

static lori_status run_part(part *p, const eval_subject *s, const eval_task *t,
                            const eval_docs *docs, const eval_options *o,
                            lori_error *err)
{
    base_str lines = {0};
    lori_status st = LORI_OK;
    while (p->done < docs->n && !st) {
        eval_options now = *o;
        now.before = o->before + p->done;
        int64_t left = docs->n - p->done;
        measuring m = {.subject = s,
                       .task = t,
                       .docs = docs,
                       .options = &now,
                       .first = p->done,
                       .n = left < PART_CHUNK ? left : PART_CHUNK,
                       .values = p->values + p->done,
                       .lines = &lines};
        base_progress(o->ui, "eval", now.before, o->total, "%s %s", s->name,
                      t->name);
        base_str_clear(&lines);
        st = base_interrupted(o->ui)
                 ? base_fail(err, LORI_INTERRUPTED, "interrupted")
                 : measure_chunk(&m, err);
        if (!st)
            st = part_append(p, &lines, m.n, err);
    }
    base_str_free(&lines);
    if (!st)
        base_progress(o->ui, "eval", o->before + docs->n, o->total, "%s %s",
                      s->name, t->name);
    return st;
}

lori_status eval_run(const eval_subject *s, const eval_task *t,
                     const eval_docs *docs, const eval_options *o,
                     eval_score *out, lori_error *err)
{
    part p;
    *out = (eval_score){0};
    lori_status st = part_open(&p, s, t, docs, o, err);
    if (!st)
        st = run_part(&p, s, t, docs, o, err);
    if (!st)
        eval_summarize(t, p.values, docs->n, out);
    part_close(&p);
    return st ? base_prefix(err, st, "%s on %s", s->name, t->name) : LORI_OK;
}
