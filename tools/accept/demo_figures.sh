#!/bin/sh
# demo_figures.sh - the demo in numbers: exit 0, at most 10 minutes (the download and
# the build apart), LoRI-D and LoRI-S validation loss at most half of the
# base's, LoRI-S within 10 % of LoRI-D.
set -eu
make all >/dev/null
tools/get_smollm2.sh >/dev/null
start=$(date +%s)
make demo
took=$(($(date +%s) - start))
loss() { sed -n 's/^ *"loss": \([0-9.e-]*\),*$/\1/p' "demo/$1.valid.json"; }
awk -v b="$(loss base)" -v d="$(loss lori-d)" -v s="$(loss lori-s)" -v t="$took" '
BEGIN {
    printf "validation loss: base %.4f, LoRI-D %.4f (%.2f of it), LoRI-S %.4f (%.2f of it; %.3f of LoRI-D); %d s\n", b, d, d / b, s, s / b, s / d, t
    exit !(d <= b / 2 && s <= b / 2 && s <= 1.1 * d && t <= 600)
}'
