#!/bin/sh
# Installs what the benchmarks need beyond tests/setup.sh: libcurl, the peer (Debian and Ubuntu). Does nothing if it is there.
set -eu

pkg-config --exists libcurl && exit 0
echo "installing: libcurl4-openssl-dev"
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libcurl4-openssl-dev
