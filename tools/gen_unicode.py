#!/usr/bin/env python3
"""Writes the Unicode tables of src/text from what `tokenizers` does.

usage: python3 tools/gen_unicode.py nfc > src/text/nfc_tables.c
       python3 tools/gen_unicode.py class > src/text/class_tables.c
       python3 tools/gen_unicode.py python > src/text/python_tables.c

Three Unicode versions live in the tokenizer stack that lori must equal
(normalization 9.0, regex \\w and char::is_numeric of the compiler's release),
and none of them is the one of the C library, PCRE2 or utf8proc at hand. So
every code point is tried in the package itself:
  - canonical decomposition and composition: normalizers.NFD and NFC;
  - combining classes: the order NFD gives two marks, numbers from unicodedata
    (a class never changes once assigned);
  - \\w: a single_word added token beside the code point;
  - char::is_numeric: pre_tokenizers.Digits;
  - punctuation (an older table): pre_tokenizers.Punctuation.
The result is checked against NFC on random strings before it is written.
Chat templates are run by Python, whose str has a fourth version; those tables
are asked of the Python that runs this script (3.11: Unicode 14).
Developer tool; needs the Python package `tokenizers`.
"""
import random
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

NFC = normalizers.NFC()
NFD = normalizers.NFD()
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
S_BASE, S_COUNT = 0xAC00, 11172


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def hangul(c):
    return S_BASE <= c < S_BASE + S_COUNT


def combining_classes():
    """c is a non-starter iff U+0345 (240) before it or U+0334 (1) after it
    changes places with it; a starter never moves."""
    out = {}
    for c in SCALARS:
        s = chr(c)
        if NFD.normalize_str(s) != s:
            continue
        moves = (NFD.normalize_str("\u0345" + s) != "\u0345" + s
                 or NFD.normalize_str(s + "\u0334") != s + "\u0334")
        if moves:
            out[c] = unicodedata.combining(s)
            assert out[c], hex(c)
    return out


def decompositions():
    """One step: code point -> 1 or 2 code points, for those that the package
    decomposes. The recursive expansion must be the package's NFD."""
    step = {}
    for c in SCALARS:
        if hangul(c) or NFD.normalize_str(chr(c)) == chr(c):
            continue
        parts = unicodedata.decomposition(chr(c)).split()
        assert parts and not parts[0].startswith("<") and len(parts) <= 2
        step[c] = [int(p, 16) for p in parts]

    def expand(c):
        return "".join(expand(p) for p in step[c]) if c in step else chr(c)

    for c in step:
        assert expand(c) == NFD.normalize_str(chr(c)), hex(c)
        assert len(step[c]) == 1 or step[c][1] not in step, hex(c)
    return step


def word_chars():
    tok = Tokenizer(models.BPE())
    tok.add_tokens([AddedToken("\ue000", single_word=True, normalized=False)])
    return [c for c in SCALARS
            if c != 0xE000 and not tok.encode(chr(c) + "\ue000").ids]


def numeric_chars():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return [c for c in SCALARS
            if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3]


def punctuation_chars():
    marks = pre_tokenizers.Punctuation("isolated")
    return [c for c in SCALARS
            if len(marks.pre_tokenize_str("a" + chr(c) + "a")) == 3]


def check_spaces():
    tok = Tokenizer(models.BPE())
    tok.add_tokens([AddedToken("\ue000", lstrip=True, normalized=False)])
    spaces = [c for c in SCALARS
              if tok.encode(chr(c) + "\ue000").offsets[-1][0] == 0]
    assert ranges(spaces) == [
        [0x9, 0xD], [0x20, 0x20], [0x85, 0x85], [0xA0, 0xA0],
        [0x1680, 0x1680], [0x2000, 0x200A], [0x2028, 0x2029],
        [0x202F, 0x202F], [0x205F, 0x205F], [0x3000, 0x3000]], ranges(spaces)


def check_model(ccc, step, compose, slow, rng):
    """The algorithm that normalizer.c runs, over these tables."""
    def full(c):
        if hangul(c):
            i = c - S_BASE
            t = [0x11A7 + i % 28] if i % 28 else []
            return [0x1100 + i // 588, 0x1161 + i % 588 // 28] + t
        if c in step:
            return [x for p in step[c] for x in full(p)]
        return [c]

    def pair(a, b):
        if 0x1100 <= a < 0x1113 and 0x1161 <= b < 0x1176:
            return S_BASE + ((a - 0x1100) * 21 + b - 0x1161) * 28
        if hangul(a) and (a - S_BASE) % 28 == 0 and 0x11A8 <= b < 0x11C3:
            return a + b - 0x11A7
        return compose.get((a, b))

    def segment(s):
        d = [x for c in s for x in full(c)]
        i = 0
        while i < len(d):
            j = i
            while j < len(d) and d[j] in ccc:
                j += 1
            d[i:j] = sorted(d[i:j], key=lambda c: ccc[c])
            i = j + 1
        out, starter, last = [], -1, 0
        for c in d:
            k = ccc.get(c, 0)
            adjacent = starter == len(out) - 1
            if starter >= 0 and (adjacent or last < k):
                p = pair(out[starter], c)
                if p is not None:
                    out[starter] = p
                    continue
            if k == 0:
                starter = len(out)
            last = k
            out.append(c)
        return out

    def nfc(s):
        out, i = [], 0
        while i < len(s):
            j = i + 1
            while j < len(s) and s[j] in slow:
                j += 1
            out += segment(s[i:j])
            i = j
        return "".join(map(chr, out))

    pool = sorted(slow | set(step) | {p for v in compose for p in v}
                  | set(range(0x1100, 0x1200))
                  | {0x41, 0x61, 0x20, 0xAC00, 0xAC01, 0x11935, 0x11930})
    for _ in range(200000):
        s = [rng.choice(pool) for _ in range(rng.randint(1, 8))]
        text = "".join(map(chr, s))
        assert nfc(s) == NFC.normalize_str(text), [hex(c) for c in s]


def emit(name, what, ctype, rows, per_line):
    print(f"\n/* {what} */")
    print(f"const {ctype} {name}[] = {{")
    for i in range(0, len(rows), per_line):
        print("    " + ", ".join(rows[i:i + per_line]) + ",")
    print("};")
    print(f"const size_t {name}_count = {len(rows)};")


def pair_rows(points):
    return [f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges(points)]


def head(name, source=None, header="unicode_i.h"):
    source = source or ("the tokenizers package's",
                        f"tokenizers {tokenizers.__version__}")
    print(f"/* {name} - Unicode data that must equal {source[0]},")
    print(f" * made by tools/gen_unicode.py from {source[1]}. Do not edit.")
    print(" * Includes only the room's own header. */")
    print("// clang-format off")
    print(f'#include "text/{header}"')


def write_nfc():
    ccc = combining_classes()
    step = decompositions()
    compose = {}
    for c, parts in step.items():
        if len(parts) == 2 and NFC.normalize_str(chr(c)) == chr(c):
            compose[tuple(parts)] = c
    slow = set(ccc) | {b for _, b in compose}
    slow |= {c for c in step if NFC.normalize_str(chr(c)) != chr(c)}
    slow |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    check_model(ccc, step, compose, slow, random.Random(9))

    head("nfc_tables.c")
    by_class = []
    for a, b in ranges(ccc):
        c = a
        while c <= b:
            e = c
            while e < b and ccc[e + 1] == ccc[c]:
                e += 1
            by_class.append(f"{{0x{c:X}, 0x{e:X}, {ccc[c]}}}")
            c = e + 1
    emit("text_ccc", "Combining classes that are not 0, Unicode 9.",
         "text_class_range", by_class, 4)
    order = sorted(step)
    rows = []
    for c in order:
        a, b = (step[c] + [0])[:2]
        rows.append(f"{{0x{c:X}, 0x{a:X}, 0x{b:X}}}" if b
                    else f"{{0x{c:X}, 0x{a:X}, 0}}")
    emit("text_decomposition",
         "Canonical decomposition, one step, Unicode 9; Hangul apart.",
         "text_pair", rows, 4)
    index = {c: i for i, c in enumerate(order)}
    emit("text_composition",
         "Rows of text_decomposition that compose, by their two parts.",
         "uint16_t", [str(index[compose[p]]) for p in sorted(compose)], 14)
    emit("text_nfc_slow",
         "Code points that NFC may change or join to what is before them.",
         "text_range", pair_rows(slow), 4)


def write_class():
    check_spaces()
    head("class_tables.c")
    emit("text_word", "\\w of the Rust regex crate.", "text_range",
         pair_rows(word_chars()), 4)
    emit("text_numeric", "char::is_numeric of the Rust standard library.",
         "text_range", pair_rows(numeric_chars()), 4)
    emit("text_punctuation", "What pre_tokenizers.Punctuation splits at.",
         "text_range", pair_rows(punctuation_chars()), 4)


def case_tables():
    """(ranges, specials): one-to-one mappings as (first, last, upper, lower),
    and the characters whose case is longer or has a title form."""
    rows, specials = [], []
    for c in SCALARS:
        s = chr(c)
        upper, lower, title = s.upper(), s.lower(), s.title()
        if (len(upper), len(lower), len(title)) != (1, 1, 1) or title != upper:
            specials.append((c, upper, lower, title))
            continue
        delta = ord(upper) - c, ord(lower) - c
        if delta == (0, 0):
            continue
        if rows and rows[-1][1:] == (c - 1, *delta):
            rows[-1] = (rows[-1][0], c, *delta)
        else:
            rows.append((c, c, *delta))
    return rows, specials


def check_case(rows, specials):
    simple = {c: (up, low) for first, last, up, low in rows
              for c in range(first, last + 1)}
    special = {row[0]: row[1:] for row in specials}
    for c in SCALARS:
        up, low = simple.get(c, (0, 0))
        want = special.get(c, (chr(c + up), chr(c + low), chr(c + up)))
        s = chr(c)
        assert want == (s.upper(), s.lower(), s.title()), hex(c)


def utf8(s):
    return '"' + "".join(f"\\x{b:02X}" for b in s.encode()) + '"'


def write_python():
    """A final sigma tells which characters are cased or case-ignorable."""
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    head("python_tables.c", ("Python's str", f"{version}, Unicode "
                             f"{unicodedata.unidata_version}"), "jinja_i.h")
    rows, specials = case_tables()
    check_case(rows, specials)
    emit("text_case", "Letter case, by difference.", "text_case_range",
         [f"{{0x{a:X}, 0x{b:X}, {up}, {low}}}"
          for a, b, up, low in rows], 5)
    emit("text_case_specials", "Upper, lower and title case that is longer "
         "than one character, or title case of its own.", "text_case_special",
         [f"{{0x{c:X}, {utf8(up)}, {utf8(low)}, {utf8(title)}}}"
          for c, up, low, title in specials], 2)
    final = "\u03c2"
    ignorable = [c for c in SCALARS
                 if ("A" + chr(c) + "\u03a3").lower().endswith(final)
                 and ("A\u03a3" + chr(c) + "A").lower()[1] != final
                 and ("A" + "\u03a3" + chr(c)).lower()[1] == final]
    known = set(ignorable)
    cased = [c for c in SCALARS if c not in known
             and (chr(c) + "\u03a3").lower().endswith(final)]
    tables = [
        ("text_cased", "Cased characters.", cased),
        ("text_case_ignorable", "Case-ignorable characters.", ignorable),
        ("text_digit", "str.isdigit.",
         [c for c in SCALARS if chr(c).isdigit()]),
        ("text_alphabetic", "str.isalpha.",
         [c for c in SCALARS if chr(c).isalpha()]),
        ("text_unprintable", "Characters that repr writes as an escape.",
         [c for c in SCALARS if not chr(c).isprintable()])]
    for name, what, points in tables:
        emit(name, what, "text_range", pair_rows(points), 6)


def main():
    which = {"nfc": write_nfc, "class": write_class, "python": write_python}.get("".join(sys.argv[1:]))
    if which is None:
        sys.exit(__doc__)
    which()


if __name__ == "__main__":
    main()
