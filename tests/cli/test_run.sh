#!/bin/bash
# The program's verbs as a user calls them, on the small golden models.
. "$(dirname "$0")/cases.sh"

for verb in run chat info bench doctor; do
    run $verb --help
    expect "$verb --help" 0
    check "$verb --help has an example" grep -q "^  fastvlm $verb " <<<"$out"
done
run --version
check "--version" grep -qE '^fastvlm [0-9]+\.[0-9]+\.[0-9]+$' <<<"$out"

# ---- run
run run "$tiny" "$picture" "What do you see?" -n 24 --vision f32 --decoder f32
expect "run" 0 "load " "decode image" "preprocess" "vision" "projector" "prefill" "first token after" "tok/s" "peak memory"
check "the golden text" test "$(head -c 14 <<<"$out")" = "$(printf ' The\xef\xbf\xbd]\xef\xbf\xbd Th')"
text=$out
run run -m "$tiny" --image "$picture" --prompt "What do you see?" -n 24 --vision f32 --decoder f32 --json -q
expect "run --json" 0
check "nothing on stderr with -q" test -z "$err"
flat=$(tr -d ' \n' <<<"$out")
check "JSON ids" grep -qF '"token_ids":[280,147,60,175,280,147,353,175,396,290,193,280,353,332,305,332,214,2,280,67,332,280,280,280]' <<<"$flat"
check "JSON counts" grep -qF '"finish_reason":"length","prompt_tokens":47,"image_tokens":16' <<<"$flat"
check "JSON timings" grep -qE '"timings_ms":\{"load":[0-9.]+,"image":[0-9.]+,"preprocess":[0-9.]+,"vision":[0-9.]+,"projector":[0-9.]+,"prefill":[0-9.]+,"first_token":[0-9.]+,"decode":[0-9.]+,"total":[0-9.]+\}' <<<"$flat"
check "JSON rates and memory" grep -qE '"tokens_per_second":\{"prefill":[0-9.]+,"decode":[0-9.]+\},"peak_rss_bytes":[0-9]+,"model":\{' <<<"$flat"
run run "$tiny" - "What do you see?" -n 24 --vision f32 --decoder f32 -q
expect "empty standard input as picture" 1 "empty"
out=$("$fastvlm" run "$tiny" - "What do you see?" -n 24 --vision f32 --decoder f32 -q <"$picture")
check "picture from standard input" test "$out" = "$text"
run run "$tiny" "$picture" "What do you see?" -n 24 --vision f32 --decoder f32 --stop "What" --json -q
check "stop string" grep -q '"finish_reason": "stop_string"' <<<"$out"
run run "$tiny" "Describe the picture." -n 3 -q --no-image
expect "no picture" 0
run run "$tiny" "$picture" "$picture" "Two?" -n 2 --json -q
check "two pictures" grep -q '"image_tokens": 32' <<<"$out"
run run "$tiny" "$picture" -n 2 --image-size 128 --json -q
check "another image size" grep -q '"image_tokens": 4' <<<"$out"
run run "$tiny" "$picture" -n 5 --temperature 2 --seed 3 -q
first=$out
run run "$tiny" "$picture" -n 5 --temperature 2 --seed 3 -q
check "the seed decides" test "$out" = "$first"
run run "$root/tests/data/variants/fast_vlm/checkpoint" "$picture" "Look at the left side." -n 4 --fit pad --json -q
check "fast_vlm layout" grep -q '"layout": "fast_vlm"' <<<"$out"

run run "$tiny" "$picture" "What do you see?" -n 2 --profile "$work/profile.json" -q
check "run --profile: the answer is text" [ -n "$out" ]
check "run --profile: the file is what --json prints" python3 -c 'import json,sys; p = json.load(open(sys.argv[1])); assert p["text"] == sys.argv[2] and p["timings_ms"]["total"] > 0' "$work/profile.json" "$out"
run run "$tiny" "$picture" "What do you see?" -n 2 --profile "$work/none/profile.json" -q
expect "run --profile: no such directory" 1 "none"
run run "$tiny" "$picture" "What do you see?" -n 2 --dump "$work/dump" -q
expect "run --dump" 0
for name in pixels_u8 vision.stem.0 vision.network.10 vision.features image_tokens inputs_embeds decoder.layer.2 decoder.norm \
    logits_prefill logits_steps; do
    check "dump of $name" test -s "$work/dump/$name.npy"
done
check "no half files" test -z "$(ls -A "$work/dump" | grep part)"
ls -A "$work/dump" >"$work/names"
echo old >"$work/dump/old"
echo old >"$work/dump/image_tokens.npy"
run run "$tiny" "$picture" "What do you see?" -n 2 --dump "$work/dump/" -q
expect "run --dump into a folder with files" 0
check "the new beside what was there" test "$(ls -A "$work/dump" | grep -vx old)" = "$(cat "$work/names")" -a -s "$work/dump/old" -a \
    "$(head -c 3 "$work/dump/image_tokens.npy")" != old
# a limit on the size of files stands in for a full disk: the first file has room, a later one has not
for where in dump none/dump; do
    echo old >"$work/dump/image_tokens.npy"
    (ulimit -f 300; "$fastvlm" run "$tiny" "$picture" -n 2 --dump "$work/$where" -q >"$work/out" 2>"$work/err" </dev/null)
    code=$? out= err=$(cat "$work/err")
    expect "run --dump without room: $where" 1 "vision.stem.0.npy: cannot write"
    check "one message: $where" test "$(grep -c "" "$work/err")" = 1
done
check "nothing half written" test "$(ls -A "$work/dump" | grep -vx old)" = "$(cat "$work/names")" -a "$(cat "$work/dump/image_tokens.npy")" = old -a \
    -z "$(ls -A "$work/none")"

# ---- interrupt: exit code 1 and a clear end, wherever it comes
# Not from the first moment on: bash starts background jobs with SIGINT ignored, so a signal that comes
# before the program has its handler is lost. The program is stopped while CONDITION is tested, so that it
# cannot finish between the test and the signal; the portable kernels leave seconds for both.
interrupt_when() # CONDITION ARGUMENT...
{
    local condition=$1 tries=0
    shift
    : >"$work/out"
    FV_CPU=ref "$fastvlm" run "$@" --threads 1 >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    while [ $((tries += 1)) -le 4000 ] && kill -STOP $pid 2>/dev/null; do
        if $condition; then
            kill -INT $pid
            kill -CONT $pid
            break
        fi
        kill -CONT $pid
        sleep 0.005
    done
    wait $pid
    code=$? out=$(cat "$work/out") err=$(cat "$work/err")
}
has_handler() # of SIGINT, signal 2; not yet the shell that is about to become the program
{
    local mask
    [ "/proc/$pid/exe" -ef "$fastvlm" ] || return 1
    mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$pid/status")
    (((0x${mask: -1} & 2) != 0))
}
answer_begun() { [ -s "$work/out" ]; }
machine_of() { head -c 20 "$1" | tail -c 2 | od -An -tx1; } # of an ELF file

if [ -r /proc/self/status ] && [ "$(machine_of "$fastvlm")" = "$(machine_of /proc/self/exe)" ]; then # not emulated
    interrupt_when has_handler "$tiny" "$picture" -n 1 --image-size 1024
    expect "Ctrl-C before the answer" 1 "cancelled during vision"
    check "no text" test -z "$out"
fi
interrupt_when answer_begun "$tiny" "$picture" -n 450 --ignore-eos
expect "Ctrl-C during the answer" 1 "cancelled during decode"

# ---- chat
printf '/image %s\nWhat do you see?\n/history\n/reset\n/quit\n' "$picture" |
    "$fastvlm" chat "$tiny" -n 6 --vision f32 --decoder f32 >"$work/out" 2>"$work/err"
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
expect "chat" 0 "image 1 of the next question" "you:   What do you see?"
check "chat answers" test "$(head -c 4 <<<"$out")" = " The"
printf '/image %s\nWhat do you see?\n' "$picture" | "$fastvlm" chat -q "$tiny" -n 6 --vision f32 --decoder f32 >"$work/out" 2>"$work/err"
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
check "chat -q answers and says nothing else" test "$code" = 0 -a -z "$err" -a "$(head -c 4 <<<"$out")" = " The"
for line in /image "/image  "; do
    echo "$line" | "$fastvlm" chat "$tiny" >"$work/out" 2>"$work/err"
    code=$? out=$(cat "$work/out") err=$(cat "$work/err")
    expect "\"$line\" without a file" 1 "/image needs a file: /image FILE"
done

# ---- info, bench, doctor
run info "$tiny" --tensors
check "info" grep -q "layout       llava_qwen2" <<<"$out"
check "info --tensors" grep -q "lm_head.weight" <<<"$out"
check "tensors not used are marked" grep -q "head.proj  (not used)" <<<"$out"
check "info: images" grep -qF "padded to a square, scaled to 256 x 256 (bicubic); bytes x 0.00392156863, mean 0 0 0" <<<"$out"
check "info: end tokens" grep -qF "end tokens   471 (<|im_end|>), 469 (<|endoftext|>)" <<<"$out"
fast=$root/tests/data/variants/fast_vlm/checkpoint
cp -r "$fast" "$work/fast" && chmod -R u+w "$work/fast"
sed -i 's/"resample": 3/"resample": 1/; s/"shortest_edge": 256/"height": 256, "width": 300/' "$work/fast/preprocessor_config.json"
sed -i 's/"eos_token_id": 282/"eos_token_id": [72, 282]/' "$work/fast/generation_config.json"
run info "$work/fast"
check "info: images of another processor" grep -qF "scaled to 300 x 256, cropped to 256 x 256 (lanczos)" <<<"$out"
run info "$work/fast" --json
check "info --json: what is in force" python3 - "$work/out" "$work/fast" <<'END'
import json, sys
info, dir = json.load(open(sys.argv[1])), sys.argv[2]
stated = json.load(open(dir + "/preprocessor_config.json"))
images = info["images"]
assert images["fit"] == "crop" and images["filter"] == "lanczos" and images["scaled"] == {"width": 300, "height": 256}, images
assert images["rescale"] == stated["rescale_factor"] and images["mean"] == stated["image_mean"] and images["std"] == stated["image_std"], images
assert [t["id"] for t in info["end_tokens"]] == [72, 282, 280], info["end_tokens"]
assert info["end_tokens"][1]["text"] == "<|im_end|>"
END
run info "$tiny" --json --tensors
check "info --json" grep -q '"d_model": 64' <<<"$out"
check "info --json lists tensors" grep -q '"name": "model.norm.weight"' <<<"$out"
run bench "$tiny" --reps 2 --tokens 4 --threads 1
expect "bench" 0
check "bench has every stage" test "$(grep -cE '^(load|preprocess|vision|projector|prefill|decode|first_token|sessions_[1248]|beside_image) ' <<<"$out")" = 12
run bench "$tiny" --reps 1 --tokens 4 --json --stages vision,decode
check "bench --json has what was asked for" test "$(grep -c '"best_ms"' <<<"$out")" = 2
run bench "$tiny" --reps 1 --tokens 4 --json --stages sessions
check "bench --json: 1, 2, 4 and 8 sessions" test "$(grep -oE '"sessions": [0-9]+' <<<"$out" | tr -dc '0-9\n' | tr '\n' ' ')" = "1 2 4 8 "
run bench "$tiny" --reps 1 --tokens 4 --format csv
check "bench csv" grep -q "^stage,precision,best_ms" <<<"$out"
run bench "$tiny" --stages nonsense
expect "bench unknown stage" 2 "unknown stage \"nonsense\""
run doctor "$tiny"
expect "doctor" 0
check "doctor opens the model" grep -q "opens in" <<<"$out"
check "doctor says that it fits" grep -qE "takes up to 0.0[0-9] GB with an image and the longest conversation: it fits, [0-9.]+ GB are" <<<"$out"

finish
