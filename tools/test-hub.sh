#!/usr/bin/env bash
# make test-hub: fastvlm hub with the real client of Qualcomm AI Hub, qai-hub 0.56.0, which pip installs
# into build/hub, against a stand-in of the service on this machine (tests/standins/aihub_service.py). No
# account is used. Needs the package index; where the client cannot be installed it fails.
#
#     tools/test-hub.sh [CASE...]
#
# The last line is "N passed, N failed". FASTVLM names another program than build/release/fastvlm.
set -uo pipefail
cd "$(dirname "$0")/.."

place=$PWD/build/hub
version=0.56.0
export FASTVLM=${FASTVLM:-build/release/fastvlm}
export CLIENT=$place/venv/bin/qai-hub
mkdir -p "$place"

if [ ! -x "$FASTVLM" ]; then
    echo "test-hub: $FASTVLM is not there; make builds it"
    echo "0 passed, 1 failed"
    exit 1
fi
if ! "$place/venv/bin/python" -c "import qai_hub, sys; sys.exit(qai_hub.__version__ != '$version')" 2>/dev/null; then
    if ! { python3 -m venv --clear "$place/venv" && "$place/venv/bin/pip" install -q qai-hub==$version; } >"$place/pip.log" 2>&1; then
        tail -n 3 "$place/pip.log"
        echo "test-hub: qai-hub $version cannot be installed"
        echo "0 passed, 1 failed"
        exit 1
    fi
fi
exec python3 -B tests/hub/service_cases.py "$@"
