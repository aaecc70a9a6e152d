#!/bin/bash
# fastvlm device, from outside: the real adb client against a stand-in for the phone's daemon
# (tests/standins/adbd.py), whose shell runs this program. adb's server is one of its own, and ended
# here.
. "$(dirname "$0")/cases.sh"
. "$(dirname "$0")/phone.sh"

# ---- which phone
run device info --adb "$work/none"
expect "an adb that is not there" 1 "$work/none: cannot be started"
PATH=/nonexistent "$fastvlm" device info >"$work/out" 2>"$work/err"
code=$? err=$(cat "$work/err")
expect "no adb" 1 "adb: program not found on PATH" "platform-tools"
run device info
expect "no phone" 1 "adb lists no phone" "USB debugging"
run device list
expect "a list without phones" 1 "adb lists no phone"
run device list --json
check "a list without phones, --json" [ "$code $out" = "1 []" ]

# ---- what is wrong on this machine is said before a phone is looked for
run device run "$work/none.jpg" "What?"
expect "no such image" 1 "none.jpg"
check "no such image, before the phone" [ -z "$(grep phone <<<"$err")" ]
run device run "$picture" "What?" --model "$work/none"
expect "no such model" 1 "$work/none: no such model; expected a checkpoint directory or a packed file"
run device push --model "$work/none"
expect "push: no such model" 1 "$work/none: no such model"
run device run "$picture" "What?" --vision "npu:$work/none.bin"
expect "no such context binary" 1 "$work/none.bin: no such file; expected a context binary"
run device run "$picture" "What?" --program "$work/none"
expect "no such program" 1 "$work/none: no such file; expected fastvlm built for the phone"
run device run "$picture" "What?" -o /proc/x
expect "no room for results" 1 "/proc/x: cannot create the directory"
run device run "$picture" "What?" -o "$picture/x"
expect "results below a file" 1 "$picture/x: cannot create the directory"
for verb in "run $picture What?" push bench; do
    # shellcheck disable=SC2086
    run device $verb --vision "npu:$picture"
    expect "$verb: no SDK" 1 "no SDK is named; the phone's NPU needs Android's libraries of Qualcomm's SDK (QAIRT); name it with --sdk DIR"
    # shellcheck disable=SC2086
    run device $verb --vision "npu:$picture" --sdk "$work"
    expect "$verb: an SDK that is none" 1 "$work: neither lib/aarch64-android/libQnnHtp.so nor libQnnHtp.so is in it; expected Qualcomm's SDK (QAIRT)"
done
run device pull outputs/profile.json -o /proc/x
expect "pull: no place for the file" 1 "/proc/x: "
run device pull outputs/profile.json -o "$work"
expect "pull: the place is a directory" 1 "$work: is a directory; expected the name of a file to write"
run device run "$picture" "What?" -o "$work/new/results/"
expect "all is well here" 1 "adb lists no phone"
check "and nothing is left" [ ! -e "$work/new" ]
run device run --with qairt --model "$base" --models "$work/none" "$picture" "What?"
expect "--with qairt: none of the pipeline's files" 1 "no such file; expected the vision encoder's context binary" "fastvlm handoff CHECKPOINT --with qairt"

# ---- the pipeline's script
script=$root/scripts/run_fastvlm_device.sh
script() { # ARGUMENT...: with the environment of the caller
    "$script" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$? out=$(cat "$work/out") err=$(cat "$work/err")
}
echo 'printf "%s\n" "$*"' >"$work/echo" && chmod +x "$work/echo" && sed -i '1i#!/bin/sh' "$work/echo"
script --help
check "script: --help" [ "$code" = 0 ]
check "script: --help says how" grep -qF 'scripts/run_fastvlm_device.sh [IMAGE [PROMPT' <<<"$out"
FASTVLM=$work/nosuch script a.jpg
expect "script: no such program" 1 "FASTVLM is $work/nosuch; expected a program"
script a.jpg ""
expect "script: an empty prompt" 2 "PROMPT is empty"
script a.jpg What -1
expect "script: MAX_NEW_TOKENS" 2 'MAX_NEW_TOKENS is "-1"; expected a number'
IMAGE_SIZE=big script a.jpg
expect "script: IMAGE_SIZE" 2 'IMAGE_SIZE is "big"; expected a number'
script a.jpg What 0 0 int9
expect "script: DECODER" 2 'DECODER is "int9"; expected fp32, int8, int4 or q4'
FASTVLM=$work/echo script a.jpg What 7 0 Q4 INT8
check "script: names in capitals" [ "$out" = "device run --max-new-tokens 7 --with native --models models --image-size 0 --decoder int4 --vision int8 -- a.jpg What" ]
FASTVLM=$work/echo script a.jpg
check "script: the default prompt" [ "${out##* -- }" = "a.jpg Describe the image." ]
mkdir -p "$work/tree/scripts" "$work/tree/build/release" "$work/links"
cp "$script" "$work/tree/scripts" && cp "$work/echo" "$work/tree/build/release/fastvlm"
ln -s ../tree/scripts/run_fastvlm_device.sh "$work/links/ask"
script=$work/links/ask
(PATH=/usr/bin:/bin FASTVLM='' script a.jpg && [ "${out##* -- }" = "a.jpg Describe the image." ])
check "script: through a link" [ $? = 0 ]

# ---- a phone
phone one --abi x86_64
one=$serial
run device list
check "list" grep -qE "^$one +device +SM_S938B" <<<"$out"
run device list --json
check "list --json" python3 -c 'import json,sys; p = json.load(sys.stdin); assert [(x["state"], x["problem"]) for x in p] == [("device", None)]' <"$work/out"
run device info
check "info" grep -qE '^chip +SM8750 \(Snapdragon 8 Elite\), Hexagon v79' <<<"$out"
check "info, Android" grep -qF 'Android      15 (API level 35)' <<<"$out"
check "info, storage" grep -qF '76.9 GB free in /data/local/tmp/fastvlm' <<<"$out"
run doctor
check "doctor: the phone" grep -qE "^phone +$one: .*SM-S938B, Android 15, 76.9 GB free" <<<"$out"
check "doctor: its NPU" grep -qE "^htp +SM8750, Snapdragon 8 Elite" <<<"$out"
check "doctor: what to compile for" grep -qF "fastvlm npu compile --soc sm8750" <<<"$out"
ANDROID_SERIAL=nobody run doctor
check "doctor: no such phone" grep -qE "^phone +nobody: adb knows no such phone" <<<"$out"
faults one prop.ro.soc.model= prop.ro.board.platform=pineapple page_kib=16
run device info --json
check "info --json, by the board" python3 -c 'import json,sys; p = json.load(sys.stdin); assert (p["chip"], p["htp_version"], p["page_bytes"]) == ("SM8650", 75, 16384), p' <"$work/out"
faults one prop.ro.soc.model=MT6989
run device info
check "info, a chip that is not known" grep -qE '^chip +MT6989, board sun: not one whose NPU' <<<"$out"
faults one
phone two --abi x86_64
two=$serial
run device info
expect "two phones" 1 "adb lists 2 phones, and none is chosen" "$one (SM_S938B)" "--serial"
run doctor
check "doctor: two phones" grep -qF "export ANDROID_SERIAL=SERIAL" <<<"$out"
check "doctor: no option that it lacks" [ "$(grep -c -- --serial <<<"$out")" = 0 ]
run device info --serial "$two"
check "a phone by --serial" grep -qF "phone        $two" <<<"$out"
ANDROID_SERIAL=$one run device info
check "a phone by ANDROID_SERIAL" grep -qF "phone        $one" <<<"$out"
run device info --serial nobody
expect "no such phone" 1 "nobody: adb knows no such phone"
run device info --serial "$one" --dir "/data/local/tmp/a b"
expect "a directory with a blank" 2 "dir: expected an absolute path"
adb disconnect "$two" >/dev/null 2>&1
kill "$phone_pid"
faults shy unauthorized
phone shy --abi x86_64
for _ in $(seq 50); do adb devices | grep -q unauthorized && break; sleep 0.1; done
run device info --serial "$serial"
expect "not authorised" 1 "$serial: not authorised" "allow debugging"
adb disconnect "$serial" >/dev/null 2>&1
kill "$phone_pid"
faults old no_shell_v2
phone old --abi x86_64
run device info --serial "$serial"
expect "an old daemon" 1 "too old to give exit codes"
adb disconnect "$serial" >/dev/null 2>&1
kill "$phone_pid"
serial=$one

# ---- push
run device push --dry-run
check "push --dry-run" grep -qE '^1 of 1 files would be sent' <<<"$out"
check "push --dry-run sends nothing" [ ! -e "$(on one)" ]
run device push
check "push" grep -qE '^1 of 1 files sent' <<<"$out"
check "the program is there and may run" [ -x "$(on one)/bin/fastvlm" ]
run device push
check "push again sends nothing" grep -qF 'all 1 files are there already' <<<"$out"
touch -d '2020-01-01' "$(on one)/bin/fastvlm"
run device push
check "another time: the phone hashes it" grep -qF 'all 1 files are there already' <<<"$out"
rm "$(on one)/manifest"
run device push
check "no manifest: the phone hashes it" grep -qF 'all 1 files are there already' <<<"$out"
printf 'x' | dd of="$(on one)/bin/fastvlm" bs=1 seek=5000 conv=notrunc 2>/dev/null
run device push --verify
check "other bytes are found" grep -qE '^1 of 1 files sent' <<<"$out"
check "and replaced" cmp "$fastvlm" "$(on one)/bin/fastvlm"
run device push --program "$picture"
expect "a program that is none" 1 "not a 64-bit program"
faults one machine=aarch64 prop.ro.product.cpu.abi=arm64-v8a
run device push --program "$fastvlm"
expect "a program for another machine" 1 "built for x86-64, the phone is aarch64"
faults one android
if readelf -l "$fastvlm" 2>/dev/null | grep -q 'interpreter: /lib'; then
    run device push --program "$fastvlm"
    expect "a program for another loader" 1 "which Android does not have" "make arm64 builds one"
fi
faults one
cp "$fastvlm" "$work/program"
head -c 3000000 /dev/urandom >"$work/model.gguf"
send_all() { run device push -q --program "$work/program" --model "$work/model.gguf"; }
printf 'more' >>"$work/program"
faults one corrupt=once
send_all
check "a bit that flips on the way" grep -qF 'arrived on the phone with other bytes, sent again' <<<"$err"
check "is sent again" cmp "$work/program" "$(on one)/bin/fastvlm"
printf 'more' >>"$work/model.gguf"
faults one corrupt=always
send_all
expect "bits that always flip" 1 "arrived with other bytes 2 times"
check "nothing takes the place of the old file" [ "$(stat -c %s "$(on one)/models/model.gguf")" = 3000000 ]
check "and nothing is left" [ ! -e "$(on one)/models/model.gguf.part" ]
faults one free_kib=9000
head -c 4000000 /dev/urandom >"$work/model.gguf"
send_all
expect "no space, by df" 1 "4 MB are to be sent, 9 MB are free"
faults one no_space=100000
send_all
expect "no space, on the way" 1 "no space left on the phone for $work/model.gguf"
faults one lie_sizes
send_all
check "sizes that are not true" grep -qE '^1 of 2 files sent' <<<"$out"
check "do not matter" cmp "$work/model.gguf" "$(on one)/models/model.gguf"

# Unplugged while the second file is sent; the first is not sent again.
n_program=$(stat -c %s "$work/program")
printf 'more' >>"$work/program"
head -c $((n_program + 3000000)) /dev/zero >"$work/model.gguf"
faults one "unplug_push=$((n_program + 1000000))"
send_all
expect "unplugged during push" 1 "$one: the connection to the phone is gone"
check "the model is not there" [ "$(stat -c %s "$(on one)/models/model.gguf")" = 4000000 ]
n_sent=$(here one /data/local/tmp/fastvlm/bin/fastvlm.part)
adb disconnect "$one" >/dev/null 2>&1
faults one
phone one --abi x86_64
one=$serial
send_all
check "plugged in again" grep -qE '^1 of 2 files sent' <<<"$out"
check "goes on where it stopped" [ "$(here one /data/local/tmp/fastvlm/bin/fastvlm.part)" = "$n_sent" ]
check "all is there" cmp "$work/model.gguf" "$(on one)/models/model.gguf"

# ---- run
cd "$work" || exit 1
want=$("$fastvlm" run -q "$root/examples/images/sign.png" "What does the text say?")
run device run "$root/examples/images/sign.png" "What does the text say?"
check "run: the answer is this machine's" [ "$out" = "$want" ]
check "run: timings" grep -qF 'on the phone: load' <<<"$err"
results=$(tail -n 1 <<<"$err")
check "run: answer.txt" [ "$(cat "$results/answer.txt")" = "$want" ]
check "run: profile.json" python3 - "$results/profile.json" <<'END'
import json, sys
p = json.load(open(sys.argv[1]))
assert p["metadata"]["way"] == "native" and p["metadata"]["soc"] == "SM8750", p["metadata"]
query = next(e for c in p["components"] for e in c["events"] if e["type"] == "GenieDialog_query")
assert query["num-generated-tokens"]["value"] > 0 and query["time-to-first-token"]["value"] > 0, query
END
check "run: run.log" grep -qF 'bin/fastvlm run --image inputs/image.png' "$results/run.log"
n_sent=$(here one /)
run device run "$root/examples/images/sign.png" "What does the text say?" -q
check "run again: the same answer" [ "$out" = "$want" ]
check "run again: quiet" [ -z "$err" ]
check "run again: nothing is sent" [ "$(here one /)" = "$n_sent" ]
packed=$root/models/demo/demo.gguf
want=$("$fastvlm" run -q "$packed" "$root/examples/images/sign.png" "$(printf "What's this?\n'x'")")
run device run "$root/examples/images/sign.png" "$(printf "What's this?\n'x'")" --model "$packed" --json
check "run --model --json: a question with quotes and lines" python3 -c 'import json,sys; assert json.load(open(sys.argv[1]))["text"] == sys.argv[2]' "$work/out" "$want"
run device run "$root/examples/images/sign.png" "What?" --model "$packed" --skip-push -q
check "--skip-push" [ "$code" = 0 ]
printf 'x' >"$work/small.gguf"
SKIP_PUSH=1 run device run "$root/examples/images/sign.png" "What?" --model "$work/small.gguf"
expect "SKIP_PUSH=1 and a model that is not there" 1 "models/small.gguf is missing" "nothing is to be sent; omit --skip-push and SKIP_PUSH"
run device run "$root/examples/images/sign.png" "What?" --model "$work/small.gguf" -q
expect "what the program there says" 1 "the program on the phone failed (exit code 1): "
run device run "$work/none.png" "What?"
expect "an image that is not there" 1 "none.png"
check "nothing is left of what failed" [ -z "$(ls run_outputs | grep part)" ]
run device run "$root/examples/images/sign.png" "What?" --decoder q4 -q
expect "a precision that the model lacks" 1 "is packed in"
run device run "$root/examples/images/sign.png"
expect "no question" 2 "expected an image and a question"
run device run "$root/examples/images/sign.png" "What?" --vision npu
expect "no such vision" 2 "--vision: expected cpu|int8|fp16|npu:FILE"
gif=$(ls "$root"/tests/data/images/accept/*.gif | head -n 1)
want=$("$fastvlm" run -q "$gif" "What?")
run device run "$gif" "What?" -q
check "another format is sent as PPM" [ -s "$(on one)/inputs/image.ppm" ]
check "with the same answer" [ "$out" = "$want" ]
want=$("$fastvlm" run -q "$root/models/demo" "$root/examples/images/sign.png" "What?" --vision f16 --decoder f32)
checkpoint() { run device run --model "$root/models/demo" --vision fp16 --decoder fp32 "$root/examples/images/sign.png" "What?"; }
checkpoint
check "a checkpoint directory is packed" grep -qF "packing $root/models/demo into models/fastvlm-native/demo_f16_f32.gguf" <<<"$err"
check "and gives its answer" [ "$out" = "$want" ]
checkpoint
check "once" [ "$code" = 0 -a "$(grep -c packing <<<"$err")" = 0 ]
FASTVLM=$fastvlm MODEL_DIR=$packed RUN_OUTPUTS=$work/outputs "$root/scripts/run_fastvlm_device.sh" \
    "$root/examples/images/sign.png" "What does the text say?" 0 256 int8 int8 >"$work/out" 2>"$work/err"
check "the pipeline's script" [ "$(cat "$work/out")" = "HELLO" ]
check "the pipeline's script: where results go" [ -f "$work"/outputs/*/answer.txt ]

# ---- bench
run device bench --reps 1 --tokens 4 --stages load,decode --json
check "bench --json" python3 - "$work/out" <<'END'
import json, sys
b = json.load(open(sys.argv[1]))
assert [s["name"] for s in b["bench"]["stages"]] == ["load", "decode"], b["bench"]
assert b["before"]["hottest_celsius"] == 41.5 and b["after"]["clocks"][0]["governor"] == "walt", b["before"]
assert b["before"]["clocks"][0]["mhz"] == 1804.8 and b["device"]["soc"] == "SM8750", b
END
run device bench --reps 1 --tokens 4 --stages decode
check "bench" grep -qE '^decode ' <<<"$out"
check "bench: before" grep -qF 'before   hottest 41.5 C, governor walt' <<<"$out"

# ---- Ctrl-C, and what a run leaves
: >"$work/one/log"
stop_once "$work/one/log" "bin/fastvlm bench" device bench --reps 1000
check "Ctrl-C: says so" grep -q cancelled "$work/err"
check "Ctrl-C: exit code" [ "$code" = 1 ]
check "Ctrl-C: the phone's process has ended" ended "$(on one)/bin/fastvlm"
check "Ctrl-C: its mark is gone" [ ! -e "$(on one)/run.pid" ]
"$(on one)/bin/fastvlm" bench --reps 1000 --stages vision >/dev/null 2>&1 &
left=$!
echo $left >"$(on one)/run.pid"
run device run "$root/examples/images/sign.png" "What?"
check "a run that was left is ended" grep -qF 'was ended' <<<"$err"
check "it is gone" ended "$(on one)/bin/fastvlm"
wait $left 2>/dev/null
sleep 30 &
left=$!
echo $left >"$(on one)/run.pid"
run device run "$root/examples/images/sign.png" "What?" -q
check "another process with its number is not touched" kill -0 $left
kill $left

# ---- pull, clean
run device pull outputs/profile.json -o got.json
check "pull" cmp got.json "$(on one)/outputs/profile.json"
faults one lie_sizes
run device pull models/model.gguf
expect "pull: bytes are missing" 1 "models/model.gguf: arrived with other bytes"
check "pull: and no file" [ ! -e model.gguf.part* ]
faults one
run device pull models/none.gguf
expect "pull: no such file" 1 "models/none.gguf: no such file"
mkdir -p "$(on one)/../others" && echo x >"$(on one)/../others/file"
run device clean --dir /data/local/tmp/others
expect "clean: not ours" 1 "no manifest of ours"
check "clean: not ours stays" [ -e "$(on one)/../others/file" ]
run device clean
check "clean" grep -qE '^[0-9.]+ MB removed' <<<"$err"
check "clean: all is gone" [ ! -e "$(on one)" ]

# ---- the cable, the server
run device push
faults one unplug_run
run device run "$root/examples/images/sign.png" "What?" -q
# On a busy machine adb's server may be asked before it has forgotten the phone: then it is offline.
expect "unplugged during run" 1 "$one: "
check "unplugged during run: what it says" grep -qE ": (the connection to the phone is gone|offline: unplug it)" <<<"$err"
check "unplugged during run: nothing is left" [ -z "$(ls run_outputs | grep part)" ]
adb disconnect "$one" >/dev/null 2>&1
faults one
phone one --abi x86_64
one=$serial
: >"$work/one/log"
"$fastvlm" device bench --reps 1000 >"$work/out" 2>"$work/err" </dev/null &
bench=$!
for _ in $(seq 300); do grep -q "bin/fastvlm bench" "$work/one/log" && break; sleep 0.1; done
adb kill-server
wait $bench
code=$? out=$(cat "$work/out") err=$(cat "$work/err")
expect "the server is killed during a run" 1 "$one: "
check "the phone's process has ended" ended "$(on one)/bin/fastvlm"
check "no rule was broken" [ -z "$(cat "$work"/*/log | grep VIOLATION)" ]

# ---- the stand-in itself
count=$(python3 "$standins/adbd_rejects.py" "$work/strict") || not_ok "the stand-in takes what is wrong: $count"
passed=$((passed + $(sed -nE 's/^([0-9]+) passed.*/\1/p' <<<"$count")))
finish
