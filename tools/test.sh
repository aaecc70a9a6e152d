#!/usr/bin/env bash
# Everything that can be tested without weights or a network, in one run: `make test` and CI.
#
#     tools/test.sh [STAGE...]     dev ref old asan tsan arm whole-arm phone
#                                  default: all but the last two
#
# dev   every test, assertions on
# ref   golden and api tests again with the portable kernels only (FV_CPU=ref)
# old   the program on emulated x86 processors without newer instructions: none may leak
# asan  every test under the address and undefined behaviour sanitizers
# tsan  the pool and everything else with threads, under the thread sanitizer
# arm   the kernels, cross-compiled, under qemu: an old core and one with every extension
# whole-arm   every test, cross-compiled with the distribution's Arm libraries, under qemu
# phone  the static Arm program in surroundings like those of Android's shell, under qemu
#
# The last line is "N passed, N failed": test functions, kernels at one level, and one for a program
# that has neither.
set -uo pipefail
cd "$(dirname "$0")/.."

stages=("$@")
[ ${#stages[@]} -eq 0 ] && stages=(dev ref old asan tsan arm)
passed=0 failed=0 skipped=0
jobs=$(nproc 2>/dev/null || echo 2)

want()
{
    local stage
    for stage in "${stages[@]}"; do
        [ "$stage" = "$1" ] && return 0
    done
    return 1
}

# A build that fails is one failed test, and its output is shown.
build() # PRESET
{
    local log=build/$1.log start=$SECONDS
    mkdir -p build
    if ! { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "test: preset $1 does not build"
        failed=$((failed + 1))
        return 1
    fi
    [ $((SECONDS - start)) -ge 60 ] && echo "   build/$1 took $((SECONDS - start)) s"
    return 0
}

# Adds up the test functions in ctest's log of one run.
count() # LOG
{
    local sums
    sums=$(awk '
        /^[0-9]+\/[0-9]+ Testing: / { name = $3; ok = bad = skip = own = 0 }
        /^\[       OK \] /          { ok++ }
        /^\[  FAILED  \] .*[^0-9]$/ && !/test\(s\)/ { failing[$NF] = 1 }
        /^\[  SKIPPED \] [^0-9]/    { skipping[$NF] = 1 }
        / [0-9]+ checked$/          { ok++; own = 1 }   # checkkernels: one kernel at one level
        / [0-9]+ FAILED$/           { bad++; own = 1 }
        /^[0-9]+ passed, [0-9]+ failed$/ && !own { ok += $1; bad += $3; own = 1 } # scripts that count
        /^Test (Passed|Failed|Timeout)|^Test Not Run|^Unable to find executable|^Skip (regular expression|return code)/ {
            for (key in failing) bad++
            for (key in skipping) { skip++; names = names " " key }
            delete failing
            delete skipping
            if (/^Skip/)                              { skip++; names = names " " name }
            else if (/Passed/ && ok == 0 && !own)     ok = 1
            else if (!/Passed/ && bad == 0)           bad = 1
            all_ok += ok; all_bad += bad; all_skip += skip
        }
        END { print all_ok + 0, all_bad + 0, all_skip + 0, names }' "$1")
    read -r run_ok run_bad run_skip run_names <<<"$sums"
    passed=$((passed + run_ok)) failed=$((failed + run_bad)) skipped=$((skipped + run_skip))
}

run() # TITLE PRESET [CTEST ARGUMENT...]
{
    local title=$1 preset=$2 code=0 start=$SECONDS
    shift 2
    printf '== %s\n' "$title"
    ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" "$@" >"build/$preset.ctest" 2>&1 || code=$?
    count "build/$preset/Testing/Temporary/LastTest.log"
    if [ $((run_ok + run_bad)) -eq 0 ]; then
        echo "   no test ran"
        failed=$((failed + 1))
    fi
    if [ "$code" -ne 0 ]; then
        cat "build/$preset.ctest"
        [ "$run_bad" -eq 0 ] && failed=$((failed + 1)) # ctest itself failed
    fi
    printf '   %s passed, %s failed%s, %d s\n' "$run_ok" "$run_bad" "$([ "$run_skip" -gt 0 ] && echo ", $run_skip skipped: $run_names")" \
        $((SECONDS - start))
    # The longest are where to cut when the run gets too long.
    awk '/^[0-9]+\/[0-9]+ Testing: / { name = $3 } /^Test time = / { printf "%6.0f %s\n", $4, name }' \
        "build/$preset/Testing/Temporary/LastTest.log" | sort -rn | awk '$1 > 40 && NR <= 5 { printf "   %4d s %s\n", $1, $2 }'
}

# The whole program on an emulated processor must answer as this one does at that processor's level. An
# instruction that leaked into a lower level would end it.
on_old_x86() # QEMU_CPU LEVEL
{
    local ask=(build/dev/fastvlm run -q tests/data/tiny/checkpoint tests/data/tiny/image.png "What do you see?" -n 8)
    local emulator=(qemu-x86_64 -cpu "$1") want got

    want=$(FV_CPU=$2 "${ask[@]}" 2>&1)
    if ! "${emulator[@]}" build/dev/fastvlm doctor 2>/dev/null | grep -qE "^kernels +$2\$"; then
        echo "   $1: this qemu does not emulate $2, skipped"
        skipped=$((skipped + 1))
    elif got=$("${emulator[@]}" "${ask[@]}" 2>/dev/null) && [ "$got" = "$want" ]; then
        echo "   $1 ($2): the same answer"
        passed=$((passed + 1))
    else
        printf '   %s answers "%s", expected "%s"\n' "$1" "$got" "$want"
        failed=$((failed + 1))
    fi
}

if want dev || want ref || want old; then
    if build dev; then
        want dev && run "dev: everything" dev
        want ref && FV_CPU=ref run "ref: golden and api with portable kernels" dev -L 'golden|api'
        if want old && [ "$(uname -m)" = x86_64 ] && [ -x build/dev/fastvlm ]; then
            echo "== old: the program on older x86 processors"
            on_old_x86 Nehalem ref
            on_old_x86 Haswell avx2
        fi
    fi
fi
if want asan && build asan; then
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
    run "asan: everything" asan
fi
if want tsan && build tsan; then
    run "tsan: pool and threads" tsan -L threads
fi
if [ "$(uname -m)" != x86_64 ] && { want arm || want whole-arm || want phone; }; then
    echo "== arm: not cross-compiled on $(uname -m), skipped"
    skipped=$((skipped + 1))
    stages=(dev)
fi
if want arm && build arm64-kernels; then
    QEMU_CPU=cortex-a53 run "arm: kernels on qemu's cortex-a53" arm64-kernels
    # The same instructions on either: the old core has run those of NEON.
    QEMU_CPU=max run "arm: kernels on qemu's max" arm64-kernels -E '^kernels\.neon$'
fi
if want whole-arm; then
    if tools/sysroot-arm64.sh && build arm64; then
        for cpu in cortex-a53 max; do
            QEMU_CPU=$cpu run "whole-arm: everything on qemu's $cpu" arm64
        done
    else
        failed=$((failed + 1))
    fi
fi
if want phone; then
    echo "== phone: the static program as in Android's shell"
    if tools/sysroot-arm64.sh && build arm64-static; then
        tests/install/test_phone_shell.sh build/arm64-static/fastvlm | tee build/phone.log
        read -r run_ok run_bad < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' build/phone.log)
        passed=$((passed + ${run_ok:-0})) failed=$((failed + ${run_bad:-1}))
        build dev && run "phone: sent and run by fastvlm device" dev -R '^cli.test_device_arm$'
    else
        failed=$((failed + 1))
    fi
fi

[ "$skipped" -gt 0 ] && echo "$skipped skipped, named above: kernels.* are instruction sets that this processor or emulator lacks, cli.* say what they miss in build/*.ctest"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
