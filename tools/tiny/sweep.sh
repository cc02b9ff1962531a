#!/bin/sh
# sweep.sh - how the rates and the merge weights of recipes/tiny/four.yaml were
# chosen: on validation rows (the templates of training), never on test rows.
#   sweep.sh LORI OUT [SEED]    OUT: folder to work in; given again, it goes on
# For each method the smallest rate, and for each cat merge the smallest weight,
# whose mean accuracy over the four tasks is within one point of the best one.
set -eu
lori=$(readlink -f "$1") out=$2 seed=${3:-7}
here=$(cd "$(dirname "$0")/../.." && pwd)
tiny=$here/recipes/tiny
mkdir -p "$out/tasks"
VALID=60 TEST=1 "$here/data/make.sh" "$out/data" "$seed"
for task in nlu math code safety; do
    sed 's/test\.jsonl/valid.jsonl/' "$tiny/tasks/$task.yaml" >"$out/tasks/$task.yaml"
done

recipe() { # the methods on standard input
    sed '/^methods:/,$d' "$tiny/four.yaml"
    cat
    sed -n '/^tasks:/,/^merges:/p' "$tiny/four.yaml" | sed '$d'
    grep '^eval:' "$tiny/four.yaml"
}
method() { # NAME KEYS RATE...
    name=$1 keys=$2
    shift 2
    for rate; do
        echo "  $name-$rate: {$keys, learning_rate: $rate}"
    done
}
run() { # NAME of a recipe: what an earlier one trained is there already
    "$lori" run "$out/$1.yaml" --model "$here/models/tiny" --data-dir "$out/data" --output "$out/runs" "seed=$seed"
}
# "METHOD-VALUE accuracy" lines: each method's mean over its own tasks, or a merge's over all.
means() {
    awk -F'|' '
        /^$/ { exit }
        NR == 1 { for (i = 3; i <= 6; i++) { split($i, w, " "); task[i] = w[1] } next }
        NR > 2 {
            gsub(/ /, "", $2)
            for (i = 3; i <= 6; i++) {
                name = $2
                if (name ~ /^cat-/) { sum[name] += $i; continue }
                if (index(name, task[i] "-") == 1) { sub(/^[a-z]+-/, "", name); sum[name] += $i }
            }
        }
        END { for (name in sum) printf "%s %.4f\n", name, sum[name] / 4 }' "$out/runs/eval/results.md" | sort
}
# Prints a method's lines, and sets `chosen`.
choose() { # METHOD
    means | awk -v m="$1-" 'index($1, m) == 1 { print substr($1, length(m) + 1), $2 }' | sort -g >"$out/$1.txt"
    chosen=$(awk '{ v[NR] = $1; a[NR] = $2; if ($2 > best) best = $2 }
        END { for (i = 1; i <= NR; i++) if (a[i] >= best - 0.01) { print v[i]; exit } }' "$out/$1.txt")
    awk -v m="$1" -v c="$chosen" '{ printf "%-12s %-8s %5.1f %%%s\n", m, $1, 100 * $2, $1 == c ? "  <- chosen" : "" }' "$out/$1.txt"
}

{
    echo "methods:"
    method lora "method: lora" 5.0e-4 1.0e-3 3.0e-3
    method lori-d "method: lori" 3.0e-3 5.0e-3 1.0e-2
} | recipe >"$out/dense.yaml"
run dense
choose lora
lora=$chosen
choose lori-d
lori_d=$chosen
{
    echo "methods:"
    method lora "method: lora" "$lora"
    method lori-d "method: lori" "$lori_d"
    method lori-s "method: lori, mask_of: lori-d-$lori_d, sparsity: 0.9" 5.0e-3 1.0e-2 2.0e-2
} | recipe >"$out/sparse.yaml"
run sparse
choose lori-s
lori_s=$chosen
{
    echo "methods:"
    method lora "method: lora" "$lora"
    method lori-d "method: lori" "$lori_d"
    method lori-s "method: lori, mask_of: lori-d-$lori_d, sparsity: 0.9" "$lori_s"
} | recipe >"$out/merges.yaml"
{
    echo "merges:"
    for weight in 0.3 0.4 0.5 0.6 0.7 0.8; do
        echo "  cat-lora-$weight: {of: lora-$lora, weights: $weight}"
        echo "  cat-lori-s-$weight: {of: lori-s-$lori_s, weights: $weight}"
    done
} >>"$out/merges.yaml"
run merges
choose cat-lora
choose cat-lori-s
