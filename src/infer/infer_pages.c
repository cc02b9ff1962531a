/* infer_pages.c - the tree of pages: who holds which, and which prefixes are
 * there. Owns no keys and values, only the books about them.
 *
 * A holder of a page holds its parents, too, and gives them back after it. So
 * among pages that nobody holds a child is always older than its parent: the
 * oldest has no children and can be taken for something else. */
#include "infer/infer_i.h"

#include <stdlib.h>

int32_t infer_pages_root(const infer_pages *p)
{
    return (int32_t)p->n;
}

/* ---- the list of pages that nobody holds -------------------------------- */

static void list_remove(infer_pages *p, int32_t i)
{
    infer_page *page = &p->at[i];
    if (page->older >= 0)
        p->at[page->older].newer = page->newer;
    else
        p->oldest = page->newer;
    if (page->newer >= 0)
        p->at[page->newer].older = page->older;
    else
        p->newest = page->older;
    page->older = page->newer = -1;
    p->n_free--;
}

/* Behind `older` (-1: as the oldest). */
static void list_insert(infer_pages *p, int32_t i, int32_t older)
{
    infer_page *page = &p->at[i];
    page->older = older;
    page->newer = older >= 0 ? p->at[older].newer : p->oldest;
    if (page->newer >= 0)
        p->at[page->newer].older = i;
    else
        p->newest = i;
    if (older >= 0)
        p->at[older].newer = i;
    else
        p->oldest = i;
    p->n_free++;
}

/* ---- the tree ------------------------------------------------------------ */

static void detach(infer_pages *p, int32_t i)
{
    infer_page *page = &p->at[i];
    if (page->parent < 0)
        return;
    if (page->prev >= 0)
        p->at[page->prev].next = page->next;
    else
        p->at[page->parent].child = page->next;
    if (page->next >= 0)
        p->at[page->next].prev = page->prev;
    page->parent = page->next = page->prev = -1;
    page->n = page->ready = 0;
}

static void attach(infer_pages *p, int32_t i, int32_t parent)
{
    infer_page *page = &p->at[i], *above = &p->at[parent];
    page->parent = parent;
    page->next = above->child;
    page->prev = -1;
    if (above->child >= 0)
        p->at[above->child].prev = i;
    above->child = i;
}

lori_status infer_pages_init(infer_pages *p, int64_t n, lori_error *err)
{
    *p = (infer_pages){.n = n, .oldest = -1, .newest = -1};
    p->at = base_alloc((size_t)n + 1, sizeof *p->at);
    p->tokens = base_alloc((size_t)n * INFER_PAGE, sizeof *p->tokens);
    if (!p->at || !p->tokens)
        return base_no_memory(err, (size_t)n * sizeof *p->at);
    for (int32_t i = 0; i <= n; i++) {
        infer_page *page = &p->at[i];
        page->parent = page->child = page->next = page->prev = -1;
        page->older = page->newer = -1;
        if (i < n)
            list_insert(p, i, p->newest);
    }
    return LORI_OK;
}

void infer_pages_fini(infer_pages *p)
{
    free(p->at);
    free(p->tokens);
    *p = (infer_pages){0};
}

int32_t infer_pages_find(const infer_pages *p, int32_t parent, uint64_t key,
                         const int32_t *tokens, int64_t n, bool ready,
                         int *same)
{
    int32_t best = -1;
    *same = 0;
    for (int32_t i = p->at[parent].child; i >= 0; i = p->at[i].next) {
        const infer_page *page = &p->at[i];
        const int32_t *have = p->tokens + (size_t)i * INFER_PAGE;
        int most = ready ? page->ready : page->n, k = 0;
        if (page->key != key)
            continue;
        while (k < most && k < n && have[k] == tokens[k])
            k++;
        if (k > *same) {
            *same = k;
            best = i;
        }
    }
    return best;
}

void infer_pages_hold(infer_pages *p, int32_t i)
{
    if (p->at[i].holders++ == 0)
        list_remove(p, i);
}

int32_t infer_pages_take(infer_pages *p, int32_t parent, uint64_t key)
{
    int32_t i = p->oldest;
    list_remove(p, i);
    detach(p, i);
    attach(p, i, parent);
    p->at[i].holders = 1;
    p->at[i].key = key;
    return i;
}

void infer_pages_add(infer_pages *p, int32_t i, const int32_t *tokens, int n)
{
    memcpy(p->tokens + (size_t)i * INFER_PAGE + p->at[i].n, tokens,
           (size_t)n * sizeof *tokens);
    p->at[i].n += n;
}

void infer_pages_drop(infer_pages *p, int32_t i)
{
    infer_page *page = &p->at[i];
    if (--page->holders > 0)
        return;
    page->n = page->ready;
    if (page->n == 0) /* nothing in it: the first to be taken again */
        detach(p, i);
    list_insert(p, i, page->n == 0 ? -1 : p->newest);
}
