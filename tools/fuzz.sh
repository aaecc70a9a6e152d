#!/usr/bin/env bash
# Runs every libFuzzer program in turn for FUZZ_SECONDS (60), starting from fuzz/corpus/. New inputs stay
# in build/fuzz/corpus, crashing ones in build/fuzz/found. Ends with a table.
#
#     FUZZ_SECONDS=600 tools/fuzz.sh [SURFACE...]      safetensors, image, ...; default: all
set -uo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
{ cmake --preset fuzz && cmake --build --preset fuzz; } >build/fuzz.log 2>&1 || { tail -n 40 build/fuzz.log; exit 1; }

surfaces=("$@")
if [ ${#surfaces[@]} -eq 0 ]; then
    for source in fuzz/fuzz_*.c; do
        [ -e "$source" ] || { echo "fuzz: no fuzz/fuzz_*.c"; exit 1; }
        surface=${source##*/fuzz_}
        surfaces+=("${surface%.c}")
    done
fi

bad=0
table=()
for surface in "${surfaces[@]}"; do
    work=build/fuzz/corpus/$surface found=build/fuzz/found/$surface log=build/fuzz/$surface.log
    mkdir -p "$work" "$found"
    printf '%-14s running %s s\n' "$surface" "$seconds" >&2
    verdict=clean
    # Our own limits keep every input far below 4 GB and 25 s.
    "build/fuzz/fuzz_$surface" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$found/" "$work" "fuzz/corpus/$surface" >"$log" 2>&1 || { verdict=FAILED; bad=1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    table+=("$(printf '%-14s %12s executions  %-11s peak %5s MB  %s' "$surface" "${runs:-?}" "${covered:-}" "${peak:-?}" "$verdict")")
    [ "$verdict" = clean ] || { tail -n 30 "$log"; ls "$found"; }
done
printf '%s\n' "${table[@]}"
exit $bad
