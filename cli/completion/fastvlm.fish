# fish completion for fastvlm. Verbs, options and their choices come from --help, so that this file
# knows nothing that could become wrong.

function __fastvlm_verbs
    fastvlm --help 2>/dev/null | string replace -rf '^  ([a-z]+)  +(.*)' '$1\t$2'
end

function __fastvlm_options
    set -l verb (commandline -opc)[2]
    fastvlm $verb --help 2>/dev/null | string replace -rf '^ +(?:-., )?(--[a-z-]+)(?: \S+)?  +(.*)' '$1\t$2'
end

# The choices of the option before the cursor: "--fit auto|pad|crop|stretch".
function __fastvlm_choices
    set -l words (commandline -opc)
    fastvlm $words[2] --help 2>/dev/null | string replace -rf -- "^ .*$words[-1] (\\S+\\|\\S+)  .*" '$1' | string split '|'
end

complete -c fastvlm -n 'test (count (commandline -opc)) -eq 1' -f -a '(__fastvlm_verbs)'
complete -c fastvlm -n 'test (count (commandline -opc)) -gt 1; and string match -q -- "-*" (commandline -ct)' -f -a '(__fastvlm_options)'
complete -c fastvlm -n 'test (count (commandline -opc)) -gt 2; and test -n "(__fastvlm_choices)"' -a '(__fastvlm_choices)'
