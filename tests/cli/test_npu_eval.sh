#!/bin/bash
# A context binary at work against the stand-in for Qualcomm's libraries: one child for all images of
# fastvlm npu eval, run, chat and eval --task, its death, and npu eval --layers. The stand-in's values
# are zeros; the real ones are tools/test-npu.sh's.
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
export XDG_DATA_HOME=$work/data FV_QNN_DIR=$fake
unset QNN_SDK_ROOT FAKE_QNN
demo=$root/models/demo
images=$root/tests/data/demo/images
binary=$work/npu/vision_w8a16_sm8750.bin
calls=$work/calls

run npu compile "$demo" -o "$work/npu" --images "$images/00000.jpg"
check "a binary to work with" [ "$code" = 0 ]

# with WORDS COMMAND...: with $FAKE_QNN, calls logged
with()
{
    local words=$1
    shift
    : >"$calls"
    FAKE_QNN="log=$calls;$words" run "$@"
}
times() { [ "$(grep -c "^$1\$" "$calls")" = "$2" ] || { echo "$1: $(grep -c "^$1\$" "$calls"), expected $2"; return 1; }; }
right_use() { ! grep VIOLATION "$calls"; }
one_line() { [ "$(grep '^fastvlm: ' <<<"$err" | grep -vc '^fastvlm: warning')" = 1 ] || { echo "$err"; return 1; }; }

# ---- one child
with "" npu eval "$demo" "$binary" "$images" --max-images 3 --json
check "eval" [ "$code" = 0 ]
check "eval: three images" grep -q '"images": 3' <<<"$out"
check "eval: the binary is loaded once" times contextCreateFromBinary 1
check "eval: and run for each image" times graphExecute 3
check "eval: every call is right" right_use
with "" run -q --vision "npu:$binary" "$images/00000.jpg" "$images/00001.jpg" "What do you see?"
check "run: two images" [ "$code" = 0 ]
check "run: the binary is loaded once" times contextCreateFromBinary 1
check "run: and run twice" times graphExecute 2
printf 'What do you see?\n/image %s\nAnd here?\n' "$images/00001.jpg" >"$work/lines"
: >"$calls"
FAKE_QNN="log=$calls" "$fastvlm" chat -q --vision "npu:$binary" "$images/00000.jpg" <"$work/lines" >"$work/out" 2>"$work/err"
code=$?
check "chat: two images" [ "$code" = 0 ]
check "chat: the binary is loaded once" times contextCreateFromBinary 1
check "chat: and run twice" times graphExecute 2
with "" eval --task "$root/tests/data/demo" --limit 2 --vision "npu:$binary" --json -q
check "eval --task" [ "$code" = 0 ]
check "eval --task: the NPU encodes" times graphExecute 2
check "eval --task: loaded once" times contextCreateFromBinary 1

# ---- and its end
while IFS='|' read -r words message; do
    with "$words" run -q --vision "npu:$binary" "$images/00000.jpg" "$images/00001.jpg" "What do you see?"
    check "run, $words: exit code" [ "$code" = 1 ]
    check "run, $words: message" grep -qF -- "$message" <<<"$err"
    check "run, $words: says so once" one_line
    with "$words" npu eval "$demo" "$binary" "$images" --max-images 3
    check "eval, $words" [ "$code" = 1 ]
done <<'END'
fail=contextCreateFromBinary:5000|error 5000
die=contextCreateFromBinary|ended with signal 11
fail=graphExecute:6031:2|error 6031
die=graphExecute|ended with signal 11
END
FAKE_QNN="hang=graphExecute;log=$calls" stop_once "$calls" graphExecute \
    run -q --vision "npu:$binary" "$images/00000.jpg" "What do you see?"
check "Ctrl-C while it encodes" [ "$code" != 0 ]

# ---- value by value
with "" npu eval --layers "$demo" "$images/00000.jpg" "$images/00001.jpg" --precision w8a8 \
    --calibration "$images/00002.jpg" --svg "$work/layers.svg" --json
check "layers" [ "$code" = 0 ]
check "layers: every call is right" right_use
check "layers: the graph is compiled once for both images" times graphFinalize 1
check "layers: and run for each" times graphExecute 2
check "layers: the stem's GELU, attention's scores, the last layer" python3 - "$work/out" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
names = [l["name"] for l in d["layers"]]
assert d["images"] == 2, d["images"]
for name in ("vision.stem.0", "vision.network.7.0.token_mixer.attention.scores", "image_tokens"):
    assert name in names, name
assert "vision.patch_embed.0" not in names
assert all(l["bits"] == 8 for l in d["layers"])
assert abs(sum(l["share"] for l in d["layers"]) - 1) < 0.1
END
check "layers: a plot" grep -q '</svg>' "$work/layers.svg"
check "layers: a point for every value" [ "$(grep -o '<circle' "$work/layers.svg" | wc -l)" = "$(grep -c '"name"' "$work/out")" ]
with "" npu eval --layers "$demo" "$images/00000.jpg" --precision w8a8 --calibration "$images/00002.jpg"
check "layers as text" grep -q '^vision.stem.0 .* 8 ' "$work/out"
with "fail=graphFinalize:1002" npu eval --layers "$demo" "$images/00000.jpg" --calibration "$images/00002.jpg"
check "layers: out of memory" grep -qF "out of memory" <<<"$err"

# ---- arguments
run npu eval "$demo" "$binary" "$images" --svg "$work/x.svg"
check "a plot without --layers" [ "$code" = 2 ]
run npu eval --layers "$demo"
check "layers without images" [ "$code" = 2 ]
run eval "$demo" "$demo" "$images" --vision "npu:$binary"
check "two models, one on the NPU" [ "$code" = 2 ]
run chat --vision "npu:$binary" --image-size 128
check "the size is the binary's" [ "$code" = 2 ]
finish
