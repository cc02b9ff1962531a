#!/bin/sh
# Acceptance, Backward: f64 ref against central differences (unit tests of
# model/), dA and dB of every target against torch autograd, bf16 by the error
# against f64, and B after 20 AdamW steps on SmolLM2 against transformers + peft.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_ORACLE_SEED, LORI_CACHE, LORI_DATA: see
#   tests/oracle/run.sh, which also says when it prints SKIP.
set -eu
cd "$(dirname "$0")/../.."
export LORI_BUILD="${LORI_BUILD:-build/gcc-release}"
make -s BUILD="$LORI_BUILD" "$LORI_BUILD/lori" "$LORI_BUILD/probe_model"
make -s BUILD="$LORI_BUILD" test-model
exec tests/oracle/run.sh oracle_model.py:backward oracle_model.py:bf16 oracle_train.py \
    oracle_smollm2.py:train
