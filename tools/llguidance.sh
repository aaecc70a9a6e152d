#!/usr/bin/env bash
# Builds llguidance, which answers by JSON schema need, as libfastvlm_grammar.so beside the program.
#
#     tools/llguidance.sh [FOLDER]        default: build/release
#
# Needs cargo and, the first time, the crates of tools/llguidance/Cargo.lock. Without them it says so in one
# line, and the program works without it but for such answers: exit code 3.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/release}
file=$folder/libfastvlm_grammar.so
target=$PWD/build/llguidance
log=$target/build.log
mkdir -p "$target" "$folder"

without() # WHY
{
    echo "llguidance: $1; the program is built without answers by JSON schema" >&2
    exit 3
}

[ -e "$file" ] && [ -z "$(find tools/llguidance -newer "$file" -type f)" ] && exit 0
PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin # where rustup puts it
command -v cargo >/dev/null 2>&1 || without "cargo is not installed (Rust 1.87 or newer: https://rustup.rs)"
echo "llguidance: building, about a minute" >&2
CARGO_NET_RETRY=${CARGO_NET_RETRY:-1} CARGO_HTTP_TIMEOUT=${CARGO_HTTP_TIMEOUT:-10} CARGO_TARGET_DIR=$target \
    cargo build --quiet --release --locked --manifest-path tools/llguidance/Cargo.toml >"$log" 2>&1 </dev/null ||
    without "cargo cannot build it: $(grep -m 1 -E '^error' "$log" | cut -c -160) (all of it: $log)"
cp "$target/release/libfastvlm_grammar.so" "$file.new" && mv -f "$file.new" "$file"
