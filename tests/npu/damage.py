#!/usr/bin/env python3
"""Damaged context binaries through fastvlm npu info: an answer or one message, and never its own crash.

  damage.py PROGRAM QNN_DIR BINARY N

Cuts, flips and overwrites the binary N times, always in the same way. Qualcomm's reader may die of it, in its child
process: that is a message like any other. Exit code 1 when the program dies or says nothing.
"""
import collections
import os
import random
import subprocess
import sys
import tempfile

PROGRAM, QNN, BINARY, N = sys.argv[1:5]
random.seed(7)


def damaged(data, kind):
    data = bytearray(data)
    if kind == 0:
        return data[: random.randrange(1, len(data))]
    if kind == 1:  # where the description is
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(min(4096, len(data)))] = random.randrange(256)
    elif kind == 2:
        for _ in range(random.randrange(1, 30)):
            data[random.randrange(len(data))] = random.randrange(256)
    else:
        at, n = random.randrange(min(3000, len(data))), random.randrange(1, 64)
        data[at : at + n] = bytes([random.choice([0, 255])]) * n
    return data


with open(BINARY, "rb") as f:
    whole = f.read()
seen, bad = collections.Counter(), []
with tempfile.TemporaryDirectory() as work:
    path = os.path.join(work, "damaged.bin")
    for i in range(int(N)):
        with open(path, "wb") as f:
            f.write(damaged(whole, i % 4))
        done = subprocess.run([PROGRAM, "npu", "info", path, "--qnn", QNN], capture_output=True, timeout=300)
        said = done.stderr.decode(errors="replace")
        if done.returncode not in (0, 1) or (done.returncode == 1) != (said.count("\n") == 1):
            bad.append("%d: exit code %d: %s" % (i, done.returncode, said))
        seen["read" if done.returncode == 0 else "Qualcomm's reader died" if "ended with signal" in said else "refused"] += 1
print("  " + ", ".join("%d %s" % (n, what) for what, n in sorted(seen.items())))
for line in bad:
    print(line)
sys.exit(bool(bad))
