"""Encodes 4 MB of English with lori and with `tokenizers`, in turns, one thread
each, and loads their tokenizer.json. Prints medians and their ratios.

usage: text_speed.py PROBE_TOKENS LORI TEXT_JSONL [ROUNDS]
The text is the questions and answers of TEXT_JSONL (GSM8K), joined: as one
string, and as its rows. Needs tools/get_tokenizers.sh's files.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402

SIZE = 4_000_000


def rows_of(path):
    rows = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.append(f"{row['question']}\n{row['answer']}\n\n")
    out, size = [], 0
    for row in rows * (1 + SIZE // max(1, sum(map(len, rows)))):
        out.append(row)
        size += len(row.encode())
        if size >= SIZE:
            break
    return out, size


class Ours:
    def __init__(self, probe, path):
        self.process = subprocess.Popen([probe, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def seconds(self, question):
        self.process.stdin.write(json.dumps({**question, "times": 1}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"][0], answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def compare(name, path, rows, size, rounds, probe):
    ours, theirs = Ours(probe, path), Tokenizer.from_file(str(path))
    cases = {"one text": ["".join(rows)], "rows": rows}
    for case, texts in cases.items():
        a, b = [], []
        for _ in range(rounds):
            seconds, answer = ours.seconds({"bench": texts})
            a.append(seconds)
            seconds, result = timed(lambda: theirs.encode_batch_fast(
                texts, add_special_tokens=False))
            b.append(seconds)
        n = sum(len(e.ids) for e in result)
        assert n == answer["tokens"], (name, n, answer["tokens"])
        a, b = statistics.median(a), statistics.median(b)
        print(f"{name:11} encode {case:8} {n:8} tokens: lori {size / a / 1e6:6.1f} MB/s, "
              f"tokenizers {size / b / 1e6:5.2f} MB/s, ratio {b / a:5.1f}", flush=True)
    a, b = [], []
    for _ in range(rounds):
        a.append(ours.seconds({"load": str(path)})[0])
        b.append(timed(lambda: Tokenizer.from_file(str(path)))[0])
    a, b = statistics.median(a), statistics.median(b)
    print(f"{name:11} load: lori {a:.3f} s, tokenizers {b:.3f} s, ratio {a / b:.2f}", flush=True)
    ids = theirs.encode("".join(rows), add_special_tokens=False).ids
    a, b = [], []
    for _ in range(rounds):
        a.append(ours.seconds({"bench_ids": ids})[0])
        b.append(timed(lambda: theirs.decode(ids))[0])
    a, b = statistics.median(a), statistics.median(b)
    print(f"{name:11} decode: lori {size / a / 1e6:.0f} MB/s, tokenizers "
          f"{size / b / 1e6:.0f} MB/s, ratio {b / a:.1f}", flush=True)
    ours.close()


def main():
    probe, lori, data = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    cache = os.environ.get("LORI_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lori")
    files = pathlib.Path(cache) / "tokenizers"
    rows, size = rows_of(data)
    only = os.environ.get("TEXT_SPEED_ONLY", "")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("llama3", "deepseek", "mistral-v1"):
            if only and only != name:
                continue
            path = files / "deepseek" / "tokenizer.json"
            if name != "deepseek":
                made = pathlib.Path(folder) / name
                subprocess.run([lori, "import", "--tokenizer", files / f"{name}.model", made],
                               check=True, stdout=subprocess.DEVNULL)
                path = made / "tokenizer.json"
            compare(name, path, rows, size, rounds, probe)


if __name__ == "__main__":
    main()
