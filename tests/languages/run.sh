#!/bin/sh
# 8 processes each of C, Python and Node keep one session of one store renewed, at a strict server whose tokens live for
# 2 s. soak.py runs and judges them.
#   tests/languages/run.sh [SECONDS] [--kill]      180 s; --kill: kills and restarts some all the time
# evergrant for C is found by pkg-config. PYTHON is a Python and NODE_PROJECT a directory with a node_modules that have
# the package; what is not set is made from dist/.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$PWD/build/languages
mkdir -p "$out"
seconds=180
case ${1-} in [0-9]*) seconds=$1 && shift ;; esac

# shellcheck disable=SC2046 # flags are lists
${CC:-cc} -std=c99 -O1 -g -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags evergrant) "$here/worker.c" \
	-o "$out/worker" $(pkg-config --libs evergrant) -Wl,-rpath,"$(pkg-config --variable=libdir evergrant)" -pthread

if [ -z "${PYTHON-}" ]; then
	PYTHON=$out/venv/bin/python
	[ -x "$PYTHON" ] || python3 -m venv "$out/venv"
	pip="$PYTHON -m pip --quiet --disable-pip-version-check"
	$pip install -r "$here/requirements.txt"
	$pip install --no-index --no-deps --force-reinstall --find-links dist evergrant
fi
if [ -z "${NODE_PROJECT-}" ]; then
	NODE_PROJECT=$out/node
	rm -rf "$NODE_PROJECT"
	mkdir "$NODE_PROJECT"
	echo '{"private": true}' >"$NODE_PROJECT/package.json"
	npm install --prefix "$NODE_PROJECT" --no-audit --no-fund --loglevel=error "$PWD"/dist/evergrant-*.tgz >/dev/null
fi
# Node looks for packages where a program lies.
cp "$here/worker.mjs" "$NODE_PROJECT"

unset EVERGRANT_LIBRARY PYTHONPATH
PYTHON=$PYTHON NODE_PROJECT=$NODE_PROJECT EVERGRANT_TEST_SERVER_OPTIONS="--mode generic --rotation strict" \
	timeout $((seconds + 300)) tests/with-server.sh python3 "$here/soak.py" "$out/worker" "$seconds" "$@"
