/* bpe.c - the BPE model: the ids of one piece. Includes base.
 * Source: huggingface/tokenizers models/bpe; spec/text.md 1.4, 2. */
#include <stdlib.h>

#include "text/text_i.h"

/* Up to here a scan for the lowest rank beats a heap. */
#define SHORT_PIECE 48
#define NO_RANK     UINT32_MAX

/* ---- merge table ----------------------------------------------------- */

static size_t first_slot(const text_bpe *bpe, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15ULL;
    return (size_t)(h >> 32 ^ h >> 15) & bpe->merge_mask;
}

void text_merge_expect(const text_bpe *bpe, uint64_t pair)
{
    __builtin_prefetch(&bpe->merge[first_slot(bpe, pair)], 1);
}

size_t text_merge_slot(const text_bpe *bpe, uint64_t pair)
{
    size_t at = first_slot(bpe, pair);
    while (bpe->merge[at].pair != pair && bpe->merge[at].pair != UINT64_MAX)
        at = (at + 1) & bpe->merge_mask;
    return at;
}

static const text_merge *find_merge(const text_bpe *bpe, int32_t a, int32_t b)
{
    const text_merge *m =
        &bpe->merge[text_merge_slot(bpe, text_merge_pair(a, b))];
    return m->pair == UINT64_MAX ? NULL : m;
}

/* ---- one piece --------------------------------------------------------- */

static lori_status add_symbol(text_work *work, int32_t id, size_t n,
                              lori_error *err)
{
    if (work->n_symbols == work->symbols_cap) {
        size_t cap = work->symbols_cap ? 2 * work->symbols_cap : 256;
        text_symbol *symbol = base_resize(work->symbol, cap, sizeof *symbol);
        if (!symbol)
            return base_no_memory(err, cap * sizeof *symbol);
        work->symbol = symbol;
        work->symbols_cap = cap;
    }
    text_symbol *symbol = &work->symbol[work->n_symbols++];
    symbol->id = id;
    symbol->n = (uint32_t)n;
    return LORI_OK;
}

/* An unknown token that is not yet added. As in the reference it stays pending
 * over byte-fallback tokens, so those come first. */
typedef struct unknown {
    bool pending;
    size_t n; /* bytes of its characters */
} unknown;

static lori_status flush_unknown(const text_bpe *bpe, text_work *work,
                                 unknown *unk, lori_error *err)
{
    if (unk->pending)
        BASE_TRY(add_symbol(work, bpe->unk_id, unk->n, err));
    *unk = (unknown){0};
    return LORI_OK;
}

/* s[0..n), a character of the piece that counts `counted` bytes, is no
 * token. */
static lori_status add_unknown(const text_bpe *bpe, text_work *work,
                               const char *s, size_t n, size_t counted,
                               unknown *unk, lori_error *err)
{
    if (bpe->byte_fallback) {
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all = all && bpe->fallback_id[(unsigned char)s[i]] >= 0;
        if (all) {
            for (size_t i = 0; i < n; i++)
                BASE_TRY(add_symbol(work, bpe->fallback_id[(unsigned char)s[i]],
                                    1, err));
            return LORI_OK;
        }
    }
    if (!bpe->unk)
        return LORI_OK; /* dropped, as in the reference */
    if (bpe->unk_id < 0)
        return base_fail(err, LORI_FORMAT,
                         "the text has a character that is no token, and the "
                         "model's unk_token '%s' is not in its vocabulary",
                         bpe->unk);
    if (!bpe->fuse_unk)
        BASE_TRY(flush_unknown(bpe, work, unk, err));
    unk->pending = true;
    unk->n += counted;
    return LORI_OK;
}

/* The character s[at..at + *n) of a piece of `end` bytes with the affixes that
 * its place asks for. */
static const char *with_affixes(const text_bpe *bpe, text_work *work,
                                const char *s, size_t at, size_t end, size_t *n)
{
    base_str *out = &work->affixed;
    if (!bpe->prefix && !bpe->suffix)
        return s + at;
    base_str_clear(out);
    if (at > 0 && bpe->prefix)
        base_str_puts(out, bpe->prefix);
    base_str_add(out, s + at, *n);
    if (at + *n == end && bpe->suffix)
        base_str_puts(out, bpe->suffix);
    if (out->failed)
        return NULL;
    *n = out->len;
    return out->s;
}

static lori_status symbols_of_text(const text_bpe *bpe, text_work *work,
                                   const char *s, size_t n, lori_error *err)
{
    unknown unk = {0};
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t counted = (size_t)text_utf8_next(s + i, &c), length = counted;
        const char *at = with_affixes(bpe, work, s, i, n, &length);
        if (!at)
            return base_no_memory(err, n);
        int32_t id = text_vocab_id(bpe->vocab, at, length);
        i += counted;
        if (id < 0) {
            BASE_TRY(add_unknown(bpe, work, at, length, counted, &unk, err));
            continue;
        }
        BASE_TRY(flush_unknown(bpe, work, &unk, err));
        BASE_TRY(add_symbol(work, id, counted, err));
    }
    return flush_unknown(bpe, work, &unk, err);
}

static lori_status symbols_of_bytes(const text_bpe *bpe, text_work *work,
                                    const char *s, size_t n, lori_error *err)
{
    unknown unk = {0};
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)s[i];
        size_t counted = text_byte_length(byte);
        if (bpe->byte_id[byte] < 0) {
            char mapped[4];
            text_utf8_put(text_byte_char(byte), mapped);
            BASE_TRY(
                add_unknown(bpe, work, mapped, counted, counted, &unk, err));
            continue;
        }
        BASE_TRY(flush_unknown(bpe, work, &unk, err));
        BASE_TRY(add_symbol(work, bpe->byte_id[byte], counted, err));
    }
    return flush_unknown(bpe, work, &unk, err);
}

/* Lowest rank first, leftmost among equals. Returns how many are left. */
static size_t merge_short(const text_bpe *bpe, text_symbol *symbol, size_t n)
{
    uint32_t rank[SHORT_PIECE], length[SHORT_PIECE];
    int32_t to[SHORT_PIECE], id[SHORT_PIECE];
    for (size_t i = 0; i < n; i++) {
        id[i] = symbol[i].id;
        length[i] = symbol[i].n;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        const text_merge *m = find_merge(bpe, id[i], id[i + 1]);
        rank[i] = m ? m->rank : NO_RANK;
        to[i] = m ? m->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        id[best] = to[best];
        length[best] += length[best + 1];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            length[i] = length[i + 1];
            rank[i - 1] = rank[i];
            to[i - 1] = to[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const text_merge *m = find_merge(bpe, id[i], id[i + 1]);
            rank[i] = m ? m->rank : NO_RANK;
            to[i] = m ? m->id : -1;
        }
    }
    for (size_t i = 0; i < n; i++) {
        symbol[i].id = id[i];
        symbol[i].n = length[i];
    }
    return n;
}

static void sift_down(text_merge_entry *heap, size_t n, size_t i)
{
    text_merge_entry x = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1].key < heap[child].key)
            child++;
        if (heap[child].key >= x.key)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = x;
}

static void heap_push(text_merge_entry *heap, size_t *n, text_merge_entry x)
{
    size_t i = (*n)++;
    while (i > 0 && heap[(i - 1) / 2].key > x.key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = x;
}

/* Pushes the merge of the symbols at `left` and its next, if there is one. */
static void offer(const text_bpe *bpe, text_work *work, size_t *n, int32_t left)
{
    const text_symbol *s = work->symbol;
    if (left < 0 || s[left].next < 0)
        return;
    const text_merge *m = find_merge(bpe, s[left].id, s[s[left].next].id);
    if (m)
        heap_push(work->heap, n,
                  (text_merge_entry){(uint64_t)m->rank << 32 | (uint32_t)left,
                                     m->id});
}

/* The reference's algorithm: a heap of (rank, position); an entry whose pair
 * has changed meanwhile is told by the token it would make. O(n log n). */
static lori_status merge_long(const text_bpe *bpe, text_work *work,
                              lori_error *err)
{
    text_symbol *s = work->symbol;
    size_t n = work->n_symbols, n_heap = 0, out = 0;
    /* Each merge takes an entry and adds at most two: never over 2 n. */
    if (work->heap_cap < 2 * n) {
        text_merge_entry *heap = base_resize(work->heap, 2 * n, sizeof *heap);
        if (!heap)
            return base_no_memory(err, 2 * n * sizeof *heap);
        work->heap = heap;
        work->heap_cap = 2 * n;
    }
    for (size_t i = 0; i < n; i++) {
        s[i].prev = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(bpe, work, &n_heap, (int32_t)i);
    while (n_heap > 0) {
        text_merge_entry top = work->heap[0];
        work->heap[0] = work->heap[--n_heap];
        if (n_heap)
            sift_down(work->heap, n_heap, 0);
        int32_t left = (int32_t)(uint32_t)top.key, right = s[left].next;
        if (s[left].id < 0 || right < 0)
            continue;
        const text_merge *m = find_merge(bpe, s[left].id, s[right].id);
        if (!m || m->id != top.id)
            continue;
        s[left].id = top.id;
        s[left].n += s[right].n;
        s[left].next = s[right].next;
        s[right].id = -1;
        if (s[left].next >= 0)
            s[s[left].next].prev = left;
        offer(bpe, work, &n_heap, s[left].prev);
        offer(bpe, work, &n_heap, left);
    }
    for (size_t i = 0; i < n; i++)
        if (s[i].id >= 0)
            s[out++] = s[i];
    work->n_symbols = out;
    return LORI_OK;
}

/* Leaves the piece's ids in work->symbol. */
static lori_status merge_piece(const text_bpe *bpe, text_work *work,
                               const char *s, size_t n, lori_error *err)
{
    work->n_symbols = 0;
    BASE_TRY(bpe->bytes ? symbols_of_bytes(bpe, work, s, n, err)
                        : symbols_of_text(bpe, work, s, n, err));
    if (work->n_symbols > SHORT_PIECE)
        return merge_long(bpe, work, err);
    work->n_symbols = merge_short(bpe, work->symbol, work->n_symbols);
    return LORI_OK;
}

static int32_t find_piece(const text_bpe *bpe, const char *s, size_t n)
{
    if (bpe->bytes)
        return text_vocab_find_raw(bpe->vocab, s, n);
    return n > bpe->vocab->max_text ? -1 : text_vocab_find(bpe->vocab, s, n);
}

/* The piece is one token. */
static lori_status add_token(const text_bpe *bpe, text_work *work,
                             int32_t entry, size_t n, text_ids *out,
                             lori_error *err)
{
    const text_entry *e = &bpe->vocab->entry[entry];
    if (work->want_lengths)
        BASE_TRY(text_ids_add(&work->lengths,
                              (int32_t)(bpe->bytes ? e->text_len : n), err));
    return text_ids_add(out, e->id, err);
}

/* A part of a piece that the rest of it has no effect on. */
static lori_status encode_part(const text_bpe *bpe, text_work *work,
                               const char *s, size_t n, text_ids *out,
                               lori_error *err)
{
    int32_t e = find_piece(bpe, s, n);
    int whole = e < 0 ? TEXT_WHOLE_NO
                      : __atomic_load_n(&bpe->whole[e], __ATOMIC_RELAXED);
    if (whole == TEXT_WHOLE_YES)
        return add_token(bpe, work, e, n, out, err);
    BASE_TRY(merge_piece(bpe, work, s, n, err));
    if (whole == TEXT_WHOLE_UNKNOWN) {
        bool yes = work->n_symbols == 1 &&
                   work->symbol[0].id == bpe->vocab->entry[e].id;
        __atomic_store_n(&bpe->whole[e], yes ? TEXT_WHOLE_YES : TEXT_WHOLE_NO,
                         __ATOMIC_RELAXED);
    }
    for (size_t i = 0; i < work->n_symbols; i++) {
        BASE_TRY(text_ids_add(out, work->symbol[i].id, err));
        if (work->want_lengths)
            BASE_TRY(
                text_ids_add(&work->lengths, (int32_t)work->symbol[i].n, err));
    }
    return LORI_OK;
}

/* Up to the next place where the piece may be cut, n when there is none. */
static size_t next_cut(const text_bpe *bpe, const char *s, size_t n)
{
    for (size_t i = 1; i + 3 <= n; i++) {
        const char *mark = memchr(s + i, '\xE2', n - 2 - i);
        if (!mark)
            break;
        i = (size_t)(mark - s);
        if (mark[1] == '\x96' && mark[2] == '\x81' &&
            !bpe->after_byte[(unsigned char)s[i - 1]])
            return i;
    }
    return n;
}

lori_status text_bpe_encode(const text_bpe *bpe, text_work *work, const char *s,
                            size_t n, text_ids *out, lori_error *err)
{
    work->lengths.n = 0;
    if (bpe->ignore_merges) {
        int32_t e = find_piece(bpe, s, n);
        if (e >= 0)
            return add_token(bpe, work, e, n, out, err);
    }
    if (!bpe->cuts)
        return encode_part(bpe, work, s, n, out, err);
    for (size_t i = 0; i < n;) {
        size_t part = next_cut(bpe, s + i, n - i);
        BASE_TRY(encode_part(bpe, work, s + i, part, out, err));
        i += part;
    }
    return LORI_OK;
}
