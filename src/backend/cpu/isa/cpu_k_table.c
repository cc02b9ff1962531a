/* cpu_k_table.c - the table of one instruction set's kernels. */
#include "backend/cpu/isa/cpu_k.h"

#define TEXT2(x) #x
#define TEXT(x)  TEXT2(x)

const cpu_kernels CPU_NAME(cpu_kernels) = {
    .name = TEXT(CPU_ISA),
    .expand = CPU_NAME(cpu_expand),
    .shrink = CPU_NAME(cpu_shrink),
    .load_rows = CPU_NAME(cpu_load_rows),
    .axpby = CPU_NAME(cpu_axpby),
    .add = CPU_NAME(cpu_add),
    .add_bias = CPU_NAME(cpu_add_bias),
    .rmsnorm = CPU_NAME(cpu_rmsnorm),
    .rmsnorm_bwd = CPU_NAME(cpu_rmsnorm_bwd),
    .rope = CPU_NAME(cpu_rope),
    .swiglu = CPU_NAME(cpu_swiglu),
    .swiglu_bwd = CPU_NAME(cpu_swiglu_bwd),
    .logsum = CPU_NAME(cpu_logsum),
    .xent_grad = CPU_NAME(cpu_xent_grad),
    .argmax = CPU_NAME(cpu_argmax),
    .sqnorm = CPU_NAME(cpu_sqnorm),
    .adamw = CPU_NAME(cpu_adamw),
    .mm = CPU_NAME(cpu_mm),
    .pack = CPU_NAME(cpu_pack),
    .panel = 2 * VL,
    .gemm = CPU_NAME(cpu_gemm),
    .few = CPU_NAME(cpu_few),
    .few_x = CPU_NAME(cpu_few_x),
#if VL > 4
    .few_compact = CPU_NAME(cpu_few_compact),
    .compact_write = CPU_NAME(cpu_compact_write),
    .few_compact_x = CPU_NAME(cpu_few_compact_x),
#endif
    .attn_bytes = CPU_NAME(cpu_attn_bytes),
    .attn = CPU_NAME(cpu_attn),
    .attn_row_bytes = CPU_NAME(cpu_attn_row_bytes),
    .attn_row = CPU_NAME(cpu_attn_row),
    .attn_join = CPU_NAME(cpu_attn_join),
    .attn_grad_bytes = CPU_NAME(cpu_attn_grad_bytes),
    .attn_grad = CPU_NAME(cpu_attn_grad),
};
