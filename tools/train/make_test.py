#!/usr/bin/env python3
"""make_test.py OUT [-n 2000] [--split test] [--jpeg] [--talk]: held-out images and questions.

OUT/images/00000.png ..., OUT/questions.jsonl with {image, kind, question, answer, history}. Kinds alternate, one question
per image; about every third scene shows a shape-colour pair never trained on (`held_out` says which), and all words are held out.
--jpeg: JPEG images of up to 256 pixels (small enough to keep in a repository).

--talk: the second edition's test, n conversations of one to six turns; a line of questions.jsonl is {images, source, turns}: none,
one or two images, the kind of picture, and turns of {kind, question, answer}. The model hears its own answers to the turns before;
where a turn has `said`, it hears that wrong answer, which the user then has looked at again."""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rng import Rng
from pictures import picture, show
from scenes import HELD_OUT, ask, render, scene
from talk import about_two, conversation, without_image

KINDS = ["describe", "count", "color", "shape", "size", "where", "relation", "text", "yesno", "absent", "followup"]


def held_out(scs):
    """Does a shape have a colour never seen with it in training? Nothing where there are no shapes."""
    objs = [o for sc in scs for o in sc.objs]
    return dict(held_out=any((o.color, o.shape) in HELD_OUT for o in objs)) if objs else {}


def source(scs):
    return "none" if not scs else "two" if len(scs) > 1 else getattr(scs[0], "source", "plain")


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
        yield sc, dict(image="images/%05d.png" % i, kind=kind, question=c[-1]["question"], answer=c[-1]["answer"], history=h,
                       **held_out([sc]))


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
        for i, (scs, turns) in enumerate(conversations(a.n, a.split)):
            images = ["images/%05d%s%s" % (i, "ab"[j] if len(scs) > 1 else "", end) for j in range(len(scs))]
            for sc, name in zip(scs, images):
                keep(show(sc), name)
            f.write(json.dumps(dict(images=images, source=source(scs), **held_out(scs), turns=turns)) + "\n")


if __name__ == "__main__":
    main()
