#!/bin/bash
# Bad input: one clear message and the right exit code for each.
. "$(dirname "$0")/cases.sh"

# ---- arguments
run
check "no verb shows the usage" test "$code" = 2 -a -z "$out" -a "${err:0:8}" = "fastvlm "
run flyy
expect "unknown command" 2 "unknown command \"flyy\""
run run --no-such-thing
expect "unknown option" 2 "unknown option --no-such-thing" "fastvlm run --help"
run run "$base" "$picture" --threads
expect "missing value" 2 "--threads needs a value"
run run "$base" "$picture" --threads many
expect "not a number" 2 "--threads: expected an integer from 0 to 1024, found \"many\""
run run "$base" "$picture" --vision int3
expect "unknown precision" 2 "auto|f32|bf16|f16"
run run "$base"
expect "nothing to answer" 2 "no image and no prompt given"
run run "$base" "$tiny" "$picture"
expect "two models" 2 "more than one model"
run run "$base" "$picture" one two
expect "two prompts" 2 "more than one prompt" "quote the prompt"
run run "$base" missing.jpg "What?"
expect "no such image" 2 "missing.jpg: no such file" "--prompt"
echo "only words" >"$work/words.txt"
run run "$base" "$work/words.txt"
expect "text file as bare argument" 2 "is a file but neither an image nor a model" "--image" "--prompt"
run run "$base" "$picture" --greedy --temperature 1
expect "contradiction" 2 "exclude each other"
run run "$base" "$picture" --image-size 100
expect "image size" 2 "multiple of 64"
run run "$base" - -
expect "stdin twice" 2 "standard input"

# ---- pictures
: >"$work/empty.jpg"
run run "$base" "$work/empty.jpg"
expect "empty picture" 1 "empty.jpg" "empty"
run run "$base" --image "$work/words.txt"
expect "text as picture" 1 "words.txt"
run run "$base" --image "$work/none.png"
expect "missing --image" 1 "none.png"
run run "$base" --image "$work"
expect "folder as picture" 1 "$work"
head -c 2000 "$picture" >"$work/cut.png"
run run "$base" "$work/cut.png"
expect "truncated picture" 1 "cut.png"
printf 'P6\n30000 30000\n255\nxx' >"$work/bomb.ppm"
run run "$base" "$work/bomb.ppm"
expect "30000 x 30000" 1 "bomb.ppm" "30000"
printf 'P6\n1 1\n255\nabc' >"$work/one.ppm"
run run "$base" "$work/one.ppm" -n 2
expect "1 x 1" 0 "first token"
head -c 196605 /dev/zero >"$work/zeros"
{ printf 'P6\n1 65535\n255\n'; cat "$work/zeros"; } >"$work/tall.ppm"
run run "$base" "$work/tall.ppm" -n 2
expect "1 x 65535" 0 "first token"
run run "$base" "$work/one.ppm" --max-megapixels 0
expect "limit out of range" 2 "--max-megapixels"

# ---- models
mkdir "$work/bare"
run run "$work/bare" "$picture"
expect "folder without a model" 1 "no config.json"
run run "$work/nowhere.gguf" "$picture"
expect "missing model" 2 "nowhere.gguf"
run info -m "$work/nowhere"
expect "missing model by option" 1 "no such model"

copy() { rm -rf "$work/m"; cp -r "$base" "$work/m"; chmod -R u+w "$work/m"; }
copy
sed -i 's/"model_type": "llava_qwen2"/"model_type": "llama"/' "$work/m/config.json"
run info "$work/m"
expect "wrong model_type" 1 "model_type is \"llama\"" "llava_qwen2" "fast_vlm"
copy
sed -i 's/"vocab_size": 288/"vocab_size": 128/' "$work/m/config.json"
run info "$work/m"
expect "vocabulary mismatch" 1 "283 tokens" "vocab_size 128"
copy
sed -i 's/"hidden_size": 64/"hidden_size": "many"/' "$work/m/config.json"
run info "$work/m"
expect "config of another type" 1 "hidden_size" "expected an integer"
copy
echo '{"model_type": ' >"$work/m/config.json"
run info "$work/m"
expect "truncated config" 1 "config.json"
copy
sed -i 's/model\.norm\.weight/model.nurm.weight/' "$work/m/model.safetensors"
run info "$work/m"
expect "missing tensor" 1 "tensor model.norm.weight is missing" "[64]"
copy
sed -i 's/"intermediate_size": [0-9]*/"intermediate_size": 96/' "$work/m/config.json"
run info "$work/m"
expect "wrong shape" 1 "mlp.gate_proj.weight" "expected" "[96, 64]"
copy
truncate -s -100 "$work/m/model.safetensors"
run info "$work/m"
expect "truncated weights" 1 "model.safetensors" "truncated"
copy
printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$work/m/model.safetensors" conv=notrunc status=none
run info "$work/m"
expect "header of 2^63" 1 "9223372036854775807"
copy
: >"$work/m/vocab.json"
run info "$work/m"
expect "empty vocabulary beside a whole tokenizer.json" 0 "/m/vocab.json: the file is empty; tokenizer.json is whole"
rm "$work/m/tokenizer.json"
run info "$work/m"
expect "empty vocabulary" 1 "vocab.json"
copy
size=$(stat -c %s "$work/m/model.safetensors")
printf '\xc0\x7f\xc0\x7f' | dd of="$work/m/model.safetensors" bs=1 seek=$((size - 4)) conv=notrunc status=none
run info "$work/m"
expect "NaN weights are warned of" 0 "warning: 2 weights are NaN or infinite"

# ---- prompts and context
run run "$base" "$picture" -p "$(printf 'a\377b')"
expect "invalid UTF-8" 2 "not valid UTF-8 at byte 1"
run run "$base" "$picture" -p "$(head -c 40000 /dev/zero | tr '\0' x)"
expect "prompt over the context" 1 "the context holds"
run run "$base" "$picture" "three <image> and <image> here"
expect "marks without pictures" 2 "<image>"

# ---- output
run run "$base" "$picture" --dump /proc/no-such-folder
expect "dump folder cannot be made" 1 "cannot create the directory"
"$fastvlm" pack "$base" -o "$work/packed.gguf" -q
full() { # NAME ARGUMENTS...: with standard output full, one message
    local name=$1
    shift
    "$fastvlm" "$@" >/dev/full 2>"$work/err" </dev/null
    code=$? out= err=$(cat "$work/err")
    expect "no room: $name" 1 "cannot write to standard output: it is closed or full"
    check "no room: $name: said once" test "$(grep -c "^fastvlm" "$work/err")" = 1
}
full run run "$base" "$picture" -n 4 -q
full "run --json" run "$base" "$picture" -n 4 -q --json
full bench bench "$base" --stages load --reps 1
full "bench --json" bench "$base" --stages load --reps 1 --json
full "bench csv" bench "$base" --stages load --reps 1 --format csv
full info info "$base"
full "info --tensors" info "$base" --tensors
full "info --json" info "$base" --json
full verify verify "$work/packed.gguf"
full eval eval "$base" "$base" "$picture" -n 2
full "eval --json" eval "$base" "$base" "$picture" -n 2 --json
full "eval --task" eval --task "$root/tests/data/demo" --score "$root/tests/data/demo/questions.jsonl"
full doctor doctor
full "--help" --help
full "chat" chat --help
"$fastvlm" run "$base" "$picture" -n 40 --ignore-eos 2>"$work/err" </dev/null | head -c 1 >/dev/null
code=${PIPESTATUS[0]} err=$(cat "$work/err")
check "closed pipe ends the program" test "$code" -ne 141

finish
