#!/usr/bin/env python3
"""score.py QUESTIONS.jsonl ANSWERS.jsonl [--wrong N]: score answers by exact rules, whichever engine gave them.

ANSWERS: one JSON object a line with "answer", in the order of the questions (or with the same "image" and "question"). Of
conversations the turns are scored too.
Rules, after lower-casing and dropping a final full stop and outer spaces: describe: the same shapes with their colours (in
any order), the same printed words and the same count; every other kind: the same words. Letter case never counts."""
import argparse
import json
import re
from collections import Counter

SHAPE = r"circle|square|triangle|rectangle|star|heart|cross|hexagon|moon|arrow"
COLOR = r"red|orange|yellow|green|blue|purple|pink|brown|black|white|gray"


def norm(s):
    s = " ".join(s.lower().split())
    return s[:-1].strip() if s.endswith(".") else s


def facts(s):
    s = s.lower()
    plain = re.sub(r'"[^"]*"', '""', s)
    return (Counter(re.findall(r"\b(%s) (%s)\b" % (COLOR, SHAPE), plain)), Counter(re.findall(r'"([^"]*)"', s)),
            re.findall(r"\b(\d+) shapes", plain), "empty" in plain)


def correct(kind, want, got):
    if kind == "describe":
        return facts(want) == facts(got)
    return norm(want) == norm(got)


def table(rows):
    """rows: [(kind, ok)] -> text"""
    n, k = Counter(x for x, _ in rows), Counter(x for x, ok in rows if ok)
    out = ["%-10s %6s %8s %8s" % ("kind", "n", "correct", "%")]
    for x in sorted(n):
        out.append("%-10s %6d %8d %8.1f" % (x, n[x], k[x], 100.0 * k[x] / n[x]))
    a, b = sum(n.values()), sum(k.values())
    out.append("%-10s %6d %8d %8.1f" % ("all", a, b, 100.0 * b / max(a, 1)))
    return "\n".join(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("questions")
    ap.add_argument("answers")
    ap.add_argument("--wrong", type=int, default=0, help="print so many wrong answers")
    a = ap.parse_args()
    qs = [json.loads(l) for l in open(a.questions)]
    an = [json.loads(l) for l in open(a.answers)]
    if an and "image" in an[0] and "question" in an[0]:
        by = {(x["image"], x["question"]): x["answer"] for x in an}
        got = [by.get((q.get("image"), q["question"]), "") for q in qs]
    else:
        got = [x["answer"] for x in an] + [""] * (len(qs) - len(an))
    rows, turns = [], []
    for q, g in zip(qs, got):
        ok = correct(q["kind"], q["answer"], g)
        rows.append((q["kind"], ok))
        turns.append(("turn %d" % q.get("turn", 1), ok))
        if not ok and a.wrong > 0:
            a.wrong -= 1
            print("%s [%s] %s\n  want %r\n  got  %r" % (q.get("image") or q["images"], q["kind"], q["question"], q["answer"], g))
    print(table(rows))
    if any("turn" in q for q in qs):
        print(table(turns))


if __name__ == "__main__":
    main()
