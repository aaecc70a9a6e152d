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
run bench --layers --reps 1 --tokens 2 --svg "$work/layers.svg" --json
expect "bench --layers" 0
check "layers: all phases, every layer, nothing counted twice" python3 - "$work/out" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
assert [p["phase"] for p in d["phases"]] == ["vision", "prefill", "token"], d["phases"]
for p in d["phases"]:
    assert p["layers_ms"] <= p["ms"] * 1.001, p["phase"]
    assert abs(sum(l["ms"] for l in p["layers"]) - p["layers_ms"]) < 1e-3
    assert all(l["limit_ms"] >= 0 for l in p["layers"])
names = [l["name"] for l in d["phases"][2]["layers"]]
assert "model.layers.0.self_attn.q_proj + k_proj + v_proj" in names, names
assert all(v > 0 for v in d["limits"].values()), d["limits"]
END
check "layers: a picture" grep -q '</svg>' "$work/layers.svg"
run bench --layers --reps 1 --tokens 2
check "layers: the decoder's layers together" grep -q '^model\.layers\.\*\.mlp\.down_proj ' <<<"$out"
run bench --layers --reps 1 --tokens 2 --format csv
check "layers: csv" grep -q '^token,model.layers.0.mlp.down_proj,linear,' <<<"$out"
run bench --prompt-tokens 300 --reps 1 --tokens 2 --format csv
expect "bench --prompt-tokens" 0
check "a prompt without an image" test "$(sed 1d <<<"$out" | cut -d, -f1 | xargs)" = "load prefill decode first_token"
run bench --prompt-tokens 300 --reps 1 --tokens 2 --json
check "of 300 tokens" grep -q '"tokens": 300,' <<<"$out"
run bench --prompt-tokens 300 --stages vision
expect "its stages" 2 'it has no stage "vision"'
run bench --prompt-tokens 300 --layers
expect "layers of it" 2 "exclude each other"
run bench --prompt-tokens 5000
expect "more than the context" 1 "no room for the tokens"
run bench --svg "$work/x.svg"
expect "a picture without layers" 2 "--svg is for --layers"
run bench --layers --stages vision
expect "layers and stages" 2 "exclude each other"
run bench --layers --svg "$work/none/x.svg"
expect "a picture that cannot be written" 1 "none"

# ---- demo.gguf is packed from the checkpoint of now: what the decoder's tensors lost says so. (The last bits of a
# calibration belong to the processor that it ran on.)
decoder() { grep -oE "model\.(layers|embed).*" <<<"$out"; }
run info --tensors "$root/models/demo/demo.gguf"
packed=$(decoder)
run pack "$root/models/demo" -o "$work/demo.gguf" --decoder "${how##* }" -q
run info --tensors "$work/demo.gguf"
check "make demo-model was run for these weights" test -n "$packed" -a "$(decoder)" = "$packed"
finish
