#!/bin/sh
# eval_cli.sh - tests of `lori eval` and `lori run`: tasks on a tiny random
# model, exact tables, what is said about wrong inputs, and runs that are killed
# at random moments and end with the table of one that never was.
#   eval_cli.sh LORI TINY_GGUF PTY [SEED]    SEED: of the moments (the time)
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
pty=$(readlink -f "$3")
seed=${4:-$(date +%s)}
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-eval.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 1
passed=0 failed=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed 's/^/    /' out err 2>/dev/null | head -n 12
}
runs() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >out 2>err; then pass; else fail "$name (exit $?)"; fi
}
says() { # NAME TEXT: the last output holds it
    if grep -qF -- "$2" out; then pass; else fail "$1: no '$2' in the output"; fi
}
refuses() { # NAME EXIT TEXT COMMAND...: the code, and TEXT on stderr
    name=$1 code=$2 text=$3
    shift 3
    "$@" >out 2>err
    got=$?
    if [ "$got" != "$code" ]; then
        fail "$name: exit $got, not $code"
    elif ! grep -qF -- "$text" err; then
        fail "$name: no '$text' on stderr"
    else
        pass
    fi
}
same() { # NAME X Y
    if cmp -s "$2" "$3"; then pass; else fail "$1: $2 and $3 differ"; fi
}
# A number below $1, the same for the same SEED.
below() {
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    echo $((seed / 65536 % $1))
}

# ---- a base, data, adapters ------------------------------------------------
"$tiny" tiny.gguf 1 && "$lori" import tiny.gguf base --dtype f32 >out 2>err || exit 1
mkdir data
for task in sums words; do
    i=0
    while [ $i -lt 140 ]; do
        if [ $task = sums ]; then
            q="say $i" a=$((i * 3))
        else
            q="word $i" a="w$((i % 7))"
        fi
        printf '{"question": "%s", "answer": "it is the %s", "short": "%s", "gold": %d}\n' \
            "$q" "$a" "$a" $((i % 3)) >>data/$task.jsonl
        i=$((i + 1))
    done
done
mkdir -p data/commonsense
printf '[{"instruction": "true or false: one?", "input": "", "output": "the correct answer is true", "answer": "true"}]' \
    >data/commonsense/boolq.test.json

cat >choice.yaml <<'EOF'
task: choice
output_type: multiple_choice
test_file: data/sums.jsonl
doc_to_text: "{{question}}"
doc_to_choice: [it is, "it was", "{{short}}"]
doc_to_target: "{{gold}}"
EOF
cat >answer.yaml <<'EOF'
task: answer
output_type: generate_until
test_file: words.jsonl
doc_to_text: "{{question}}\n"
doc_to_target: "{{answer}}"
max_new_tokens: 12
until: ["\n"]
extract: {regex: 'w\d'}
EOF
cat >text.yaml <<'EOF'
task: text
output_type: loglikelihood_rolling
test_file: data/words.jsonl
doc_to_target: "{{answer}}"
metric_list: [token_perplexity, bits_per_byte]
limit: 20
EOF
cat >loss.yaml <<'EOF'
task: valid
output_type: loglikelihood_rolling
test_file: words.jsonl
doc_to_text: "{{question}}\n"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [loss]
EOF
common="model_name_or_path=base dtype=f32 lora_rank=4 max_steps=2 per_device_train_batch_size=4"
for name in one two; do
    # shellcheck disable=SC2086
    "$lori" train $common train_file=data/words.jsonl output_dir=$name learning_rate=2e-2 >out 2>err ||
        fail "training $name"
done

# ---- eval --------------------------------------------------------------------
tasks="--task choice.yaml --task answer.yaml --task text.yaml --data-dir data"
runs list "$lori" eval --list
says list "gsm8k/test.jsonl"
runs preset "$lori" eval --preset gsm8k
says preset "marker: \"The final answer is: \""
# shellcheck disable=SC2086
runs eval "$lori" eval --model base --base --adapter one --adapter second=two $tasks \
    --output whole --log-samples --dtype f32
cp out whole.md
says eval "| model  | choice acc | answer exact_match | text token_perplexity |"
says eval "| second | text   | bits_per_byte    |  20 |"
same "results.md is what was printed" whole.md whole/results.md
# a loss behind a prompt is the loss of training, whose prompts end in white space
"$lori" eval --model base --adapter one --task loss.yaml --data-dir data --output loss --dtype f32 >out 2>err ||
    fail "a validation loss"
"$lori" score --model base --adapter one --data data/words.jsonl --dtype f32 --prompt-template "{question}
" >score 2>err || fail "lori score"
loss=$(sed -n 's/.*, loss \([0-9.]*\),.*/\1/p' score)
if awk -v a="$loss" -v b="$(sed -n 's/.*"loss,none": *\([0-9.]*\).*/\1/p' loss/results.json | head -n 1)" \
    'BEGIN { exit !(a > 0 && a - b < 2e-6 && b - a < 2e-6) }'; then pass; else fail "loss: $(cat score loss/results.md)"; fi
for f in base one second; do
    if [ "$(wc -l <whole/$f/choice.jsonl)" = 140 ]; then pass; else fail "$f/choice.jsonl has not 140 lines"; fi
done
if cmp -s whole/base/choice.jsonl whole/one/choice.jsonl; then fail "an adapter changes nothing"; else pass; fi
if grep -q '"completion"' whole/base/answer.jsonl; then pass; else fail "no completions in the log"; fi
# shellcheck disable=SC2086
runs "eval again" "$lori" eval --model base --base --adapter one --adapter second=two $tasks \
    --output whole --log-samples --dtype f32
same "a finished evaluation" whole.md out
runs "eval, JSON" "$lori" eval --model base --task text.yaml --dtype f32 --json
says "eval, JSON" '"bits_per_byte_stderr,none": "N/A"'
"$lori" eval --preset boolq | sed 's/512/8/' >boolq.yaml # the tiny model's context is short
runs "eval of a preset" "$lori" eval --model base --task boolq.yaml --data-dir data --dtype f32
says "eval of a preset" "| base  | boolq | exact_match | 1 |"

# Killed at random moments, by Ctrl-C and outright, until it is through.
tries=0 code=1
while [ $code != 0 ] && [ $tries -lt 60 ]; do
    # shellcheck disable=SC2086
    "$lori" eval --model base --base --adapter one --adapter second=two $tasks \
        --output killed --log-samples --dtype f32 >out 2>err &
    pid=$!
    if [ $tries -lt 5 ]; then
        sleep "0.$(below 6)$(below 10)"
        [ $((tries % 2)) = 0 ] && kill -KILL $pid 2>/dev/null || kill -INT $pid 2>/dev/null
    fi
    wait $pid
    code=$?
    case $code in 0 | 130 | 137) ;; *) fail "a killed evaluation: exit $code" && break ;; esac
    tries=$((tries + 1))
done
same "an evaluation killed $tries times" whole.md out
for f in base one second; do
    for t in choice answer text; do same "its log" whole/$f/$t.jsonl killed/$f/$t.jsonl; done
done

# Killed after its log was made and before its settings were.
mkdir -p begun/base && : >begun/base/choice.jsonl
runs "killed at its beginning" "$lori" eval --model base --task choice.yaml --output begun --log-samples --dtype f32
same "its log" whole/base/choice.jsonl begun/base/choice.jsonl
rm begun/base/choice.settings.json
refuses "a log of nobody knows what" 1 "was made with other settings (they are not there)" \
    "$lori" eval --model base --task choice.yaml --output begun --log-samples --dtype f32
refuses "other settings" 1 "was made with other settings (documents, data)" \
    "$lori" eval --model base --task choice.yaml --output whole --log-samples --dtype f32 --limit 9
refuses "another model" 1 "was made with other settings (model)" \
    "$lori" eval --model base --adapter one=two --task choice.yaml --output whole --log-samples --dtype f32
runs "overwritten" "$lori" eval --model base --task choice.yaml --output whole --overwrite --dtype f32 --limit 9
says "overwritten" "| base  | choice | acc       | 9 |"
refuses "no data folder" 2 "name that folder with --data-dir" "$lori" eval --model base --task gsm8k
refuses "missing data" 1 "data file 'gsm8k/test.jsonl' is not in data" \
    "$lori" eval --model base --task gsm8k --data-dir data
refuses "unknown preset" 2 "did you mean 'boolq'?" "$lori" eval --model base --task bolq
refuses "no task" 2 "name one with --task" "$lori" eval --model base
refuses "two of one name" 2 "two models are named 'one'" \
    "$lori" eval --model base --adapter one --adapter one=two --task choice.yaml
sed 's/doc_to_choice/doc_to_choices/; s/acc/ac/' choice.yaml >bad.yaml
refuses "bad task" 2 "bad.yaml:5:1: unknown key 'doc_to_choices'; did you mean 'doc_to_choice'?" \
    "$lori" eval --model base --task bad.yaml

# ---- run ---------------------------------------------------------------------
cat >recipe.yaml <<'EOF'
model_name_or_path: base
data_dir: data
train:
  dtype: f32
  per_device_train_batch_size: 4
  max_steps: 6
  save_steps: 2
  optim: {learning_rate: 1.0e-2}
  lora_rank: 4
methods:
  lora: {method: lora}
  lori-d: {method: lori}
  lori-s: {mask_of: lori-d, sparsity: 0.8, learning_rate: 2.0e-2}
tasks:
  sums: {train_file: sums.jsonl, eval: choice.yaml}
  words: {train_file: words.jsonl, eval: [answer.yaml, text.yaml]}
merges:
  cat-s: {of: lori-s, weights: 0.5}
  linear-lora: {of: lora, method: linear, weights: [0.5, 0.25]}
continual:
  first: words
  methods: [lora, lori-s]
eval: {dtype: f32, limit: 70}
EOF
runs "dry run" "$lori" run recipe.yaml --output r --dry-run
if [ -e r ]; then fail "a dry run wrote"; else pass; fi
says "dry run" " 14  run    eval   eval-all"
says "dry run" "  3  run    mask   sums-lori-s-mask"
runs run "$lori" run recipe.yaml --output r
cp out run.md
says run "| words-sums-lori-s |"
says run "| cat-s "
runs "inspect" "$lori" inspect --adapter r/words-sums-lori-s --json
runs "run again" "$lori" run recipe.yaml --output r
same "a finished run" run.md out
if grep -q stage err; then fail "a finished run did something"; else pass; fi
runs "dry run, done" "$lori" run recipe.yaml --output r --dry-run
if grep -qv " done " out; then fail "a finished run has something to do"; else pass; fi

# The same under other names.
cp -r r moved
runs "a moved run" "$lori" run "$PWD/recipe.yaml" --output "$PWD/moved" --model "$PWD/base" --data-dir "$PWD/data"
same "a moved run" run.md out
if grep -q stage err; then fail "a moved run did something"; else pass; fi
rm -r moved

# In a terminal: a stage's own bar, its place among all and the time for all.
echo end | "$pty" "$lori" run recipe.yaml --output p max_steps=2 >out 2>err || fail "run in a terminal"
tr '\r' '\n' <out >lines
if grep -qE '^.\[Ktrain \[.*\] 1/2 .* run 1/14, [0-9:]+ left, sums-lora' lines; then pass; else
    fail "the first stage's progress"
fi
if grep -qE '^.\[Keval \[#{20}\] ([0-9]+)/\1 .* run 14/14, 00:00 left, ' lines; then pass; else
    fail "the last stage's progress"
fi

# A changed input makes what was made from it, and only that, again.
sed -i '1s/it is the/it was the/' data/sums.jsonl
runs "dry run, changed" "$lori" run recipe.yaml --output r --dry-run
says "dry run, changed" "  1  run    train  sums-lora"
says "dry run, changed" "  5  done   train  words-lora"
says "dry run, changed" "  3  run    mask   sums-lori-s-mask"
sed -i '1s/it was the/it is the/' data/sums.jsonl
runs "changed back" "$lori" run recipe.yaml --output r
if grep -q stage err; then fail "the same content is another input"; else pass; fi
rm -r r/cat-s
runs "a lost output" "$lori" run recipe.yaml --output r
if [ "$(grep -c stage err)" = 1 ] && grep -q 'merge cat-s' err; then pass; else fail "a lost output"; fi
same "the table after it" run.md out

tries=0 code=1
while [ $code != 0 ] && [ $tries -lt 60 ]; do
    "$lori" run recipe.yaml --output k >out 2>err &
    pid=$!
    if [ $tries -lt 5 ]; then
        sleep "0.$(below 8)$(below 10)"
        [ $((tries % 2)) = 0 ] && kill -INT $pid 2>/dev/null || kill -KILL $pid 2>/dev/null
    fi
    wait $pid
    code=$?
    case $code in 0 | 130 | 137) ;; *) fail "a killed run: exit $code" && break ;; esac
    tries=$((tries + 1))
done
same "a run killed $tries times" run.md out
for f in sums-lora words-lori-s cat-s words-sums-lori-s; do
    same "its adapter" r/$f/adapter_model.safetensors k/$f/adapter_model.safetensors
done

sed 's/mask_of: lori-d/mask_of: lori-x/; s/^merges/mergers/; s/first: words/first: wrds/; s/max_steps: 6/max_step: 6/' \
    recipe.yaml >bad.yaml
refuses "bad recipe" 2 "unknown key 'mergers'; did you mean 'merges'?" "$lori" run bad.yaml --output x
refuses "bad recipe" 2 "mask_of: method 'lori-x' is not in the recipe; did you mean 'lori-d'?" \
    "$lori" run bad.yaml --output x
refuses "bad recipe" 2 "first: task 'wrds' is not in the recipe; did you mean 'words'?" \
    "$lori" run bad.yaml --output x
refuses "bad recipe" 2 "unknown key 'max_step'; did you mean 'max_steps'?" "$lori" run bad.yaml --output x
refuses "no data" 1 "stage sums-lora: 'sums.jsonl' is not there and not in elsewhere" \
    "$lori" run recipe.yaml --output x --data-dir elsewhere
sed 's/cat-s:/words-lora:/' recipe.yaml >bad.yaml
refuses "a taken name" 2 "the name 'words-lora' is taken" "$lori" run bad.yaml --output x
refuses "no output" 2 "recipe.yaml:1: output_dir is missing" "$lori" run recipe.yaml
if [ -e x ]; then fail "a bad recipe wrote"; else pass; fi

# ---- the page ----------------------------------------------------------------
# Times differ from run to run and stand apart.
timeless() { sed '/<section id="times">/,/<\/section>/d' "$1"; }
has() { # NAME TEXT: r's page holds it
    if grep -qF -- "$2" r/report.html; then pass; else fail "$1: no '$2' in the page"; fi
}
timeless r/report.html >r.html
timeless k/report.html >k.html
same "the page of a run killed $tries times" r.html k.html
grep -c '"[a-z_]*,none": 0\.' r/eval/results.json >/dev/null || fail "no share to look for"
# Every share of the overview, with its interval, is in the table of results.
awk '/"(acc|exact_match),none"/ { v = $2 + 0 }
    /"(acc|exact_match)_wilson95,none"/ { getline; low = $1 + 0; getline; high = $1 + 0
        printf "%.1f<small>%.1f to %.1f</small>\n", 100 * v, 100 * low, 100 * high }' \
    r/eval/results.json >shares
if [ "$(wc -l <shares)" -ge 20 ]; then pass; else fail "too few shares in results.json"; fi
while read -r share; do has "a share" "$share"; done <shares
for row in base sums-lora words-lori-d cat-s linear-lora words-sums-lori-s; do
    has "a row" "<th scope=\"row\">$row</th>"
done
has "a mask's density" "sums, lori-s: "
has "a curve" '<path class="line c3" d="M'
# A cell of the interference matrix, from the same file.
share() { # ROW TASK
    awk -v row="    \"$1\": {" -v task="      \"$2\": {" '
        /^    [^ ]/ { here = $0 == row } /^      [^ ]/ { there = $0 == task }
        here && there && /"(acc|exact_match),none"/ { print $2 + 0 }' r/eval/results.json
}
points=$(awk -v with="$(share words-lora choice)" -v base="$(share base choice)" 'BEGIN {
    v = 100 * (with - base); s = sprintf("%.1f", v); printf "%s%s", (v > 0 ? "+" : ""), (s == "-0.0" ? "0.0" : s) }')
has "interference" "<title>words, sums: $points points</title>"
# lori-s trains what its mask keeps.
kept=$(sed -n 's/^  "kept": \([0-9]*\),$/\1/p' r/sums-lori-s-mask/keep.json)
if tr -d , <r/report.html | grep -qF "<th scope=\"row\">lori-s</th><td>$kept</td>"; then pass; else
    fail "trained parameters of lori-s are not $kept"
fi
if grep -qE '(src|href)="[^d]|https?://|<script|@import|url\(' r/report.html; then
    fail "the page asks for another file"
else pass; fi
# It is made again where it is missing or other than the run, and only then.
cp r/report.html page
runs "the page is there" "$lori" run recipe.yaml --output r
if grep -q "results written" err; then fail "the page was written again"; else pass; fi
echo more >>r/report.html
runs "the page is stale" "$lori" run recipe.yaml --output r
same "the page again" page r/report.html
rm r/report.html
runs "the page is missing" "$lori" run recipe.yaml --output r
same "the page again" page r/report.html
# Results of fewer models than the last evaluation has are made again.
rm -r r/eval/base
runs "lost results" "$lori" run recipe.yaml --output r
same "the table after it" run.md out
rm r/eval/results.md
runs "a lost table" "$lori" run recipe.yaml --output r
same "the table after it" run.md out

# Names are text, never HTML.
sed "s/^  words:/  '<w\&\"s>':/; s/first: words/first: '<w\&\"s>'/" recipe.yaml >wild.yaml
sed 's/^task: choice/task: "<i>\&amp;"/' choice.yaml >wild_choice.yaml
sed -i 's/eval: choice.yaml/eval: wild_choice.yaml/' wild.yaml
runs "a wild name" "$lori" run wild.yaml --output w max_steps=2
if grep -qF '<th scope="row">&lt;w&amp;&quot;s&gt;-lora</th>' w/report.html; then pass; else fail "a task's name"; fi
if grep -qF '<th scope="col">&lt;i&gt;&amp;amp;<small>acc</small>' w/report.html; then pass; else fail "an evaluation's name"; fi
if grep -qE '<w|<i>' w/report.html; then fail "a name became HTML"; else pass; fi

echo "$passed passed, $failed failed (moments from seed ${4:-the time})"
[ $failed = 0 ]
