#!/usr/bin/env python3
"""Writes tests/adapter/a1_vectors.h: test vectors of "A, version 1".

Plain Python integers and floats, no libraries: an implementation of its own,
written from the definition (DESIGN, "A, version 1") and the Philox paper
(Salmon et al. 2011), not from the C source.

    python3 tests/golden/make_a1.py > tests/adapter/a1_vectors.h
"""
import struct

MASK = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK,
             (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


# Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
assert philox([0] * 4, [0] * 2) == [
    0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox([MASK] * 4, [MASK] * 2) == [
    0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
assert philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
              [0xA4093822, 0x299F31D0]) == [
    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def fnv1a(data, h=0xCBF29CE484222325):
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


assert fnv1a(b"") == 0xCBF29CE484222325
assert fnv1a(b"foobar") == 0x85944171F73967E8


def bf16(x):
    """Bits of x rounded to nearest, ties to even; normal range only."""
    if x == 0:
        return 0
    bits = struct.unpack("<Q", struct.pack("<d", x))[0]
    sign, exponent = bits >> 63, (bits >> 52) & 0x7FF
    mantissa = bits & ((1 << 52) - 1)
    keep, rest, half = mantissa >> 45, mantissa & ((1 << 45) - 1), 1 << 44
    whole = ((exponent - 1023 + 127) << 7) | keep
    if rest > half or (rest == half and keep & 1):
        whole += 1
    assert 0 < exponent - 1023 + 127 < 255
    return sign << 15 | whole


def a1(seed, path, rank, width):
    name = fnv1a(path.encode())
    key = [seed & MASK, seed >> 32]
    out = []
    for i in range(rank):
        for j in range(width):
            word = philox([j // 4, i, name & MASK, name >> 32], key)[j % 4]
            signed = word - (1 << 32) if word >> 31 else word
            out.append(bf16(signed * 2.0 ** -31 / width ** 0.5))
    return out


SMALL = [  # every entry is listed
    (0, "model.layers.0.self_attn.q_proj", 2, 8),
    (1, "model.layers.0.self_attn.q_proj", 3, 7),
    (42, "model.layers.31.mlp.down_proj", 2, 5),
    (0x123456789ABCDEF0, "model.layers.12.self_attn.q_proj", 4, 6),
    (0xFFFFFFFFFFFFFFFF, "model.layers.7.mlp.gate_proj", 1, 9),
    (1 << 32, "model.layers.3.self_attn.k_proj", 3, 1),
    (7, "lm_head", 2, 3),
]
LARGE = [  # FNV-1a of the entries as little-endian bf16
    (2504, "model.layers.5.mlp.down_proj", 32, 1536),
    (0xDEADBEEF00000001, "model.layers.29.self_attn.o_proj", 16, 577),
    (99, "model.layers.0.mlp.up_proj", 64, 250),
]


def main():
    print("/* a1_vectors.h - test vectors of A, version 1. Made by\n"
          " * tests/golden/make_a1.py; do not edit. */")
    print("#ifndef A1_VECTORS_H\n#define A1_VECTORS_H\n\n#include <stdint.h>\n")
    print("/* clang-format off */")
    print("static const struct a1_small {\n    uint64_t seed;\n"
          "    const char *path;\n    int rank, in;\n"
          "    uint16_t bits[32]; /* bf16, row-major */\n} a1_small[] = {")
    for seed, path, rank, width in SMALL:
        values = a1(seed, path, rank, width)
        assert len(values) <= 32
        print(f'    {{{seed}ULL, "{path}", {rank}, {width},\n     {{', end="")
        for i in range(0, len(values), 8):
            end = "," if i + 8 < len(values) else "}},"
            print(("" if i == 0 else "      ") +
                  ", ".join(f"0x{v:04x}" for v in values[i:i + 8]) + end)
    print("};\n")
    print("static const struct a1_large {\n    uint64_t seed;\n"
          "    const char *path;\n    int rank, in;\n"
          "    uint64_t fnv1a; /* of the bf16 entries, little-endian */\n"
          "} a1_large[] = {")
    for seed, path, rank, width in LARGE:
        values = a1(seed, path, rank, width)
        digest = fnv1a(b"".join(struct.pack("<H", v) for v in values))
        print(f'    {{{seed}ULL, "{path}", {rank}, {width},\n'
              f"     0x{digest:016x}ULL}},")
    print("};\n/* clang-format on */\n\n#endif")


main()
