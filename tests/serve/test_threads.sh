#!/usr/bin/env bash
# Many clients at once: the cases of threads_cases.py. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/serve/threads_cases.py "$@"
