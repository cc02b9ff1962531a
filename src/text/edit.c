/* edit.c - changing a text while knowing, for every byte, where in the user's
 * text it comes from. Includes base only.
 * Source: huggingface/tokenizers tokenizer/normalizer.rs (alignments). */
#include <stdlib.h>

#include "text/text_i.h"

text_slice text_slice_part(const text_slice *slice, size_t at, size_t n)
{
    return (text_slice){.s = slice->s + at,
                        .span = slice->span ? slice->span + at : NULL,
                        .n = n,
                        .origin = slice->origin + at};
}

void text_buffer_free(text_buffer *buffer)
{
    base_str_free(&buffer->text);
    free(buffer->span);
    *buffer = (text_buffer){0};
}

/* Room for n more spans, or NULL when there are none or no memory. */
static text_span *spans_for(text_edit *e, size_t n)
{
    text_buffer *out = e->out;
    if (!e->from.span || out->text.failed)
        return NULL;
    size_t need = out->text.len + n;
    if (need > out->cap) {
        size_t cap = out->cap ? out->cap : 256;
        while (cap < need)
            cap *= 2;
        text_span *span = base_resize(out->span, cap, sizeof *span);
        if (!span) {
            out->text.failed = true;
            return NULL;
        }
        out->span = span;
        out->cap = cap;
    }
    return out->span + out->text.len;
}

void text_edit_keep(text_edit *edit, size_t n)
{
    if (n == 0)
        return;
    text_span *span = spans_for(edit, n);
    if (span)
        memcpy(span, edit->from.span + edit->at, n * sizeof *span);
    base_str_add(&edit->out->text, edit->from.s + edit->at, n);
    edit->at += n;
}

void text_edit_drop(text_edit *edit, size_t n)
{
    edit->at += n;
}

void text_edit_put(text_edit *edit, const char *s, size_t n, size_t replaced)
{
    const text_span *from = edit->from.span;
    text_span *span = spans_for(edit, n), same = {0};
    if (span) {
        if (replaced) {
            same = from[edit->at];
        } else if (edit->at) {
            same = from[edit->at - 1];
        } else if (edit->from.n) { /* nothing before it: no width */
            same = (text_span){from[0].first, from[0].first};
        }
        for (size_t i = 0; i < n; i++)
            span[i] = same;
    }
    base_str_add(&edit->out->text, s, n);
    edit->at += replaced;
}

lori_status text_edit_end(const text_edit *edit, size_t start, text_slice *out,
                          lori_error *err)
{
    const text_buffer *b = edit->out;
    if (b->text.failed)
        return base_no_memory(err, b->text.len);
    if (b->text.len > TEXT_MAX_TEXT)
        return base_fail(err, LORI_UNSUPPORTED, "a text of more than %zu bytes",
                         TEXT_MAX_TEXT);
    *out = (text_slice){.s = b->text.s ? b->text.s + start : "",
                        .span = edit->from.span ? b->span + start : NULL,
                        .n = b->text.len - start};
    return LORI_OK;
}
