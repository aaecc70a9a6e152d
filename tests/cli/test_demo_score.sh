#!/bin/bash
# Trained weights make a precision's loss a task score: the 200 questions of tests/data/demo, in every precision.
. "$(dirname "$0")/cases.sh"

least=$(grep -v '^#' "$root/tests/data/demo/threshold")
for precision in "f32 f32" "bf16 bf16"; do
    run eval --task "$root/tests/data/demo" "$root/models/demo" --vision ${precision% *} --decoder ${precision#* } --min "$least" -q
    expect "checkpoint, $precision: at least $least %" 0
done
run eval --task "$root/tests/data/demo" "$root/models/demo/demo.gguf" --min "$least" -q
expect "demo.gguf: at least $least %" 0
finish
