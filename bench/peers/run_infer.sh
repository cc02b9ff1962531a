#!/bin/sh
# Prefill, decode and start-up of `lori generate` beside llama.cpp
# (llama-cpp-python) on SmolLM2, alternating runs. Options are passed to
# compare_infer.py.   LORI_BUILD, LORI_LLAMA_ENV, LORI_CACHE
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
LORI_BUILD=${LORI_BUILD:-build/gcc-release}
[ -x "$LORI_BUILD/lori" ] || { echo "run_infer: $LORI_BUILD/lori is not there: run make" >&2; exit 1; }
LORI_LLAMA_PYTHON=$(bench/peers/llama_env.sh | tail -n 1)
LORI_SMOLLM2=${LORI_SMOLLM2:-$(tools/get_smollm2.sh | tail -n 1)}
export LORI_BUILD LORI_LLAMA_PYTHON LORI_SMOLLM2 PYTHONDONTWRITEBYTECODE=1
exec "$LORI_LLAMA_PYTHON" bench/peers/compare_infer.py "$@"
