#!/bin/sh
# counts.sh - parameter counts from a config.json alone: Llama-3-8B and
# Mistral-7B at ranks 32 and 64, against the figures of the paper's setting.
#   counts.sh [LORI]
set -eu
lori=${1:-build/gcc-release/lori}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
config() { # NAME TYPE VOCAB MORE
    mkdir -p "$dir/$1"
    cat >"$dir/$1/config.json" <<EOF
{"model_type": "$2", "vocab_size": $3, "hidden_size": 4096, "intermediate_size": 14336,
 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
 "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
 "tie_word_embeddings": false$4}
EOF
}
config llama-3-8b llama 128256 ""
config mistral-7b mistral 32000 ', "sliding_window": 4096'
bad=0
check() { # MODEL RANK KEY WANTED
    got=$("$lori" inspect --base "$dir/$1/config.json" --lora-rank "$2" --json |
        sed -n "s/^ *\"$3\": \([0-9]*\),*$/\1/p" | tail -n 1)
    printf '%-12s r=%-3s %-12s %15s' "$1" "$2" "$3" "$got"
    if [ "$got" = "$4" ]; then echo "  ok"; else echo "  WANTED $4"; bad=1; fi
}
check llama-3-8b 32 parameters 8030261248
check mistral-7b 32 parameters 7241732096
for m in llama-3-8b mistral-7b; do
    for row in "32 lora 83886080" "32 lori_d 44040192" "32 lori_s 4404019" \
        "64 lora 167772160" "64 lori_d 88080384" "64 lori_s 8808038"; do
        # shellcheck disable=SC2086
        check $m $row
    done
done
a=$("$lori" inspect --base "$dir/llama-3-8b/config.json" --lora-rank 32 --json | tr -d ' \n' | sed 's/.*"sparsity":[0-9.]*,"A":\([0-9]*\),.*/\1/')
printf '%-12s r=%-3s %-12s %15s' llama-3-8b 32 A "$a"
if [ "$a" = 39845888 ]; then echo "  ok"; else echo "  WANTED 39845888"; bad=1; fi
exit $bad
