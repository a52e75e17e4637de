#!/bin/sh
# Fuzzes every target, by default for a minute each, from the committed corpus on: `fuzz/run.sh 600 answer token` runs
# some, longer. The last line has the figures; what fails stays in fuzz/artifacts/, ready to join the corpus.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
version=0.13.2
tool=$PWD/build/cargo-fuzz-$version
[ -x "$tool/bin/cargo-fuzz" ] || cargo install --quiet --locked --version "$version" --root "$tool" cargo-fuzz
PATH=$tool/bin:$PATH
# The sanitizers are part of every toolchain; only their flag is not stable.
export RUSTC_BOOTSTRAP=1

targets=${*:-$(ls fuzz/corpus)}
cargo fuzz build
figures=
failed=
for target in $targets; do
	found=build/fuzz/corpus/$target
	log=build/fuzz/$target.log
	# libFuzzer looks at the clock only when it has run the whole corpus: with all that earlier runs have found, two seconds
	# become minutes.
	rm -rf "$found"
	mkdir -p "$found"
	if ! cargo fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$seconds" -dict=fuzz/dictionary \
		-max_len=8192 -timeout=30 -print_final_stats=1 >"$log" 2>&1; then
		failed="$failed $target"
		tail -n 60 "$log"
	fi
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	figures="$figures, $target ${runs:-0} runs ${edges:-0} edges"
done
[ -z "$failed" ] || echo "failed:$failed"
echo "${figures#, }"
[ -z "$failed" ]
