#!/bin/sh
# Runs the library on simulated threads (tests/concurrency), in many orders of their steps:
#   tests/concurrency.sh [SCHEDULES]     for each scenario; 200 without a number
#   tests/concurrency.sh mutations       breaks the library at one place at a time; each time a scenario must fail
# A failure names the file of its schedule. EVERGRANT_SCHEDULE=FILE tests/concurrency.sh 1 SCENARIO runs it again.
set -eu
cd "$(dirname "$0")/.."

[ "${1:-}" != mutations ] || exec python3 tests/concurrency/mutations.py
log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$(date +%s)
test() {
	cargo test --quiet --lib --no-default-features --features shuttle -- "$@"
}
test --list >/dev/null
built=$(date +%s)
filter=concurrency::
[ $# -lt 2 ] || filter="--exact concurrency::sessions::$2 concurrency::parts::$2"
# shellcheck disable=SC2086 # a list
EVERGRANT_SCHEDULES=${1:-200} test $filter --nocapture >"$log" 2>&1 || { cat "$log"; exit 1; }
sed -n 's/.*\(^\|[. ]\)\([a-z_]*: [0-9]* schedules, .*\)/\2/p' "$log" | sort
sed -n 's/.*: \([0-9]*\) schedules, .*/\1/p' "$log" | awk -v built=$((built - started)) -v ran=$(($(date +%s) - built)) \
	'{ sum += $1 } END { if (!NR) exit 1; print NR " scenarios, " sum " schedules in " ran " s; built in " built " s" }'
