#!/bin/sh
# run_pull.sh - tests of `lori pull` and of names in Hugging Face's cache,
# against a server of our own on 127.0.0.1 that knows how to misbehave.
#   run_pull.sh LORI TINY_GGUF HUB_SERVER
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
server=$(readlink -f "$3")
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-pull.XXXXXX")
cd "$dir" || exit 1
passed=0 failed=0
unset HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HUB_CACHE HUGGINGFACE_HUB_CACHE \
    HF_HUB_OFFLINE TRANSFORMERS_OFFLINE XDG_CACHE_HOME http_proxy all_proxy ALL_PROXY

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    sed 's/^/    /' out err 2>/dev/null | head -n 8
}
check() { # NAME COMMAND...: the command succeeds
    name=$1
    shift
    if "$@"; then pass; else fail "$name"; fi
}
runs() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >out 2>err; then pass; else fail "$name (exit $?)"; fi
}
says() { # NAME TEXT [FILE]
    if grep -qF -- "$2" "${3:-out}"; then pass; else fail "$1: no '$2'"; fi
}
refuses() { # NAME EXIT TEXT COMMAND...: one line on stderr that holds TEXT
    name=$1 code=$2 text=$3
    shift 3
    "$@" >out 2>err
    got=$?
    grep '^lori: ' err >line
    if [ "$got" != "$code" ]; then
        fail "$name: exit $got, not $code"
    elif [ "$(wc -l <line)" != 1 ] || ! grep -qF -- "$text" line; then
        fail "$name: no '$text' in one line"
    else
        pass
    fi
}
waits() { # COMMAND...: until it succeeds, 60 s at most
    tries=0
    until "$@" || [ $tries -ge 1200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
}
# A folder without what a pull must not leave: no partial blob, no reference.
no_model() { ! [ -e "hf/hub/models--$1--tiny/refs/main" ]; }
# Of the weights: smaller files come and go before them.
partial() { [ -s "hf/hub/models--$1--tiny/blobs/$sha.incomplete" ]; }

# ---- the repository and its server --------------------------------------
"$tiny" tiny.gguf 1 && "$lori" import tiny.gguf repo --dtype f32 >out 2>err || {
    echo "no model to serve"
    exit 1
}
echo '# a card' >repo/README.md
cp repo/model.safetensors repo/pytorch_model.bin
: >repo/merges.txt # an empty file
mkfifo stop
"$server" repo <stop >port 2>log &
exec 9>stop # the server ends with this script
trap 'exec 9>&-; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
waits test -s port
export HF_HOME="$dir/hf" HF_ENDPOINT="http://127.0.0.1:$(cat port)"
commit=0123456789abcdef0123456789abcdef01234567

# ---- a whole pull ----------------------------------------------------------
refuses "before the pull" 1 "'good/tiny': no such folder, and no model of that name in the Hugging Face cache '$dir/hf/hub'; \`lori pull good/tiny\` downloads it" \
    "$lori" inspect --base good/tiny
runs pull "$lori" pull good/tiny --json
says pull '"files": 7'
model=hf/hub/models--good--tiny
check "refs/main" test "$(cat $model/refs/main)" = $commit
for f in config.json model.safetensors tokenizer.json chat_template.jinja merges.txt; do
    check "$f" cmp -s repo/$f $model/snapshots/$commit/$f
    check "$f is a link" test -L $model/snapshots/$commit/$f
done
sha=$(sha256sum repo/model.safetensors | cut -d ' ' -f 1)
check "blob by sha256" test -f $model/blobs/"$sha"
check "no card" test ! -e $model/snapshots/$commit/README.md
check "no second weights" test ! -e $model/snapshots/$commit/pytorch_model.bin
runs "pull again" "$lori" pull good/tiny
says "pull again" "(0 B downloaded)"
runs "pull more" "$lori" pull good/tiny@$commit --include '*.md' --include '*.json' --exclude 'config*' --json
check "--include" cmp -s repo/README.md $model/snapshots/$commit/README.md
runs "pull a branch" "$lori" pull good/tiny --revision refs/pr/1
check "refs/pr/1" test "$(cat $model/refs/refs/pr/1)" = $commit
runs "token file" sh -c "echo secret >hf/token && '$lori' pull private/tiny"
rm hf/token
runs "HF_TOKEN" env HF_TOKEN=secret "$lori" pull moved/tiny --json
says "moved: the token stays at home" "/model.safetensors from=-1 token=no port=2" log
check "moved: nothing else" sh -c "! grep -q 'token=yes port=2' log"
runs "busy server" "$lori" pull busy/tiny --include config.json
says "busy server" "trying again in 1 s" err

# ---- connections that break ------------------------------------------------
size=$(wc -c <repo/model.safetensors)
for how in cut no-range; do
    runs "$how" "$lori" pull $how/tiny
    check "$how: same bytes" cmp -s repo/model.safetensors hf/hub/models--$how--tiny/snapshots/$commit/model.safetensors
    says "$how: asked for the rest" "/$how/tiny/resolve/$commit/model.safetensors from=$((size / 2))" log
done
# A part of another program that does not belong to the file.
mkdir -p hf/hub/models--x--tiny/blobs
head -c 5000 /dev/urandom >hf/hub/models--x--tiny/blobs/"$sha".incomplete
runs "damaged part" "$lori" pull x/tiny
says "damaged part" "is damaged" err
check "damaged part" cmp -s repo/model.safetensors hf/hub/models--x--tiny/snapshots/$commit/model.safetensors

"$lori" pull late/tiny >out 2>err &
pid=$!
waits partial late
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C: exit $code" test $code = 130
check "Ctrl-C: a part is left" partial late
check "Ctrl-C: no snapshot in use" no_model late
refuses "half a model" 1 "\`lori pull late/tiny\` downloads it" "$lori" inspect --base late/tiny
"$lori" pull late/tiny >out 2>err &
first=$!
waits grep -q '/late/.*model.safetensors from=[1-9]' log
"$lori" pull late/tiny >out2 2>err2 &
second=$!
waits grep -q 'another program is downloading it, waiting' err2
: >repo.go
check "the first of two" wait $first
check "the second of two" wait $second
says "the second waited" "another program is downloading it, waiting" err2
check "two at once" test "$(grep -c '/late/.*/model.safetensors from=' log)" = 2
check "two at once: bytes" cmp -s repo/model.safetensors hf/hub/models--late--tiny/snapshots/$commit/model.safetensors
check "no parts left" sh -c "! find hf/hub -name '*.incomplete' | grep -q ."

# ---- servers that lie, refuse or break ---------------------------------------
pull_bad() { # NAME EXIT TEXT ORG: refused, nothing in use
    refuses "$1" "$2" "$3" "$lori" pull "$4"/tiny
    check "$1: no snapshot in use" no_model "$4"
}
pull_bad "wrong sha256" 1 "model.safetensors: the sha256 of what the server sent is" wrong
pull_bad "wrong git sha1" 1 "git sha1" wrong-git
pull_bad gated 1 "access is gated (403)" gated
refuses private 1 "give a token (HF_TOKEN or --token-file)" "$lori" pull private/tiny --revision dev
refuses "wrong token" 1 "the token that was sent does not open it" env HF_TOKEN=other "$lori" pull private/tiny --revision dev
pull_bad missing 1 "not found at $HF_ENDPOINT (404, RepoNotFound)" missing
pull_bad "too few bytes" 1 "model.safetensors: the server sends $size bytes, but the hub's list says $((size + 7))" shorter
pull_bad "too many bytes" 1 "model.safetensors: the server sends more than the $((size - 7)) bytes" longer
pull_bad "no room" 1 "are to be downloaded, but only" huge
pull_bad "absurd size" 1 "size" absurd
pull_bad "a path out" 1 "'../../evil' could leave the model's folder" evil
pull_bad "no JSON" 1 "the hub's list of files:1:" garbage
pull_bad "endless list" 1 "more than the 67108864 bytes" endless
pull_bad "endless error page" 1 "the server's page about 404 does not end" chatty
pull_bad "redirected for ever" 1 "answered 302" loop
refuses "a disk that is full" 1 "File too large" sh -c "trap '' XFSZ; ulimit -f 100; exec '$lori' pull full/tiny"
check "a disk that is full: resumable" partial full
runs "after the disk was full" "$lori" pull full/tiny
refuses "no file fits" 1 "no file of it fits" "$lori" pull good/tiny --include '*.gguf'
refuses "not a name" 2 "'a/b/c' is not a name of the hub" "$lori" pull a/b/c
refuses "not a name, dots" 2 "is not a name of the hub" "$lori" pull ../tiny
refuses "a bad revision" 2 "'../x' is not a revision" "$lori" pull good/tiny --revision ../x
refuses offline 1 "HF_HUB_OFFLINE is set" env HF_HUB_OFFLINE=1 "$lori" pull good/tiny
refuses "no token in the file" 2 "there is no token in it" "$lori" pull good/tiny --token-file merges.txt
refuses "other protocol" 2 "does not start with https://" "$lori" pull good/tiny --endpoint ftp://x
check "nothing outside" sh -c "! find . -name 'evil*' | grep -q ."

# ---- names where folders are expected ------------------------------------------
export HF_HUB_OFFLINE=1 # nothing here needs the server
i=0
while [ $i -lt 8 ]; do
    printf '{"prompt": "say %d", "completion": "it is the %d"}\n' $i $((i * 3)) >>train.jsonl
    i=$((i + 1))
done
recipe="train_file=train.jsonl dtype=f32 max_steps=2 lora_rank=4 per_device_train_batch_size=2"
# shellcheck disable=SC2086
runs train "$lori" train $recipe model_name_or_path=good/tiny output_dir=a
says "the adapter's base" '"base_model_name_or_path": "good/tiny"' a/adapter_config.json
runs generate "$lori" generate --model good/tiny --adapter a --prompt hi --max-new-tokens 4 --json
cp out named
runs "generate, folder" "$lori" generate --model repo --adapter a --prompt hi --max-new-tokens 4 --json
check "name and folder: same text" test "$(grep '"text"' out)" = "$(grep '"text"' named)"
runs "generate @main" "$lori" generate --model good/tiny@main --prompt hi --max-new-tokens 2
runs "generate @pr" "$lori" generate --model good/tiny@refs/pr/1 --prompt hi --max-new-tokens 2
runs "generate @commit" "$lori" generate --model good/tiny@$commit --prompt hi --max-new-tokens 2
refuses "no revision" 1 "holds no revision 'v2'; \`lori pull good/tiny@v2\` downloads it" "$lori" generate --model good/tiny@v2 --prompt hi
runs tokenize "$lori" tokenize --model good/tiny hi
runs inspect "$lori" inspect --base good/tiny
runs "merge into" "$lori" merge --into good/tiny --adapter a --output merged
# An adapter in the cache, as huggingface_hub lays it out.
b=hf/hub/models--me--lori-d
mkdir -p $b/blobs $b/refs $b/snapshots/$commit
printf %s $commit >$b/refs/main
for f in adapter_config.json adapter_model.safetensors lori.json; do
    cp a/$f $b/blobs/$f
    ln -s ../../blobs/$f $b/snapshots/$commit/$f
done
runs "adapter by name" "$lori" generate --model good/tiny --adapter me/lori-d --prompt hi --max-new-tokens 4 --json
check "adapter by name: same text" test "$(grep '"text"' out)" = "$(grep '"text"' named)"
runs "mask by name" "$lori" mask me/lori-d m
# shellcheck disable=SC2086
runs "train on from a name" "$lori" train $recipe model_name_or_path=good/tiny adapter_name_or_path=me/lori-d output_dir=c
rm $b/blobs/adapter_model.safetensors
refuses "dangling link" 1 "adapter_model.safetensors is a link to a file that is not there; \`lori pull me/lori-d\` gets the rest" \
    "$lori" mask me/lori-d m2
rm $b/snapshots/$commit/adapter_model.safetensors
: >$b/blobs/00ff.incomplete
refuses "half downloaded" 1 "(an interrupted download: blobs/00ff.incomplete)" "$lori" mask me/lori-d m2
s=$model/snapshots/$commit
mv $s/model.safetensors kept
cp $s/tokenizer.json $s/model-00001-of-00002.safetensors
echo '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}' >$s/model.safetensors.index.json
refuses "missing shard" 1 "model-00002-of-00002.safetensors is missing; \`lori pull good/tiny\` gets the rest" \
    "$lori" generate --model good/tiny --prompt hi
# shellcheck disable=SC2086
refuses "missing shard, train" 1 "model_name_or_path: 'good/tiny'" "$lori" train $recipe model_name_or_path=good/tiny output_dir=o
runs "facts need no weights" "$lori" inspect --base good/tiny
mkdir -p good
cp -r repo good/tiny
runs "a folder of that name wins" "$lori" generate --model good/tiny --prompt hi --max-new-tokens 2
rm -rf good
mv hf/hub moved-hub
runs HF_HUB_CACHE env HF_HUB_CACHE="$dir/moved-hub" "$lori" inspect --base private/tiny
runs "HF_HUB_CACHE, home" env HOME="$dir" HF_HUB_CACHE='~/moved-hub' "$lori" inspect --base private/tiny
mkdir -p xdg/huggingface home/.cache/huggingface
ln -s ../../moved-hub xdg/huggingface/hub
ln -s ../../../moved-hub home/.cache/huggingface/hub
runs XDG_CACHE_HOME env -u HF_HOME XDG_CACHE_HOME="$dir/xdg" "$lori" inspect --base private/tiny
runs HOME env -u HF_HOME HOME="$dir/home" "$lori" inspect --base private/tiny

echo "$passed passed, $failed failed"
[ $failed = 0 ]
