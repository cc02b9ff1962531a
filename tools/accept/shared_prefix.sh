#!/bin/sh
# shared_prefix.sh - 1,000 prompts that begin with the same 400 tokens cost at
# most 1.2 times what they cost without them (and the 400 once). SmolLM2.
#   shared_prefix.sh [LORI] [PROMPTS]
# The prompts come in two halves, timed in the order alone, shared, shared,
# alone: a machine that slowly changes its speed then favours neither. Halves
# of 500 cost what the whole does, which computes the 400 tokens twice, too:
# once for each block of 512 rows.
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
        half = i < n / 2 ? 1 : 2
        own = " Question " i ": which of the two animals in the story came first, and why did it wait?"
        printf "{\"prompt\": \"%s\"}\n", own > ("apart" half ".jsonl")
        printf "{\"prompt\": \"%s\"}\n", prefix own > ("shared" half ".jsonl")
    }
    printf "{\"prompt\": \"%s\"}\n", prefix > "once.jsonl"
}'
seconds() { # NAME: of the rows alone, without loading
    "$lori" generate --model model --input "$1.jsonl" --output "$1.out" --max-new-tokens 4 --ignore-eos --json \
        --replace 2>/dev/null | sed -n 's/.*"seconds": \([0-9.e-]*\).*/\1/p'
}
once=$(seconds once) # reads the model's file for the first time
once=$(seconds once)
apart=$(seconds apart1)
shared=$(seconds shared1)
shared="$shared $(seconds shared2)"
apart="$apart $(seconds apart2)"
tokens=$(sed -n '1s/.*"prompt_tokens": \([0-9]*\).*/\1/p' once.out)
awk -v n="$prompts" -v apart="$apart" -v o="$once" -v shared="$shared" -v t="$tokens" 'BEGIN {
    split(apart, a, " ")
    split(shared, s, " ")
    ratio = (s[1] + s[2]) / (a[1] + a[2] + o)
    printf "%d prompts: %.1f + %.1f s alone, %.1f + %.1f s behind the same %d tokens (%.2f s once): ratio %.2f, at most 1.2\n",
        n, a[1], a[2], s[1], s[2], t, o, ratio
    exit !(ratio <= 1.2)
}'
