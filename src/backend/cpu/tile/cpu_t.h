/* cpu_t.h - what the files of tile/ offer each other; CPU_NAME gives every
 * function its own name for processors with tiles and for the emulation.
 * Private to tile/. */
#ifndef CPU_T_H
#define CPU_T_H

#include "backend/cpu/tile/cpu_tile.h"
#ifdef CPU_TILE_VECTORS
#include "backend/cpu/tile/cpu_t_vectors.h"
#endif

void CPU_NAME(cpu_tile_pack_a)(uint16_t *panel, const uint16_t *rows,
                               int64_t ld, int64_t n_rows, int64_t k);
void CPU_NAME(cpu_tile_pack_b)(const cpu_tile_b *b);
void CPU_NAME(cpu_tile_gemm)(const cpu_tile_block *g);
int64_t CPU_NAME(cpu_tile_few_x)(uint16_t *to, const uint16_t *x, int64_t ldx,
                                 int64_t m, int64_t k, bool compact);
void CPU_NAME(cpu_tile_few)(const cpu_few *f);
void CPU_NAME(cpu_tile_few_compact)(const cpu_few *f);
void CPU_NAME(cpu_tile_turn)(uint16_t *panel, const uint16_t *y, int64_t ldy,
                             int64_t rows, int64_t block, int64_t q);
void CPU_NAME(cpu_tile_sum)(const cpu_tile_sum *s);
int64_t CPU_NAME(cpu_attn_bytes)(int head_dim);
void CPU_NAME(cpu_attn)(const cpu_attn_task *t, void *scratch);
int64_t CPU_NAME(cpu_attn_grad_bytes)(int head_dim, int64_t max_len);
void CPU_NAME(cpu_attn_grad)(const cpu_attn_grad *t, void *scratch);

#endif
