#!/usr/bin/env bash
# The static Arm program in surroundings like those of Android's shell, under qemu: nothing of the
# distribution's, pages of 16 KB, small stacks, refused system calls, unreadable /proc and /sys, no
# HOME, nowhere to write. What only a phone can show: Android's own kernel and SELinux policy, speed.
#
#     test_phone_shell.sh PROGRAM [EMULATOR]      default: qemu-aarch64
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "$1")
emulator=${2:-qemu-aarch64}
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() # NAME COMMAND...
{
    if "${@:2}" >"$work/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "[  FAILED  ] $1"
        tail -n 5 "$work/log"
    fi
}

# ---- the file
segments=$(readelf -lW "$program")
static() { ! grep -q INTERP <<<"$segments" && ! readelf -dW "$program" | grep -q NEEDED; }
aligned() # every LOAD at a multiple of 16 KB
{
    local align n=0
    while read -r align; do
        n=$((n + 1))
        [ $((align % 16384)) = 0 ] || return 1
    done < <(sed -n 's/^ *LOAD .* \(0x[0-9a-f]*\)$/\1/p' <<<"$segments")
    [ "$n" -gt 1 ]
}
stack_is_data() { grep 'GNU_STACK' <<<"$segments" | grep -qv 'E '; }
small() # without the demonstration model
{
    local bytes
    bytes=$(($(stat -c %s "$program") - $(stat -c %s "$root/models/demo/demo.gguf")))
    echo "$bytes bytes besides the demonstration model"
    [ "$bytes" -gt 0 ] && [ "$bytes" -lt 3000000 ]
}
check "position independent" grep -q 'Elf file type is DYN' <<<"$segments"
check "needs no library and no loader" static
check "segments at multiples of 16 KB" aligned
check "a stack without code" stack_is_data
check "under 3 MB" small

# ---- the program. Its answer on any machine:
want='A large red star and the text "HELLO".'
cp "$root/examples/images/sign.png" "$work/sign.png"
ask=("$program" run -q "$work/sign.png")
answers() { [ "$(env -i "$@" 2>"$work/said" </dev/null)" = "$want" ] || { cat "$work/said"; return 1; }; }

# What an unprivileged process finds unreadable on a phone: folders, whose reading fails.
hidden=$work/hidden
for path in proc/cpuinfo proc/meminfo proc/stat proc/self/cgroup proc/self/mountinfo proc/self/status \
    proc/self/exe sys/fs/cgroup/cpu.max sys/fs/cgroup/memory.max sys/devices/system/cpu/online; do
    mkdir -p "$hidden/$path"
done
cat >"$work/tight.sh" <<'END'
ulimit -s 512 -n 32
exec "$@"
END
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
"${nobody[@]}" true 2>/dev/null || nobody=()
qemu=$(command -v "$emulator")

for cpu in cortex-a53 cortex-a76 max; do
    if "$qemu" -cpu "$cpu" "$program" --version >/dev/null 2>&1; then
        check "answers on $cpu" answers "$qemu" -cpu "$cpu" "${ask[@]}"
    fi
done
check "pages of 16 KB" answers "$qemu" -p 16384 "${ask[@]}"
check "small stacks, few files" answers /bin/sh "$work/tight.sh" "$qemu" -s 524288 "${ask[@]}"
check "unreadable /proc and /sys" answers "$qemu" -L "$hidden" "${ask[@]}"
if cc -O1 -Wall -o "$work/phone_shell" "$root/tests/install/phone_shell.c" && "$work/phone_shell" true; then
    check "refused system calls" answers "$work/phone_shell" "$qemu" "${ask[@]}"
    cd /
    check "all of it, nowhere to write" answers "${nobody[@]}" "$work/phone_shell" /bin/sh "$work/tight.sh" \
        "$qemu" -cpu max -p 16384 -s 524288 -L "$hidden" "${ask[@]}"
    # Files are written where the system refuses links and temporary files without a name.
    check "packs" "$work/phone_shell" "$qemu" "$program" pack "$root/tests/data/tiny/checkpoint" -o "$work/tiny.gguf" -q
    check "verifies" "$qemu" "$program" verify "$work/tiny.gguf"
else
    echo "no seccomp here: refused system calls are not tried"
fi

# SELinux lets a shell map no memory that is both written and executed (execmem).
no_new_code()
{
    "$qemu" -strace "${ask[@]}" 2>&1 >/dev/null | grep -a -E '(mmap|mprotect|pkey_mprotect)\(' >"$work/maps"
    [ -s "$work/maps" ] && ! grep -a PROT_EXEC "$work/maps"
}
check "no memory with code of its own" no_new_code

# ---- what it has not
says() # CODE TEXT COMMAND...
{
    local code=$1 text=$2 found
    shift 2
    found=$("$@" 2>&1 </dev/null)
    [ $? = "$code" ] && grep -qF -- "$text" <<<"$found" || { echo "$found"; return 1; }
}
check "its formats" says 0 "JPEG, PNG, WebP" "$qemu" "$program" doctor
for format in gif tiff heic; do
    image=$(find "$root/tests/data/images/accept" -name "*.$format" | head -n 1)
    [ -n "$image" ] && check "no $format" says 1 "$(tr a-z A-Z <<<"${format%ic}" | sed 's/^HE$/HEI/')" "$qemu" "$program" run -q "$image"
done
mkdir "$work/qnn"
printf '\177ELF' >"$work/qnn/libQnnHtp.so"
cp "$work/qnn/libQnnHtp.so" "$work/qnn/libQnnSystem.so"
check "no QNN libraries" says 1 "cannot be used" "$qemu" "$program" npu check --qnn "$work/qnn"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
