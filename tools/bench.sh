#!/usr/bin/env bash
# make bench: every stage of the full-size model on this machine, in f32 and bf16.
#
#     FV_FULL_CHECKPOINT=DIR    another model instead of the synthetic one (made on first use)
#     BENCH_REPS=5              measured repetitions
set -euo pipefail
cd "$(dirname "$0")/.."

checkpoint=$(tools/full-checkpoint.sh)
printf 'commit %s, %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)" \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)"
for precision in f32 bf16; do
    printf '\n== vision and decoder in %s\n' "$precision"
    build/release/fastvlm bench "$checkpoint" --vision "$precision" --decoder "$precision" --reps "${BENCH_REPS:-5}"
done
