#!/usr/bin/env python3
"""Every relative link of the documents leads to a file, and every #fragment to a heading.

    tools/check/links.py"""
import os
import re
import subprocess
import sys


def anchors(path):
    """Fragments of a page's headings, as GitHub makes them."""
    with open(path, encoding="utf-8") as f:
        headings = re.findall(r"^#+ (.*)$", f.read(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def main():
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], check=True,
                           capture_output=True, text=True).stdout.split()
    wrong = n = 0
    for path in filter(os.path.exists, files):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        text = re.sub(r"^    .*$", "", text, flags=re.M)
        for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
            target = target[0] or target[1]
            if re.match(r"[a-z]+:", target):
                continue
            n += 1
            file, _, fragment = target.partition("#")
            file = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
            if not os.path.exists(file):
                print(f"{path}: {target} does not exist")
                wrong += 1
            elif fragment and file.endswith(".md") and fragment not in anchors(file):
                print(f"{path}: {target}: no such heading")
                wrong += 1
    if not wrong:
        print(f"links: {n} of {len(files)} documents, all lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
