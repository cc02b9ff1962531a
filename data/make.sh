#!/bin/sh
# make.sh - writes the four tasks' rows: OUT/TASK/{train,valid,test}.jsonl.
#   data/make.sh OUT [SEED]     SEED: 1; environment: TRAIN, VALID, TEST rows a
#                               task (2000, 200, 400). Same seed, same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: data/make.sh OUT [SEED]" >&2; exit 2; }
out=$1 seed=${2:-1}
for task in nlu math code safety; do
    mkdir -p "$out/$task"
    for part in train valid test; do
        case $part in
        train) n=${TRAIN:-2000} ;;
        valid) n=${VALID:-200} ;;
        test) n=${TEST:-400} ;;
        esac
        awk -f "$here/common.awk" -f "$here/$task/$task.awk" -v words="$here/words.txt" \
            -v part=$part -v n="$n" -v seed="$seed" >"$out/$task/$part.jsonl.part"
        mv "$out/$task/$part.jsonl.part" "$out/$task/$part.jsonl"
    done
done
