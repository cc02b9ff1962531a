#!/bin/sh
# Acceptance, Forward: SmolLM2 imported here equals the dequantized model
# (tensor hashes, ids, logits, greedy tokens), and random models of each family
# equal transformers in f32, with the faults that must be visible.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_ORACLE_SEED, LORI_CACHE, LORI_DATA: see
#   tests/oracle/run.sh, which also says when it prints SKIP.
set -eu
cd "$(dirname "$0")/../.."
export LORI_BUILD="${LORI_BUILD:-build/gcc-release}"
make -s BUILD="$LORI_BUILD" "$LORI_BUILD/lori" "$LORI_BUILD/probe_model"
exec tests/oracle/run.sh oracle_smollm2.py:forward oracle_model.py:forward
