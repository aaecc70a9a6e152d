#!/usr/bin/env bash
# make test-serve: fastvlm serve with clients that others wrote. Installs OpenAI's for Python and Node,
# Ollama's, LiteLLM and schemathesis from the package indexes into build/serve-clients, and builds llguidance
# with cargo; where the clients cannot be installed it fails.
#
#     tools/test-serve.sh [CASE...]
#
# The last line is "N passed, N failed". FASTVLM names another program than build/release/fastvlm.
set -uo pipefail
cd "$(dirname "$0")/.."

export FV_CLIENTS=$PWD/build/serve-clients
export FASTVLM=${FASTVLM:-build/release/fastvlm}
export LITELLM_LOCAL_MODEL_COST_MAP=True # fetch no prices
packages=(openai==3.57.0 ollama==0.6.3 litellm==1.110.2 schemathesis==4.32.5)
node_package=openai@7.59.0
mkdir -p "$FV_CLIENTS/node"

fail()
{
    echo "test-serve: $1"
    echo "0 passed, 1 failed"
    exit 1
}

[ -x "$FASTVLM" ] || fail "$FASTVLM is not there; make builds it"
tools/llguidance.sh "$(dirname "$FASTVLM")" || export FV_NO_LLGUIDANCE=1 # one case says so
if [ "$(cat "$FV_CLIENTS/installed" 2>/dev/null)" != "${packages[*]} $node_package" ]; then
    { python3 -m venv --clear "$FV_CLIENTS/venv" && "$FV_CLIENTS/venv/bin/pip" install -q "${packages[@]}" &&
        npm install --silent --no-audit --no-fund --prefix "$FV_CLIENTS/node" "$node_package"; } >"$FV_CLIENTS/install.log" 2>&1 ||
        { tail -n 3 "$FV_CLIENTS/install.log"; fail "the clients cannot be installed"; }
    echo "${packages[*]} $node_package" >"$FV_CLIENTS/installed"
fi
exec "$FV_CLIENTS/venv/bin/python" -B tests/serve/client_cases.py "$@"
