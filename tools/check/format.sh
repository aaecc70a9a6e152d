#!/usr/bin/env bash
# C is formatted as .clang-format says; other versions of clang-format than 14 format differently.
set -uo pipefail
cd "$(dirname "$0")/../.."
formatter=
for name in clang-format-14 clang-format; do
    if command -v $name >/dev/null 2>&1 && $name --version | grep -q 'version 14\.'; then
        formatter=$name
        break
    fi
done
if [ -z "$formatter" ]; then
    echo "format: skipped, clang-format 14 is not installed (Debian: clang-format-14)"
    exit 0
fi
git ls-files -z '*.c' '*.h' | xargs -0 "$formatter" --dry-run -Werror && echo "format: as .clang-format says"
