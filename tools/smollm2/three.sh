#!/bin/sh
# three.sh - recipes/smollm2/three.yaml: SmolLM2 on BoolQ, ARC-easy and GSM8K, with
# the last rows of each training file held out to measure the validation loss.
#   three.sh LORI OUT DATA    DATA: folder with gsm8k/ and commonsense/ as the LoRI
#                             reference has them; OUT: folder to work in. Given
#                             again, it goes on. HELD: rows held out (100).
set -eu
[ $# -eq 3 ] || { echo "usage: three.sh LORI OUT DATA" >&2; exit 2; }
lori=$(readlink -f "$1") out=$2 from=$3 held=${HELD:-100}
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out/data"

# keep FILE NAME: NAME.train and NAME.valid of a JSON array with a row in 6 lines
keep() {
    rows=$(grep -c '^    {' "$from/$1")
    lines=$((1 + (rows - held) * 6))
    { head -n "$lines" "$from/$1" | sed "$lines s/,\$//" && echo ']'; } >"$out/data/$2.train.json"
    { echo '[' && tail -n +"$((lines + 1))" "$from/$1"; } >"$out/data/$2.valid.json"
}
keep commonsense/boolq.train.json boolq
keep commonsense/arc-easy.train.json arc-easy
head -n "-$held" "$from/gsm8k/train.jsonl" >"$out/data/gsm8k.train.jsonl"
tail -n "$held" "$from/gsm8k/train.jsonl" >"$out/data/gsm8k.valid.jsonl"
for rows in commonsense gsm8k; do
    [ -e "$out/data/$rows" ] || ln -s "$(readlink -f "$from/$rows")" "$out/data/$rows"
done

model=$out/smollm2
if [ ! -d "$model" ]; then
    gguf=$("$here/tools/get_smollm2.sh" | tail -n 1)
    "$lori" import "$gguf" "$model" --dtype bf16
fi
"$lori" run "$here/recipes/smollm2/three.yaml" --model "$model" --data-dir "$out/data" --output "$out/runs"
