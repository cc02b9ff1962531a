"""`lori generate` beside llama.cpp on the same model, alternating runs.

SmolLM2: llama.cpp reads the Q4_1 GGUF, lori the bf16 folder that `lori import`
makes of it. Prefill is a prompt of --prompt tokens, decode --decode tokens
after it, one sequence, a token a step (none guessed). Also the time from
starting the process to its first token. Exit 0 when the promised ratios hold.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PREFILL, DECODE, START_S = 4.0, 1.0, 0.5


def run(command, threads):
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=env, text=True)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode} of {command}\n{done.stderr[-3000:]}")
    return done.stdout


def machine():
    facts = {}
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = [f for f in known if f in facts.get("flags", "").split()]
    return (f"{facts.get('model name', platform.machine())} family "
            f"{facts.get('cpu family')} model {facts.get('model')}, {' '.join(flags)}")


def prompt_ids(n):
    """Ordinary ids, the same each time; their meaning does not matter."""
    return [1000 + (i * 7919) % 40000 for i in range(n)]


def run_lori(args, model, ids):
    start = time.perf_counter()
    run([args.build / "lori", "generate", "--model", model, "--ids", ids[0],
         "--max-new-tokens", 1, "--json"], args.threads)
    started = time.perf_counter() - start
    facts = json.loads(run(
        [args.build / "lori", "generate", "--model", model, "--ids",
         ",".join(map(str, ids)), "--max-new-tokens", args.decode + 1,
         "--ignore-eos", "--draft-tokens", -1, "--json"], args.threads))
    return {"prefill": len(ids) / facts["first_token_s"],
            "decode": facts["tokens_per_s"], "start_s": started}


def run_llama(args, ids):
    facts = json.loads(run(
        [args.llama_python, ROOT / "bench" / "peers" / "infer_llama.py", "--gguf",
         args.gguf, "--ids", ",".join(map(str, ids)), "--decode", args.decode,
         "--threads", args.threads], args.threads).splitlines()[-1])
    return {"prefill": facts["prefill_tokens_per_s"],
            "decode": facts["decode_tokens_per_s"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.environ.get(
        "LORI_BUILD", str(ROOT / "build" / "gcc-release")))
    parser.add_argument("--gguf", default=os.environ.get("LORI_SMOLLM2"))
    parser.add_argument("--llama-python", default=os.environ.get("LORI_LLAMA_PYTHON"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    args.build = pathlib.Path(args.build).resolve()
    ids = prompt_ids(args.prompt)
    with tempfile.TemporaryDirectory(prefix="lori-peers-") as folder:
        model = pathlib.Path(folder) / "model"
        run([args.build / "lori", "import", args.gguf, model, "--dtype", "bf16"],
            args.threads)
        print(f"machine: {machine()}, {args.threads} threads")
        print(f"SmolLM2-135M, prompt {args.prompt}, decode {args.decode}; "
              f"{args.runs} alternating runs", flush=True)
        theirs, ours = [], []
        for i in range(args.runs):
            theirs.append(run_llama(args, ids))
            ours.append(run_lori(args, model, ids))
            print(f"run {i + 1}: llama.cpp {theirs[-1]['prefill']:.0f} / "
                  f"{theirs[-1]['decode']:.1f} tok/s | lori "
                  f"{ours[-1]['prefill']:.0f} / {ours[-1]['decode']:.1f} tok/s, "
                  f"start {ours[-1]['start_s']:.2f} s", flush=True)

    def middle(runs, key):
        return statistics.median(r[key] for r in runs)

    # Neighbouring runs share the machine's mood: their ratio is what counts.
    ratio = {key: statistics.median(o[key] / t[key] for t, o in zip(theirs, ours))
             for key in ("prefill", "decode")}
    start_s = middle(ours, "start_s")
    print(f"{'':12}{'llama.cpp':>12}{'lori':>12}{'ratio':>8}")
    for key in ("prefill", "decode"):
        print(f"{key:12}{middle(theirs, key):12.1f}{middle(ours, key):12.1f}{ratio[key]:8.2f}")
    print(f"start to first token {start_s:.2f} s (at most {START_S}); prefill at least "
          f"{PREFILL}, decode at least {DECODE}")
    print(json.dumps({"machine": machine(), "llama.cpp": theirs, "lori": ours,
                      "ratio": ratio, "start_s": start_s}))
    held = ratio["prefill"] >= PREFILL and ratio["decode"] >= DECODE and start_s <= START_S
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
