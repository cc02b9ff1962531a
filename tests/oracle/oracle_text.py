"""Compares the text room with `tokenizers`, string by string,
with tokenizers drawn here; oracle_tokens.py has the real and the known ones.

  mixed    small tokenizers with drawn options: every Split behaviour, Digits,
           prefix spaces, added-token flags, unknown tokens, byte fallback; ids
           with and without special tokens, with special tokens as plain text;
           decoded text with and without special tokens, whole and streamed
  folders  drawn tokenizer_config.json, special_tokens_map.json and
           added_tokens.json, against transformers' PreTrainedTokenizerFast
Needs: probe_text (make build/.../probe_text), the pinned packages.
Only code points of Unicode 14 and before are drawn: PCRE2's tables end there.
"""

import argparse
import json
import os
import pathlib
import random
import secrets
import subprocess
import sys
import sysconfig
import tempfile
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,  # noqa: E402
                        normalizers, pre_tokenizers, processors, trainers)

from common import Checks, ROOT  # noqa: E402

R_L3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
R_QW = R_L3.replace(r"\p{N}{1,3}", r"\p{N}")


# ---- strings ---------------------------------------------------------------

def nasty(special):
    """text.md 5: bare, after "x ", after a special token."""
    rng = random.Random(5)
    base = [
        "", " ", "   ", "   x", "\t\n \r\n  \n", "\n\n\n\n=\n",
        "a \n b  \r\n\r\n  c   ", "\u00a0\u3000\u2003x\u202f",
        "a\u180eb  \u180e", "a\u0085b\u2028c\u2029\u2028d",
        "\u200b\u200d\ufeffx\u00ad", "a\0b\x1f\x7f\x1c",
        "e\u0301 \u0065\u0323\u0302 \u1100\u1161\u11a8 \u212b\u2126",
        "\U00011935\U00011930 \u0915\u093c", "a" + 100 * "\u0301" + "\u0327",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
        "\U0001f469\U0001f3fd\u200d\U0001f4bb\U0001f3f4\U000e0067\U000e0062"
        "\U000e0065\U000e006e\U000e0067\U000e007f\U0001f1fa\U0001f1f8"
        "1\ufe0f\u20e3",
        "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e\u3002"
        "\u300c\u65e5\u672c\u8a9e\u300d\ud55c\uad6d\uc5b4",
        "\u0e44\u0e17\u0e22\u1780\u17b6\u1793\u17cb\u178f\u17c2 "
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628"
        "\u064a\u0629 \u05e9\u05dc\u05d5\u05dd\u202e",
        "it'\u017f IT'S we'Ve 'LL'd \u2019s \u0149", "' 's 'S\n'll",
        "1234567890123 1.5e-10 0x1F \u0663\u0664\u0665 \u00bd\u00b2\u216b\u3007",
        "7" * 500, "\u2581a \u2581\u2581b\u2581 c",
        "\u0120hello \u010a \u0120", "<0x0A><0xE2>",
        "<s>a</s></s> <s> <unk><|endoftext|><|im_start|>system\n<|eot_id|>",
        "  <|end|>  \n x", "<s", "<|im_start", "<|im_<|im_end|>start|>",
        "\ufffd\uffff\U0010ffff\ue000\U000ac517",
        "def f(x):\n\t    return x  # \u00f1\r\n\n\n    ",
        "<p>&nbsp;</p>{\"a\": [1, 2]}\\frac{1}{2}", "\ufb01 \uff21\uff11 \u3314 "
        "\u01c5 \u0130\u0131 \u1e9e", "\x04a\x06\xad", "C\u1eeda Vi\u1ec7t",
        "ied 4 \u00bd months", "3333", "\n =", " Hello world", "\n\n1",
        "total:  48", "a\t\t7", "x\u00b2",
    ]
    out = [s + t for s in ("", "x ", special) for t in base]
    letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz")
                      for _ in range(100000))
    return out + ["a" * 100000, " " * 100000 + "x", letters]


# Blocks whose letters, marks, digits or signs were assigned by Unicode 14.
BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F),
    (0x250, 0x36F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
    (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F),
    (0x980, 0x9FE), (0xE01, 0xE5B), (0xF00, 0xFDA), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1780, 0x17F9), (0x1E00, 0x1EFF), (0x1F00, 0x1FFE),
    (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20BF), (0x20D0, 0x20F0),
    (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF),
    (0x3000, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xF900, 0xFAD9),
    (0xFB00, 0xFB4F), (0xFE00, 0xFE2F), (0xFF01, 0xFFEE), (0x10330, 0x1034A),
    (0x11900, 0x11959), (0x1D15E, 0x1D164), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1F64F), (0x1F900, 0x1F9CB), (0x20000, 0x2A6D6),
    (0x2F800, 0x2FA1D)]


class Draw:
    """Random strings from a seed."""

    def __init__(self, rng, special):
        self.rng = rng
        self.special = special
        self.points = [[c for c in range(a, b + 1)
                        if unicodedata.category(chr(c)) != "Cn"]
                       for a, b in BLOCKS]
        self.any = [c for c in range(0x110000)
                    if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        if tuple(map(int, unicodedata.unidata_version.split("."))) > (14, 0, 0):
            self.any = [c for block in self.points for c in block]
        folder = pathlib.Path(sysconfig.get_paths()["stdlib"])
        names = sorted(folder.glob("*.py"))
        self.code = [path.read_text(encoding="utf-8", errors="ignore")
                     for path in rng.sample(names, 12)]

    def letters(self):
        block = self.rng.choice(self.points)
        return "".join(map(chr, self.rng.choices(block,
                                                 k=self.rng.randint(1, 9))))

    def space(self):
        kinds = " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", \
            "\u2003", "\x0b", "\u0085", "\u180e", "\u2028", "   \n  "
        return "".join(self.rng.choices(kinds, k=self.rng.randint(1, 5)))

    def part(self):
        kind = self.rng.randrange(12)
        if kind < 4:
            return self.letters()
        if kind < 6:
            return self.space()
        if kind == 6:
            return str(self.rng.randrange(10 ** self.rng.randint(1, 15)))
        if kind == 7:
            text = self.rng.choice(self.code)
            at = self.rng.randrange(len(text))
            return text[at:at + self.rng.randint(1, 120)]
        if kind == 8:
            return self.rng.choice(
                ["'s", "'T", "'re", "'VE", "'m", "'LL", "'d", "'", "\u2019s",
                 "'\u017f", "!?", "...", "=>", "//", "\u00b2", "\u216b"])
        if kind == 9:
            return self.rng.choice(self.special)
        if kind == 10:
            return chr(self.rng.choice(self.any))
        return "".join(self.rng.choices("abcdefgh ABCDEFGH", k=6))

    def string(self):
        return "".join(self.part() for _ in range(self.rng.randint(1, 12)))


# ---- our side --------------------------------------------------------------

def ask(probe, path, lines, *flags):
    """Answers of probe_text, in order."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([str(probe), str(path), *flags], input=text,
                          capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(lines):
        raise RuntimeError(f"{probe} {path}: exit {done.returncode}, "
                           f"{len(answers)} answers of {len(lines)}: "
                           + done.stderr[-1000:])
    return answers


def escaped(s):
    s = json.dumps(s)
    return s if len(s) < 300 else s[:300] + "..."


def differences(name, checks, questions, ours, theirs, key):
    """One check; prints the first differences."""
    bad = [i for i, (a, b) in enumerate(zip(ours, theirs))
           if a.get(key) != b]
    for i in bad[:3]:
        print(f"     {escaped(questions[i])}\n       ours "
              f"{escaped(ours[i])}\n       want {escaped(theirs[i])}")
    return checks.true(name, not bad, f"{len(bad)} of {len(ours)} differ")


def compare(name, tok, work, strings, rng, args, checks):
    """All questions about one tokenizer; its file goes to the work folder."""
    path = work / f"{name}.json"
    tok.save(str(path))
    lines = [{"text": s} for s in strings]
    wanted = [tok.encode(s, add_special_tokens=False).ids for s in strings]
    good = differences(f"{name}: ids", checks, strings,
                       ask(args.probe, path, lines), wanted, "ids")
    special = [tok.encode(s, add_special_tokens=True).ids for s in strings]
    good &= differences(f"{name}: ids with special tokens", checks, strings,
                        ask(args.probe, path, lines, "--special"), special,
                        "ids")
    tok.encode_special_tokens = True
    plain = [tok.encode(s, add_special_tokens=False).ids for s in strings]
    tok.encode_special_tokens = False
    good &= differences(f"{name}: ids, special tokens as plain text", checks,
                        strings, ask(args.probe, path, lines, "--plain"),
                        plain, "ids")
    top = tok.get_vocab_size() + 2
    lists = special + [[rng.randrange(top) for _ in range(rng.randint(0, 12))]
                       for _ in range(len(strings) // 4)]
    lines = [{"ids": ids} for ids in lists]
    for skip in (False, True):
        texts = [tok.decode(ids, skip_special_tokens=skip) for ids in lists]
        good &= differences(
            f"{name}: decoded{' without special tokens' if skip else ''}",
            checks, lists,
            ask(args.probe, path, lines, *["--skip"] * skip), texts, "text")
    return good


# ---- tokenizers ------------------------------------------------------------

def smollm2(args):
    from gguf import GGUFReader
    reader = GGUFReader(args.smollm2)
    field = reader.fields["tokenizer.ggml.tokens"]
    tokens = [bytes(field.parts[i]).decode() for i in field.data]
    field = reader.fields["tokenizer.ggml.merges"]
    merges = [tuple(bytes(field.parts[i]).decode().split(" "))
              for i in field.data]
    field = reader.fields["tokenizer.ggml.token_type"]
    types = [int(field.parts[i][0]) for i in field.data]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, kind in zip(tokens, types) if kind == 3])
    return tok


def train(tok, draw, size):
    corpus = draw.code + [draw.string() for _ in range(3000)]
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([
        AddedToken(t, special=True, normalized=False)
        for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return tok


def gpt2(draw):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return train(tok, draw, 6000)


BEHAVIORS = ["isolated", "removed", "contiguous", "merged_with_previous",
             "merged_with_next"]
PATTERNS = [Regex(R_QW), Regex(r"[\r\n]"), Regex(r"\s?\p{L}+"), Regex(r"\s+$"),
            Regex(r"\p{N}+"), Regex(r"^\s*"), Regex(r"[A-Za-z]{2,3}?"),
            Regex(r"(?<=a)b|(?=c)"), Regex(r"[^\S\n]+"), Regex(r"\d|\D{4}"),
            Regex(r"'(?i:[dmt]|ll|ve|re)|\p{Lu}+"), Regex(r"x*"), " ", "ab",
            "\u2581", "."]


def mixed(draw, rng):
    """One small tokenizer with drawn options."""
    parts = []
    for _ in range(rng.randint(0, 3)):
        if rng.random() < 0.25:
            parts.append(pre_tokenizers.Digits(
                individual_digits=rng.random() < 0.5))
        else:
            parts.append(pre_tokenizers.Split(
                rng.choice(PATTERNS), rng.choice(BEHAVIORS),
                invert=rng.random() < 0.3))
    bytes_at = rng.choice(["end", "end", "end", "never", "middle"])
    if bytes_at != "never":
        at = len(parts) if bytes_at == "end" else 0
        parts.insert(at, pre_tokenizers.ByteLevel(
            add_prefix_space=rng.random() < 0.4, use_regex=rng.random() < 0.5))
    corpus = draw.code[:2] + [draw.string() for _ in range(400)]
    fallback = bytes_at == "never" and rng.random() < 0.6
    tok = Tokenizer(models.BPE(
        unk_token="<unk>" if rng.random() < 0.7 else None,
        fuse_unk=rng.random() < 0.5))
    if rng.random() < 0.5:
        tok.normalizer = normalizers.Sequence([normalizers.NFC()])
    if len(parts) == 1:
        tok.pre_tokenizer = parts[0]
    elif parts:
        tok.pre_tokenizer = pre_tokenizers.Sequence(parts)
    special = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256) if b % 7]
                           if fallback else [])
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=700, show_progress=False, limit_alphabet=80,
        special_tokens=special))
    model = json.loads(tok.to_str())
    model["added_tokens"] = []
    model["model"]["byte_fallback"] = fallback
    model["model"]["ignore_merges"] = rng.random() < 0.5
    tok = Tokenizer.from_str(json.dumps(model))
    tok.decoder = rng.choice([
        decoders.ByteLevel(), decoders.Fuse(),
        decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])])
    if rng.random() < 0.2:
        model = json.loads(tok.to_str())
        model["decoder"] = None
        tok = Tokenizer.from_str(json.dumps(model))

    def flag():
        return rng.random() < 0.3

    # normalized=True only with contents that NFC keeps: 0.23 decodes such a
    # token by its normalized form, which lori does not imitate.
    for content in ["<s>", "</s>", "ab", "abc", "a", "  ", "\n", "def",
                    "\u00e9", "<|im_start|>", "return"]:
        if rng.random() < 0.6:
            # A token of spaces with lstrip alone, inside what another's
            # rstrip has eaten, makes the reference panic.
            right = flag()
            left = flag() and (right or not content.isspace())
            token = AddedToken(content, single_word=flag(), lstrip=left,
                               rstrip=right, normalized=flag())
            (tok.add_special_tokens if flag() else tok.add_tokens)([token])
    if rng.random() < 0.5:
        tok.post_processor = processors.TemplateProcessing(
            single=rng.choice(["<unk> $A <unk>", "$A", "$A <unk> $A"]),
            pair="$A $B", special_tokens=[("<unk>", 0)])
    return tok


# ---- folders ---------------------------------------------------------------

def drawn_token(rng, content, bare=0.5, special=True):
    """A token in a config file: its text, or an object with flags."""
    if rng.random() < bare:
        return content
    token = {"content": content, "normalized": rng.random() < 0.3}
    for name in ("single_word", "lstrip", "rstrip"):
        token[name] = rng.random() < 0.2
    if special:
        return {"__type": "AddedToken", **token}
    return {**token, "special": rng.random() < 0.6}


def drawn_folder(folder, tok, rng):
    """A model folder with drawn side files of transformers 4 and 5."""
    tok.save(str(folder / "tokenizer.json"))
    # Added tokens, tokens of the vocabulary, new ones.
    pool = ["<s>", "</s>", "<|im_end|>", "the", "return", "ing", "<new1>",
            "<new2>", "<|x|>", "\u00e9"]
    names = ["bos_token", "eos_token", "unk_token", "pad_token", "cls_token"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    # One form of a token in both files of names: docs/TEXT.md, differences.
    forms = {}

    def named_token():
        content = rng.choice(pool)
        if content not in forms:
            forms[content] = drawn_token(rng, content)
        token = forms[content]
        return dict(token) if isinstance(token, dict) else token

    for name in names:
        if rng.random() < 0.5:
            config[name] = named_token()
        elif rng.random() < 0.3:
            config[name] = None
    if rng.random() < 0.3:
        config["image_token"] = rng.choice(["<image>", "def"])
    if rng.random() < 0.4:
        config["additional_special_tokens"] = [
            drawn_token(rng, t) for t in rng.sample(pool, 2)]
    if rng.random() < 0.5:
        ids = rng.sample(range(900), 4)
        config["added_tokens_decoder"] = {
            str(i): drawn_token(rng, t, 0, False)
            for i, t in zip(ids, rng.sample(pool, 4))}
    if rng.random() < 0.5:
        chosen = {name: named_token() for name in rng.sample(names, 3)}
        for token in chosen.values():
            if isinstance(token, dict):
                del token["__type"]
        (folder / "special_tokens_map.json").write_text(json.dumps(chosen))
    if rng.random() < 0.3:
        (folder / "added_tokens.json").write_text(json.dumps(
            {t: i for t, i in zip(rng.sample(pool, 3),
                                  rng.sample(range(2000, 3000), 3))}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def check_folders(work, rng, draw, args, checks):
    """Against PreTrainedTokenizerFast: ids, decoded text, bos and eos."""
    from transformers import PreTrainedTokenizerFast
    base = gpt2(draw)
    bad, n = [], max(10, args.count // 60)
    for i in range(n):
        folder = work / f"folder-{i}"
        folder.mkdir()
        tok = Tokenizer.from_str(base.to_str())
        tok.add_special_tokens(["<s>", "</s>"])
        tok.add_tokens([AddedToken("return", normalized=False)])
        drawn_folder(folder, tok, rng)
        theirs = PreTrainedTokenizerFast.from_pretrained(str(folder))
        pool = ["<s>", "</s> ", " <|im_end|>", "the ", " returning", "<new1>",
                "<new2> ", "<|x|>", "\u00e9", "<image>", " def ", "a<s>b"]
        strings = ["".join(rng.choices(pool, k=6)) for _ in range(25)]
        lines = [{"info": 1}] + [{"text": s} for s in strings]
        info, *ours = ask(args.probe, folder, lines)
        want = [theirs.encode(s, add_special_tokens=False) for s in strings]
        for s, a, b in zip(strings, ours, want):
            if a.get("ids") != b:
                bad.append((folder, s, a, b))
        texts = [theirs.backend_tokenizer.decode(ids, skip_special_tokens=True)
                 for ids in want]
        for ids, a, b in zip(want, ask(args.probe, folder,
                                       [{"ids": ids} for ids in want],
                                       "--skip"), texts):
            if a.get("text") != b:
                bad.append((folder, ids, a, b))
        named = [-1 if x is None else x
                 for x in (theirs.bos_token_id, theirs.eos_token_id)]
        if [info["bos"], info["eos"]] != named:
            bad.append((folder, "bos, eos", info, named))
    for folder, what, a, b in bad[:3]:
        print(f"     {escaped(what)}\n       ours {escaped(a)}\n       want "
              f"{escaped(b)}")
        for path in sorted(folder.glob("*_*.json")) + \
                sorted(folder.glob("added*.json")):
            print(f"       {path.name}: {path.read_text()[:1500]}")
    checks.true("folders: against PreTrainedTokenizerFast", not bad,
                f"{len(bad)} differences, {n} folders")


# ---- all -------------------------------------------------------------------

def parse():
    build = os.environ.get("LORI_BUILD", str(ROOT / "build" / "gcc-release"))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default=build, help="folder of probe_text")
    p.add_argument("--probe", default=None, help="the probe itself")
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--count", type=int, default=5000,
                   help="250 a tokenizer of mixed, 60 a folder")
    p.add_argument("--only", default=None, help="mixed or folders")
    args = p.parse_args()
    args.probe = args.probe or os.path.join(args.build, "probe_text")
    if args.seed is None:
        args.seed = secrets.randbelow(2 ** 31)
    print(f"oracle_text.py: seed {args.seed}", flush=True)
    return args


def main():
    args = parse()
    checks = Checks()
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>",
               "<|begin_of_text|>", "<|eot_id|>", "<s>"]

    def wanted(name):
        return args.only in (None, name)

    with tempfile.TemporaryDirectory(prefix="lori-oracle-") as folder:
        work = pathlib.Path(folder)
        draw = Draw(random.Random(args.seed), special)
        if wanted("mixed"):
            draw.rng = random.Random(f"{args.seed} mixed")
            for i in range(max(4, args.count // 250)):
                tok = mixed(draw, draw.rng)
                strings = nasty("<s>")[:-3]
                strings += [draw.string() for _ in range(250)]
                compare(f"mixed-{i}", tok, work, strings, draw.rng, args, checks)
        if wanted("folders"):
            draw.rng = random.Random(f"{args.seed} folders")
            check_folders(work, draw.rng, draw, args, checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
