#!/bin/sh
# run_cli.sh - tests of the program: every command on a tiny random model, exact
# outputs where they are exact, and one-line errors for bad inputs.
#   run_cli.sh LORI TINY_GGUF [EMBED] [-v]     -v: print each bad input's message
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
embed=
case ${3:-} in '' | -v) ;; *) embed=$(readlink -f "$3") && shift ;; esac
verbose=${3:-}
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-cli.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 1
passed=0 failed=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed 's/^/    /' out err 2>/dev/null | head -n 8
}
# runs NAME COMMAND...: succeeds
runs() {
    name=$1
    shift
    if "$@" >out 2>err; then pass; else fail "$name (exit $?)"; fi
}
# says NAME TEXT: the last output holds it
says() {
    if grep -qF -- "$2" out; then pass; else fail "$1: no '$2' in the output"; fi
}
# refuses NAME EXIT TEXT OUTPUT COMMAND...: one line on stderr that holds TEXT,
# the exit code, and no OUTPUT left behind
refuses() {
    name=$1 code=$2 text=$3 output=$4
    shift 4
    "$@" >out 2>err
    got=$?
    grep '^lori: ' err >line
    [ -z "$verbose" ] || printf '%-34s exit %d  %s\n' "$name" "$got" "$(cat line)"
    left=$(find . -maxdepth 1 -name '*.tmp*' | head -n 1)
    if [ "$got" != "$code" ]; then
        fail "$name: exit $got, not $code"
    elif [ "$(wc -l <line)" != 1 ] || ! grep -qF -- "$text" line; then
        fail "$name: no '$text' in one line"
    elif [ -n "$left" ] || { [ "$output" != - ] && [ -e "$output" ]; }; then
        fail "$name: left $left$output behind"
    else
        pass
    fi
}

# ---- import, inspect, env ------------------------------------------------
"$tiny" tiny.gguf 1 || exit 1
runs import "$lori" import tiny.gguf base --dtype f32
says import "base: 2 layers, width 64, vocabulary 274, 20 tensors in F32"
for f in config.json generation_config.json model.safetensors tokenizer.json \
    tokenizer_config.json chat_template.jinja; do
    if [ -s base/$f ]; then pass; else fail "import wrote no $f"; fi
done
runs "import again" "$lori" import tiny.gguf base2 --dtype f32
if cmp -s base/model.safetensors base2/model.safetensors; then pass; else fail "two imports differ"; fi
refuses "import over a folder" 1 "base" - "$lori" import tiny.gguf base
runs inspect "$lori" inspect --base base --lora-rank 8 --json
says inspect '"parameters": 79296'
says inspect '"B": 7168'
runs env "$lori" env
says env "lori     0.1.0"
runs "env on the baseline" env LORI_ISA=base "$lori" env
says "env on the baseline" "base kernels and products"
refuses "an unknown instruction set" 2 "'mmx' is not known; there are amx, avx512bf16" - \
    env LORI_ISA=mmx "$lori" env
runs version "$lori" --version

# ---- train, mask, merge --------------------------------------------------
i=0
: >train.jsonl
while [ $i -lt 24 ]; do
    printf '{"question": "say %d", "answer": "it is the %d"}\n' $i $((i * 3)) >>train.jsonl
    i=$((i + 1))
done
head -n 6 train.jsonl >valid.jsonl
common="model_name_or_path=base train_file=train.jsonl validation_file=valid.jsonl dtype=f32
    per_device_train_batch_size=6 lora_rank=8 lora_alpha=20 max_steps=6 logging_steps=2"
# shellcheck disable=SC2086
runs train "$lori" train $common output_dir=d lori_a_seed=7 learning_rate=1e-2 --json
says train '"trainable_parameters": 7168'
# shellcheck disable=SC2086
OMP_NUM_THREADS=1 runs "train, 1 thread" "$lori" train $common output_dir=d1 lori_a_seed=7 learning_rate=1e-2
if cmp -s d/adapter_model.safetensors d1/adapter_model.safetensors; then
    pass
else
    fail "1 thread and all threads trained different bits"
fi
runs mask "$lori" mask d m
says mask "m: 716 of 7168 entries of B kept (sparsity 0.9)"
# shellcheck disable=SC2086
runs sparse "$lori" train $common output_dir=s lori_phase=sparse --lori-mask-path m --learning-rate=2e-2 --json
says sparse '"trainable_parameters": 716'
runs "inspect adapter" "$lori" inspect --adapter s --mask m --json
says "inspect adapter" '"B_nonzero": 716'
says "inspect adapter" '"a_seed": "7"'
# shellcheck disable=SC2086
runs lora "$lori" train $common output_dir=l method=lora learning_rate=1e-2
runs cat "$lori" merge --adapter d --adapter l --weights 0.5,-0.25 --output cat
runs linear "$lori" merge --adapter d --adapter l --method linear --output lin
runs "merge into" "$lori" merge --into base --adapter s --output merged
runs "dry run" "$lori" train $common output_dir=no --dry-run
says "dry run" "# layers: 2 keep everything"
if [ -e no ]; then fail "a dry run wrote"; else pass; fi

# ---- generate, score -----------------------------------------------------
runs generate "$lori" generate --model base --adapter s --prompt "say 3" --max-new-tokens 8 --dtype f32 --json
cp out a.json
runs "generate merged" "$lori" generate --model merged --prompt "say 3" --max-new-tokens 8 --dtype f32 --json
ids() { sed -n '/"ids"/,/]/p' "$1" | tr -d ' \n'; }
if [ "$(ids a.json)" = "$(ids out)" ]; then pass; else fail "adapter and merged model generate different ids"; fi
runs "generate chat" "$lori" generate --model base --prompt hi --chat --temperature 0.7 --top-p 0.9 --top-k 20 --seed 3 --max-new-tokens 4
cp out first
runs "generate chat again" "$lori" generate --model base --prompt hi --chat --temperature 0.7 --top-p 0.9 --top-k 20 --seed 3 --max-new-tokens 4
if cmp -s first out; then pass; else fail "same seed, different text"; fi
runs "score ids" "$lori" score --model base --ids 5,6,7,8 --top 2 --dtype f32 --json
says "score ids" '"logsumexp"'
runs "score data" "$lori" score --model base --adapter s --data valid.jsonl --exact-match --output answers.jsonl --json
says "score data" '"exact_match"'
if [ "$(wc -l <answers.jsonl)" = 6 ]; then pass; else fail "answers.jsonl has not 6 lines"; fi

# waits FILE: until it holds something (a run logs its first steps), 60 s at most
waits() {
    tries=0
    while [ ! -s "$1" ] && [ $tries -lt 1200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
}

# ---- interrupt and resume ------------------------------------------------
long="train_file=train.jsonl dtype=f32 lora_rank=8 max_steps=4000
    per_device_train_batch_size=2 learning_rate=1e-3 lori_a_seed=7"
# shellcheck disable=SC2086
"$lori" train $long model_name_or_path=base output_dir=stopped >out 2>err &
pid=$!
waits stopped/metrics.jsonl
kill -INT $pid
wait $pid
code=$?
if [ $code = 130 ] && [ -s stopped/adapter_model.safetensors ]; then
    pass
else
    fail "Ctrl-C: exit $code, or no adapter"
fi
runs "adapter after Ctrl-C" "$lori" inspect --adapter stopped
# shellcheck disable=SC2086
runs resume "$lori" train $long model_name_or_path=base output_dir=stopped resume_from_checkpoint=true
# shellcheck disable=SC2086
runs uninterrupted "$lori" train $long model_name_or_path=base output_dir=whole
if cmp -s stopped/adapter_model.safetensors whole/adapter_model.safetensors; then
    pass
else
    fail "resumed and uninterrupted training differ"
fi

# ---- a base that is cut short while it is mapped --------------------------
cp -r base shrunk
# shellcheck disable=SC2086
"$lori" train $long model_name_or_path=shrunk output_dir=cut >out 2>err &
pid=$!
waits cut/metrics.jsonl
: >shrunk/model.safetensors
wait $pid
code=$?
if [ $code = 1 ] && grep -q 'shrunk/model.safetensors: the file became shorter' err; then
    pass
else
    fail "a shrinking base: exit $code"
fi

# ---- the library ----------------------------------------------------------
if [ -n "$embed" ]; then
    runs embed "$embed" base d
    says embed "ok"
fi

# ---- bad inputs ----------------------------------------------------------
bad() { # a copy of the base to damage
    rm -rf bad
    cp -r base bad
}
train_bad() { "$lori" train model_name_or_path=bad train_file="$1" output_dir=o max_steps=2 dtype=f32 $2; }

bad
head -c 1000 base/model.safetensors >bad/model.safetensors
refuses "truncated safetensors" 1 "bad/model.safetensors" o train_bad train.jsonl ""
printf '\377\377\377\377\377\377\377\177{}' >bad/model.safetensors
refuses "lying safetensors header" 1 "bad/model.safetensors" o train_bad train.jsonl ""
head -c 20000 tiny.gguf >cut.gguf
refuses "truncated GGUF" 1 "cut.gguf" o "$lori" import cut.gguf o
bad
rm bad/model.safetensors
echo '{"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}' >bad/model.safetensors.index.json
refuses "missing shard" 1 "model-00001-of-00002.safetensors" o train_bad train.jsonl ""
bad
sed -i 's/"intermediate_size": 96/"intermediate_size": 80/' bad/config.json
refuses "wrong shape" 1 "mlp.gate_proj.weight" o train_bad train.jsonl ""
bad
: >empty.jsonl
refuses "empty dataset" 1 "empty.jsonl" o train_bad empty.jsonl ""
sed '3s/"answer"/"reply"/' train.jsonl >field.jsonl
refuses "row without the field" 1 "field.jsonl:3" o train_bad field.jsonl ""
printf 'model_name_or_path: base\nlearning_rat: 1e-3\ntrain_file: train.jsonl\noutput_dir: o\n' >typo.yaml
refuses "unknown recipe key" 2 "typo.yaml:2" o "$lori" train typo.yaml
cp -r d other
sed -i 's/layers/lavers/g' other/adapter_model.safetensors
rm other/lori.json
refuses "adapter for another base" 1 "lavers" o "$lori" merge --into base --adapter other --output o
refuses "adapter for another base (score)" 1 "lavers" - "$lori" score --model base --adapter other --ids 1,2
: >file
refuses "unwritable output" 1 "output_dir 'file/o' cannot be used, choose another" - train_bad train.jsonl "output_dir=file/o"
refuses "NaN loss" 1 "step" o/adapter_model.safetensors train_bad train.jsonl "learning_rate=1e38 max_steps=20"
refuses "unknown option" 2 "did you mean" - "$lori" generate --modle base --prompt x
refuses "unknown command" 2 "did you mean 'train'" - "$lori" trian
refuses "no prompt" 2 "prompt" - "$lori" generate --model base

echo "$passed passed, $failed failed"
[ $failed = 0 ]
