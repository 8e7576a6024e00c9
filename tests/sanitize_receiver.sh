#!/usr/bin/env bash
# The receive thread's tests with its C code under gcc's sanitizers: address and undefined behaviour, then data races.
# Usage: tests/sanitize_receiver.sh [python], with the tests' requirements installed. Exit status 0: nothing was found.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-.venv/bin/python}")
[[ $python = /* ]] || python=$PWD/$python
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r tokenswarm tests pyproject.toml "$copy"
cd "$copy"
rm -f tokenswarm/transport/_receiver*.so
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')

check() { # name, gcc's flags, library to load before Python, more for pytest
    echo "== $1"
    local built=tokenswarm/transport/_receiver.abi3.so
    gcc -std=c11 -Wall -Wextra -Werror -O1 -g -fno-omit-frame-pointer -fPIC -shared -pthread $2 -I"$include" \
        -o "$built" tokenswarm/transport/receiver.c tokenswarm/transport/receivermodule.c
    # Python has an allocator of its own, which hides errors, and leaks on purpose. A first report ends the run.
    LD_PRELOAD=$(gcc -print-file-name="$3") PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        TSAN_OPTIONS=halt_on_error=1:exitcode=66 \
        "$python" -m pytest -q --capture=sys -p no:cacheprovider tests/test_receiver.py "${@:4}"
}

check "address and undefined behaviour" "-fsanitize=address,undefined -fno-sanitize-recover" libasan.so
check "data races" "-fsanitize=thread" libtsan.so -k "not forked" # which this sanitizer does not support
