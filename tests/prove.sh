#!/bin/sh
# Repeats, at length, what shows that nothing is lost: `make prove` builds what it needs. Prints one line for each part, and
# its whole output where it failed. EVERGRANT_SEED repeats the kills of a run; each part prints its seed.
set -eu
cd "$(dirname "$0")/.."

failed=0
part() { # name, command...
	name=$1
	shift
	log=build/prove/$name.log
	if "$@" >"$log" 2>&1; then
		figures=$(grep -E '^[0-9]+ (kills|errors), ' "$log" || tail -n 1 "$log")
		echo "ok      $name: $figures$(sed -n 's/^EVERGRANT_SEED=/ seed /p' "$log" | tr '\n' ',')"
	else
		echo "FAILED  $name"
		sed 's/^/        /' "$log"
		failed=1
	fi
}

kills() { # which test
	EVERGRANT_KILLS=${EVERGRANT_KILLS:-10000} cargo test --quiet --test processes -- --include-ignored --nocapture "$1"
}

mkdir -p build/prove
part model cargo run --quiet -p evergrant-model -- large
part mutations cargo run --quiet -p evergrant-model -- mutations
part concurrency tests/concurrency.sh "${EVERGRANT_SCHEDULES:-10000}"
part concurrency-mutations tests/concurrency.sh mutations
part kills-with-grace kills crash::kill_9_at_any_moment
part kills-strict kills crash::kill_9_loses_a_session_only
part kills-at-each-call-with-grace kills syscalls::kill_9_at_each_call_loses_nothing
part kills-at-each-call-strict kills syscalls::kill_9_at_each_call_loses_a_session_only
part disk-errors-at-each-call kills syscalls::an_error_of_the_disk
part fuzz fuzz/run.sh "${EVERGRANT_FUZZ_S:-60}"
part languages tests/languages/run.sh "${EVERGRANT_PROVE_S:-180}" --kill
exit $failed
