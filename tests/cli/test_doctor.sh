#!/bin/bash
# fastvlm doctor on a bare machine and on one that has everything, in stand-ins: each line says what
# was found, and what to do where something is missing.
. "$(dirname "$0")/cases.sh"
fake=${FV_FAKE_QNN:?names the directory of the stand-in libraries}
bare() { env -u ANDROID_NDK_ROOT -u FV_QNN_DIR -u QNN_SDK_ROOT XDG_DATA_HOME="$work/none" "$@"; }
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
bare "$fastvlm" doctor >"$work/out"
check "bare: as text" grep -qE '^ndk +ANDROID_NDK_ROOT is not set' "$work/out"

mkdir -p "$work/ndk/build/cmake"
ANDROID_NDK_ROOT=$work/ndk run doctor
check "no NDK there" grep -qE "^ndk +$work/ndk \(ANDROID_NDK_ROOT\) is no Android NDK" <<<"$out"
touch "$work/ndk/build/cmake/android.toolchain.cmake"
printf 'Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n' >"$work/ndk/source.properties"
ANDROID_NDK_ROOT=$work/ndk FV_QNN_DIR=$fake run doctor --json
check "an NDK" [ "$(finding ndk found)" = "['27.2.12479018 in $work/ndk']" -a "$(finding ndk ok)" = True ]
check "libraries" [ "$(finding npu ok)" = True ]
finish
