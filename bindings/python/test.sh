#!/bin/sh
# Tests the Python package as it is installed, from a wheel:
#
#   bindings/python/test.sh [--check] [WHEEL] [PYTEST ARGUMENTS]
#
# WHEEL: default, the newest in dist/. --check: type checkers and lints instead of the tests. The test server is
# EVERGRANT_TEST_SERVER_PROGRAM, by default target/release/evergrant-test-server.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
check=
if [ "${1:-}" = --check ]; then
	check=1
	shift
fi
case ${1:-} in
*.whl)
	wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
	shift
	;;
*) wheel=$(ls -t "$root"/dist/evergrant-*-manylinux*.whl "$root"/dist/evergrant-*-linux*.whl 2>/dev/null | head -n 1) ;;
esac
[ -f "$wheel" ] || { echo "no wheel in dist/: make dist" >&2; exit 2; }

venv=${EVERGRANT_PYTHON_VENV:-$root/build/python-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
pip="$venv/bin/python -m pip --quiet --disable-pip-version-check"
for requirements in "$here/tests/requirements.txt" "$here/tests/kit/requirements.txt"; do
	[ ! -f "$requirements" ] || $pip install -r "$requirements"
done
# The artefact and nothing else: no index, no dependency, not what an earlier run has left.
$pip uninstall --yes evergrant
$pip install --no-index --no-deps "$wheel"

unset EVERGRANT_LIBRARY PYTHONPATH
if [ -n "$check" ]; then
	cd "$here"
	"$venv/bin/ruff" check .
	"$venv/bin/ruff" format --check .
	"$venv/bin/mypy" src
	# Each directory has a conftest.py, so they are checked one by one.
	"$venv/bin/mypy" --python-version 3.11 --exclude /kit/ tests hatch_build.py
	[ ! -d tests/kit ] || MYPYPATH=tests:tests/kit:recipes "$venv/bin/mypy" --python-version 3.11 tests/kit recipes
	exec "$venv/bin/pyright" --pythonpath "$venv/bin/python"
fi
# From elsewhere, so that the source tree is not importable.
mkdir -p "$root/build/python-tests"
cd "$root/build/python-tests"
exec "$venv/bin/python" -m pytest --config-file "$here/pyproject.toml" --rootdir "$here" "$@" "$here/tests"
