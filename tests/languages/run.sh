#!/bin/sh
# 8 processes each of C, Python and Node keep one session of one store renewed, at a strict server whose tokens live for
# 2 s. soak.py runs and judges them.
#   tests/languages/run.sh [SECONDS] [--kill]      180 s; --kill: kills and restarts some all the time
# evergrant for C is found by pkg-config, the others as install.sh has it. EVERGRANT_SEED says who is killed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$PWD/build/languages
mkdir -p "$out"
seconds=180
case ${1-} in [0-9]*) seconds=$1 && shift ;; esac

# shellcheck disable=SC2046 # flags are lists
${CC:-cc} -std=c99 -O1 -g -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags evergrant) "$here/worker.c" \
	-o "$out/worker" $(pkg-config --libs evergrant) -Wl,-rpath,"$(pkg-config --variable=libdir evergrant)" -pthread

# shellcheck source=tests/languages/install.sh
. tests/languages/install.sh
EVERGRANT_TEST_SERVER_OPTIONS="--mode generic --rotation strict" \
	timeout $((seconds + 300)) tests/with-server.sh python3 "$here/soak.py" "$out/worker" "$seconds" "$@"
