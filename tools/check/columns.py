#!/usr/bin/env python3
"""No line is longer than 100 columns in C and in the prose of documents. In documents tables,
indented or fenced blocks, images and lines that a link or path makes long are exceptions.

    tools/check/columns.py [FILE...]        default: every .c, .h and .md that git knows"""
import re
import subprocess
import sys

LIMIT = 100


def long_lines(path):
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    prose, fenced = path.endswith(".md"), False
    for number, line in enumerate(lines, 1):
        if prose and line.startswith("```"):
            fenced = not fenced
        if len(line) <= LIMIT:
            continue
        if prose:
            if fenced or line.startswith(("    ", "|", "![", "<!--")):
                continue
            # one word that cannot be broken: the rest of the line is within the limit
            longest = max(re.findall(r"`[^`]*`|\[[^\]]*\]\([^)]*\)\S*|\S+", line), key=len)
            if len(line) - len(longest) <= LIMIT // 2:
                continue
        yield number, len(line)


def main():
    files = sys.argv[1:] or subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                                            "*.c", "*.h", "*.md"], check=True, capture_output=True,
                                           text=True).stdout.split("\n")
    wrong = 0
    for path in filter(None, files):
        try:
            for number, length in long_lines(path):
                print(f"{path}:{number}: {length} columns")
                wrong += 1
        except FileNotFoundError:
            pass  # deleted, not yet committed
    if not wrong:
        print(f"columns: {len(files)} files, no line over {LIMIT}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
