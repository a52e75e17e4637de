#!/bin/sh
# Builds the shared library that the packages hold, for any Linux of a machine and a C library, and prints its path:
#   packaging/library.sh MACHINE glibc|musl
# Zig brings the C compiler, the linker and each C library's symbols, so the build machine's own do not matter.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/build/venv/packaging/bin:$PATH"
export CARGO_ZIGBUILD_CACHE_DIR="$PWD/build/zig/wrappers" ZIG_GLOBAL_CACHE_DIR="$PWD/build/zig/cache"

machine=$1
case $2 in
glibc)
	target=$machine-unknown-linux-gnu
	version=.2.28 # the oldest glibc to run on, as in the wheel's tag: PEP 600
	flags=
	;;
musl)
	target=$machine-unknown-linux-musl
	version=
	flags=-Ctarget-feature=-crt-static # Rust makes no shared library there without it
	;;
*)
	echo "usage: $0 MACHINE glibc|musl" >&2
	exit 2
	;;
esac

rustc=${RUSTC:-rustc}
[ -d "$("$rustc" --print sysroot)/lib/rustlib/$target/lib" ] || {
	echo "$rustc has no standard library for $target: rustup target add $target" >&2
	exit 1
}

# A build is the same wherever it is made: no path of this machine is in it. The separator is Cargo's own, so that paths
# may have spaces.
separator=$(printf '\037')
flags="$flags${flags:+$separator}--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=registry"
flags="$flags$separator--remap-path-prefix=$PWD=evergrant"
# Where the sources of the standard library are installed (rust-src), rustc names them; elsewhere it names these.
std=$("$rustc" --print sysroot)/lib/rustlib/src/rust
flags="$flags$separator--remap-path-prefix=$std=/rustc/$("$rustc" -vV | sed -n 's/^commit-hash: //p')"
CARGO_ENCODED_RUSTFLAGS=$flags cargo-zigbuild zigbuild --quiet --locked --lib --release \
	--target "$target$version" --target-dir build/zig >&2
echo "build/zig/$target/release/libevergrant.so"
