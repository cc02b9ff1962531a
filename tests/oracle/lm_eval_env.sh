#!/bin/sh
# Makes the Python environment of lm_eval_tasks.py beside that of env.sh, whose
# packages (torch, transformers, ...) it sees, and prints its folder as the last
# line of stdout. About 600 MB, once for each pair of requirements files.
#   LORI_ORACLE_ENV  the environment of env.sh; this one is FOLDER-lm-eval
# Exit 3: PyPI cannot be reached and nothing else is wrong; 1: any failure.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
say() { echo "oracle: $*" >&2; }

status=0
python=$("$here/env.sh") || status=$?
[ "$status" = 0 ] || exit "$status"
python=$(echo "$python" | tail -n 1)
base=$(dirname "$(dirname "$python")")
environment=$base-lm-eval
# env.sh looks for the first hash when it is told to use this environment.
wanted=$(sha256sum "$here/requirements.txt" | cut -d ' ' -f 1)
also=$(sha256sum "$here/requirements-lm-eval.txt" | cut -d ' ' -f 1)

if [ "$(cat "$environment/.requirements.sha256" 2>/dev/null)" != "$wanted" ] ||
    [ "$(cat "$environment/.lm-eval.sha256" 2>/dev/null)" != "$also" ]; then
    say "making $environment"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    paths='import site; print(site.getsitepackages()[0])'
    "$python" -c "$paths" >"$("$environment/bin/python" -c "$paths")/oracle.pth"
    log=$(mktemp)
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$here/requirements-lm-eval.txt" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        "$here/env.sh" --unreachable "$log" && say "PyPI cannot be reached" && exit 3
        say "installing tests/oracle/requirements-lm-eval.txt failed, and not for want of a network"
        exit 1
    }
    rm -f "$log"
    echo "$also" >"$environment/.lm-eval.sha256"
    echo "$wanted" >"$environment/.requirements.sha256"
fi
echo "$environment"
