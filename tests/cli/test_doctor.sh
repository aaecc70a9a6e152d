#!/bin/bash
# fastvlm doctor on a bare machine and on one that has everything, in stand-ins: each line says what
# was found, and what to do where something is missing.
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
unset QAIRT_SDK_ROOT VIRTUAL_ENV QAIHUB_CLIENT_INI
mkdir "$work/home" && cd "$work" || exit 1
case $fastvlm in /*) ;; *) fastvlm=$OLDPWD/$fastvlm ;; esac
bare() { env -u ANDROID_NDK_ROOT -u FV_QNN_DIR -u QNN_SDK_ROOT HOME="$work/home" PATH="$work/home" XDG_DATA_HOME="$work/none" "$@"; }
# The value of a finding: name, key.
finding() {
    python3 - "$work/out" "$1" "$2" <<'END'
import json, sys
with open(sys.argv[1]) as f:
    found = {x["name"]: x for x in json.load(f)["findings"]}
print(found[sys.argv[2]].get(sys.argv[3], ""))
END
}

bare "$fastvlm" doctor --json >"$work/out"
check "bare: no libraries" [ "$(finding npu ok)" = False ]
check "bare: no NDK" [ "$(finding ndk ok)" = False ]
check "bare: what to type" grep -q "export ANDROID_NDK_ROOT=" <<<"$(finding ndk notes)"
check "bare: the processor is fine" [ "$(finding processor ok)" = True ]
check "bare: no SDK" [ "$(finding sdk ok)" = False ]
check "bare: no client of the Hub" grep -q "no qai-hub on PATH" <<<"$(finding hub found)"
check "bare: each with what to type" grep -q "hub-env/bin/pip install qai-hub==0.56.0" <<<"$(finding hub notes)"
check "bare: no token" grep -q "no token in $work/home/.qai_hub/client.ini" <<<"$(finding hub found)"
check "bare: how to set one" grep -q "qai-hub configure --api_token TOKEN" <<<"$(finding hub notes)"
check "bare: who needs the SDK" grep -q "handoff and device run --with qairt" <<<"$(finding sdk notes)"
check "bare: the converters' Python" grep -q "qnn_env/bin/pip install numpy onnx pyyaml" <<<"$(finding python notes)"
check "bare: and how to name it" grep -q 'export VIRTUAL_ENV=$PWD/qnn_env' <<<"$(finding python notes)"
check "bare: no option that doctor does not have" [ "$(grep -cE -- '--(venv|serial|adb|sdk)\b' "$work/out")" = 0 ]
check "bare: no adb" grep -q "adb: program not found on PATH" <<<"$(finding phone found)"
check "bare: how to get it" grep -q "apt install adb" <<<"$(finding phone notes)"
check "the server's library, or which to install" grep -q "libmicrohttpd" <<<"$(finding server found)"
FV_LLGUIDANCE=$work/none.so bare "$fastvlm" doctor --json >"$work/out"
check "no llguidance" [ "$(finding "json schemas" ok)" = False ]
check "where it comes from" grep -q "make builds it" <<<"$(finding "json schemas" notes)"
FV_LLGUIDANCE=${FV_FAKE_LLGUIDANCE:?} bare "$fastvlm" doctor --json >"$work/out"
check "llguidance" grep -qE "llguidance [0-9]+\.[0-9]" <<<"$(finding "json schemas" found)"
bare "$fastvlm" doctor >"$work/out"
check "bare: as text" grep -qE '^ndk +ANDROID_NDK_ROOT is not set' "$work/out"

mkdir -p bin/release && ln "$fastvlm" bin/release/fastvlm 2>/dev/null || cp "$fastvlm" bin/release/fastvlm
bare bin/release/fastvlm doctor --json >"$work/out"
check "no program for the phone" grep -q "make arm64 builds it" <<<"$(finding program notes)"
mkdir bin/arm64-static && touch bin/arm64-static/fastvlm
bare bin/release/fastvlm doctor --json >"$work/out"
check "a program for the phone" [ "$(finding program ok) $(finding program found)" = "True ['$work/bin/release/../arm64-static/fastvlm, for the phone']" ]
FASTVLM_PHONE_PROGRAM=$work/none bare bin/release/fastvlm doctor --json >"$work/out"
check "a program for the phone that is not there" [ "$(finding program ok)" = False ]
rm -r bin

mkdir -p "$work/ndk/build/cmake"
ANDROID_NDK_ROOT=$work/ndk run doctor
check "no NDK there" grep -qE "^ndk +$work/ndk \(ANDROID_NDK_ROOT\) is no Android NDK" <<<"$out"
touch "$work/ndk/build/cmake/android.toolchain.cmake"
printf 'Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n' >"$work/ndk/source.properties"
ANDROID_NDK_ROOT=$work/ndk FV_QNN_DIR=$fake run doctor --json
check "an NDK" [ "$(finding ndk found)" = "['27.2.12479018 in $work/ndk']" -a "$(finding ndk ok)" = True ]
check "libraries" [ "$(finding npu ok)" = True ]

# ---- everything, in stand-ins
root_tests=$root/tests/standins
python3 -B "$root_tests/make_sdk.py" sdk --program "$fastvlm" --decode-rows "${FV_DECODE_ROWS:?}" --model "$root/models/demo" \
    --fake-qnn "$fake"
mkdir -p meta/qai_hub-0.56.0.dist-info
printf 'Metadata-Version: 2.1\nName: qai-hub\nVersion: 0.56.0\n' >meta/qai_hub-0.56.0.dist-info/METADATA
hub() { # TOKEN LINE
    mkdir -p home/.qai_hub standin
    echo '{"token": "t", "models": [], "jobs": [], "faults": [], "cuts": [], "count": 0, "log": [], "message": "", "job_states": []}' \
        >standin/state.json
    printf '[api]\n%s\napi_url = https://standin\nweb_url = https://standin\nverbose = True\n' "$1" >home/.qai_hub/client.ini
    HOME=$work/home STANDIN_HUB=$work/standin PYTHONPATH=$root_tests/aihub_client:$work/meta PYTHONDONTWRITEBYTECODE=1 \
        PATH=$root_tests/aihub_client:$PATH QNN_SDK_ROOT=$work/sdk run doctor --json
}
hub "api_token = tokenOf40CharactersThatNobodyMaySee12345"
check "the SDK" grep -qF "QAIRT 2.42.0.251225 in $work/sdk" <<<"$(finding sdk found)"
check "is complete" [ "$(finding sdk ok)" = True ]
check "its Python is named" grep -q python3 <<<"$(finding python found)"
check "the client has a token" grep -q "with a token in $work/home/.qai_hub/client.ini" <<<"$(finding hub found)"
check "which is not shown" [ "$(grep -c tokenOf40 "$work/out" "$work/err" | grep -vc ':0$')" = 0 ]
hub "# none"
check "no token" [ "$(finding hub ok)" = False ]
check "what to type" grep -q "qai-hub configure --api_token" <<<"$(finding hub notes)"
rm sdk/bin/x86_64-linux-clang/qnn-onnx-converter
hub "# none"
check "a tool that is missing, in words" grep -q "1 of its 10 tools is missing" <<<"$(finding sdk notes)"
check "a tool that is missing" grep -q "fastvlm qairt check" <<<"$(finding sdk notes)"

# ---- nothing hangs
mkdir slow && printf '#!/bin/sh\nsleep 100\n' >slow/python3 && chmod +x slow/python3
began=$SECONDS
PATH=$work/slow:$PATH QNN_SDK_ROOT=$work/sdk run doctor
check "a Python that hangs" [ $((SECONDS - began)) -lt 60 ]
check "is said to" grep -q "python3: not finished after 15.0 s" <<<"$out"
finish
