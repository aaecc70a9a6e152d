#!/usr/bin/env bash
# make test-cluster: the recipes of examples/cluster, run on this machine with Ray and PySpark from the
# Python package index, the distribution's Slurm and the wheel; a worker of each is killed in the middle
# (tests/cluster/cases.py).
#
#     tools/test-cluster.sh [CASE...]      ray spark slurm kubernetes
#
# The last line is "N passed, N failed". Makes the wheel, unless WHEEL names one.
set -uo pipefail
cd "$(dirname "$0")/.."

place=$PWD/build/cluster
wheel=${WHEEL:-}
packages=('ray[data]==2.60.0' 'pyspark==3.5.*' pandas pyarrow setuptools pyyaml kubernetes-validate)
mkdir -p "$place"
unset PYTHONPATH FASTVLM_LIBRARY

give_up() # MESSAGE
{
    echo "test-cluster: $1"
    echo "0 passed, 1 failed"
    exit 1
}

if [ -z "$wheel" ]; then
    tools/wheel.sh "$(uname -m)" || give_up "the wheel cannot be built"
    wheel=$(ls build/wheels/fastvlm-*"_$(uname -m).whl")
fi
if [ $# -eq 0 ] || [[ " $* " == *" slurm "* || " $* " == *" spark "* ]]; then
    tools/setup.sh cluster || give_up "Slurm and Java cannot be installed"
fi
if [ "$(cat "$place/.complete" 2>/dev/null)" != "${packages[*]}" ]; then
    { python3 -m venv --clear "$place/venv" && "$place/venv/bin/pip" install -q "${packages[@]}"; } >"$place/pip.log" 2>&1 ||
        { tail -n 3 "$place/pip.log"; give_up "Ray and PySpark cannot be installed"; }
    echo "${packages[*]}" >"$place/.complete"
fi
"$place/venv/bin/pip" install -q --no-index --force-reinstall "$wheel" >"$place/pip.log" 2>&1 || give_up "$wheel cannot be installed"
exec "$place/venv/bin/python" -B tests/cluster/cases.py "$@"
