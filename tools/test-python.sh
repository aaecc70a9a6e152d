#!/usr/bin/env bash
# make test-python: the wheel, installed by pip without anything else into bare environments of the
# Pythons that are here, and tests/python in each: alone, then with numpy, Pillow and llguidance; a type
# checker; the notebooks of examples/. Makes the wheel, unless WHEEL names one.
#
#     tools/test-python.sh [PYTHON...]      default: python3.9 to python3.15 and python3, where they run
#     tools/test-python.sh arm              the wheel for 64-bit Arm, with an Arm Python, under qemu
#     tools/test-python.sh notebooks        these only, with build/release/libfastvlm.so, or FASTVLM_LIBRARY
#
# The last line is "N passed, N failed". Needs the Python package index.
set -uo pipefail
cd "$(dirname "$0")/.."

place=$PWD/build/python
passed=0 failed=0
tests=(test_package.py)
library=${FASTVLM_LIBRARY:-build/release/libfastvlm.so}
mkdir -p "$place"
unset PYTHONPATH FASTVLM_LIBRARY

fail() # MESSAGE
{
    echo "test-python: $1"
    failed=$((failed + 1))
}

end()
{
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

# Every Python once, by version: names on the path, and pyenv's.
pythons()
{
    local python version seen=" "
    for python in python3.{9,10,11,12,13,14,15} python3.{13,14,15}t "$HOME"/.pyenv/versions/3.*/bin/python python3; do
        version=$("$python" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))
assert sys.version_info >= (3, 9)' 2>/dev/null) || continue
        [[ $seen == *" $version "* ]] && continue
        seen+="$version "
        echo "$python"
    done
}

# Runs the tests of an environment and adds up their count.
run_tests() # TITLE PYTHON [VARIABLE=VALUE...]
{
    local title=$1 python=$2 sum
    shift 2
    echo "== $title"
    (cd "$place" && env "$@" "$python" -B "$OLDPWD/tests/python/run.py" "${tests[@]}") >"$place/tests.log" 2>&1
    sum=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$place/tests.log" | tail -n 1)
    [ -n "$sum" ] && [ "${sum##*, }" = "0 failed" ] || cat "$place/tests.log"
    echo "   ${sum:-no count}"
    set -- ${sum:-0 passed, 1 failed}
    passed=$((passed + $1)) failed=$((failed + $3))
}

# Where pip says which wheels that Python would take, it unpacks it; running pip under qemu would only
# take longer.
test_arm()
{
    local sysroot=$PWD/build/sysroot-arm64 wheel=${WHEEL:-} package=$place/arm tools=$PWD/build/wheel-tools
    tools/setup.sh build arm && tools/sysroot-arm64.sh || { fail "no libraries for 64-bit Arm"; return; }
    if [ -z "$wheel" ]; then
        tools/wheel.sh aarch64 || { fail "the wheel cannot be built"; return; }
        wheel=$(ls build/wheels/fastvlm-*_aarch64.whl)
    fi
    rm -rf "$package"
    "$tools/bin/pip" install -q --no-index --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 \
        --python-version 3.11 --target "$package" "$wheel" >"$place/pip.log" 2>&1 || {
        cat "$place/pip.log"
        fail "pip does not take $wheel for Python 3.11 on aarch64"
        return
    }
    cat >"$place/python-arm" <<END
#!/bin/sh
exec qemu-aarch64 -L "$sysroot" "$sysroot/usr/bin/python3.11" "\$@"
END
    chmod +x "$place/python-arm"
    tests=(test_package.py::Questions test_package.py::Sessions test_package.py::Features) # emulated: the quick ones
    run_tests "Python 3.11 on an emulated processor" "$place/python-arm" QEMU_CPU=max PYTHONPATH="$package" \
        FASTVLM_TEST_EMULATOR="$place/python-arm"
    qemu-aarch64 -L "$sysroot" "$package/fastvlm/bin/fastvlm" run -q examples/images/sign.png \
        "What does the text say?" 2>&1 | grep -qx HELLO && passed=$((passed + 1)) || fail "the program does not answer"
}

# The examples' notebooks print what they hold.
notebooks() # PYTHON
{
    echo "== notebooks"
    "$1" -m pip install -q nbclient nbformat ipykernel numpy llguidance >"$place/pip.log" 2>&1 || { fail "what notebooks need cannot be installed"; return; }
    "$1" -B tests/python/notebooks.py >"$place/notebooks.log" 2>&1 &&
        passed=$((passed + 1)) || { cat "$place/notebooks.log"; fail "notebooks"; }
}

# As a wheel unpacks, but with the library of this build.
test_notebooks()
{
    local package=$place/package venv=$place/venv-notebooks
    rm -rf "$package"
    { mkdir -p "$package" && cp -r bindings/python/src/fastvlm "$package" && mkdir -p "$package"/fastvlm/{lib,models} &&
        cp "$library" "$package/fastvlm/lib/libfastvlm.so" && cp models/demo/demo.gguf "$package/fastvlm/models" &&
        { [ -e "$venv/bin/pip" ] || python3 -m venv "$venv"; }; } || { fail "$library cannot be made a package"; return; }
    export PYTHONPATH=$package
    notebooks "$venv/bin/python"
}

case ${1:-} in
arm) test_arm; end ;;
notebooks) test_notebooks; end ;;
esac
wheel=${WHEEL:-}
if [ -z "$wheel" ]; then
    tools/wheel.sh x86_64 || { fail "the wheel cannot be built"; end; }
    wheel=$(ls build/wheels/fastvlm-*_x86_64.whl)
fi
[ $# -gt 0 ] || mapfile -t all < <(pythons)
[ $# -gt 0 ] && all=("$@")
[ ${#all[@]} -gt 0 ] || { fail "no Python 3.9 or later with venv"; end; }

for python in "${all[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))')
    venv=$place/venv-$version
    { "$python" -m venv --clear "$venv" && "$venv/bin/pip" install -q --no-index "$wheel"; } >"$place/pip.log" 2>&1 || {
        cat "$place/pip.log"
        fail "Python $version: pip cannot install $wheel"
        continue
    }
    run_tests "Python $version, nothing but the wheel" "$venv/bin/python"
    "$venv/bin/fastvlm" run -q examples/images/sign.png "What does the text say?" 2>&1 | grep -qx HELLO &&
        passed=$((passed + 1)) || fail "Python $version: the program in bin does not answer"
    if [[ $version == *t ]]; then # no wheel of llguidance for these; packages may switch the GIL on
        "$venv/bin/pip" install -q numpy pillow >"$place/pip.log" 2>&1 || fail "Python $version: no numpy and Pillow"
        run_tests "Python $version with numpy, Pillow, without the GIL" "$venv/bin/python" PYTHON_GIL=0
    elif "$venv/bin/pip" install -q numpy pillow llguidance >"$place/pip.log" 2>&1; then
        run_tests "Python $version with numpy, Pillow, llguidance" "$venv/bin/python" FASTVLM_NO_SKIP=1
        whole=$venv
    else
        tail -n 3 "$place/pip.log"
        fail "Python $version: numpy, Pillow and llguidance cannot be installed"
    fi
done

echo "== types"
if "$venv/bin/pip" install -q mypy typing_extensions >"$place/pip.log" 2>&1; then
    { (cd "$place" && MYPYPATH= "$venv/bin/python" -m mypy --strict -p fastvlm) &&
        "$venv/bin/python" -m mypy --strict tests/python/typed.py; } >"$place/mypy.log" 2>&1 &&
        passed=$((passed + 1)) || { cat "$place/mypy.log"; fail "types"; }
else
    fail "mypy cannot be installed"
fi

notebooks "${whole:-$venv}/bin/python"
end
