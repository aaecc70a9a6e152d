#!/usr/bin/env python3
"""evaluate.py CHECKPOINT_DIR [TEST_DIR] [--answers OUT.jsonl] [--peaks]: answer the questions of make_test.py in PyTorch and score.

Without a test directory, -n N scenes (2000) are made on the fly; --talk: the conversations of make_test.py --talk. With one, -n takes
its first N lines. The model hears its own answers to the turns before; scores by kind, by turn and by kind of picture."""
import argparse
import json
import os
import sys

import torch
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from features import wait_while
from infer import Engine
from make_test import cases, conversations, source
from pictures import show
from scenes import render, to_input
from score import correct, table, turns_of


def pixels(ims, size):
    px = torch.stack([torch.from_numpy(to_input(im, size).copy()) for im in ims]).permute(0, 3, 1, 2)
    return (px.double() * (1.0 / 255)).float().contiguous(memory_format=torch.channels_last)


def lines(a):
    """(line of questions.jsonl, its images)"""
    if a.test:
        with open(os.path.join(a.test, "questions.jsonl")) as f:
            for line in [json.loads(l) for l in f if l.strip()][:a.n]:
                names = [line["image"]] if "image" in line else line["images"]
                yield line, [Image.open(os.path.join(a.test, name)).convert("RGB") for name in names]
    elif a.talk:
        for i, (scs, turns) in enumerate(conversations(a.n, a.split)):
            yield dict(images=["%d" % i] * len(scs), source=source(scs), turns=turns), [show(sc) for sc in scs]
    else:
        for sc, q in cases(a.n, a.split):
            yield q, [render(sc)]


def save_answers(path, out):
    with open(path, "w") as f:
        f.writelines(json.dumps(o) + "\n" for o in out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("test", nargs="?")
    ap.add_argument("-n", type=int)
    ap.add_argument("--split", default="test")
    ap.add_argument("--answers")
    ap.add_argument("--wrong", type=int, default=0)
    ap.add_argument("--peaks", action="store_true", help="print the largest absolute value of every layer")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--talk", action="store_true")
    ap.add_argument("--hold", help="wait while this file exists")
    a = ap.parse_args()
    if a.n is None and not a.test:
        a.n = 2000
    torch.set_num_threads(a.threads)
    e = Engine(a.checkpoint)
    rows, turns, sources, out = [], [], [], []
    for line, ims in lines(a):
        wait_while(a.hold)
        with torch.no_grad():
            img = e.image_tokens(pixels(ims, e.size)) if ims else []
        shown = {k: line[k] for k in ("image", "images") if k in line}
        talk = turns_of(line)
        for k, (t, got) in enumerate(zip(talk, e.converse(img, talk))):
            if got is None:
                continue
            ok = correct(t["kind"], t["answer"], got)
            rows.append((t["kind"], ok))
            if "turns" in line:
                turns.append(("turn %d" % (k + 1), ok))
                sources.append((line.get("source", "?"), ok))
                shown["turn"] = k + 1
            out.append(dict(shown, question=t["question"], answer=got))
            if not ok and a.wrong > 0:
                a.wrong -= 1
                print("%s [%s, %s, turn %d] %s\n  want %r\n  got  %r" % (" ".join(shown.get("images", [shown.get("image")])), t["kind"],
                                                                    line.get("source", "plain"), k + 1, t["question"], t["answer"], got))
    print(table(rows, turns))
    if sources:
        print(table(sources), flush=True)
    if a.answers:
        save_answers(a.answers, out)
    if a.peaks:
        for k, v in sorted(e.peak.items(), key=lambda kv: -kv[1])[:12]:
            print("%-44s %10.2f" % (k, v))


if __name__ == "__main__":
    main()
