#!/bin/bash
# fastvlm export, all artefacts but onnx: what is said and left behind.
. "$(dirname "$0")/cases.sh"
cd "$work"

nothing_left() { # NAME: no file of this or a half-written name
    if compgen -G "$1*" >/dev/null; then not_ok "$1 was left behind: $(echo "$1"*)"; else ok; fi
}

# ---- arguments
run export
check "no artefact shows the usage" test "$code" = 2 -a -z "$out" -a "${err:0:6}" = "usage:"
run export --help
check "the list of artefacts" test "$code" = 0 -a -n "$out"
run export pie "$base" -o x
expect "unknown artefact" 2 "unknown artefact \"pie\""
for artefact in calib lut tokenizer genie gguf hf all; do
    run export $artefact --help
    check "$artefact --help has an example" grep -q "fastvlm export" <<<"$out"
done
for artefact in lut tokenizer genie gguf hf all; do
    run export $artefact -o x
    expect "$artefact without a model" 2 "no model"
    run export $artefact "$base"
    expect "$artefact without an output" 2 "no output"
    run export $artefact "$base" "$tiny" -o x
    expect "$artefact with two models" 2 "more than one model"
    run export $artefact "$work/none" -o x
    expect "$artefact of nothing" 1 "no such model"
    run export $artefact "$picture" -o x
    expect "$artefact of a picture" 1 "image.png"
    nothing_left x
done
run export calib -o x
expect "calib without pictures" 2 "no images given"
run export calib "$picture" --random 2 -o x
expect "pictures and noise" 2 "exclude each other"
run export calib "$picture" --layout chw -o x
expect "unknown layout" 2 "nhwc|nchw"
run export calib "$picture" --image-size 100 -o x
expect "image size" 2 "multiple of 64"
run export gguf "$base" --type q5 -o x
expect "unknown type" 2 "f16|q8_0|q4_0|bf16|f32"
run export --all "$base" --only pie -o x
expect "unknown part" 2 "--only"
nothing_left x

# ---- outputs that cannot be
echo old >file
mkdir full empty
echo old >full/old
for artefact in genie hf all; do
    run export $artefact "$base" -o file
    expect "$artefact into a file" 1 "file: is a file"
    run export $artefact "$base" -o full
    expect "$artefact into a folder with files" 1 "full: the directory is not empty; expected an empty or a new one" "--force"
done
for artefact in lut tokenizer gguf; do
    run export $artefact "$base" -o empty
    expect "$artefact over a folder" 1 "is a directory"
    run export $artefact "$base" -o nowhere/x
    expect "$artefact without a folder" 1 "nowhere/x"
done
check "the file is as it was" test "$(cat file)" = old
check "the folder is as it was" test "$(ls -A full)" = old
run export calib "$work/empty" -o x
expect "empty folder" 1 "contains no images"
printf 'P6\n9' >empty/broken.ppm
run export calib "$work/empty" -o x
check "only broken pictures" test "$code" = 1 -a ! -e x
grep -q "0 of 1 images can be read" <<<"$err" || not_ok "count of broken pictures"
nothing_left x

# ---- no room: a limit on the size of files stands in for a full disk
for artefact in lut gguf hf all; do
    (trap '' XFSZ; ulimit -f 40; run export $artefact "$base" --quiet -o x; echo "$code" >code; echo "$err" >err.txt) 2>/dev/null
    code=$(cat code) out= err=$(cat err.txt)
    expect "$artefact without room" 1 ""
    nothing_left x
done

# ---- killed: the next run to the same place takes away what is left
kill_when() { # FOLDER ARGUMENTS...: the process is killed while it fills the folder
    local stage=$1 i
    shift
    "$fastvlm" "$@" -q >/dev/null 2>&1 </dev/null &
    killed=$!
    for ((i = 0; i < 500; i++)); do
        [ -e "$stage$killed/sample_000.raw" ] && break
        sleep 0.02
    done
    kill -9 $killed
    wait $killed 2>/dev/null
    [ -e "$stage$killed/sample_000.raw" ] || { code=0 out= err=; not_ok "nothing in $stage$killed"; }
}
mkdir there
for place in x there/; do
    kill_when "$place.part-" export calib --random 100000 --image-size 64 -o $place
    mkdir "x.part-$killed-mine"
    run export calib --random 1 --image-size 64 -o $place
    expect "after a kill: $place" 0 "warning: $place.part-$killed: left behind by a killed run; removed"
    check "it is gone: $place" test ! -e "$place.part-$killed" -a -e "$place/sample_000.raw" -a -e "x.part-$killed-mine"
    rm -r "$place" x.part-*-mine
done
echo half >"LUT.part-$killed"
run export lut "$base" -o LUT
expect "a file after a kill" 0 "LUT.part-$killed: left behind by a killed run; removed"
check "it is gone" test ! -e "LUT.part-$killed"
rm LUT

# ---- Ctrl-C: once leaves nothing, neither directories made for it; twice ends at once, and the next run clears up
interrupt_when() { # TIMES STAGE ARGUMENTS...
    local times=$1 stage=$2 i
    shift 2
    "$fastvlm" "$@" -q >/dev/null 2>"$work/err" </dev/null &
    killed=$!
    for ((i = 0; i < 500; i++)); do
        [ -e "$stage$killed/sample_000.raw" ] && break
        sleep 0.02
    done
    for ((i = 0; i < times; i++)); do kill -INT $killed 2>/dev/null; done
    wait $killed
    code=$? out= err=$(cat "$work/err")
}
for times in 1 1 2 2 2; do
    interrupt_when $times p/q/x.part- export calib --random 100000 --image-size 64 -o p/q/x
    check "Ctrl-C, $times: exit code" test "$code" = 1
    [ $times = 2 ] || nothing_left p
    run export calib --random 1 --image-size 64 -o p/q/x
    check "Ctrl-C, $times: the next run leaves what it made and nothing else" test "$(ls -A p p/q | tr '\n' ' ')" = "p: q  p/q: x "
    rm -r p
done

# ---- a swap that cannot be made is not begun
mkdir swap swap/embed_tokens_fp32.onnx
echo old >swap/vision_encoder_fp32.onnx
echo old >swap/decoder_fixed_kv_fp32.onnx
run export onnx "$base" -o swap --force -q
expect "a directory where a file goes" 1 "swap/embed_tokens_fp32.onnx: is a directory; it is not replaced by a file"
check "the others are as they were" test "$(cat swap/*_fp32.onnx 2>/dev/null | tr '\n' ' ')" = "old old "
check "and nothing else is there" test "$(ls -A swap | wc -l)" = 3
rmdir swap/embed_tokens_fp32.onnx
run export onnx "$base" -o swap --force -q
check "then all are replaced" test "$code" = 0 -a "$(cat swap/*.onnx | head -c 3)" != old -a "$(ls -A swap | wc -l)" = 3

# ---- what works says so and nothing more
run export calib "$picture" -o calib --image-size 64
expect "calib" 0 "calib: 1 samples, 0 images skipped"
check "samples" test "$(ls calib | tr '\n' ' ')" = "calib.json input_list.txt sample_000.raw "
run export calib "$picture" "$work/empty" -o calib2 --image-size 64
expect "calib with a broken picture" 0 "calib2: 1 samples, 1 images skipped" "warning: skipped"
run export calib --random 1 -o noise --image-size 64 -q
expect "noise is warned of" 0 "are meaningless"
run export lut "$base" -o LUT.bin
expect "lut" 0 "LUT.bin: 288 rows of 64 f32"
check "size of LUT.bin" test "$(stat -c %s LUT.bin)" = $((288 * 64 * 4))
run export genie "$base" -o genie
expect "genie" 0 "genie: genie_model.json, genie_dialog.json, genie_dialog_htp.json, htp_backend.json"
check "these files" test "$(ls genie | tr '\n' ' ')" = "genie_dialog.json genie_dialog_htp.json genie_model.json htp_backend.json "
run export hf "$base" -o full --force -q
check "quiet" test "$code" = 0 -a -z "$err$out"
check "with --force beside what was there" test -e full/old -a -e full/model.safetensors
run export --all "$base" -o lot --only calib,genie,gguf --calib "$picture"
expect "all" 0 "manifest.json: 12 files" "calib: 1 samples" "genie: genie_model.json" "genie/LUT.bin: 288 rows"
check "parts" test "$(ls lot | tr '\n' ' ')" = "calib genie gguf manifest.json "
run export --all "$base" -o graphs --only onnx,npu,transformers.js
expect "all: graphs with their folders" 0 "onnx/vision_encoder_fp32.onnx: " "onnx-npu/decoder_npu_fp16.onnx: " \
    "transformers.js/onnx/decoder_model_merged.onnx: " "transformers.js: config.json"
check "all: no folder of the way there" test "$(grep -c part- <<<"$err")" = 0
while IFS=: read -r name _; do
    check "all: $name is there" test -e "graphs/$name"
done <<<"$err"
finish
