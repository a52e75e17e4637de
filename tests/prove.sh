#!/bin/sh
# Repeats, at length, what shows that nothing is lost: `make prove` builds what it needs. Prints a table with a row for
# each part, and the whole output of one that failed. Names of parts as arguments run only these.
#
# Whatever is random comes from EVERGRANT_SEED, in the same order each time; how far a process had come when it was killed
# at a moment, not at a system call, is up to the machine. EVERGRANT_KILLS, EVERGRANT_FUZZ_S, EVERGRANT_PROVE_S: how much.
set -eu
cd "$(dirname "$0")/.."

EVERGRANT_SEED=${EVERGRANT_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export EVERGRANT_SEED
wanted=" $* "
parts=
failed=0

row() { # result, part, what was done, what came of it, seconds
	printf '%-7s %-24s %-14s %-10s %6s  %s\n' "$1" "$2" "$3" "$EVERGRANT_SEED" "$5 s" "$4"
}

part() { # name, command...
	name=$1
	shift
	parts="$parts $name"
	case $wanted in "  " | *" $name "*) ;; *) return 0 ;; esac
	log=build/prove/$name.log
	began=$(date +%s)
	if "$@" >"$log" 2>&1; then
		# "500 kills, 250 left a renewal in doubt, ...", or else the number of tests, or the last word.
		figures=$(sed -nE 's/^\.*([0-9]+ (kills|stops|errors|steps), )/\1/p' "$log")
		[ -n "$figures" ] || figures=$(sed -nE 's/^test result: ok\. ([0-9]+) passed.*/\1 tests, 0 failed/p' "$log")
		[ -n "$figures" ] || figures=$(tail -n 1 "$log")
		row ok "$name" "${figures%%,*}" "${figures#*, }" $(($(date +%s) - began))
	else
		row FAILED "$name" "" "$log" $(($(date +%s) - began))
		sed 's/^/        /' "$log"
		echo "        to repeat it: EVERGRANT_SEED=$EVERGRANT_SEED make prove PARTS=$name"
		failed=1
	fi
}

processes() { # which tests
	EVERGRANT_KILLS=${EVERGRANT_KILLS:-5000} cargo test --quiet --test processes -- --nocapture "$1"
}

# For the kills, too.
# shellcheck source=tests/languages/install.sh
. tests/languages/install.sh
mkdir -p build/prove
printf '%-7s %-24s %-14s %-10s %6s  %s\n' '' part done seed time 'what came of it'
part model cargo run --quiet -p evergrant-model -- large
part mutations cargo run --quiet -p evergrant-model -- mutations
part concurrency tests/concurrency.sh "${EVERGRANT_SCHEDULES:-10000}"
part concurrency-mutations tests/concurrency.sh mutations
part kills-with-grace processes crash::kill_9_at_any_moment
part kills-strict processes crash::kill_9_loses_a_session_only
part replays-with-grace processes crash::kill_9_during_a_replay_loses_nothing
part replays-strict processes crash::kill_9_during_a_replay_loses_a_session_only
part calls-with-grace processes syscalls::kill_9_at_each_call_loses_nothing
part calls-strict processes syscalls::kill_9_at_each_call_loses_a_session_only
part stops-at-each-call processes syscalls::a_stop_at_each_call
part disk-errors-at-each-call processes syscalls::an_error_of_the_disk
part owners processes owner::
part forks processes fork::
part hosts processes host::
part disks processes disk::
part clocks processes clocks::
part older-copies processes restored::
part fuzz fuzz/run.sh "${EVERGRANT_FUZZ_S:-60}"
part sanitizers tests/sanitizers.sh
part languages tests/languages/run.sh "${EVERGRANT_PROVE_S:-180}" --kill
part machines-postgres tests/machines/run.sh postgres "${EVERGRANT_PROVE_S:-300}" --trouble
part machines-redis tests/machines/run.sh redis "${EVERGRANT_PROVE_S:-300}" --trouble

for name; do
	case "$parts " in *" $name "*) ;; *) echo "there is no part $name; there are:$parts" >&2 && failed=1 ;; esac
done
exit $failed
