#!/bin/sh
# Installs what the tests need and this machine lacks (Debian and Ubuntu). Says what it does; does nothing if all is there.
set -eu

missing=
need() { # command, package
	command -v "$1" >/dev/null || missing="$missing $2"
}

need cc gcc
need g++ g++
need make make
need nm binutils
need pkg-config pkg-config
need valgrind valgrind
need bindfs bindfs
need strace strace
need openssl openssl
need ip iproute2
need socat socat
need tinyproxy tinyproxy
need microsocks microsocks
need setpriv util-linux
need pgbouncer pgbouncer
need chromium chromium
need redis-server redis-server
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -e /usr/include/sqlite3.h ] || missing="$missing libsqlite3-dev"

[ -n "$missing" ] || exit 0
echo "installing:$missing"
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
