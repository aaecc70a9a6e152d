#!/bin/bash
# fastvlm export onnx: what is said and left behind. What the graphs compute: tests/interop.
. "$(dirname "$0")/cases.sh"
cd "$work"

nothing_left() { # NAME: no file of this or a half-written name
    if compgen -G "$1*" >/dev/null; then not_ok "$1 was left behind: $(echo "$1"*)"; else ok; fi
}

# ---- arguments
run export onnx --help
check "help has an example" grep -q "fastvlm export onnx" <<<"$out"
run export onnx -o x
expect "no model" 2 "no model"
run export onnx "$base"
expect "no output" 2 "no output"
run export onnx "$base" -o x --opset 12
expect "opset too old" 2 "--opset: expected an integer from 13 to 24, found \"12\""
run export onnx "$base" -o x --opset 25
expect "opset too new" 2 "--opset: expected an integer from 13 to 24, found \"25\""
run export onnx "$base" -o x --cache-len 0
expect "no cache" 2 "--cache-len: expected an integer from 1 to 131072, found \"0\""
run export onnx "$base" -o x --image-size 100
expect "image size" 2 "--image-size: expected a multiple of 64 up to 4096, found"
run export onnx "$base" -o x --image-size 8192
expect "image too large" 2 "--image-size: expected an integer from 64 to 4096"
run export onnx "$base" -o x --only vision,audio
expect "unknown part" 2 "vision,embed,decoder" "vision,audio"
run export onnx "$base" -o x --precision bf16
expect "unknown precision" 2 "auto|f32|f16"
run export onnx "$base" -o x --for tflite
expect "unknown target" 2 "generic|npu|transformers.js"
nothing_left x

# ---- models
run export onnx "$work/none" -o x
expect "no such model" 1 "no such model"
cp -r "$base" m
chmod -R u+w m
sed -i 's/model\.norm\.weight/model.nurm.weight/' m/model.safetensors
run export onnx m -o x
expect "missing tensor" 1 "tensor model.norm.weight is missing" "[64]"
nothing_left x

run export onnx "$base" -o x --qdq
expect "quantised without an int8 encoder" 1 "not in int8" "pack CHECKPOINT"
run export onnx "$base" -o x --qdq --for npu
expect "quantised for the NPU" 2 "generic"
nothing_left x

# ---- outputs that cannot be
echo old >file
mkdir full
echo old >full/old
run export onnx "$base" -o file
expect "into a file" 1 "file: is a file"
run export onnx "$base" -o full
expect "into a folder with files" 1 "full: the directory is not empty; expected an empty or a new one" "--force"
check "the file is as it was" test "$(cat file)" = old
check "the folder is as it was" test "$(ls -A full)" = old

# ---- no room: a limit on the size of files stands in for a full disk
(trap '' XFSZ; ulimit -f 40; run export onnx "$base" -q -o x; echo "$code" >code; echo "$err" >err.txt) 2>/dev/null
code=$(cat code) out= err=$(cat err.txt)
expect "without room" 1 "vision_encoder_fp32.onnx: cannot write"
nothing_left x
(trap '' XFSZ; ulimit -f 40; run export onnx "$base" -q -o full --force; echo "$code" >code; echo "$err" >err.txt) 2>/dev/null
code=$(cat code) out= err=$(cat err.txt)
expect "without room in a folder with files" 1 "cannot write"
check "the folder is still as it was" test "$(ls -A full)" = old

# ---- what works says so and nothing more
run export onnx "$base" -o x
expect "three graphs" 0 "x/vision_encoder_fp32.onnx: " "x/embed_tokens_fp32.onnx: " "x/decoder_fixed_kv_fp32.onnx: "
check "their names" test "$(ls x | tr '\n' ' ')" = "decoder_fixed_kv_fp32.onnx embed_tokens_fp32.onnx vision_encoder_fp32.onnx "
run export onnx "$base" -o full --only embed --force -q
check "quiet, beside what was there" test "$code" = 0 -a -z "$err$out" -a "$(ls full | tr '\n' ' ')" = "embed_tokens_fp32.onnx old "
run export onnx "$base" -o npu --for npu -q
check "for the NPU" test "$(ls npu | tr '\n' ' ')" = "decoder_npu_fp16.onnx embed_tokens_fp16.onnx vision_encoder_fp16.onnx "
run export onnx "$base" -o js --for transformers.js -q --external-data
check "for transformers.js" test "$(cd js && find . -type f | sort | tr '\n' ' ')" = "./config.json ./generation_config.json \
./onnx/decoder_model_merged.onnx ./onnx/decoder_model_merged.onnx_data ./onnx/embed_tokens.onnx ./onnx/embed_tokens.onnx_data \
./onnx/vision_encoder.onnx ./onnx/vision_encoder.onnx_data ./preprocessor_config.json ./processor_config.json ./tokenizer.json \
./tokenizer_config.json "

# ---- packed weights are rounded, whatever type the files' names say
run pack "$base" -q -o q4.gguf --decoder q4
run export onnx q4.gguf -o rounded
expect "of 4-bit weights" 0 "warning: " "q4.gguf: the weights are packed (decoder q4); the graphs hold the rounded values"
run export onnx q4.gguf -o rounded --only vision --force
check "not of parts that are not rounded" [ "$(grep -c 'rounded values' <<<"$err")" = 0 ]
run pack "$base" -q -o bf16.gguf
run export onnx bf16.gguf -o rounded --force
check "nor of others" [ "$(grep -c 'rounded values' <<<"$err")" = 0 ]
finish
