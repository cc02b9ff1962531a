/* nfc.c - canonical composition (NFC) with the data of Unicode 9, which is
 * what the tokenizers package uses: characters of later versions are left
 * alone. Linear in the length of the text, also for long runs of marks.
 * Includes base only. Source: UAX #15, Unicode D108-D117, 3.12 (Hangul). */
#include <stdlib.h>

#include "text/unicode_i.h"

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

/* One character being normalized and its combining class. */
typedef struct nfc_char {
    uint32_t c;
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

static void push(nfc_work *w, uint32_t c)
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
    w->chars[w->n++] = (nfc_char){c, combining_class(c)};
}

static void decompose(nfc_work *w, uint32_t c)
{
    /* The second part of a pair never decomposes, the first may (the check of
     * tools/gen_unicode.py would fail otherwise): a stack of seconds. */
    uint32_t later[8];
    int n = 0;
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t i = c - S_BASE, t = i % T_COUNT;
        push(w, L_BASE + i / (V_COUNT * T_COUNT));
        push(w, V_BASE + i % (V_COUNT * T_COUNT) / T_COUNT);
        if (t)
            push(w, T_BASE + t);
        return;
    }
    const text_pair *p;
    while (n < 8 && (p = find_decomposition(c)) != NULL) {
        if (p->b)
            later[n++] = p->b;
        c = p->a;
    }
    push(w, c);
    while (n > 0)
        push(w, later[--n]);
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

static void flush(nfc_work *w, base_str *out)
{
    order_marks(w);
    compose_all(w);
    for (size_t i = 0; i < w->n; i++) {
        char bytes[4];
        int n = text_utf8_put(w->chars[i].c, bytes);
        base_str_add(out, bytes, (size_t)n);
    }
    w->n = 0;
}

/* NFC leaves `c` alone and joins it to nothing before it. */
static bool is_stable(uint32_t c)
{
    return c < 0x300 || !text_in_ranges(text_nfc_slow, text_nfc_slow_count, c);
}

void text_nfc(const char *s, size_t n, base_str *out)
{
    nfc_work w = {0};
    size_t copied = 0, i = 0, before = 0; /* `before`: start of character */
    uint32_t c;
    while (i < n) {
        if ((unsigned char)s[i] < 0xCC) { /* below U+0300: stable */
            before = i;
            i += (unsigned char)s[i] < 0x80 ? 1 : 2;
            continue;
        }
        int step = text_utf8_next(s + i, &c);
        if (is_stable(c)) {
            before = i;
            i += (size_t)step;
            continue;
        }
        /* From the stable character before, if any, to the next one. */
        base_str_add(out, s + copied, before - copied);
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
        } while (i < n && !is_stable(c));
        if (w.failed)
            break;
        flush(&w, out);
        copied = before = i;
    }
    if (w.failed)
        out->failed = true;
    else
        base_str_add(out, s + copied, n - copied);
    free(w.chars);
    free(w.spare);
}
