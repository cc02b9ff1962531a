#!/bin/sh
# Acceptance, Speed: useful tokens a second and peak memory beside
# transformers + peft, alternating runs: at least 2x and at most 0.35x.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_ORACLE_SEED, LORI_CACHE, LORI_DATA: see
#   tests/oracle/run.sh, which also says when it prints SKIP.
set -eu
cd "$(dirname "$0")/../.."
export LORI_BUILD="${LORI_BUILD:-build/gcc-release}"
make -s BUILD="$LORI_BUILD" "$LORI_BUILD/lori"
exec bench/peers/run_train.sh "$@"
