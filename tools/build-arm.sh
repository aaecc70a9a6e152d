#!/usr/bin/env bash
# The program for 64-bit Arm, stripped: make arm64, arm64-dynamic, android.
#
#     tools/build-arm.sh arm64-static     one file for any Linux and for Android's shell
#     tools/build-arm.sh arm64-dynamic    for Linux with glibc; opens QNN libraries
#     tools/build-arm.sh android          for Android 9 and later; opens QNN libraries. Needs an NDK
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?arm64-static, arm64-dynamic or android}

ndk_check()
{
    local ndk=${ANDROID_NDK_ROOT:-}
    if [ -z "$ndk" ]; then
        echo "build-arm: ANDROID_NDK_ROOT is not set; it names an unpacked Android NDK, r26 or later:" >&2
        echo "    export ANDROID_NDK_ROOT=\$HOME/android-ndk-r27c" >&2
        echo "  make arm64 needs none: it also runs in Android's shell, on the CPU" >&2
        exit 1
    fi
    [ -e "$ndk/build/cmake/android.toolchain.cmake" ] || {
        echo "build-arm: $ndk (ANDROID_NDK_ROOT) has no build/cmake/android.toolchain.cmake; expected an Android NDK" >&2
        exit 1
    }
}

case $preset in
arm64-static | arm64-dynamic)
    tools/setup.sh build arm
    tools/sysroot-arm64.sh
    ;;
android)
    ndk_check
    tools/setup.sh build
    tools/source-libraries.sh android
    ;;
*) echo "build-arm: unknown program $preset" >&2; exit 2 ;;
esac
mkdir -p build
cmake --preset "$preset" >"build/$preset.log" 2>&1 || { tail -n 30 "build/$preset.log" >&2; exit 1; }
cmake --build --preset "$preset"
program=build/$preset/fastvlm
bytes=$(stat -c %s "$program") model=$(stat -c %s models/demo/demo.gguf)
awk -v p="$program" -v b="$bytes" -v m="$model" 'BEGIN {
    printf "built: %s, %.1f MB, %.1f MB without the demonstration model in it\n", p, b / 1e6, (b - m) / 1e6 }'
