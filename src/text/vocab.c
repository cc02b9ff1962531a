/* vocab.c - the model's vocabulary: token text <-> id, and lookup by the
 * bytes that a byte-alphabet token stands for. Includes base only. */
#include <stdlib.h>

#include "text/text_i.h"

/* Eight bytes a step: a token has a few, and all of them are hashed when a
 * vocabulary is read and when a text is encoded. */
uint32_t text_vocab_hash(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15ULL, word;
    for (; n >= sizeof word; s += sizeof word, n -= sizeof word) {
        memcpy(&word, s, sizeof word);
        h = (h ^ word) * 0xFF51AFD7ED558CCDULL;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, s, n);
    h = (h ^ word) * 0xFF51AFD7ED558CCDULL;
    return (uint32_t)(h ^ h >> 29);
}

static const char *entry_text(const text_vocab *v, const text_entry *e)
{
    return v->arena.s + e->text;
}

/* The slot of `table` that holds s, or the empty one where it belongs. */
static size_t find_slot(const text_vocab *v, const text_slot *table,
                        uint32_t hash, const char *s, size_t n)
{
    size_t at = hash & v->mask;
    for (; table[at].entry; at = (at + 1) & v->mask)
        if (table[at].hash == hash && table[at].n == n &&
            memcmp(v->arena.s + table[at].at, s, n) == 0)
            break;
    return at;
}

void text_vocab_expect(const text_vocab *vocab, uint32_t hash, bool later)
{
    const text_slot *slot = &vocab->slot[hash & vocab->mask];
    if (!later) {
        __builtin_prefetch(slot);
    } else if (slot->entry) {
        __builtin_prefetch(&vocab->entry[slot->entry - 1]);
        __builtin_prefetch(vocab->arena.s + slot->at);
    }
}

int32_t text_vocab_find_hashed(const text_vocab *vocab, uint32_t hash,
                               const char *s, size_t n)
{
    if (!vocab->slot)
        return -1;
    size_t at = find_slot(vocab, vocab->slot, hash, s, n);
    return (int32_t)vocab->slot[at].entry - 1;
}

int32_t text_vocab_find(const text_vocab *vocab, const char *s, size_t n)
{
    return text_vocab_find_hashed(vocab, text_vocab_hash(s, n), s, n);
}

int32_t text_vocab_find_raw(const text_vocab *vocab, const char *s, size_t n)
{
    if (!vocab->raw_slot || n > vocab->max_raw)
        return -1;
    size_t at = find_slot(vocab, vocab->raw_slot, text_vocab_hash(s, n), s, n);
    return (int32_t)vocab->raw_slot[at].entry - 1;
}

/* An empty table of at least two slots an entry. */
static lori_status new_slots(const text_vocab *v, text_slot **table,
                             size_t *mask, lori_error *err)
{
    size_t slots = 16;
    while (slots < 2 * v->n)
        slots *= 2;
    *table = base_alloc(slots, sizeof **table);
    if (!*table)
        return base_no_memory(err, slots * sizeof **table);
    *mask = slots - 1;
    return LORI_OK;
}

/* Fills a table with the texts of all entries, or the raw bytes of those that
 * have some. The slots are asked for some entries ahead of their use. *twice:
 * the first entry whose text an entry before it has; none has the same raw
 * bytes, as the byte alphabet is one to one. */
static void fill_slots(const text_vocab *v, text_slot *table, bool raw,
                       const text_entry **twice)
{
    enum { AHEAD = 16 };
    text_slot coming[AHEAD];
    for (size_t i = 0; i < v->n + AHEAD; i++) {
        text_slot *place = &coming[i % AHEAD];
        if (i >= AHEAD && place->entry) {
            size_t at = find_slot(v, table, place->hash, v->arena.s + place->at,
                                  place->n);
            if (table[at].entry && !*twice)
                *twice = &v->entry[place->entry - 1];
            table[at] = *place;
        }
        *place = (text_slot){0};
        if (i >= v->n || (raw && !v->entry[i].is_bytes))
            continue;
        const text_entry *e = &v->entry[i];
        place->entry = (uint32_t)i + 1;
        place->at = raw ? e->raw : e->text;
        place->n = raw ? e->raw_len : e->text_len;
        place->hash = text_vocab_hash(v->arena.s + place->at, place->n);
        __builtin_prefetch(&table[place->hash & v->mask], 1);
    }
}

lori_status text_vocab_append(text_vocab *vocab, const char *s, size_t n,
                              int32_t id, lori_error *err)
{
    if (vocab->n == vocab->cap) {
        size_t cap = vocab->cap ? 2 * vocab->cap : 1024;
        text_entry *entry = base_resize(vocab->entry, cap, sizeof *entry);
        if (!entry)
            return base_no_memory(err, cap * sizeof *entry);
        vocab->entry = entry;
        vocab->cap = cap;
    }
    if (vocab->arena.len + n >= INT32_MAX)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a vocabulary of more than 2 GB of text");
    vocab->entry[vocab->n] = (text_entry){
        .text = (uint32_t)vocab->arena.len, .text_len = (uint32_t)n, .id = id};
    base_str_add(&vocab->arena, s, n);
    base_str_add(&vocab->arena, "", 1);
    if (vocab->arena.failed)
        return base_no_memory(err, vocab->arena.len + n);
    vocab->n++;
    if (n > vocab->max_text)
        vocab->max_text = n;
    return LORI_OK;
}

lori_status text_vocab_add(text_vocab *vocab, const char *s, size_t n,
                           int32_t id, lori_error *err)
{
    int32_t old = text_vocab_find(vocab, s, n);
    if (old >= 0) {
        vocab->entry[old].id = id;
        return LORI_OK;
    }
    BASE_TRY(text_vocab_append(vocab, s, n, id, err));
    const text_entry *twice = NULL, *e = &vocab->entry[vocab->n - 1];
    if (!vocab->slot || 2 * vocab->n > vocab->mask + 1) {
        free(vocab->slot);
        BASE_TRY(new_slots(vocab, &vocab->slot, &vocab->mask, err));
        fill_slots(vocab, vocab->slot, false, &twice);
        return LORI_OK;
    }
    uint32_t hash = text_vocab_hash(s, n);
    size_t at = find_slot(vocab, vocab->slot, hash, s, n);
    vocab->slot[at] =
        (text_slot){(uint32_t)vocab->n, hash, e->text, e->text_len};
    return LORI_OK;
}

size_t text_unmap_bytes(const char *s, size_t n, char *dst)
{
    size_t out = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += (size_t)text_utf8_next(s + i, &c);
        int byte = text_char_byte(c);
        if (byte < 0)
            return SIZE_MAX;
        dst[out++] = (char)byte;
    }
    return out;
}

/* Fills raw, raw_len and is_bytes of every entry. */
static lori_status add_raw(text_vocab *v, lori_error *err)
{
    char *buffer = base_alloc(v->max_text + 1, 1);
    if (!buffer)
        return base_no_memory(err, v->max_text + 1);
    for (size_t i = 0; i < v->n; i++) {
        text_entry *e = &v->entry[i];
        const char *s = entry_text(v, e);
        size_t n = text_unmap_bytes(s, e->text_len, buffer);
        e->raw = e->text;
        e->raw_len = e->text_len;
        e->is_bytes = n != SIZE_MAX;
        /* Most tokens stand for themselves: no second copy. */
        if (!e->is_bytes || (n == e->text_len && memcmp(buffer, s, n) == 0))
            continue;
        e->raw = (uint32_t)v->arena.len;
        e->raw_len = (uint32_t)n;
        base_str_add(&v->arena, buffer, n);
        if (v->arena.failed || v->arena.len >= INT32_MAX)
            break;
    }
    free(buffer);
    if (v->arena.failed || v->arena.len >= INT32_MAX)
        return base_no_memory(err, v->arena.len);
    return LORI_OK;
}

lori_status text_vocab_finish(text_vocab *vocab, const char *file,
                              lori_error *err)
{
    const text_entry *twice = NULL;
    BASE_TRY(new_slots(vocab, &vocab->slot, &vocab->mask, err));
    fill_slots(vocab, vocab->slot, false, &twice);
    if (twice)
        return base_fail(err, LORI_FORMAT,
                         "%s: model.vocab has the token '%s' twice", file,
                         entry_text(vocab, twice));
    BASE_TRY(add_raw(vocab, err));
    BASE_TRY(new_slots(vocab, &vocab->raw_slot, &vocab->mask, err));
    fill_slots(vocab, vocab->raw_slot, true, &twice);
    for (size_t i = 0; i < vocab->n; i++) {
        const text_entry *e = &vocab->entry[i];
        if (e->id >= vocab->n_ids)
            vocab->n_ids = e->id + 1;
        if (e->is_bytes && e->raw_len > vocab->max_raw)
            vocab->max_raw = e->raw_len;
    }
    vocab->of_id = base_alloc((size_t)vocab->n_ids, sizeof(int32_t));
    if (!vocab->of_id)
        return base_no_memory(err, (size_t)vocab->n_ids * sizeof(int32_t));
    memset(vocab->of_id, 0xFF, (size_t)vocab->n_ids * sizeof(int32_t));
    for (size_t i = 0; i < vocab->n; i++) {
        int32_t *of_id = &vocab->of_id[vocab->entry[i].id];
        if (*of_id >= 0)
            return base_fail(
                err, LORI_FORMAT,
                "%s: model.vocab gives the id %d to '%s' and to '%s'", file,
                vocab->entry[i].id, entry_text(vocab, &vocab->entry[*of_id]),
                entry_text(vocab, &vocab->entry[i]));
        *of_id = (int32_t)i;
    }
    return LORI_OK;
}

void text_vocab_free(text_vocab *vocab)
{
    base_str_free(&vocab->arena);
    free(vocab->entry);
    free(vocab->slot);
    free(vocab->raw_slot);
    free(vocab->of_id);
    *vocab = (text_vocab){0};
}
