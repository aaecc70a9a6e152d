#!/usr/bin/env bash
# The quick part of `make check-docs`: commands and figures of the documents. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
if grep -q __asan_init "$FASTVLM"; then
    echo "skipped: the sanitized program says the same, slowly"
    exit 77
fi
if HF_ENDPOINT=http://127.0.0.1:9 "$FASTVLM" pull a/b --retries 0 2>&1 | grep -q FASTVLM_PULL=OFF; then
    echo "skipped: built without FASTVLM_PULL"
    exit 77
fi
exec python3 -B tools/check/docs.py --fast --program "$FASTVLM"
