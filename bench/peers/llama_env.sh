#!/bin/sh
# Makes the Python environment of compare_infer.py (llama-cpp-python, built
# from its source distribution for this processor: about ten minutes on two
# cores, once) and prints the path of its python.
#   LORI_LLAMA_ENV  where (default ~/.cache/lori/llama-env)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
environment=${LORI_LLAMA_ENV:-${HOME:?}/.cache/lori/llama-env}
python=$environment/bin/python
wanted=$(sed -n 's/^llama-cpp-python==//p' "$here/requirements-llama.txt")

built() {
    [ -x "$python" ] && "$python" -c "import sys, llama_cpp
sys.exit(llama_cpp.__version__ != sys.argv[1])" "$wanted" 2>/dev/null
}

if ! built; then
    echo "llama_env: building llama-cpp-python $wanted in $environment" >&2
    [ -x "$python" ] || python3 -m venv "$environment"
    CMAKE_ARGS="-DGGML_NATIVE=ON" "$python" -m pip install --quiet \
        --disable-pip-version-check -r "$here/requirements-llama.txt" >&2
fi
built || { echo "llama_env: $environment has another version: remove it" >&2; exit 1; }
echo "$python"
