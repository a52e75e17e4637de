#!/bin/sh
# Runs a command beside a fresh test server (a Salesforce site with strict rotation, or as EVERGRANT_TEST_SERVER_OPTIONS
# has it), named in its environment:
#   EVERGRANT_TEST_SITE    its URL
#   EVERGRANT_TEST_SERVER  its control URL
set -eu

server=${EVERGRANT_TEST_SERVER_PROGRAM:-target/release/evergrant-test-server}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

# It stops when its standard input ends: with this script, however that ends.
mkfifo "$dir/in" "$dir/out"
# shellcheck disable=SC2086 # a list
"$server" ${EVERGRANT_TEST_SERVER_OPTIONS:---mode salesforce --rotation strict} --exit-with-stdin <"$dir/in" >"$dir/out" &
exec 3>"$dir/in" 4<"$dir/out"
IFS= read -r line <&4 || { echo "the test server did not start" >&2; exit 1; }
member() {
	printf '%s' "$line" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"
}
EVERGRANT_TEST_SITE=$(member url) EVERGRANT_TEST_SERVER=$(member control_url) "$@" 3>&- 4<&-
