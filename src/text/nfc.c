/* nfc.c - canonical composition (NFC) and decomposition (NFD) with the data of
 * Unicode 9, which is what the tokenizers package uses: characters of later
 * versions are left alone. Linear in the length of the text, also for long
 * runs of marks. Every character knows how many of the text it stands for.
 * Includes base only. Source: UAX #15, Unicode D108-D117, 3.12 (Hangul). */
#include <stdlib.h>

#include "text/text_i.h"

enum {
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    S_BASE = 0xAC00,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28,
    S_COUNT = L_COUNT * V_COUNT * T_COUNT
};

/* One character being normalized, its combining class, and how many source
 * characters it stands for: the first part of a decomposed character has 1,
 * the others 0; a composed one has the sum of its parts. */
typedef struct nfc_char {
    uint32_t c;
    uint32_t stands_for;
    uint8_t class;
} nfc_char;

typedef struct nfc_work {
    nfc_char *chars, *spare;
    size_t n, cap;
    bool failed;
} nfc_work;

static uint8_t combining_class(uint32_t c)
{
    size_t lo = 0, hi = text_ccc_count;
    if (c < 0x300)
        return 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > text_ccc[mid].last)
            lo = mid + 1;
        else if (c < text_ccc[mid].first)
            hi = mid;
        else
            return text_ccc[mid].value;
    }
    return 0;
}

static const text_pair *find_decomposition(uint32_t c)
{
    size_t lo = 0, hi = text_decomposition_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (text_decomposition[mid].c < c)
            lo = mid + 1;
        else if (text_decomposition[mid].c > c)
            hi = mid;
        else
            return &text_decomposition[mid];
    }
    return NULL;
}

/* The character composed of a b, or 0. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE &&
        b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 &&
        b > T_BASE && b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    size_t lo = 0, hi = text_composition_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const text_pair *p = &text_decomposition[text_composition[mid]];
        if (p->a < a || (p->a == a && p->b < b))
            lo = mid + 1;
        else if (p->a == a && p->b == b)
            return p->c;
        else
            hi = mid;
    }
    return 0;
}

static void push(nfc_work *w, uint32_t c, uint32_t stands_for)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        nfc_char *chars = base_resize(w->chars, cap, sizeof *chars);
        if (chars)
            w->chars = chars;
        nfc_char *spare = base_resize(w->spare, cap, sizeof *spare);
        if (spare)
            w->spare = spare;
        if (!chars || !spare) {
            w->failed = true;
            return;
        }
        w->cap = cap;
    }
    w->chars[w->n++] = (nfc_char){c, stands_for, combining_class(c)};
}

static void decompose(nfc_work *w, uint32_t c)
{
    /* The second part of a pair never decomposes, the first may (the check of
     * tools/gen_unicode.py would fail otherwise): a stack of seconds. */
    uint32_t later[8];
    int n = 0;
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t i = c - S_BASE, t = i % T_COUNT;
        push(w, L_BASE + i / (V_COUNT * T_COUNT), 1);
        push(w, V_BASE + i % (V_COUNT * T_COUNT) / T_COUNT, 0);
        if (t)
            push(w, T_BASE + t, 0);
        return;
    }
    const text_pair *p;
    while (n < 8 && (p = find_decomposition(c)) != NULL) {
        if (p->b)
            later[n++] = p->b;
        c = p->a;
    }
    push(w, c, 1);
    while (n > 0)
        push(w, later[--n], 0);
}

/* Stable sort by combining class of a run of marks: insertion when short,
 * counting when long, so that no text makes it quadratic. */
static void sort_marks(nfc_char *a, nfc_char *spare, size_t n)
{
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            nfc_char x = a[i];
            size_t j = i;
            for (; j > 0 && a[j - 1].class > x.class; j--)
                a[j] = a[j - 1];
            a[j] = x;
        }
        return;
    }
    size_t at[256] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++)
        at[a[i].class]++;
    for (size_t k = 0; k < 256; k++) {
        size_t count = at[k];
        at[k] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        spare[at[a[i].class]++] = a[i];
    memcpy(a, spare, n * sizeof *a);
}

static void order_marks(nfc_work *w)
{
    size_t i = 0;
    while (i < w->n) {
        size_t j = i;
        while (j < w->n && w->chars[j].class)
            j++;
        if (j - i > 1)
            sort_marks(w->chars + i, w->spare, j - i);
        i = j + 1;
    }
}

/* In place. A character joins the last starter unless something between them
 * has class 0 or at least its own class. */
static void compose_all(nfc_work *w)
{
    size_t out = 0, starter = SIZE_MAX;
    uint8_t last = 0;
    for (size_t i = 0; i < w->n; i++) {
        nfc_char x = w->chars[i];
        if (starter != SIZE_MAX && (starter + 1 == out || last < x.class)) {
            uint32_t c = compose(w->chars[starter].c, x.c);
            if (c) {
                w->chars[starter].c = c;
                w->chars[starter].stands_for += x.stands_for;
                continue;
            }
        }
        if (x.class == 0)
            starter = out;
        last = x.class;
        w->chars[out++] = x;
    }
    w->n = out;
}

/* The next `count` characters' bytes. */
static size_t bytes_of(const text_edit *e, uint32_t count)
{
    size_t at = e->at;
    uint32_t c;
    while (count-- > 0 && at < e->from.n)
        at += (size_t)text_utf8_next(e->from.s + at, &c);
    return at - e->at;
}

static void flush(nfc_work *w, bool compose, text_edit *e)
{
    order_marks(w);
    if (compose)
        compose_all(w);
    for (size_t i = 0; i < w->n; i++) {
        char bytes[4];
        int n = text_utf8_put(w->chars[i].c, bytes);
        text_edit_put(e, bytes, (size_t)n, bytes_of(e, w->chars[i].stands_for));
    }
    w->n = 0;
}

/* The form leaves `c` alone and joins it to nothing before it. */
static bool is_stable(uint32_t c, bool compose)
{
    if (compose)
        return c < 0x300 ||
               !text_in_ranges(text_nfc_slow, text_nfc_slow_count, c);
    return c < 0xC0 || (combining_class(c) == 0 && !find_decomposition(c) &&
                        !(c >= S_BASE && c < S_BASE + S_COUNT));
}

lori_status text_normal_form(text_edit *e, bool compose, lori_error *err)
{
    const unsigned char quick = compose ? 0xCC : 0xC3; /* U+0300, U+00C0 */
    const char *s = e->from.s;
    const size_t n = e->from.n;
    nfc_work w = {0};
    size_t i = 0, before = 0; /* `before`: start of the last character */
    uint32_t c;
    while (i < n) {
        if ((unsigned char)s[i] < quick) {
            before = i;
            i += (unsigned char)s[i] < 0x80 ? 1 : 2;
            continue;
        }
        int step = text_utf8_next(s + i, &c);
        if (is_stable(c, compose)) {
            before = i;
            i += (size_t)step;
            continue;
        }
        /* From the stable character before, if any, to the next one. */
        text_edit_keep(e, before - e->at);
        for (size_t j = before; j < i;) {
            uint32_t d;
            j += (size_t)text_utf8_next(s + j, &d);
            decompose(&w, d);
        }
        do {
            decompose(&w, c);
            i += (size_t)step;
            if (i < n)
                step = text_utf8_next(s + i, &c);
        } while (i < n && !is_stable(c, compose));
        if (w.failed)
            break;
        flush(&w, compose, e);
        before = i;
    }
    bool failed = w.failed;
    if (!failed)
        text_edit_keep(e, n - e->at);
    free(w.chars);
    free(w.spare);
    return failed ? base_no_memory(err, n) : LORI_OK;
}
