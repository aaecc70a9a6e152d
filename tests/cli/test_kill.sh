#!/usr/bin/env bash
# A short form of the kill matrix: SIGKILL while the program writes files. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/kill/matrix.py --kills 20 --seconds 50
