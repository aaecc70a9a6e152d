#!/usr/bin/env python3
"""evaluate.py CHECKPOINT_DIR TEST_DIR [--answers OUT.jsonl] [--peaks]: answer the questions of make_test.py in PyTorch and score.

Without a test directory (-n N given): scenes are made on the fly. --talk: the conversations of make_test.py --talk, made on the
fly too, each with the model's own answers as its history; scores by kind, by turn and by kind of picture."""
import argparse
import json
import os
import sys

import torch
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from features import wait_while
from infer import Engine
from make_test import cases, conversations
from pictures import show
from scenes import render, to_input
from score import correct, table


def pixels(ims, size):
    px = torch.stack([torch.from_numpy(to_input(im, size).copy()) for im in ims]).permute(0, 3, 1, 2)
    return (px.double() * (1.0 / 255)).float().contiguous(memory_format=torch.channels_last)


def talk_scores(e, a):
    rows, kinds, out = [], [], []
    for i, (scs, turns) in enumerate(conversations(a.n, a.split)):
        wait_while(a.hold)
        with torch.no_grad():
            img = e.image_tokens(pixels([show(sc) for sc in scs], e.size)) if scs else []
        source = "none" if not scs else "two" if len(scs) > 1 else getattr(scs[0], "source", "plain")
        for k, (t, got) in enumerate(zip(turns, e.converse(img, turns))):
            if got is None:
                continue
            ok = correct(t["kind"], t["answer"], got)
            rows.append((t["kind"], ok))
            out.append(dict(answer=got))
            kinds.append((k + 1, source, ok))
            if not ok and a.wrong > 0:
                a.wrong -= 1
                print("%d.%d [%s, %s] %s\n  want %r\n  got  %r" % (i, k + 1, t["kind"], source, t["question"], t["answer"], got))
    print(table(rows))
    print(table([("turn %d" % k, ok) for k, _, ok in kinds]))
    print(table([(s, ok) for _, s, ok in kinds]), flush=True)
    return out


def save_answers(path, out):
    with open(path, "w") as f:
        f.writelines(json.dumps(o) + "\n" for o in out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("test", nargs="?")
    ap.add_argument("-n", type=int, default=2000)
    ap.add_argument("--split", default="test")
    ap.add_argument("--answers")
    ap.add_argument("--wrong", type=int, default=0)
    ap.add_argument("--peaks", action="store_true", help="print the largest absolute value of every layer")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--talk", action="store_true")
    ap.add_argument("--hold", help="wait while this file exists")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    e = Engine(a.checkpoint)
    if a.talk:
        out = talk_scores(e, a)
        if a.answers:
            save_answers(a.answers, out)
        return
    if a.test:
        qs = [json.loads(l) for l in open(os.path.join(a.test, "questions.jsonl"))]
        todo = [(q, Image.open(os.path.join(a.test, q["image"])).convert("RGB")) for q in qs[:a.n]]
    else:
        todo = [(q, render(sc)) for sc, q in cases(a.n, a.split)]
    rows, out = [], []
    for i in range(0, len(todo), 16):
        part = todo[i:i + 16]
        with torch.no_grad():
            img = e.image_tokens(pixels([im for _, im in part], e.size))
        for (q, _), t in zip(part, img):
            got = e.answer(t, q["question"], q["history"])
            ok = correct(q["kind"], q["answer"], got)
            rows.append((q["kind"], ok))
            out.append(dict(image=q["image"], question=q["question"], answer=got))
            if not ok and a.wrong > 0:
                a.wrong -= 1
                print("%s [%s] %s\n  want %r\n  got  %r" % (q["image"], q["kind"], q["question"], q["answer"], got))
    print(table(rows))
    if a.answers:
        save_answers(a.answers, out)
    if a.peaks:
        for k, v in sorted(e.peak.items(), key=lambda kv: -kv[1])[:12]:
            print("%-44s %10.2f" % (k, v))


if __name__ == "__main__":
    main()
