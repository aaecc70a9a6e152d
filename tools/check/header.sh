#!/usr/bin/env bash
# Each public header compiles alone, twice in a row, as C17 and as C++17, with every compiler here.
set -uo pipefail
cd "$(dirname "$0")/../.."
bad=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for header in include/*.h; do
    name=$(basename "$header")
    printf '#include "%s"\n#include "%s"\nint main(void) { return 0; }\n' "$name" "$name" >"$dir/alone.c"
    cp "$dir/alone.c" "$dir/alone.cc"
    for cc in gcc clang; do
        command -v $cc >/dev/null 2>&1 || continue
        $cc -std=c17 -Wall -Wextra -Wpedantic -Werror -Iinclude -c -o /dev/null "$dir/alone.c" || bad=1
    done
    for cxx in g++ clang++; do
        command -v $cxx >/dev/null 2>&1 || continue
        $cxx -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -c -o /dev/null "$dir/alone.cc" || bad=1
    done
done
[ $bad -eq 0 ] && echo "header: compiles alone as C17 and C++17"
exit $bad
