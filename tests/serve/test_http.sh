#!/usr/bin/env bash
# The server from outside: the cases of http_cases.py. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/serve/http_cases.py "$@"
