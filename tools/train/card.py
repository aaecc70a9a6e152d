#!/usr/bin/env python3
"""card.py [--machine "a share of two CPU cores"]: writes measured figures into models/demo/README.md and docs/demo-model.md,
between <!-- NAME --> and <!-- /NAME -->, and the thresholds of the samples that make test scores.

They come from build/demo-answers (run agree.py first, with the current weights), tools/train/loss.csv, the samples
(tests/data/demo, tests/data/talk) and examples/drawn; the questions of the last two are answered here, by the program."""
import argparse
import csv
import json
import math
import os
import re
import sys
import textwrap

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agree import GOAL, GOAL_LEAST, GOAL_MEDIAN, GOAL_Q4, ROOT, RUNS, ask, ask_as, in_order, load, sha256
from score import asked, correct, facts

DEMO, TEST, OUT = (os.path.join(ROOT, d) for d in ("models/demo", "build/demo-test", "build/demo-answers"))
SAMPLES = [d for d in ("tests/data/demo", "tests/data/talk") if os.path.isdir(os.path.join(ROOT, d))]


def questions(test):
    return asked(load(os.path.join(test, "questions.jsonl")))


def percent(k, n):
    return "%.1f" % (100.0 * k / max(n, 1))


def right(qs, answers, keep=lambda q: True):
    rows = [correct(q["kind"], q["answer"], a["answer"]) for q, a in zip(qs, answers) if keep(q)]
    return sum(rows), len(rows)


def goals(talks):
    """Percent that are wanted overall, of every kind, of every turn."""
    return (97.0, 93.0, 95.0) if talks else (95.0, 90.0, 0.0)


def block_scores(s, qs, f32):
    names = list(s["correct"])
    title = {"PyTorch": "PyTorch f32", "q4": "engine int8 + q4"}
    share = lambda key, name="f32": 100.0 * s["correct"][name].get(key, 0) / s["n"][key]
    lines = ["| kind | n | " + " | ".join(title.get(n, "engine " + n) for n in names) + " |", "|---" * (len(names) + 2) + "|"]
    for kind in in_order(s["n"]):
        lines.append("| %s | %d | " % (kind, s["n"][kind]) + " | ".join("%.1f" % share(kind, n) for n in names) + " |")
    held, other = (right(qs, f32, lambda q, want=want: q["line"].get("held_out") is want) for want in (True, False))
    goal, goal_kind, goal_turn = goals(any("turns" in q["line"] for q in qs))
    kinds, turns = ([k for k in s["n"] if k != "all" and k.startswith("turn ") == t and not k.startswith("picture ")] for t in (False, True))
    low = [k for k in sorted(kinds) if share(k) < goal_kind] + [k for k in sorted(turns) if share(k) < goal_turn]
    lines += ["", "Right answers in percent. Images with a shape and colour never seen together in training: %s %%; other images "
              "with shapes: %s %%." % (percent(*held), percent(*other)), ""]
    what = "%.0f %% overall and %.0f %% in every kind" % (goal, goal_kind)
    if turns:
        what = "%.0f %% overall, %.0f %% in every kind and %.0f %% at every turn" % (goal, goal_kind, goal_turn)
    met = share("all") >= goal
    lines.append("Target: %s; met." % what if met and not low else
                 "Target: %s. Overall it is %s; below: %s." % (what, "met" if met else "**not met**", ", ".join(low) or "none"))
    return "\n".join(lines)


def block_weak(qs, f32):
    lines = []
    for n, word in ((1, "one shape"), (2, "two shapes"), (3, "three shapes")):
        k, of = right(qs, f32, lambda q: q["kind"] == "describe" and sum(facts(q["answer"])[0].values()) == n)
        lines.append("* Described correctly, images with %s: %d of %d." % (word, k, of))
    k, of = right(qs, f32, lambda q: q["kind"] == "relation" and q["answer"] in ("Yes", "No"))
    lines.append("* \"Is the ... left of the ...?\" and the like: %s %% of %d, where guessing gives 50 %%." % (percent(k, of), of))
    k, of = right(qs, f32, lambda q: q["kind"] == "relation" and q["answer"] not in ("Yes", "No"))
    lines.append("* \"What is above the ...?\", \"What is the leftmost shape?\": %s %% of %d." % (percent(k, of), of))
    all_of_them = re.compile(r"(many|the) (shapes|objects)\b", re.I)
    number = lambda q: int(q["answer"]) if q["answer"].isdigit() and q["kind"] in ("count", "followup") else None
    counted = lambda keep: right(qs, f32, lambda q: number(q) is not None and keep(bool(all_of_them.search(q["question"])), number(q)))
    (k, of), (m, om), (p, op) = counted(lambda every, n: every), counted(lambda every, n: not every and n < 3), counted(lambda every, n: not every and n > 2)
    lines.append("* Counting all shapes: %s %% of %d; those of one shape or colour, where there are up to two: %s %% of %d, three and more: %s %% of %d." % (
        percent(k, of), of, percent(m, om), om, percent(p, op), op))
    differs = re.compile(r"differs|differen|has changed", re.I)
    (k, of), (m, om) = (right(qs, f32, lambda q, want=want: q["kind"] == "two" and bool(differs.search(q["question"])) is want) for want in (True, False))
    p, op = right(qs, f32, lambda q: q["kind"] == "two" and q["answer"].endswith("only in the first."))
    lines.append("* Two images, \"What differs?\": %s %% of %d (of %d where something is only in the first image, %s %%); other questions about two: %s %% of %d." % (
        percent(k, of), of, op, percent(p, op), percent(m, om), om))
    k, of = right(qs, f32, lambda q: q["kind"] == "text" and len(q["answer"]) <= 3)
    m, om = right(qs, f32, lambda q: q["kind"] == "text" and len(q["answer"]) > 3)
    lines.append("* Reading up to three characters: %s %% of %d; more: %s %% of %d." % (percent(k, of), of, percent(m, om), om))
    return "\n".join(lines)


def block_training(machine):
    with open(os.path.join(ROOT, "tools/train/loss.csv")) as f:
        last = list(csv.DictReader(f))[-1]
    n, steps, hours = int(last["pictures"]), int(last["step"]), float(last["hours"])
    if "two" in last:                                     # the second edition's kinds
        return "{:,} image presentations, each with about eleven turns of conversation, in {:,} steps; {:.1f} hours on {}.".format(n, steps, hours, machine)
    return "{:,} images, each seen once, with six or eight questions each, in {:,} steps; {:.1f} hours on {}.".format(n, steps, hours, machine)


def block_shape():
    with open(os.path.join(DEMO, "config.json")) as f:
        c = json.load(f)
    with open(os.path.join(DEMO, "vocab.json")) as f, open(os.path.join(DEMO, "added_tokens.json")) as g:
        entries = len(json.load(f)) + len(json.load(g))
    weights = os.path.join(DEMO, "model.safetensors")
    with open(weights, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    parameters = sum(math.prod(t["shape"]) for name, t in header.items()
                     if name != "__metadata__" and not any(w in name for w in (".running_", "num_batches", "head.proj")))
    v, side, plain = c["vision_config"], c["vision_config"]["image_size"], lambda x: ", ".join(map(str, x))
    heads = c["num_attention_heads"]
    return "\n".join([
        "| | |", "|---|---|",
        "| family | `llava_qwen2`: FastViTHD encoder, two-layer projector, Qwen2 decoder; inference form, BatchNorm of the FFNs unfused |",
        "| image | %d x %d (padded to a black square), %d image tokens |" % (side, side, (side // v["patch_size"]) ** 2),
        "| encoder | layers %s; widths %s; RepMixer x3, attention x2; %d features a token |" % (
            plain(v["layers"]), plain(v["embed_dims"]), c["mm_hidden_size"]),
        "| decoder | %d layers, width %d, %d heads and %d key/value heads of width %d, FFN %d, tied weights |" % (
            c["num_hidden_layers"], c["hidden_size"], heads, c["num_key_value_heads"], c["hidden_size"] // heads, c["intermediate_size"]),
        "| vocabulary | {:,} entries (byte-level BPE of the Qwen2 family), {:,} rows |".format(entries, c["vocab_size"]),
        "| parameters | {:,}, tied weights counted once (`model.safetensors`, bf16: {:.1f} MB) |".format(parameters, os.path.getsize(weights) / 1e6),
        "| licence | MIT, like the project; the weights were trained here, only on the generator in `tools/train/` |"])


def block_packed():
    file = os.path.join(DEMO, "demo.gguf")
    with open(file, "rb") as f:
        how = re.search(rb"fastvlm [0-9.]+ (--[ -~]+)", f.read(1 << 16))
    return ("The packed file, `demo.gguf`, is %.1f MB\n(`fastvlm pack models/demo models/demo/calibration -o demo.gguf %s`)."
            % (os.path.getsize(file) / 1e6, how[1].decode()))


def block_agreement(s):
    lines = ["| | identical to PyTorch's answer | right |", "|---|---|---|"]
    title = {"PyTorch": "PyTorch, f32 arithmetic", "q4": "engine, int8 + q4"}
    total = {name: 100.0 * right_["all"] / s["n"]["all"] for name, right_ in s["correct"].items()}
    for name, of in total.items():
        lines.append("| %s | %s | %.1f %% |" % (title.get(name, "engine, " + name), "" if name == "PyTorch" else "%.2f %%" % s["same"][name], of))
    below = [n for n in ("f32", "bf16") if s["same"][n] < GOAL]
    lines += ["", "%d questions; at least %.1f %% identical in f32 and bf16 is the target, %s." % (s["n"]["all"], GOAL,
                                                                       "not met by " + ", ".join(below) if below else "met")]
    if "features" in s:
        f, loss = s["features"], total["f32"] - total["q4"]
        met = f["median"] >= GOAL_MEDIAN and f["least"] >= GOAL_LEAST and loss <= GOAL_Q4
        lines += ["", "The features of the test's first %d images, one by one, packed (int8) against f32: median cosine %.5f, minimum %.4f. "
                  "Targets: median >= %g, minimum >= %g, at most %g points lost by int8 with q4; %s." % (
                      f["n"], f["median"], f["least"], GOAL_MEDIAN, GOAL_LEAST, GOAL_Q4, "all met" if met else "**not all met**")]
    return "\n".join(lines)


def block_sample():
    lines = []
    for d in SAMPLES:
        test = os.path.join(ROOT, d)
        qs, scores = questions(test), []
        for run in RUNS:
            k, n = right(qs, ask_as(run, DEMO, test))
            scores.append((run[0], k))
        what = "%d conversations with %d scored turns" % (len({id(q["line"]) for q in qs}), n) if "turns" in qs[0]["line"] else "%d" % n
        lines.append("The sample of %s in `%s` (JPEG, up to 256 pixels): %s." % (
            what, d, ", ".join("%s %s %%" % (name, percent(k, n)) for name, k in scores)))
        write_threshold(test, min(k for _, k in scores), n)
    return "\n".join(lines)


def write_threshold(test, least, n):
    """Two points below what it answers: other processors' int8 is another."""
    with open(os.path.join(test, "threshold"), "w") as f:
        f.write("# The least percentage of the %d scored turns beside this file that the demonstration model must answer rightly, in every\n"
                "# precision (tests/cli/test_demo_score.sh). It answers %s rightly; two points of leeway for other processors' int8.\n"
                "%d\n" % (n, percent(least, n), math.floor(100.0 * least / n - 2)))


def block_drawn():
    test = os.path.join(ROOT, "examples/drawn")
    qs, lines, before = questions(test), ["| image | question | answer | |", "|---|---|---|---|"], None
    answers = ask(test, os.path.join(DEMO, "demo.gguf"))
    for q, a in zip(qs, answers):
        ok = correct(q["kind"], q["answer"], a["answer"])
        image = q["line"]["image"]
        name = "" if image == before else '<img src="../examples/drawn/%s" width="96" alt="%s">' % (image, image)
        want = q["answer"] + ("" if q["answer"].endswith(".") else ".")
        lines.append("| %s | %s | %s | %s |" % (name, q["question"], a["answer"].replace("\n", " / "),
                                                "right" if ok else "**wrong**: " + want))
        before = image
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
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--machine", default="a share of two CPU cores", help="what it was trained on")
    a = ap.parse_args()
    with open(os.path.join(OUT, "scores.json")) as f:
        s = json.load(f)
    if s["weights_sha256"] != sha256(os.path.join(DEMO, "model.safetensors")):
        sys.exit("card.py: build/demo-answers was made with other weights than those in models/demo: run agree.py again")
    qs, f32 = questions(TEST), load(os.path.join(OUT, "f32.jsonl"))
    blocks = {"shape": block_shape(), "scores": block_scores(s, qs, f32), "weak": block_weak(qs, f32), "training": block_training(a.machine), "packed": block_packed(),
              "agreement": block_agreement(s), "sample": block_sample(), "drawn": block_drawn()}
    for path in ("models/demo/README.md", "docs/demo-model.md"):
        fill(os.path.join(ROOT, path), blocks)
        print(path)


if __name__ == "__main__":
    main()
