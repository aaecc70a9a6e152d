"""Repetitions that count only when nothing else ran. Imported by the *_peers.py programs and run.py.

reps(f, want, limit)  calls f until `want` calls saw other processes use less than MAX core (0.12; environment QUIET_MAX), or `limit` seconds are over;
                      -> (results of the quiet calls, or of the two quietest when there were none, note)
record(path, ...)     appends one JSON line, if path is given: what run.py builds its table from
machine(path, n)      -> 'fp32 .. bf16 .. int8 .. GOP/s read .. GB/s' from `roofline n quick`, retried until quiet
"""
import json
import os
import re
import resource
import statistics
import subprocess
import time

PEAKS = {"fp32": "fp32 fma avx512", "bf16": "bf16 vdpbf16ps", "int8": "int8 vpdpbusd", "read": r"read \d+ MiB/thread"}
HZ = os.sysconf("SC_CLK_TCK")
MAX = float(os.environ.get("QUIET_MAX", "0.12"))


def busy():
    with open("/proc/stat") as f:
        v = list(map(int, f.readline().split()[1:]))
    return (v[0] + v[1] + v[2] + v[5] + v[6]) / HZ


def own():
    a, b = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return a.ru_utime + a.ru_stime + b.ru_utime + b.ru_stime


def others(f):
    b, o, t = busy(), own(), time.time()
    r = f()
    w = time.time() - t
    return r, max(0.0, (busy() - b) - (own() - o)) / max(w, 1e-3), w


def wait(limit):
    t = time.time()
    while time.time() - t < limit:
        if others(lambda: time.sleep(1))[1] < MAX:
            return


def reps(f, want, limit=240.0):
    t, got, all_ = time.time(), [], []
    while len(got) < want and time.time() - t < limit:
        wait(limit - (time.time() - t))
        r, o, _ = others(f)
        all_.append((o, r))
        if o < MAX:
            got.append(r)
    if got:
        return got, "%d quiet of %d" % (len(got), len(all_))
    all_.sort(key=lambda x: x[0])
    return [r for _, r in all_[:2]], "NOT QUIET: others %.2f core" % all_[0][0]


def record(path, stage, seconds, tokens=None, **more):
    if not path:
        return
    r = {"stage": stage, "best_ms": min(seconds) * 1e3, "median_ms": statistics.median(seconds) * 1e3, "reps": len(seconds), **more}
    if tokens:
        r.update(tokens=tokens, tokens_per_second=tokens / statistics.median(seconds))
    with open(path, "a") as f:
        f.write(json.dumps(r) + "\n")


def machine(path, threads=2, limit=120.0):
    def f():
        return subprocess.run([path, str(threads), "quick"], stdout=subprocess.PIPE, text=True).stdout
    got, note = reps(f, 1, limit)
    v = [float(re.search(k + r"\s+([\d.]+) G", got[0]).group(1)) for k in PEAKS.values()]
    return "fp32 %.0f bf16 %.0f int8 %.0f GOP/s read %.1f GB/s" % tuple(v) + ("" if "NOT" not in note else " (" + note + ")")
