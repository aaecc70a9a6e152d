#!/usr/bin/env python3
"""How the engine scales on this machine: curves, the law that each follows, memory beside it.

  python3 bench/scaling.py MODEL [LARGER_MODEL...] [--out DIR] [--reps N] [--only LIST] [--fastvlm PROGRAM]

The first model is measured over threads, image sizes, prompt lengths, contexts and sessions; every
model gives one point of the last curve, the time of a token against the bytes of its weights. Writes
DIR/scaling.json, .md and .svg (default build/scaling). About ten minutes for a 0.5B on two cores.
Points during which other programs used more than 0.12 core are marked with a star. --draw makes
table and picture again from scaling.json.
"""
import argparse
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers"))
import quietly  # noqa: E402

SIZES = (256, 512, 768, 1024, 1280, 1536)
PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
CONTEXTS = (256, 1024, 2048, 4096, 8192, 16384, 32000)
SESSIONS = (1, 2, 4, 8)

# name: title, x axis, y axis, exponents of x in the law
CURVES = {
    "threads": ("Threads", "threads", "ms, image", (-1, 0)),
    "image": ("Image size", "side of the image, pixels", "ms, image", (2, 4)),
    "prompt": ("Prompt", "tokens of the prompt", "ms", (1, 2)),
    "context": ("A token in a long context", "rows in the KV cache", "ms a token", (0, 1)),
    "sessions": ("A token each for several sessions", "sessions", "ms a call", (0, 1)),
    "weights": ("A token of larger models", "GB that a token reads", "ms a token", (1,)),
}


last = {}  # the newest report


def bench(a, model, *more):
    """fastvlm bench's report on one model, its stages by name, `others`: cores that others used."""
    command = [a.fastvlm, "bench", model, "--json", "--reps", str(a.reps), *map(str, more)]
    print("$ " + " ".join(command), file=sys.stderr, flush=True)

    def run():
        return subprocess.run(command, stdout=subprocess.PIPE, check=False)
    done, others, _ = quietly.others(run)
    if done.returncode:
        sys.exit("scaling: fastvlm bench failed (exit code %d)" % done.returncode)
    report = json.loads(done.stdout)
    report["stage"] = {s["name"]: s for s in report["stages"]}
    report["quiet"] = others < quietly.MAX
    last.update(report)
    return report


def point(curve, x, report, stage):
    s = report["stage"][stage]
    curve.append({"x": x, "best_ms": s["best_ms"], "median_ms": s["median_ms"],
                  "peak_mb": report["peak_rss_bytes"] / 1e6, "quiet": report["quiet"]})
    print("%12g %10.2f ms %8.0f MB%s" % (x, s["best_ms"], curve[-1]["peak_mb"], "" if report["quiet"] else " *"),
          file=sys.stderr, flush=True)


def measure(a, saved, save):
    """Fills saved["curves"], curve by curve; calls save() after each, so that an interrupted run keeps what it has."""
    model, curves, machine = a.models[0], saved["curves"], saved["machine"]
    wanted = a.only.split(",") if a.only else list(CURVES)

    info = json.loads(subprocess.run([a.fastvlm, "info", model, "--json"], stdout=subprocess.PIPE, check=True).stdout)
    context = info["decoder"]["max_context"] - 33  # the answer needs room

    def curve(name):
        if last:
            machine.update(last["machine"], model=os.path.basename(model), threads=os.cpu_count(),
                           version=last["version"], commit=last["commit"], reps=a.reps)
            save()
        if name not in wanted:
            return None
        curves[name] = []
        return curves[name]

    if (c := curve("threads")) is not None:
        for n in range(1, (os.cpu_count() or 1) + 1):
            if n & (n - 1) == 0 or n == os.cpu_count():
                point(c, n, bench(a, model, "--stages", "vision", "--threads", n), "vision")
    if (c := curve("image")) is not None:
        for size in SIZES:
            point(c, size, bench(a, model, "--stages", "vision", "--image-size", size), "vision")
    if (c := curve("prompt")) is not None:
        for n in (n for n in PROMPTS if n <= context):
            point(c, n, bench(a, model, "--stages", "prefill", "--prompt-tokens", n), "prefill")
    if (c := curve("context")) is not None:
        for n in (n for n in CONTEXTS if n <= context):
            point(c, n, bench(a, model, "--stages", "decode", "--prompt-tokens", n, "--tokens", 32,
                              *(("--reps", 1) if n > 8192 else ())), "decode")
    if (c := curve("sessions")) is not None:
        report = bench(a, model, "--stages", "sessions")
        for n in SESSIONS:
            point(c, n, report, "sessions_%d" % n)
    if (c := curve("weights")) is not None:
        for m in a.models:
            report = bench(a, m, "--stages", "decode", "--prompt-tokens", 280)
            point(c, token_bytes(a, m) / 1e9, report, "decode")
            c[-1]["name"] = os.path.basename(m)
    curve("")


def token_bytes(a, model):
    """What a token reads of the weights, by the rows of fastvlm bench --layers."""
    done = subprocess.run([a.fastvlm, "bench", model, "--layers", "--json", "--reps", "1", "--tokens", "2"],
                          stdout=subprocess.PIPE, check=True)
    token = next(p for p in json.loads(done.stdout)["phases"] if p["phase"] == "token")
    return sum(layer["bytes"] for layer in token["layers"])


def solve(m, v):
    """Gauss, for two unknowns at most."""
    if len(v) == 1:
        return [v[0] / m[0][0]]
    d = m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return [(v[0] * m[1][1] - m[0][1] * v[1]) / d, (m[0][0] * v[1] - v[0] * m[1][0]) / d]


def law(points, powers):
    """Coefficients of sum c_k x^k that miss the points least, by shares; none below zero."""
    x, y = [p["x"] for p in points], [p["best_ms"] for p in points]
    if len(points) < len(powers):
        powers = powers[:len(points)]
    rows = [[xi ** k / yi for k in powers] for xi, yi in zip(x, y)]
    n = len(powers)
    c = solve([[sum(r[i] * r[j] for r in rows) for j in range(n)] for i in range(n)],
              [sum(r[i] for r in rows) for i in range(n)])
    if min(c) < 0 and n > 1:
        keep = powers[c.index(max(c))]
        return law(points, (keep,))
    return list(zip(c, powers))


def at(terms, x):
    return sum(c * x ** k for c, k in terms)


def law_text(terms):
    def term(c, k):
        n = "%.0f" % c if c >= 100 else "%.3g" % c
        return n if k == 0 else "%s/x" % n if k == -1 else "%s x" % n if k == 1 else "%s x^%d" % (n, k)
    return " + ".join(term(c, k) for c, k in terms)


def worst(points, terms):
    return max(abs(at(terms, p["x"]) / p["best_ms"] - 1) for p in points)


def table(curves, machine):
    out = ["%s, %d threads, kernels %s, fastvlm %s (%s), %s, best of %d" % (
        machine["cpu"], machine["threads"], machine["kernels"], machine["version"], machine["commit"],
        machine["model"], machine["reps"]), ""]
    for name, points in curves.items():
        title, xname, yname, powers = CURVES[name]
        terms = law(points, powers)
        out += ["### " + title, "",
                "%s = %s, within %.0f %% of every point." % (yname, law_text(terms), 100 * worst(points, terms)), "",
                "| %s | best | median | peak memory, MB |" % xname, "|---|---|---|---|"]
        for p in points:
            x = "%.3g (%s)" % (p["x"], p["name"]) if "name" in p else "%g" % p["x"]
            out.append("| %s | %.4g | %.4g%s | %.0f |" % (x, p["best_ms"], p["median_ms"],
                                                         "" if p["quiet"] else " *", p["peak_mb"]))
        out.append("")
    return "\n".join(out)


def ticks(top):
    step = next(s * 10 ** e for e in range(-3, 9) for s in (1, 2, 5) if top / (s * 10 ** e) <= 5)
    return [i * step for i in range(int(top / step) + 1)]


def panel(o, px, py, name, points):
    w, h, left, right, head, foot = 340, 250, 54, 50, 30, 40
    title, xname, yname, powers = CURVES[name]
    terms = law(points, powers)
    xm, ym = max(p["x"] for p in points) * 1.05, max(p["median_ms"] for p in points) * 1.1
    mm = max(p["peak_mb"] for p in points) * 1.1
    low = min(p["x"] for p in points)

    def sx(v):
        return px + left + (w - left - right) * v / xm

    def sy(v, top=None):
        return py + head + (h - head - foot) * (1 - v / (top or ym))
    o.append('<text x="%d" y="%d" font-weight="bold">%s</text>' % (px + left, py + 18, title))
    for v in ticks(ym):
        o.append('<path d="M%.1f %.1fH%.1f" stroke="#e4e4e4"/><text x="%.1f" y="%.1f" text-anchor="end">%g</text>' % (
            px + left, sy(v), px + w - right, px + left - 5, sy(v) + 4, v))
    for v in ticks(xm):
        o.append('<text x="%.1f" y="%.1f" text-anchor="middle">%g</text>' % (sx(v), py + h - foot + 15, v))
    for v in ticks(mm):
        o.append('<text x="%.1f" y="%.1f" fill="#888888">%g</text>' % (px + w - right + 5, sy(v, mm) + 4, v))
    o.append('<text x="%.1f" y="%d" text-anchor="middle">%s</text>' % (px + (left + w - right) / 2, py + h - 8, xname))
    o.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (px + left - 5, py + 18, "ms"))
    o.append('<text x="%d" y="%d" fill="#888888">MB</text>' % (px + w - right + 5, py + 18))
    o.append('<polyline fill="none" stroke="#bbbbbb" stroke-dasharray="4 3" points="%s"/>' % " ".join(
        "%.1f,%.1f" % (sx(p["x"]), sy(p["peak_mb"], mm)) for p in points))
    fit = [low + (xm / 1.05 - low) * i / 60 for i in range(61)]
    o.append('<polyline fill="none" stroke="#2c6fbb" stroke-width="1.5" points="%s"/>' % " ".join(
        "%.1f,%.1f" % (sx(x), sy(at(terms, x))) for x in fit))
    for p in points:
        o.append('<circle cx="%.1f" cy="%.1f" r="3.2" fill="#c0392b"/>' % (sx(p["x"]), sy(p["best_ms"])))
    o.append('<text x="%d" y="%d" fill="#2c6fbb">%s</text>' % (px + left + 6, py + head + 6, law_text(terms)))


def picture(curves, machine):
    w, h = 340, 250
    rows = (len(curves) + 1) // 2
    o = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">' % (
        2 * w, rows * h + 24), '<rect width="100%" height="100%" fill="#ffffff"/>']
    for i, (name, points) in enumerate(curves.items()):
        panel(o, i % 2 * w, i // 2 * h, name, points)
    o.append('<text x="8" y="%d" fill="#666666">%s, %d threads, kernels %s, %s. Dots: best time; line: the law; '
             'dashed: peak memory</text></svg>' % (rows * h + 16, machine["cpu"], machine["threads"],
                                                   machine["kernels"], machine["model"]))
    return "\n".join(o) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="*", metavar="MODEL")
    p.add_argument("--fastvlm", default="build/release/fastvlm", metavar="PROGRAM")
    p.add_argument("--out", default="build/scaling", metavar="DIR")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--only", help="curves, separated by commas: " + ", ".join(CURVES))
    p.add_argument("--draw", action="store_true", help="from DIR/scaling.json, without measuring")
    a = p.parse_args()
    path = os.path.join(a.out, "scaling.json")
    os.makedirs(a.out, exist_ok=True)
    saved = {"machine": {}, "curves": {}}
    if os.path.exists(path) and (a.draw or a.only):
        with open(path) as f:
            saved = json.load(f)
    if not a.draw:
        if not a.models:
            p.error("name a model")
        for name in (a.only or "").split(","):
            if name and name not in CURVES:
                p.error("--only %s: expected %s" % (name, ", ".join(CURVES)))

        def save():
            with open(path, "w") as f:
                json.dump(saved, f, indent=1)
        measure(a, saved, save)
    curves = {name: sorted(saved["curves"][name], key=lambda p: p["x"]) for name in CURVES if name in saved["curves"]}
    text = table(curves, saved["machine"])
    with open(os.path.join(a.out, "scaling.md"), "w") as f:
        f.write(text)
    with open(os.path.join(a.out, "scaling.svg"), "w") as f:
        f.write(picture(curves, saved["machine"]))
    print(text)


main()
