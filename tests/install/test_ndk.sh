#!/usr/bin/env bash
# make android without an NDK, with something else in its place, and with a stand-in whose toolchain
# file notes what it was asked for. A stand-in cannot show that Android's compiler and C library take
# the sources; tools/build-arm.sh with a real NDK does.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

check() # NAME CODE TEXT: of the last run
{
    if [ "$code" = "$2" ] && grep -qF -- "$3" <<<"$out"; then
        echo "[       OK ] $1"
    else
        printf '%s\n[  FAILED  ] %s: exit code %s\n' "$out" "$1" "$code"
        failed=1
    fi
}

out=$(env -u ANDROID_NDK_ROOT "$root/tools/build-arm.sh" android 2>&1) code=$?
check no_ndk 1 "ANDROID_NDK_ROOT is not set"
out=$(ANDROID_NDK_ROOT=$work "$root/tools/build-arm.sh" android 2>&1) code=$?
check not_an_ndk 1 "expected an Android NDK"

mkdir -p "$work/ndk/build/cmake"
cat >"$work/ndk/build/cmake/android.toolchain.cmake" <<'END'
file(WRITE $ENV{NOTES} "${ANDROID_ABI} ${ANDROID_PLATFORM} ${CMAKE_FIND_ROOT_PATH} $ENV{PKG_CONFIG_LIBDIR}\n"
    "${FASTVLM_STATIC} ${FASTVLM_STATIC_LIBRARIES} ${CMAKE_EXE_LINKER_FLAGS}\n")
message(FATAL_ERROR "the stand-in stops here")
END
out=$(cd "$root" && ANDROID_NDK_ROOT=$work/ndk NOTES=$work/notes cmake --preset android -B "$work/build" 2>&1) code=$?
check configures 1 "the stand-in stops here"
libraries=$root/build/android-libraries
out=$(cat "$work/notes") code=0
check arguments 0 "arm64-v8a android-28 $libraries $libraries/lib/pkgconfig"
check static_libraries 0 "OFF ON -s -Wl,--gc-sections,-z,max-page-size=16384"
exit $failed
