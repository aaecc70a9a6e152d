#!/bin/bash
# The program under C, de_DE.UTF-8 (a decimal comma) and tr_TR.UTF-8: every result is the same bytes.
. "$(dirname "$0")/cases.sh"
cd "$work"

# Locales of the system, or made for this test; where that fails, so does the test.
if ! locale -a 2>/dev/null | grep -qix 'de_DE.utf-\?8' || ! locale -a | grep -qix 'tr_TR.utf-\?8'; then
    mkdir locales
    for language in de_DE tr_TR; do
        localedef --no-archive -i $language -f UTF-8 "$work/locales/$language.UTF-8" 2>err || {
            echo "FAILED: localedef cannot make $language.UTF-8 ($(head -n 1 err)); install the package locales"
            echo "0 passed, 1 failed"
            exit 1
        }
    done
    export LOCPATH=$work/locales
fi
code=0 out=$(LC_ALL=de_DE.UTF-8 bash -c 'printf %.1f 0,5' 2>&1) err=
check "the locale has a decimal comma" test "$out" = 0,5

# What is compared: files in ./made, standard output and standard error, times left out.
everything() {
    rm -rf made
    mkdir made
    {
        run pack "$tiny" "$picture" -o made/packed.gguf --vision int8 --decoder q4 --max-images 1 --min-cosine 0.25
        echo "$code"; sed -E 's/[0-9.,]+ m?s\b/TIME/g' <<<"$out$err"
        run info made/packed.gguf --tensors
        echo "$code"; echo "$out$err"
        run info made/packed.gguf --json
        echo "$code"; echo "$out$err"
        run eval "$tiny" made/packed.gguf "$picture" --json --svg made/plot.svg -q
        echo "$code"; sed '/_ms"\|"ms"/d' <<<"$out$err"
        run eval "$tiny" made/packed.gguf "$picture"
        echo "$code"; sed -E 's/[0-9.,]+ m?s\b/TIME/g' <<<"$out$err"
        run export --all "$base" -o made/all --calib "$picture"
        echo "$code"; echo "$out$err"
        run run "$tiny" "$picture" "What do you see?" -n 8 --temperature 0.7 --top-p 0.9 --seed 3 --json -q --dump made/dump
        echo "$code"; grep -vE '"(load|image|preprocess|vision|projector|prefill|first_token|decode|total|peak.*)":' <<<"$out$err"
        run run "$tiny" "$picture" x --temperature -1.5
        echo "$code"; echo "$out$err"
        run run "$tiny" "$picture" x --temperature 0,5
        echo "$code"; echo "$out$err"
        run verify made/packed.gguf
        echo "$code"; echo "$out$err"
    } >made/said
}

for name in C de_DE.UTF-8 tr_TR.UTF-8; do
    LC_ALL=$name everything
    mv made "$name"
done
check "everything was written" test "$(find C -type f | wc -l)" -gt 60
for name in de_DE.UTF-8 tr_TR.UTF-8; do
    code=0 out=$(diff -rq C $name; diff C/said $name/said) err=
    check "$name: the same bytes" test -z "$out"
done
finish
