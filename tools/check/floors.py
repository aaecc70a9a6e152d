#!/usr/bin/env python3
"""The compiler refuses what src/floors.txt does not allow.

    tools/check/floors.py [BUILD_FOLDER]        default: build/gcc or build/dev, configured

For every room, a file that includes one header of another room is compiled with the flags that the
build gives the room's own files: the header must be found if the floor is allowed, and only then.
Programs (cli) must not find any room at all."""
import concurrent.futures
import json
import os
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def floors():
    """Room -> rooms it may include, from below."""
    table = {}
    with open(os.path.join(ROOT, "src", "floors.txt"), encoding="utf-8") as f:
        for line in f:
            if line[:1].isalpha():
                room, below = line.split(":", 1)
                table[room] = below.split()
    return table


def header_of(room):
    """A header to include; every room has one, or nobody could use it."""
    folder = os.path.join(ROOT, "src", room)
    names = sorted(n for n in os.listdir(folder) if n.endswith(".h")) if os.path.isdir(folder) else []
    return f"{room}/{names[0]}" if names else None


def flags_of(entries, folder):
    """Compiler and flags of one file of src/ROOM or cli, without its input and output."""
    for entry in entries:
        if os.path.dirname(os.path.realpath(entry["file"])) != os.path.join(ROOT, folder):
            continue
        words = entry.get("arguments") or shlex.split(entry["command"])
        words = words[1:] if os.path.basename(words[0]) in ("ccache", "sccache") else words
        kept, skip = [], False
        for word in words:
            if skip or word in ("-c", entry["file"]):
                skip = False
            elif word in ("-o", "-MF", "-MT", "-MQ"):
                skip = True
            else:
                kept.append(word)
        return kept, entry["directory"]
    return None


def compile_include(flags, header):
    """(compiles, what the compiler said) for a file with this include alone."""
    words, directory = flags
    # In a directory of its own: what lies beside a file is found as well.
    with tempfile.TemporaryDirectory() as alone, open(os.path.join(alone, "alone.c"), "w", encoding="utf-8") as f:
        f.write(f'#include "{header}"\nextern int unused;\n')
        f.flush()
        run = subprocess.run(words + ["-fsyntax-only", f.name], cwd=directory, capture_output=True, text=True,
                             env=dict(os.environ, LC_ALL="C"))
    return run.returncode == 0, run.stderr


def main():
    builds = sys.argv[1:] or [os.path.join(ROOT, "build", b) for b in ("gcc", "dev")]
    build = next((b for b in builds if os.path.exists(os.path.join(b, "compile_commands.json"))), None)
    if not build:
        sys.exit(f"floors: no compile_commands.json in {' or '.join(builds)}: configure one first")
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        entries = json.load(f)
    table = floors()
    cases, wrong = [], []
    for room in [*table, "cli"]:
        flags = flags_of(entries, room if room == "cli" else os.path.join("src", room))
        if not flags:
            if room == "cli" or os.path.isdir(os.path.join(ROOT, "src", room)):
                wrong.append(f"no file of {room} is in {build}/compile_commands.json")
            continue
        for other in table:
            if other != room and header_of(other):
                cases.append((room, other, other in table.get(room, []), flags))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda case: compile_include(case[3], header_of(case[1])), cases))
    refused = 0
    for (room, other, allowed, _), (compiles, said) in zip(cases, results):
        header = header_of(other)
        hidden = header + ": No such file" in said or f"'{header}' file not found" in said
        if allowed and hidden:
            wrong.append(f"{room} may include {header}, but the build hides it:\n{said.strip()}")
        elif not allowed and compiles:
            wrong.append(f"{room} may not include {header}, but the compiler accepts it")
        elif not allowed and not hidden:
            wrong.append(f"{room} may not include {header}; the compiler refuses it for another reason:\n{said.strip()}")
        refused += not allowed
    for line in wrong:
        print(line)
    if not wrong:
        print(f"floors: {refused} includes that point up or sideways refused, {len(cases) - refused} allowed ones found")
    return 1 if wrong or not refused else 0


if __name__ == "__main__":
    sys.exit(main())
