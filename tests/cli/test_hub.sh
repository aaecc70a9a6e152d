#!/usr/bin/env bash
# fastvlm hub with a stand-in of the AI Hub's client. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/hub/client_cases.py "$@"
