#!/usr/bin/env bash
# Makes the full-size synthetic checkpoint (1.5 GB of weights from a counter-based generator) in
# build/full/fastvlm-0.5b, once, and prints its path. FV_FULL_CHECKPOINT names another one.
#
# Needs python3 with venv (numpy goes into build/full/venv) and npm for the vocabulary, or
# FV_TOKENIZER=tokenizer.json of a Qwen2 model.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${FV_FULL_CHECKPOINT:-}" ]; then
    echo "$FV_FULL_CHECKPOINT"
    exit 0
fi
out=build/full/fastvlm-0.5b
if ! [ -e "$out/.complete" ]; then
    need=(python3)
    [ -n "${FV_TOKENIZER:-}" ] || need+=(npm)
    for tool in "${need[@]}"; do
        command -v "$tool" >/dev/null 2>&1 || {
            echo "full-checkpoint: needs $tool (Debian: apt-get install python3-venv npm)" >&2
            exit 1
        }
    done
    mkdir -p build/full
    if ! [ -x build/full/venv/bin/python ]; then
        python3 -m venv build/full/venv >&2 || {
            echo "full-checkpoint: python3 has no venv (Debian: apt-get install python3-venv)" >&2
            exit 1
        }
        build/full/venv/bin/pip install -q numpy >&2
    fi
    echo "making $out (1.5 GB, about a minute)" >&2
    build/full/venv/bin/python tools/reference/make_checkpoint.py "$out" --size 0.5b \
        ${FV_TOKENIZER:+--tokenizer "$FV_TOKENIZER"} >&2
    touch "$out/.complete"
fi
echo "$out"
