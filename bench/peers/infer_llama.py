"""Prefill and decode of llama.cpp on a GGUF file, one JSON line.

Decoding feeds given ids one at a time: no sampling, no text, so that only the
model's own speed is measured.
"""

import argparse
import json
import time

import llama_cpp


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--ids", required=True, help="1,2,3: the prompt")
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    ids = [int(i) for i in args.ids.split(",")]
    start = time.perf_counter()
    llm = llama_cpp.Llama(model_path=args.gguf, n_ctx=len(ids) + args.decode + 8,
                          n_batch=512, n_threads=args.threads,
                          n_threads_batch=args.threads, verbose=False)
    opened = time.perf_counter() - start
    llm.eval(ids[:8])  # first touch of the weights is not what is measured
    llm.reset()
    start = time.perf_counter()
    llm.eval(ids)
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(args.decode):
        llm.eval([ids[i % len(ids)]])
    decode = time.perf_counter() - start
    print(json.dumps({"open_s": opened, "prefill_tokens_per_s": len(ids) / prefill,
                      "decode_tokens_per_s": args.decode / decode,
                      "version": llama_cpp.__version__}))


if __name__ == "__main__":
    main()
