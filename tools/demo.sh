#!/usr/bin/env bash
# make demo: the program answers a question about a picture.
set -euo pipefail
cd "$(dirname "$0")/.."

show() # COMMAND...
{
    local word
    printf '$'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./-]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

if ! [ -x build/release/fastvlm ]; then
    echo "demo: build/release/fastvlm is not there; type make" >&2
    exit 1
fi
tiny=tests/golden/tiny
cat <<'END'
No trained model is part of the repository yet. This one is the test suite's: right in every stage,
1.2 MB of random weights, so what it says is noise. What to read is that a checkpoint, a picture and
a question went in and text came out.

END
show build/release/fastvlm run "$tiny/checkpoint" "$tiny/image.png" "What do you see?" --max-new-tokens 24 --greedy
