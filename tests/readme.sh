#!/bin/sh
# The README as its reader uses it: its C program is the example word for word, its commands run as they stand (all
# `sh` blocks; `make test` has its own run), and the program that they build renews a session.
set -eu
cd "$(dirname "$0")/.."

block() { # language
	sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/d;p}" README.md
}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

block c >"$dir/excerpt.c"
[ -s "$dir/excerpt.c" ] || { echo "README.md has no C program" >&2; exit 1; }
python3 - "$dir/excerpt.c" bindings/c/examples/renew.c <<'PY'
import sys
excerpt, example = (open(path).read() for path in sys.argv[1:])
sys.exit(0 if excerpt in example else "README.md: its C program is not a run of lines of bindings/c/examples/renew.c")
PY

block sh | grep -v '^make test$' >"$dir/commands"
grep -q '^make demo$' "$dir/commands"
sh -eux "$dir/commands"

cat >"$dir/renew.sh" <<'SH'
set -eu
dir=$1
cat >"$dir/client.json" <<JSON
{"site_url": "$EVERGRANT_TEST_SITE/customers", "client_id": "client", "client_secret": "secret",
 "store": "sqlite:$dir/sessions.db"}
JSON
token=$(python3 - "$EVERGRANT_TEST_SERVER" <<'PY'
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1] + "/sign_in", data=b"{}")
print(json.load(urllib.request.urlopen(request))["refresh_token"])
PY
)
./build/renew "$dir/client.json" alice "$token"
./build/renew "$dir/client.json" alice | grep -q 'with a token of [1-9][0-9]* bytes'
SH
EVERGRANT_TEST_SERVER_PROGRAM=target/debug/evergrant-test-server tests/with-server.sh sh "$dir/renew.sh" "$dir"
echo "README.md does what it says"
