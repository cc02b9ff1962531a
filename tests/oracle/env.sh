#!/bin/sh
# Makes the pinned Python environment of tests/oracle/ and bench/peers/ and
# prints the path of its python as the last line of stdout.
#   LORI_ORACLE_ENV  where (default ~/.cache/lori/oracle-env), outside the
#                    repository; used again while requirements.txt stays the
#                    same. An environment of your own that has the pinned
#                    versions is used as it is.
# Exit 3: PyPI cannot be reached and nothing else is wrong; 1: any failure.
#   tests/oracle/env.sh --unreachable LOG   exit 0 when LOG and a new, smaller
#                    attempt both show that PyPI cannot be reached
set -eu

here=$(cd "$(dirname "$0")" && pwd)
environment=${LORI_ORACLE_ENV:-${HOME:?}/.cache/lori/oracle-env}
python=$environment/bin/python
wanted=$(sha256sum "$here/requirements.txt" | cut -d ' ' -f 1)

say() { echo "oracle: $*" >&2; }
fail() { say "$*"; exit 1; }

# The words by which pip tells that there was no connection.
no_network='Could not resolve host|NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|MaxRetryError|NameResolutionError|Connection refused|Connection reset|Network is unreachable|Temporary failure in name resolution|Name or service not known'

unreachable() { # LOG
    grep -qE "$no_network" "$1" || return 1
    attempt=$(mktemp -d)
    # The environment's pip, or that of the system.
    pip_of=$python
    [ -x "$pip_of" ] || pip_of=python3
    got=0
    "$pip_of" -m pip download --quiet --no-deps --no-cache-dir --retries 1 --timeout 20 \
        --dest "$attempt" packaging >"$attempt/log" 2>&1 && got=1
    if [ "$got" = 0 ] && grep -qE "$no_network" "$attempt/log"; then
        rm -rf "$attempt"
        return 0
    fi
    rm -rf "$attempt"
    return 1
}

make_environment() {
    command -v python3 >/dev/null 2>&1 ||
        fail "needs python3 with venv: apt-get install python3 python3-venv"
    say "making $environment (about 6 GB, once for each requirements.txt)"
    rm -rf "$environment"
    mkdir -p "$(dirname "$environment")"
    log=$(mktemp)
    python3 -m venv "$environment" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "python3 -m venv failed: apt-get install python3-venv"
    }
    : >"$environment/.made-by-lori"
    "$python" -m pip install --quiet --disable-pip-version-check \
        -r "$here/requirements.txt" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        if unreachable "$log"; then
            say "PyPI cannot be reached"
            exit 3
        fi
        fail "installing tests/oracle/requirements.txt failed, and not for want of a network"
    }
    rm -f "$log"
    echo "$wanted" >"$environment/.requirements.sha256"
}

pinned() { # the environment has the pinned versions
    "$python" -c "import sys; sys.path.insert(0, sys.argv[1])
import common; common.check_versions()" "$here"
}

ready() {
    [ -x "$python" ] &&
        [ "$(cat "$environment/.requirements.sha256" 2>/dev/null)" = "$wanted" ]
}

if [ "${1:-}" = --unreachable ]; then
    unreachable "$2" && exit 0
    exit 1
fi
if ! ready; then
    if [ -x "$python" ] && [ ! -e "$environment/.made-by-lori" ]; then
        pinned || fail "$environment is not of ours and has other versions: \
name another folder in LORI_ORACLE_ENV"
    else
        make_environment
    fi
fi
pinned || fail "$environment is damaged: remove it and run again"
echo "$python"
