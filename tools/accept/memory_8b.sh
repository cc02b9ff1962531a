#!/bin/sh
# Acceptance, Speed: a Llama-3-8B-shaped bf16 model with random weights trains
# on 8 x 512 tokens a step within 24 GiB: private memory within 5 % + 32 MB of
# the plan, private memory and mapped files reported apart.
#   tools/accept/memory_8b.sh [LAYERS [STEPS [SHAPE]]]    (32, 2, llama-8b)
# Fewer layers take the same path in less time.
#   LORI_BUILD as elsewhere; TMPDIR: where 3 GB and 0.44 GB a layer are free;
#   LORI_SHAPE_DIR: a model folder to make there, or to use again;
#   LORI_MEMORY_BUDGET: the recipe's memory_budget
set -eu
cd "$(dirname "$0")/../.."
build=${LORI_BUILD:-build/gcc-release}
layers=${1:-32} steps=${2:-2} shape=${3:-llama-8b}
make -s BUILD="$build" "$build/lori" "$build/random_model"
folder=$(mktemp -d "${TMPDIR:-/tmp}/lori-8b-XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
model=${LORI_SHAPE_DIR:-$folder/model}
if [ ! -e "$model/config.json" ]; then
    need=$((3000 + 440 * layers)) # MB
    free=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
    if [ "$free" -lt "$need" ]; then
        echo "memory_8b: $folder has $free MB free, $need are needed: set TMPDIR" >&2
        exit 1
    fi
    "$build/random_model" "$shape" "$model" "$layers"
fi
# 8 rows a step of 512 tokens, the last 40 % of each are labels
awk -v n=$((8 * steps)) 'BEGIN {
    for (i = 0; i < n; i++) {
        ids = labels = ""
        for (t = 0; t < 512; t++) {
            id = (i * 7919 + t * 104729 + 12345) % 128000
            ids = ids (t ? "," : "") id
            labels = labels (t ? "," : "") (t < 307 ? -100 : id)
        }
        printf "{\"input_ids\": [%s], \"labels\": [%s]}\n", ids, labels
    }
}' >"$folder/rows.jsonl"
"$build/lori" train model_name_or_path="$model" train_file="$folder/rows.jsonl" \
    output_dir="$folder/adapter" max_steps="$steps" logging_steps=1 \
    ${LORI_MEMORY_BUDGET:+memory_budget="$LORI_MEMORY_BUDGET"} --json >"$folder/report.json"
cat "$folder/adapter/metrics.jsonl"
cat "$folder/report.json"
awk -F'[:,]' '
    /_bytes"/ { gsub(/[ "]/, "", $1); v[$1] = $2 + 0 }
    END {
        plan = v["total_bytes"] - v["weights_mapped_bytes"]
        off = v["rss_anon_bytes"] - plan
        printf "private %.3f GB of %.3f GB planned (%+.1f %%), mapped files %.3f GB, peak of both %.3f GB\n",
            v["rss_anon_bytes"] / 1e9, plan / 1e9, 100 * off / plan, v["rss_file_bytes"] / 1e9,
            v["rss_peak_bytes"] / 1e9
        if (off < 0) off = -off
        good = off <= 0.05 * plan + 32e6 && v["rss_peak_bytes"] <= 24 * 1024 ^ 3
        print good ? "memory_8b: holds" : "memory_8b: does not hold"
        exit !good
    }' "$folder/report.json"
