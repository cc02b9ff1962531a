/* cpu_compact.h - a weight of bf16 once more, without loss, in three quarters
 * of its bytes and as products of few rows take it. Private to backend/cpu/.
 *
 * Few rows of x take as long as reading W, so fewer bytes are more tokens a
 * second. Of the high bytes of 1,024 neighbouring weights, a sign and all of
 * the exponent but its last bit, 16 or fewer are nearly always different ones;
 * low bytes stay as they are. (That exponents are what can be saved: ZipNN,
 * arXiv:2411.05239; DFloat11, arXiv:2504.11651. Codes of equal length for bytes
 * are ours: one byte shuffle opens them.)
 *
 * W [n, k] is cut into blocks of CPU_COMPACT_SIDE rows and as many columns,
 * those of the same rows one after the other. A block, for pair p of columns
 * 2p and 2p + 1:
 *   list   [16]           high bytes
 *   low    [16 pairs][64] low bytes of 32 rows' two elements
 *   codes  [8][64]        places in the list; pair p of codes p / 2: the low
 *                         four bits of a byte for even p, the high ones for odd
 * An order within 64 bytes that fits how bytes become words in a vector: byte
 * 16 l + b is of row 4 l + b % 8 / 2 + (b < 8 ? 0 : 16), column 2p + b % 2.
 * A block with more high bytes has list[0] = list[1] = 255, its number among
 * such blocks in the next four bytes (native order), and lies elsewhere as
 * CPU_COMPACT_WHOLE: [16 pairs][32 rows][2] bf16. The last row is
 * repeated to fill a block, past the last column are zeros. */
#ifndef CPU_COMPACT_H
#define CPU_COMPACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPU_COMPACT_SIDE  32
#define CPU_COMPACT_BLOCK (16 + 1024 + 512)
#define CPU_COMPACT_WHOLE 2048

struct cpu_backend;

typedef struct cpu_compact {
    uint8_t *blocks;
    uint16_t *whole; /* or NULL */
} cpu_compact;

static inline int64_t cpu_compact_blocks(int64_t n)
{
    return (n + CPU_COMPACT_SIDE - 1) / CPU_COMPACT_SIDE;
}

/* Of w [n, k]. False: no memory, or too little to gain; *out is empty. */
bool cpu_compact_make(const struct cpu_backend *cpu, const uint16_t *w,
                      int64_t n, int64_t k, cpu_compact *out, size_t *bytes);
void cpu_compact_free(cpu_compact *c);

#endif
