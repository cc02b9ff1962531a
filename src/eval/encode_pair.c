/* encode_pair.c - texts of documents as tokens, split as lm-evaluation-harness
 * splits them: context and continuation are encoded together, trailing white
 * space of the context belongs to the continuation, and too long a text loses
 * its beginning. Source: LM._encode_pair and HFLM._loglikelihood_tokens of
 * lm-evaluation-harness 0.4.13 (spec/eval.md 2). Includes eval_i.h. */
#include "eval/eval_i.h"

lori_status prompt_text(const eval_subject *s, const eval_task *t,
                        const eval_doc *doc, base_str *out, unsigned *flags,
                        lori_error *err)
{
    base_str_clear(out);
    *flags =
        t->add_special_tokens && !t->apply_chat_template ? TEXT_ADD_SPECIAL : 0;
    if (!t->apply_chat_template) {
        base_str_puts(out, doc->prompt);
        return out->failed ? base_no_memory(err, out->len) : LORI_OK;
    }
    lori_status st =
        s->chat ? text_chat_user(s->chat, doc->prompt, out, err)
                : base_fail(err, LORI_NOT_FOUND, "no chat template is open");
    if (st)
        return base_prefix(err, st, "%s: apply_chat_template", t->source);
    return LORI_OK;
}

lori_status encode_prefix(const text_tokenizer *tok, text_ids *ids,
                          lori_error *err)
{
    int32_t id = text_bos(tok) >= 0 ? text_bos(tok) : text_eos(tok);
    if (id < 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "the tokenizer has neither BOS nor EOS to stand "
                         "before a text without context");
    return text_ids_add(ids, id, err);
}

/* Keeps the last max_positions + 1 tokens: the last is only predicted. */
static void cut_front(const eval_subject *s, engine_span *span)
{
    size_t most = (size_t)model_get_config(s->model)->max_positions + 1;
    if (span->ids.n <= most)
        return;
    size_t cut = span->ids.n - most;
    memmove(span->ids.ids, span->ids.ids + cut, most * sizeof *span->ids.ids);
    span->ids.n = most;
    span->first = span->first > (int64_t)cut ? span->first - (int64_t)cut : 1;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

lori_status encode_pair(const eval_subject *s, const char *context,
                        const char *continuation, unsigned flags,
                        engine_span *span, lori_error *err)
{
    const text_tokenizer *tok = s->tok;
    size_t n = strlen(context);
    base_str whole = {0};
    base_str_puts(&whole, context);
    base_str_puts(&whole, continuation);
    while (n && is_space(context[n - 1]))
        n--;
    text_ids before = {0};
    lori_status st = whole.failed ? base_no_memory(err, n) : LORI_OK;
    if (!st && n == 0)
        st = encode_prefix(tok, &span->ids, err);
    if (!st && n == 0)
        st = text_encode(tok, whole.s, whole.len, 0, &span->ids, err);
    else if (!st) {
        st = text_encode(tok, whole.s, whole.len, flags, &span->ids, err);
        if (!st)
            st = text_encode(tok, context, n, flags, &before, err);
    }
    span->first = n == 0 ? 1 : (int64_t)before.n;
    text_ids_free(&before);
    if (!st && (span->first < 1 || span->first >= (int64_t)span->ids.n))
        st = base_fail(err, LORI_INVALID,
                       "'%.60s' adds no token to its context", continuation);
    if (!st)
        cut_front(s, span);
    base_str_free(&whole);
    return st;
}

lori_status encode_row(const eval_subject *s, const char *prompt,
                       const char *target, unsigned flags, engine_span *span,
                       lori_error *err)
{
    const text_tokenizer *tok = s->tok;
    BASE_TRY(text_encode(tok, prompt, strlen(prompt), flags, &span->ids, err));
    if (flags & TEXT_ADD_SPECIAL)
        span->ids.n -= text_suffix(tok);
    if (span->ids.n == 0)
        BASE_TRY(encode_prefix(tok, &span->ids, err));
    span->first = (int64_t)span->ids.n;
    BASE_TRY(text_encode(tok, target, strlen(target), 0, &span->ids, err));
    if (text_eos(tok) >= 0)
        BASE_TRY(text_ids_add(&span->ids, text_eos(tok), err));
    if (span->first >= (int64_t)span->ids.n)
        return base_fail(err, LORI_INVALID,
                         "'%.60s' adds no token to its prompt", target);
    cut_front(s, span);
    return LORI_OK;
}
