#!/bin/sh
# Installs what the benchmarks need beyond tests/setup.sh: libcurl, a peer (Debian and Ubuntu), and for Python and Node the
# peers beside our own packages out of dist/. Does nothing that is done.
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

[ -x "$out/python/bin/python" ] || python3 -m venv "$out/python"
"$out/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt"
"$out/python/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall dist/evergrant-*.whl

[ -d "$here/node/node_modules/jsforce" ] || (cd "$here/node" && npm ci --no-audit --no-fund)
# Beside what the lock file names, as it has to be there for every commit anew.
tarballs=$(cd dist && pwd)
(cd "$here/node" && npm install --no-save --no-audit --no-fund --silent "$tarballs"/evergrant-*.tgz)
