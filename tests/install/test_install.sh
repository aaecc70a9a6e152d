#!/usr/bin/env bash
# Installs into a folder of its own and builds the example against what lies there, the ways a
# user would: pkg-config, pkg-config --static, find_package. Each answer must be the same. As part of
# another project (add_subdirectory) it must configure and leave that project's choices alone.
#
#     test_install.sh BUILD_FOLDER
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/a prefix" # with a space, since users have those
cc=${CC:-cc}

step()
{
    if "${@:2}" >"$work/log" 2>&1; then
        echo "[       OK ] $1"
    else
        cat "$work/log"
        echo "[  FAILED  ] $1"
        exit 1
    fi
}

answer_of() # PROGRAM
{
    LD_LIBRARY_PATH="$prefix/lib:$prefix/lib/$(uname -m)-linux-gnu" "$1" \
        "$root/tests/data/tiny/checkpoint" "$root/tests/data/tiny/image.png" "What do you see?" >"$work/answer"
    [ -s "$work/answer" ]
    [ -e "$work/first" ] || cp "$work/answer" "$work/first"
    cmp "$work/answer" "$work/first"
}

# The programs are examples/describe.c with libfastvlm and parent/parent_pack.c with libfastvlm_tools.
pkg_config_build() # PACKAGE SOURCE OUTPUT [--static]
{
    local flags
    flags=$(PKG_CONFIG_PATH="$pc" pkg-config --cflags --libs ${4:-} "$1")
    # pkg-config escapes the space; the shell has to read it once more.
    eval "$cc -std=c17 -Wall -Werror -o '$3' '$2' $flags"
}

packs() # PROGRAM
{
    LD_LIBRARY_PATH="$prefix/lib:$prefix/lib/$(uname -m)-linux-gnu" "$1" "$root/tests/data/tiny/checkpoint" \
        "$work/tiny.gguf"
    [ -e "$work/first.gguf" ] || cp "$work/tiny.gguf" "$work/first.gguf"
    cmp "$work/tiny.gguf" "$work/first.gguf"
}

describe=$root/examples/describe.c pack=$root/tests/install/parent/parent_pack.c
step install cmake --install "$build" --prefix "$prefix"
pc=$(dirname "$(find "$prefix" -name fastvlm.pc)")
tools=
[ -e "$pc/fastvlm_tools.pc" ] && tools=1
step prefix_is_named grep -qx "prefix=$prefix" "$pc/fastvlm.pc"
step pkg_config pkg_config_build fastvlm "$describe" "$work/shared"
step pkg_config_answers answer_of "$work/shared"
if [ $tools ]; then
    step pkg_config_tools pkg_config_build fastvlm_tools "$pack" "$work/pack_shared"
    step pkg_config_tools_packs packs "$work/pack_shared"
fi
mkdir "$work/only_static" && mv "$prefix"/lib*/libfastvlm*.so* "$work/only_static"
step pkg_config_static pkg_config_build fastvlm "$describe" "$work/static" --static
step pkg_config_static_answers answer_of "$work/static"
if [ $tools ]; then
    step pkg_config_tools_static pkg_config_build fastvlm_tools "$pack" "$work/pack_static" --static
    step pkg_config_tools_static_packs packs "$work/pack_static"
fi
mv "$work"/only_static/* "$(dirname "$pc")"
step find_package cmake -S "$root/examples/find_package" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix"
step find_package_builds cmake --build "$work/cmake"
step find_package_answers answer_of "$work/cmake/describe"
step find_package_static_answers answer_of "$work/cmake/describe_static"
# No tests, nothing to install and no build type or flags of ours in the project around it.
nothing_is_forced()
{
    ! grep -q . <(ctest --test-dir "$work/sub" -N | grep ' Test ') &&
        ! grep -rq 'file(INSTALL' --include=cmake_install.cmake "$work/sub" &&
        grep -qx 'CMAKE_BUILD_TYPE:STRING=' "$work/sub/CMakeCache.txt" &&
        grep -qx 'CMAKE_C_FLAGS:STRING=' "$work/sub/CMakeCache.txt"
}
step add_subdirectory env -u CFLAGS cmake -S "$root/examples/add_subdirectory" -B "$work/sub" -DCMAKE_BUILD_TYPE= -DCMAKE_C_FLAGS=
step nothing_is_forced nothing_is_forced
if [ $tools ]; then
    step find_package_in_a_parent cmake -S "$root/tests/install/parent" -B "$work/parent" -DHOW=find_package \
        -DCMAKE_PREFIX_PATH="$prefix"
    step parent_builds cmake --build "$work/parent"
    step parent_answers answer_of "$work/parent/with_fastvlm"
    step parent_static_answers answer_of "$work/parent/with_static"
    step parent_tools_packs packs "$work/parent/with_tools"
    step parent_tools_static_packs packs "$work/parent/with_tools_static"
fi
if [ -e "$prefix/bin/fastvlm" ]; then
    step program_runs "$prefix/bin/fastvlm" --version
fi
