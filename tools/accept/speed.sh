#!/bin/sh
# Acceptance, Speed: useful tokens a second and peak memory beside
# transformers + peft, alternating runs: at least 3.5x and at most 0.2x on
# SmolLM2; with --shape llama-1b (random weights; needs 20 GB of memory) at
# least 2.5x and at most 0.33x. Options are compare_train.py's.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_ORACLE_SEED, LORI_CACHE, LORI_DATA: see
#   tests/oracle/run.sh, which also says when it prints SKIP.
set -eu
cd "$(dirname "$0")/../.."
export LORI_BUILD="${LORI_BUILD:-build/gcc-release}"
make -s BUILD="$LORI_BUILD" "$LORI_BUILD/lori" "$LORI_BUILD/random_model"
exec bench/peers/run_train.sh "$@"
