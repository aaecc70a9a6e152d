# fish completion for fastvlm. Verbs, options and their choices come from --help, so that this file
# knows nothing that could become wrong.

function __fastvlm_verbs
    fastvlm --help 2>/dev/null | string replace -rf '^  ([a-z]+)  +(.*)' '$1\t$2'
end

# Artefacts of "export", commands of "npu" and others; none for a verb without them.
function __fastvlm_parts
    fastvlm (commandline -opc)[2] --help 2>/dev/null | sed -nE '/^(artefacts|commands):/,/^$/p' | string replace -rf '^  ([a-z-]+)  +(.*)' '$1\t$2'
end

# The verb, and the part of one that has parts, each with options of its own.
function __fastvlm_verb
    set -l words (commandline -opc)
    if test (count $words) -gt 2; and test -n "$(__fastvlm_parts)"
        printf '%s\n' $words[2] $words[3]
    else
        echo $words[2]
    end
end

function __fastvlm_options
    fastvlm (__fastvlm_verb) --help 2>/dev/null | sed -n '/^options:/,$p' |
        string replace -rf '^ +(?:-., )?(--[a-z-]+)(?: \S+)?(?:  +(.*))?$' '$1\t$2'
end

# The choices of the option before the cursor: "--fit auto|pad|crop|stretch".
function __fastvlm_choices
    set -l words (commandline -opc)
    fastvlm (__fastvlm_verb) --help 2>/dev/null | string replace -rf -- "^ .*$words[-1] (\\S+\\|\\S+)(  .*)?\$" '$1' | string split '|'
end

complete -c fastvlm -n 'test (count (commandline -opc)) -eq 1' -f -a '(__fastvlm_verbs)'
complete -c fastvlm -n 'test (count (commandline -opc)) -eq 2; and test -n "$(__fastvlm_parts)"' -f -a '(__fastvlm_parts)'
complete -c fastvlm -n 'test (count (commandline -opc)) -gt 1; and string match -q -- "-*" (commandline -ct)' -f -a '(__fastvlm_options)'
complete -c fastvlm -n 'test (count (commandline -opc)) -gt 2; and test -n "(__fastvlm_choices)"' -a '(__fastvlm_choices)'
