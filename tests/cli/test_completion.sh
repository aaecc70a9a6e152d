#!/usr/bin/env bash
# Shell completion and man page, which both live on the program's --help. FASTVLM names the program.
set -uo pipefail
cd "$(dirname "$0")/../.."
bad=0

check() # NAME WANT GOT
{
    if [ "$2" = "$3" ]; then
        echo "[       OK ] $1"
    else
        printf 'wanted: %s\n   got: %s\n[  FAILED  ] %s\n' "$2" "$3" "$1"
        bad=1
    fi
}

. cli/completion/fastvlm.bash
compopt() { :; } # only works inside a real completion

complete_bash() # WORD...
{
    COMP_WORDS=("$FASTVLM" "$@")
    COMP_CWORD=$#
    _fastvlm
    echo "${COMPREPLY[*]}"
}

check bash_verb "run" "$(complete_bash ru)"
check bash_option "--max-new-tokens" "$(complete_bash run --max-n)"
check bash_choices "auto f32 bf16 f16 int8 npu:FILE" "$(complete_bash run --vision "")"
check bash_choice "pad" "$(complete_bash run --fit p)"
check bash_number "" "$(complete_bash run --threads "")"
check bash_folder "tests" "$(complete_bash info -m test)"
check bash_file "LICENSE" "$(complete_bash run LICEN)"
check bash_artefact "genie gguf" "$(complete_bash export g)"
check bash_artefact_option "--layout" "$(complete_bash export calib --lay)"
check bash_artefact_choices "nhwc nchw" "$(complete_bash export calib --layout "")"
check bash_artefact_folder "tests" "$(complete_bash export hf -o test)"
check bash_npu "setup socs" "$(complete_bash npu s)"
check bash_npu_option "--python" "$(complete_bash npu setup --py)"
check bash_qairt "context convert" "$(complete_bash qairt con | tr ' ' '\n' | sort | paste -sd ' ')"
check bash_qairt_option "--input-list" "$(complete_bash qairt convert --input-l)"
check bash_unknown_verb "" "$(complete_bash nonsense --x)"

# Every verb and every option that --help shows is in the man page, and nothing went wrong on the way. No
# line of help is wider than a terminal of 80 columns.
page=$(tools/man.sh "$FASTVLM")
for verb in $("$FASTVLM" --help | sed -n 's/^  \([a-z][a-z]*\)  .*/\1/p'); do
    n=$("$FASTVLM" "$verb" --help | sed -n '/^options:/,$p' | grep -cE '^ +(-., )?--[a-z-]+')
    got=$(printf '%s\n' "$page" | sed -n "/^\.SS $verb\$/,/^\.S[SH] /p" | grep -cE '^\.B .*\\-\\-')
    check "man_$verb" "$n" "$got"
    check "width_$verb" "" "$("$FASTVLM" "$verb" --help | awk 'length > 80')"
done
for artefact in $("$FASTVLM" export --help | sed -n '/^artefacts:/,/^$/s/^  \([a-z][a-z]*\)  .*/\1/p'); do
    n=$("$FASTVLM" export "$artefact" --help | sed -n '/^options:/,$p' | grep -cE '^ +(-., )?--[a-z-]+')
    got=$(printf '%s\n' "$page" | sed -n "/^\.SS export $artefact\$/,/^\.S[SH] /p" | grep -cE '^\.B .*\\-\\-')
    check "man_export_$artefact" "$n" "$got"
    check "width_export_$artefact" "" "$("$FASTVLM" export "$artefact" --help | awk 'length > 80')"
done
for verb in $("$FASTVLM" --help | sed -n 's/^  \([a-z][a-z]*\)  .*/\1/p'); do
    for command in $("$FASTVLM" "$verb" --help | sed -n '/^commands:/,/^$/s/^  \([a-z-][a-z-]*\)  .*/\1/p'); do
        n=$("$FASTVLM" "$verb" "$command" --help | sed -n '/^options:/,$p' | grep -cE '^ +(-., )?--[a-z-]+')
        got=$(printf '%s\n' "$page" | sed -n "/^\.SS $verb $command\$/,/^\.S[SH] /p" | grep -cE '^\.B .*\\-\\-')
        check "man_${verb}_$command" "$n" "$got"
        check "usage_${verb}_$command" "usage: fastvlm $verb $command" "$("$FASTVLM" "$verb" "$command" --help | head -n 1 | grep -o '^usage: fastvlm [a-z]* [a-z-]*')"
        check "width_${verb}_$command" "" "$("$FASTVLM" "$verb" "$command" --help | awk 'length > 80')"
    done
done
if command -v groff >/dev/null 2>&1; then
    check man_roff "" "$(printf '%s\n' "$page" | groff -man -Tutf8 -ww 2>&1 >/dev/null)"
fi

if command -v fish >/dev/null 2>&1; then
    mkdir -p build/fish && cp "$FASTVLM" build/fish/fastvlm
    fish_complete() { PATH=$PWD/build/fish:$PATH fish --no-config -c "source cli/completion/fastvlm.fish; complete -C '$1'" | cut -f 1 | tr '\n' ' '; }
    check fish_verb "run " "$(fish_complete 'fastvlm ru')"
    check fish_option "--max-new-tokens " "$(fish_complete 'fastvlm run --max-n')"
    check fish_artefact "genie gguf " "$(fish_complete 'fastvlm export g')"
    check fish_artefact_option "--layout " "$(fish_complete 'fastvlm export calib --lay')"
    check fish_choice "pad " "$(fish_complete 'fastvlm run --fit pa')"
    rm -r build/fish
fi
if command -v zsh >/dev/null 2>&1; then
    check zsh_syntax "" "$(zsh -n cli/completion/_fastvlm 2>&1)"
fi
exit $bad
