#!/bin/sh
# run_data.sh - tests of the generators under data/: same seed same bytes, no
# leak from training to test, and leaks that are found when they are put there.
#   tests/data/run_data.sh
set -eu
cd "$(dirname "$0")/../.."
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-data.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
passed=0 failed=0

check() { # NAME COMMAND...: the command succeeds
    name=$1
    shift
    if "$@" >"$dir/out" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL: $name"
        sed 's/^/    /' "$dir/out" | head -n 8
    fi
}
leaks() { # FOLDER
    awk -f data/leaks.awk -v words=data/words.txt "$1/train.jsonl" "$1/valid.jsonl" "$1/test.jsonl"
}
finds() { # KIND FOLDER: the leak is found, and the exit code says so
    code=0
    leaks "$2" || code=$?
    leaks "$2" | grep -q "^leak: $1: " && [ $code = 1 ]
}
says() { # TEXT COMMAND...: it fails and says so
    text=$1
    shift
    code=0
    "$@" 2>"$dir/err" >"$dir/rows" || code=$?
    cat "$dir/err"
    [ $code != 0 ] && grep -qF -- "$text" "$dir/err"
}
differ() { ! cmp -s "$1" "$2"; }
lines() { [ "$(wc -l <"$1")" = "$2" ]; }

data/make.sh "$dir/one" 1
data/make.sh "$dir/again" 1
data/make.sh "$dir/two" 2
for task in nlu math code safety; do
    for part in train valid test; do
        file=$task/$part.jsonl
        check "$file: same seed, same bytes" cmp "$dir/one/$file" "$dir/again/$file"
        check "$file: other seed, other rows" differ "$dir/one/$file" "$dir/two/$file"
    done
    check "$task: rows" lines "$dir/one/$task/train.jsonl" 2000
    check "$task: no leak, seed 1" leaks "$dir/one/$task"
    check "$task: no leak, seed 2" leaks "$dir/two/$task"

    # A training row among the test rows, and a training template with new words.
    bad=$dir/again/$task
    head -n 1 "$bad/train.jsonl" >>"$bad/test.jsonl"
    check "$task: a shared row is found" finds "row in two sets" "$bad"
    check "$task: a shared template is found" finds "sentence form of the training rows" "$bad"
    head -n 1 "$bad/valid.jsonl" >>"$bad/valid.jsonl"
    check "$task: a double row is found" finds "row twice in one set" "$bad"
done
generate() { awk -f data/common.awk -f "data/$1/$1.awk" -v words=data/words.txt -v part="$2" -v n="$3" -v seed=1; }
check "too many rows are refused" says "common.awk: there are no 100000 different rows; ask for fewer" generate safety train 100000
check "a wrong part is refused" says "math.awk: -v part=train|valid|test" generate math tset 10

echo "$passed passed, $failed failed"
[ $failed = 0 ]
