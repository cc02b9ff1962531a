/* a1_vectors.h - test vectors of A, version 1. Made by
 * tests/golden/make_a1.py; do not edit. */
#ifndef A1_VECTORS_H
#define A1_VECTORS_H

#include <stdint.h>

/* clang-format off */
static const struct a1_small {
    uint64_t seed;
    const char *path;
    int rank, in;
    uint16_t bits[32]; /* bf16, row-major */
} a1_small[] = {
    {0ULL, "model.layers.0.self_attn.q_proj", 2, 8,
     {0xbeaf, 0x3dc3, 0x3e33, 0xbe97, 0x3df4, 0x3e4e, 0x3d7c, 0xbd3b,
      0xbd78, 0xbc28, 0xbe78, 0x3d3e, 0xbe3f, 0x3d3a, 0xbdb4, 0x3e87}},
    {1ULL, "model.layers.0.self_attn.q_proj", 3, 7,
     {0xbd3d, 0xbe7e, 0x3e4d, 0xbe69, 0x3d8b, 0xbdab, 0xbe16, 0xbdfb,
      0xbe5e, 0xbe6b, 0x3ebd, 0xbdcc, 0xbe94, 0xbd4d, 0xbe5b, 0xbe72,
      0xbc93, 0x3e1f, 0xbeb0, 0x3d5d, 0x3e94}},
    {42ULL, "model.layers.31.mlp.down_proj", 2, 5,
     {0xbd0f, 0x3ebc, 0x3ec5, 0xbcb2, 0xbe77, 0xbed9, 0x3aa3, 0xbec2,
      0xbece, 0xbeb6}},
    {1311768467463790320ULL, "model.layers.12.self_attn.q_proj", 4, 6,
     {0x3e89, 0xbeb4, 0xbea0, 0x3e6e, 0x3eb7, 0x3e00, 0x3e33, 0xbe9b,
      0xbea2, 0x3d57, 0x3dcf, 0xbe84, 0xbe18, 0x3dfb, 0x3e5e, 0xbdab,
      0x3e4d, 0x3e7e, 0xbe71, 0x3d5e, 0xbecc, 0xbecc, 0x3eb7, 0xbe39}},
    {18446744073709551615ULL, "model.layers.7.mlp.gate_proj", 1, 9,
     {0x3c78, 0xbdbf, 0xbe80, 0x3ea7, 0x3e01, 0xbdfb, 0x3e10, 0xbe12,
      0xbd2c}},
    {4294967296ULL, "model.layers.3.self_attn.k_proj", 3, 1,
     {0x3d0d, 0xbf5a, 0xbeba}},
    {7ULL, "lm_head", 2, 3,
     {0xbd25, 0x3ee7, 0xbe69, 0xbe8f, 0x3eb3, 0x3e4f}},
};

static const struct a1_large {
    uint64_t seed;
    const char *path;
    int rank, in;
    uint64_t fnv1a; /* of the bf16 entries, little-endian */
} a1_large[] = {
    {2504ULL, "model.layers.5.mlp.down_proj", 32, 1536,
     0xf00cdfe0c575a199ULL},
    {16045690981097406465ULL, "model.layers.29.self_attn.o_proj", 16, 577,
     0x38e05865b79dec8fULL},
    {99ULL, "model.layers.0.mlp.up_proj", 64, 250,
     0x58f8e5f5d2facc01ULL},
};
/* clang-format on */

#endif
