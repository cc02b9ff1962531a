#!/bin/sh
# shared_prefix.sh - 1,000 prompts that begin with the same 400 tokens cost at
# most 1.2 times what they cost without them (and the 400 once). SmolLM2.
#   shared_prefix.sh [LORI] [PROMPTS]
set -eu
lori=$(readlink -f "${1:-build/gcc-release/lori}")
prompts=${2:-1000}
gguf=$(tools/get_smollm2.sh | tail -n 1)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"$lori" import "$gguf" model >/dev/null 2>&1
awk -v n="$prompts" 'BEGIN {
    for (i = 0; i < 400; i++) # a word and its blank are a token each
        prefix = prefix (i % 2 ? " the" : " cat")
    for (i = 0; i < n; i++) {
        own = " Question " i ": which of the two animals in the story came first, and why did it wait?"
        printf "{\"prompt\": \"%s\"}\n", own > "apart.jsonl"
        printf "{\"prompt\": \"%s\"}\n", prefix own > "shared.jsonl"
    }
    printf "{\"prompt\": \"%s\"}\n", prefix > "once.jsonl"
}'
seconds() { # NAME: of the rows alone, without loading
    "$lori" generate --model model --input "$1.jsonl" --output "$1.out" --max-new-tokens 4 --ignore-eos --json \
        --replace 2>/dev/null | sed -n 's/.*"seconds": \([0-9.e-]*\).*/\1/p'
}
once=$(seconds once) # reads the model's file for the first time
once=$(seconds once)
apart=$(seconds apart)
shared=$(seconds shared)
tokens=$(sed -n '1s/.*"prompt_tokens": \([0-9]*\).*/\1/p' once.out)
awk -v n="$prompts" -v a="$apart" -v o="$once" -v s="$shared" -v t="$tokens" 'BEGIN {
    ratio = s / (a + o)
    printf "%d prompts: %.1f s alone, %.1f s behind the same %d tokens (%.2f s once): ratio %.2f, at most 1.2\n", n, a, s, t, o, ratio
    exit !(ratio <= 1.2)
}'
