#!/usr/bin/env bash
# make test-page: the page of fastvlm serve in headless Chromium, driven by playwright-core, which npm installs
# into build/page.
#
#     tools/test-page.sh [SHOTS_DIR]        with a directory: screenshots into it
#
# The last line is "N passed, N failed". FASTVLM names another program than build/release/fastvlm, CHROMIUM
# another browser than the first that is found, CASE a part of a case's name.
set -uo pipefail
cd "$(dirname "$0")/.."

place=$PWD/build/page
version=1.65.1
program=${FASTVLM:-build/release/fastvlm}
export CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}
export NODE_PATH=$place/node_modules
mkdir -p "$place"

fail() # WHY
{
    echo "test-page: $1"
    echo "0 passed, 1 failed"
    exit 1
}

[ -n "$CHROMIUM" ] || fail "no Chromium: apt install chromium"
if ! [ -d "$NODE_PATH/playwright-core" ]; then
    npm install --silent --no-audit --no-fund --prefix "$place" playwright-core@$version >"$place/npm.log" 2>&1 ||
        fail "npm cannot install playwright-core $version: $(tail -n 1 "$place/npm.log")"
fi
library=$(realpath "$(dirname "$program")")/libfastvlm_grammar.so
[ -e "$library" ] && export FV_LLGUIDANCE=$library
: >"$place/serve.log" # the last run's address
"$program" serve --port 0 2>"$place/serve.log" </dev/null &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null' EXIT
for _ in $(seq 300); do
    address=$(sed -n 's/.*listening on \(http:[^ ,]*\).*/\1/p' "$place/serve.log" | head -n 1)
    [ -n "$address" ] && break
    kill -0 $server 2>/dev/null || break
    sleep 0.1
done
[ -n "$address" ] || fail "no server: $(tail -n 1 "$place/serve.log")"
node tests/page/page_cases.mjs "${address%/}/" "$@"
