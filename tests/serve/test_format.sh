#!/usr/bin/env bash
# Answers in JSON, and the page: the cases of format_cases.py. FASTVLM names the program, FV_FAKE_LLGUIDANCE the
# stand-in for llguidance.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/serve/format_cases.py "$@"
