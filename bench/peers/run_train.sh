#!/bin/sh
# Training speed and memory beside transformers + peft (pinned environment of
# tests/oracle/): SmolLM2, GSM8K, batch 8, r 32, bf16, A frozen, the same rows
# in the same order, alternating runs. Options are passed to compare_train.py.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_CACHE, LORI_DATA as in tests/oracle/run.sh
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
build=${LORI_BUILD:-build/gcc-release}
[ -x "$build/lori" ] || { echo "run_train: $build/lori is not there: run make" >&2; exit 1; }
python=$(tests/oracle/env.sh | tail -n 1)
[ -n "$python" ] || exit 1
LORI_SMOLLM2=${LORI_SMOLLM2:-$(tools/get_smollm2.sh | tail -n 1)}
[ -n "$LORI_SMOLLM2" ] || exit 1
export LORI_BUILD="$build" LORI_SMOLLM2 PYTHONDONTWRITEBYTECODE=1
exec "$python" bench/peers/compare_train.py "$@"
