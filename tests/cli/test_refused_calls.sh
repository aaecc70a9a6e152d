#!/bin/bash
# The program where the system refuses what it refuses on phones (tests/install/phone_shell.c): the
# same files and answers. tests/install/test_phone_shell.sh has the Arm program and more.
. "$(dirname "$0")/cases.sh"
if ! cc -O1 -o "$work/phone_shell" "$root/tests/install/phone_shell.c" 2>"$work/log" ||
    ! "$work/phone_shell" true 2>>"$work/log"; then
    echo "skipped: no compiler, or no seccomp here: $(tail -n 1 "$work/log")"
    exit 77
fi
phone() {
    "$work/phone_shell" "$fastvlm" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$? out=$(cat "$work/out") err=$(cat "$work/err")
}
run run -q "$base" "$picture" "What?" -n 4
want=$out
phone run -q "$base" "$picture" "What?" -n 4
check "the same answer" [ "$code" = 0 -a "$out" = "$want" ]
run pack "$base" -o "$work/a.gguf" -q
phone pack "$base" -o "$work/b.gguf" -q
expect "packs without links" 0
check "the same file" cmp "$work/a.gguf" "$work/b.gguf"
echo old >"$work/c.gguf"
chmod 640 "$work/c.gguf"
phone pack "$base" -o "$work/c.gguf" -q
check "in place of another" cmp "$work/a.gguf" "$work/c.gguf"
check "with its mode" [ "$(stat -c %a "$work/c.gguf")" = 640 ]
check "nothing is left beside them" [ -z "$(find "$work" -name '*.part*')" ]
run export genie "$base" -o "$work/genie" -q
phone export genie "$base" -o "$work/phone" -q
check "a directory of files" diff -r "$work/genie" "$work/phone"
phone export genie "$base" -o "$work/phone" -q --force
check "over files of the same names" diff -r "$work/genie" "$work/phone"
finish
