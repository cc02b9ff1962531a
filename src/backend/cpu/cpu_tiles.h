/* cpu_tiles.h - the table of kernels on tiles of bf16 (AMX). Private to
 * backend/cpu/; see tile/cpu_tile.h for the layouts. Kernels are
 * single-threaded, allocate nothing and keep no state but the tiles, which
 * start() gives the calling thread and stop() takes back. */
#ifndef CPU_TILES_H
#define CPU_TILES_H

#include "backend/cpu/cpu_kernels.h"

typedef struct cpu_tile_kernels {
    void (*start)(void);
    void (*stop)(void);
} cpu_tile_kernels;

extern const cpu_tile_kernels cpu_tile_kernels_amx, cpu_tile_kernels_emulated;

#endif
