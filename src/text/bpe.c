/* bpe.c - the BPE model: merges of tokenizer.json, and the encoding of one
 * piece. Refuses continuing_subword_prefix and end_of_word_suffix. `dropout`
 * is for training and has no effect. Includes base, format.
 * Source: huggingface/tokenizers models/bpe; spec/text.md 1.4, 2. */
#include <stdio.h>
#include <stdlib.h>

#include "text/text_i.h"

/* Up to here a scan for the lowest rank beats a heap. */
#define SHORT_PIECE 48
#define NO_RANK     UINT32_MAX

/* ---- merge table ----------------------------------------------------- */

static uint64_t pair_of(int32_t a, int32_t b)
{
    return (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
}

static size_t pair_slot(const text_bpe *bpe, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15ULL;
    size_t at = (size_t)(h >> 32 ^ h >> 15) & bpe->merge_mask;
    while (bpe->merge[at].pair != pair && bpe->merge[at].pair != UINT64_MAX)
        at = (at + 1) & bpe->merge_mask;
    return at;
}

static const text_merge *find_merge(const text_bpe *bpe, int32_t a, int32_t b)
{
    const text_merge *m = &bpe->merge[pair_slot(bpe, pair_of(a, b))];
    return m->pair == UINT64_MAX ? NULL : m;
}

/* ---- one piece --------------------------------------------------------- */

static lori_status add_symbol(text_work *work, int32_t id, lori_error *err)
{
    if (work->n_symbols == work->symbols_cap) {
        size_t cap = work->symbols_cap ? 2 * work->symbols_cap : 256;
        text_symbol *symbol = base_resize(work->symbol, cap, sizeof *symbol);
        if (!symbol)
            return base_no_memory(err, cap * sizeof *symbol);
        work->symbol = symbol;
        work->symbols_cap = cap;
    }
    work->symbol[work->n_symbols++].id = id;
    return LORI_OK;
}

/* A character of the piece that is no token. *pending: an unknown token not
 * yet added. As in the reference it stays pending over byte-fallback tokens,
 * so those come first. */
static lori_status add_unknown(const text_bpe *bpe, text_work *work,
                               const char *s, size_t n, bool *pending,
                               lori_error *err)
{
    if (bpe->byte_fallback) {
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all = all && bpe->fallback_id[(unsigned char)s[i]] >= 0;
        if (all) {
            for (size_t i = 0; i < n; i++)
                BASE_TRY(add_symbol(work, bpe->fallback_id[(unsigned char)s[i]],
                                    err));
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
    if (*pending && !bpe->fuse_unk)
        BASE_TRY(add_symbol(work, bpe->unk_id, err));
    *pending = true;
    return LORI_OK;
}

static lori_status symbols_of(const text_bpe *bpe, text_work *work,
                              const char *s, size_t n, lori_error *err)
{
    bool pending = false;
    work->n_symbols = 0;
    for (size_t i = 0; i < n;) {
        char mapped[4];
        const char *at = s + i;
        size_t length = 1;
        int32_t id;
        if (bpe->bytes) {
            id = bpe->byte_id[(unsigned char)s[i]];
            i++;
            if (id < 0) {
                length =
                    (size_t)text_utf8_put(text_byte_char((uint8_t)*at), mapped);
                at = mapped;
            }
        } else {
            uint32_t c;
            length = (size_t)text_utf8_next(at, &c);
            id = text_vocab_id(bpe->vocab, at, length);
            i += length;
        }
        if (id < 0) {
            BASE_TRY(add_unknown(bpe, work, at, length, &pending, err));
            continue;
        }
        if (pending)
            BASE_TRY(add_symbol(work, bpe->unk_id, err));
        pending = false;
        BASE_TRY(add_symbol(work, id, err));
    }
    if (pending)
        BASE_TRY(add_symbol(work, bpe->unk_id, err));
    return LORI_OK;
}

/* Lowest rank first, leftmost among equals. Returns how many are left. */
static size_t merge_short(const text_bpe *bpe, text_symbol *symbol, size_t n)
{
    uint32_t rank[SHORT_PIECE];
    int32_t to[SHORT_PIECE], id[SHORT_PIECE];
    for (size_t i = 0; i < n; i++)
        id[i] = symbol[i].id;
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
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            to[i - 1] = to[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const text_merge *m = find_merge(bpe, id[i], id[i + 1]);
            rank[i] = m ? m->rank : NO_RANK;
            to[i] = m ? m->id : -1;
        }
    }
    for (size_t i = 0; i < n; i++)
        symbol[i].id = id[i];
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
        s[left].next = s[right].next;
        s[right].id = -1;
        if (s[left].next >= 0)
            s[s[left].next].prev = left;
        offer(bpe, work, &n_heap, s[left].prev);
        offer(bpe, work, &n_heap, left);
    }
    for (size_t i = 0; i < n; i++)
        if (s[i].id >= 0)
            s[out++].id = s[i].id;
    work->n_symbols = out;
    return LORI_OK;
}

/* Leaves the piece's ids in work->symbol. */
static lori_status merge_piece(const text_bpe *bpe, text_work *work,
                               const char *s, size_t n, lori_error *err)
{
    BASE_TRY(symbols_of(bpe, work, s, n, err));
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

lori_status text_bpe_encode(const text_bpe *bpe, text_work *work, const char *s,
                            size_t n, text_ids *out, lori_error *err)
{
    int32_t e = find_piece(bpe, s, n);
    if (e >= 0 && (bpe->ignore_merges || bpe->whole[e]))
        return text_ids_add(out, bpe->vocab->entry[e].id, err);
    BASE_TRY(merge_piece(bpe, work, s, n, err));
    for (size_t i = 0; i < work->n_symbols; i++)
        BASE_TRY(text_ids_add(out, work->symbol[i].id, err));
    return LORI_OK;
}

/* ---- loading ----------------------------------------------------------- */

/* The two sides of merges[i]: "a b" or ["a", "b"]. */
static bool merge_sides(const json_t *item, const char *side[2], size_t n[2])
{
    if (json_is_array(item)) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *s = json_array_get(item, k);
            if (json_array_size(item) != 2 || !json_is_string(s))
                return false;
            side[k] = json_string_value(s);
            n[k] = json_string_length(s);
        }
        return true;
    }
    if (!json_is_string(item))
        return false;
    const char *s = json_string_value(item);
    size_t length = json_string_length(item);
    const char *space = memchr(s, ' ', length);
    if (!space || memchr(space + 1, ' ', length - (size_t)(space + 1 - s)))
        return false;
    side[0] = s;
    n[0] = (size_t)(space - s);
    side[1] = space + 1;
    n[1] = length - n[0] - 1;
    return true;
}

static lori_status add_merge(text_bpe *bpe, const json_t *item, size_t index,
                             uint32_t rank, const char *file, base_str *joined,
                             lori_error *err)
{
    const char *side[2];
    size_t n[2];
    int32_t id[3];
    if (!merge_sides(item, side, n))
        return base_fail(err, LORI_FORMAT,
                         "%s: model.merges[%zu] is not two tokens", file,
                         index);
    base_str_clear(joined);
    base_str_add(joined, side[0], n[0]);
    base_str_add(joined, side[1], n[1]);
    if (joined->failed)
        return base_no_memory(err, n[0] + n[1]);
    id[0] = text_vocab_id(bpe->vocab, side[0], n[0]);
    id[1] = text_vocab_id(bpe->vocab, side[1], n[1]);
    id[2] =
        joined->len ? text_vocab_id(bpe->vocab, joined->s, joined->len) : -1;
    for (int k = 0; k < 3; k++)
        if (id[k] < 0)
            return base_fail(err, LORI_FORMAT,
                             "%s: model.merges[%zu] needs the token '%s', "
                             "which is not in model.vocab",
                             file, index, k < 2 ? side[k] : joined->s);
    uint64_t pair = pair_of(id[0], id[1]);
    bpe->merge[pair_slot(bpe, pair)] = (text_merge){pair, rank, id[2]};
    return LORI_OK;
}

static lori_status load_merges(text_bpe *bpe, const json_t *model,
                               const char *file, lori_error *err)
{
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges))
        return base_fail(err, LORI_FORMAT, "%s: model.merges is not a list",
                         file);
    size_t n = json_array_size(merges), slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    bpe->merge = base_alloc(slots, sizeof *bpe->merge);
    if (!bpe->merge)
        return base_no_memory(err, slots * sizeof *bpe->merge);
    bpe->merge_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->merge[i].pair = UINT64_MAX;
    base_str joined = {0};
    lori_status st = LORI_OK;
    uint32_t rank = 0;
    for (size_t i = 0; st == LORI_OK && i < n; i++) {
        const json_t *item = json_array_get(merges, i);
        const char *s = json_string_value(item);
        if (s && strncmp(s, "#version", 8) == 0)
            continue; /* a line of the old merges.txt */
        st = add_merge(bpe, item, i, rank++, file, &joined, err);
    }
    base_str_free(&joined);
    return st;
}

static lori_status load_vocab(text_vocab *vocab, const json_t *model,
                              const char *file, lori_error *err)
{
    json_t *object = json_object_get(model, "vocab");
    if (!json_is_object(object))
        return base_fail(err, LORI_FORMAT, "%s: model.vocab is not an object",
                         file);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id > TEXT_MAX_ID)
            return base_fail(err, LORI_FORMAT,
                             "%s: model.vocab['%s'] is not an id from 0 to %d",
                             file, key, TEXT_MAX_ID);
        BASE_TRY(text_vocab_add(vocab, key, strlen(key), (int32_t)id, err));
    }
    return text_vocab_finish(vocab, err);
}

static lori_status load_options(text_bpe *bpe, const json_t *model,
                                const char *file, lori_error *err)
{
    const char *unk = NULL, *prefix = NULL, *suffix = NULL;
    BASE_TRY(format_get_str(model, file, "unk_token", false, &unk, err));
    BASE_TRY(format_get_str(model, file, "continuing_subword_prefix", false,
                            &prefix, err));
    BASE_TRY(
        format_get_str(model, file, "end_of_word_suffix", false, &suffix, err));
    BASE_TRY(
        format_get_bool(model, file, "fuse_unk", false, &bpe->fuse_unk, err));
    BASE_TRY(format_get_bool(model, file, "byte_fallback", false,
                             &bpe->byte_fallback, err));
    BASE_TRY(format_get_bool(model, file, "ignore_merges", false,
                             &bpe->ignore_merges, err));
    if ((prefix && *prefix) || (suffix && *suffix))
        return base_fail(err, LORI_UNSUPPORTED, "%s: model.%s is not supported",
                         file,
                         prefix && *prefix ? "continuing_subword_prefix"
                                           : "end_of_word_suffix");
    bpe->unk_id = -1;
    if (unk) {
        bpe->unk = base_strdup(unk);
        if (!bpe->unk)
            return base_no_memory(err, strlen(unk));
        bpe->unk_id = text_vocab_id(bpe->vocab, unk, strlen(unk));
    }
    return LORI_OK;
}

static void fill_byte_ids(text_bpe *bpe)
{
    for (int b = 0; b < 256; b++) {
        char bytes[4], name[8];
        int n = text_utf8_put(text_byte_char((uint8_t)b), bytes);
        bpe->byte_id[b] = text_vocab_id(bpe->vocab, bytes, (size_t)n);
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        bpe->fallback_id[b] = text_vocab_id(bpe->vocab, name, 6);
    }
}

/* Finds the tokens that their own text encodes to. */
static lori_status fill_whole(text_bpe *bpe, lori_error *err)
{
    const text_vocab *v = bpe->vocab;
    text_work work = {0};
    lori_status st = LORI_OK;
    bpe->whole = base_alloc(v->n, sizeof *bpe->whole);
    if (!bpe->whole)
        return base_no_memory(err, v->n);
    for (size_t i = 0; st == LORI_OK && i < v->n; i++) {
        const text_entry *e = &v->entry[i];
        if (e->text_len == 0 || (bpe->bytes && !e->is_bytes))
            continue;
        if (bpe->bytes)
            st = merge_piece(bpe, &work, v->arena.s + e->raw, e->raw_len, err);
        else
            st =
                merge_piece(bpe, &work, v->arena.s + e->text, e->text_len, err);
        if (st == LORI_FORMAT) /* no unk: an error only when text needs it */
            st = LORI_OK;
        else
            bpe->whole[i] = st == LORI_OK && work.n_symbols == 1 &&
                            work.symbol[0].id == e->id;
    }
    text_work_free(&work);
    return st;
}

lori_status text_bpe_parse(const json_t *model, const char *file, bool bytes,
                           text_vocab *vocab, text_bpe *out, lori_error *err)
{
    const char *type = "BPE"; /* files of before 2020 have no type */
    if (!json_is_object(model))
        return base_fail(err, LORI_FORMAT, "%s: 'model' is not an object",
                         file);
    BASE_TRY(format_get_str(model, file, "type", false, &type, err));
    if (strcmp(type, "BPE") != 0)
        return text_unsupported(file, "model", type, "BPE", err);
    *out = (text_bpe){.vocab = vocab, .bytes = bytes};
    BASE_TRY(load_vocab(vocab, model, file, err));
    BASE_TRY(load_options(out, model, file, err));
    BASE_TRY(load_merges(out, model, file, err));
    fill_byte_ids(out);
    return fill_whole(out, err);
}

void text_bpe_free(text_bpe *bpe)
{
    free(bpe->merge);
    free(bpe->unk);
    free(bpe->whole);
    *bpe = (text_bpe){0};
}
