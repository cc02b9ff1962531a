#!/bin/sh
# demo.sh - the paper in miniature (make demo, make demo-smollm2): four tasks;
# LoRA, LoRI-D and LoRI-S for each; merges of all four; pairs that begin with
# safety; one table and one page.
#   demo.sh LORI OUT [tiny|smollm2]   LORI: the program; OUT: folder to work in
# Interrupted, it goes on when started again. tiny needs no network.
set -eu
lori=$1 out=$2 which=${3:-tiny}
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"

case $which in
tiny) model=$here/models/tiny ;;
smollm2)
    model=$out/smollm2
    if [ ! -d "$model" ]; then
        gguf=$("$here/tools/get_smollm2.sh" | tail -n 1)
        "$lori" import "$gguf" "$model" --dtype bf16
    fi
    ;;
*)
    echo "demo.sh: tiny or smollm2, not '$which'" >&2
    exit 2
    ;;
esac

TEST=100 "$here/data/make.sh" "$out/data" 1
"$lori" run "$here/recipes/$which/four.yaml" --model "$model" --data-dir "$out/data" --output "$out/runs"

question=$(head -n 1 "$out/data/math/test.jsonl" | sed 's/{"prompt": "\([^"]*\)".*/\1/')
cat <<END

The page: $out/runs/report.html
Try it:   $lori generate --model $model --adapter $out/runs/math-lori-s --chat "$question"
          $lori chat --model $model --adapter $out/runs/cat-lori-s
END
