#!/bin/sh
# Fills dist/ with the packages for the Linux of a machine, for glibc and, if that is named, for musl:
#   packaging/dist.sh MACHINE [musl]
set -eu
cd "$(dirname "$0")/.."
machine=$1
case $machine in
x86_64) PLATFORM=linux-x64 ;; # npm's words
aarch64) PLATFORM=linux-arm64 ;;
*) PLATFORM=linux-$machine ;;
esac
export PLATFORM

wheel() { # library, platform tag
	EVERGRANT_BUILD_LIBRARY=$PWD/$1 EVERGRANT_WHEEL_PLATFORM=$2 pyproject_build --wheel
}
pyproject_build() {
	build/venv/packaging/bin/python -m build --no-isolation "$@" --outdir dist bindings/python
}

glibc=$(packaging/library.sh "$machine" glibc)
musl=${2+$(packaging/library.sh "$machine" musl)}

rm -rf dist
mkdir dist
wheel "$glibc" "manylinux_2_28_$machine"
[ -z "$musl" ] || wheel "$musl" "musllinux_1_2_$machine"
pyproject_build --sdist
if [ -d "bindings/node/platforms/$PLATFORM" ]; then
	# shellcheck disable=SC2086 # none, or one without a space
	bindings/node/pack.sh "$glibc" dist $musl
else
	echo "no npm packages: bindings/node/platforms has no $PLATFORM yet" >&2
fi
# shellcheck disable=SC2086
wc -c "$glibc" $musl dist/*
