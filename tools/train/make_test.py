#!/usr/bin/env python3
"""make_test.py OUT [-n 2000] [--split test] [--jpeg] [--talk]: held-out images and questions.

OUT/images/00000.png ..., OUT/questions.jsonl with {image, kind, question, answer, history}. Kinds alternate, one question
per image; about every third scene shows a shape-colour pair never trained on, and all words are held out. --jpeg:
JPEG images of up to 256 pixels (small enough to keep in a repository).

--talk: the second edition's test, n conversations of one to six turns. Every turn that is scored is a line of questions.jsonl with
`images` (none, one or two) in place of `image`, its `conversation` and `turn`, and in history the right answers before it, or
the wrong one that the user then has looked at again. OUT/talks.jsonl has the same as conversations: {images, turns}."""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rng import Rng
from pictures import picture, show
from scenes import ask, render, scene
from talk import about_two, conversation, without_image

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


FIRST = ["describe", "count", "color", "shape", "size", "where", "relation", "text", "yesno", "absent", "json", "unknown", "thing", "side", None, None]


def conversations(n, split="test"):
    """(scenes, turns) of the second edition. Of 16, one is without an image, two are about two images, and two are about drawings by
    tools that no training picture came from (rsvg-convert and convert must be installed)."""
    for i in range(n):
        for k in range(1000):
            seed = 2 * (i * 1000 + k)
            r = Rng("converse-" + split, seed)
            if i % 16 == 0:
                scs, turns = [], without_image(r, picture(split, seed))
            elif i % 16 in (5, 11):
                scs = [picture(split, seed), picture(split, seed + 1)]
                turns = about_two(r, *scs)
            else:
                scs = [picture(split, seed, {3: "librsvg", 9: "ImageMagick"}.get(i % 16))]
                turns = conversation(r, scs[0], 1 + i // 16 % 6, FIRST[(i + i // 16) % 16])
                if len(turns) < 1 + i // 16 % 6:
                    continue
            if turns:
                break
        yield scs, turns


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("-n", type=int, default=2000)
    ap.add_argument("--split", default="test")
    ap.add_argument("--jpeg", action="store_true")
    ap.add_argument("--talk", action="store_true")
    a = ap.parse_args()
    os.makedirs(os.path.join(a.out, "images"), exist_ok=True)

    def keep(im, name):
        if a.jpeg:
            im.thumbnail((256, 256))
            im.save(os.path.join(a.out, name), quality=60, optimize=True)
        else:
            im.save(os.path.join(a.out, name))

    end = ".jpg" if a.jpeg else ".png"
    with open(os.path.join(a.out, "questions.jsonl"), "w") as f:
        if not a.talk:
            for sc, q in cases(a.n, a.split):
                q["image"] = q["image"].replace(".png", end)
                keep(render(sc), q["image"])
                f.write(json.dumps(q) + "\n")
            return
        g = open(os.path.join(a.out, "talks.jsonl"), "w")
        for i, (scs, turns) in enumerate(conversations(a.n, a.split)):
            images = ["images/%05d%s%s" % (i, "ab"[j] if len(scs) > 1 else "", end) for j in range(len(scs))]
            for sc, name in zip(scs, images):
                keep(show(sc), name)
            g.write(json.dumps(dict(images=images, turns=turns)) + "\n")
            for k, t in enumerate(turns):
                if "said" not in t:
                    h = [[u["question"], u.get("said", u["answer"])] for u in turns[:k]]
                    f.write(json.dumps(dict(images=images, conversation=i, turn=k + 1, **t, history=h)) + "\n")
        g.close()


if __name__ == "__main__":
    main()
