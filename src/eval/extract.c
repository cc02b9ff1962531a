/* extract.c - the answer in a text, by a task's rule, and whether two answers
 * are the same. Patterns are PCRE2's, which for what tasks use are Python's;
 * matching is bounded in steps and memory. Includes eval_i.h and pcre2.h.
 *
 * The LoRI reference's rules are rows of this one: commonsense deletes commas
 * and takes the first hit behind the last "### Response:"; GSM8K deletes
 * commas and takes the first number between the first two occurrences of "The
 * final answer is: ", else the last number of all. Source: spec/eval.md 1.4. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/eval_i.h"

#define MATCH_LIMIT 1000000 /* backtracks of one match */
#define HEAP_LIMIT  16384   /* KiB */

typedef struct matcher {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
} matcher;

void extract_free(eval_task *task)
{
    matcher *m = task->regex;
    if (!m)
        return;
    pcre2_match_context_free(m->context);
    pcre2_match_data_free(m->data);
    pcre2_code_free(m->code);
    free(m);
    task->regex = NULL;
}

bool extract_compile(eval_task *task, char *buf, size_t n)
{
    const char *pattern = task->extract.regex;
    int code = 0;
    PCRE2_SIZE at = 0;
    matcher *m = base_alloc(1, sizeof *m);
    task->regex = m;
    if (m) {
        m->code = pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), PCRE2_UTF,
                                &code, &at, NULL);
        m->data = pcre2_match_data_create(2, NULL);
        m->context = pcre2_match_context_create(NULL);
    }
    if (m && m->code && m->data && m->context) {
        pcre2_set_match_limit(m->context, MATCH_LIMIT);
        pcre2_set_heap_limit(m->context, HEAP_LIMIT);
        return true;
    }
    snprintf(buf, n, "out of memory");
    if (m && !m->code) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        snprintf(buf, n, "%s (character %zu of the pattern)",
                 (const char *)text, (size_t)at + 1);
    }
    extract_free(task);
    return false;
}

/* A part of a text. */
typedef struct part_of {
    const char *s;
    size_t n;
} part_of;

/* Where `word` begins in `text`, or NULL. */
static const char *find(part_of text, const char *word)
{
    return memmem(text.s, text.n, word, strlen(word));
}

/* The hit at or behind `from`: its first group when the pattern has one. */
static lori_status match(const eval_task *task, part_of text, size_t from,
                         part_of *hit, size_t *end, lori_error *err)
{
    const matcher *m = task->regex;
    int rc = pcre2_match(m->code, (PCRE2_SPTR)text.s, text.n, from,
                         PCRE2_NO_UTF_CHECK, m->data, m->context);
    *hit = (part_of){0};
    if (rc == PCRE2_ERROR_NOMATCH)
        return LORI_OK;
    if (rc < 0) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(rc, why, sizeof why);
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: extract.regex: matching stopped in a text of %zu "
                         "bytes: %s; use a simpler pattern",
                         task->source, text.n, (const char *)why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    int k = rc != 1 && at[2] != PCRE2_UNSET ? 2 : 0; /* 0: more groups than 1 */
    *hit = (part_of){text.s + at[k], at[k + 1] - at[k]};
    *end = at[1] > at[0] ? at[1] : at[1] + 1; /* an empty hit moves on too */
    return LORI_OK;
}

/* The first or last hit in `text`; s is NULL when there is none. */
static lori_status search(const eval_task *task, part_of text, bool last,
                          part_of *hit, lori_error *err)
{
    *hit = (part_of){0};
    for (size_t from = 0; from <= text.n;) {
        part_of found;
        BASE_TRY(match(task, text, from, &found, &from, err));
        if (!found.s)
            break;
        *hit = found;
        if (!last)
            break;
        while (from < text.n && ((unsigned char)text.s[from] & 0xc0) == 0x80)
            from++; /* never inside a character */
    }
    return LORI_OK;
}

/* Between the first and the second occurrence of the marker, or to the end. */
static part_of behind_marker(part_of text, const char *marker)
{
    const char *at = find(text, marker);
    if (!at)
        return (part_of){0};
    const char *from = at + strlen(marker);
    part_of rest = {from, text.n - (size_t)(from - text.s)};
    const char *again = find(rest, marker);
    if (again)
        rest.n = (size_t)(again - from);
    return rest;
}

static part_of behind_last(part_of text, const char *word)
{
    for (const char *at; *word && (at = find(text, word));) {
        const char *from = at + strlen(word);
        text = (part_of){from, text.n - (size_t)(from - text.s)};
    }
    return text;
}

static void copy_without(const char *text, size_t n, const char *remove,
                         base_str *out)
{
    for (size_t i = 0; i < n; i++)
        if (!remove || !text[i] || !strchr(remove, text[i]))
            base_str_add(out, text + i, 1);
    base_str_puts(out, "");
}

static lori_status find_in(const eval_task *task, part_of text, part_of *hit,
                           lori_error *err)
{
    const eval_extract *x = &task->extract;
    if (x->after_last)
        text = behind_last(text, x->after_last);
    *hit = text;
    if (!x->regex)
        return LORI_OK;
    *hit = (part_of){0};
    part_of marked = x->marker ? behind_marker(text, x->marker) : (part_of){0};
    if (marked.s)
        BASE_TRY(search(task, marked, false, hit, err));
    return hit->s ? LORI_OK : search(task, text, x->last, hit, err);
}

lori_status eval_find_answer(const eval_task *task, const char *text, size_t n,
                             base_str *out, bool *found, lori_error *err)
{
    base_str plain = {0};
    part_of hit = {0};
    base_str_clear(out);
    *found = false;
    copy_without(text, n, task->extract.remove, &plain);
    if (plain.failed)
        return base_no_memory(err, n);
    plain.len = base_utf8_valid(plain.s, plain.len);
    lori_status st = find_in(task, (part_of){plain.s, plain.len}, &hit, err);
    if (!st && hit.s) {
        *found = true;
        base_str_add(out, hit.s, hit.n);
    }
    base_str_puts(out, "");
    base_str_free(&plain);
    return !st && out->failed ? base_no_memory(err, n) : st;
}

lori_status eval_find_target(const eval_task *task, const char *target,
                             base_str *out, bool *found, lori_error *err)
{
    if (task->compare != EVAL_EXPRESSION)
        return eval_find_answer(task, target, strlen(target), out, found, err);
    base_str_clear(out);
    base_str_puts(out, target);
    *found = true;
    return out->failed ? base_no_memory(err, out->len) : LORI_OK;
}

/* ---- the same answer -------------------------------------------------- */

static part_of trimmed(const char *s)
{
    static const char space[] = " \t\r\n\v\f";
    s += strspn(s, space);
    size_t n = strlen(s);
    while (n && strchr(space, s[n - 1]))
        n--;
    return (part_of){s, n};
}

/* Python's float() of the numbers that patterns find, "1234.50." cut to its
 * number. */
static bool number(const char *s, double *out)
{
    part_of text = trimmed(s);
    if (text.n && text.s[text.n - 1] == '.')
        text.n--;
    char *copy = base_strndup(text.s, text.n);
    bool fine = copy && format_real(copy, out);
    free(copy);
    return fine;
}

bool eval_same_answer(const eval_task *task, const char *answer,
                      const char *want)
{
    double a, b;
    if (task->compare == EVAL_EXPRESSION)
        return expression_passes(answer, want);
    if (task->compare == EVAL_NUMBER)
        return number(answer, &a) && number(want, &b) && a == b;
    part_of s = trimmed(answer), t = trimmed(want);
    if (s.n != t.n)
        return false;
    return task->ignore_case ? !strncasecmp(s.s, t.s, s.n)
                             : !memcmp(s.s, t.s, s.n);
}
