#!/usr/bin/env python3
"""agree.py [--out build/demo-answers]: the held-out test with the C engine in every precision of the demonstration model, against
PyTorch. Writes OUT/{f32,bf16,packed}.jsonl and OUT/torch.jsonl (kept when it belongs to the checkpoint of now), prints the score
of each by kind and the share of answers that are PyTorch's letter for letter; writes OUT/scores.json for card.py.

Needs build/demo-test (make_test.py), the built program (make) and, for PyTorch's own answers, torch."""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from score import correct

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join(ROOT, "build/release/fastvlm")
GOAL = 99.5
RUNS = [("f32", "", "f32", "f32"), ("bf16", "", "bf16", "bf16"), ("packed", "demo.gguf", "auto", "auto")]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def torch_answers(a):
    """PyTorch's answers, made once for a checkpoint."""
    path, stamp = os.path.join(a.out, "torch.jsonl"), os.path.join(a.out, "torch.sha256")
    want = sha256(os.path.join(a.model, "model.safetensors")) + " " + sha256(os.path.join(a.test, "questions.jsonl"))
    if a.torch:
        return load(a.torch)
    if not (os.path.exists(path) and os.path.exists(stamp) and open(stamp).read() == want):
        subprocess.run([a.python, os.path.join(ROOT, "tools/train/evaluate.py"), a.model, a.test, "--answers", path, "--threads",
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


def score(qs, answers):
    n, k = Counter(), Counter()
    for q, o in zip(qs, answers):
        for kind in (q["kind"], "all"):
            n[kind] += 1
            k[kind] += correct(q["kind"], q["answer"], o["answer"])
    return n, k


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
    qs = load(os.path.join(a.test, "questions.jsonl"))
    named = [("PyTorch", torch_answers(a))]
    for run in RUNS:
        named.append((run[0], ask_as(run, a.model, a.test)))
        with open(os.path.join(a.out, run[0] + ".jsonl"), "w") as f:
            f.writelines(json.dumps(o) + "\n" for o in named[-1][1])
    scores = {name: score(qs, out) for name, out in named}
    same = {name: 100.0 * sum(x["answer"] == y["answer"] for x, y in zip(out, named[0][1])) / len(qs) for name, out in named}
    total = scores["PyTorch"][0]
    print("%-10s %6s" % ("kind", "n") + "".join("%10s" % name for name, _ in named))
    for kind in sorted(total, key=lambda k: (k == "all", k)):
        print("%-10s %6d" % (kind, total[kind]) + "".join("%9.1f%%" % (100.0 * scores[n][1][kind] / total[kind]) for n, _ in named))
    print("%-17s" % "as PyTorch" + "".join("%9.2f%%" % same[name] for name, _ in named))
    for name in ("f32", "bf16"):
        print("%s: the same answer in %.2f %% of %d, goal %.1f %%%s" % (name, same[name], len(qs), GOAL,
                                                                     "" if same[name] >= GOAL else ": NOT reached"))
    with open(os.path.join(a.out, "scores.json"), "w") as f:
        json.dump({"weights_sha256": sha256(os.path.join(a.model, "model.safetensors")), "n": total, "same": same,
                   "correct": {name: scores[name][1] for name, _ in named}}, f, indent=1)


if __name__ == "__main__":
    main()
