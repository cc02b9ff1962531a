/* cpu_k.h - what the files of isa/ offer each other within one instruction
 * set; CPU_NAME gives every function its own name per set. Private to isa/. */
#ifndef CPU_K_H
#define CPU_K_H

#include "backend/cpu/isa/cpu_vec.h"

void CPU_NAME(cpu_expand)(float *dst, const uint16_t *src, int64_t n);
void CPU_NAME(cpu_shrink)(uint16_t *dst, const float *src, int64_t n);
void CPU_NAME(cpu_load_rows)(float *dst, int64_t ldd, const void *src,
                             int64_t lds, int64_t rows, int64_t n, bool bf);
void CPU_NAME(cpu_axpby)(void *y, const float *x, float alpha, float beta,
                         int64_t n, bool bf);
void CPU_NAME(cpu_add)(float *dst, const void *src, int64_t n, bool bf);
void CPU_NAME(cpu_add_bias)(void *y, const float *b, int64_t n, bool bf);
float CPU_NAME(cpu_rmsnorm)(void *y, const void *x, const float *w, double eps,
                            int64_t d, bool bf);
void CPU_NAME(cpu_rmsnorm_bwd)(float *dx, const float *dy, const void *x,
                               const float *w, float rstd, int64_t d, bool bf,
                               void *copy);
void CPU_NAME(cpu_rope)(void *x, const float *cos, const float *sin,
                        int64_t heads, int64_t head_dim, bool inverse, bool bf);
void CPU_NAME(cpu_swiglu)(void *a, const void *g, const void *u, int64_t n,
                          bool bf);
void CPU_NAME(cpu_swiglu_bwd)(void *g, void *u, const void *da, int64_t n,
                              bool bf);
double CPU_NAME(cpu_logsum)(const float *x, int64_t n, float *max);
void CPU_NAME(cpu_xent_grad)(void *d, const float *x, float lse, float weight,
                             int64_t target, int64_t n, bool bf);
int64_t CPU_NAME(cpu_argmax)(const float *x, int64_t n);
double CPU_NAME(cpu_sqnorm)(const float *x, int64_t n);
void CPU_NAME(cpu_adamw)(float *p, const float *g, float *m, float *v,
                         int64_t n, const cpu_adamw_step *s);
void CPU_NAME(cpu_mm)(int64_t m, int64_t n, int64_t k, const float *a,
                      int64_t ars, int64_t aks, const float *b, int64_t ldb,
                      float *c, int64_t ldc, bool add);
void CPU_NAME(cpu_pack)(float *panels, const void *b, int64_t ldb,
                        bool b_rows_n, int64_t n, int64_t k, bool bf);
void CPU_NAME(cpu_gemm)(const cpu_gemm_block *g);
void CPU_NAME(cpu_few)(const cpu_few *f);
void CPU_NAME(cpu_few_x)(float *dst, const void *x, int64_t ldx, int64_t m,
                         int64_t k, bool bf);
bool CPU_NAME(cpu_compact_write)(uint8_t *block, const uint16_t *w, int64_t ld,
                                 int64_t n);
void CPU_NAME(cpu_few_compact)(const cpu_few *f);
void CPU_NAME(cpu_few_compact_x)(float *dst, const void *x, int64_t ldx,
                                 int64_t m, int64_t k, bool bf);
int64_t CPU_NAME(cpu_attn_bytes)(int head_dim);
void CPU_NAME(cpu_attn)(const cpu_attn_task *t, void *scratch);
int64_t CPU_NAME(cpu_attn_row_bytes)(int head_dim);
void CPU_NAME(cpu_attn_row)(const cpu_attn_task *t, void *scratch);
void CPU_NAME(cpu_attn_join)(const cpu_attn_task *t, int64_t n, void *scratch);
int64_t CPU_NAME(cpu_attn_grad_bytes)(int head_dim, int64_t max_len);
void CPU_NAME(cpu_attn_grad)(const cpu_attn_grad *t, void *scratch);

#endif
