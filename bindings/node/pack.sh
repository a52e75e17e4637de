#!/bin/sh
# Makes the npm packages: pack.sh LIBRARY DEST [MUSL_LIBRARY]
# LIBRARY is libevergrant.so for Linux on x86-64 with glibc, MUSL_LIBRARY the same for musl. The tarballs go to DEST.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 LIBRARY DEST [MUSL_LIBRARY]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
mkdir -p "$2"
dest=$(cd "$2" && pwd)

# In a copy: what is built does not belong into the source tree.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM

main=$stage/evergrant platform=$stage/evergrant-linux-x64
mkdir -p "$main" "$platform/glibc"
cp -R "$here/package.json" "$here/README.md" "$here/index.js" "$here/index.d.ts" "$here/lib" "$main"
cp -R "$here/platforms/linux-x64/." "$platform"
install -m 755 "$1" "$platform/glibc/libevergrant.so"
if [ $# -gt 2 ]; then
	mkdir -p "$platform/musl"
	install -m 755 "$3" "$platform/musl/libevergrant.so"
fi
for package in "$main" "$platform"; do
	cp "$root/LICENSE-APACHE" "$root/LICENSE-MIT" "$package"
	(cd "$package" && npm pack --silent --pack-destination "$dest")
done
