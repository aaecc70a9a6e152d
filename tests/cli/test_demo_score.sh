#!/bin/bash
# Trained weights make a precision's loss a task score: the samples of the held-out test, in every precision.
. "$(dirname "$0")/cases.sh"

for threshold in "$root"/tests/data/*/threshold; do
    sample=${threshold%/*}
    least=$(grep -v '^#' "$threshold")
    for precision in "f32 f32" "bf16 bf16"; do
        run eval --task "$sample" "$root/models/demo" --vision ${precision% *} --decoder ${precision#* } --min "$least" -q
        expect "${sample##*/}, checkpoint, $precision: at least $least %" 0
    done
    run eval --task "$sample" "$root/models/demo/demo.gguf" --min "$least" -q
    expect "${sample##*/}, demo.gguf: at least $least %" 0
done
finish
