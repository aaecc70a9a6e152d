#!/bin/bash
# fastvlm qairt and genie, from outside, with the stand-ins of tests/standins for the SDK: from ONNX to an
# answer, what goes wrong on the way, and that the stand-ins refuse wrong use. What these cannot prove is
# in their first lines.
. "$(dirname "$0")/cases.sh"
unset FV_QNN_DIR QNN_SDK_ROOT QAIRT_SDK_ROOT VIRTUAL_ENV ANDROID_NDK_ROOT STANDIN_FAULT STANDIN_LOG STANDIN_VENV PYTHONHOME
export XDG_DATA_HOME=$work/data
demo=$root/models/demo sign=$root/examples/images/sign.png
standins=$root/tests/standins
case ${FASTVLM:?} in /*) ;; *) FASTVLM=$PWD/$FASTVLM fastvlm=$FASTVLM ;; esac

make_sdk() { # DIR OPTION...
    python3 -B "$standins/make_sdk.py" "$@" --program "$fastvlm" --decode-rows "${FV_DECODE_ROWS:?}" --model "$demo" \
        --fake-qnn "${FV_FAKE_QNN:?}"
}
# A Python environment of the converters, as far as PATH goes.
mkdir -p "$work/venv/bin" && ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$work/venv/bin/python3"
export STANDIN_VENV=$work/venv
tools() { run "$@" --venv "$work/venv"; }
cd "$work" || exit 1

# ---- finding an SDK
run qairt check
expect "no SDK" 1 "no QAIRT SDK: QNN_SDK_ROOT and QAIRT_SDK_ROOT are not set" "--sdk DIR"
run qairt check --sdk "$work"
expect "a directory that is none" 1 "$work: not a QAIRT SDK; expected bin/x86_64-linux-clang in it"
QNN_SDK_ROOT=$work run qairt check
expect "a directory that is none, by the environment" 1 "$work: not a QAIRT SDK (named by QNN_SDK_ROOT)"
make_sdk 2.42.0.251225 && make_sdk 2.43.1.260101 --bare --without qnn-net-run
run qairt check
check "the newest here" grep -qE "^directory +$work/2.43.1.260101 \(named by current directory\)" <<<"$out"
check "its version from its name" grep -qE '^version +2.43.1.260101' <<<"$out"
check "a missing tool" grep -qE '^qnn-net-run +missing' <<<"$out"
check "a missing tool: exit code" [ "$code" = 1 ]
rm -r 2.43.1.260101
make_sdk old --version 2.41.0.251128
run qairt check --sdk old
expect "too old" 1 "this SDK is QAIRT 2.41.0.251128; expected 2.42.0.251225 or newer"
QNN_SDK_ROOT=$work/2.42.0.251225 run qairt check
check "QNN_SDK_ROOT" grep -qF "(named by QNN_SDK_ROOT)" <<<"$out"
QAIRT_SDK_ROOT=$work/2.42.0.251225 run qairt check --json
check "QAIRT_SDK_ROOT, --json" python3 -c 'import json,sys; i = json.load(open(sys.argv[1])); assert i["named_by"] == "QAIRT_SDK_ROOT" and i["version"] == "2.42.0.251225" and all(t["there"] for t in i["tools"])' "$work/out"
run qairt check --venv "$work/none"
expect "no such Python environment" 1 "not a Python environment; expected bin/python3 in it"
tools qairt check
tools qairt check --sdk 2.42.0.251225
check "--sdk" grep -qF "(named by --sdk)" <<<"$out"
check "the environment's Python" grep -qE "^python +$work/venv/bin/python3, 3\." <<<"$out"
mkdir -p modules/numpy modules/onnx modules/yaml lacks/bin fits/bin
touch modules/{numpy,onnx,yaml}/__init__.py
# A Python 3.10 that has the modules, and one that lacks two of them.
python_of() { # DIR MODULES
    printf '#!/bin/sh\nPYTHONPATH=%s exec %s -S -c "import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])" "$2"\n' \
        "$2" "$(python3 -c 'import sys; print(sys.executable)')" >"$1/bin/python3"
    chmod +x "$1/bin/python3"
}
python_of fits "$work/modules"
mkdir some && ln -s ../modules/yaml some/yaml && python_of lacks "$work/some"
run qairt check --venv fits
check "check: nothing is missing: exit code" [ "$code" = 0 ]
run qairt check --venv lacks
check "check: modules that are missing" grep -qF "it lacks the modules numpy onnx" <<<"$out"
check "check: modules that are missing: exit code" [ "$code" = 1 ]
mkdir "with space" && make_sdk "with space/sdk"
run qairt check --sdk "with space/sdk"
expect "an SDK in a directory with a blank" 1 "cannot be called from a path with a blank"

# ---- convert
run export onnx "$demo" -o onnx -q
run export calib "$demo/calibration" -o calib -n 3 --image-size 256 -q
onnx=onnx/vision_encoder_fp32.onnx list=calib/input_list.txt
STANDIN_LOG=$work/log tools qairt convert $onnx -i $list -o int8 --image-size 256
expect "convert" 0
check "convert: files" [ "$(ls int8 | tr '\n' ' ')" = "vision_encoder_int8_qnnmodel.bin vision_encoder_int8_qnnmodel.cpp vision_encoder_int8_qnnmodel_net.json " ]
# The command of the reference Qualcomm pipeline, word for word but for paths and the demonstration model's size.
check "convert: the recorded command" grep -qF -- '"--input_dim", "pixel_values", "1,3,256,256", "--input_layout", "pixel_values", "NCHW", "--input_list", "'"$work/calib/input_list.txt"'", "--act_bitwidth", "8", "--weights_bitwidth", "8", "--bias_bitwidth", "8", "--act_quantizer", "tf", "--act_quantizer_calibration", "min-max", "--act_quantizer_schema", "asymmetric", "--param_quantizer_calibration", "min-max", "--param_quantizer_schema", "asymmetric", "--float_bitwidth", "32", "--float_bias_bitwidth", "32", "--out_node", "image_features", "-o", ' log
check "convert: what was run is shown" grep -qE '^\$ PATH=.*/qnn-onnx-converter --input_network .* -o ' <<<"$err"
check "convert: what the tool says is shown" grep -qF 'qnn-onnx-converter: INFO: conversion complete' <<<"$err"
tools qairt convert $onnx -i $list -o int8 --image-size 256 -q
expect "convert: not over files" 1 "the directory is not empty" "--force"
tools qairt convert $onnx -o none
expect "convert: no samples" 2 "--input-list FILE"
tools qairt convert $onnx -i $list -o none
expect "convert: samples of another size" 1 "sample_000.raw: has 786432 bytes; expected 12582912: f32 of an image_size of 1024; --image-size (default: 1024)"
tools qairt convert $onnx -i $list -o none --image-size 256 --keep-layout
expect "convert: samples of another layout" 2 "calib.json: the samples are nhwc, the converted graph takes nchw"
sed 's/^/ /' $list >spaces.txt
tools qairt convert $onnx -i spaces.txt -o none --image-size 256
expect "convert: a list with blanks" 1 'line 1 is " ' "expected one absolute path without blanks"
echo calib/sample_000.raw >relative.txt
tools qairt convert $onnx -i relative.txt -o none --image-size 256
expect "convert: a list of relative paths" 1 "expected one absolute path"
echo "$work/calib/absent.raw" >absent.txt
tools qairt convert $onnx -i absent.txt -o none --image-size 256
expect "convert: a sample that is missing" 1 "absent.raw, which is not a file"
: >empty.txt
tools qairt convert $onnx -i empty.txt -o none --image-size 256
expect "convert: an empty list" 1 "names no sample"
cp -r onnx "with space/"
tools qairt convert "with space/$onnx" -i $list -o none --image-size 256
expect "convert: a path with a blank" 2 "take no path with a blank"
tools qairt convert none.onnx -i $list -o none --image-size 256
expect "convert: no such file" 1 "none.onnx: no such file"
tools qairt convert $onnx -i $list -o none --image-size 256 --dry-run
expect "convert --dry-run" 0
check "convert --dry-run: the command" grep -qE "^\\\$ .*qnn-onnx-converter .* -o $work/none/vision_encoder_int8_qnnmodel\$" <<<"$err"

# ---- a tool that misbehaves: nothing is left, and the message says what happened
fault() { # FAULT TOOL CODE TEXT COMMAND...
    local what=$1 tool=$2 wanted=$3 text=$4
    shift 4
    rm -rf none # of a check before that failed
    STANDIN_FAULT=$tool=$what tools "$@" -q
    expect "$tool: $what" "$wanted" "$text"
    check "$tool: $what: nothing is left" [ -z "$(find . -name none -o -name '*.part-*')" ]
}
convert=(qairt convert $onnx -i $list -o none --image-size 256)
fault exit1 qnn-onnx-converter 1 "qnn-onnx-converter: exit code 1: ERROR - stand-in: asked to fail" "${convert[@]}"
fault signal qnn-onnx-converter 1 "qnn-onnx-converter: ended with signal 11 (SIGSEGV)" "${convert[@]}"
fault nothing qnn-onnx-converter 1 "qnn-onnx-converter: ended with exit code 0 but has not written" "${convert[@]}"
fault stale qnn-onnx-converter 1 "vision_encoder_int8_qnnmodel.cpp is older than this run" "${convert[@]}"
fault empty qnn-onnx-converter 1 "left $work/none.part-" "${convert[@]}"
fault cut qnn-onnx-converter 1 "the converter's code does not name image_features; expected the graph's output" "${convert[@]}"
fault garbage qnn-onnx-converter 1 "qnn-onnx-converter: exit code 1" "${convert[@]}"
fault full qnn-onnx-converter 1 "No space left on device" "${convert[@]}"
fault error-line qnn-onnx-converter 1 "ended with exit code 0 but says:  [ ERROR ] stand-in: something went wrong" "${convert[@]}"
fault hang qnn-onnx-converter 1 "qnn-onnx-converter: not finished after 1.0 s, terminated" "${convert[@]}" --timeout 1
make_sdk partial --without qnn-onnx-converter
run "${convert[@]}" --sdk partial
expect "a tool that the SDK lacks" 1 "partial/bin/x86_64-linux-clang/qnn-onnx-converter: this SDK (QAIRT 2.42.0.251225) has no such tool"
STANDIN_FAULT=qnn-onnx-converter=hang STANDIN_LOG=$work/calls stop_once "$work/calls" qnn-onnx-converter "${convert[@]}" --venv "$work/venv"
check "Ctrl-C ends the tool" grep -q cancelled "$work/err"
check "Ctrl-C leaves nothing" [ -z "$(find . -name none -o -name '*.part-*')" ]

# ---- library, context binary
cpp=int8/vision_encoder_int8_qnnmodel.cpp
tools qairt lib $cpp -o lib -q
expect "lib" 0
check "lib: this machine's alone without an NDK" [ "$(find lib -type f)" = lib/x86_64-linux-clang/libvision_encoder_int8_qnnmodel.so ]
mkdir ndk
ANDROID_NDK_ROOT=$work/ndk tools qairt lib $cpp -o lib2 -q
check "lib: the phone's, too, with one" [ -f lib2/aarch64-android/libvision_encoder_int8_qnnmodel.so ]
mkdir alone && cp $cpp alone
tools qairt lib alone/vision_encoder_int8_qnnmodel.cpp -o none
expect "lib: without the weights" 1 "vision_encoder_int8_qnnmodel.bin: no such file; expected the weights beside the code"
library=lib/x86_64-linux-clang/libvision_encoder_int8_qnnmodel.so
STANDIN_LOG=$work/log tools qairt context $library -o npu -q
expect "context" 0
check "context: as asked for" grep -qF "graph vision_encoder_int8_qnnmodel, HTP v79, VTCM 8 MB, optimisation level 3" <<<"$out"
check "context: both readers" grep -qF "says qnn-context-binary-utility; so does libQnnSystem" <<<"$out"
check "context: files" [ "$(ls npu | tr '\n' ' ')" = "backend_extensions.json fastvlm_vision_encoder_int8_htp.bin fastvlm_vision_encoder_int8_htp_ctx_info.json htp_config.json " ]
STANDIN_FAULT=qnn-context-binary-generator=twice tools qairt context $library -o npu2 -q
check "context: X.bin.bin is X.bin" [ -f npu2/fastvlm_vision_encoder_int8_htp.bin ]
context=(qairt context $library -o none)
tools qairt context $library -o npu4 --no-config -q
expect "context --no-config" 0 "compiled for HTP v68, the tool's own default; SM8750 has v79"
tools "${context[@]}" --graph another -q
expect "context: a configuration that does not match" 1 "its graph is called vision_encoder_int8_qnnmodel, the configuration names another"
tools "${context[@]}" --soc sm1
expect "context: an unknown chip" 2 'soc is "sm1"; expected one of SM8550'
tools qairt context "$work/out" -o none
expect "context: not a library" 2 "expected a model library lib<graph>.so, or a DLC"
fault exit1 qnn-context-binary-generator 1 "qnn-context-binary-generator: exit code 1" "${context[@]}"
fault nothing qnn-context-binary-generator 1 "ended with exit code 0 but has not written" "${context[@]}"
fault empty qnn-context-binary-generator 1 "empty" "${context[@]}"
fault graph qnn-context-binary-generator 1 "its graph is called other" "${context[@]}"
fault badjson qnn-context-binary-utility 1 "ctx_info.json" "${context[@]}"
PYTHONHOME=/nowhere tools qairt info npu/fastvlm_vision_encoder_int8_htp.bin -o vision_int8_ctx_info.json -q
expect "info, and no other Python's modules" 0
check "info: as the reference Qualcomm pipeline reads it" python3 -c '
import json
t = json.load(open("vision_int8_ctx_info.json"))["info"]["graphs"][0]["info"]["graphOutputs"][0]["info"]
assert t["quantizeParams"]["scaleOffset"]["scale"] > 0 and t["dimensions"][-1] == 192'
tools qairt info npu/fastvlm_vision_encoder_int8_htp.bin -o vision_int8_ctx_info.json
expect "info: not over a file" 1 "there is such a file already" "--force replaces it"
tools qairt info "$sign" -o none -q
expect "info: an image" 1 "Failed to get context binary info"

# ---- the DLC way
run export calib "$demo/calibration" -o calib-nchw -n 2 --image-size 256 --layout nchw -q
tools qairt convert $onnx --dlc -o dlc --image-size 256 -q
expect "convert --dlc" 0
tools qairt quantize dlc/vision_encoder_fp32.dlc -i $list -o none --image-size 256
expect "quantize: samples of another layout" 2 "the samples are nhwc, the converted graph takes nchw"
tools qairt quantize dlc/vision_encoder_fp32.dlc -i calib-nchw/input_list.txt -o dlc8 --image-size 256 -q
expect "quantize" 0
tools qairt context dlc8/vision_encoder_int8.dlc -o npu-dlc -q
check "context of a DLC" grep -qF "graph vision_encoder_int8, HTP v79" <<<"$out"

# ---- genie build
STANDIN_LOG=$work/log tools genie build "$demo" -o genie -q
expect "genie build" 0
check "genie build: files" [ "$(ls genie | tr '\n' ' ')" = "LUT.bin fastvlm_model.bin genie_model.json tokenizer.json " ]
run export lut "$demo" -o own.bin -q
check "genie build: the table is the exporter's" cmp own.bin genie/LUT.bin
tools genie build "$demo" -o genie --quantize Z8 --force -q
check "genie build --quantize Z8" grep -qF '"quantize": "Z8"' genie/fastvlm_model_z8.bin
check "and the first is still there" [ -f genie/fastvlm_model.bin ]
build=(genie build "$demo" -o none)
tools genie build "$demo" -o none --dry-run -q
check "genie build --dry-run -q: the command" grep -qE '^\$ .*qnn-genai-transformer-composer --model ' <<<"$err"
run genie config "$demo" -o genie-both -q
sed -i 's/{/{\n/' genie-both/genie_model.json && cp genie-both/genie_model.json mine.json
tools genie build "$demo" -o genie-both -q
expect "genie build after genie config" 0
check "with its architecture" cmp mine.json genie-both/genie_model.json
tools genie build "$demo" -o genie-both -q
expect "genie build: not over a decoder" 1 "genie-both/fastvlm_model.bin: there is such a file already; --force replaces it"
tools genie build "$demo" -o genie-both --quantize Z8 -q
expect "genie build: not over a table" 1 "genie-both/LUT.bin: there is such a file already; --force replaces it"
fault shortlut qnn-genai-transformer-composer 1 "LUT.bin: has 983036 bytes; expected 983040, 1280 rows of 192 in f32" "${build[@]}"
fault wronglut qnn-genai-transformer-composer 1 "is not the embedding of token" "${build[@]}"
fault exit1 qnn-genai-transformer-composer 1 "exit code 1" "${build[@]}"
fault nothing qnn-genai-transformer-composer 1 "has not written" "${build[@]}"
STANDIN_FAULT=qnn-genai-transformer-composer=notokenizer tools genie build "$demo" -o genie3 -q
check "genie build: the exporter's tokenizer.json where the composer writes none" [ -s genie3/tokenizer.json ]
tools genie build "$demo/demo.gguf" -o none
expect "genie build: a packed file" 1 "not a checkpoint directory, which the composer reads"

# ---- image and prompt to text
question="What does the text say?"
e2e=(qairt run -m "$demo" --vision npu/fastvlm_vision_encoder_int8_htp.bin --decoder genie/fastvlm_model_z8.bin "$sign" "$question")
run run -q -m "$demo" --vision f32 --decoder f32 "$sign" "$question"
native=$out
run "${e2e[@]}"
expect "qairt run" 0
check "qairt run: the answer is the native one" [ "$out" = "$native" ]
place=$(ls -d run_outputs/*)
check "qairt run: files" [ "$(cd "$place" && find . -type f | sort | tr '\n' ' ')" = "./answer.txt ./combined_embeddings_fp32.raw ./fastvlm_genie_device_config.json ./genie_profile.json ./pixel_values.raw ./profile.json ./run.log ./tokens.json ./vision_input_list.txt ./vision_out/Result_0/image_features_native.raw " ]
check "qairt run: answer.txt" [ "$(cat "$place/answer.txt")" = "$native" ]
cat >look.py <<'END'
import array, json, math, sys
place, dump = sys.argv[1:3]
def npy(name):
    data = open(dump + "/" + name, "rb").read()
    return array.array("f", data[10 + int.from_bytes(data[8:10], "little"):])
def floats(path):
    return array.array("f", open(path, "rb").read())
# The rows that the decoder was given against those of our own run: text rows exact, image rows within half a step of the u8 grid.
own, theirs = npy("inputs_embeds.npy"), floats(place + "/combined_embeddings_fp32.raw")
assert len(own) == len(theirs), (len(own), len(theirs))
tokens = json.load(open(place + "/tokens.json"))
at = tokens["token_ids"].index(tokens["image_mark"])
n = tokens["image_rows"]
info = json.load(open("npu/fastvlm_vision_encoder_int8_htp_ctx_info.json"))["info"]["graphs"][0]["info"]["graphOutputs"][0]["info"]
scale = info["quantizeParams"]["scaleOffset"]["scale"]
for row in range(tokens["combined_len"]):
    a, b = own[row * 192:(row + 1) * 192], theirs[row * 192:(row + 1) * 192]
    if at <= row < at + n:
        assert sum(abs(x - y) > .51 * scale for x, y in zip(a, b)) <= 8, row  # a few are clipped at calibration's range
        dot = sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
        assert dot > 0.99, (row, dot)
    else:
        assert a == b, row
p = json.load(open(place + "/profile.json"))
assert p["header"]["artifact_type"] == "GENIE_PROFILE"
assert p["metadata"]["way"] == "qairt" and p["metadata"]["vision"] == "int8" and p["metadata"]["decoder"] == "int8"
query = [e for e in p["components"][0]["events"] if e["type"] == "GenieDialog_query"][0]
assert query["time-to-first-token"] == {"value": 250000, "unit": "us"}
assert query["num-prompt-tokens"]["value"] == tokens["combined_len"]
assert [e["type"] for e in p["components"][1]["events"]] == ["prepare", "vision", "embed", "splice", "decode", "total"]
END
run run -q -m "$demo" --vision f32 --decoder f32 --dump dump "$sign" "$question"
check "qairt run: rows, profile" python3 look.py "$place" dump
rm -r run_outputs
run "${e2e[@]}" --json -v
check "qairt run --json" python3 -c 'import json,sys; r = json.load(open(sys.argv[1])); assert r["answer"] == sys.argv[2] and not r["clipped"] and r["genie"]["first_token_ms"] == 250' "$work/out" "$native"
check "qairt run -v: the commands" grep -qE '^\$ .*/qnn-net-run --backend .*/libQnnHtp.so --retrieve_context .* --input_list .* --use_native_input_files --use_native_output_files --output_dir .* --num_inferences 1$' <<<"$err"
check "qairt run -v: genie" grep -qE '^\$ .*/genie-t2t-run --config .* --embedding_file .* --embedding_table .* --embedding_query_output_type text --profile ' <<<"$err"
run "${e2e[@]}" --order pipeline
expect "qairt run --order pipeline" 0 "not where the model was trained to see them"
check "--order pipeline: image tokens first" python3 -c '
import glob, json
t = json.load(open(sorted(glob.glob("run_outputs/*/tokens.json"))[-1]))
assert t["token_ids"].index(t["image_mark"]) == 0 and t["order"] == "image first"'
run "${e2e[@]}" -n 2 --json
check "qairt run: cut short" python3 -c 'import json,sys; r = json.load(open(sys.argv[1])); assert r["clipped"] and r["genie"]["generated_tokens"] == 2' "$work/out"
run "${e2e[@]}" --profiling
check "qairt run --profiling" [ "$out" = "$native" ]
check "--profiling: the viewer's table" grep -q EXECUTE "$(ls -d run_outputs/* | tail -n 1)/vision_out/qnn-profile.csv"
STANDIN_FAULT=qnn-profile-viewer=nothing run "${e2e[@]}" --profiling -o viewer
expect "--profiling: a viewer that writes nothing" 1 "qnn-profile-viewer: ended with exit code 0 but has not written"
mkdir spaced "spaced/a b" && cp genie/* "spaced/a b"
run qairt run -m "$demo" --vision npu/fastvlm_vision_encoder_int8_htp.bin --decoder "spaced/a b/fastvlm_model.bin" -o "spaced/c d" "$sign" "$question"
check "qairt run: directories with blanks" [ "$out" = "$native" ]
rm npu4/*ctx_info.json
run qairt run -m "$demo" --vision npu4/fastvlm_vision_encoder_int8_htp.bin --decoder genie/fastvlm_model.bin "$sign" "$question"
check "a binary without a description" [ "$out" = "$native" ]
run qairt run -m "$demo" --vision npu-dlc/fastvlm_vision_encoder_int8_htp.bin --decoder genie/fastvlm_model.bin "$sign" "$question"
check "a DLC's binary, input nchw" [ "$out" = "$native" ]
tools qairt convert $onnx -i $list -o int16 --image-size 256 --activation-bits 16 --per-channel --name vision16 -q
tools qairt lib int16/vision16.cpp -o lib16 -q
tools qairt context lib16/x86_64-linux-clang/libvision16.so -o npu16 --file v.bin -q
run qairt run -m "$demo" --vision npu16/v.bin --decoder genie/fastvlm_model.bin "$sign" "$question"
check "16-bit activations" [ "$out" = "$native" ]
check "16-bit activations: profile" grep -q '"vision": "int16"' "$(ls -d run_outputs/* | tail -n 1)/profile.json"
# The embedder of the Hub: ids in, f16 rows out.
python3 -c '
rows = "FAKEQNN 1\nsoc 69\narch 79\ngraph embed\nin input_ids 50 0 0 2 1 512\nout output_0 534 0 0 3 1 512 192\nend\n"
open("embedder.bin", "w").write(rows)'
run "${e2e[@]}" --embedder embedder.bin
check "qairt run --embedder" [ "$out" = "$native" ]
check "its output is kept" [ -s "$(ls -d run_outputs/* | tail -n 1)/embed_out/Result_0/output_0_native.raw" ]

# ---- what goes wrong there
rm -r run_outputs
wrong_run() { # NAME TEXT COMMAND...
    local name=$1 text=$2
    shift 2
    run "$@"
    expect "$name" 1 "$text"
    check "$name: nothing is left" [ -z "$(ls -A run_outputs 2>/dev/null)" ]
}
STANDIN_FAULT=qnn-net-run=exit1 wrong_run "qnn-net-run fails" "qnn-net-run on this machine: exit code 1: ERROR - stand-in" "${e2e[@]}"
STANDIN_FAULT=qnn-net-run=nothing wrong_run "qnn-net-run writes nothing" "has not written image_features" "${e2e[@]}"
STANDIN_FAULT=qnn-net-run=short wrong_run "qnn-net-run writes too little" "image_features_native.raw: has 3068 bytes; expected 3072, image_features as u8, or 12288 in f32" "${e2e[@]}"
STANDIN_FAULT=qnn-net-run=error-line wrong_run "qnn-net-run says error" "ended with exit code 0 but says:" "${e2e[@]}"
STANDIN_FAULT=qnn-net-run=signal wrong_run "qnn-net-run dies" "ended with signal 11" "${e2e[@]}"
STANDIN_FAULT=qnn-net-run=hang wrong_run "qnn-net-run hangs" "not finished after 1.0 s" "${e2e[@]}" --timeout 1
STANDIN_FAULT=genie-t2t-run=exit1 wrong_run "genie-t2t-run fails" "genie-t2t-run on this machine: exit code 1: ERROR - stand-in" "${e2e[@]}"
STANDIN_FAULT=genie-t2t-run=noend wrong_run "an answer without an end" "the answer has no end; expected [END]" "${e2e[@]}"
STANDIN_FAULT=genie-t2t-run=nothing wrong_run "no answer" "printed no answer; expected [BEGIN]" "${e2e[@]}"
STANDIN_FAULT=genie-t2t-run=badprofile wrong_run "a profile that is none" "profile.json" "${e2e[@]}"
wrong_run "a prompt too long for the context" "the prompt has 42 tokens, 16 of them image tokens; the context holds 30" "${e2e[@]}" --context 30
STANDIN_FAULT=qnn-net-run=hang STANDIN_LOG=$work/calls stop_once "$work/calls" qnn-net-run "${e2e[@]}"
check "Ctrl-C ends the run" grep -q cancelled "$work/err"
check "Ctrl-C leaves nothing of it" [ -z "$(ls -A run_outputs 2>/dev/null)" ]
check "no scratch directory is left" [ -z "$(ls -d "${TMPDIR:-/tmp}"/fastvlm-?????? 2>/dev/null | while read -r d; do [ "$d" -nt "$work/look.py" ] && echo "$d"; done)" ]
python3 - <<'END'
import json
d = json.load(open("npu/fastvlm_vision_encoder_int8_htp_ctx_info.json"))
g = d["info"]["graphs"][0]["info"]
g["graphOutputs"][0]["info"]["quantizeParams"]["scaleOffset"]["offset"] = 128
json.dump(d, open("positive.json", "w"))
later = json.load(open("npu/fastvlm_vision_encoder_int8_htp_ctx_info.json"))
later["info"]["buildId"] = "v2.51.0.260929181845"
json.dump(later, open("later.json", "w"))
g["graphOutputs"] = []
json.dump(d, open("no-output.json", "w"))
END
wrong_run "a description with an offset of the other sign" "an offset of at most 0" "${e2e[@]}" --vision-info positive.json
wrong_run "a binary of a newer release" "made by QAIRT v2.51.0.260929181845; the SDK is 2.42.0.251225" "${e2e[@]}" --vision-info later.json
wrong_run "a description without the tensor" "its graph takes 1 and gives 0 tensors" "${e2e[@]}" --vision-info no-output.json
head -c 1000 genie/LUT.bin >short.bin
wrong_run "a table of another size" "short.bin: has 1000 bytes; expected 983040" "${e2e[@]}" --lut short.bin

# ---- genie run
run "${e2e[@]}"
place=$(ls -d run_outputs/* | tail -n 1)
cp genie/fastvlm_model.bin model.bin && run genie config "$demo" -o dialogs --device-dir "$work/genie" -q
dialog=dialogs/genie_dialog.json
run genie run $dialog "Hello?"
check "genie run: a prompt" [ "$out" = "a prompt of 6 characters" ]
run genie run $dialog -e "$place/combined_embeddings_fp32.raw" --lut genie/LUT.bin --profile own_profile.json
check "genie run: embeddings" [ "$out" = "$native" ]
check "genie run: its profile" grep -q GenieDialog_query own_profile.json
run genie run $dialog "Hello?" --profile own_profile.json
expect "genie run: a profile that exists" 1 "own_profile.json: there is such a file already" "--force"
run genie run $dialog "Hello?" --profile own_profile.json --force
expect "genie run: --force" 0
STANDIN_FAULT=genie-t2t-run=marks run genie run $dialog "Hello?"
check "genie run: marks inside an answer" [ "$out" = "a [END] and [BEGIN]: inside" ]
run genie run $dialog -e "$place/combined_embeddings_fp32.raw" --lut short.bin
expect "genie run: a table that does not fit" 1 "short.bin: has 1000 bytes; expected 983040, n-vocab rows of f32"
head -c 1000 "$place/combined_embeddings_fp32.raw" >rows.raw
run genie run $dialog -e rows.raw --lut genie/LUT.bin
expect "genie run: rows that do not fit" 1 "rows.raw: has 1000 bytes; expected rows of 768"
run genie run $dialog -e "$place/combined_embeddings_fp32.raw" --lut genie/LUT.bin "and a prompt"
expect "genie run: both" 2 "a dialog, and a prompt or --embeddings"

# ---- the stand-ins refuse wrong use: each of these calls is right but for one thing
sdk=$work/2.42.0.251225 bin=$work/2.42.0.251225/bin/x86_64-linux-clang
standin() { # NAME TEXT COMMAND...: by hand, with the right environment
    local name=$1 text=$2
    shift 2
    err=$(PATH=$work/venv/bin:$bin:$PATH LD_LIBRARY_PATH=$sdk/lib/x86_64-linux-clang PYTHONPATH=$sdk/lib/python QNN_SDK_ROOT=$sdk \
        SNPE_ROOT=$sdk "$@" 2>&1) code=$? out=
    check "stand-in: $name" grep -qF "STAND-IN: $text" <<<"$err"
    check "stand-in: $name: exit code" [ "$code" = 97 ]
}
convert=(qnn-onnx-converter --input_network $onnx --input_dim pixel_values 1,3,256,256 --input_layout pixel_values NCHW --input_list "$work/$list" --out_node image_features -o "$work/x/y")
standin "an unknown option" "qnn-onnx-converter: unknown argument '--nope'" "${convert[@]}" --nope
standin "an option twice" "qnn-onnx-converter: --act_bitwidth twice" "${convert[@]}" --act_bitwidth 8 --act_bitwidth 8
standin "an option without its value" "qnn-onnx-converter: --act_bitwidth without a value" "${convert[@]}" --act_bitwidth
standin "a value out of range" "--act_bitwidth ['7']" "${convert[@]}" --act_bitwidth 7
standin "a directory that is missing" "the directory of -o $work/x/y is not there" "${convert[@]}"
standin "no SDK in the environment" "QNN_SDK_ROOT is None" env -u QNN_SDK_ROOT "$bin/${convert[0]}" "${convert[@]:1}"
standin "no libraries in the environment" "LD_LIBRARY_PATH is ''" env LD_LIBRARY_PATH= "$bin/${convert[0]}" "${convert[@]:1}"
standin "no modules in the environment" "PYTHONPATH is ''" env PYTHONPATH= "$bin/${convert[0]}" "${convert[@]:1}"
standin "not the Python environment" "PATH begins" env "PATH=$bin:$PATH" "$bin/${convert[0]}" "${convert[@]:1}"
standin "the weights forgotten" "without -b the library would fail" qnn-model-lib-generator -c $cpp -l x -o "$work/x"
standin "another's weights" "-b: $onnx was not made by the tool before it" qnn-model-lib-generator -c $cpp -b $onnx -l x -o "$work/x"
standin "no NDK" "ANDROID_NDK_ROOT is not set" qnn-model-lib-generator -c $cpp -b ${cpp%.cpp}.bin -t aarch64-android -l x -o "$work/x"
generate=(qnn-context-binary-generator --backend "$sdk/lib/x86_64-linux-clang/libQnnHtp.so" --model $library --output_dir "$work/x" --binary_file b.bin)
standin "another's model" "--model: $onnx was not made by the tool before it" "${generate[@]:0:4}" $onnx "${generate[@]:5}"
echo '{"backend_extensions":{"shared_library_path":"libQnnHtpNetRunExtensions.so","config_file_path":"h.json"}}' >c.json
echo '{"graphs":[{"graph_names":["g"],"vtcm":8}]}' >h.json
standin "an unknown key" "graphs: unknown key vtcm" "${generate[@]}" --config_file c.json
echo '{"devices":[{"soc_model":69,"dsp_arch":"v73"}]}' >h.json
standin "chip and architecture that differ" "dsp_arch of another chip" "${generate[@]}" --config_file c.json
echo "$work/rows.raw" >one.txt
net=(qnn-net-run --backend "$sdk/lib/x86_64-linux-clang/libQnnHtp.so" --retrieve_context npu/fastvlm_vision_encoder_int8_htp.bin --input_list one.txt --output_dir o)
standin "an input of another size" "$work/rows.raw: 1000 bytes, the graph's input has 196608" "${net[@]}" --use_native_input_files
standin "another backend" "--backend libQnnCpu.so" "${net[@]:0:2}" libQnnCpu.so "${net[@]:3}"
compose=(qnn-genai-transformer-composer --model "$demo" --config_file "$work/genie/genie_model.json" --dump_lut)
standin "another working directory" "works in $work, expected the output's directory" "${compose[@]}" --outfile "$work/genie/m.bin"
standin "an unknown quantisation" "--quantize ['Z9']" "${compose[@]}" --outfile "$work/m.bin" --quantize Z9
standin "no architecture" "Please provide configuration.json" "${compose[@]:0:3}" --outfile "$work/m.bin"
sed 's/"size.embedding": 192/"size.embedding": 896/' genie/genie_model.json >other.json
standin "another architecture" "size.embedding is 896, the checkpoint's hidden_size is 192" "${compose[@]:0:3}" --config_file "$work/other.json" --outfile "$work/m.bin"
standin "the utility: an unknown option" "qnn-context-binary-utility: unknown argument '--json'" qnn-context-binary-utility --context_binary x --json y
standin "the utility: no directory" "the directory of --json_file is not there" qnn-context-binary-utility --context_binary npu/fastvlm_vision_encoder_int8_htp.bin --json_file no/x.json
standin "the other converter: no shape" "qairt-converter: --desired_input_shape is missing" qairt-converter --input_network $onnx --out_tensor_node image_features --output_path x.dlc
standin "the other converter: no such tensor" "$onnx: no tensor nothing in it" qairt-converter --input_network $onnx --desired_input_shape pixel_values 1,3,256,256 --out_tensor_node nothing --output_path x.dlc
standin "the quantiser: no samples" "without --input_list nothing would be quantised" qairt-quantizer --input_dlc dlc/vision_encoder_fp32.dlc --output_dlc x.dlc
standin "the viewer: no log" "--input_log: $onnx was not made by the tool before it" qnn-profile-viewer --input_log $onnx
# The phone's programs, which look where they are and what was pushed beside them.
mkdir phone && cp "$sdk"/bin/aarch64-android/* phone
phone() { # NAME TEXT LD_LIBRARY_PATH ADSP_LIBRARY_PATH COMMAND...
    local name=$1 text=$2 libraries=$3 dsp=$4
    shift 4
    err=$(cd phone && LD_LIBRARY_PATH=$libraries ADSP_LIBRARY_PATH=$dsp "$@" 2>&1) code=$? out=
    check "stand-in: phone: $name" grep -qF "STAND-IN: $text" <<<"$err"
}
android=$work/phone:/vendor/dsp/cdsp:/vendor/lib64
net=(./qnn-net-run --backend libQnnHtp.so --retrieve_context x --input_list x --output_dir o)
phone "another directory first" "LD_LIBRARY_PATH is" "/vendor/lib64:$work/phone" "$work/phone;/dsp" "${net[@]}"
phone "no libcdsprpc" "LD_LIBRARY_PATH ends" "$work/phone" "$work/phone;/dsp" "${net[@]}"
phone "colons for the DSP" "ADSP_LIBRARY_PATH is" "$android" "$work/phone:/dsp" "${net[@]}"
phone "a library forgotten" "libQnnHtp.so was not pushed" "$android" "$work/phone;/dsp" "${net[@]}"
phone "another working directory" "works in" "$android" "$work/phone;/dsp" env -C / "$work/phone/qnn-net-run" "${net[@]:1}"
phone "Genie's libraries forgotten" "libGenie.so was not pushed" "$android" "" ./genie-t2t-run --config x --prompt x
genie=(genie-t2t-run --config $dialog --embedding_file "$place/combined_embeddings_fp32.raw" --embedding_table genie/LUT.bin)
standin "tokens asked for" "--embedding_query_output_type must be text" "${genie[@]}" --embedding_query_output_type token
standin "no table" "without a table one token would be produced" "${genie[@]:0:5}" --embedding_query_output_type text
sed 's/"max-num-tokens"/"max-tokens"/' $dialog >unknown.json
standin "an unknown key of a dialog" "dialog: unknown key max-tokens" genie-t2t-run --config unknown.json --prompt x
finish
