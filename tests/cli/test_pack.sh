#!/bin/bash
# pack and verify as a user calls them; every verb takes the file; a second reader agrees with it.
. "$(dirname "$0")/cases.sh"

for verb in pack verify; do
    run $verb --help
    expect "$verb --help" 0
    check "$verb --help has an example" grep -q "^  fastvlm $verb " <<<"$out"
done

run pack "$tiny" -o "$work/f32.gguf" --vision f32 --decoder f32
expect "pack" 0 "149 tensors" "nothing lost"
run verify "$work/f32.gguf"
expect "verify" 0
check "verify says so" test "$out" = "$work/f32.gguf: intact"
run run "$tiny" "$picture" "What do you see?" -n 24 --vision f32 --decoder f32 -q
text=$out
run run "$work/f32.gguf" "$picture" "What do you see?" -n 24 -q
expect "run takes the file" 0
check "the same answer" test "$out" = "$text"

run pack "$tiny" -o "$work/q4.gguf" --vision f16 --decoder q4
expect "pack q4" 0 "lost most" "dB" "rounding calibrated with" "built-in scenes and the model's answers"
run pack "$tiny" "$picture" -o "$work/one.gguf" --vision f16 --decoder z8 --rounding calibrated
expect "pack z8, calibrated with a picture" 0 "from 1 image and the model's answers"
run info "$work/one.gguf"
check "info: how it was rounded" grep -q "compensated, pictures" <<<"$out"
cp "$work/q4.gguf" "$work/any-name"
run run "$work/any-name" "$picture" -n 2 --json -q
expect "a file of any name" 0
check "its precisions" grep -q '"decoder": "q4"' <<<"$out"
run info "$work/q4.gguf" --tensors
expect "info" 0
check "info: how it was made" grep -q "packed by .*--vision f16 --decoder q4" <<<"$out"
check "info: format" grep -q "llava_qwen2 in GGUF" <<<"$out"
check "info: what a tensor lost" grep -qE "Q4_0 .*model.layers.0.mlp.up_proj.weight  [0-9.]+ dB" <<<"$out"
run bench "$work/q4.gguf" --stages load -r 1
expect "bench" 0
run run "$work/q4.gguf" "$picture" -n 2 --decoder f16
expect "another precision" 1 "decoder is packed in q4, which runs in q4 only, not in f16" "omit --vision and --decoder"
run run "$tiny" "$picture" -n 2 --decoder q4
expect "a directory in q4" 1 "needs a packed file; make one with fastvlm pack"

# ---- int8
run pack "$tiny" -o "$work/int8.gguf" --vision int8
expect "pack int8" 0 "int8 calibrated with 64 built-in scenes" "; of 17 layer groups" "are in w8a16"
for n in 1 3 70; do
    run pack "$tiny" -o "$work/int8.gguf" --vision int8 --max-images $n --min-cosine 0.1
    expect "$n scenes" 0 "int8 calibrated with $n built-in scene"
    run info "$work/int8.gguf" --json
    check "$n scenes: the file says so" grep -q "\"calibration images\": \"$n\"" <<<"$out"
done
run pack "$tiny" "$picture" "$picture" "$picture" -o "$work/int8.gguf" --vision int8 --max-images 2 --min-cosine 0.1
expect "at most 2 pictures" 0 "int8 calibrated with 2 images"
echo "no picture" >"$work/broken.png"
run info "$work/int8.gguf"
check "the options are on record" grep -qE "packed by.* --min-cosine 0.1 --max-images 2$" <<<"$out"
run pack "$tiny" "$picture" "$picture" "$work/broken.png" -o "$work/int8.gguf" --vision int8 --min-cosine 0.1
expect "a broken picture is named" 0 "warning: $work/broken.png: " "1 unreadable images skipped"
run pack "$tiny" -o "$work/wide.gguf" --vision int8 --max-images 2 --min-cosine 0.9999999
expect "no unit in int8" 0 "warning: with any layer group in int8 or w8a16 the feature cosine stays below 0.9999999" "vision encoder was packed in bf16"
check "no figures of int8" test "$(grep -c "int8 by" <<<"$err")" = 0
for x in 0 1; do
    run pack "$tiny" -o "$work/none.gguf" --vision int8 --min-cosine $x
    expect "--min-cosine $x" 2 "must be above 0 and below 1"
done
run pack "$tiny" -o "$work/wide.gguf" --vision int8 --max-images 2 --min-cosine 0.9999999 -q
expect "said also with -q" 0 "vision encoder was packed in bf16"
run pack "$tiny" -o "$work/bf16.gguf" --vision bf16
check "such a file is one in bf16" cmp "$work/wide.gguf" "$work/bf16.gguf"
run info "$work/wide.gguf" --json
check "info says bf16" test "$(grep -c '"precision": "bf16"' <<<"$out")" = 2

if command -v python3 >/dev/null; then
    run pack "$tiny" -o "$work/int8.gguf" --vision int8 --decoder z8 --max-images 3 --min-cosine 0.1
    run pack "$tiny" -o "$work/some.gguf" --vision int8 --rounding calibrated --max-images 3 --min-cosine 0.999
    expect "pack int8, its rounding calibrated" 0 "int8 and its rounding calibrated with 3 built-in scenes"
    run info "$work/some.gguf"
    check "info: how the encoder was rounded" grep -q "encoder rounding compensated" <<<"$out"
    run pack "$base" -o "$work/base.gguf" --vision int8 --decoder f16 --max-images 2 --min-cosine 0.1
    # checkpoints of every kind; those in another layout, or with blocks to fuse, by way of export hf
    for variant in f16 f32 sharded shape stored_head fast_vlm unfused; do
        model=$root/tests/data/variants/$variant/checkpoint
        run pack "$model" -o "$work/$variant-int8.gguf" --vision int8 --decoder q4 --pure --rounding search --max-images 1 --min-cosine 0.1
        check "pack $variant" test "$code" = 0
        run export hf "$model" -o "$work/$variant" --layout llava_qwen2 -q
        check "export $variant" test "$code" = 0
    done
    for file in f32 q4 one int8 some bf16 base {f16,f32,sharded,shape,stored_head,fast_vlm,unfused}-int8; do
        case $file in
            base) model=$base ;;
            fast_vlm-* | unfused-*) model=$work/${file%-int8} ;;
            *-int8) model=$root/tests/data/variants/${file%-int8}/checkpoint ;;
            *) model=$tiny ;;
        esac
        run export hf "$work/$file.gguf" -o "$work/$file.hf" --layout llava_qwen2 --dtype f32 -q
        check "$file is exported" test "$code" = 0
        out=$(python3 "$root/tests/cli/read_packed.py" "$work/$file.gguf" "$model" "$work/$file.hf" 2>"$work/err")
        code=$? err=$(cat "$work/err")
        check "a second reader: $file" test "$code" = 0
        check "a second reader compares with the engine: $file" grep -q " as the engine has them" <<<"$out"
    done
else
    echo "skip: no python3, so no second reader"
fi

# ---- what a killed run may leave where files cannot be made without a name
sleep 0 &
gone=$!
wait $gone
echo half >"$work/q4.gguf.$gone.part"
run pack "$tiny" -o "$work/q4.gguf" --decoder q4
expect "a file left by a killed run" 0 "warning: $work/q4.gguf.$gone.part: apparently left behind by an unfinished run; remove it"
rm "$work/q4.gguf.$gone.part"

# ---- what is wrong
printf '\x01' | dd of="$work/any-name" bs=1 seek=$(($(stat -c %s "$work/any-name") - 5000)) conv=notrunc status=none
run verify "$work/any-name"
expect "a changed byte" 1 "the tensor data has changed since the file was written"
head -c 100000 "$work/f32.gguf" >"$work/short.gguf"
run verify "$work/short.gguf"
expect "verify a short file" 1 "is it truncated?"
run run "$work/short.gguf" "$picture"
expect "run a short file" 1 "is it truncated?"
echo "no model" >"$work/text.gguf"
run info "$work/text.gguf"
expect "no GGUF file" 1 "text that starts with \"no model\", not a GGUF file"
run pack "$tiny"
expect "no output" 2 "-o FILE.gguf"
run pack -o "$work/x.gguf"
expect "does not contain a checkpoint" 2 "no checkpoint directory"
run pack "$tiny" "$tiny/../image.png" -o "$work/x.gguf"
expect "pictures for nothing" 2 "images need --vision int8, --decoder q4"
run pack "$tiny" "$tiny/../image.png" -o "$work/x.gguf" --decoder q4 --rounding search
expect "pictures for the search" 2 "images need --vision int8, --decoder q4"
run pack "$tiny" -o "$work/no.gguf" --decoder w8a8 --min-cosine 0.999
expect "a cosine without int8" 2 "--min-cosine needs --vision int8"
run pack "$tiny" -o "$work/no.gguf" --decoder w8a8 --max-images 4
expect "images without calibration" 2 "--max-images needs --vision int8, --decoder q4 or --rounding calibrated"
run pack "$tiny" -o "$work/x.gguf" --decoder f16 --rounding calibrated
expect "rounding without blocks" 2 "--rounding needs --decoder z8, q4 or w8a8"
run pack "$tiny" -o "$work/x.gguf" --vision int8 --rounding search
expect "search without blocks" 2 "calibrated works with --vision int8, too"
run pack "$tiny" -o "$work/x.gguf" --decoder q4 --rounding nearest
expect "unknown rounding" 2 "auto|search|calibrated"
run pack "$tiny" -o "$work/x.gguf" --pure
expect "pure alone" 2 "--pure needs --decoder q4"
run pack "$tiny" -o "$work/x.gguf" --decoder q5
expect "unknown type" 2 "auto|f32|bf16|f16|z8|q4|w8a8"
run pack "$work/none" -o "$work/x.gguf"
expect "no such checkpoint" 1 "no such directory"
run pack "$work/f32.gguf" -o "$work/x.gguf"
expect "a file as checkpoint" 1 "is a file; expected a checkpoint directory"
run pack "$tiny" -o "$work"
expect "a folder as output" 1 "is a directory; expected the name of a file"
run pack "$tiny" -o /dev/full
expect "a device as output" 1 "is a device or a pipe"
run pack "$tiny" -o "$work/none/x.gguf"
expect "no such folder" 1 "none/x.gguf: cannot create: No such file or directory"
(ulimit -f 500; trap '' XFSZ; "$fastvlm" pack "$tiny" -o "$work/full.gguf" >"$work/out" 2>"$work/err")
code=$? out= err=$(cat "$work/err")
expect "a full disk" 1 "full.gguf: cannot write"
check "nothing is left" test ! -e "$work/full.gguf" -a ! -e "$work/x.gguf" -a -z "$(find "$work" -name '*.part')"
run verify
expect "verify nothing" 2 "expected one file"
run verify "$tiny"
expect "verify a folder" 1 "is a directory"
finish
