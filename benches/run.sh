#!/bin/sh
# Builds the benchmarks against an installed evergrant (found by pkg-config), runs them, prints one table.
# Names of benchmarks as arguments run only these: memory renewal herd start sessions size stores python node.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${BENCH_OUT:-build/bench}
python=${BENCH_PYTHON:-$PWD/$out/python/bin/python}
disk=$out/disk # durable writes are measured here
shm=$(mktemp -d /dev/shm/evergrant-bench-XXXXXX)
trap 'rm -rf "$shm" "$disk"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$disk"
mkdir -p "$disk"

unset EVERGRANT_LIBRARY PYTHONPATH # what is installed is measured

[ $# != 0 ] || set -- memory renewal herd start sessions size stores python node

libdir=$(pkg-config --variable=libdir evergrant)
build() { # program, libraries
	program=$1
	shift
	# shellcheck disable=SC2046 # flags are lists
	${CC:-cc} -std=gnu11 -O2 -Wall -Wextra -Wno-unused-function $(pkg-config --cflags evergrant) \
		"$here/$program.c" -o "$out/$program" "$@"
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
	build stores $ours
}

at_server() { # command that runs tests/with-server.sh
	EVERGRANT_TEST_SERVER_OPTIONS="--mode generic --rotation strict" "$@"
}

# What the libraries of a language start from: see python/prepare.py.
prepare() {
	[ -e "$disk/token.json" ] || "$python" "$here/python/prepare.py" "$disk"
}

start() {
	prepare
	store=$PWD/$disk/start.db token=$disk/token.json
	c='{"token_endpoint":"http://127.0.0.1:1/token","client_id":"c","store":"sqlite:'$store'"}'
	node='{"tokenEndpoint":"http://127.0.0.1:1/token","clientId":"c","store":"sqlite:'$store'"}'
	"$out/start-evergrant" "$c" "$(cat "$token")"
	in_c() { # what, target, peer ...
		what=$1 target=$2
		shift 2
		"$out/start" 25 "$what" "$target" "$out/start-evergrant" "$c" -- "$@"
	}
	in_c "process start to token and exit; peer: libcurl + JSON file" "<= 3 ms" "$out/start-curl" "$token"
	in_c "  peer: an empty program" "" "$out/start-empty"

	in_python() { # what, target of what is over the peer, peer ...
		what=$1 over=$2
		shift 2
		set -- "$python" "$here/python/start_evergrant.py" "$c" -- "$python" "$@"
		"$out/start" 5 "$what" "" ${over:+--over "$over"} "$@"
	}
	in_python "the same in Python; peer: import ctypes, json" "<= 8 ms" "$here/python/start_floor.py"
	in_python "  peer: google-auth" "" "$here/python/start_google.py" "$disk/google.json"
	in_python "  peer: msal" "" "$here/python/start_msal.py" "$disk/msal.json"
	in_python "  peer: simple-salesforce" "" "$here/python/start_salesforce.py" "$token"

	in_node() {
		what=$1 over=$2
		shift 2
		set -- node "$here/node/start-evergrant.mjs" "$node" -- node "$@"
		"$out/start" 5 "$what" "" ${over:+--over "$over"} "$@"
	}
	in_node "the same in Node; peer: import 'koffi'" "<= 5 ms" "$here/node/start-floor.mjs"
	in_node "  peer: google-auth-library" "" "$here/node/start-google.mjs" "$token"
	in_node "  peer: jsforce" "" "$here/node/start-jsforce.mjs" "$token"
}

size() {
	mib=$(wc -c <"$libdir/libevergrant.so" | awk '{ print $1 / 1048576 }')
	printf 'size of the stripped library\tMiB\t<= 6 MiB\t%s\t\n' "$mib"
	"$python" "$here/python/installed.py"
	(cd "$here/node" && node installed.mjs)
}

in_language() { # command that runs a program, its hits, its waits
	prepare
	BENCH_LIBRARY=$libdir/libevergrant.so "$1" "$2" "$disk"
	at_server tests/with-server.sh "$1" "$3"
}

for bench; do
	echo "$bench ..." >&2
	case $bench in
	memory) "$out/memory" ;;
	renewal) at_server taskset -c 0 tests/with-server.sh "$out/renewal" "$PWD/$disk" "$shm" ;;
	herd) at_server tests/with-server.sh "$out/herd" "$PWD/$disk" ;;
	start) start ;;
	sessions) "$out/sessions" "$shm" ;;
	size) size ;;
	stores) at_server tests/with-server.sh "$python" "$here/stores.py" "$out/stores" "$disk" ;;
	python) in_language "$python" "$here/python/hits.py" "$here/python/waits.py" ;;
	node) in_language node "$here/node/hits.mjs" "$here/node/waits.mjs" ;;
	*) echo "there is no benchmark $bench" >&2 && exit 1 ;;
	esac
done >"$out/rows"

echo
awk -f "$here/table.awk" "$out/rows"
echo
echo "least / median / greatest of 9 rounds, ours and peer in turn; a ratio is of one round"
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$(nproc) cores, $cpu, Linux $(uname -r), load $(cut -d ' ' -f 1-3 /proc/loadavg), $(date -u +%Y-%m-%d)," \
	"evergrant $(pkg-config --modversion evergrant), libcurl $(pkg-config --modversion libcurl)," \
	"Python $("$python" -c 'import platform; print(platform.python_version())'), Node $(node --version | tr -d v)"
