#!/bin/sh
# Replies of SmolLM2 to questions of GSM8K with tokens guessed ahead and
# without, in alternating runs: tokens a second of whole runs, the ratio of each
# pair, the median. Fails if one reply differs.
# usage: drafts.sh [PAIRS [BATCH [QUESTIONS [options of lori generate]]]]
#   LORI_BUILD, LORI_CACHE; LORI_DATA: folder with gsm8k/test.jsonl
set -eu
cd "$(dirname "$0")/../.."
build=${LORI_BUILD:-build/gcc-release}
data=${LORI_DATA:-../shared/data}
pairs=${1:-5} batch=${2:-1} questions=${3:-16}
shift $(($# < 3 ? $# : 3))
[ -r "$data/gsm8k/test.jsonl" ] || { echo "drafts: no $data/gsm8k/test.jsonl: give LORI_DATA" >&2; exit 1; }
make -s BUILD="$build" "$build/lori"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$build/lori" import "$(tools/get_smollm2.sh | tail -n 1)" "$folder/model" >"$folder/log" 2>&1
head -n "$questions" "$data/gsm8k/test.jsonl" | sed 's/^{"question":/{"prompt":/' >"$folder/rows"

run() { # OUTPUT DRAFT_TOKENS [options]: tokens a second
    output=$1 drafts=$2
    shift 2
    "$build/lori" generate --model "$folder/model" --chat --max-new-tokens 256 --max-batch "$batch" \
        --input "$folder/rows" --output "$output" --replace --draft-tokens "$drafts" "$@" 2>&1 |
        sed -n 's/.* now), \([0-9]*\) tokens in \([0-9.]*\) s$/\1 \2/p' | awk '{ print $1 / $2 }'
}

sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1
run "$folder/warm" 0 "$@" >/dev/null
i=0
while [ "$i" -lt "$pairs" ]; do
    i=$((i + 1))
    without=$(run "$folder/without" -1 "$@")
    with=$(run "$folder/with" 0 "$@")
    cmp -s "$folder/with" "$folder/without" || { echo "drafts: replies differ" >&2; exit 1; }
    echo "$without $with" | awk '{ printf "%6.1f tok/s without, %6.1f with guesses: %.2f\n", $1, $2, $2 / $1 }'
    echo "$without $with" | awk '{ print $2 / $1 }' >>"$folder/ratios"
done
sort -n "$folder/ratios" | awk '{ r[NR] = $1 } END { printf "median of %d: %.2f\n", NR, (r[int((NR + 1) / 2)] + r[int(NR / 2) + 1]) / 2 }'
