#!/bin/sh
# check_rungs.sh BUILD - the tests of what computes, once for every instruction
# set that this processor runs (the backend's own tests cover all in one run).
set -eu
build=$1
rungs="amx avx512bf16 avx512 avx2 base amx-emulated"
for isa in $rungs; do
    if ! LORI_ISA=$isa "$build/lori" env >/dev/null 2>&1; then
        echo "SKIP $isa: $(LORI_ISA=$isa "$build/lori" env 2>&1 | head -n 1)"
        continue
    fi
    echo "== instruction set $isa"
    for room in model infer train job; do
        [ -x "$build/test_$room" ] || continue
        LORI_ISA=$isa OMP_WAIT_POLICY=passive "$build/test_$room" --short-filename
    done
    LORI_ISA=$isa tests/cli/run_cli.sh "$build/lori" "$build/tiny_gguf" "$build/embed"
done
echo "check-rungs: all passed"
