#!/bin/sh
# Builds every tests/c/*.c against an installed evergrant (found by pkg-config) in every way, and runs it:
#   c99, c++17, static, ASan + UBSan, valgrind (memory.c, which reads all of its own memory, without the last two).
# Names of programs as arguments run only these. To be run by tests/with-server.sh: some programs need the test server.
set -eu

here=$(dirname "$0")
out=${EVERGRANT_TEST_OUT:-build/tests-c}
mkdir -p "$out"

warnings="-Wall -Wextra -Wpedantic -Werror"
c99="${CC:-cc} -std=c99 -D_POSIX_C_SOURCE=200809L -O1 -g $warnings"
cxx="${CXX:-c++} -std=c++17 -O1 -g $warnings -x c++"
cflags="$(pkg-config --cflags evergrant) -I$here"
libdir=$(pkg-config --variable=libdir evergrant)
shared="$(pkg-config --libs evergrant) -Wl,-rpath,$libdir -pthread"
# Ours alone from the archive: -static would make the C library static too.
static="$libdir/libevergrant.a $(pkg-config --static --libs-only-l evergrant | sed 's/-levergrant//') -pthread"
failed=0

run() { # name of the run, command...
	name=$1
	shift
	if "$@" >"$out/$name.log" 2>&1; then
		echo "ok      $name: $(tail -n 1 "$out/$name.log")"
	else
		echo "FAILED  $name"
		sed 's/^/        /' "$out/$name.log"
		failed=1
	fi
}

every_way() { # program
	source=$here/$1.c
	# shellcheck disable=SC2086 # flags are lists
	{
		$c99 $cflags "$source" -o "$out/$1-c99" $shared
		$cxx $cflags "$source" -x none -o "$out/$1-c++17" $shared
		$c99 $cflags "$source" -o "$out/$1-static" $static
		$c99 -fsanitize=address,undefined -fno-sanitize-recover=all $cflags "$source" -o "$out/$1-sanitized" $shared
	}
	nm "$out/$1-sanitized" | grep -q __asan_init || { echo "$1: the sanitizer is not in"; exit 1; }
	# What starts the program: for oidc.c, a fresh oidc-provider.
	around=env
	[ "$1" != oidc ] || around=tests/oidc/run.sh
	run "$1-c99" $around "$out/$1-c99"
	run "$1-c++17" $around "$out/$1-c++17"
	run "$1-static" $around "$out/$1-static"
	[ "$1" != memory ] || return 0
	run "$1-sanitized" $around "$out/$1-sanitized"
	run "$1-valgrind" $around valgrind --quiet --leak-check=full --show-leak-kinds=definite,possible \
		--errors-for-leak-kinds=definite,possible --error-exitcode=99 "$out/$1-c99"
}

# A host with an SQLite of its own: against the static library only.
beside_sqlite() {
	database=$out/sqlite-test.db
	# shellcheck disable=SC2086
	{
		$c99 $cflags "-DDATABASE=\"$database\"" "$here/sqlite.c" -o "$out/sqlite-real" \
			"$(pkg-config --variable=libdir sqlite3)/libsqlite3.a" $static
		$c99 $cflags "-DDATABASE=\"$database\"" -DOWN_SQLITE "$here/sqlite.c" -o "$out/sqlite-own" $static
	}
	run sqlite-real "$out/sqlite-real"
	run sqlite-own "$out/sqlite-own"
}

if [ $# = 0 ]; then
	for source in "$here"/*.c; do
		set -- "$@" "$(basename "$source" .c)"
	done
fi
for program; do
	case $program in
	sqlite) beside_sqlite ;;
	worker | clocks) ;; # tests/processes builds and uses them
	*) every_way "$program" ;;
	esac
done
exit $failed
