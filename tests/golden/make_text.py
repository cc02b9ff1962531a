#!/usr/bin/env python3
"""Writes tests/golden/text_*.json: small tokenizers with the ids and texts that
the `tokenizers` package gives, and their lines of tests/golden/MANIFEST.

usage: python3 tests/golden/make_text.py

Each file: {"tokenizer": <a tokenizer.json>, "cases": [[text, ids, with special
tokens, special text as plain, decoded, decoded without special tokens,
offsets of the ids, of those with special tokens]], "lists": [[ids, decoded, decoded without special tokens]]}. The strings are
those of spec text.md 5. Nothing is drawn at random without a fixed seed.
"""

import json
import pathlib
import random

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)

HERE = pathlib.Path(__file__).resolve().parent
R_L3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
R_QW = R_L3.replace(r"\p{N}{1,3}", r"\p{N}")

CORPUS = """
The adapter of a layer is the product of two thin matrices. The first one is
random and stays as it is; the second one starts at zero and learns. When the
training is done, only the largest tenth of its entries is kept, and training
goes on with those. It's simple, it isn't slow, and we'll see that it works:
1234567890 tokens, 3.14 seconds, 42 per cent, 2024-05-17, x = y + 1;
    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T
    for (int i = 0; i < n; i++) { sum += a[i] * b[i]; }  // in order
La naïveté de l'été, où l'on rêve; größer, Fuß, mañana; Καλημέρα κόσμε; Привет
мир; 我想在工作 一天; 日本語 한국어 수정; हिन्दी العربية שלום ไทย.
"""

NASTY = [
    "", " ", "   ", "   x", "\t\n \r\n  \n", "\n\n\n\n=\n",
    "a \n b  \r\n\r\n  c   ", "\u00a0\u3000\u2003x\u202f",
    "a\u180eb  \u180e", "a\u0085b\u2028c\u2029\u2028d",
    "\u200b\u200d\ufeffx\u00ad", "a\0b\x1f\x7f\x1c",
    "e\u0301 \u0065\u0323\u0302 \u1100\u1161\u11a8 \u212b\u2126",
    "\U00011935\U00011930 \U000105d2\u0307", "a" + 40 * "\u0301" + "\u0327",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd\U0001f1fa\U0001f1f8"
    "1\ufe0f\u20e3",
    "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e\u3002\ud55c\uad6d",
    "\u0e44\u0e17\u0e22\u1780\u17b6 \u0939\u093f\u0928\u094d \u0627\u0644"
    "\u05e9\u05dc\u202e",
    "it'\u017f IT'S we'Ve 'LL'd \u2019s \u0149", "' 's 'S\n'll",
    "1234567890123 1.5e-10 0x1F \u0663\u0664 \u00bd\u00b2\u216b\u3007",
    "7" * 60, "\u2581a \u2581\u2581b\u2581 c", "\u0120hello \u010a \u0120",
    "<0x0A><0xE2>", "<s>a</s></s> <s> <unk>", "  </s>  \n x", "<s", "<<s>s>",
    "\ufffd\uffff\U0010ffff\ue000\U000ac517",
    "def f(x):\n\t    return x  # \u00f1\r\n\n\n    ",
    "{\"a\": [1, 2]}\\frac{1}{2}",
    "\ufb01 \uff21\uff11 \u3314 \u01c5 \u0130\u0131 \u1e9e",
    "\x04a\x06\xad", "3333", "\n =", " Hello world", "\n\n1", "total:  48",
    "a\t\t7", "The adapter of a layer is the product of two matrices.",
    "abcd ab abc xab abx ab-ab", "\u00e9 e\u0301 \u00e9x",
]


def train(tok, **options):
    tok.train_from_iterator(CORPUS.splitlines(True), trainers.BpeTrainer(
        vocab_size=420, show_progress=False, **options))
    return tok


def bytes_trained(normalizer, pre, special=("<s>", "</s>")):
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    train(tok, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t in special])
    return tok


def changed(tok, **model):
    """The same tokenizer with options of the model that cannot be set."""
    data = json.loads(tok.to_str())
    data["model"].update(model)
    return Tokenizer.from_str(json.dumps(data))


def gpt2():
    tok = bytes_trained(None, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return tok


def smollm():
    return bytes_trained(None, pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3():
    """ignore_merges matters: tokens that no merge makes."""
    tok = bytes_trained(None, split(R_L3))
    vocab = tok.get_vocab(with_added_tokens=False)
    for word in ("\u0120Hello", "3333", "\u00c3\u00a9x"):
        vocab[word] = len(vocab)
    data = json.loads(tok.to_str())
    data["model"]["vocab"] = vocab
    data["model"]["ignore_merges"] = True
    tok = Tokenizer.from_str(json.dumps(data))
    bos = tok.token_to_id("<s>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1",
            special_tokens=[("<s>", bos)])])
    return tok


def qwen():
    return bytes_trained(normalizers.NFC(), split(R_QW))


def flags():
    """Added tokens with every flag; a prefix space; no byte map at the end."""
    tok = bytes_trained(normalizers.Sequence([normalizers.NFC()]),
                        pre_tokenizers.Sequence([
                            pre_tokenizers.ByteLevel(add_prefix_space=True),
                            pre_tokenizers.Split("e", "merged_with_next"),
                            pre_tokenizers.Digits(individual_digits=False)]))
    tok.add_special_tokens([
        AddedToken("</s>", special=True, normalized=False, rstrip=True),
        AddedToken("<unk>", special=True, normalized=False, lstrip=True,
                   rstrip=True)])
    tok.add_tokens([
        AddedToken("abc", single_word=True), AddedToken("ab"),
        AddedToken("\u00e9", normalized=True),
        AddedToken("  ", normalized=False)])
    return tok


def characters():
    """No byte alphabet: unknown characters, byte fallback, fused unknowns."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s+"), "removed"),
        pre_tokenizers.Split(Regex(r"\p{P}"), "contiguous"),
        pre_tokenizers.Split("a", "merged_with_previous", invert=True)])
    train(tok, limit_alphabet=60, special_tokens=["<unk>", "<s>"] + [
        f"<0x{b:02X}>" for b in range(256) if b % 5])
    data = json.loads(tok.to_str())
    data["added_tokens"] = []
    tok = changed(Tokenizer.from_str(json.dumps(data)), byte_fallback=True)
    tok.decoder = decoders.Fuse()
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A <s>", pair="$A $B", special_tokens=[("<s>", 1)])
    return tok


def plain():
    """No pre-tokenizer, no decoder, no unknown token."""
    tok = Tokenizer(models.BPE())
    train(tok, limit_alphabet=50)
    tok.add_tokens(["<s>"])
    return tok


def spaces_as_marks():
    """SentencePiece's kind: characters, bytes for those that are no token."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    train(tok, limit_alphabet=70, special_tokens=["<unk>", "<s>", "</s>"] + [
        f"<0x{b:02X}>" for b in range(256)])
    tok = changed(tok, byte_fallback=True)
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tok


def spm_decoder(*last):
    return decoders.Sequence([decoders.Replace("\u2581", " "),
                              decoders.ByteFallback(), decoders.Fuse(), *last])


def llama2():
    """Prepend and Replace, as old files have it."""
    tok = spaces_as_marks()
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.Sequence([
        normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = spm_decoder(decoders.Strip(" ", 1, 0))
    tok.add_special_tokens([AddedToken("</s>", normalized=False, rstrip=True)])
    return tok


def metaspace():
    """What newer files have; a mark only at the start of the text."""
    tok = spaces_as_marks()
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = spm_decoder(decoders.Strip(" ", 1, 0))
    return tok


def gemma():
    """No mark in front; added tokens that are runs."""
    tok = spaces_as_marks()
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = spm_decoder()
    tok.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\u2581\u2581")])
    return tok


def words():
    """Affixes, and the pre-tokenizers that only cut."""
    affixes = {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}
    tok = Tokenizer(models.BPE(unk_token="<unk>", **affixes))
    tok.normalizer = normalizers.Sequence([
        normalizers.NFD(), normalizers.Strip(), normalizers.Replace(Regex(r"\d"), "0")])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_next"),
        pre_tokenizers.CharDelimiterSplit("x"), pre_tokenizers.FixedLength(length=9)])
    train(tok, special_tokens=["<unk>", "<s>"], **affixes)
    tok.decoder = decoders.Sequence([
        decoders.Replace("</w>", " "), decoders.Replace(Regex("^##"), ""), decoders.Fuse(),
        decoders.Replace("  ", " "), decoders.Strip(" ", 3, 0)])
    return tok


def cases(tok):
    rows = []
    for s in NASTY + ["x " + t for t in NASTY[:8]] + ["<s>" + t for t in NASTY[:8]]:
        bare, full = tok.encode(s, add_special_tokens=False), tok.encode(s)
        ids, special = bare.ids, full.ids
        tok.encode_special_tokens = True
        as_text = tok.encode(s, add_special_tokens=False).ids
        tok.encode_special_tokens = False
        rows.append([s, ids, special, as_text,
                     tok.decode(special, skip_special_tokens=False),
                     tok.decode(special), bare.offsets, full.offsets])
    return rows


def lists(tok):
    rng = random.Random(7)
    top = tok.get_vocab_size() + 1
    rows = []
    for _ in range(40):
        ids = [rng.randrange(top) for _ in range(rng.randint(0, 9))]
        rows.append([ids, tok.decode(ids, skip_special_tokens=False),
                     tok.decode(ids)])
    return rows


def main():
    names = []
    for make in (gpt2, smollm, llama3, qwen, flags, characters, plain, llama2,
                 metaspace, gemma, words):
        tok = make()
        data = {"tokenizer": json.loads(tok.to_str()), "cases": cases(tok),
                "lists": lists(tok)}
        name = f"text_{make.__name__}.json"
        (HERE / name).write_text(json.dumps(data, separators=(",", ":")) + "\n")
        names.append(name)
    manifest = HERE / "MANIFEST"
    old = manifest.read_text().splitlines() if manifest.exists() else []
    rows = [line for line in old if not line.startswith("text_")]
    rows += [f"{name}: make_text.py, tokenizers {tokenizers.__version__}"
             for name in names]
    manifest.write_text("\n".join(sorted(rows)) + "\n")


if __name__ == "__main__":
    main()
