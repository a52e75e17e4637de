#!/bin/sh
# The C examples build with the one line that the README gives, without a warning.
set -eu
out=${EVERGRANT_TEST_OUT:-build/tests-c}
mkdir -p "$out"
for example in bindings/c/examples/*.c; do
	program=$out/example-$(basename "$example" .c)
	# shellcheck disable=SC2046 # flags are lists
	${CC:-cc} -std=c99 -Wall -Wextra -Wpedantic -Werror "$example" $(pkg-config --cflags --libs evergrant) -o "$program"
	echo "ok      $program"
done
