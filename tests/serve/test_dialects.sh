#!/usr/bin/env bash
# Embeddings and Ollama's protocol: the cases of dialect_cases.py. FASTVLM names the program.
set -u
cd "$(dirname "$0")/../.."
if ! command -v python3 >/dev/null 2>&1; then
    echo "skipped: no python3"
    exit 77
fi
exec python3 -B tests/serve/dialect_cases.py "$@"
