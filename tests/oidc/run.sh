#!/bin/sh
# Runs a command (a build of tests/c/oidc.c) against a fresh oidc-provider, then asks the provider what it saw.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 COMMAND" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
make --silent -C "$here/../.." tests/oidc/node_modules/made >&2

dir=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || :; rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

# The server stops when its stdin ends, so it cannot outlive this script.
mkfifo "$dir/stdin" "$dir/stdout"
node "$here/server.mjs" <"$dir/stdin" >"$dir/stdout" &
server=$!
exec 3>"$dir/stdin" 4<"$dir/stdout"
IFS= read -r line <&4 || { echo "oidc-provider did not start" >&2; exit 1; }
printf '%s\n' "$line" >"$dir/oidc.json"

EVERGRANT_OIDC="$dir/oidc.json" "$@" 3>&- 4<&-

node --input-type=module - "$dir/oidc.json" <<'JS'
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
const { issuer, clients } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const stats = await (await fetch(`${issuer}/_stats`)).json();
console.log('oidc-provider saw', stats);
assert.equal(stats.reuse_detected, 0, 'a used refresh token was presented');
assert.equal(stats.refresh_failed, 0, 'a refresh was refused');
assert.ok(stats.refresh_ok >= 20 * clients.length, 'too few refreshes');
assert.equal(stats.grant_revoked, clients.length, 'every session signs out, and each grant is revoked once');
JS
