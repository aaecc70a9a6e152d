#!/usr/bin/env bash
# Writes the man page from the program's own --help, so that the two cannot disagree. Part of the build.
#
#     tools/man.sh build/release/fastvlm >fastvlm.1
set -euo pipefail
program=${1:-build/release/fastvlm}

# Text as roff: backslashes and hyphens as themselves, no line taken for a request.
escape()
{
    sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\([.']\)/\\\\\&\1/"
}

verbs=$("$program" --help | sed -n 's/^  \([a-z][a-z]*\)  .*/\1/p' | grep -v '^fastvlm$')
# One page part for every verb, and one for every artefact or command of a verb behind it.
parts=$(for verb in $verbs; do
    echo "$verb"
    "$program" "$verb" --help | sed -nE "/^(artefacts|commands):/,/^\$/s/^  ([a-z-]+)  .*/$verb \\1/p"
done)
version=$("$program" --version | head -n 1 | grep -oE '[0-9]+\.[0-9]+\.[0-9]+')

cat <<END
.\\" Written by tools/man.sh from the program's own --help.
.TH FASTVLM 1 "" "fastvlm $version" "User Commands"
.SH NAME
fastvlm \\- run Apple's FastVLM vision\\-language models on CPUs
.SH SYNOPSIS
END
while read -r part; do
    ! grep -q "^$part " <<<"$parts" || continue # its parts have lines of their own
    synopsis=$("$program" $part --help | sed -n '/^$/q; s/^usage: //; s/^ *//; p' | tr '\n' ' ' | sed 's/ *$//')
    printf '.B fastvlm %s\n%s\n.br\n' "$(escape <<<"$part")" "$(escape <<<"${synopsis#"fastvlm $part "}")"
done <<<"$parts"
cat <<'END'
.SH DESCRIPTION
.B fastvlm
answers questions about images with a FastVLM model, on the CPU alone. A model is a checkpoint directory as
published (Hugging Face layouts llava_qwen2 and fast_vlm) or the single file that
.B fastvlm pack
makes of one. Without a model, run, chat, serve, info and bench use the small demonstration model that is part of the
program, which knows only drawn shapes and printed words;
.B fastvlm pull
fetches a real one.
.PP
Answers go to standard output, everything else to standard error. In a terminal, control characters in what is
printed are shown, not obeyed; pipes and files get the bytes as they are.
.SH COMMANDS
END
while read -r part; do
    echo ".SS $part"
    "$program" $part --help | escape | awk '
        /^usage: /    { next }
        /^(options|artefacts|commands):$/ { part = "options"; print ".PP"; next }
        /^example:$/  { part = "example"; print ".PP\nExample:\n.PP\n.nf\n.RS"; next }
        part == "" && /^$/ { if (said) blank = 1; next }
        part == ""    { if (blank) print ".PP"; blank = 0; said = 1; print; next }
        part == "options" && /^  / {
            line = substr($0, 3)
            continued = line ~ /^          /
            sub(/^ +/, "", line)
            if (continued) { print line; next }
            n = match(line, /   *[^ ]/)
            name = n ? substr(line, 1, n - 1) : line
            help = n ? substr(line, n) : ""
            sub(/^ +/, "", help)
            printf ".TP\n.B %s\n", name
            if (help != "") print help
        }
        part == "example" && /[^ ]/ { sub(/^  /, ""); print }
        END { if (part == "example") print ".RE\n.fi" }'
done <<<"$parts"
cat <<'END'
.SH EXIT STATUS
.TP
.B 0
success
.TP
.B 1
failure; a message on standard error says what was found and what was expected
.TP
.B 2
wrong usage: an argument is unknown, missing, contradictory or out of range, or a bare word is no file
.SH SIGNALS
Ctrl\-C (SIGINT) and SIGTERM stop what is being written and leave nothing of it; a download can be resumed. A second
one ends the program at once, without clearing up: the next run with the same output removes what it left behind.
.SH ENVIRONMENT
.TP
.B FV_CPU
lowers the instruction level in use: ref, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx on x86\-64; ref, neon,
dotprod, fp16, bf16, i8mm on 64\-bit Arm. A name stands for that level and all below it.
.TP
.B FV_BF16
fast or slow: whether bf16 counts as faster than f32, which decides what runs where no precision is named. Without it
this is known for some processors and measured on others;
.B fastvlm doctor
says which
.TP
.B TERM
unset or dumb: no progress lines and no line editing
.TP
.B HF_TOKEN
access token for gated and private repositories;
.B fastvlm pull
sends it to the hub and to no other host
.TP
.B HF_ENDPOINT
address of the hub or of a mirror (default https://huggingface.co)
.TP
.B SSL_CERT_FILE
PEM file of certificates to trust instead of the system's.
.TP
.B FV_QNN_DIR
directory of Qualcomm's QNN libraries for
.B fastvlm npu
.TP
.B QNN_SDK_ROOT
Qualcomm's SDK, whose libraries are used when FV_QNN_DIR is not set, and whose tools
.B fastvlm qairt
and
.B fastvlm genie
run; QAIRT_SDK_ROOT is looked at when it is not set
.TP
.B QAIHUB_CLIENT_INI
configuration of the AI Hub's client, with the API token, for
.B fastvlm hub
(default ~/.qai_hub/client.ini)
.TP
.B VIRTUAL_ENV
the Python environment in which the SDK's converters run
.TP
.B ANDROID_NDK_ROOT
the NDK, with which
.B fastvlm qairt lib
builds a library for the phone
.TP
.B ANDROID_SERIAL
the phone that
.B fastvlm device
uses
.TP
.B FASTVLM_PHONE_PROGRAM
the program that
.B fastvlm device
sends to the phone
.TP
.B SKIP_PUSH
1: as \-\-skip\-push of
.B fastvlm device run
.PP
Proxies are taken from libcurl's variables: https_proxy, no_proxy
END
