#!/bin/sh
# deps.sh - installs what the build needs and does not find (Debian/Ubuntu, with
# apt, as root or through sudo -n), or prints the one command that does.
#   tools/deps.sh           what `make` and `make check` need
#   tools/deps.sh bench     and what `make bench-ops` needs
#   tools/deps.sh oracle    and what the comparison with PyPI libraries needs
#   tools/deps.sh llama     and what building llama-cpp-python, a peer, needs
#   tools/deps.sh clang     and the second compiler with its OpenMP
set -eu
missing=
want() { # header-or-program package
    case $1 in
    *.h) echo "#include <$1>" | ${CC:-gcc} -E -x c - >/dev/null 2>&1 || missing="$missing $2" ;;
    *) command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
    esac
}
want gcc gcc
want make make
want awk mawk
case " $missing " in *" gcc "*) CC=false ;; esac
want stdio.h libc6-dev
want jansson.h libjansson-dev
want yaml.h libyaml-dev
want utf8proc.h libutf8proc-dev
want criterion/criterion.h libcriterion-dev
want Random123/philox.h librandom123-dev
# `lori pull`; without them it says so.
want curl/curl.h libcurl4-openssl-dev
want openssl/evp.h libssl-dev
want histedit.h libedit-dev # line editing in `lori chat`
echo '#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>' | ${CC:-gcc} -E -x c - >/dev/null 2>&1 || missing="$missing libpcre2-dev"
for set in "$@"; do
    case $set in
    oracle)
        want python3 python3
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
        python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
        ;;
    clang)
        want clang clang
        echo '#include <omp.h>' | clang -fopenmp -E -x c - >/dev/null 2>&1 || missing="$missing libomp-dev"
        ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-x86_64.a >/dev/null 2>&1 ||
            missing="$missing libclang-rt-dev"
        ;;
    demo)
        command -v curl >/dev/null 2>&1 || python3 -m pip --version >/dev/null 2>&1 ||
            missing="$missing curl"
        want unzip unzip
        ;;
    bench) # oneDNN, which the products of matrices are timed beside
        want dnnl.h libdnnl-dev
        ;;
    llama)
        want c++ g++
        ;;
    *)
        echo "deps.sh: unknown set '$set'" >&2
        exit 2
        ;;
    esac
done
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
[ -n "${missing% }" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
command="apt-get install -y --no-install-recommends $missing"
if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
    echo "These packages are missing; as root, run:  $command" >&2
    exit 1
fi
echo "installing: $missing"
export DEBIAN_FRONTEND=noninteractive
$sudo $command >/dev/null 2>&1 || {
    $sudo apt-get update >/dev/null || true
    $sudo $command >/dev/null || {
        echo "installation failed; as root, run:  apt-get update && $command" >&2
        exit 1
    }
}
