/* bpe_load.c - the BPE model of tokenizer.json: vocabulary and merges, read as
 * a stream, and its options. Refuses dropout, which makes ids random.
 * Includes base, format.
 * Source: huggingface/tokenizers models/bpe; spec/text.md 1.4. */
#include <stdlib.h>

#include "text/text_i.h"

lori_status text_vocab_scan(text_vocab *vocab, format_scan *scan,
                            lori_error *err)
{
    BASE_TRY(format_scan_open(scan, '{', err));
    for (;;) {
        const char *s;
        size_t n;
        int64_t id;
        bool more, good;
        BASE_TRY(format_scan_more(scan, '}', &more, err));
        if (!more)
            return LORI_OK;
        BASE_TRY(format_scan_key(scan, &s, &n, err));
        /* The next call ends the key's life. */
        BASE_TRY(text_vocab_append(vocab, s, n, 0, err));
        text_entry *e = &vocab->entry[vocab->n - 1];
        BASE_TRY(format_scan_int(scan, 0, TEXT_MAX_ID, &id, &good, err));
        if (!good)
            return base_fail(err, LORI_FORMAT,
                             "%s: model.vocab['%s'] is not an id from 0 to %d",
                             scan->name, vocab->arena.s + e->text, TEXT_MAX_ID);
        e->id = (int32_t)id;
    }
}

/* ---- merges ------------------------------------------------------------ */

/* The two sides of a merge, one after the other in merge_list.sides. */
typedef struct merge_text {
    size_t index; /* in the list, for errors */
    size_t at, left, right;
    uint32_t left_hash, right_hash;
} merge_text;

/* Merges are looked up in blocks: the memory that one needs is on its way
 * while the next ones are read. */
enum { BLOCK = 32 };

typedef struct merge_list {
    format_scan *scan;
    const text_vocab *vocab;
    size_t prefix; /* bytes that the right side begins with */
    size_t index;
    base_str sides;  /* of the block */
    base_str joined; /* a merge without its prefix */
    merge_text block[BLOCK];
    size_t n_block;
    size_t left; /* bytes of the left side of the merge being read */
    text_merge *list;
    size_t n, cap;
} merge_list;

static lori_status not_two(const merge_list *m, lori_error *err)
{
    return base_fail(err, LORI_FORMAT,
                     "%s: model.merges[%zu] is not two tokens", m->scan->name,
                     m->index);
}

/* ["a", "b"] */
static lori_status read_pair(merge_list *m, lori_error *err)
{
    bool more;
    const char *s;
    size_t n;
    BASE_TRY(format_scan_open(m->scan, '[', err));
    for (int k = 0; k < 2; k++) {
        BASE_TRY(format_scan_more(m->scan, ']', &more, err));
        if (!more || format_scan_peek(m->scan) != '"')
            return not_two(m, err);
        BASE_TRY(format_scan_string(m->scan, &s, &n, err));
        base_str_add(&m->sides, s, n);
        if (k == 0)
            m->left = n;
    }
    BASE_TRY(format_scan_more(m->scan, ']', &more, err));
    return more ? not_two(m, err) : LORI_OK;
}

/* "a b"; *skip for a line of the old merges.txt that is none. */
static lori_status read_line(merge_list *m, bool *skip, lori_error *err)
{
    const char *s;
    size_t n;
    BASE_TRY(format_scan_string(m->scan, &s, &n, err));
    *skip = n >= 8 && memcmp(s, "#version", 8) == 0;
    if (*skip)
        return LORI_OK;
    const char *space = n ? memchr(s, ' ', n) : NULL;
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
        return not_two(m, err);
    m->left = (size_t)(space - s);
    base_str_add(&m->sides, s, m->left);
    base_str_add(&m->sides, space + 1, n - m->left - 1);
    return LORI_OK;
}

static lori_status token_of(const merge_list *m, const merge_text *t,
                            uint32_t hash, const char *s, size_t n, int32_t *id,
                            lori_error *err)
{
    int32_t e = n ? text_vocab_find_hashed(m->vocab, hash, s, n) : -1;
    if (e >= 0) {
        *id = m->vocab->entry[e].id;
        return LORI_OK;
    }
    return base_fail(err, LORI_FORMAT,
                     "%s: model.merges[%zu] needs the token '%.*s', which is "
                     "not in model.vocab",
                     m->scan->name, t->index, (int)(n < 200 ? n : 200), s);
}

/* The token that a merge makes. Files are sorted by it, so it is mostly that
 * of the merge before or the next one: no search. */
static int32_t guess_token(const merge_list *m, const char *s, size_t n)
{
    const text_vocab *v = m->vocab;
    int32_t last = m->n ? m->list[m->n - 1].id : 0;
    for (int32_t id = last; id <= last + 1 && id < v->n_ids; id++) {
        const text_entry *e = v->of_id[id] < 0 ? NULL : &v->entry[v->of_id[id]];
        if (e && e->text_len == n && memcmp(v->arena.s + e->text, s, n) == 0)
            return id;
    }
    return -1;
}

static lori_status add_merge(merge_list *m, const merge_text *t,
                             lori_error *err)
{
    const char *s = m->sides.s + t->at;
    size_t left = t->left, right = t->right, whole = left + right;
    int32_t a, b, id;
    BASE_TRY(token_of(m, t, t->left_hash, s, left, &a, err));
    BASE_TRY(token_of(m, t, t->right_hash, s + left, right, &b, err));
    if (m->prefix) {
        size_t cut = right < m->prefix ? right : m->prefix;
        base_str_clear(&m->joined);
        base_str_add(&m->joined, s, left);
        base_str_add(&m->joined, s + left + cut, right - cut);
        if (m->joined.failed)
            return base_no_memory(err, whole);
        s = m->joined.s;
        whole = m->joined.len;
    }
    id = guess_token(m, s, whole);
    if (id < 0)
        BASE_TRY(token_of(m, t, text_vocab_hash(s, whole), s, whole, &id, err));
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 1024;
        text_merge *list = base_resize(m->list, cap, sizeof *list);
        if (!list)
            return base_no_memory(err, cap * sizeof *list);
        m->list = list;
        m->cap = cap;
    }
    m->list[m->n] = (text_merge){text_merge_pair(a, b), (uint32_t)m->n, id};
    m->n++;
    return LORI_OK;
}

static void expect_merge(const merge_list *m, const merge_text *t, bool later)
{
    text_vocab_expect(m->vocab, t->left_hash, later);
    text_vocab_expect(m->vocab, t->right_hash, later);
}

static lori_status add_block(merge_list *m, lori_error *err)
{
    if (m->sides.failed)
        return base_no_memory(err, m->sides.len);
    for (size_t i = 0; i < m->n_block; i++)
        expect_merge(m, &m->block[i], true);
    for (size_t i = 0; i < m->n_block; i++)
        BASE_TRY(add_merge(m, &m->block[i], err));
    m->n_block = 0;
    base_str_clear(&m->sides);
    return LORI_OK;
}

/* The merge whose sides were read, from byte `at` of m->sides on. */
static lori_status put_in_block(merge_list *m, size_t at, lori_error *err)
{
    if (m->sides.failed)
        return base_no_memory(err, m->sides.len);
    merge_text *t = &m->block[m->n_block++];
    const char *s = m->sides.s + at;
    size_t right = m->sides.len - at - m->left;
    *t = (merge_text){m->index,
                      at,
                      m->left,
                      right,
                      text_vocab_hash(s, m->left),
                      text_vocab_hash(s + m->left, right)};
    expect_merge(m, t, false);
    return m->n_block == BLOCK ? add_block(m, err) : LORI_OK;
}

static lori_status read_merges(merge_list *m, lori_error *err)
{
    bool more;
    base_str_puts(&m->sides, ""); /* never NULL */
    if (format_scan_peek(m->scan) != '[')
        return base_fail(err, LORI_FORMAT, "%s: model.merges is not a list",
                         m->scan->name);
    BASE_TRY(format_scan_open(m->scan, '[', err));
    for (m->index = 0;; m->index++) {
        bool skip = false;
        BASE_TRY(format_scan_more(m->scan, ']', &more, err));
        if (!more)
            return add_block(m, err);
        size_t at = m->sides.len;
        int c = format_scan_peek(m->scan);
        if (c == '[')
            BASE_TRY(read_pair(m, err));
        else if (c == '"')
            BASE_TRY(read_line(m, &skip, err));
        else
            return not_two(m, err);
        if (!skip)
            BASE_TRY(put_in_block(m, at, err));
    }
}

/* The table; of equal pairs the last one's rank counts. */
static lori_status fill_table(text_bpe *bpe, const merge_list *m,
                              lori_error *err)
{
    enum { AHEAD = 16 }; /* merges whose slots are on their way */
    size_t slots = 16;
    while (slots < 2 * m->n)
        slots *= 2;
    bpe->merge = base_alloc(slots, sizeof *bpe->merge);
    if (!bpe->merge)
        return base_no_memory(err, slots * sizeof *bpe->merge);
    bpe->merge_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->merge[i].pair = UINT64_MAX;
    for (size_t i = 0; i < m->n; i++) {
        text_merge_expect(bpe, m->list[i + AHEAD < m->n ? i + AHEAD : i].pair);
        bpe->merge[text_merge_slot(bpe, m->list[i].pair)] = m->list[i];
    }
    return LORI_OK;
}

/* ---- options ----------------------------------------------------------- */

/* A copy of a string member; NULL when absent, null or empty. */
static lori_status copy_option(const json_t *model, const char *file,
                               const char *key, char **out, lori_error *err)
{
    const char *s = NULL;
    BASE_TRY(format_get_str(model, file, key, false, &s, err));
    if (!s || !*s)
        return LORI_OK;
    *out = base_strdup(s);
    return *out ? LORI_OK : base_no_memory(err, strlen(s));
}

lori_status text_bpe_load_merges(text_bpe *bpe, const json_t *model,
                                 const text_vocab *vocab, format_scan *scan,
                                 lori_error *err)
{
    bpe->vocab = vocab;
    BASE_TRY(
        copy_option(model, scan->name, TEXT_BPE_PREFIX, &bpe->prefix, err));
    merge_list m = {.scan = scan,
                    .vocab = vocab,
                    .prefix = bpe->prefix ? strlen(bpe->prefix) : 0};
    lori_status st = read_merges(&m, err);
    if (st == LORI_OK)
        st = fill_table(bpe, &m, err);
    base_str_free(&m.sides);
    base_str_free(&m.joined);
    free(m.list);
    return st;
}

static lori_status load_options(text_bpe *bpe, const json_t *model,
                                const char *file, lori_error *err)
{
    double dropout = 0;
    BASE_TRY(format_get_f64(model, file, "dropout", false, &dropout, err));
    if (dropout != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: model.dropout %g makes ids random; set it to "
                         "null",
                         file, dropout);
    BASE_TRY(copy_option(model, file, "unk_token", &bpe->unk, err));
    BASE_TRY(copy_option(model, file, "end_of_word_suffix", &bpe->suffix, err));
    BASE_TRY(
        format_get_bool(model, file, "fuse_unk", false, &bpe->fuse_unk, err));
    BASE_TRY(format_get_bool(model, file, "byte_fallback", false,
                             &bpe->byte_fallback, err));
    BASE_TRY(format_get_bool(model, file, "ignore_merges", false,
                             &bpe->ignore_merges, err));
    bpe->unk_id =
        bpe->unk ? text_vocab_id(bpe->vocab, bpe->unk, strlen(bpe->unk)) : -1;
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

/* A piece of a model without a byte alphabet may be the whole text. Where no
 * token, hence no merge, has a U+2581 after another character, it can be cut.
 * The mark must be a token, and a character that is none must not vanish, or
 * what stands beside the cut would change. */
static void find_cuts(text_bpe *bpe)
{
    static const char mark[] = "\xE2\x96\x81";
    const text_vocab *v = bpe->vocab;
    bpe->cuts = !bpe->bytes && !bpe->prefix && !bpe->suffix &&
                bpe->unk_id >= 0 && text_vocab_id(v, mark, 3) >= 0;
    for (size_t i = 0; bpe->cuts && i < v->n; i++) {
        const char *s = v->arena.s + v->entry[i].text;
        const char *at = s, *end = s + v->entry[i].text_len;
        for (; (at = memmem(at, (size_t)(end - at), mark, 3)) != NULL; at += 3)
            if (at > s)
                bpe->after_byte[(unsigned char)at[-1]] = true;
    }
}

lori_status text_bpe_load(text_bpe *bpe, const json_t *model, const char *file,
                          text_pretokenizer *pretokenizer, lori_error *err)
{
    BASE_TRY(load_options(bpe, model, file, err));
    bpe->bytes =
        !bpe->prefix && !bpe->suffix && text_pretokenizer_raw(pretokenizer);
    fill_byte_ids(bpe);
    find_cuts(bpe);
    bpe->whole = base_alloc(bpe->vocab->n, sizeof *bpe->whole);
    return bpe->whole ? LORI_OK : base_no_memory(err, bpe->vocab->n);
}

void text_bpe_free(text_bpe *bpe)
{
    free(bpe->merge);
    free(bpe->prefix);
    free(bpe->suffix);
    free(bpe->unk);
    free(bpe->whole);
    *bpe = (text_bpe){0};
}
