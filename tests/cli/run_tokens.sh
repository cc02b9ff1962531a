#!/bin/sh
# run_tokens.sh - tests of the program: tokenize, detokenize, and the import of
# other tokenizer files; exact outputs, and one-line errors for bad inputs.
#   run_tokens.sh LORI TINY_GGUF CORPUS [-v]   -v: print each bad input's message
#   CORPUS: tests/fuzz/corpus/spm, whose small.model is a tiny SentencePiece file
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
corpus=$(readlink -f "$3")
verbose=${4:-}
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-tokens.XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir" || exit 1
passed=0 failed=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed 's/^/    /' out err 2>/dev/null | head -n 8
}
# prints NAME TEXT COMMAND...: succeeds and prints exactly TEXT
prints() {
    name=$1 text=$2
    shift 2
    if "$@" >out 2>err && [ "$(cat out)" = "$text" ]; then pass; else fail "$name (exit $?)"; fi
}
# refuses NAME EXIT TEXT OUTPUT COMMAND...: one line that holds TEXT, the exit
# code, and no OUTPUT left behind
refuses() {
    name=$1 code=$2 text=$3 output=$4
    shift 4
    "$@" >out 2>err </dev/null
    got=$?
    grep '^lori: ' err >line
    [ -z "$verbose" ] || printf '%-28s exit %d  %s\n' "$name" "$got" "$(cat line)"
    left=$(find . -maxdepth 1 -name '*.tmp*' | head -n 1)
    if [ "$got" != "$code" ] || [ "$(wc -l <line)" != 1 ] || ! grep -qF -- "$text" line; then
        fail "$name: exit $got, not $code with '$text'"
    elif [ -n "$left" ] || { [ "$output" != - ] && [ -e "$output" ]; }; then
        fail "$name: left $left$output behind"
    else
        pass
    fi
}

# ---- SentencePiece -------------------------------------------------------
prints import "t: 283 tokens, 12 merges, from a SentencePiece file" \
    "$lori" import --tokenizer "$corpus/small.model" t
for f in tokenizer.json tokenizer_config.json; do
    if [ -s t/$f ]; then pass; else fail "import wrote no $f"; fi
done
mkdir m && cp "$corpus/small.model" m/tokenizer.model
prints "import a folder" "t2: 283 tokens, 12 merges, from a SentencePiece file" \
    "$lori" import --tokenizer m t2
if cmp -s t/tokenizer.json t2/tokenizer.json; then pass; else fail "two imports differ"; fi

prints ids "1 261 262 278" "$lori" tokenize --model t hello
prints "no BOS" "261 262 278" "$lori" tokenize --model t hello --add-special-tokens false
prints "several texts" "1 261 262 278
1 259 274 262
1" "$lori" tokenize --model t hello "aell" ""
prints "bytes of characters" "269 198 172" \
    "$lori" tokenize --model t/tokenizer.json é --add-special-tokens false
prints "special text" "1 2" "$lori" tokenize --model t '</s>' --add-special-tokens true
prints json '{"inputs":[{"ids":[1,261,262,278,259,271],"count":6,"tokens":["<s>","▁he","ll","o","▁a","b"],"offsets":[[0,0],[0,2],[2,4],[4,5],[5,7],[7,8]]}],"offset_unit":"character","count":6}' \
    sh -c "'$lori' tokenize --model t 'hello ab' --json | tr -d ' \n'"
printf 'hello hello\n' >a.txt && printf 'é hello\n' >b.txt
prints "counts of files" "8 a.txt
8 b.txt
16 total" "$lori" tokenize --model t --file a.txt --file b.txt --count
prints "standard input" "7" sh -c "printf 'hello hello' | '$lori' tokenize --model t --count"
prints "NUL is a character" "1 269 3 261 262 278" sh -c "printf '\000 hello' | '$lori' tokenize --model t"
prints "byte offsets" "[[0,2],[0,2],[0,2],[2,5],[5,7],[7,8]]" \
    sh -c "'$lori' tokenize --model t 'é hello' --json --byte-offsets --add-special-tokens false |
        tr -d ' \n' | sed 's/.*offsets\":\(.*\)}\],.*/\1/'"
prints detokenize "<s> hello hello" "$lori" detokenize --model t 1 264 264
prints "without special" "hello hello" "$lori" detokenize --model t 1 264 264 --skip-special-tokens
prints "ids of standard input" "hello hello" \
    sh -c "echo '[264, 264]' | '$lori' detokenize --model t"
prints "there and back" "é hello" sh -c "'$lori' tokenize --model t --file b.txt |
    '$lori' detokenize --model t --skip-special-tokens"

# ---- a GGUF model's own vocabulary ---------------------------------------
"$tiny" tiny.gguf 1 && "$lori" import tiny.gguf base >/dev/null 2>&1 || fail "import of a GGUF"
prints "byte level there and back" "Hello, world! é 123" sh -c \
    "'$lori' tokenize --model base 'Hello, world! é 123' | '$lori' detokenize --model base --skip-special-tokens"

# ---- bad inputs ----------------------------------------------------------
refuses "no model" 2 "model" - "$lori" tokenize hello
refuses "no such folder" 1 "nowhere" - "$lori" tokenize --model nowhere hello
refuses "no such file" 1 "gone.txt" - "$lori" tokenize --model t --file gone.txt
printf 'abc\377' >latin.txt
refuses "invalid UTF-8" 1 "latin.txt: the text is not UTF-8 at byte 3 (0xFF)" - \
    "$lori" tokenize --model t --file latin.txt
refuses "a flag that is no flag" 2 "true or false, not 'yes'" - \
    "$lori" tokenize --model t a --add-special-tokens yes
refuses "id beyond the vocabulary" 2 "id 283 is no token (ids are 0 to 282)" - \
    "$lori" detokenize --model t 1 283
refuses "a word for an id" 1 "'x' is not a token id" - "$lori" detokenize --model t 1 x
sed 's/"Prepend"/"Lowercase"/' t/tokenizer.json >lower.json
refuses "unknown normalizer" 1 "normalizer 'Lowercase' is not supported" - \
    "$lori" tokenize --model lower.json a
head -c 3000 t/tokenizer.json >cut.json
refuses "broken tokenizer.json" 1 "cut.json:" - "$lori" tokenize --model cut.json a
head -c 1500 "$corpus/small.model" >cut.model
refuses "truncated tokenizer.model" 1 "cut.model: " o "$lori" import --tokenizer cut.model o
refuses "no SentencePiece model" 1 "not a SentencePiece model" o \
    "$lori" import --tokenizer b.txt o
printf 'YQ== 0\nYg== 1\n' >two.tiktoken
refuses "tiktoken of another model" 1 "only Llama 3's file" o \
    "$lori" import --tokenizer two.tiktoken o
printf '{"config":{"pattern":"a"},"vocab":[{"rank":0,"token_bytes":"!"}]}' >bad.json
refuses "broken tekken" 1 "vocab[0]" o "$lori" import --tokenizer bad.json o
printf '{"config":{"pattern":"a"},"vocab":[{"rank":0,"token_bytes":"YQ=="},{"rank":1,"token_bytes":"YQ=="}]}' >twice.json
refuses "a token twice" 1 "repeats the text" o "$lori" import --tokenizer twice.json o
mkdir empty
refuses "folder without a tokenizer" 1 "neither tokenizer.model nor tekken.json" o \
    "$lori" import --tokenizer empty o
refuses "output is there" 1 "t" - "$lori" import --tokenizer m t

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
