#!/usr/bin/env bash
# The shared library exports names that begin with fv_ and nothing else, and exactly those that the
# public headers declare. The static one beside it defines more, but none without fv_: a program may
# have anything else.
#
#     tools/check/symbols.sh build/release/libfastvlm.so [HEADER...]      default: all of include/
set -uo pipefail
cd "$(dirname "$0")/../.."
library=${1:-build/release/libfastvlm.so}
[ $# -gt 0 ] && shift
headers=("$@")
[ ${#headers[@]} -eq 0 ] && headers=(include/*.h)
bad=0

exported=$(nm -D --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
declared=$(cat "${headers[@]}" | tr '\n' ' ' | grep -oE 'FV_API[^;]*;' | sed -nE 's/^FV_API[^(]*[ *](fv_[a-z0-9_]+)\(.*/\1/p' | sort -u)

foreign=$(echo "$exported" | grep -v '^fv_' || true)
[ -z "$foreign" ] || { echo "$library exports: $foreign"; bad=1; }
extra=$(comm -23 <(echo "$exported" | grep '^fv_') <(echo "$declared"))
[ -z "$extra" ] || { echo "$library exports, but no header in include/ declares:" $extra; bad=1; }
absent=$(comm -13 <(echo "$exported") <(echo "$declared"))
[ -z "$absent" ] || { echo "include/ declares, but $library lacks:" $absent; bad=1; }

archive=${library%.so}.a
if [ -e "$archive" ]; then
    foreign=$(nm -g --defined-only "$archive" | awk 'NF == 3 && $3 !~ /^fv_/ { print $3 }' | sort -u)
    [ -z "$foreign" ] || { echo "$archive defines:" $(head -n 5 <<<"$foreign") "..."; bad=1; }
fi

[ $bad -eq 0 ] && echo "symbols: $(echo "$exported" | wc -l) exported, as declared"
exit $bad
