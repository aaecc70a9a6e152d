#!/bin/bash
# fastvlm npu compile, run and eval against the stand-in for Qualcomm's libraries: every call that it
# gets for a model must be right, and every failure must end in one message and leave nothing. The values
# are tools/test-npu.sh's.
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
export XDG_DATA_HOME=$work/data
unset FV_QNN_DIR QNN_SDK_ROOT FAKE_QNN
model=$base # small: values are tools/test-npu.sh's
one=$root/tests/data/demo/images/00000.jpg

# compile WORDS ARGUMENT...: with $FAKE_QNN
compile() {
    local words=$1
    shift
    rm -rf "$work/npu" "$work/calls"
    FAKE_QNN="log=$work/calls;$words" run npu compile "$model" -o "$work/npu" --images "$one" --qnn "$fake" "$@"
}
nothing_left() { [ ! -e "$work/npu" ] && [ -z "$(find "$work" -name 'npu.part-*')" ]; }
right_use() { ! grep VIOLATION "$work/calls"; }

for precision in w8a16 w8a8 mixed; do
    compile "chat=graphFinalize" --precision $precision
    check "$precision: compiles" [ "$code" = 0 ]
    check "$precision: every call is right" right_use
    check "$precision: one graph, finalized once" [ "$(grep -c '^graphFinalize$' "$work/calls")" = 1 ]
    check "$precision: binary and description" [ "$(ls "$work/npu" | tr '\n' ' ')" = "vision_${precision}_sm8750.bin vision_${precision}_sm8750_ctx_info.json " ]
    run npu info "$work/npu/vision_${precision}_sm8750.bin" --qnn "$fake" --json
    check "$precision: the description is what npu info says" cmp "$work/out" "$work/npu/vision_${precision}_sm8750_ctx_info.json"
    cp "$work/npu/vision_${precision}_sm8750.bin" "$work/$precision.bin"
done

# The stand-in's values are zeros: f16 needs a library that passes the self-check.
compile "" --precision f16
check "f16: a library that computes wrongly is refused" grep -qF "computes a grouped convolution wrongly" <<<"$err"
check "f16: nothing is left" nothing_left

# ---- failures: WORDS, then what the message says
while IFS='|' read -r words message; do
    compile "$words"
    check "$words: exit code" [ "$code" = 1 ]
    check "$words: message" grep -qF -- "$message" <<<"$err"
    check "$words: nothing is left" nothing_left
done <<'END'
api=2.10|QNN API 2.10.0, expected 2.27
providers=0|offers 0 interfaces
fail=logCreate:1003|error 1003
fail=backendCreate:4000|error 4000
fail=deviceCreate:14001|error 14001
fail=contextCreate:5005|error 5005
fail=graphCreate:6020|error 6020
fail=tensorCreateGraphTensor:1004:7|error 1004
fail=backendValidateOpConfig:3110:5|error 3110
fail=graphAddNode:6003:5|error 6003
fail=graphFinalize:1002|out of memory
fail=contextGetBinarySize:1003|error 1003
fail=contextGetBinary:1003|error 1003
fail=systemContextGetBinaryInfo:30010|QNN error 30010
die=graphFinalize|ended with signal 11 (SIGSEGV)
END
FAKE_QNN="hang=graphFinalize;log=$work/calls" XDG_DATA_HOME=$work/data stop_once "$work/calls" graphFinalize \
    npu compile "$model" -o "$work/npu" --images "$one" --qnn "$fake"
check "Ctrl-C while it compiles" grep -q cancelled <<<"$err"
check "Ctrl-C leaves nothing" nothing_left

# ---- arguments
compile "" --soc sm1234
check "unknown chip" grep -qF 'sm1234' <<<"$err"
compile "" --image-size 100
check "image size" grep -qF 'expected a multiple of 64' <<<"$err"
compile "" --precision w4a4
check "precision" [ "$code" = 2 ]
run npu compile "$model" -o "$work/npu"
check "no libraries" grep -qF "no QNN libraries" <<<"$err"
check "no libraries: nothing is left" nothing_left

# ---- several binaries in one directory
compile ""
FAKE_QNN="log=$work/calls" run npu compile "$model" -o "$work/npu" --images "$one" --qnn "$fake" --soc sm8650
check "a second chip beside the first" [ "$code" = 0 -a "$(ls "$work/npu" | wc -l)" = 4 ]
FAKE_QNN="log=$work/calls" run npu compile "$model" -o "$work/npu" --images "$one" --qnn "$fake" --soc sm8650
check "the same again is refused" grep -qF "vision_w8a16_sm8650.bin: there is such a file already" <<<"$err"
FAKE_QNN="log=$work/calls" run npu compile "$model" -o "$work/npu" --images "$one" --qnn "$fake" --soc sm8650 --force
check "and replaced with --force" [ "$code" = 0 -a "$(ls "$work/npu" | wc -l)" = 4 ]
compile "" --part decoder --precision w8a8
check "a decoder with 8-bit activations" [ "$code" = 2 ]
check "it says what there is" grep -qF "the part decoder can be compiled in w8a16 or f16" <<<"$err"
compile "" --part embed --precision mixed
check "an embedding in mixed" [ "$code" = 2 ]
for parts in vision,text vision,vision "" ,vision; do
    compile "" --part "$parts"
    check "parts \"$parts\"" [ "$code" = 2 ]
done
compile "" --unshared
check "nothing to share" [ "$code" = 2 ]
compile "" --cache 64
check "a cache without a decoder" [ "$code" = 2 ]
run run --vision "npu:$work/w8a16.bin" "$picture" -q --image-size 128
check "the size is the binary's" [ "$code" = 2 ]

# ---- the other parts
compile "" --part decoder --precision f16
mv "$work/npu/decoder_f16_sm8750.bin" "$work/shared.bin"
for precision in f16 w8a16; do
    compile "" --part decoder --precision $precision --unshared
    check "decoder, $precision: compiles" [ "$code" = 0 ]
    check "decoder, $precision: every call is right" right_use
    check "decoder, $precision: two graphs" [ "$(grep -E '^graph ' "$work/calls" | tr '\n' ' ')" = "graph decoder_step graph decoder_chunk " ]
    mv "$work/npu/decoder_${precision}_sm8750_unshared.bin" "$work/decoder_$precision.bin"
    # f32 would take twice the memory, which a full-size decoder has not.
    check "decoder, $precision: no value in f32" [ "$(grep -c FLOAT_32 "$work/npu/decoder_${precision}_sm8750_unshared_ctx_info.json")" = 0 ]
done
for precision in f16 w8a16 w8a8; do
    compile "" --part embed --precision $precision
    check "embed, $precision: compiles" [ "$code" = 0 ]
    check "embed, $precision: every call is right" right_use
    check "embed, $precision: files" [ "$(ls "$work/npu" | tr '\n' ' ')" = "embed_${precision}_sm8750.bin embed_${precision}_sm8750_ctx_info.json " ]
done
compile "" --part vision,embed,decoder --precision w8a8 --cache 200 --json
check "all parts: compiles" [ "$code" = 0 ]
check "all parts: one array" python3 -c 'import json, sys; sys.exit([p["file"] for p in json.load(open(sys.argv[1]))] != ["vision_w8a8_sm8750.bin", "embed_w8a16_sm8750.bin", "decoder_w8a16_sm8750.bin"])' "$work/out"
check "all parts: each with its description" [ "$(ls "$work/npu" | wc -l)" = 6 ]
compile "fail=graphFinalize:1002:2" --part decoder
check "the second graph does not fit" grep -qF "out of memory" <<<"$err"
check "the second graph does not fit: nothing is left" nothing_left

# ---- answers from a decoder on the NPU
answer() { # WORDS BINARY [ARGUMENT...]
    FAKE_QNN="log=$work/calls;$1" FV_QNN_DIR=$fake run run "$model" "$one" "What is it?" -q -n 3 --ignore-eos --decoder "npu:$2" "${@:3}"
}
for precision in f16 w8a16; do
    : >"$work/calls"
    answer "chat=graphExecute" "$work/decoder_$precision.bin"
    check "answer, $precision" [ "$code" = 0 ]
    check "answer, $precision: every call is right" right_use
    check "answer, $precision: one process, a prompt and two tokens" [ "$(grep -cE '^(contextCreateFromBinary|graphExecute)$' "$work/calls")" = $((1 + 2 + 2)) ]
done
# Rows and the reference's logits are the CPU's; what the emulator gives is tools/test-npu.sh's.
head -c $((20 * 64 * 4)) /dev/zero >"$work/rows.raw"
decode() { FAKE_QNN="log=$work/calls;chat=graphExecute" run npu run "$work/decoder_f16.bin" --emulate --qnn "$fake" -o "$work/logits.raw" "$@"; }
: >"$work/calls"
decode --model "$model" --input "$work/rows.raw"
check "npu run of a decoder" [ "$code" = 0 ]
check "npu run of a decoder: every call is right" right_use
check "npu run of a decoder: a chunk and a step" [ "$(grep -c '^graphExecute$' "$work/calls")" = 2 ]
check "npu run of a decoder: logits" [ "$(wc -c <"$work/logits.raw")" = $((288 * 4)) ]
decode --input "$work/rows.raw"
check "npu run of a decoder: as an encoder" [ "$code" = 1 ]
decode --model "$tiny" --input "$work/rows.raw"
check "npu run of a decoder: of another model" grep -qF "decoder_f16.bin: has " <<<"$err"
decode --model "$model" --input "$one"
check "npu run of a decoder: not rows" grep -qF "expected rows of 256, 64 values in f32" <<<"$err"
head -c $((600 * 64 * 4)) /dev/zero >"$work/many.raw"
decode --model "$model" --input "$work/many.raw"
check "npu run of a decoder: more rows than its cache" grep -qF "600 rows; its cache holds 512" <<<"$err"
: >"$work/calls"
printf 'What is it?\nAnd now?\n' | FAKE_QNN="log=$work/calls" FV_QNN_DIR=$fake "$fastvlm" chat "$model" "$one" -n 3 --ignore-eos \
    --vision "npu:$work/w8a16.bin" --decoder "npu:$work/decoder_w8a16.bin" >"$work/out" 2>"$work/err"
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
check "chat with both" [ "$code" = 0 ]
check "chat: every call is right" right_use
check "chat: a process for each part, for all turns" [ "$(grep -c '^contextCreateFromBinary$' "$work/calls")" = 2 ]
check "chat: the image once, each turn a prompt and two tokens" [ "$(grep -c '^graphExecute$' "$work/calls")" -ge 9 ]
: >"$work/calls"
answer "" "$work/decoder_w8a16.bin" --vision "npu:$work/w8a16.bin"
check "encoded and decoded" [ "$code" = 0 ]
check "encoded and decoded: every call is right" right_use
while IFS='|' read -r words message; do
    answer "$words" "$work/decoder_w8a16.bin"
    check "answer, $words: exit code" [ "$code" = 1 ]
    check "answer, $words: message" grep -qF -- "$message" <<<"$err"
done <<'END'
fail=contextCreateFromBinary:5000|error 5000
fail=graphRetrieve:6000:1|error 6000
fail=graphRetrieve:6000:2|error 6000
fail=graphExecute:6031:1|error 6031
fail=graphExecute:6031:3|error 6031
die=graphExecute|ended with signal 11
END
FAKE_QNN="hang=graphExecute;log=$work/calls" FV_QNN_DIR=$fake stop_once "$work/calls" graphExecute \
    run "$model" "$one" "What is it?" -n 3 --decoder "npu:$work/decoder_w8a16.bin"
check "Ctrl-C while it decodes" grep -q cancelled <<<"$err"
if [ "$(uname -m)" = x86_64 ]; then
    answer "" "$work/shared.bin"
    check "weights that graphs share" grep -qF "its graphs share weights, which the emulator cannot load" <<<"$err"
fi
answer "" "$work/w8a16.bin"
check "an encoder as a decoder" grep -qF "no graph decoder_step" <<<"$err"
sed 's/^in past_key_values.1.key 1046 .* 4 1 /in past_key_values.1.key 1046 1e-3 -32768 4 1 /' "$work/decoder_w8a16.bin" >"$work/other.bin"
answer "" "$work/other.bin"
check "a cache whose rows have another encoding" grep -qF "do not fit together" <<<"$err"
sed '/^in position_sin /d' "$work/decoder_w8a16.bin" >"$work/other.bin"
answer "" "$work/other.bin"
check "an input is missing" grep -qF "do not fit together" <<<"$err"
answer "" "$work/decoder_w8a16.bin" --kv f16
check "the cache is the binary's" [ "$code" = 2 ]
answer "" "$work/decoder_w8a16.bin" --dump "$work/dump"
check "nothing to dump" [ "$code" = 2 ]
answer "" "$work/decoder_w8a16.bin" -n 600 -s "$(printf 'word %.0s' $(seq 600))"
check "a prompt longer than the cache" grep -qF "the context holds 512 tokens" <<<"$err"
FAKE_QNN="log=$work/calls" FV_QNN_DIR=$fake run eval --task "$root/tests/data/demo" "$model" --limit 2 --json \
    --vision "npu:$work/w8a16.bin" --decoder "npu:$work/decoder_w8a16.bin"
check "a test with both" [ "$code" = 0 ]
FV_QNN_DIR=$fake run eval "$model" "$model" "$one" --decoder "npu:$work/decoder_w8a16.bin"
check "no comparison with it" [ "$code" = 2 ]

# ---- running
head -c $((256 * 256 * 3 * 4)) /dev/zero >"$work/pixels.raw"
try() { # WORDS BINARY [ARGUMENT...]
    FAKE_QNN="log=$work/calls;$1" run npu run "$2" --input "$work/pixels.raw" -o "$work/tokens.raw" --emulate --qnn "$fake" "${@:3}"
}
: >"$work/calls"
try "" "$work/w8a16.bin"
check "run" [ "$code" = 0 ]
check "run: every call is right" right_use
check "run: 16 image tokens of 64" [ "$(wc -c <"$work/tokens.raw")" = $((16 * 64 * 4)) ]
rm "$work/tokens.raw"
while IFS='|' read -r words message; do
    try "$words" "$work/w8a16.bin"
    check "run, $words: exit code" [ "$code" = 1 ]
    check "run, $words: message" grep -qF -- "$message" <<<"$err"
    check "run, $words: no output" [ ! -e "$work/tokens.raw" ]
done <<'END'
fail=contextCreateFromBinary:5000|error 5000
fail=graphRetrieve:6000|error 6000
fail=graphExecute:6031|error 6031
die=graphExecute|ended with signal 11
END
FAKE_QNN="hang=graphExecute;log=$work/calls" stop_once "$work/calls" graphExecute \
    npu run "$work/w8a16.bin" --input "$work/pixels.raw" -o "$work/tokens.raw" --emulate --qnn "$fake"
check "Ctrl-C while it runs" grep -q cancelled <<<"$err"
head -c 80 "$work/w8a16.bin" >"$work/cut.bin"
try "" "$work/cut.bin"
check "a truncated binary" grep -qF "not a QNN context binary, or truncated" <<<"$err"
sed 's/^soc 69$/soc 5/' "$work/w8a16.bin" >"$work/other.bin"
try "" "$work/other.bin"
check "a chip that the library does not know" grep -qF "error 14001" <<<"$err"
printf 'FAKEQNN 1\nsoc 69\ngraph other\nin a 1032 1 0 2 3 4\nout b 1032 1 0 2 3 4\nend\n' >"$work/foreign.bin"
try "" "$work/foreign.bin"
check "a graph that is not an encoder" [ "$code" = 1 ]
head -c 1000 /dev/zero >"$work/pixels.raw"
try "" "$work/w8a16.bin"
check "too few pixels" grep -qF "fewer" <<<"$err"
finish
