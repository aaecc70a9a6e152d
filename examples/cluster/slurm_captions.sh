#!/usr/bin/env bash
# Captions for a list of images, as a Slurm array: each task has every 16th row and its own output.
#
#     sbatch slurm_captions.sh MODEL ROWS.jsonl OUTPUT_FOLDER
#
# A task that is killed or requeued continues where it was, and one that is finished changes nothing,
# so after a failure the same command again is enough.
#SBATCH --job-name=captions
#SBATCH --array=0-15
#SBATCH --cpus-per-task=2
#SBATCH --requeue
set -euo pipefail
model=$1 rows=$2 output=$3
shards=${SLURM_ARRAY_TASK_COUNT:?is set by sbatch --array}
first=${SLURM_ARRAY_TASK_MIN:-0}
shard=$((SLURM_ARRAY_TASK_ID - first))
mkdir -p "$output"
exec "${FASTVLM:-fastvlm}" batch "$model" "$rows" --shard "$shard/$shards" --threads "${SLURM_CPUS_PER_TASK:-1}" \
    -o "$output/captions-$shard-of-$shards.jsonl"
