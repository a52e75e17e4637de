#!/bin/sh
# Fills dist/ with the packages for the Linux of a machine, with a library for each C library that is named:
#   packaging/dist.sh MACHINE glibc|musl...
set -eu
cd "$(dirname "$0")/.."
python=build/venv/packaging/bin/python
machine=$1
shift

rm -rf dist
mkdir -p dist
for libc; do
	case $libc in
	glibc) platform=manylinux_2_28_$machine ;;
	musl) platform=musllinux_1_2_$machine ;;
	esac
	library=$(packaging/library.sh "$machine" "$libc")
	EVERGRANT_BUILD_LIBRARY=$PWD/$library EVERGRANT_WHEEL_PLATFORM=$platform \
		$python -m build --no-isolation --wheel --outdir dist bindings/python
	set -- "$@" "$libc=$library"
	shift
done
$python -m build --no-isolation --sdist --outdir dist bindings/python
bindings/node/pack.sh "$machine" "$@"
ls -l dist
