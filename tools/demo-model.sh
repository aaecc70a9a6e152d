#!/usr/bin/env bash
# make demo-model: packs the checkpoint in models/demo as models/demo/demo.gguf, the file inside the
# program, and builds the program with it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Calibrated with images of the training set (tools/train/make_test.py DIR -n 96 --split train --jpeg;
# publish.sh there takes those of conversations); docs/demo-model.md has the scores.
how=(--vision int8 --decoder z8)
file=models/demo/demo.gguf
program=build/release/fastvlm

build() # on or off: with the file inside
{
    cmake --preset release -DFASTVLM_DEMO_MODEL="$1" >/dev/null
    cmake --build --preset release --target fastvlm >/dev/null
}

if [ -e "$file" ]; then build ON; else build OFF; fi
"$program" pack models/demo models/demo/calibration -o "$file" "${how[@]}" "$@"
"$program" verify "$file"
build ON
"$program" info
