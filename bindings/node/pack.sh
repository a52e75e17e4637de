#!/bin/sh
# Makes the npm packages: pack.sh LIBRARY DEST [MUSL_LIBRARY]
# LIBRARY is the shared library for PLATFORM (linux-x64; for Linux, that with glibc), MUSL_LIBRARY the same for musl.
# The tarballs go to DEST.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 LIBRARY DEST [MUSL_LIBRARY]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
name=evergrant-${PLATFORM:=linux-x64}
mkdir -p "$2"
dest=$(cd "$2" && pwd)

# In a copy: what is built does not belong into the source tree.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM

main=$stage/evergrant platform=$stage/$name
mkdir -p "$main"
cp -R "$here/package.json" "$here/README.md" "$here/index.js" "$here/index.d.ts" "$here/lib" "$here/recipes" "$main"
cp -R "$here/platforms/$PLATFORM" "$platform"
case $PLATFORM in
linux-*)
	install -D -m 755 "$1" "$platform/glibc/libevergrant.so"
	[ $# = 2 ] || install -D -m 755 "$3" "$platform/musl/libevergrant.so"
	;;
*)
	install -m 755 "$1" "$platform"
	;;
esac
for package in "$main" "$platform"; do
	cp "$root/LICENSE-APACHE" "$root/LICENSE-MIT" "$package"
	(cd "$package" && npm pack --silent --pack-destination "$dest")
done
