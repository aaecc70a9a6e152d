#!/bin/bash
# fastvlm device run with the program for 64-bit Arm, as make arm64 builds it: the real adb client, a
# stand-in for the phone's daemon (tests/standins/adbd.py), and qemu for the phone's processor.
. "$(dirname "$0")/cases.sh"
. "$(dirname "$0")/phone.sh"
arm=${FASTVLM_ARM64:-$root/build/arm64-static/fastvlm}
[ -x "$arm" ] || { echo "skipped: no $arm (make arm64 builds it)"; exit 77; }
QEMU_PROGRAM=$(command -v qemu-aarch64) || { echo "skipped: no qemu-aarch64 (apt install qemu-user)"; exit 77; }
export QEMU_PROGRAM QEMU_LD_PREFIX=$root/build/sysroot-arm64
sign=$root/examples/images/sign.png question="What does the text say?" packed=$root/models/demo/demo.gguf
cd "$work" || exit 1

if readelf -l "$arm" | grep -q 'interpreter: /lib'; then faults arm; else faults arm android; fi
phone arm --preload "${FV_EXEC_AARCH64:?}"
want=$("$fastvlm" run -q "$sign" "$question")
run device run --program "$arm" "$sign" "$question" -q
check "the answer is this machine's" [ "$out" = "$want" ]
check "it was that program" cmp "$arm" "$(on arm)/bin/fastvlm"
check "its kernels are Arm's" python3 -c '
import glob, json
assert json.load(open(glob.glob("run_outputs/*/fastvlm_profile.json")[0]))["model"]["cpu_level"] in ("neon", "dotprod", "fp16", "bf16", "i8mm")'
run device run --program "$arm" --model "$packed" "$sign" "$question" -q
check "with a packed model" [ "$out" = "$want" ]
run device push --program "$fastvlm" -q
expect "this machine's program" 1 "built for x86-64, the phone is aarch64"
faults arm android page_kib=16
run device run --program "$arm" "$sign" "$question" -q
check "pages of 16 KB" [ "$out" = "$want" ]
faults arm android page_kib=64
run device run --program "$arm" "$sign" "$question" -q
expect "pages of 64 KB" 1 "the phone's pages have 65536"
check "no rule was broken" [ -z "$(grep VIOLATION "$work/arm/log")" ]
finish
