#!/usr/bin/env bash
# make test-npu: contexts compiled, read and run by Qualcomm's own libraries, which fastvlm npu setup
# fetches through pip into build/npu. Needs the network and Linux on x86-64; without them it fails.
#
#     tools/test-npu.sh [STAGE...]     setup graphs compile decoder old damage second arm
#                                  default: all but the last
#
# setup    both versions are fetched and can be used; real pip without a network or for a version that
#          does not exist
# graphs   encoder, decoder and embedding on Qualcomm's libraries against our engine: f32 on libQnnCpu;
#          on the emulator f16, and what w8a16 loses along the decoder's answers
# compile  the demonstration model in every precision for SM8750, and for every chip; what is read
#          back; how close its image tokens come to f32 on held-out images, on the emulator
# decoder  decoder and embedding in every precision; answers, and a part of the test, with encoder and
#          decoder both emulated
# old      libraries of QAIRT 2.47: compile, run, and refuse what 2.51 has made
# damage   npu info on damaged binaries: an answer or a message, never a crash
# second   our float export, quantised by ONNX Runtime and compiled by its QNN provider
# arm      the wheel's libraries for 64-bit Arm in our program for it (make arm64-dynamic), under qemu,
#          as far as they go without a Snapdragon
#
# The last line is "N passed, N failed". VERBOSE=1 shows every output. FASTVLM names another program
# than build/release/fastvlm, IMAGES=N how many held-out images are run (20).
set -uo pipefail
cd "$(dirname "$0")/.."

stages=("$@")
[ ${#stages[@]} -eq 0 ] && stages=(setup graphs compile decoder old damage second)
program=${FASTVLM:-build/release/fastvlm}
images=${IMAGES:-20}
place=$PWD/build/npu
new=$place/qnn-2.7.0 old=$place/qnn-2.3.0 # fetched below
demo=models/demo
passed=0 failed=0
unset FV_QNN_DIR QNN_SDK_ROOT
export XDG_DATA_HOME=$place/data
mkdir -p "$place"

want()
{
    local stage
    for stage in "${stages[@]}"; do
        [ "$stage" = "$1" ] && return 0
    done
    return 1
}

# Runs the program; $code, $out and $err hold what came.
run()
{
    "$program" npu "$@" >"$place/out" 2>"$place/err" </dev/null
    code=$?
    out=$(cat "$place/out") err=$(cat "$place/err")
    [ -z "${VERBOSE:-}" ] || { echo "$ fastvlm npu $*"; cat "$place/out" "$place/err"; }
}

check() # NAME COMMAND...
{
    local name=$1
    shift
    if "$@" >"$place/check" 2>&1; then
        echo "  ok      $name"
        passed=$((passed + 1))
    else
        echo "  FAILED  $name (exit code $code)"
        head -c 600 <<<"$out"
        head -c 600 <<<"$err"
        head -c 600 "$place/check"
        failed=$((failed + 1))
    fi
}

has() { grep -qF -- "$2" <<<"$1" || { echo "lacks \"$2\""; return 1; }; }
succeeded() { [ "$code" = 0 ]; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a >= b) }' || { echo "$1, expected $2 or more"; return 1; }; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <<<"$out"; }

# ---------------------------------------------------------------- the libraries

fetch() # VERSION DIR
{
    run setup --version "$1" -o "$2" --yes -q
    if ! succeeded; then
        echo "test-npu: Qualcomm's libraries $1 cannot be fetched: $err"
        echo "$passed passed, $((failed + 1)) failed"
        exit 1
    fi
}
fetch 2.7.0 "$new"
fetch 2.3.0 "$old"

if want setup; then
    echo "== setup"
    run setup --version 2.7.0 -o "$new"
    check "again: nothing is fetched" has "$out" "already there, nothing fetched"
    run check --qnn "$new"
    check "QAIRT 2.51 can be used" succeeded
    check "it says what it is" has "$out" "v2.51.0"
    run check --qnn "$old"
    check "QAIRT 2.47 can be used" succeeded
    check "and has the CPU's library" has "$out" "libQnnCpu.so     present"
    PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_RETRIES=1 PIP_NO_CACHE_DIR=1 PIP_FIND_LINKS='' \
        run setup --version 2.7.0 -o "$place/none" --yes -q
    check "no network" has "$err" "pip cannot reach the package index"
    run setup --version 0.0.1 -o "$place/none" --yes -q
    check "no such version" has "$err" "pip cannot fetch onnxruntime-qnn==0.0.1"
    check "nothing is left" [ ! -e "$place/none" ]
fi

# ---------------------------------------------------------------- our graphs on their libraries

if want graphs; then
    echo "== graphs"
    code=0 out= err=
    check "the test builds" eval 'cmake --preset dev && cmake --build --preset dev --target test_npu_libraries'
    FV_QNN_DIR=$new/onnxruntime_qnn FV_QNN_CPU_DIR=$old/onnxruntime_qnn build/dev/test_npu_libraries >"$place/graphs" 2>&1
    code=$?
    [ -z "${VERBOSE:-}" ] || cat "$place/graphs"
    grep -E '^\[ +(OK|FAILED) +\] test_' "$place/graphs"
    good=$(grep -cE '^\[ +OK +\] test_' "$place/graphs")
    passed=$((passed + good))
    if [ "$code" -ne 0 ] || [ "$good" -eq 0 ]; then
        grep -E '^\[ +(LINE|ERROR)|ERROR:|error:' "$place/graphs"
        failed=$((failed + 1))
    fi
fi

# ---------------------------------------------------------------- compiling

compile() # DIR ARGUMENT...
{
    local dir=$1
    shift
    rm -rf "${place:?}/$dir"
    run compile $demo -o "$place/$dir" --images $demo/calibration --json "$@"
}

# Image tokens of the binary on the emulator against f32, on held-out images.
measure() # TITLE BINARY QNN LEAST_COSINE
{
    run eval $demo "$2" tests/data/demo/images --max-images "$images" --json --qnn "$3"
    local cosine
    cosine=$(field cosine 2>/dev/null)
    check "$1: cosine ${cosine:-not measured} on held-out images" at_least "${cosine:-0}" "$4"
}

if want compile; then
    echo "== compile"
    for precision in f16:0.9999 w8a16:0.9995 mixed:0.998 w8a8:0.95; do
        least=${precision#*:} precision=${precision%:*}
        binary=$place/new/vision_${precision}_sm8750.bin
        compile new --precision "$precision" --qnn "$new"
        check "$precision" succeeded
        [ "$precision" != mixed ] || check "mixed: 90 % of the multiplications are 8 x 8 bits" at_least "$(field share_8x8)" 0.9
        run info "$binary" --qnn "$new"
        check "$precision: for SM8750" has "$out" "SM8750 (Snapdragon 8 Elite), HTP v79"
        check "$precision: most optimised, all of the fast memory" has "$out" "optimisation level 3, VTCM 8 MB"
        run info "$binary" --qnn "$new" --json
        check "$precision: its description is what npu info says" cmp "$place/out" "${binary%.bin}_ctx_info.json"
        measure "$precision" "$binary" "$new" "$least"
        cp "$binary" "$place/$precision.bin"
        compile new --precision "$precision" --qnn "$new"
        check "$precision: the same bytes again" cmp "$binary" "$place/$precision.bin"
    done
    for chip in SM8550:73 SM8650:75 SM8750:79 SM8850:81; do
        compile chip --precision w8a8 --soc "${chip%:*}" --qnn "$new"
        run info "$place/chip/vision_w8a8_$(tr A-Z a-z <<<"${chip%:*}").bin" --qnn "$new"
        check "${chip%:*} is Hexagon v${chip#*:}" has "$out" "HTP v${chip#*:}"
    done
    # Value by value ends where the binary does, as far as making every value an output changes nothing.
    run eval $demo "$place/new/vision_w8a8_sm8750.bin" tests/data/demo/images/00000.jpg --json --qnn "$new"
    whole=$(field cosine)
    run eval --layers $demo tests/data/demo/images/00000.jpg --precision w8a8 --calibration $demo/calibration --json --qnn "$new"
    check "value by value" succeeded
    check "value by value: ends at the binary's cosine, $whole" python3 -c 'import json, sys
layers = json.load(open(sys.argv[1]))["layers"]
assert layers[0]["name"] == "vision.stem.0" and layers[-1]["name"] == "image_tokens", layers
assert abs(layers[-1]["cosine"] - float(sys.argv[2])) < 0.005, layers[-1]' "$place/out" "$whole"
    compile none --soc sm1234 --qnn "$new"
    check "a chip that is not known" has "$err" "sm1234"
fi

# ---------------------------------------------------------------- the decoder

# The answer to a question of whose answer the model is sure, so that only what is wrong changes it; arguments as for run.
answer() { FV_QNN_DIR=$new "$program" run $demo examples/images/sign.png "What do you see?" -q "$@" 2>"$place/err"; }

if want decoder; then
    echo "== decoder"
    vision=$place/new/vision_w8a16_sm8750.bin
    [ -e "$vision" ] || compile new --precision w8a16 --qnn "$new"
    for precision in f16 w8a16 w8a8; do
        compile parts --part embed --precision $precision --qnn "$new"
        check "embedding, $precision" succeeded
    done
    plain=$(answer)
    for precision in f16 w8a16; do
        compile parts --part decoder --precision $precision --qnn "$new"
        check "$precision" succeeded
        shared=$(field file_bytes)
        err=$(answer --decoder "npu:$place/parts/decoder_${precision}_sm8750.bin"; cat "$place/err")
        check "$precision: the emulator is not given shared weights" has "$err" "its graphs share weights"
        compile "$precision" --part decoder --precision $precision --qnn "$new" --unshared --cache 128
        check "$precision, unshared" succeeded
        check "$precision: shared weights make the file smaller" at_least "$(field file_bytes)" "$shared"
        out=$(answer --vision "npu:$vision" --decoder "npu:$place/$precision/decoder_${precision}_sm8750_unshared.bin") err=
        check "$precision: \"$out\"" [ "$out" = "$plain" ]
    done
    percent() { python3 -c 'import json, sys; print(json.load(sys.stdin)["results"][0]["percent"])' 2>/dev/null; }
    own=$("$program" eval --task tests/data/demo $demo --vision f32 --decoder f32 --limit "$images" --json 2>/dev/null | percent)
    out=$(FV_QNN_DIR=$new "$program" eval --task tests/data/demo $demo --vision "npu:$vision" \
        --decoder "npu:$place/w8a16/decoder_w8a16_sm8750_unshared.bin" --limit "$images" --json 2>"$place/err")
    score=$(percent <<<"$out")
    check "$images questions with both emulated: ${score:-no} % right, ${own:-no} % in f32; one answer more may be wrong" \
        python3 -c 'import sys; got, own, n = map(float, sys.argv[1:]); assert got >= own - 100.1 / n' "${score:-0}" "${own:-100}" "$images"
fi

# ---------------------------------------------------------------- versions

if want old; then
    echo "== old"
    compile old --precision w8a16 --qnn "$old"
    check "QAIRT 2.47 compiles" succeeded
    binary=$place/old/vision_w8a16_sm8750.bin
    measure "2.47 on 2.47" "$binary" "$old" 0.9995
    measure "2.47 on 2.51" "$binary" "$new" 0.9995
    compile new --precision w8a16 --qnn "$new"
    run eval $demo "$place/new/vision_w8a16_sm8750.bin" tests/data/demo/images --max-images 1 --qnn "$old"
    check "2.51 on 2.47 is refused" has "$err" "error 5000"
fi

# ---------------------------------------------------------------- damage

if want damage; then
    echo "== damage"
    [ -e "$place/new/vision_w8a16_sm8750.bin" ] || compile new --precision w8a16 --qnn "$new"
    code=0 out= err=
    check "200 damaged binaries" python3 tests/npu/damage.py "$program" "$new" "$place/new/vision_w8a16_sm8750.bin" 200
    cat "$place/check"
fi

# ---------------------------------------------------------------- another compiler of the same graph

if want second; then
    echo "== second"
    code=0 out= err=
    if ! { [ -x "$place/venv/bin/python" ] || python3 -m venv "$place/venv"; } >"$place/pip.log" 2>&1 ||
        ! "$place/venv/bin/pip" install -q onnxruntime==1.32.0 onnxruntime-qnn==2.7.0 onnx numpy >>"$place/pip.log" 2>&1; then
        tail -n 3 "$place/pip.log"
        echo "test-npu: ONNX Runtime cannot be installed"
        failed=$((failed + 1))
    else
        "$program" export onnx $demo -o "$place/float" --only vision --precision f32 --force -q &&
            "$program" export calib $demo/calibration -o "$place/calibration" --image-size 256 --layout nchw --force -q &&
            "$program" export calib tests/data/demo/images -o "$place/samples" --image-size 256 --layout nchw --force -q
        "$place/venv/bin/python" tests/npu/second_opinion.py "$program" "$place/float/vision_encoder_fp32.onnx" \
            "$place/calibration" "$place/samples" "$place/second" "$images" 2>"$place/second.err" | tee "$place/second.log"
        counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$place/second.log" || echo "0 passed, 1 failed")
        passed=$((passed + ${counts%% *}))
        counts=${counts#*, }
        failed=$((failed + ${counts%% *}))
    fi
fi

# ---------------------------------------------------------------- 64-bit Arm

if want arm; then
    echo "== arm"
    code=0 out= err=
    sysroot=build/sysroot-arm64 arm=$place/qnn-arm64 binary=$place/new/vision_w8a16_sm8750.bin
    [ -e $sysroot/usr/lib/aarch64-linux-gnu/libatomic.so.1 ] || rm -rf $sysroot # made before it was needed
    [ -d "$arm/onnxruntime_qnn" ] || {
        rm -rf "$arm"
        python3 -m pip download -q --no-deps --only-binary=:all: --implementation=cp --python-version=3.12 \
            --platform=manylinux_2_34_aarch64 -d "$arm" onnxruntime-qnn==2.7.0 && python3 -m zipfile -e "$arm"/*.whl "$arm"
    } >"$place/pip.log" 2>&1
    [ -e "$binary" ] || run compile $demo -o "$place/new" --qnn "$new" --precision w8a16 --force
    if [ ! -d "$arm/onnxruntime_qnn" ] || ! tools/build-arm.sh arm64-dynamic >"$place/arm.log" 2>&1; then
        tail -n 3 "$place/pip.log" "$place/arm.log" 2>/dev/null
        echo "test-npu: no libraries or no program for 64-bit Arm"
        failed=$((failed + 1))
    else
        printf '#!/bin/sh\nexec qemu-aarch64 -L %s %s "$@"\n' "$PWD/$sysroot" "$PWD/build/arm64-dynamic/fastvlm" >"$place/fastvlm-arm"
        chmod +x "$place/fastvlm-arm"
        run info "$binary" --qnn "$new"
        expected=$out host=$program program=$place/fastvlm-arm
        run check --qnn "$arm"
        check "both libraries open" [ "$code" = 0 ]
        check "libQnnHtp says which it is" grep -qE '^libQnnHtp.so +v2\.51\..*QNN API 2\.40' <<<"$out"
        run info "$binary" --qnn "$arm"
        check "libQnnSystem reads a binary as on x86-64" [ "$out" = "$expected" ]
        head -c 50000 "$binary" >"$place/cut.bin"
        run info "$place/cut.bin" --qnn "$arm"
        check "and refuses a truncated one" grep -q "or truncated" <<<"$err"
        FV_QNN_DIR=$arm "$program" run -q --vision "npu:$binary" examples/images/sign.png "What?" >"$place/out" 2>"$place/err"
        code=$? out=$(cat "$place/out") err=$(cat "$place/err")
        check "without a Snapdragon the NPU is a message" grep -q "No Snapdragon SOC detected" <<<"$err"
        program=$host
    fi
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
