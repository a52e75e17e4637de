# shellcheck shell=sh
# To be sourced: PYTHON becomes a Python and NODE_PROJECT a directory with a node_modules that have the package. What is
# not set is made, from dist/, in build/languages.
out=$PWD/build/languages
mkdir -p "$out"
if [ -z "${PYTHON-}" ]; then
	PYTHON=$out/venv/bin/python
	[ -x "$PYTHON" ] || python3 -m venv "$out/venv"
	pip="$PYTHON -m pip --quiet --disable-pip-version-check"
	$pip install -r tests/languages/requirements.txt
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
cp tests/languages/*.mjs "$NODE_PROJECT"
export PYTHON NODE_PROJECT
unset EVERGRANT_LIBRARY PYTHONPATH
