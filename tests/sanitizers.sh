#!/bin/sh
# Runs the library's tests with everything compiled for ThreadSanitizer: the library, the Rust standard library, and SQLite.
# A data race fails its test program. The last line has the figures. (AddressSanitizer is in what fuzz/run.sh builds.)
set -eu
cd "$(dirname "$0")/.."

# The sanitizers are part of every toolchain; only their flags are not stable.
export RUSTC_BOOTSTRAP=1
machine=$(rustc -vV | sed -n 's/^host: //p')
# A standard library that was built without it hides its locks: every use of one would look like a race.
[ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] || rustup component add rust-src

mkdir -p build
log=build/sanitizers.log
# Some tests fork while threads run.
CFLAGS="-fsanitize=thread -g" RUSTFLAGS=-Zsanitizer=thread TSAN_OPTIONS="exitcode=66 die_after_fork=0" \
	cargo test --quiet -Zbuild-std --target "$machine" --target-dir build/tsan --lib --test back_off --test expiry \
	--test misc --test queue --test replay --test store >"$log" 2>&1 || { cat "$log"; exit 1; }
awk '/^test result: ok/ { passed += $4 } END { print passed " tests without a data race" }' "$log"
