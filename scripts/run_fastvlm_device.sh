#!/usr/bin/env bash
# The last step of the reference Qualcomm pipeline under its own name: an image and a question,
# answered on a phone.
#
#     scripts/run_fastvlm_device.sh [IMAGE [PROMPT [MAX_NEW_TOKENS [IMAGE_SIZE [DECODER [VISION]]]]]]
#
# MAX_NEW_TOKENS 0: automatic. DECODER: fp32, int8, int4 (or q4). VISION: int8, fp16, cpu, npu:FILE.
# Environment: IMAGE_PATH, PROMPT, MAX_NEW_TOKENS, IMAGE_SIZE, DECODER, VISION where the argument is
# missing; MODEL_DIR, a checkpoint directory or packed file; SKIP_PUSH=1; ANDROID_SERIAL; QNN_SDK_ROOT;
# WITH=native (default) or qairt, Qualcomm's programs; MODELS, the pipeline's directory; RUN_OUTPUTS, the
# directory of results; FASTVLM, the program.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fastvlm=${FASTVLM:-}
for candidate in "$root/build/release/fastvlm" "$(command -v fastvlm || true)"; do
    [ -z "$fastvlm" ] && [ -x "$candidate" ] && fastvlm=$candidate
done
[ -n "$fastvlm" ] || { echo "run_fastvlm_device: no fastvlm: make builds it, FASTVLM names it" >&2; exit 1; }

image=${1:-${IMAGE_PATH:-}}
prompt=${2:-${PROMPT:-Describe the image.}}
tokens=${3:-${MAX_NEW_TOKENS:-0}}
size=${4:-${IMAGE_SIZE:-}}
decoder=${5:-${DECODER:-}}
vision=${6:-${VISION:-}}
[ $# -le 6 ] || { echo "run_fastvlm_device: more than six arguments" >&2; exit 2; }
[ -n "$image" ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$decoder" = q4 ] && decoder=int4

options=(--max-new-tokens "$tokens" --with "${WITH:-native}" --models "${MODELS:-models}")
[ -z "$size" ] || options+=(--image-size "$size")
[ -z "$decoder" ] || options+=(--decoder "$decoder")
[ -z "$vision" ] || options+=(--vision "$vision")
[ -z "${MODEL_DIR:-}" ] || options+=(--model "$MODEL_DIR")
[ -z "${RUN_OUTPUTS:-}" ] || options+=(--output "$RUN_OUTPUTS")
exec "$fastvlm" device run "${options[@]}" -- "$image" "$prompt"
