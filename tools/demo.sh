#!/usr/bin/env bash
# make demo: the program describes an image and answers two questions about it. Every answer is a cold
# start: the time is that of the whole command.
set -euo pipefail
cd "$(dirname "$0")/.."

program=build/release/fastvlm
image=${1:-examples/images/sign.png}

ask() # [QUESTION]
{
    local begin=$EPOCHREALTIME answer
    answer=$("$program" run -q "$image" "$@")
    local us=$((${EPOCHREALTIME/[.,]/} - ${begin/[.,]/}))
    printf '$ %s run -q %s%s\n' "$program" "$image" "${1:+ \"$1\"}"
    printf '%-64s %d.%02d s\n\n' "$answer" $((us / 1000000)) $((us % 1000000 / 10000))
}

if ! [ -x "$program" ]; then
    echo "demo: $program does not exist; run make first" >&2
    exit 1
fi
if [ $# -eq 0 ]; then
    printf 'The image is %s: a red star above the word HELLO.\n\n' "$image"
fi
ask
ask "What color is the star?"
ask "What does the text say?"
cat <<'END'
These answers are from the small demonstration model inside the program. It was trained on drawn shapes and
printed words and is not made for photographs (docs/demo-model.md). To try a real model:

    build/release/fastvlm pull apple/FastVLM-0.5B
    build/release/fastvlm run FastVLM-0.5B photo.jpg "What is in the picture?"
END
