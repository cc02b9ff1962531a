/* keep.c - which entries of every B a LoRI-S run trains: the largest |B| over
 * the whole model. Owns the selection; keep_folder.c owns the files. */
#include "adapter/adapter_i.h"

#include <stdlib.h>

/* A float's bits without the sign order as its magnitude does. They are
 * counted by their upper 16 bits, then, inside the one bin that holds the
 * threshold, by their lower 15: exact, and two sweeps instead of a sort. */
#define HIGH_BITS 16
#define LOW_BITS  15
#define INF_BITS  0x7f800000U

static inline uint32_t magnitude(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u & 0x7fffffffU;
}

int64_t adapter_keep_count(int64_t n, double sparsity)
{
    double k = (1 - sparsity) * (double)n;
    if (!(k > 0))
        return 0;
    return k < (double)n ? (int64_t)k : n;
}

/* The bin where the k-th largest falls; *above counts those in higher bins. */
static int64_t find_bin(const int64_t *count, int64_t bins, int64_t k,
                        int64_t *above)
{
    int64_t bin = bins - 1;
    while (bin > 0 && *above + count[bin] < k)
        *above += count[bin--];
    return bin;
}

/* The k-th largest magnitude and how many entries exceed it. */
static lori_status find_threshold(const adapter *ad, int64_t k,
                                  uint32_t *threshold, int64_t *above,
                                  lori_error *err)
{
    size_t bins = (size_t)1 << HIGH_BITS;
    int64_t *count = base_alloc(bins, sizeof *count);
    if (!count)
        return base_no_memory(err, bins * sizeof *count);
    lori_status st = LORI_OK;
    for (int64_t s = 0; st == LORI_OK && s < ad->n_sites; s++) {
        const adapter_site *site = &ad->sites[s];
        uint32_t largest = 0;
        for (int64_t i = 0; i < site->out * site->rank; i++) {
            uint32_t u = magnitude(site->B[i]);
            largest = u > largest ? u : largest;
            count[u >> LOW_BITS]++;
        }
        if (largest >= INF_BITS)
            st = base_fail(err, LORI_NUMERIC,
                           "B of '%s' holds NaN or infinity: its training "
                           "diverged",
                           site->path);
    }
    *above = 0;
    uint32_t high = (uint32_t)find_bin(count, (int64_t)bins, k, above);
    memset(count, 0, bins * sizeof *count);
    for (int64_t s = 0; st == LORI_OK && s < ad->n_sites; s++) {
        const adapter_site *site = &ad->sites[s];
        for (int64_t i = 0; i < site->out * site->rank; i++) {
            uint32_t u = magnitude(site->B[i]);
            if (u >> LOW_BITS == high)
                count[u & ((1U << LOW_BITS) - 1)]++;
        }
    }
    uint32_t low = (uint32_t)find_bin(count, 1 << LOW_BITS, k, above);
    *threshold = high << LOW_BITS | low;
    free(count);
    return st;
}

/* Every entry above the threshold, and the first *ties of those equal to it. */
static void mark_site(const adapter_site *site, uint32_t threshold,
                      int64_t *ties, adapter_keep_site *out)
{
    int64_t words = adapter_keep_words(site->rank);
    for (int64_t i = 0; i < site->out; i++)
        for (int64_t j = 0; j < site->rank; j++) {
            uint32_t u = magnitude(site->B[i * site->rank + j]);
            if (u < threshold || (u == threshold && *ties == 0))
                continue;
            *ties -= u == threshold;
            out->bits[i * words + j / 32] |= 1U << (j % 32);
            out->kept++;
        }
}

/* An empty mask with the adapter's shape and origin. */
static lori_status new_keep(const adapter *ad, adapter_keep *keep,
                            lori_error *err)
{
    keep->sites = base_alloc((size_t)ad->n_sites, sizeof *keep->sites);
    if (!keep->sites)
        return base_no_memory(err, (size_t)ad->n_sites * sizeof *keep->sites);
    for (int64_t s = 0; s < ad->n_sites; s++) {
        const adapter_site *site = &ad->sites[s];
        adapter_keep_site *k = &keep->sites[keep->n_sites++];
        size_t n = (size_t)(site->out * adapter_keep_words(site->rank));
        *k = (adapter_keep_site){
            .out = site->out, .rank = site->rank, .in = site->in};
        k->path = base_strdup(site->path);
        k->bits = base_alloc(n, sizeof *k->bits);
        if (!k->path || !k->bits)
            return base_no_memory(err, n * sizeof *k->bits);
        keep->total += site->out * site->rank;
    }
    keep->origin = ad->origin;
    if (ad->base_model && !(keep->base_model = base_strdup(ad->base_model)))
        return base_no_memory(err, strlen(ad->base_model));
    return ad->origin.has_seed ? LORI_OK
                               : adapter_copy_a(ad, &keep->a_source, err);
}

static lori_status select_topk(const adapter *ad, double sparsity,
                               adapter_keep *keep, lori_error *err)
{
    int64_t n = adapter_count_b(ad);
    int64_t k = adapter_keep_count(n, sparsity);
    if (k < 1)
        return base_fail(err, LORI_INVALID,
                         "sparsity %g of %lld entries keeps none; use a lower "
                         "sparsity",
                         sparsity, (long long)n);
    uint32_t threshold = 0;
    int64_t above = 0;
    BASE_TRY(find_threshold(ad, k, &threshold, &above, err));
    if (threshold == 0)
        return base_fail(err, LORI_INVALID,
                         "B has fewer than %lld entries that are not zero: "
                         "magnitude cannot choose so many. Take the mask from "
                         "a trained LoRI-D adapter, or use a higher sparsity",
                         (long long)k);
    BASE_TRY(new_keep(ad, keep, err));
    int64_t ties = k - above;
    for (int64_t s = 0; s < ad->n_sites; s++) {
        mark_site(&ad->sites[s], threshold, &ties, &keep->sites[s]);
        keep->kept += keep->sites[s].kept;
    }
    keep->sparsity = sparsity;
    return LORI_OK;
}

lori_status adapter_keep_topk(const adapter *ad, double sparsity,
                              adapter_keep **out, lori_error *err)
{
    *out = NULL;
    if (!(sparsity >= 0 && sparsity < 1))
        return base_fail(err, LORI_INVALID, "sparsity %g is not in [0, 1)",
                         sparsity);
    adapter_keep *keep = base_alloc(1, sizeof *keep);
    if (!keep)
        return base_no_memory(err, sizeof *keep);
    lori_status st = select_topk(ad, sparsity, keep, err);
    if (st != LORI_OK) {
        adapter_keep_free(keep);
        return st;
    }
    *out = keep;
    return LORI_OK;
}

void adapter_keep_free(adapter_keep *keep)
{
    if (!keep)
        return;
    for (int64_t i = 0; i < keep->n_sites; i++) {
        free(keep->sites[i].path);
        free(keep->sites[i].bits);
    }
    free(keep->sites);
    free(keep->base_model);
    adapter_free(keep->a_source);
    free(keep);
}

bool adapter_keep_get(const adapter_keep_site *site, int64_t i, int64_t j)
{
    int64_t words = adapter_keep_words(site->rank);
    return site->bits[i * words + j / 32] >> (j % 32) & 1U;
}
