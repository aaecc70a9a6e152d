#!/bin/bash
# fastvlm device run --with qairt: Qualcomm's programs on the phone. adb is the real one; the phone
# (tests/standins/adbd.py) and the SDK (make_sdk.py) are stand-ins, which say what they check.
. "$(dirname "$0")/cases.sh"
. "$(dirname "$0")/phone.sh"
unset QAIRT_SDK_ROOT VIRTUAL_ENV STANDIN_FAULT STANDIN_LOG STANDIN_VENV PYTHONHOME
demo=$root/models/demo sign=$root/examples/images/sign.png question="What does the text say?"
cd "$work" || exit 1
python3 -B "$standins/make_sdk.py" sdk --program "$fastvlm" --decode-rows "${FV_DECODE_ROWS:?}" --model "$demo" \
    --fake-qnn "${FV_FAKE_QNN:?}"
ndk=$work/ndk/toolchains/llvm/prebuilt/linux-x86_64/sysroot/usr/lib/aarch64-linux-android
mkdir -p "$ndk" venv/bin && echo "stand-in for libc++" >"$ndk/libc++_shared.so"
ln -s "$(python3 -c 'import sys; print(sys.executable)')" venv/bin/python3
export QNN_SDK_ROOT=$work/sdk ANDROID_NDK_ROOT=$work/ndk

# ---- the pipeline's files
steps() { run "$@"; [ "$code" = 0 ] || not_ok "$*"; }
steps export onnx "$demo" -o onnx -q
steps export calib "$demo/calibration" -o calib -n 3 --image-size 256 -q
steps qairt convert onnx/vision_encoder_fp32.onnx -i calib/input_list.txt -o int8 --image-size 256 -q --venv venv
steps qairt lib int8/vision_encoder_int8_qnnmodel.cpp -o lib -q --venv venv
steps qairt context lib/x86_64-linux-clang/libvision_encoder_int8_qnnmodel.so \
    -o models/fastvlm-genie/local_context/vision_int8_qnnmodel/output -q --venv venv
steps genie build "$demo" -o models/fastvlm-genie --quantize Z8 --force -q --venv venv
run run -q -m "$demo" --vision f32 --decoder f32 "$sign" "$question"
want=$out

binary=$(ls models/fastvlm-genie/local_context/vision_int8_qnnmodel/output/*.bin)

# ---- an SDK that cannot do it is refused while there is no phone
mv sdk/lib/aarch64-android/libGenie.so Genie
run device run --with qairt --model "$demo" "$sign" "$question"
expect "an SDK without Genie" 1 "sdk: neither lib/aarch64-android/libGenie.so nor libGenie.so is in it"
mv Genie sdk/lib/aarch64-android/libGenie.so
run device run --with qairt --model "$demo" --sdk "$work" "$sign" "$question"
expect "no SDK" 1 "$work: not a QAIRT SDK"

# ---- the phone: paths in lists and dialogs must be true where the stand-ins read them
faults one
phone one --abi x86_64 --same-paths
dir=$work/one/data/local/tmp/fastvlm
ask() { run device run --with qairt --dir "$dir" --model "$demo" "$sign" "$question" "$@"; }
ask
expect "device run --with qairt" 0
check "the answer is the native one" [ "$out" = "$want" ]
place=$(ls -d run_outputs/*)
check "results" [ "$(cd "$place" && ls | tr '\n' ' ')" = "answer.txt combined_embeddings_fp32.raw fastvlm_genie_device_config.json genie_profile.json pixel_values.raw profile.json run.log tokens.json vision_input_list.txt vision_out " ]
check "profile.json" python3 - "$place/profile.json" "$serial" <<'END'
import json, sys
m = json.load(open(sys.argv[1]))["metadata"]
assert (m["way"], m["runner"], m["soc"]) == ("qairt", "device " + sys.argv[2], "SM8750"), m
END
check "what Genie is told is the phone's" grep -qF "\"path\": \"$dir/qairt/tokenizer.json\"" "$place/fastvlm_genie_device_config.json"
n_sent=$(here one "$dir/qairt/fastvlm_model_z8.bin.part")
ask -q
check "again: the same" [ "$out" = "$want" ]
check "again: the decoder is not sent" [ "$(here one "$dir/qairt/fastvlm_model_z8.bin.part")" = "$n_sent" ]
ask -q --skip-push
check "--skip-push" [ "$out" = "$want" ]
rm "$dir/qairt/libGenie.so"
ask -q --skip-push
expect "--skip-push, and a library is missing" 1 "qairt/libGenie.so is missing"
ask -q -n 2
check "--max-new-tokens" [ "$(wc -c <<<"$out")" -lt "$(wc -c <<<"$want")" ]
ask -q --decoder fp32
expect "a decoder that was not built" 1 "fastvlm_model.bin: no such file; expected Genie's decoder"
ask -q --vision cpu
expect "no encoder on the CPU" 2 "--vision is int8, fp16 or npu:FILE"
run device run --with qairt "$sign" "$question"
expect "no model" 2 "--with qairt needs --model"
rm -r run_outputs
for tool in qnn-net-run genie-t2t-run; do
    echo "$tool=exit1" >"$dir/qairt/standin_fault"
    ask -q
    expect "$tool fails" 1 "$tool on device $serial: exit code 1"
    check "$tool fails: nothing is left" [ -z "$(ls -A run_outputs 2>/dev/null)" ]
done
echo qnn-net-run=hang >"$dir/qairt/standin_fault"
: >"$work/one/log"
stop_once "$work/one/log" "qairt/qnn-net-run" device run --with qairt --dir "$dir" --model "$demo" "$sign" "$question"
check "Ctrl-C: says so" grep -q cancelled "$work/err"
check "Ctrl-C: the phone's process has ended" ended "$dir/qairt/qnn-net-run"
check "Ctrl-C: nothing is left" [ -z "$(ls -A run_outputs 2>/dev/null)" ]
rm "$dir/qairt/standin_fault"
run device push -q --dir "$dir" --vision "npu:$binary"
check "push --vision npu:FILE: the binary and Android's libraries" [ -f "$dir/npu/${binary##*/}" -a -f "$dir/lib/libQnnHtp.so" -a -f "$dir/lib/libQnnHtpV79Skel.so" ]
faults one prop.ro.soc.model=SM8650
FV_QNN_DIR=$FV_FAKE_QNN run device push -q --dir "$dir" --vision "npu:$binary"
expect "a binary for another Hexagon" 1 "for Hexagon v79; the phone is SM8650 with v75"
ask -q
expect "libraries for another Hexagon" 1 "libQnnHtpV75Stub.so"
faults one
check "no rule was broken" [ -z "$(grep VIOLATION "$work/one/log")" ]
finish
