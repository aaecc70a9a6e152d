#!/usr/bin/env bash
# make test-full: the full-size model against recorded values of the reference, in f32, bf16, f16.
# The first run makes the checkpoint (1.5 GB under build/full).
set -euo pipefail
cd "$(dirname "$0")/.."

checkpoint=$(tools/full-checkpoint.sh)
want=$(sed -n 's/^ "model_sha256": "\([0-9a-f]*\)".*/\1/p' tests/data/full/fastvlm-0.5b.json)
have=$(sha256sum "$checkpoint/model.safetensors" | cut -d' ' -f1)
if [ "$have" != "$want" ]; then
    echo "test-full: $checkpoint/model.safetensors has sha256 $have, the recorded values are for $want" >&2
    exit 1
fi
tools/setup.sh build
{ cmake --preset dev && cmake --build --preset dev --target test_full_size; } >build/dev.log 2>&1 || {
    tail -n 40 build/dev.log
    exit 1
}
FV_FULL_CHECKPOINT=$checkpoint build/dev/test_full_size
