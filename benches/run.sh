#!/bin/sh
# Builds the benchmarks against an installed evergrant (found by pkg-config), runs them, prints one table.
# Names of benchmarks as arguments run only these: memory renewal herd start sessions size.
set -eu

here=$(dirname "$0")
out=${BENCH_OUT:-build/bench}
disk=$out/disk # durable writes are measured here
shm=$(mktemp -d /dev/shm/evergrant-bench-XXXXXX)
trap 'rm -rf "$shm" "$disk"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$disk"
mkdir -p "$disk"

[ $# != 0 ] || set -- memory renewal herd start sessions size

libdir=$(pkg-config --variable=libdir evergrant)
build() { # program, libraries
	program=$1
	shift
	# shellcheck disable=SC2046 # flags are lists
	${CC:-cc} -std=gnu11 -O2 -Wall -Wextra -Wno-unused-function $(pkg-config --cflags evergrant) "$here/$program.c" -o "$out/$program" "$@"
}
ours="$(pkg-config --libs evergrant) -Wl,-rpath,$libdir -pthread"
curl=$(pkg-config --cflags --libs libcurl)
# shellcheck disable=SC2086 # flags are lists
{
	build memory $ours
	build renewal $ours $curl
	build herd $ours $curl
	build start $ours
	build start-evergrant $ours
	build start-curl $curl
	build start-empty
	build sessions $ours
}

at_server() { # command that runs tests/with-server.sh
	EVERGRANT_TEST_SERVER_OPTIONS="--mode generic --rotation strict" "$@"
}

size() {
	bytes=$(wc -c <"$libdir/libevergrant.so")
	printf 'size of the stripped library\t%s MiB\t\t\t<= 4.5 MiB\n' "$(echo "$bytes" | awk '{ printf "%.2f", $1 / 1048576 }')"
}

{
	printf 'what\tours\tpeer\tratio\ttarget\n'
	for bench; do
		echo "$bench ..." >&2
		case $bench in
		memory) "$out/memory" ;;
		renewal) at_server taskset -c 0 tests/with-server.sh "$out/renewal" "$PWD/$disk" "$shm" ;;
		herd) at_server tests/with-server.sh "$out/herd" "$PWD/$disk" ;;
		start) "$out/start" "$out" "$PWD/$disk" ;;
		sessions) "$out/sessions" "$shm" ;;
		size) size ;;
		*) echo "there is no benchmark $bench" >&2 && exit 1 ;;
		esac
	done
} >"$out/rows"

echo
awk -F '\t' '
	{ for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } }
	END { for (row = 1; row <= NR; row++) {
		line = ""
		for (i = 1; i <= 5; i++) line = line sprintf("%-" width[i] "s%s", cell[row, i], i < 5 ? "  " : "")
		sub(/ +$/, "", line); print line
	} }' "$out/rows"
echo
echo "least / median / greatest of 9 rounds, ours and peer in turn; a ratio is of one round"
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$(nproc) cores, $cpu, Linux $(uname -r), load $(cut -d ' ' -f 1-3 /proc/loadavg), $(date -u +%Y-%m-%d)," \
	"evergrant $(pkg-config --modversion evergrant), libcurl $(pkg-config --modversion libcurl)"
