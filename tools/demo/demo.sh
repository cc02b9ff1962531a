#!/bin/sh
# demo.sh - the whole main job on a real model (make demo): get SmolLM2-135M,
# import it, train LoRI-D, take the 90 % mask, train LoRI-S, merge LoRI-S into
# the base, and compare {base, LoRI-D, LoRI-S, merged} on notes whose sentence
# templates training never showed.
#   demo.sh LORI [OUT]     LORI: the program; OUT: folder to work in (demo/)
set -eu
lori=$1
out=${2:-demo}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

step() { printf '\n== %s\n' "$*"; }
field() { # FILE KEY: a number or word of a flat JSON report
    sed -n "s/^ *\"$2\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$1" | head -n 1
}

step "SmolLM2-135M-Instruct"
gguf=$("$here/../get_smollm2.sh" | tail -n 1)
"$lori" import "$gguf" "$out/smollm2" --dtype bf16 --replace

step "Task: notes become order lines (400 train, 100 validation, 100 test rows)"
for part in train valid test; do
    n=100
    [ $part = train ] && n=400
    awk -f "$here/make_orders.awk" -v part=$part -v n=$n -v seed=1 >"$out/$part.jsonl"
done
head -n 1 "$out/train.jsonl"

step "LoRI-D: A frozen, all of B trained"
"$lori" train "$here/lori_d.yaml" "model_name_or_path=$out/smollm2" \
    "train_file=$out/train.jsonl" "validation_file=$out/valid.jsonl" \
    "output_dir=$out/lori-d" overwrite_output_dir=true --json >"$out/lori-d.json"

step "Mask: the largest 10 % of |B| over the whole model"
"$lori" mask "$out/lori-d" "$out/mask" --sparsity 0.9 --replace

step "LoRI-S: the same A, only the kept entries of B trained"
"$lori" train "$here/lori_s.yaml" "model_name_or_path=$out/smollm2" \
    "train_file=$out/train.jsonl" "validation_file=$out/valid.jsonl" \
    "lori_mask_path=$out/mask" "output_dir=$out/lori-s" \
    overwrite_output_dir=true --json >"$out/lori-s.json"

step "LoRI-S merged into the base"
"$lori" merge --into "$out/smollm2" --adapter "$out/lori-s" \
    --output "$out/merged" --replace

step "Evaluation"
score() { # NAME MODEL [ADAPTER]
    name=$1 model=$2
    shift 2
    for part in valid test; do
        extra=
        [ $part = test ] && extra="--exact-match --max-new-tokens 40 --output $out/$name.answers.jsonl"
        # shellcheck disable=SC2086
        "$lori" score --model "$model" ${1:+--adapter "$1"} \
            --data "$out/$part.jsonl" $extra --json >"$out/$name.$part.json"
    done
}
score base "$out/smollm2"
score lori-d "$out/smollm2" "$out/lori-d"
score lori-s "$out/smollm2" "$out/lori-s"
score merged "$out/merged"

answer() { # FILE: the first answer, on one line
    head -n 1 "$1" | sed 's/.*"answer": "\(.*\)", "exact_match".*/\1/; s/\\n/ | /g' | cut -c 1-100
}
step "Result (validation: new sentences; test: new sentence templates, names and items)"
printf '\n%-8s %12s %16s %12s %12s\n' model trained "validation loss" "test loss" "exact match"
for m in base lori-d lori-s merged; do
    trained=0
    case $m in lori-*) trained=$(field "$out/$m.json" trainable_parameters) ;; esac
    printf '%-8s %12s %16.4f %12.4f %11.0f%%\n' $m "$trained" \
        "$(field "$out/$m.valid.json" loss)" "$(field "$out/$m.test.json" loss)" \
        "$(awk "BEGIN { print 100 * $(field "$out/$m.test.json" exact_match) }")"
done
printf '\n%s\n' "$(head -n 1 "$out/test.jsonl" | sed 's/{"prompt": "\(.*\)\\nOrder:", "completion": "\(.*\)"}/\1\n  wanted:  \2/')"
for m in base lori-d lori-s merged; do
    printf '  %-8s %s\n' "$m:" "$(answer "$out/$m.answers.jsonl")"
done
printf '\nTry it: %s generate --model %s --adapter %s --prompt "$(printf %s)"\n' \
    "$lori" "$out/smollm2" "$out/lori-s" "'Note: Tom wants 2 bags of rice on Monday.\\nOrder:'"
