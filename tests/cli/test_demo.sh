#!/bin/bash
# The demonstration model inside the program: what verbs without MODEL use.
. "$(dirname "$0")/cases.sh"

run doctor
if grep -q "no built-in demonstration model" <<<"$out"; then
    run run "$picture" "What?"
    expect "run without MODEL in a program without the demonstration model" 2 "no model" "fastvlm pull apple/FastVLM-0.5B"
    run info
    expect "info without MODEL in a program without the demonstration model" 2 "no model"
    finish
    exit
fi
check "doctor names it" grep -q "built-in demonstration model" <<<"$out"

notice="built-in demonstration model"
sign=$root/examples/images/sign.png

# ---- run
run run "$sign" "What does the text say?"
expect "run without MODEL" 0 "$notice" "fastvlm pull apple/FastVLM-0.5B" "first token after"
check "it reads" test "$out" = HELLO
check "the notice is one line" test "$(grep -c "$notice" <<<"$err")" = 1
run run "$sign" -q
expect "run without MODEL and question" 0
check "nothing on stderr with -q" test -z "$err"
check "it describes" grep -qi "star" <<<"$out"
run run -p "What color is the star?" -i "$sign" -q
check "by option" test "$out" = Red
run run "$sign" --json -q
check "JSON says so" grep -q '"demonstration": true' <<<"$out"
size=$(grep '"parameters"' <<<"$out")
run run "$tiny" "$sign" --json -q -n 2
check "MODEL wins" grep -q '"demonstration": false' <<<"$out"
check "MODEL is what answers" test "$(grep '"parameters"' <<<"$out")" != "$size" -a -n "$size"
run run -m "$tiny" "$sign" -n 2
expect "--model wins" 0
check "no notice with a model" test "$(grep -c "$notice" <<<"$err")" = 0
out=$("$fastvlm" run - "What does the text say?" -q <"$sign")
check "picture from standard input" test "$out" = HELLO
run run
expect "nothing at all" 2 "no image and no prompt given"
run run "$work/none.png" "What?"
expect "no such image" 2 "none.png: no such file"
run run "$work/nowhere.gguf" "$sign"
expect "no such model is not the demonstration model" 2 "nowhere.gguf"
run run "$sign" one two
expect "two prompts" 2 "more than one prompt"
run run "$sign" --decoder q4
expect "a precision that it was not packed in" 1 "packed in"

# ---- chat, info, bench
printf 'What does the text say?\nWhat color is the star?\n' | "$fastvlm" chat "$sign" >"$work/out" 2>"$work/err"
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
expect "chat without MODEL" 0 "$notice"
check "two answers" test "$out" = $'HELLO\nRed'
run info
expect "info without MODEL" 0
check "info says what it is" grep -q "^built-in demonstration model" <<<"$out"
check "info names a real one" grep -q "fastvlm pull" <<<"$out"
hash=$(grep -w sha256 <<<"$out")
run info "$root/models/demo/demo.gguf"
check "the program carries models/demo/demo.gguf" test "$(grep -w sha256 <<<"$out")" = "$hash" -a -n "$hash"
how=$(sed -n 's/.*fastvlm [0-9.]* \(--.*\)/\1/p' <<<"$out")
run info --json
check "info --json says so" grep -q '"demonstration": true' <<<"$out"
run bench --reps 1 --tokens 4 --threads 1
expect "bench without MODEL" 0 "$notice"
check "bench names it" grep -q "^built-in demonstration model" <<<"$out"

# ---- demo.gguf is packed from the checkpoint of now: what the decoder's tensors lost says so. (The last bits of a
# calibration belong to the processor that it ran on.)
decoder() { grep -oE "model\.(layers|embed).*" <<<"$out"; }
run info --tensors "$root/models/demo/demo.gguf"
packed=$(decoder)
run pack "$root/models/demo" -o "$work/demo.gguf" --decoder "${how##* }" -q
run info --tensors "$work/demo.gguf"
check "make demo-model was run for these weights" test -n "$packed" -a "$(decoder)" = "$packed"
finish
