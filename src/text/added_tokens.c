/* added_tokens.c - tokens that are looked for in the text itself, before any
 * other step: their ids, flags and matching. Includes base only.
 * Source: huggingface/tokenizers added_vocabulary.rs; spec/text.md 1.1. */
#include <stdlib.h>

#include "text/text_i.h"

int32_t text_added_find(const text_added_set *set, const char *s, size_t n)
{
    return text_vocab_id(&set->index, s, n);
}

/* The model's id, or the next one after the model's and earlier tokens. The
 * reference counts the model's entries; with gaps in the ids that can repeat
 * an id, and so it does here. */
static int32_t pick_id(const text_added_set *set, const text_vocab *vocab,
                       const text_added *token)
{
    int32_t id = text_vocab_id(vocab, token->content, token->n);
    if (id >= 0)
        return id;
    int32_t count = (int32_t)vocab->n;
    if (set->max_id >= 0 && (set->max_id >= count || count == 0))
        return set->max_id + 1;
    return count;
}

lori_status text_added_add(text_added_set *set, const text_vocab *vocab,
                           const text_added *token, lori_error *err)
{
    if (token->n == 0)
        return LORI_OK;
    int32_t old = text_added_find(set, token->content, token->n);
    if (old >= 0) {
        text_added *t = &set->token[old];
        t->single_word = token->single_word;
        t->lstrip = token->lstrip;
        t->rstrip = token->rstrip;
        t->normalized = token->normalized;
        /* Once special, always: the reference never takes it back. */
        t->special = t->special || token->special;
        return LORI_OK;
    }
    if (set->n == set->cap) {
        size_t cap = set->cap ? 2 * set->cap : 32;
        text_added *grown = base_resize(set->token, cap, sizeof *grown);
        if (!grown)
            return base_no_memory(err, cap * sizeof *grown);
        set->token = grown;
        set->cap = cap;
    }
    int32_t id = pick_id(set, vocab, token);
    if (id > TEXT_MAX_ID)
        return base_fail(err, LORI_UNSUPPORTED,
                         "added token '%s' would get the id %d; ids over %d "
                         "are not supported",
                         token->content, id, TEXT_MAX_ID);
    BASE_TRY(text_vocab_add(&set->index, token->content, token->n,
                            (int32_t)set->n, err));
    text_added *t = &set->token[set->n];
    *t = *token;
    t->content = base_strndup(token->content, token->n);
    if (!t->content)
        return base_no_memory(err, token->n);
    t->id = id;
    if (set->n == 0 || id > set->max_id)
        set->max_id = id;
    set->n++;
    return LORI_OK;
}

/* ---- patterns ---------------------------------------------------------- */

static int compare_patterns(const void *a, const void *b)
{
    const text_pattern *x = a, *y = b;
    size_t n = x->n < y->n ? x->n : y->n;
    int order = memcmp(x->s, y->s, n);
    if (order)
        return order;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static lori_status add_pattern(text_patterns *patterns, const char *s, size_t n,
                               size_t token, lori_error *err)
{
    if (n == 0) /* a content that the normalizer deletes matches nothing */
        return LORI_OK;
    char *copy = base_strndup(s, n);
    if (!copy)
        return base_no_memory(err, n);
    patterns->p[patterns->n++] = (text_pattern){copy, n, token};
    patterns->first[(unsigned char)s[0]] = true;
    return LORI_OK;
}

/* Of equal patterns the first stays (the reference: undefined order). */
static void sort_patterns(text_patterns *patterns)
{
    size_t out = 0;
    qsort(patterns->p, patterns->n, sizeof *patterns->p, compare_patterns);
    for (size_t i = 0; i < patterns->n; i++) {
        const text_pattern *x = &patterns->p[i];
        if (out > 0 && patterns->p[out - 1].n == x->n &&
            memcmp(patterns->p[out - 1].s, x->s, x->n) == 0)
            free(x->s);
        else
            patterns->p[out++] = *x;
    }
    patterns->n = out;
}

lori_status text_added_finish(text_added_set *set,
                              const text_normalizers *normalizers,
                              lori_error *err)
{
    text_work work = {0};
    lori_status st = LORI_OK;
    set->raw.p = base_alloc(set->n, sizeof *set->raw.p);
    set->normal.p = base_alloc(set->n, sizeof *set->normal.p);
    if (!set->raw.p || !set->normal.p)
        return base_no_memory(err, set->n * sizeof *set->raw.p);
    for (size_t i = 0; st == LORI_OK && i < set->n; i++) {
        const text_added *t = &set->token[i];
        text_slice text = {.s = t->content, .n = t->n};
        if (t->normalized)
            st = text_normalize(normalizers, &work, text, &text, err);
        if (st == LORI_OK)
            st = add_pattern(t->normalized ? &set->normal : &set->raw, text.s,
                             text.n, i, err);
    }
    text_work_free(&work);
    sort_patterns(&set->raw);
    sort_patterns(&set->normal);
    return st;
}

static void free_patterns(text_patterns *patterns)
{
    for (size_t i = 0; i < patterns->n; i++)
        free(patterns->p[i].s);
    free(patterns->p);
}

void text_added_free(text_added_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        free(set->token[i].content);
    free(set->token);
    free_patterns(&set->raw);
    free_patterns(&set->normal);
    text_vocab_free(&set->index);
    *set = (text_added_set){0};
}

/* ---- matching ---------------------------------------------------------- */

/* First index in [lo, hi) whose byte at `depth` is >= byte; all of them share
 * the first `depth` bytes and are longer than that. */
static size_t lower_bound(const text_patterns *patterns, size_t lo, size_t hi,
                          size_t depth, unsigned byte)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)patterns->p[mid].s[depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest pattern that begins s[0..n), or NULL: the sorted list is
 * narrowed to those that share one more byte of s, step by step. */
static const text_pattern *longest(const text_patterns *patterns, const char *s,
                                   size_t n)
{
    const text_pattern *best = NULL;
    size_t lo = 0, hi = patterns->n;
    for (size_t depth = 0; depth < n && lo < hi; depth++) {
        unsigned byte = (unsigned char)s[depth];
        lo = lower_bound(patterns, lo, hi, depth, byte);
        hi = lower_bound(patterns, lo, hi, depth, byte + 1);
        if (lo < hi && patterns->p[lo].n == depth + 1)
            best = &patterns->p[lo++];
    }
    return best;
}

static bool inside_word(const char *s, size_t n, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0) {
        text_utf8_before(s, start, &c);
        if (text_is_word(c))
            return true;
    }
    if (end < n) {
        text_utf8_next(s + end, &c);
        if (text_is_word(c))
            return true;
    }
    return false;
}

static size_t skip_left(const char *s, size_t start, size_t least)
{
    uint32_t c;
    while (start > least) {
        size_t step = (size_t)text_utf8_before(s, start, &c);
        if (!text_is_white_space(c))
            break;
        start -= step;
    }
    return start;
}

static size_t skip_right(const char *s, size_t n, size_t end)
{
    uint32_t c;
    while (end < n) {
        size_t step = (size_t)text_utf8_next(s + end, &c);
        if (!text_is_white_space(c))
            break;
        end += step;
    }
    return end;
}

lori_status text_added_scan(const text_added_set *set,
                            const text_patterns *patterns, bool plain,
                            const char *s, size_t n, text_added_each *each,
                            void *context, lori_error *err)
{
    size_t done = 0, i = 0;
    while (patterns->n && i < n) {
        const text_pattern *match = NULL;
        if (patterns->first[(unsigned char)s[i]])
            match = longest(patterns, s + i, n - i);
        if (!match) {
            i++;
            continue;
        }
        const text_added *token = &set->token[match->token];
        size_t start = i, end = i + match->n;
        i = end; /* also after a rejected match: nothing is tried again */
        if (plain && token->special)
            continue;
        if (token->single_word && inside_word(s, n, start, end))
            continue;
        /* An earlier token's rstrip may have eaten beyond `start`: the
         * reference then drops this one if nothing of it is left. */
        if (token->lstrip)
            start = start > done ? skip_left(s, start, done) : done;
        if (token->rstrip)
            end = skip_right(s, n, end);
        if (done < start)
            BASE_TRY(each(context, s + done, start - done, NULL, err));
        if (start < end)
            BASE_TRY(each(context, s + start, end - start, token, err));
        done = end;
    }
    if (done < n)
        return each(context, s + done, n - done, NULL, err);
    return LORI_OK;
}
