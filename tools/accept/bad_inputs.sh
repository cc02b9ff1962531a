#!/bin/sh
# bad_inputs.sh - prints every bad input's one-line error and exit code; fails
# when one is missing, has several lines, or leaves output behind.
#   bad_inputs.sh [BUILD]
build=${1:-build/gcc-release}
make --no-print-directory BUILD="$build" "$build/lori" "$build/tiny_gguf" >/dev/null &&
    tests/cli/run_cli.sh "$build/lori" "$build/tiny_gguf" -v
