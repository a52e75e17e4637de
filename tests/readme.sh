#!/bin/sh
# The README as its reader uses it: its programs are the examples word for word, its commands run as they stand (all
# `sh` blocks; `make test` has its own run), and what they install and build renews one session from three languages.
set -eu
cd "$(dirname "$0")/.."

block() { # language
	sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/d;p}" README.md
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

while read -r language example; do
	block "$language" | diff -u "$example" - || { echo "README.md: its $language program is not $example" >&2; exit 1; }
done <<-'EXAMPLES'
	python bindings/python/examples/renew.py
	js bindings/node/examples/renew.mjs
	c bindings/c/examples/renew.c
EXAMPLES

block sh | grep -v '^make test$' >"$dir/commands"
grep -q '^make demo$' "$dir/commands"
rm -rf build/local
sh -eux "$dir/commands"

cat >"$dir/renew.sh" <<'SH'
set -eu
dir=$1
control() { # path, JSON to post
	python3 - "$EVERGRANT_TEST_SERVER/$1" ${2+"$2"} <<'PY'
import sys, urllib.request
url, *body = sys.argv[1:]
print(urllib.request.urlopen(url, *map(str.encode, body)).read().decode())
PY
}
cat >"$dir/client.json" <<JSON
{"site_url": "$EVERGRANT_TEST_SITE/customers", "client_id": "client", "client_secret": "secret",
 "store": "sqlite:$dir/sessions.db"}
JSON
token=$(control sign_in '{}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["refresh_token"])')
./build/renew "$dir/client.json" alice "$token" >"$dir/first"
grep -q 'with a token of [1-9][0-9]* bytes' "$dir/first"
./build/renew "$dir/client.json" alice | diff "$dir/first" -
build/local/python/bin/python bindings/python/examples/renew.py "$dir/client.json" alice | diff "$dir/first" -
node build/local/node/renew.mjs "$dir/client.json" alice | diff "$dir/first" -
[ "$(control 'log?endpoint=token' | grep -o '"outcome"' | wc -l)" = 1 ]
SH
# Nothing but what the commands have installed.
unset EVERGRANT_LIBRARY PYTHONPATH
EVERGRANT_TEST_SERVER_PROGRAM=target/debug/evergrant-test-server tests/with-server.sh sh "$dir/renew.sh" "$dir"
echo "README.md does what it says"
