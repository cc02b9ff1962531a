#!/bin/sh
# Acceptance, Speed of text: 4 MB of English beside `tokenizers`, one thread
# each, in turns: at least 10x byte-level, at least 4x SentencePiece type;
# loading at most 0.25x of theirs. Prints the ratios of medians.
#   text_speed.sh [ROUNDS]   LORI_BUILD, LORI_ORACLE_ENV, LORI_CACHE as in
#   tests/oracle/run.sh; LORI_DATA: folder with gsm8k/train.jsonl
set -eu
cd "$(dirname "$0")/../.."
build=${LORI_BUILD:-build/gcc-release}
make -s BUILD="$build" "$build/lori" "$build/probe_tokens"
python=$(tests/oracle/env.sh | tail -n 1)
tools/get_tokenizers.sh >/dev/null
exec "$python" bench/peers/text_speed.py "$build/probe_tokens" "$build/lori" \
    "${LORI_DATA:-../shared/data}/gsm8k/train.jsonl" "$@"
