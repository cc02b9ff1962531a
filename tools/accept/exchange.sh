#!/bin/sh
# Acceptance, Exchange: our adapters in peft, peft's adapters here, merged
# folders in transformers, merges as add_weighted_adapter does them.
#   LORI_BUILD, LORI_ORACLE_ENV, LORI_ORACLE_SEED, LORI_CACHE, LORI_DATA: see
#   tests/oracle/run.sh, which also says when it prints SKIP.
set -eu
cd "$(dirname "$0")/../.."
export LORI_BUILD="${LORI_BUILD:-build/gcc-release}"
make -s BUILD="$LORI_BUILD" "$LORI_BUILD/lori" "$LORI_BUILD/probe_model"
exec tests/oracle/run.sh oracle_exchange.py
