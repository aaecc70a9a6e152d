#!/usr/bin/env python3
"""card.py: writes measured figures into models/demo/README.md and docs/demo-model.md, between
<!-- NAME --> and <!-- /NAME -->.

They come from build/demo-answers (run agree.py first, with the current weights), tools/train/loss.csv,
tests/data/demo and examples/drawn; the questions of the last two are answered here, by the program."""
import csv
import json
import os
import re
import sys
import textwrap

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agree import GOAL, ROOT, RUNS, ask, ask_as, load, sha256
from make_test import cases
from scenes import HELD_OUT
from score import correct, facts

DEMO, TEST, OUT = (os.path.join(ROOT, d) for d in ("models/demo", "build/demo-test", "build/demo-answers"))
GOAL_ALL, GOAL_KIND = 95.0, 90.0


def questions(test):
    return load(os.path.join(test, "questions.jsonl"))


def percent(k, n):
    return "%.1f" % (100.0 * k / n)


def right(qs, answers, keep=lambda i, q: True):
    rows = [correct(q["kind"], q["answer"], a["answer"]) for i, (q, a) in enumerate(zip(qs, answers)) if keep(i, q)]
    return sum(rows), len(rows)


def block_scores(s, qs, f32):
    names = list(s["correct"])
    lines = ["| kind | n | " + " | ".join("PyTorch f32" if n == "PyTorch" else "engine " + n for n in names) + " |",
             "|---" * (len(names) + 2) + "|"]
    for kind in sorted(s["n"], key=lambda k: (k == "all", k)):
        lines.append("| %s | %d | " % (kind, s["n"][kind]) +
                     " | ".join(percent(s["correct"][n].get(kind, 0), s["n"][kind]) for n in names) + " |")
    pairs = [any((o.color, o.shape) in HELD_OUT for o in sc.objs) if sc.objs else None for sc, _ in cases(len(qs))]
    held, other = (right(qs, f32, lambda i, q, want=want: pairs[i] is want) for want in (True, False))
    got = 100.0 * s["correct"]["f32"]["all"] / s["n"]["all"]
    low = [k for k in s["n"] if k != "all" and 100.0 * s["correct"]["f32"].get(k, 0) / s["n"][k] < GOAL_KIND]
    lines += ["", "Right answers in percent. Images with a shape and colour never seen together in training: %s %%; other images "
              "with shapes: %s %%." % (percent(*held), percent(*other)), ""]
    if got >= GOAL_ALL and not low:
        lines.append("Target: %.0f %% overall and %.0f %% in every kind; met." % (GOAL_ALL, GOAL_KIND))
    else:
        lines.append("Target: %.0f %% overall and %.0f %% in every kind. Overall it is %s; kinds below: %s." % (
            GOAL_ALL, GOAL_KIND, "met" if got >= GOAL_ALL else "**not met**", ", ".join(sorted(low)) or "none"))
    return "\n".join(lines)


def block_weak(qs, f32):
    lines = []
    for n, word in ((1, "one shape"), (2, "two shapes"), (3, "three shapes")):
        k, of = right(qs, f32, lambda i, q: q["kind"] == "describe" and sum(facts(q["answer"])[0].values()) == n)
        lines.append("* Described correctly, images with %s: %d of %d." % (word, k, of))
    k, of = right(qs, f32, lambda i, q: q["kind"] == "relation" and q["answer"] in ("Yes", "No"))
    lines.append("* \"Is the ... left of the ...?\" and the like: %s %% of %d, where guessing gives 50 %%." % (percent(k, of), of))
    k, of = right(qs, f32, lambda i, q: q["kind"] == "relation" and q["answer"] not in ("Yes", "No"))
    lines.append("* \"What is above the ...?\", \"What is the leftmost shape?\": %s %% of %d." % (percent(k, of), of))
    k, of = right(qs, f32, lambda i, q: q["kind"] == "count" and int(q["answer"]) <= 3)
    m, om = right(qs, f32, lambda i, q: q["kind"] == "count" and int(q["answer"]) > 3)
    lines.append("* Counting up to three: %s %% of %d; four to six: %s %% of %d." % (percent(k, of), of, percent(m, om), om))
    k, of = right(qs, f32, lambda i, q: q["kind"] == "text" and len(q["answer"]) <= 3)
    m, om = right(qs, f32, lambda i, q: q["kind"] == "text" and len(q["answer"]) > 3)
    lines.append("* Reading up to three characters: %s %% of %d; more: %s %% of %d." % (percent(k, of), of, percent(m, om), om))
    return "\n".join(lines)


def block_training():
    with open(os.path.join(ROOT, "tools/train/loss.csv")) as f:
        last = list(csv.DictReader(f))[-1]
    return "{:,} images, each seen once, with six or eight questions each, in {:,} steps; {:.1f} hours on a share of two CPU cores.".format(
        int(last["pictures"]), int(last["step"]), float(last["hours"]))


def block_packed():
    file = os.path.join(DEMO, "demo.gguf")
    with open(file, "rb") as f:
        how = re.search(rb"fastvlm [0-9.]+ (--[ -~]+)", f.read(1 << 16))
    return ("The packed file, `demo.gguf`, is %.1f MB\n(`fastvlm pack models/demo models/demo/calibration -o demo.gguf %s`)."
            % (os.path.getsize(file) / 1e6, how[1].decode()))


def block_agreement(s):
    lines = ["| | identical to PyTorch's answer | right |", "|---|---|---|"]
    for name, right_ in s["correct"].items():
        lines.append("| %s | %s | %s %% |" % ("PyTorch, f32 arithmetic" if name == "PyTorch" else "engine, " + name,
                                             "" if name == "PyTorch" else "%.2f %%" % s["same"][name], percent(right_["all"], s["n"]["all"])))
    below = [n for n in ("f32", "bf16") if s["same"][n] < GOAL]
    lines += ["", "%d questions; at least %.1f %% identical in f32 and bf16 is the target, %s." % (s["n"]["all"], GOAL,
                                                                       "not met by " + ", ".join(below) if below else "met")]
    return "\n".join(lines)


def block_sample():
    test, out = os.path.join(ROOT, "tests/data/demo"), []
    for run in RUNS:
        k, n = right(questions(test), ask_as(run, DEMO, test))
        out.append("%s %s %%" % (run[0], percent(k, n)))
    return "The sample of %d in `tests/data/demo` (JPEG, up to 256 pixels): %s." % (n, ", ".join(out))


def block_drawn():
    test = os.path.join(ROOT, "examples/drawn")
    qs, lines, before = questions(test), ["| image | question | answer | |", "|---|---|---|---|"], None
    answers = ask(test, os.path.join(DEMO, "demo.gguf"))
    for q, a in zip(qs, answers):
        ok = correct(q["kind"], q["answer"], a["answer"])
        name = "" if q["image"] == before else '<img src="../examples/drawn/%s" width="96" alt="%s">' % (q["image"], q["image"])
        want = q["answer"] + ("" if q["answer"].endswith(".") else ".")
        lines.append("| %s | %s | %s | %s |" % (name, q["question"], a["answer"].replace("\n", " / "),
                                                "right" if ok else "**wrong**: " + want))
        before = q["image"]
    k, n = right(qs, answers)
    return "\n".join(lines + ["", "%d of %d right." % (k, n)])


def wrapped(body):
    """Prose at 100 columns; lines of tables and of HTML stay."""
    return "\n".join(line if line.startswith(("|", "<")) else
                     textwrap.fill(line, 100, subsequent_indent="  " * line.startswith("* "),
                                   break_long_words=False, break_on_hyphens=False)
                     for line in body.split("\n"))


def fill(path, blocks):
    with open(path) as f:
        text = f.read()
    for name, body in blocks.items():
        text = re.sub(r"(<!-- %s -->\n).*?(<!-- /%s -->)" % (name, name), lambda m: m[1] + wrapped(body) + "\n" + m[2], text, flags=re.S)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


def main():
    with open(os.path.join(OUT, "scores.json")) as f:
        s = json.load(f)
    if s["weights_sha256"] != sha256(os.path.join(DEMO, "model.safetensors")):
        sys.exit("card.py: build/demo-answers was made with other weights than those in models/demo: run agree.py again")
    qs, f32 = questions(TEST), load(os.path.join(OUT, "f32.jsonl"))
    blocks = {"scores": block_scores(s, qs, f32), "weak": block_weak(qs, f32), "training": block_training(), "packed": block_packed(),
              "agreement": block_agreement(s), "sample": block_sample(), "drawn": block_drawn()}
    for path in ("models/demo/README.md", "docs/demo-model.md"):
        fill(os.path.join(ROOT, path), blocks)
        print(path)


if __name__ == "__main__":
    main()
