#!/bin/sh
# run_tiny.sh - tests of models/tiny: the files are those of its MANIFEST and
# small, its text comes back, and the base does not know the four tasks yet:
# at most 5 points over chance.
#   run_tiny.sh LORI
set -u
lori=$(readlink -f "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$root/models/tiny
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-tiny.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
cd "$dir" || exit 1
passed=0 failed=0

check() { # NAME COMMAND...: the command succeeds
    name=$1
    shift
    if "$@" >out 2>err; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL: $name"
        cat out err | sed 's/^/    /' | head -n 8
    fi
}
kilobytes() { [ "$(du -sk "$1" | cut -f 1)" -le "$2" ]; }
same_text() { # TEXT: its ids are the text again
    ids=$("$lori" tokenize --model "$model" "$1") && [ "$("$lori" detokenize --model "$model" $ids)" = "$1" ]
}

sed -n '/"files"/,/}/s/^ *"\([^"]*\)": "\([0-9a-f]\{64\}\)",*$/\2  \1/p' "$model/MANIFEST.json" >"$dir/sums"
manifest() { [ "$(wc -l <"$dir/sums")" -ge 4 ] && (cd "$model" && sha256sum -c --quiet "$dir/sums"); }
check "MANIFEST" manifest
check "at most 12 MB" kilobytes "$model" 12000
check "text" same_text "Anna has 12 apples + 3."
check "other text" same_text "Größe: 日本 ½"

TRAIN=1 VALID=1 TEST=100 "$root/data/make.sh" data 1 || exit 1
for task in nlu math code safety; do
    set -- "$@" --task "$root/recipes/tiny/tasks/$task.yaml"
done
shift
"$lori" eval --model "$model" --data-dir data --dtype f32 "$@" --json >results 2>err || {
    cat err
    exit 1
}
accuracy() { # TASK: of the base
    sed -n '/^      "'"$1"'": {/,/}/s/^ *"\(exact_match\|acc\),none": \([0-9.e-]*\).*/\2/p' results | head -n 1
}
knows_little() { # TASK CHANCE
    echo "$1: $(accuracy "$1")"
    awk -v a="$(accuracy "$1")" -v c="$2" 'BEGIN { exit !(a != "" && a <= c + 0.05) }'
}
check "nlu" knows_little nlu 0.25
check "math" knows_little math 0
check "code" knows_little code 0
check "safety" knows_little safety 0.5

echo "$passed passed, $failed failed"
[ $failed = 0 ]
