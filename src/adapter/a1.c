/* a1.c - A, version 1: the frozen random projection from a seed. This is the
 * one definition; files, ranks and backends agree with it bit for bit. */
#include "adapter/adapter_i.h"

#include <math.h>

/* Rows below this many entries are not worth waking threads for. */
#define PARALLEL_ENTRIES 65536

void adapter_a1(uint64_t seed, const char *path, int64_t rank, int64_t in,
                float *A)
{
    uint64_t name = base_fnv1a(BASE_FNV_START, path, strlen(path));
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    double root = sqrt((double)in);
    /* Every word has its own counter, so threads cannot change a bit. */
#pragma omp parallel for schedule(static) if (rank * in >= PARALLEL_ENTRIES)
    for (int64_t i = 0; i < rank; i++) {
        float *row = A + i * in;
        uint32_t counter[4] = {0, (uint32_t)i, (uint32_t)name,
                               (uint32_t)(name >> 32)};
        for (int64_t j = 0; j < in; j += 4) {
            uint32_t word[4];
            counter[0] = (uint32_t)(j / 4);
            base_philox(counter, key, word);
            for (int64_t k = 0; k < 4 && j + k < in; k++) {
                double u = (double)(int32_t)word[k] * 0x1p-31 / root;
                row[j + k] = base_bf16_to_f32(base_f64_to_bf16(u));
            }
        }
    }
}

void adapter_init_a(adapter *ad, uint64_t seed)
{
    for (int64_t i = 0; i < ad->n_sites; i++) {
        adapter_site *s = &ad->sites[i];
        adapter_a1(seed, s->path, s->rank, s->in, s->A);
    }
    ad->origin = (adapter_origin){.has_seed = true, .seed = seed, .version = 1};
}

uint64_t adapter_seed_from_name(const char *name)
{
    return base_fnv1a(BASE_FNV_START, name, strlen(name));
}
