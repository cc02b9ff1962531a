#!/bin/sh
# fresh_clone.sh - clones this repository into an empty folder and runs there
# what a new user runs: make check and make demo; then the same tests with
# clang and under the sanitizers. Prints how long each took.
set -eu
from=$(git rev-parse --show-toplevel)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
git clone -q "$from" "$dir/lori"
cd "$dir/lori"
timed() {
    start=$(date +%s)
    "$@" >"$dir/log" 2>&1 || {
        tail -n 40 "$dir/log"
        echo "FAILED: $*"
        exit 1
    }
    echo "$(($(date +%s) - start)) s  $*"
}
timed make -j"$(nproc)" check
timed make demo
timed make -j"$(nproc)" CC=clang check
timed make -j"$(nproc)" CONFIG=asan check
