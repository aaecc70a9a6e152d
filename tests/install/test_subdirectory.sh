#!/usr/bin/env bash
# fastvlm as a part of another project (add_subdirectory, FetchContent): configured without a kind of
# build, nothing of the parent's changes; with --build all four libraries are built and used. A test
# of `make test` configures; `make check` builds.
#
#     test_subdirectory.sh WORK_FOLDER [--build]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$1/subdirectory
log=$work.log
tiny=$root/tests/data/tiny
mkdir -p "$work"

step()
{
    if "${@:2}" >"$log" 2>&1; then
        echo "[       OK ] $1"
    else
        cat "$log"
        echo "[  FAILED  ] $1"
        exit 1
    fi
}

step configure cmake -S "$root/tests/install/parent" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE= -DHOW=add_subdirectory \
    -DFASTVLM_SOURCE="$root" -DFASTVLM_TOOLS=ON
step no_tests_no_program bash -c "! ninja -C '$work' -t targets all | grep -qE '^fastvlm/(test_|replay_|checkkernels|fastvlm:)'"
step nothing_installed bash -c "! grep -q 'lib/pkgconfig' '$work/fastvlm/cmake_install.cmake'"
step optimised_all_the_same bash -c "ninja -C '$work' -t commands | grep 'src/nn/decoder.c' | grep -q -- ' -O2 '"
[ "${2:-}" = --build ] || exit 0
step build cmake --build "$work"
for library in fastvlm static; do
    step "with_$library answers" "$work/with_$library" "$tiny/checkpoint" "$tiny/image.png" "What do you see?"
done
for library in tools tools_static; do
    step "with_$library packs" "$work/with_$library" "$tiny/checkpoint" "$work/$library.gguf"
done
step same_bytes cmp "$work/tools.gguf" "$work/tools_static.gguf"
