/* cpu_t_table.c - the table of the kernels on tiles. */
#include "backend/cpu/tile/cpu_t.h"

static void start(void)
{
    tile_start();
}

static void stop(void)
{
    tile_stop();
}

const cpu_tile_kernels CPU_NAME(cpu_tile_kernels) = {
    .start = start,
    .stop = stop,
    .pack_a = CPU_NAME(cpu_tile_pack_a),
    .pack_b = CPU_NAME(cpu_tile_pack_b),
    .gemm = CPU_NAME(cpu_tile_gemm),
    .few_x = CPU_NAME(cpu_tile_few_x),
    .few = CPU_NAME(cpu_tile_few),
    .few_compact = CPU_NAME(cpu_tile_few_compact),
    .turn = CPU_NAME(cpu_tile_turn),
    .sum = CPU_NAME(cpu_tile_sum),
    .attn_bytes = CPU_NAME(cpu_attn_bytes),
    .attn = CPU_NAME(cpu_attn),
    .attn_grad_bytes = CPU_NAME(cpu_attn_grad_bytes),
    .attn_grad = CPU_NAME(cpu_attn_grad),
};
