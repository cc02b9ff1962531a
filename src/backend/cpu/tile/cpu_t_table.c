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
};
