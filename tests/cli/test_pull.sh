#!/usr/bin/env bash
# fastvlm pull against a local server that speaks the hub's API. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
if HF_ENDPOINT=http://127.0.0.1:9 "$FASTVLM" pull a/b --retries 0 2>&1 | grep -q FASTVLM_PULL=OFF; then
    echo "skipped: built without FASTVLM_PULL"
    exit 77
fi
exec python3 -B tests/pull/cases.py
