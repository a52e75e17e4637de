#!/bin/sh
# 4 machines (network namespaces, a bridge between them) with 4 processes each, C, Python and Node, keep one session of
# one shared store renewed, at a strict server whose tokens live for 2 s. One machine's clock is 5 minutes ahead, one
# 5 minutes behind.
#   tests/machines/run.sh [STORE] [SECONDS] [--trouble]      postgres, 300 s
# STORE: postgres or redis. --trouble: then as long again while machines are killed, cut off and paused, and the store
# is restarted, or its replica promoted. machines.py runs and judges them. EVERGRANT_SEED says what happens to whom.
# Needs root, or sudo.
#
# evergrant for C is found by pkg-config, the others as tests/languages/install.sh has it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
languages=$here/../languages
store=postgres seconds=300
case ${1-} in [a-z]*) store=$1 && shift ;; esac
case ${1-} in [0-9]*) seconds=$1 && shift ;; esac
programs=$PWD/build/machines/$store
mkdir -p "$programs"

# shellcheck disable=SC2046 # flags are lists
${CC:-cc} -std=c99 -O1 -g -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags evergrant) "$languages/worker.c" \
	-o "$programs/worker" $(pkg-config --libs evergrant) -Wl,-rpath,"$(pkg-config --variable=libdir evergrant)" -pthread
${CC:-cc} -std=c99 -O1 -Wall -Wextra -Werror -shared -fPIC "$here/../c/clocks.c" -o "$programs/clocks.so"

# shellcheck source=tests/languages/install.sh
. tests/languages/install.sh
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -E env PATH=$PATH"
# In namespaces of their own, all is gone when this ends: bridge, machines, servers, processes.
EVERGRANT_TEST_SERVER_OPTIONS="--mode generic --rotation strict" exec $as_root \
	unshare --net --mount --pid --fork --kill-child --mount-proc \
	timeout $((seconds * 2 + 600)) tests/with-server.sh \
	"$PYTHON" "$here/machines.py" "$programs" "$store" "$seconds" "$@"
