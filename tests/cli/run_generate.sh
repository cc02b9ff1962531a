#!/bin/sh
# run_generate.sh - tests of `lori generate`: prompts from everywhere, several
# adapters, rows of a file, runs that are killed and go on, bad inputs.
#   run_generate.sh LORI TINY_GGUF
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-generate.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 1
passed=0 failed=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed 's/^/    /' out err 2>/dev/null | cut -c 1-300 | head -n 8
}
runs() { # NAME COMMAND...: succeeds
    name=$1
    shift
    if "$@" >out 2>err; then pass; else fail "$name (exit $?)"; fi
}
says() { # NAME TEXT: the last output holds it
    if grep -qF -- "$2" out; then pass; else fail "$1: no '$2' in the output"; fi
}
equal() { # NAME FILE FILE
    if cmp -s "$2" "$3"; then pass; else fail "$1: $2 and $3 differ"; fi
}
refuses() { # NAME EXIT TEXT COMMAND...: one line that holds TEXT, no output file
    name=$1 code=$2 text=$3
    shift 3
    "$@" >out 2>err
    got=$?
    grep '^lori: ' err >line
    if [ $got != "$code" ]; then
        fail "$name: exit $got, not $code"
    elif [ "$(wc -l <line)" != 1 ] || ! grep -qF -- "$text" line; then
        fail "$name: no '$text' in one line"
    elif [ -e new.jsonl ]; then
        fail "$name: left an output"
    else
        pass
    fi
}

"$tiny" tiny.gguf 1 && "$lori" import tiny.gguf base --dtype f32 >/dev/null 2>&1 || exit 1
printf '{"prompt": "a", "completion": "b c d"}\n' >train.jsonl
for seed in 1 2; do
    "$lori" train model_name_or_path=base train_file=train.jsonl dtype=f32 max_steps=4 lora_alpha=20 \
        lora_rank=$((4 * seed)) learning_rate=5e-2 lori_a_seed=$seed output_dir=ad$seed >out 2>&1 || exit 1
done
gen() { "$lori" generate --model base --dtype f32 "$@"; }

# ---- one prompt, from everywhere -------------------------------------------
runs prompt gen --prompt "say 3" --max-new-tokens 6
cp out want
runs word gen "say 3" --max-new-tokens 6
equal word want out
printf 'say 3' >prompt.txt
runs "prompt file" gen --prompt-file prompt.txt --max-new-tokens 6
equal "prompt file" want out
gen --max-new-tokens 6 <prompt.txt >out 2>err
equal "standard input" want out
runs "n replies" gen "say 3" --n 3 --temperature 1.5 --max-new-tokens 5 --seed 4 --json
says "n replies" '"choices"'
runs "first alone" gen "say 3" --temperature 1.5 --max-new-tokens 5 --seed 6 --json
ids() { sed -n '/"ids"/,/]/p' | tr -d ' \n' | sed 's/],/]/g'; }
ids <out >alone
runs "n replies again" gen "say 3" --n 3 --temperature 1.5 --max-new-tokens 5 --seed 4 --json
if ids <out | grep -qF "$(cat alone)"; then pass; else fail "reply 2 of seed 4 is not that of seed 6"; fi

# ---- tokens guessed ahead ------------------------------------------------------
for drafts in -1 0 1 7; do
    runs "draft tokens $drafts" gen "say 3 say 3 say 3 say" --max-new-tokens 60 --ignore-eos --json \
        --draft-tokens $drafts
    ids <out >guessed$drafts
    equal "draft tokens $drafts" guessed-1 guessed$drafts
done
refuses "draft tokens 8" 2 "draft_tokens is -1 (none), 0 (as many as pay) or 1 to 7" gen "say" --draft-tokens 8

# ---- adapters by name --------------------------------------------------------
runs "adapter one" gen "say 3" --adapter ad1 --max-new-tokens 8 --ignore-eos --json
ids <out >one
runs "adapter two" gen "say 3" --adapter ad2 --max-new-tokens 8 --ignore-eos --json
ids <out >two
runs "no adapter" gen "say 3" --max-new-tokens 8 --ignore-eos --json
ids <out >none
if cmp -s one two || cmp -s one none; then fail "adapters change nothing"; else pass; fi
both="--adapter x=ad1 --adapter y=ad2 --max-new-tokens 8 --ignore-eos --json"
# shellcheck disable=SC2086
for use in one: two:y none:none; do
    name=${use#*:}
    runs "use $name" gen "say 3" $both ${name:+--use "$name"}
    ids <out >got
    equal "use '$name'" "${use%:*}" got
done

# ---- generation_config.json ---------------------------------------------------
cp -r base sampled
printf '{"do_sample": true, "temperature": 0.6, "top_k": 7, "max_new_tokens": 4, "eos_token_id": 2, "num_beams": 3}' \
    >sampled/generation_config.json
runs defaults "$lori" generate --model sampled --dtype f32 "say 3" --json
says defaults '"temperature": 0.6'
says defaults '"top_k": 7'
says defaults '"max_new_tokens": 4'
if grep -q 'sampling, temperature 0.6' err && grep -q "num_beams" err; then pass; else fail "defaults are not reported"; fi
runs greedy "$lori" generate --model sampled --dtype f32 "say 3" --greedy --json
says greedy '"do_sample": false'
runs "temperature 0" "$lori" generate --model sampled --dtype f32 "say 3" --temperature 0 --json
says "temperature 0" '"do_sample": false'

# ---- rows of a file -------------------------------------------------------------
# Two in five may make 220 tokens, but soon meet a stop string: several blocks.
awk 'BEGIN {
    for (i = 0; i < 600; i++) {
        adapter = i % 3 == 0 ? "null" : i % 3 == 1 ? "\"x\"" : "\"y\""
        more = i % 5 < 3 ? "" : ", \"stop\": [\"a\", \"e\", \"i\", \"o\", \"n\", \"r\", \"s\", \"t\"]"
        printf "{\"id\": %d, \"prompt\": \"a common beginning, say %d\", \"max_new_tokens\": %d, \"temperature\": 0.%d, \"adapter\": %s%s}\n",
            i, i, i % 5 < 3 ? 10 + i % 50 : 220, i % 10, adapter, more
    }
}' >in.jsonl
printf '{"messages": [{"role": "user", "content": "hi"}], "n": 2, "logprobs": true, "top_logprobs": 2, "stop": ["z", "q"], "max_new_tokens": 5}\n' >>in.jsonl
rows() { gen --adapter x=ad1 --adapter y=ad2 --input in.jsonl --output "$1" --ignore-eos --seed 5; }
# begin FILE: the same in the background, as the process $!
begin() {
    "$lori" generate --model base --dtype f32 --adapter x=ad1 --adapter y=ad2 --input in.jsonl \
        --output "$1" --ignore-eos --seed 5 >out 2>err &
}
runs rows rows whole.jsonl
if [ "$(wc -l <whole.jsonl)" = 601 ] && [ ! -e whole.jsonl.partial ] && [ ! -e whole.jsonl.partial.json ]; then
    pass
else
    fail "601 rows, and nothing left behind"
fi
if sed -n '43p' whole.jsonl | grep -q '"id": 42, .*"completion_tokens": 52.*"prompt_tokens"'; then pass; else fail "row 43"; fi
if tail -n 1 whole.jsonl | grep -q '"choices".*"top_logprobs"'; then pass; else fail "the last row"; fi
# A row is what its prompt is alone: row 2 has adapter x, temperature 0.1, seed 6.
runs "row alone" gen "a common beginning, say 1" --adapter ad1 --temperature 0.1 --seed 6 --max-new-tokens 11 --ignore-eos
head -c -1 out | tr '\n' ' ' >alone
sed -n 2p whole.jsonl | grep -o '"completion_tokens": [0-9]*' >out
says "row alone" '"completion_tokens": 11'

# killed in the middle, again and again, and once with half a line at the end
kills=0
: >size
while [ $kills -lt 4 ]; do
    begin killed.jsonl
    pid=$!
    before=$(wc -c <size)
    tries=0
    while [ ! -e killed.jsonl ] && [ $tries -lt 2000 ]; do
        # It may be gone when it is looked at: the run has ended.
        now=$({ wc -c <killed.jsonl.partial; } 2>/dev/null || echo 0)
        [ "$now" -gt "$before" ] && break
        sleep 0.01
        tries=$((tries + 1))
    done
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ -e killed.jsonl.partial ] || break
    cp killed.jsonl.partial size
    kills=$((kills + 1))
done
if [ $kills -ge 3 ]; then pass; else fail "only $kills runs could be killed in the middle"; fi
if [ -e killed.jsonl.partial ]; then
    printf '{"id": 64, "text": "half a li' >>killed.jsonl.partial
    refuses "other settings" 1 "'seed'" gen --adapter x=ad1 --adapter y=ad2 --input in.jsonl --output killed.jsonl --ignore-eos --seed 6
    refuses "another adapter" 1 "'adapter y'" gen --adapter x=ad1 --adapter y=ad1 --input in.jsonl --output killed.jsonl --ignore-eos --seed 5
    cp in.jsonl was
    echo '{"prompt": "one more"}' >>in.jsonl
    refuses "another input" 1 "'input'" rows killed.jsonl
    mv was in.jsonl
    runs "go on" rows killed.jsonl
    grep -q 'going on after row' err && pass || fail "it did not go on"
    equal "killed and whole" whole.jsonl killed.jsonl
fi
# interrupted
begin stopped.jsonl
pid=$!
tries=0
while [ ! -s stopped.jsonl.partial ] && [ ! -e stopped.jsonl ] && [ $tries -lt 2000 ]; do
    sleep 0.01
    tries=$((tries + 1))
done
refuses "two at once" 1 "stopped.jsonl.partial: another process writes it" rows stopped.jsonl
kill -INT $pid
wait $pid
code=$?
if [ $code = 130 ] && [ -s stopped.jsonl.partial ]; then pass; else fail "Ctrl-C: exit $code"; fi
runs "after Ctrl-C" rows stopped.jsonl
equal "stopped and whole" whole.jsonl stopped.jsonl
refuses "output exists" 2 "whole.jsonl exists" rows whole.jsonl
runs replace gen --adapter x=ad1 --adapter y=ad2 --input in.jsonl --output stopped.jsonl --ignore-eos --seed 5 --replace
equal "replaced" whole.jsonl stopped.jsonl

# ---- bad inputs ------------------------------------------------------------------
bad() { # TEXT: rows with this one as the third
    { head -n 2 in.jsonl && printf '%s\n' "$1" && sed -n 4p in.jsonl; } >bad.jsonl
}
bad_rows() { gen --adapter x=ad1 --adapter y=ad2 --input bad.jsonl --output new.jsonl; }
bad '{"prompt": "a", '
refuses "bad JSON" 1 "bad.jsonl:3:" bad_rows
bad '{"prompt": "a", "adapter": "xx"}'
refuses "unknown adapter" 1 "bad.jsonl:3: no adapter 'xx' is open; there are: none, x, y" bad_rows
bad '{"prompt": "a", "temprature": 1}'
refuses "misspelt key" 1 "bad.jsonl:3: unknown key 'temprature'; did you mean 'temperature'?" bad_rows
bad '{"prompt": "a", "top_p": 1.5}'
refuses "top_p" 2 "bad.jsonl:3: top_p 1.5" bad_rows
bad '{"prompt": "a", "temperature": "hot"}'
refuses "temperature" 1 "bad.jsonl:3: 'temperature'" bad_rows
bad '{"prompt": ""}'
refuses "empty prompt" 2 "bad.jsonl:3: the prompt is empty" bad_rows
bad '{"text": "a"}'
refuses "no prompt" 1 'bad.jsonl:3: a row needs either "prompt" or "messages"' bad_rows
bad '{"prompt": "a", "stop": [""]}'
refuses "empty stop string" 2 "bad.jsonl:3: stop string 0 is empty" bad_rows
bad '{"prompt": "a", "max_new_tokens": 100000}'
refuses "too long" 2 "bad.jsonl:3: a prompt of" bad_rows
bad '{"messages": [{"role": "user"}]}'
refuses "message without content" 2 "bad.jsonl:3: " bad_rows
: >bad.jsonl
refuses "no rows" 1 "bad.jsonl holds no rows" bad_rows
refuses "no input" 1 "missing.jsonl" gen --input missing.jsonl --output new.jsonl
refuses "no output" 2 "an output file is required" gen --input in.jsonl
refuses "output nowhere" 1 "nowhere/new.jsonl.partial" gen --input train.jsonl --output nowhere/new.jsonl
cp -r ad1 other
sed -i 's/layers/lavers/g' other/adapter_model.safetensors
rm -f other/lori.json
refuses "adapter for another base" 1 "lavers" gen "say 3" --adapter z=other
refuses "adapter named twice" 2 "already" gen "say 3" --adapter x=ad1 --adapter x=ad2
refuses "two unnamed adapters" 2 "needs a name" gen "say 3" --adapter ad1 --adapter ad2
refuses "two prompts" 2 "one prompt" gen "say 3" --prompt x
refuses "temperature below 0" 2 "temperature -1" gen "say 3" --temperature -1
refuses "empty word" 2 "the prompt is empty" gen --prompt ""

echo "$passed passed, $failed failed"
[ $failed = 0 ]
