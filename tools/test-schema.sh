#!/usr/bin/env bash
# make test-schema: answers by JSON schema with the real llguidance, on the demonstration model.
#
#     tools/test-schema.sh
#
# Builds llguidance with cargo (tools/llguidance.sh); where that is not possible it fails. The last line is
# "N passed, N failed". FASTVLM names another program than build/release/fastvlm.
set -uo pipefail
cd "$(dirname "$0")/.."

export FASTVLM=${FASTVLM:-build/release/fastvlm}
build=$(dirname "$FASTVLM")
if ! { tools/llguidance.sh "$build" && cmake --build "$build" --target schema_answers >"$build/schema_answers.log" 2>&1; }; then
    tail -n 20 "$build/schema_answers.log" 2>/dev/null
    echo "0 passed, 1 failed"
    exit 1
fi
export FV_LLGUIDANCE=$build/libfastvlm_grammar.so SCHEMA_ANSWERS=$build/schema_answers
exec python3 -B tests/grammar/schema_cases.py "$@"
