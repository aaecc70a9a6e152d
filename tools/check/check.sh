#!/usr/bin/env bash
# make check: what a change must pass beyond `make test`; ends with one line per step.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build
results=() bad=0

step() # TITLE COMMAND...
{
    local title=$1 start=$SECONDS
    shift
    printf '\n=== %s\n' "$title"
    if "$@"; then
        results+=("ok      $title ($((SECONDS - start)) s)")
    else
        results+=("FAILED  $title ($((SECONDS - start)) s)")
        bad=1
    fi
}

strict_build() # PRESET
{
    local log=build/$1.log
    { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1 || { grep -A8 -E 'error|warning' "$log" | head -80; return 1; }
}

# libfastvlm alone, for an application that brings its own pixels.
plain_build()
{
    local log=build/plain.log
    { cmake -S . -B build/plain -G Ninja -DFASTVLM_IMAGE=OFF -DFASTVLM_PULL=OFF -DFASTVLM_TOOLS=OFF -DFASTVLM_TESTS=OFF -DFASTVLM_WERROR=ON &&
        cmake --build build/plain; } >"$log" 2>&1 || { tail -n 40 "$log"; return 1; }
    tools/check/symbols.sh build/plain/libfastvlm.so include/fastvlm.h
}

release_exports()
{
    { cmake --preset release && cmake --build --preset release; } >build/release.log 2>&1 || { tail -n 40 build/release.log; return 1; }
    tools/check/symbols.sh build/release/libfastvlm.so include/fastvlm.h &&
        tools/check/symbols.sh build/release/libfastvlm_tools.so include/fastvlm_tools.h include/fastvlm_pull.h include/fastvlm_npu.h include/fastvlm_qairt.h include/fastvlm_device.h include/fastvlm_batch.h include/fastvlm_handoff.h
}

step "includes point down" tools/check/includes.sh
step "formatted by clang-format 14" tools/check/format.sh
step "no line over 100 columns" tools/check/columns.py
step "links in documents" tools/check/links.py
step "numbers know no locale" tools/check/numbers.py
step "checks refuse what they are for" tools/check/refuses.sh
step "public header alone" tools/check/header.sh
step "layout of the public interface" tools/check/abi.py
step "static names are unique" tools/check/figures.py --static
step "gcc, warnings are errors" strict_build gcc
step "the compiler refuses upward includes" tools/check/floors.py build/gcc
step "clang, warnings are errors" strict_build clang
step "without image libraries" plain_build
step "only fv_ names exported" release_exports
step "inside another project" tests/install/test_subdirectory.sh build --build
step "commands and figures in documents" tools/check/docs.py
step "tests, sanitizers, Arm kernels" tools/test.sh

printf '\n'
printf '%s\n' "${results[@]}"
exit $bad
