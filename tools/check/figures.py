#!/usr/bin/env python3
"""Size and shape of the C source, a room at a time.

    tools/check/figures.py [TREE] [--static]

Prints for every room: files, lines, code lines, comment lines per code line, number of functions,
their length (median and 90th percentile, lines between the braces), lines over 100 columns. Below:
names of static functions that are defined in several files of src/ and cli/, so that neither grep
nor a backtrace tells them apart (--static: only these, and exit code 1 when there are any). Files of
src/kernels are versions of one another, an instruction level each: names may repeat among them."""
import collections
import os
import re
import sys

FUNCTION = re.compile(r"^(?!(?:struct|enum|union|typedef)\b)[A-Za-z_][^;{}=]*\)\s*(?:/\*.*\*/\s*)?$")
STATIC = re.compile(r"^static\b[^;=]*?\b([a-z_][a-z0-9_]*)\s*\(")
ATTRIBUTE = re.compile(r"__attribute__\(\((?:[^()]|\([^()]*\))*\)\)\s*")


def comment_mask(text):
    """Kind of every line: has code, has comment."""
    code, comment = set(), set()
    line, i, n = 0, 0, len(text)
    state = None
    while i < n:
        c, two = text[i], text[i:i + 2]
        if c == "\n":
            line += 1
            if state == "//":
                state = None
        elif state == "/*":
            if not c.isspace():
                comment.add(line)
            if two == "*/":
                state = None
                i += 1
        elif state == "//":
            comment.add(line)
        elif state in ('"', "'"):
            code.add(line)
            if c == "\\":
                if text[i + 1:i + 2] == "\n":
                    line += 1
                i += 1
            elif c == state:
                state = None
        elif two in ("/*", "//"):
            state = two
            comment.add(line)
            i += 1
        elif not c.isspace():
            code.add(line)
            if c in "\"'":
                state = c
        i += 1
    return code, comment


def functions(lines):
    """(first line, number of lines between the braces): a { or } in the first column."""
    start = None
    for i, line in enumerate(lines):
        if line.startswith("{"):
            start = i if i and re.search(r"\)\s*(/\*.*\*/)?\s*$", lines[i - 1]) else None
        elif line.startswith("}") and start is not None:
            yield start, i - start - 1
            start = None


def static_names(lines):
    """Names of the static functions that these lines define."""
    names = set()
    for start, _ in functions(lines):
        head = start - 1
        while head > 0 and not re.match(r"^[A-Za-z_]", lines[head]):
            head -= 1
        # a return type on a line of its own, or a parameter list that was wrapped
        match = STATIC.match(ATTRIBUTE.sub("", " ".join(line.strip() for line in lines[head:start])))
        if match:
            names.add(match.group(1))
    return names


def room_of(path):
    parts = path.split(os.sep)
    if parts[0] == "src":
        return "src/" + parts[1] if len(parts) > 2 else "src"
    return parts[0] + ("/" + parts[1] if parts[0] == "tests" and len(parts) > 2 else "")


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0


def c_files(tree, tops):
    for top in tops:
        for folder, _, names in sorted(os.walk(os.path.join(tree, top))):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(folder, name), tree)


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    only_static = "--static" in sys.argv
    tree = arguments[0] if arguments else os.path.join(os.path.dirname(__file__), "..", "..")
    rooms = collections.defaultdict(lambda: dict(files=0, lines=0, code=0, comment=0, wide=0, length=[]))
    where = collections.defaultdict(set)
    for path in c_files(tree, ("include", "src", "cli", "tests", "fuzz", "examples", "bench")):
        with open(os.path.join(tree, path), encoding="utf-8") as f:
            text = f.read()
        lines = text.splitlines()
        code, comment = comment_mask(text)
        for key in (room_of(path), "all of src and cli" if path.startswith(("src", "cli")) else None):
            if key:
                room = rooms[key]
                room["files"] += 1
                room["lines"] += len(lines)
                room["code"] += len(code)
                room["comment"] += len(comment - code)
                room["wide"] += sum(len(line) > 100 for line in lines)
                room["length"] += [n for _, n in functions(lines)]
        if path.startswith(("src", "cli")) and path.endswith(".c"):
            for name in static_names(lines):
                where[name].add(path)
    several = {name: files for name, files in where.items()
               if len(files) > 1 and any(not f.startswith("src/kernels/") for f in files)}
    if not only_static:
        print(f"{'room':<20} {'files':>5} {'lines':>6} {'code':>6} {'comment':>7} {'/code':>5} "
              f"{'funcs':>5} {'median':>6} {'p90':>4} {'>100':>5}")
        for key in sorted(rooms):
            r = rooms[key]
            print(f"{key:<20} {r['files']:>5} {r['lines']:>6} {r['code']:>6} {r['comment']:>7} "
                  f"{r['comment'] / max(1, r['code']):>5.2f} {len(r['length']):>5} "
                  f"{quantile(r['length'], 0.5):>6} {quantile(r['length'], 0.9):>4} {r['wide']:>5}")
        print(f"\nnames of static functions in several files of src/ and cli/: {len(several)}")
    for name in sorted(several):
        print(f"{name}: {' '.join(sorted(several[name]))}")
    return 1 if only_static and several else 0


if __name__ == "__main__":
    sys.exit(main())
