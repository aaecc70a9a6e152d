#!/usr/bin/env bash
# make test-interop: exported models in the runtimes they are for, installed from the package indexes
# into temporary environments under build/interop.
#
#     tools/test-interop.sh [STAGE...]     onnx tokenizers js      default: these
#                                          transformers llama genie      large packages: when named
#
# onnx        ONNX checker and ONNX Runtime on every graph, against the engine; the manifest of export --all
# tokenizers  Hugging Face tokenizers on the exported tokenizer.json
# js          transformers.js gives the same answers about images
# transformers  its own FastVLM class on exported checkpoint directories: logits and greedy ids
# llama       llama.cpp on the exported decoder: token ids, logits and greedy ids
# genie       Qualcomm's libGenie validates the exported dialogs (x86-64; a wheel of 100 MB)
#
# The last line is "N passed, N failed". VERBOSE=1 shows every comparison.
# FASTVLM and FASTVLM_LIBRARY name another program and library than those in build/release.
set -uo pipefail
cd "$(dirname "$0")/.."

stages=("$@")
[ ${#stages[@]} -eq 0 ] && stages=(onnx tokenizers js)
program=${FASTVLM:-build/release/fastvlm}
library=${FASTVLM_LIBRARY:-build/release/libfastvlm.so}
place=build/interop
tiny=tests/data/tiny
images=tests/data/demo/images
question="What do you see?"
passed=0 failed=0 skipped=()
mkdir -p $place

want()
{
    local stage
    for stage in "${stages[@]}"; do
        [ "$stage" = "$1" ] && return 0
    done
    return 1
}

# Runs a test that says "N passed, M failed", or stands for one.
run() # TITLE COMMAND...
{
    local title=$1 code=0 count
    shift
    printf '== %s\n' "$title"
    timeout 1200 "$@" >$place/log 2>&1 || code=$?
    count=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' $place/log | tail -n 1)
    [ -n "$count" ] || count=$([ $code -eq 0 ] && echo "1 passed, 0 failed" || echo "0 passed, 1 failed")
    [ -z "${VERBOSE:-}" ] || cat $place/log
    [ $code -eq 0 ] || grep -vE '^  ok ' $place/log | tail -n 40
    if [ $code -ne 0 ] && [ "${count##*, }" = "0 failed" ]; then
        count="${count%%,*}, 1 failed" # it ended early
    fi
    echo "   $count"
    set -- $count
    passed=$((passed + $1)) failed=$((failed + $3))
}

# An index that cannot be reached is not our failure: it is reported at the end. INTEROP_NEEDED=1 makes it one.
cannot_install() # LOG WHAT
{
    tail -n 5 "$1"
    echo "test-interop: $2 cannot be installed (see $1)"
    if [ -z "${INTEROP_NEEDED:-}" ] && grep -qiE 'name resolution|connection (refused|timed out|broken|reset)|network is unreachable|max retries|NewConnectionError|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|from versions: none' "$1"; then
        skipped+=("$2")
    else
        failed=$((failed + 1))
    fi
    return 1
}

# A virtual environment with these packages.
python_with() # NAME PACKAGE...
{
    local name=$1
    shift
    [ -e "$place/$name/installed" ] && return 0
    rm -rf "${place:?}/$name"
    { python3 -m venv "$place/$name" && "$place/$name/bin/python" -m pip install -q --disable-pip-version-check "$@"; } \
        >"$place/$name.log" 2>&1 && touch "$place/$name/installed" && return 0
    cannot_install "$place/$name.log" "$*"
}

# The package's install scripts fetch things that are only for GPUs.
node_with() # PACKAGE@VERSION
{
    [ -e $place/js/installed ] && return 0
    mkdir -p $place/js
    (cd $place/js && npm install --ignore-scripts --no-audit --no-fund "$1") >$place/js.log 2>&1 &&
        touch $place/js/installed && return 0
    cannot_install $place/js.log "$1"
}

# The same questions to transformers.js and to the program.
ask_js() # TITLE DTYPE EXPORT_OPTION...
{
    local title=$1 dtype=$2 cases=() name
    shift 2
    rm -rf $place/model
    "$program" export onnx models/demo --for transformers.js -o $place/model -q "$@" || return
    for name in 00000 00010 00013 00015; do
        cases+=("$images/$name.jpg" "$question"
            "$("$program" run -q --vision f32 --decoder f32 -n 40 models/demo "$images/$name.jpg" "$question")")
    done
    run "$title" node tests/interop/transformers_js.mjs $place/js $place/model "$dtype" 40 "${cases[@]}"
    rm -rf $place/model
}

if want onnx && python_with onnx onnx onnxruntime numpy; then
    run "ONNX Runtime, the tiny checkpoint" $place/onnx/bin/python tests/interop/onnx_graphs.py \
        "$program" $tiny/checkpoint $tiny/image.png "$question"
    run "ONNX Runtime, the demonstration model" $place/onnx/bin/python tests/interop/onnx_graphs.py \
        "$program" models/demo $images/00000.jpg "$question"
    run "the manifest of everything" $place/onnx/bin/python tests/interop/manifest.py --program "$program" models/demo
fi
if want tokenizers && python_with tokenizers tokenizers; then
    run "Hugging Face tokenizers" $place/tokenizers/bin/python tests/interop/hf_tokenizers.py --program "$program" \
        --library "$library" $tiny/checkpoint models/demo
fi
if want js && node_with @huggingface/transformers@4; then
    ask_js "transformers.js, f32" fp32
    ask_js "transformers.js, f32, weights in files of their own, fused operators" fp32 --external-data --ops fused
    ask_js "transformers.js, f16" fp16 --precision f16
fi
both=(--program "$program" --library "$library")
if want transformers && python_with transformers torch torchvision transformers timm pillow numpy; then
    run "transformers, the demonstration model" $place/transformers/bin/python tests/interop/full_transformers.py "${both[@]}" \
        models/demo $images/00000.jpg $images/00049.jpg $images/00099.jpg
    run "transformers, a checkpoint whose convolutions are fused" $place/transformers/bin/python tests/interop/full_transformers.py \
        "${both[@]}" tests/data/variants/unfused/checkpoint $tiny/image.png
    for type in f16 z8; do
        "$program" pack models/demo -o $place/demo.gguf --decoder $type >/dev/null 2>&1
        run "transformers, unpacked from a packed file, $type" $place/transformers/bin/python tests/interop/full_transformers.py \
            "${both[@]}" $place/demo.gguf $images/00049.jpg
        rm -f $place/demo.gguf
    done
fi
if want llama && python_with llama llama-cpp-python numpy; then
    run "llama.cpp, the demonstration model" $place/llama/bin/python tests/interop/full_llama.py "${both[@]}" models/demo
fi
if want genie && python_with genie --no-deps onnxruntime-qnn==2.7.0; then
    qnn=$(echo $place/genie/lib/python*/site-packages)
    run "libGenie on the dialogs" env LD_LIBRARY_PATH="$PWD/$qnn/onnxruntime_qnn:$PWD/$qnn/onnxruntime_qnn.libs" \
        $place/genie/bin/python tests/interop/full_genie.py --program "$program" --qnn "$qnn" \
        --decode-rows "$(dirname "$program")/standin_decode_rows" models/demo $tiny/checkpoint
fi
[ ${#skipped[@]} -eq 0 ] || echo "SKIPPED, the package index could not be reached: ${skipped[*]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ $((passed + ${#skipped[@]})) -gt 0 ]
