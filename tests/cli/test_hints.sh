#!/bin/bash
# The program says which option or verb helps; the library names fields and files. A case for every
# row of cli/hints.c (of phones: in test_device.sh): a message that changes loses its hint here.
. "$(dirname "$0")/cases.sh"

FV_CPU=quantum run run "$tiny" "$picture" -n 1
expect "a level that there is not" 0 "FV_CPU=quantum is not a level of this build and processor"
FV_BF16=quick run run "$tiny" "$picture" -n 1
expect "neither fast nor slow" 0 "FV_BF16=quick is neither fast nor slow; it is ignored"
run run "$tiny" "$picture" -n 1 --vision int8
expect "int8 from a checkpoint" 1 "vision in int8 needs a packed file; make one with fastvlm pack"
run pack "$tiny" -o "$work/f32.gguf" --vision f32 --decoder f32 -q
run run "$work/f32.gguf" "$picture" -n 1 --decoder q4
expect "another precision than the file's" 1 "decoder is packed in f32, which runs in f32 only, not in q4; omit --vision"
run export onnx "$tiny" -o "$work/onnx" --qdq
expect "qdq of floats" 1 "the encoder is not in int8" "--vision int8"
mkdir "$work/full" && touch "$work/full/file"
run export hf "$tiny" -o "$work/full"
expect "a folder that is not empty" 1 "the directory is not empty" "--force"
printf 'P6 1200 1000 255\n' >"$work/large.ppm"
run run "$tiny" "$work/large.ppm" --max-megapixels 1
expect "an image that is too large" 1 "expected up to 1000000: scale the image down or raise max_pixels; --max-megapixels sets it"
run export gguf "$tiny" -o "$work/decoder.gguf" --type f16
run info "$work/decoder.gguf"
expect "another architecture" 1 "general.architecture is \"qwen2\"" "fastvlm pack makes such a file"
LC_ALL=C sed 's/\(fastvlm.format_version\x04\x00\x00\x00\)\x01/\1\x03/' "$work/f32.gguf" >"$work/later.gguf"
run info "$work/later.gguf"
expect "another version of the format" 1 "format_version is 3, expected 1 or 2; pack the checkpoint again"
echo x >"$work/some.bin"
export XDG_DATA_HOME=$work/data
unset FV_QNN_DIR QNN_SDK_ROOT QAIRT_SDK_ROOT
run npu info "$work/some.bin"
expect "no libraries of Qualcomm's" 1 "no QNN libraries: " "fastvlm npu setup fetches them"
mkdir "$work/npu" && touch "$work/npu/vision_f16_sm8650.bin"
run npu compile "$tiny" -o "$work/npu" --soc sm8650 --precision f16 --qnn "$FV_FAKE_QNN"
expect "a binary of that name" 1 "vision_f16_sm8650.bin: there is such a file already" "--force replaces it"
if [ "$(uname -m)" = x86_64 ]; then
    run npu compile "$tiny" -o "$work/shared" --part decoder --precision f16 --qnn "$FV_FAKE_QNN"
    FV_QNN_DIR=$FV_FAKE_QNN run run "$tiny" --no-image -p Hello --decoder "npu:$work/shared/decoder_f16_sm8750.bin"
    expect "weights that graphs share" 1 "its graphs share weights" "--part decoder --unshared"
fi
mkdir "$work/qnn" && cp "$FV_FAKE_QNN/libneeds-atomic.so" "$work/qnn/libQnnSystem.so"
run npu info "$work/some.bin" --qnn "$work/qnn"
expect "a library without libatomic" 1 "needs the library libatomic" "apt install libatomic1"
run qairt check
expect "no SDK of Qualcomm's" 1 "no QAIRT SDK: " "name it with --sdk DIR"
run genie build "$work/f32.gguf" -o "$work/genie"
expect "a packed file for the composer" 1 "not a checkpoint directory, which the composer reads" "fastvlm export hf"
if [ "$(uname -s)" = Linux ] && ldd --version 2>&1 | grep -q GLIBC; then
    run npu setup --python "$work/none" --yes -q
    check "no Python" grep -q "expected a Python 3 with pip; apt install python3-pip" <<<"$err"
fi
finish
