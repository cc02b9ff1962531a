/* vocab.c - the model's vocabulary: token text <-> id, and lookup by the
 * bytes that a byte-alphabet token stands for. Includes base only. */
#include <stdlib.h>

#include "text/text_i.h"

/* Eight bytes a step: a token has a few, and all of them are hashed when a
 * vocabulary is read and when a text is encoded. */
static uint32_t hash_bytes(const char *s, size_t n)
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

static const char *entry_raw(const text_vocab *v, const text_entry *e)
{
    return v->arena.s + e->raw;
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

void text_vocab_expect(const text_vocab *vocab, const char *s, size_t n,
                       bool later)
{
    const text_slot *slot = &vocab->slot[hash_bytes(s, n) & vocab->mask];
    if (!later) {
        __builtin_prefetch(slot);
    } else if (slot->entry) {
        __builtin_prefetch(&vocab->entry[slot->entry - 1]);
        __builtin_prefetch(vocab->arena.s + slot->at);
    }
}

int32_t text_vocab_find(const text_vocab *vocab, const char *s, size_t n)
{
    if (!vocab->slot)
        return -1;
    size_t at = find_slot(vocab, vocab->slot, hash_bytes(s, n), s, n);
    return (int32_t)vocab->slot[at].entry - 1;
}

int32_t text_vocab_find_raw(const text_vocab *vocab, const char *s, size_t n)
{
    if (!vocab->raw_slot || n > vocab->max_raw)
        return -1;
    size_t at = find_slot(vocab, vocab->raw_slot, hash_bytes(s, n), s, n);
    return (int32_t)vocab->raw_slot[at].entry - 1;
}

static lori_status grow(text_vocab *v, lori_error *err)
{
    size_t cap = v->cap ? 2 * v->cap : 1024;
    text_entry *entry = base_resize(v->entry, cap, sizeof *entry);
    if (!entry)
        return base_no_memory(err, cap * sizeof *entry);
    v->entry = entry;
    text_slot *old = v->slot, *slot = base_alloc(2 * cap, sizeof *slot);
    if (!slot)
        return base_no_memory(err, 2 * cap * sizeof *slot);
    size_t n_old = v->cap ? v->mask + 1 : 0;
    v->slot = slot;
    v->mask = 2 * cap - 1;
    v->cap = cap;
    for (size_t i = 0; i < n_old; i++) {
        size_t at = old[i].hash & v->mask;
        if (!old[i].entry)
            continue;
        while (slot[at].entry)
            at = (at + 1) & v->mask;
        slot[at] = old[i];
    }
    free(old);
    return LORI_OK;
}

lori_status text_vocab_add(text_vocab *vocab, const char *s, size_t n,
                           int32_t id, lori_error *err)
{
    if (vocab->n == vocab->cap)
        BASE_TRY(grow(vocab, err));
    uint32_t hash = hash_bytes(s, n);
    size_t at = find_slot(vocab, vocab->slot, hash, s, n);
    if (vocab->slot[at].entry) {
        vocab->entry[vocab->slot[at].entry - 1].id = id;
        return LORI_OK;
    }
    if (vocab->arena.len + n >= INT32_MAX)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a vocabulary of more than 2 GB of text");
    text_entry *e = &vocab->entry[vocab->n];
    *e = (text_entry){
        .text = (uint32_t)vocab->arena.len, .text_len = (uint32_t)n, .id = id};
    base_str_add(&vocab->arena, s, n);
    base_str_add(&vocab->arena, "", 1);
    if (vocab->arena.failed)
        return base_no_memory(err, vocab->arena.len + n);
    vocab->slot[at] =
        (text_slot){(uint32_t)++vocab->n, hash, e->text, e->text_len};
    if (n > vocab->max_text)
        vocab->max_text = n;
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
    if (!vocab->slot)
        BASE_TRY(grow(vocab, err)); /* an empty vocabulary is searchable */
    BASE_TRY(add_raw(vocab, err));
    vocab->raw_slot = base_alloc(vocab->mask + 1, sizeof *vocab->raw_slot);
    if (!vocab->raw_slot)
        return base_no_memory(err, (vocab->mask + 1) * sizeof *vocab->raw_slot);
    for (size_t i = 0; i < vocab->n; i++) {
        const text_entry *e = &vocab->entry[i];
        if (e->id >= vocab->n_ids)
            vocab->n_ids = e->id + 1;
        if (!e->is_bytes)
            continue;
        /* The byte alphabet is one to one, so no two entries share raw. */
        uint32_t hash = hash_bytes(entry_raw(vocab, e), e->raw_len);
        size_t at = hash & vocab->mask;
        while (vocab->raw_slot[at].entry)
            at = (at + 1) & vocab->mask;
        vocab->raw_slot[at] =
            (text_slot){(uint32_t)i + 1, hash, e->raw, e->raw_len};
        if (e->raw_len > vocab->max_raw)
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
