# bash completion for fastvlm. Verbs, options and their choices come from --help, so that this file
# contains nothing that could become wrong.

_fastvlm_paths() # -f|-d WORD
{
    local IFS=$'\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen "$1" -- "$2"))
}

_fastvlm()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local program=${COMP_WORDS[0]} help value
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\)  .*/\1/p') --help --version" -- "$word"))
        return
    fi
    # A verb with verbs of its own ("export" has artefacts, "npu" and others commands), each of which
    # has options of its own.
    local parts=$("$program" "$verb" --help 2>/dev/null | sed -nE '/^(artefacts|commands):/,/^$/s/^  ([a-z-]+)  .*/\1/p')
    if [ -n "$parts" ] && [ "$COMP_CWORD" -eq 2 ]; then
        COMPREPLY=($(compgen -W "$parts $([ "$verb" != export ] || echo --all)" -- "$word"))
        return
    fi
    if [ -n "$parts" ]; then
        help=$("$program" "$verb" "${COMP_WORDS[2]}" --help 2>/dev/null | sed -n '/^options:/,$p')
    else
        help=$("$program" "$verb" --help 2>/dev/null | sed -n '/^options:/,$p')
    fi
    # The value of an option: its choices, or a file. "  -t, --threads N   help" is one
    # option; the help of a long one is on the next line.
    if [[ $before == -* ]]; then
        value=$(printf '%s\n' "$help" | sed -n 's/^  \(-.\), \(--[a-z-]*\) \([^ ][^ ]*\)\(  .*\)*$/\1 \2 \3/p; s/^ *\(--[a-z-]*\) \([^ ][^ ]*\)\(  .*\)*$/\1 \1 \2/p' |
            awk -v o="$before" '$1 == o || $2 == o { print $3; exit }')
        case $value in
        *'|'*) COMPREPLY=($(compgen -W "${value//|/ }" -- "$word")); return ;;
        DIR) _fastvlm_paths -d "$word"; return ;;
        FILE) _fastvlm_paths -f "$word"; return ;;
        ?*) return ;;
        esac
    fi
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$(printf '%s\n' "$help" | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+')" -- "$word"))
    else
        _fastvlm_paths -f "$word"
    fi
}
complete -F _fastvlm fastvlm
