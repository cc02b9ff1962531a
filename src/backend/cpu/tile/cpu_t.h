/* cpu_t.h - what the files of tile/ offer each other; CPU_NAME gives every
 * function its own name for processors with tiles and for the emulation.
 * Private to tile/. */
#ifndef CPU_T_H
#define CPU_T_H

#include "backend/cpu/tile/cpu_tile.h"

#endif
