#!/bin/sh
# Installs what the benchmarks need beyond tests/setup.sh: libcurl, a peer (Debian and Ubuntu), and for Python and Node
# the peers beside our own packages out of dist/. Does nothing that is done.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${BENCH_OUT:-build/bench}

if ! pkg-config --exists libcurl; then
	echo "installing: libcurl4-openssl-dev"
	as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	$as_root apt-get update -qq
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libcurl4-openssl-dev
fi

python=$out/python/bin/python
[ -x "$python" ] || python3 -m venv "$out/python"
pip="$python -m pip --quiet --disable-pip-version-check"
$pip install -r "$here/python/requirements.txt"
$pip install --no-index --no-deps --force-reinstall --find-links dist evergrant

if [ ! "$here/node/node_modules/.package-lock.json" -nt "$here/node/package-lock.json" ]; then
	npm ci --prefix "$here/node" --no-audit --no-fund --loglevel=error >/dev/null
fi
npm install --prefix "$here/node" --no-save --no-audit --no-fund --loglevel=error "$PWD"/dist/evergrant-*.tgz >/dev/null
