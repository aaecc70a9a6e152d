#!/bin/bash
# fastvlm handoff: from nothing to the files that the reference pipeline lists, resumed, repeated with
# other options, and planned. Kills are tests/kill/matrix.py's, Qualcomm's libraries a stand-in
# (tests/npu/fake_qnn.c).
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
export XDG_DATA_HOME=$work/data
unset FV_QNN_DIR QNN_SDK_ROOT FAKE_QNN
model=$base # small: what is checked here is files and messages
photos=$work/photos
mkdir "$photos"
cp "$root"/tests/data/demo/images/0000[0-2].jpg "$photos"
cd "$work" || exit 1

files() { (cd "$1" && find . -type f | sed 's|^\./||' | LC_ALL=C sort); }
sums() { (cd "$1" && find . -type f ! -name manifest.json -exec sha256sum {} + | LC_ALL=C sort -k 2); }
done_again() { [ "$(grep -c 'complete already' <<<"$out")" = "$1" ]; }

# ---- from nothing, with the libraries
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
expect "handoff" 0
run_files=$out
check "the pipeline's files at the pipeline's places" diff <(files models) - <<'END'
fastvlm-calib-raw/calib.json
fastvlm-calib-raw/input_list.txt
fastvlm-calib-raw/sample_000.raw
fastvlm-calib-raw/sample_001.raw
fastvlm-calib-raw/sample_002.raw
fastvlm-genie/LUT.bin
fastvlm-genie/genie_dialog.json
fastvlm-genie/genie_dialog_htp.json
fastvlm-genie/genie_model.json
fastvlm-genie/htp_backend.json
fastvlm-genie/local_context/vision_int8_qnnmodel/output/fastvlm_vision_encoder_int8_htp.bin
fastvlm-genie/local_context/vision_int8_qnnmodel/vision_int8_ctx_info.json
fastvlm-genie/tokenizer.json
fastvlm-onnx-fp32/decoder_fixed_kv_fp32.onnx
fastvlm-onnx-fp32/embed_tokens_fp32.onnx
fastvlm-onnx-fp32/vision_encoder_fp32.onnx
fastvlm-qaihub-fp16-context/fastvlm_decoder_fixed_kv_fp32/job_native_optimized_bin_sm8750.bin
fastvlm-qaihub-fp16-context/fastvlm_decoder_fixed_kv_fp32/job_native_optimized_bin_sm8750_ctx_info.json
fastvlm-qaihub-fp16-context/fastvlm_embed_tokens_fp32/job_native_optimized_bin_sm8750.bin
fastvlm-qaihub-fp16-context/fastvlm_embed_tokens_fp32/job_native_optimized_bin_sm8750_ctx_info.json
manifest.json
END
check "what a library cannot compile is a reason" grep -qF "computes a grouped convolution wrongly" <<<"$run_files"
check "missing files have our command" grep -qFx "        \$ fastvlm handoff $model -o models --images $photos --with qairt" <<<"$run_files"
check "no command of Qualcomm's" [ "$(grep -c '\$ q' <<<"$run_files")" = 0 ]
cat >manifest.py <<'END'
import hashlib, json, os, sys
m = json.load(open("models/manifest.json"))
listed = set()
for step in m["steps"]:
    for f in step["files"]:
        data = open(os.path.join("models", f["path"]), "rb").read()
        assert len(data) == f["bytes"] and hashlib.sha256(data).hexdigest() == f["sha256"], f
        listed.add(f["path"])
    for f in step["missing"]:
        assert f["reason"] and not os.path.exists(os.path.join("models", f["path"])), f
there = {os.path.relpath(os.path.join(d, n), "models") for d, _, names in os.walk("models") for n in names}
assert there == listed | {"manifest.json"}, there ^ listed
steps = [s["step"] for s in m["steps"]]
assert steps == list(range(1, 1 + len(steps))), steps
missing = [f["path"] for s in m["steps"] for f in s["missing"]]
for name in sys.argv[1:]:
    assert any(name in path for path in missing), (name, missing)
END
check "the manifest says what is there and what is missing" python3 manifest.py qaihub-model-ids.txt qaihub-fp16-jobs.txt \
    vision_encoder_fp32/job_ vision_encoder_int8_qnnmodel.cpp vision_encoder_int8_qnnmodel.bin aarch64-android/lib \
    x86_64-linux-clang/lib fastvlm_model.bin fastvlm_model_z8.bin fastvlm_model_q4.bin
sums models >first

# ---- again: nothing is done twice
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "all steps are complete already" done_again 5
check "and nothing changed" diff first <(sums models)
printf x >>models/fastvlm-onnx-fp32/embed_tokens_fp32.onnx
printf x | dd of=models/fastvlm-genie/LUT.bin conv=notrunc status=none
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "damaged files are made again, the others kept" done_again 3
check "as they were" diff first <(sums models)
rm -r models/fastvlm-calib-raw models/fastvlm-genie/tokenizer.json
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake" --step 2
check "one step" [ "$(grep -cE '^[1-6] ' <<<"$out")" = 1 ]
check "only that step" [ -e models/fastvlm-calib-raw/sample_000.raw ] && [ ! -e models/fastvlm-genie/tokenizer.json ]
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "then the rest" diff first <(sums models)

# ---- other options: what depends on them, and no old files beside the new ones
rm "$photos/00002.jpg"
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "other images: calibration and int8" done_again 3
check "an old sample is gone" [ ! -e models/fastvlm-calib-raw/sample_002.raw ]
check "the manifest knows" python3 manifest.py
cp -r "$model" other
printf '\n' >>other/config.json
run handoff other --images "$photos" --vision w8a8 --qnn "$fake"
check "another model: everything" done_again 0
check "and the manifest is its" grep -q '"path": "other"' models/manifest.json

# ---- interrupted
rm -r models
FAKE_QNN="hang=graphFinalize;log=$work/calls" stop_once "$work/calls" graphFinalize \
    handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "Ctrl-C" grep -q "cancelled.*run again to continue at step 4" <<<"$err"
check "complete steps stay" python3 manifest.py
check "no more than those" [ ! -e models/fastvlm-genie ]
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "it goes on" done_again 2
check "to the end" python3 manifest.py fastvlm_model.bin

# ---- a tool's files that somebody has put there are listed and kept
printf z8 >models/fastvlm-genie/fastvlm_model_z8.bin
mkdir models/fastvlm-qaihub-fp16-context/fastvlm_vision_encoder_fp32
printf hub >models/fastvlm-qaihub-fp16-context/fastvlm_vision_encoder_fp32/job_jabc_optimized_bin_mdef.bin
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake"
check "a composed decoder is found" grep -qF "fastvlm_model_z8.bin  0.0 MB, was there, not checked" <<<"$out"
check "a downloaded binary is found" grep -qF "job_jabc_optimized_bin_mdef.bin  0.0 MB, was there, not checked" <<<"$out"
check "and stands in the manifest" python3 manifest.py fastvlm_model.bin
run handoff "$model" --images "$photos" --vision w8a8 --qnn "$fake" --image-size 128
check "and stays" [ "$(cat models/fastvlm-genie/fastvlm_model_z8.bin)" = z8 ]

# ---- without Qualcomm's libraries, without images
run handoff "$model" -o bare
expect "bare" 0
check "noise in place of images" [ "$(ls bare/fastvlm-calib-raw/sample_*.raw | wc -l)" = 8 ]
check "no libraries is a reason" grep -qF "no QNN libraries" <<<"$out"
check "nothing for the NPU" [ ! -e bare/fastvlm-qaihub-fp16-context ]
run handoff "$model" -o bare --qnn "$fake" --step 5 --vision w8a8 --images "$photos"
check "with libraries later" [ -e bare/fastvlm-genie/local_context/vision_int8_qnnmodel/output/fastvlm_vision_encoder_int8_htp.bin ]

# ---- what cannot be made now, or only by a tool of Qualcomm's, is never lost
run handoff "$model" -o keep --images "$photos" --vision w8a8 --qnn "$fake"
sums keep >kept_sums
run handoff "$model" -o keep --images "$photos" --vision w8a8 --step 4 --qnn "$work/typo"
expect "a directory without libraries" 1 "typo"
check "nothing is lost by it" diff kept_sums <(sums keep)
run handoff "$model" -o keep --images "$photos" --vision w8a8
expect "without the libraries" 0
check "files that cannot be made now stay" diff kept_sums <(sums keep)
check "and it says so" [ "$(grep -c 'kept: made earlier; Qualcomm.s libraries are not there now' <<<"$out")" -ge 6 ]
check "in the step's line, too" grep -q '^4 fp16 *kept as it was' <<<"$out"
run handoff "$model" -o keep --images "$photos" --vision w8a8 --qnn "$fake"
check "with them again they are complete" done_again 5
run handoff other -o keep --images "$photos" --vision w8a8
check "of another model" grep -q 'optimized_bin_sm8750.bin .*stale: of another model' <<<"$out"
check "they stay" [ -e keep/fastvlm-qaihub-fp16-context/fastvlm_embed_tokens_fp32/job_native_optimized_bin_sm8750.bin ]
run handoff other -o keep --images "$photos" --vision w8a8 --qnn "$fake"
check "until they can be made" [ "$(grep -c stale <<<"$out")" = 0 ]
run handoff "$model" -o bare2 --step 5
check "left out is not done" grep -qF "left out: no QNN libraries; fastvlm npu setup fetches them" <<<"$out"
check "both files are missing" [ "$(grep -cE 'missing: .*(htp.bin|vision_int8_ctx_info.json)' <<<"$out")" = 2 ]
check "with the command" [ "$(grep -cF '$ fastvlm npu setup' <<<"$out")" = 1 ]
run handoff "$model" -o bare2 --step 3 --json
check "not needed" grep -q '"state": "not needed"' <<<"$out"

# ---- a user's own files
mkdir -p own/fastvlm-genie
echo mine >own/fastvlm-genie/tokenizer.json
: >own/fastvlm-genie/fastvlm_model_z8.bin
run handoff "$model" -q -o own --step 6
expect "a file of the user's" 1 "own/fastvlm-genie/tokenizer.json: there is such a file already"
check "is not replaced" [ "$(cat own/fastvlm-genie/tokenizer.json)" = mine ]
check "and the option that does is named" grep -qF -- "--force replaces it" <<<"$err"
run handoff "$model" -o own --step 6 --force
expect "unless that is asked for" 0
check "then it is" [ "$(head -c 1 own/fastvlm-genie/tokenizer.json)" = "{" ]
check "an empty file counts for none" grep -q 'missing: .*fastvlm_model_z8.bin' <<<"$out"
rm own/manifest.json
run handoff "$model" -o own --step 6
expect "the same bytes are no stranger's" 0
run handoff "$model" -o own --step 2
check "counts of the step" grep -q '^this step: 10 files, 0 missing' <<<"$out"
check "and of the manifest" grep -q '^own/manifest.json: 16 files, 3 missing' <<<"$out"

# ---- planned
run handoff "$model" -o plan --dry-run --qnn "$fake"
check "a dry run writes nothing" [ ! -e plan ]
sed -e "s|$work|WORK|g" -e "s|$root|ROOT|g" "$work/out" >plan.txt
check "a dry run lists files and commands" diff "$root/tests/data/handoff/dry_run.txt" plan.txt
cat >planned.py <<'END'
import fnmatch, json, os, re, sys
# PLAN DIR: every file below DIR was planned, and every planned file is there.
plan = json.load(open(sys.argv[1]))["steps"]
names = [re.sub("<[a-z]+>", "*", f["path"]) for s in plan for f in s["files"] if not f["path"].startswith("../")]
there = [os.path.relpath(os.path.join(d, n), sys.argv[2]) for d, _, files in os.walk(sys.argv[2]) for n in files if n != "manifest.json"]
unplanned = [f for f in there if not any(fnmatch.fnmatch(f, n) for n in names)]
absent = [n for n in names if not any(fnmatch.fnmatch(f, n) for f in there)]
assert not unplanned and not absent, (unplanned, absent)
END
run handoff "$model" -o plan --dry-run --json
cp "$work/out" plan.json
check "as JSON" python3 -c 'import json, sys; assert len(json.load(open(sys.argv[1]))["steps"]) == 6' plan.json
run handoff "$model" -o plan
check "what was planned is what is made" python3 planned.py plan.json plan
sums plan >before
run handoff "$model" -o plan --dry-run
check "a dry run says what is complete" [ "$(grep -cE '^[126] .*complete already, checked' <<<"$out")" = 3 ]
rm plan/fastvlm-genie/LUT.bin
run handoff "$model" -o plan --dry-run
check "and what is not" [ "$(grep -E '^[126] ' <<<"$out" | grep -cE '^6 genie +native, to be made|complete')" = 3 ]
run handoff "$model" -o plan --dry-run --image-size 128
check "with other options nothing that depends on them is" [ "$(grep -cE 'complete already' <<<"$out")" = 0 ]
check "it changes nothing" [ "$(diff before <(sums plan) | grep -c '^[<>]')" = 1 ]

# ---- by Qualcomm's tools, in stand-ins (tests/standins)
mkdir tools && cd tools || exit 1
python3 -B "$root/tests/standins/make_sdk.py" sdk --program "$fastvlm" --decode-rows "${FV_DECODE_ROWS:?}" --model "$model" \
    --fake-qnn "$fake"
mkdir -p venv/bin && ln -s "$(python3 -c 'import sys; print(sys.executable)')" venv/bin/python3
hub=$root/tests/standins/aihub_client
mkdir standin .qai_hub
cat >standin/state.json <<'END'
{"token": "tokenOf40CharactersThatNobodyMaySee12345", "models": [], "jobs": [], "faults": [], "cuts": [], "count": 0, "log": [],
 "message": "", "job_states": ["SUCCESS"]}
END
printf '\2\0\0\0 a context binary' >standin/compiled
printf '[api]\napi_token = tokenOf40CharactersThatNobodyMaySee12345\napi_url = https://standin\nweb_url = https://standin\nverbose = True\n' \
    >.qai_hub/client.ini
vendor() {
    local sdk=()
    [[ " $* " = *qairt* ]] && sdk=(--sdk sdk --venv venv)
    HOME=$PWD STANDIN_VENV=$PWD/venv STANDIN_HUB=$PWD/standin PYTHONPATH=$hub PYTHONDONTWRITEBYTECODE=1 PATH=$hub:$PATH \
        run handoff "$model" --images "$photos" "${sdk[@]}" "$@"
}
run handoff "$model" --with qairt --step 5 --sdk sdk --venv venv
expect "step 5 needs 1 and 2" 1 "step 5 with Qualcomm's tools needs the files of step 1"
ANDROID_NDK_ROOT=$PWD/ndk vendor --with qairt,hub --dry-run --json
expect "a dry run of all tools, from nothing" 0
check "writes nothing" [ ! -e models -a ! -e handoff ]
cp "$work/out" plan.json
ANDROID_NDK_ROOT=$PWD/ndk vendor --with qairt,hub
check "all of the pipeline" [ "$code" = 0 ]
check "the files that were planned" python3 ../planned.py plan.json models
cat >commands.py <<'END'
import json, sys
commands = {}
for step in json.load(open("plan.json"))["steps"]:
    for f in step["files"]:
        for c in f.get("command", "").split(" &&\n"):
            commands.setdefault((step["way"], c))
print("\n".join(c for way, c in commands if way == sys.argv[1] and c))
END
plain() { sed -E 's|fastvlm-[A-Za-z0-9]{6}/ctx_info|fastvlm-X/ctx_info|'; }
check "the SDK's commands that were planned, word for word" diff <(python3 commands.py qairt | plain) <(sed -n 's/^\$ //p' <<<"$err" | plain)
check "seven of them" [ "$(python3 commands.py qairt | wc -l)" = 7 ]
check "the Hub's, too" [ "$(python3 commands.py hub | grep -cE '^[^ ]*qai-hub upload-model --model .*/models/fastvlm-onnx-fp32/.*_fp32.onnx --name fastvlm_')" = 3 ]
check "jobs and downloads" [ "$(python3 commands.py hub | grep -cE "^' (MODEL|JOB)_ID ")" = 7 ]
check "by its tools" [ "$(grep -cE '^[1-6] +[a-z0-9]+ +(qairt|hub), done' <<<"$out")" = 4 ]
check "every file of the pipeline is there" [ "$(grep -c 'missing:' <<<"$out")" = 0 ]
check "the token is never shown" [ "$(grep -c tokenOf40 <<<"$out$err")" = 0 ]
check "no wrong use of the Hub" [ ! -e standin/violations ]
check "ledgers beside models" [ -s handoff/qaihub-model-ids.txt ] && [ -s handoff/qaihub-fp16-jobs.txt ]
check "three binaries of the Hub" [ "$(find models/fastvlm-qaihub-fp16-context -name 'job_j*_optimized_bin_m*.bin' | wc -l)" = 3 ]
for file in fastvlm-qnn-int8/vision_encoder_int8_qnnmodel.cpp fastvlm-qnn-int8/vision_encoder_int8_qnnmodel.bin \
    fastvlm-genie/local_context/vision_int8_qnnmodel/aarch64-android/libvision_encoder_int8_qnnmodel.so \
    fastvlm-genie/local_context/vision_int8_qnnmodel/x86_64-linux-clang/libvision_encoder_int8_qnnmodel.so \
    fastvlm-genie/local_context/vision_int8_qnnmodel/output/fastvlm_vision_encoder_int8_htp.bin \
    fastvlm-genie/local_context/vision_int8_qnnmodel/vision_int8_ctx_info.json \
    fastvlm-genie/fastvlm_model.bin fastvlm-genie/fastvlm_model_z8.bin fastvlm-genie/fastvlm_model_q4.bin; do
    check "$file" [ -s "models/$file" ]
done
check "the converter's command is recorded" grep -q -- "--act_quantizer_calibration min-max" models/fastvlm-qnn-int8/vision_encoder_int8_qnnmodel.cpp
uploads=$(grep -c upload standin/state.json)
vendor --with qairt,hub
check "again: complete already" done_again 6
check "nothing is uploaded twice" [ "$(grep -c upload standin/state.json)" = "$uploads" ]
vendor
check "what the tools made counts without them" done_again 6
rm models/fastvlm-genie/fastvlm_model_z8.bin
vendor --with qairt
check "one step anew" done_again 5
check "by the composer" [ -s models/fastvlm-genie/fastvlm_model_z8.bin ]
find models -type f | LC_ALL=C sort >all_files
cp -r "$model" other && printf '\n' >>other/config.json
run handoff other --images "$photos"
expect "another model, natively" 0
check "loses no file that a tool made" [ -z "$(comm -23 all_files <(find models -type f | LC_ALL=C sort))" ]
check "but says what they are" [ "$(grep -c 'stale: of another model; only a tool' <<<"$out")" -ge 9 ]
run handoff "$model" --images "$photos"
check "with the first model again they are good" [ "$(grep -c 'kept: made earlier by a tool' <<<"$out")" -ge 9 ]
check "not stale" [ "$(grep -c stale <<<"$out")" = 0 ]
ANDROID_NDK_ROOT=$PWD/ndk vendor --with qairt,hub
check "the tools again" [ "$(grep -cE 'kept:|stale' <<<"$out")" = 0 ]
STANDIN_FAULT=qnn-onnx-converter=exit1 vendor --with qairt -n 1
check "a tool that fails ends it" [ "$code" = 1 ]
check "and leaves what was there" [ -s models/fastvlm-qnn-int8/vision_encoder_int8_qnnmodel.cpp ]
check "and nothing else" [ -z "$(find models -name '*part-*')" ]
vendor --with qairt -n 1
check "then it goes on" done_again 5
vendor --with qairt,hub --dry-run -n 1
check "a dry run of what is complete" [ "$(grep -cE '^[1-6] .*complete already' <<<"$out")" = 6 ]
check "has nothing to run" [ "$(grep -cF '$ ' <<<"$out")" = 0 ]
vendor --with qairt --dry-run --step 5 -o new
expect "a dry run of a step that lacks others" 1 "step 5 with Qualcomm's tools needs the files of step 1"
rm sdk/bin/x86_64-linux-clang/qnn-genai-transformer-composer
vendor --with qairt -o new
expect "an SDK that lacks a tool" 1 "sdk: has no qnn-genai-transformer-composer; expected it in a QAIRT SDK"
vendor --with qairt -o new --venv none
expect "an environment that is none" 1 "none"
check "before anything is made" [ ! -e new ]
cd ..

# ---- what is wrong
flock own "$fastvlm" handoff "$model" -o own --step 6 >/dev/null 2>"$work/err"
check "two at once" grep -q "another handoff is working in .*own" "$work/err"
run handoff "$model" -o new --sdk sdk
expect "an SDK for nothing" 2 "--sdk is for --with qairt"
run handoff "$model" -o new --with qairt
expect "no SDK is known at once" 1 "no QAIRT SDK"
run handoff "$model" -o new --with qairt --sdk tools/sdk --vision mixed
expect "what the converter cannot" 1 "vision is mixed"
run handoff "$model" -o "new dir" --with qairt --sdk tools/sdk --dry-run
expect "a blank, before anything" 2 "no path with a blank"
PATH=/usr/bin:/bin run handoff "$model" -o new --with hub
expect "no client is known at once" 1 "expected the AI Hub's client"
check "nothing was begun" [ ! -e new ]
run handoff
expect "no model" 2 "expected one model"
run handoff "$model" --step 7
expect "no such step" 2 "--step"
run handoff "$model" --soc sm1
expect "no such chip" 2 "sm1"
run handoff "$work/none"
expect "no such model" 1 "none"
mkdir lacking unreadable nothing
cp "$model"/* lacking 2>/dev/null
sed -i 's/"num_hidden_layers": [0-9]*/"num_hidden_layers": 99/' lacking/config.json
run handoff lacking -o new
check "a checkpoint without some weights" [ "$code" = 1 -a "$(grep -c 'layers.*' <<<"$err")" -ge 1 ]
echo text >unreadable/a.png
run handoff "$model" -o new --images unreadable
expect "images that none can read" 1 "unreadable/a.png"
run handoff "$model" -o new --images nothing
expect "a directory without images" 1 "nothing"
check "all of that before the first step" [ ! -e new ]
mkdir alien && echo '{"files": []}' >alien/manifest.json
run handoff "$model" -o alien
expect "another manifest" 1 "alien/manifest.json: damaged, or not of a handoff; remove it"
check "is left alone" [ "$(cat alien/manifest.json)" = '{"files": []}' ]
for path in /etc/passwd ../../x fastvlm-a/../../b fastvlm- model.safetensors ""; do
    printf '{"steps": [{"step": 1, "way": "native", "key": "", "files": [{"path": "%s", "bytes": 1, "sha256": ""}], "missing": []}]}' \
        "$path" >alien/manifest.json
    run handoff "$model" -o alien
    expect "a manifest that names \"$path\"" 1 "is not of a handoff's file"
done
mkdir "$work/a space"
run handoff "$model" -o "$work/a space" --step 2
expect "a directory with a space" 2 "space"
finish
