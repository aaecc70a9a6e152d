#!/usr/bin/env bash
# The checks of this folder refuse what they are for: each is run on a copy of the source with one
# thing broken, and must fail with a message that names it.
set -uo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

# A fresh copy of what the checks read.
fresh_copy()
{
    rm -rf "$work/tree"
    mkdir -p "$work/tree/tools"
    cp -R src cli include "$work/tree/"
    cp -R tools/check "$work/tree/tools/"
}

must_refuse() # TITLE WANTED_TEXT COMMAND...
{
    local title=$1 wanted=$2 out
    shift 2
    if out=$(cd "$work/tree" && "$@" 2>&1); then
        echo "refuses: $title: accepted"
        bad=1
    elif ! grep -qF "$wanted" <<<"$out"; then
        echo "refuses: $title: the message does not say \"$wanted\":"
        echo "$out"
        bad=1
    fi
}

fresh_copy
echo '#include "engine/session.h"' >>"$work/tree/src/base/mem.c"
touch "$work/tree/src/engine/session.h"
must_refuse "an include that points up" "base may not include engine" tools/check/includes.sh

for line in 'double number_of(const char *t) { return strtod(t, NULL); }' \
    'void text_of(char *t, double x) { snprintf(t, 9, "a" "%.*g", 3, x); }' \
    'int list_of(char *t, const char *f, va_list a) { return vsnprintf(t, 9, f, a); }'; do
    fresh_copy
    echo "$line" >>"$work/tree/src/base/mem.c"
    must_refuse "a number that follows the locale" "follows the host's locale" tools/check/numbers.py
done

fresh_copy
echo '#include "../engine/session.h"' >>"$work/tree/src/base/mem.c"
touch "$work/tree/src/engine/session.h"
must_refuse "an include around the rooms" "src/base/mem.c: \"../engine/session.h\"" tools/check/includes.sh

fresh_copy
echo 'void *f(void) { return malloc(1); }' >>"$work/tree/src/io/json.c"
must_refuse "memory past base/mem.c" "src/io/json.c" tools/check/includes.sh

fresh_copy
sed -i 's/^    uint64_t at;.*/    uint64_t inserted, at;/' "$work/tree/include/fastvlm.h"
python3 tools/check/abi.py --update --recorded "$work/tree/tools/check/abi" >/dev/null
must_refuse "a member that moved" "fv_error.at: offset" python3 tools/check/abi.py
must_refuse "a member that was added" "fv_error.inserted is new" python3 tools/check/abi.py

fresh_copy
sed -i 's/^    FV_ERR_IO,.*/    FV_ERR_INSERTED, FV_ERR_IO,/' "$work/tree/include/fastvlm.h"
python3 tools/check/abi.py --update --recorded "$work/tree/tools/check/abi" >/dev/null
must_refuse "a constant that changed" "FV_ERR_IO (fv_status): 3" python3 tools/check/abi.py

fresh_copy
printf '/* %098d */\n' 0 >>"$work/tree/src/base/mem.c"
must_refuse "a line of more than 100 columns" "src/base/mem.c:" python3 tools/check/columns.py src/base/mem.c

fresh_copy
for file in src/base/mem.c src/io/json.c; do
    printf 'static int refused_twice(void)\n{\n    return 0;\n}\n' >>"$work/tree/$file"
done
must_refuse "a static name in two files" "refused_twice: src/base/mem.c src/io/json.c" \
    python3 tools/check/figures.py --static

[ $bad -eq 0 ] && echo "refuses: every check fails on what it is for"
exit $bad
