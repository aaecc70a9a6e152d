#!/usr/bin/env python3
"""make_test.py OUT [-n 2000] [--split test] [--jpeg]: held-out images and questions.

OUT/images/00000.png ..., OUT/questions.jsonl with {image, kind, question, answer, history}. Kinds alternate, one question
per image; about every third scene shows a shape-colour pair never trained on, and all words are held out. --jpeg:
JPEG images of up to 256 pixels (small enough to keep in a repository)."""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rng import Rng
from scenes import ask, render, scene

KINDS = ["describe", "count", "color", "shape", "size", "where", "relation", "text", "yesno", "absent", "followup"]


def cases(n, split="test"):
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        for k in range(1000):
            seed = i * 1000 + k
            sc = scene(split, seed)
            c = ask(Rng("ask-" + split, seed), sc, kind)
            if c:
                break
        h = [[t["question"], t["answer"]] for t in c[:-1]]
        yield sc, dict(image="images/%05d.png" % i, kind=kind, question=c[-1]["question"], answer=c[-1]["answer"], history=h)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("-n", type=int, default=2000)
    ap.add_argument("--split", default="test")
    ap.add_argument("--jpeg", action="store_true")
    a = ap.parse_args()
    os.makedirs(os.path.join(a.out, "images"), exist_ok=True)
    with open(os.path.join(a.out, "questions.jsonl"), "w") as f:
        for sc, q in cases(a.n, a.split):
            im = render(sc)
            if a.jpeg:
                q["image"] = q["image"].replace(".png", ".jpg")
                im.thumbnail((256, 256))
                im.save(os.path.join(a.out, q["image"]), quality=60, optimize=True)
            else:
                im.save(os.path.join(a.out, q["image"]))
            f.write(json.dumps(q) + "\n")


if __name__ == "__main__":
    main()
