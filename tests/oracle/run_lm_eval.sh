#!/bin/sh
# Compares `lori eval` with lm-evaluation-harness: run.sh with the environment
# of lm_eval_env.sh. Arguments and variables as run.sh has them; the rows are
# those of LORI_DATA (default ../shared/data beside the repository).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
status=0
environment=$("$here/lm_eval_env.sh") || status=$?
if [ "$status" = 3 ]; then
    echo "oracle: SKIP: PyPI cannot be reached"
    exit 0
fi
[ "$status" = 0 ] || exit 1
LORI_ORACLE_ENV=$(echo "$environment" | tail -n 1)
export LORI_ORACLE_ENV
exec "$here/run.sh" "$@" lm_eval_tasks.py
