#!/usr/bin/env bash
# The last step of the reference Qualcomm pipeline under its own name: an image and a question,
# answered on a phone.
#
#     scripts/run_fastvlm_device.sh [IMAGE [PROMPT [MAX_NEW_TOKENS [IMAGE_SIZE [DECODER [VISION]]]]]]
#
# MAX_NEW_TOKENS 0: automatic. IMAGE_SIZE 0: the model's own. DECODER: fp32, int8, int4 (or q4).
# VISION: int8, fp16, cpu, npu:FILE. Environment: IMAGE_PATH, PROMPT, MAX_NEW_TOKENS, IMAGE_SIZE,
# DECODER, VISION where the argument is missing; MODEL_DIR, a checkpoint directory or packed file;
# SKIP_PUSH=1; ANDROID_SERIAL; QNN_SDK_ROOT; WITH=native (default) or qairt, Qualcomm's programs;
# MODELS, the pipeline's directory; RUN_OUTPUTS, the directory of results; FASTVLM, the program.
set -euo pipefail

fail() { # CODE MESSAGE
    echo "run_fastvlm_device: $2" >&2
    exit "$1"
}
help() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
number() { # NAME VALUE
    [[ $2 =~ ^[0-9]+$ ]] || fail 2 "$1 is \"$2\"; expected a number, 0 or more"
}

case ${1:-} in
-h | --help)
    help
    exit 0
    ;;
esac
[ $# -le 6 ] || fail 2 "more than six arguments"
image=${1:-${IMAGE_PATH:-}}
prompt=${2-${PROMPT-Describe the image.}}
tokens=${3:-${MAX_NEW_TOKENS:-0}}
size=${4:-${IMAGE_SIZE:-}}
decoder=${5:-${DECODER:-}}
decoder=${decoder,,}
vision=${6:-${VISION:-}}
if [ -z "$image" ]; then
    help >&2
    exit 2
fi
[ -n "$prompt" ] || fail 2 "PROMPT is empty; expected a question"
number MAX_NEW_TOKENS "$tokens"
[ -z "$size" ] || number IMAGE_SIZE "$size"
case $decoder in
'' | fp32 | int8 | int4) ;;
q4) decoder=int4 ;;
*) fail 2 "DECODER is \"$decoder\"; expected fp32, int8, int4 or q4" ;;
esac
case $vision in
'' | int8 | fp16 | cpu | npu:*) ;;
INT8 | FP16 | CPU) vision=${vision,,} ;;
*) fail 2 "VISION is \"$vision\"; expected int8, fp16, cpu or npu:FILE" ;;
esac

root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/..
if [ -n "${FASTVLM:-}" ]; then
    fastvlm=$(command -v "$FASTVLM") || fail 1 "FASTVLM is $FASTVLM; expected a program"
elif [ -x "$root/build/release/fastvlm" ]; then
    fastvlm=$root/build/release/fastvlm
else
    fastvlm=$(command -v fastvlm) || fail 1 "no fastvlm: make builds it, FASTVLM names it"
fi

options=(--max-new-tokens "$tokens" --with "${WITH:-native}" --models "${MODELS:-models}")
[ -z "$size" ] || options+=(--image-size "$size")
[ -z "$decoder" ] || options+=(--decoder "$decoder")
[ -z "$vision" ] || options+=(--vision "$vision")
[ -z "${MODEL_DIR:-}" ] || options+=(--model "$MODEL_DIR")
[ -z "${RUN_OUTPUTS:-}" ] || options+=(--output "$RUN_OUTPUTS")
exec "$fastvlm" device run "${options[@]}" -- "$image" "$prompt"
