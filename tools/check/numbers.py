#!/usr/bin/env python3
"""Real numbers become text, and text real numbers, in src/base/number.c alone: anything else would follow
the locale that a host has set, with a decimal comma in a JSON file. So do letters in either case: in
Turkish, .TIF is not .tif.

    tools/check/numbers.py [FILE...]         default: all of src/

Refused: calls of strtod, strcasecmp, tolower, isalpha and the like, of vsnprintf (the format is not seen), and of snprintf or sscanf
whose format has a conversion of a real number."""
import glob
import os
import re
import sys

REAL = re.compile(r"%[-+ 0#]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?(?:l|L)?[aefgAEFG]")
CALL = re.compile(r"\b(snprintf|sprintf|fprintf|printf|sscanf|fscanf|asprintf|vsnprintf|vsprintf|vfprintf|vasprintf|"
                  r"strtod|strtof|strtold|strtod_l|atof|strcasecmp|strncasecmp|tolower|toupper|is(?:alnum|alpha|space|print|upper|lower))\s*\(")


def without_comments(text):
    keep = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|/\*.*?\*/|//[^\n]*", re.S)
    return keep.sub(lambda m: m[0] if m[0][0] in "\"'" else re.sub(r"[^\n]", " ", m[0]), text)


def call_at(text, begin):
    """The text of the call whose bracket opens at begin."""
    depth, quoted, at = 0, False, begin
    while at < len(text):
        c = text[at]
        if quoted:
            at += c == "\\"
            quoted = c != '"'
        elif c == '"':
            quoted = True
        elif c in "()":
            depth += 1 if c == "(" else -1
            if depth == 0:
                break
        at += 1
    return text[begin:at + 1]


def main():
    files = sys.argv[1:] or sorted(glob.glob("src/**/*.[ch]", recursive=True))
    wrong = 0
    for path in files:
        if path.endswith("base/number.c"):
            continue
        with open(path, encoding="utf-8") as f:
            text = without_comments(f.read())
        for found in CALL.finditer(text):
            name, call = found[1], call_at(text, found.end() - 1)
            literals = "".join(re.findall(r'"((?:\\.|[^"\\])*)"', call))
            if name.startswith(("v", "str", "ato", "to", "is")) or REAL.search(literals.replace("%%", "")):
                line = text.count("\n", 0, found.start()) + 1
                print(f"{path}:{line}: {name} follows the host's locale; use what base/number.h has")
                wrong += 1
    if not wrong:
        print(f"{len(files)} files: real numbers go through base/number.h")
    return wrong > 0


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    sys.exit(main())
