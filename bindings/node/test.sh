#!/bin/sh
# Tests the npm packages as users get them: installs the tarballs of EVERGRANT_DIST (dist/) into build/node-project.
#   test.sh              an install into an empty project, then all tests
#   test.sh FILE...      these tests only, named as in bindings/node/test
#   test.sh check        types and packaging: tsc, publint, attw
set -eu
here=$(cd "$(dirname "$0")" && pwd)
EVERGRANT_ROOT=$(cd "$here/../.." && pwd)
export EVERGRANT_ROOT
unset EVERGRANT_LIBRARY
dist=$(cd "${EVERGRANT_DIST:-$EVERGRANT_ROOT/dist}" && pwd)
tarballs=$(ls "$dist"/evergrant-[0-9]*.tgz "$dist"/evergrant-linux-x64-*.tgz)
[ "$(echo "$tarballs" | wc -l)" = 2 ] || { echo "not one version of two packages: $tarballs" >&2; exit 1; }
project=$EVERGRANT_ROOT/build/node-project
npm() {
	command npm --no-audit --no-fund --no-update-notifier --loglevel=error "$@"
}

# As in the source tree, but what is installed is around it. An install of the last run is as good as new if its lock
# file is; the packages under test are installed anew.
mkdir -p "$project/test/kit"
mv "$project/test/kit/node_modules" "$project/kit_modules" 2>/dev/null || :
rm -rf "$project/test" "$project/recipes"
mkdir -p "$project/test"
(cd "$here" && tar cf - --exclude node_modules test recipes) | tar xf - -C "$project"
mv "$project/kit_modules" "$project/test/kit/node_modules" 2>/dev/null || :
mv "$project/test/package.json" "$project/test/package-lock.json" "$project"
for dir in "$project" "$project/test/kit"; do
	cmp -s "$dir/package-lock.json" "$dir/node_modules/.lock.json" && continue
	(cd "$dir" && npm ci --ignore-scripts)
	cp "$dir/package-lock.json" "$dir/node_modules/.lock.json"
done
rm -rf "$project/node_modules/evergrant" "$project/node_modules/evergrant-linux-x64"
# shellcheck disable=SC2086 # a list
(cd "$project" && npm install --no-save --no-package-lock --ignore-scripts $tarballs)
cd "$project/test"

if [ "${1-}" = check ]; then
	npx --no-install tsc -p types/lib.json
	npx --no-install tsc -p types
	for tarball in $tarballs; do
		npx --no-install publint --strict "$tarball"
	done
	# Node 20.19 and later require() ES modules.
	npx --no-install attw --ignore-rules cjs-resolves-to-esm -- "$dist"/evergrant-[0-9]*.tgz
	exit
fi

if [ $# = 0 ]; then
	# Without scripts, so without a compiler.
	empty=$EVERGRANT_ROOT/build/node-empty
	rm -rf "$empty"
	mkdir -p "$empty"
	cd "$empty"
	echo '{"private": true}' >package.json
	# shellcheck disable=SC2086
	npm install --ignore-scripts $tarballs
	version=$(node -p 'require("evergrant").version')
	[ "$version" = "$(node -e 'import("evergrant").then(({ version }) => console.log(version))')" ]
	[ "$version" = "$(node -p 'require("evergrant/package.json").version')" ]
	[ "$(find node_modules -name package.json -path '*evergrant*' -maxdepth 2 | wc -l)" = 2 ]
	cd "$project/test"
	OIDC_ACCESS_TOKEN_LIFE_S=2 "$EVERGRANT_ROOT/tests/oidc/run.sh" node oidc.mjs
	set -- *.test.mjs kit/*.test.mjs
fi
exec node --test --test-timeout=300000 --test-reporter=spec --test-concurrency=1 "$@"
