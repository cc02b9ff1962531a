/* random.c - counter-based random numbers. The only file that sees Random123.
 * Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC11). */
#include "base/base.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include <Random123/philox.h>
#pragma GCC diagnostic pop

void base_philox(const uint32_t counter[4], const uint32_t key[2],
                 uint32_t out[4])
{
    philox4x32_ctr_t c = {{counter[0], counter[1], counter[2], counter[3]}};
    philox4x32_key_t k = {{key[0], key[1]}};
    philox4x32_ctr_t r = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

/* Words 0 and 1 of the counter count blocks, words 2 and 3 are the stream. */
void base_rng_start(base_rng *rng, uint64_t seed, uint64_t stream)
{
    *rng = (base_rng){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, 0, (uint32_t)stream, (uint32_t)(stream >> 32)},
    };
}

uint32_t base_rng_u32(base_rng *rng)
{
    if (rng->left == 0) {
        base_philox(rng->counter, rng->key, rng->buffer);
        if (++rng->counter[0] == 0)
            rng->counter[1]++;
        rng->left = 4;
    }
    return rng->buffer[4 - rng->left--];
}

static uint64_t next_u64(base_rng *rng)
{
    uint64_t low = base_rng_u32(rng);
    return low | (uint64_t)base_rng_u32(rng) << 32;
}

double base_rng_uniform(base_rng *rng)
{
    return (double)(next_u64(rng) >> 11) * 0x1p-53;
}

uint64_t base_rng_below(base_rng *rng, uint64_t n)
{
    if (n < 2)
        return 0;
    /* 2^64 mod n values at the low end would favour small results. */
    uint64_t reject = (0 - n) % n;
    uint64_t x;
    do
        x = next_u64(rng);
    while (x < reject);
    return x % n;
}

void base_rng_shuffle(base_rng *rng, int64_t *order, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)base_rng_below(rng, (uint64_t)i + 1);
        int64_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}
