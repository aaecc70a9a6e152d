# Sourced by the scripts beside it: run the program, look at exit code, stdout and stderr.
set -u
fastvlm=${FASTVLM:?names the program}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
base=$root/tests/data/variants/base/checkpoint
tiny=$root/tests/data/tiny/checkpoint
picture=$root/tests/data/tiny/image.png
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
passed=0 failed=0 code="" out="" err=""

# Runs the program with the arguments; $code, $out and $err hold what came.
run() {
    "$fastvlm" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    out=$(cat "$work/out")
    err=$(cat "$work/err")
}

ok() { passed=$((passed + 1)); }
not_ok() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    echo "  exit code $code"
    echo "  stdout: $(head -c 400 <<<"$out")"
    echo "  stderr: $(head -c 400 <<<"$err")"
}

# expect NAME CODE TEXT...: the exit code, and every TEXT on stderr.
expect() {
    local name=$1 wanted=$2 text
    shift 2
    [ "$code" = "$wanted" ] || { not_ok "$name: expected exit code $wanted"; return; }
    for text; do
        grep -qF -- "$text" <<<"$err" || { not_ok "$name: stderr does not hold \"$text\""; return; }
    done
    if [ "$wanted" != 0 ] && [ "$(grep -c '' <<<"$err")" -gt 2 ]; then
        not_ok "$name: more than one clear message"
        return
    fi
    ok
}

# check NAME COMMAND...: the command succeeds.
check() {
    local name=$1
    shift
    if "$@"; then ok; else not_ok "$name"; fi
}

# stop_once FILE WORD ARGUMENT...: runs the program and interrupts it when WORD is in FILE.
stop_once() {
    local file=$1 word=$2 pid
    shift 2
    : >"$file"
    "$fastvlm" "$@" >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    for _ in $(seq 600); do
        grep -q "$word" "$file" && break
        sleep 0.1
    done
    kill -TERM $pid # as SIGINT, which the shell has a background process ignore
    wait $pid
    code=$? out=$(cat "$work/out") err=$(cat "$work/err")
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}
