#!/usr/bin/env python3
"""agree.py [--out build/demo-answers]: the held-out test with the C engine in every precision of the demonstration model, against
PyTorch. Writes OUT/{f32,bf16,packed,q4}.jsonl and OUT/torch.jsonl (kept while checkpoint, test and code are the same), prints the score
of each by kind, turn and kind of picture, and the share of answers that are PyTorch's letter for letter; how close the int8 encoder's
features of single images are; writes OUT/scores.json for card.py.

Needs build/demo-test (make_test.py, with --talk or without), the built program (make) and, for PyTorch's own answers, torch."""
import argparse
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from score import asked, correct

ROOT = os.path.dirname(os.path.dirname(HERE))
PROGRAM = os.path.join(ROOT, "build/release/fastvlm")
GOAL = 99.5
GOAL_MEDIAN, GOAL_LEAST, GOAL_Q4 = .999, .99, .5                 # cosine of an image's features; points that int8 and q4 may lose
RUNS = [("f32", "", "f32", "f32"), ("bf16", "", "bf16", "bf16"), ("packed", "demo.gguf", "auto", "auto")]
Q4 = ["--vision", "int8", "--decoder", "q4"]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def inputs_hash(a):
    """Hash of what PyTorch's answers follow from: checkpoint, test, code."""
    files = [os.path.join(a.model, "model.safetensors"), os.path.join(a.test, "questions.jsonl")]
    files += glob.glob(os.path.join(a.model, "*.json")) + glob.glob(os.path.join(a.model, "*.txt"))
    files += glob.glob(os.path.join(a.test, "images", "*"))
    files += [os.path.join(HERE, name) for name in ("evaluate.py", "infer.py", "model.py", "scenes.py", "tok.py")]
    return hashlib.sha256("".join("%s %s\n" % (os.path.basename(f), sha256(f)) for f in sorted(files)).encode()).hexdigest()


def torch_answers(a):
    """PyTorch's answers, made once for a checkpoint and a test."""
    if a.torch:
        return load(a.torch)
    path, stamp, want = os.path.join(a.out, "torch.jsonl"), os.path.join(a.out, "torch.sha256"), inputs_hash(a)
    if not (os.path.exists(path) and os.path.exists(stamp) and open(stamp).read() == want):
        subprocess.run([a.python, os.path.join(HERE, "evaluate.py"), a.model, a.test, "--answers", path, "--threads",
                        str(a.threads)], check=True)
        with open(stamp, "w") as f:
            f.write(want)
    return load(path)


def ask(test, model, vision="auto", decoder="auto"):
    """The program's answers to a test folder's questions."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as out:
        subprocess.run([PROGRAM, "eval", "--task", test, model, "--vision", vision, "--decoder", decoder, "--answers", out.name, "-q"],
                       check=True, stdout=subprocess.DEVNULL)
        return load(out.name)


def ask_as(run, demo, test):
    _, model, vision, decoder = run
    return ask(test, os.path.join(demo, model), vision, decoder)


def check_complete(qs, name, answers):
    if len(answers) != len(qs):
        sys.exit("agree.py: %s: %d answers to the %d questions of the test; expected one to each" % (name, len(answers), len(qs)))


def score(qs, answers):
    """Right ones of all, by kind, turn ("turn 2") and kind of picture ("picture screen")."""
    n, k = Counter(), Counter()
    for q, o in zip(qs, answers):
        keys = [q["kind"], "all"]
        if "turns" in q["line"]:
            keys += ["turn %d" % q["turn"], "picture " + q["line"].get("source", "?")]
        for key in keys:
            n[key] += 1
            k[key] += correct(q["kind"], q["answer"], o["answer"])
    return n, k


def in_order(keys):
    """Kinds, turns, pictures, all of them."""
    return sorted(keys, key=lambda k: (k == "all", k.startswith("picture "), k.startswith("turn "), k))


def features(a):
    """Cosine of the packed file's features with those in f32, of single images."""
    images = os.path.join(a.test, "images")
    got = subprocess.run([PROGRAM, "eval", a.model, os.path.join(a.model, "demo.gguf"), images, "--limit", "100", "-n", "1", "--json", "-q"],
                         check=True, stdout=subprocess.PIPE)
    v = sorted(image["features"]["cosine"] for image in json.loads(got.stdout)["images"])
    return {"n": len(v), "median": v[len(v) // 2], "least": v[0]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=os.path.join(ROOT, "models/demo"))
    ap.add_argument("--test", default=os.path.join(ROOT, "build/demo-test"))
    ap.add_argument("--out", default=os.path.join(ROOT, "build/demo-answers"))
    ap.add_argument("--torch", help="PyTorch's answers, made elsewhere by evaluate.py --answers")
    ap.add_argument("--threads", type=int, default=1, help="of PyTorch: more only help on idle cores")
    ap.add_argument("--python", default=sys.executable, help="a Python that has torch")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    qs = asked(load(os.path.join(a.test, "questions.jsonl")))
    named = [("PyTorch", torch_answers(a))]
    check_complete(qs, *named[0])
    named += [(run[0], ask_as(run, a.model, a.test)) for run in RUNS]
    with tempfile.NamedTemporaryFile(suffix=".gguf") as packed:
        subprocess.run([PROGRAM, "pack", a.model, os.path.join(a.model, "calibration"), "-o", packed.name, "-q"] + Q4, check=True)
        named.append(("q4", ask(a.test, packed.name)))
    for name, out in named[1:]:
        check_complete(qs, name, out)
        with open(os.path.join(a.out, name + ".jsonl"), "w") as f:
            f.writelines(json.dumps(o) + "\n" for o in out)
    scores = {name: score(qs, out) for name, out in named}
    same = {name: 100.0 * sum(x["answer"] == y["answer"] for x, y in zip(out, named[0][1])) / len(qs) for name, out in named}
    total = scores["PyTorch"][0]
    print("%-20s %6s" % ("kind", "n") + "".join("%10s" % name for name, _ in named))
    for kind in in_order(total):
        print("%-20s %6d" % (kind, total[kind]) + "".join("%9.1f%%" % (100.0 * scores[n][1][kind] / total[kind]) for n, _ in named))
    print("%-27s" % "as PyTorch" + "".join("%9.2f%%" % same[name] for name, _ in named))
    for name in ("f32", "bf16"):
        print("%s: the same answer in %.2f %% of %d, goal %.1f %%%s" % (name, same[name], len(qs), GOAL,
                                                                     "" if same[name] >= GOAL else ": NOT reached"))
    near = features(a)
    print("int8 features of %(n)d images: cosine %(median).5f in the median, %(least).4f at least" % near)
    with open(os.path.join(a.out, "scores.json"), "w") as f:
        json.dump({"weights_sha256": sha256(os.path.join(a.model, "model.safetensors")), "n": total, "same": same, "features": near,
                   "correct": {name: scores[name][1] for name, _ in named}}, f, indent=1)


if __name__ == "__main__":
    main()
