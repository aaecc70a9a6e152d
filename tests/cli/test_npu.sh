#!/bin/bash
# fastvlm npu, from outside, with the stand-ins for Qualcomm's libraries (tests/npu/fake_qnn.c) and
# for Python (below). The real ones are tools/test-npu.sh's.
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
export XDG_DATA_HOME=$work/data
unset FV_QNN_DIR QNN_SDK_ROOT FAKE_QNN

# ---- info
cat >"$work/vision.bin" <<'END'
FAKEQNN 1
soc 69
graph vision
in pixels 1032 0.00392156886 0 4 1 64 64 3
out image_features 1046 0.000244140625 -32768 3 1 1 96
end
END
run npu info "$work/vision.bin" --qnn "$fake"
check "info" grep -qF 'for          SM8750 (Snapdragon 8 Elite), HTP v79' <<<"$out"
check "info, graph" grep -qE '^graph +vision: optimisation level 3, VTCM 8 MB, spill-fill 0.1 MB' <<<"$out"
check "info, encoding" grep -qF 'image_features  u16 [1, 1, 96]  scale 0.000244140625, offset -32768' <<<"$out"
FV_QNN_DIR=$fake run npu info "$work/vision.bin" --json
check "info --json is JSON in the utility's shape" python3 - "$work/out" <<'END'
import json, sys
# As the reference Qualcomm pipeline reads it to turn bytes into numbers.
graph = json.load(open(sys.argv[1]))["info"]["graphs"][0]["info"]
out = graph["graphOutputs"][0]["info"]
pair = out["quantizeParams"]["scaleOffset"]
assert (40000 + float(pair["offset"])) * float(pair["scale"]) == 1.765625, pair
assert out["dimensions"] == [1, 1, 96]
END
run npu info "$work/vision.bin"
expect "no library" 1 "no QNN libraries: FV_QNN_DIR and QNN_SDK_ROOT are not set" "fastvlm npu setup fetches them"
run npu info "$work/vision.bin" --qnn "$work"
expect "a directory without libraries" 1 "no QNN library in it; expected libQnnSystem.so"
run npu info --qnn "$fake"
expect "no file" 2 "expected one context binary"
run npu info "$work/none.bin" --qnn "$fake"
expect "no such file" 1 "none.bin"
head -c 60 "$work/vision.bin" >"$work/cut.bin"
run npu info "$work/cut.bin" --qnn "$fake"
expect "truncated" 1 "not a QNN context binary, or truncated"
run npu info "$picture" --qnn "$fake"
expect "an image" 1 "looks like a PNG image, expected a QNN context binary"
FAKE_QNN=die=systemContextGetBinaryInfo run npu info "$work/vision.bin" --qnn "$fake"
expect "a library that dies" 1 "libQnnSystem: ended with signal 11"
printf 'FAKEQNN 1\nsoc 69\ngraph \033[2J\nin x 1032 1 0 1 4\nend\n' >"$work/escape.bin"
run npu info "$work/escape.bin" --qnn "$fake"
check "a pipe gets a name as it is" grep -q $'graph        \033\[2J' "$work/out"
if command -v script >/dev/null 2>&1; then
    TERM=dumb script -qec "$(printf '%q ' "$fastvlm" npu info "$work/escape.bin" --qnn "$fake")" /dev/null >"$work/out" </dev/null
    check "a terminal is shown an escape sequence" grep -qF '\x1b[2J' "$work/out"
fi
FAKE_QNN="hang=systemContextGetBinaryInfo;log=$work/calls" stop_once "$work/calls" GetBinaryInfo npu info "$work/vision.bin" --qnn "$fake"
check "Ctrl-C ends it" grep -q cancelled "$work/err"

# ---- what is wrong with the arguments is said before libraries are looked for
for arguments in "info" "run --input $picture -o $work/out.raw --emulate" "eval $tiny:$picture"; do
    set -- $arguments
    command=$1
    shift
    if [ "$command" = eval ]; then
        run npu eval "$tiny" "$work/none.bin" "$picture"
    else
        run npu "$command" "$work/none.bin" "$@"
    fi
    expect "$command: a binary that is not there, no libraries" 1 "none.bin"
    check "$command says nothing of libraries" test -z "$(grep -i librar <<<"$err")"
done
run npu run "$work/vision.bin" --input "$work/none.raw" -o "$work/out.raw" --emulate
expect "run: no such input, no libraries" 1 "none.raw: No such file"
run npu eval "$work/none" "$work/vision.bin" "$picture"
expect "eval: no such model, no libraries" 1 "$work/none: No such file"
run npu eval "$tiny" "$work/vision.bin" "$work/none.png"
expect "eval: no such image, no libraries" 1 "none.png: No such file"
run npu compile "$work/none" -o "$work/compiled"
expect "compile: no such model, no libraries" 1 "$work/none: no such model"
run npu compile "$tiny" -o "$work/compiled" --images "$work/none.png"
expect "compile: no such image, no libraries" 1 "none.png"
check "nothing of libraries" test -z "$(grep -i librar <<<"$err")"
run npu compile "$tiny" -o "$work/compiled" --soc sm1234
expect "compile: no such chip" 2 'soc is "sm1234"; expected one of SM8550 (Snapdragon 8 Gen 2), SM8650'
run npu check --json
check "check --json without libraries" python3 - "$work/out" <<'END'
import json, sys
found = json.load(open(sys.argv[1]))
assert found["dir"] == "" and not found["htp"] and not found["system"] and "no QNN libraries" in found["problem"], found
END
expect "check --json without libraries" 1 "no QNN libraries"
FV_QNN_DIR=$fake run npu check --json
check "named by the variable" grep -qF '"named_by": "FV_QNN_DIR"' <<<"$out"
run npu check --json --qnn "$fake"
check "named by the option" grep -qF '"named_by": "--qnn"' <<<"$out"
FV_QNN_DIR=$work/none run npu check
expect "a variable that names nothing" 1 "no QNN library in it (named by FV_QNN_DIR)"

# ---- socs
run npu socs
check "socs" [ "$(grep -cE '^SM8[5-8]50 ' <<<"$out")" = 4 ]
run npu socs --json
check "socs --json" python3 -c 'import json,sys; assert [s["soc_model"] for s in json.load(sys.stdin)] == [43, 57, 69, 87]' <"$work/out"
run npu
check "no command" grep -qF "usage: fastvlm npu COMMAND" <<<"$err"
run npu frobnicate
expect "unknown command" 2 'unknown command "frobnicate"'

# ---- check
run npu check --qnn "$fake"
check "check" grep -qE '^libQnnHtp.so +v2.99.0.fake, QNN API 2.40' <<<"$out"
FAKE_QNN=api=2.10 run npu check --qnn "$fake"
check "check, too old" grep -qF 'QNN API 2.10.0, expected 2.27' <<<"$out"
check "check, too old: exit code" [ "$code" = 1 ]
run npu check
expect "check without any" 1 "no QNN libraries"
FV_QNN_DIR=$fake run doctor
check "doctor" grep -qE "^npu +QNN v2.99.0.fake in $fake" <<<"$out"
run doctor
check "doctor without libraries" grep -qF "no QNN libraries; fastvlm npu setup fetches them" <<<"$out"

# ---- setup: a Python that answers as $PYTHON_IS says
cat >"$work/python" <<'END'
#!/bin/bash
echo "$*" >>"${PYTHON_LOG:-/dev/null}"
case "$PYTHON_IS $*" in
"nopip "*) echo "/usr/bin/python3: No module named pip" >&2; exit 1 ;;
"broken "*) echo "segmentation violation" >&2; exit 139 ;;
*" -m pip --version") echo "pip 23.0.1" ;;
"offline "*download*)
    echo "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'" >&2
    echo "ERROR: Could not find a version that satisfies the requirement onnxruntime-qnn==2.7.0 (from versions: none)" >&2
    echo "ERROR: No matching distribution found for onnxruntime-qnn==2.7.0" >&2
    exit 1 ;;
"noversion "*download*)
    echo "ERROR: Could not find a version that satisfies the requirement onnxruntime-qnn==9.9.9 (from versions: 2.3.0, 2.7.0)" >&2
    echo "ERROR: No matching distribution found for onnxruntime-qnn==9.9.9" >&2
    exit 1 ;;
"slow "*download*) sleep 60 ;;
*download*) for dir; do [ "$before" = -d ] && touch "$dir/onnxruntime_qnn-2.7.0-cp312.whl"; before=$dir; done ;;
"empty "*zipfile*) mkdir -p "$5/nothing" ;;
*zipfile*) mkdir "$5/onnxruntime_qnn" && cp "$FAKE"/libQnn*.so "$5/onnxruntime_qnn/" && : >"$5/onnxruntime_qnn/Qualcomm_LICENSE.pdf" ;;
esac
END
chmod +x "$work/python"
export FAKE=$fake
setup() { # PYTHON_IS ARGUMENT...
    export PYTHON_IS=$1
    shift
    run npu setup --python "$work/python" "$@"
}
nothing_left() { [ -z "$(find "$work" -path "$work/data/*" -type f -o -name '*.part-*')" ]; }

if [ "$(uname -s)" = Linux ] && ldd --version 2>&1 | grep -q GLIBC; then
    setup right
    check "the licence must be accepted" grep -qF "the licence is not accepted; --yes accepts it" <<<"$err"
    check "and is shown before" grep -qF "reverse engineered" <<<"$err"
    check "usage" [ "$code" = 2 ]
    setup nopip --yes
    check "no pip" grep -qF "has no pip" <<<"$err"
    check "no pip: what to do" grep -qF "apt install python3-pip" <<<"$err"
    setup broken --yes
    check "a Python that dies" grep -qF -- "-m pip does not run" <<<"$err"
    run npu setup --python "$work/no-python" --yes
    check "no Python" grep -qF "expected a Python 3 with pip" <<<"$err"
    setup offline --yes
    check "no network" grep -qF "pip cannot reach the package index (Could not find a version" <<<"$err"
    check "no network: exit code" [ "$code" = 1 ]
    setup noversion --yes --version 9.9.9
    check "no such version" grep -qF "pip cannot fetch onnxruntime-qnn==9.9.9: Could not find a version that satisfies the requirement onnxruntime-qnn==9.9.9 (from versions: 2.3.0, 2.7.0)" <<<"$err"
    setup right --yes --version "2.7.0;x"
    check "a version that is none" grep -qF 'version: expected three numbers such as 2.7.0, found "2.7.0;x"' <<<"$err"
    setup empty --yes
    check "a wheel without libraries" grep -qF "no QNN library in it" <<<"$err"
    PYTHON_IS=slow PYTHON_LOG=$work/calls stop_once "$work/calls" download npu setup --python "$work/python" --yes
    check "Ctrl-C ends pip" grep -q cancelled "$work/err"
    check "failures leave nothing" nothing_left

    export PYTHON_LOG=$work/python.log
    setup right --yes
    check "setup" [ "$code" = 0 ]
    check "setup: notice" grep -qF "Qualcomm AI" <<<"$err"
    check "setup: where the licence is" grep -qF "licence: $work/data/fastvlm/qnn/2.7.0/onnxruntime_qnn/Qualcomm_LICENSE.pdf" <<<"$out"
    check "setup: only the wheel" grep -q -- '--no-deps --only-binary=:all:.* onnxruntime-qnn==2.7.0$' "$work/python.log"
    check "setup: wheel and temporary files are gone" [ "$(ls -A "$work/data/fastvlm/qnn/2.7.0")" = onnxruntime_qnn ]
    run npu check
    check "found afterwards" grep -qF "$work/data/fastvlm/qnn/2.7.0/onnxruntime_qnn (named by npu setup)" <<<"$out"
    : >"$work/python.log"
    setup right
    check "again: nothing fetched, nothing asked" grep -qF "already there, nothing fetched" <<<"$out"
    check "again: Python not run" [ ! -s "$work/python.log" ]
    mkdir "$work/full" && touch "$work/full/file"
    setup right --yes -o "$work/full"
    check "a directory with other files" grep -qF "not empty" <<<"$err"
fi
finish
