#!/usr/bin/env python3
"""score.py QUESTIONS.jsonl ANSWERS.jsonl [--wrong N]: score answers by exact rules, whichever engine gave them.

QUESTIONS: a test of make_test.py. ANSWERS: one JSON object a line with "answer", in the order of the turns that are to be answered
(or, for a test without conversations, with the same "image" and "question"). Conversations are scored by turn, too.
Rules, after lower-casing and dropping a final full stop and outer spaces: describe: the same shapes with their colours (in
any order), the same printed words and the same count; every other kind: the same words. Letter case never counts."""
import argparse
import json
import re
import sys
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


def turns_of(line):
    """A line of questions.jsonl as a conversation: turns of {kind, question, answer}; those with `said` are not to be answered."""
    if "turns" in line:
        return line["turns"]
    return [dict(question=q, said=a) for q, a in line.get("history") or []] + \
        [{k: line[k] for k in ("kind", "question", "answer")}]


def asked(lines):
    """The turns that are to be answered, in order, each with its number and its line."""
    return [dict(t, turn=k + 1, line=line) for line in lines for k, t in enumerate(turns_of(line)) if "said" not in t]


def table(rows, turns=()):
    """rows: [(kind, ok)]; turns: the same with "turn 1" and so on -> text"""
    n, k = Counter(x for x, _ in rows), Counter(x for x, ok in rows if ok)
    tn, tk = Counter(x for x, _ in turns), Counter(x for x, ok in turns if ok)
    one = lambda x, n, k: "%-10s %6d %8d %8.1f" % (x, n, k, 100.0 * k / max(n, 1))
    out = ["%-10s %6s %8s %8s" % ("kind", "n", "correct", "%")]
    out += [one(x, n[x], k[x]) for x in sorted(n)] + [one(x, tn[x], tk[x]) for x in sorted(tn, key=lambda x: (len(x), x))]
    return "\n".join(out + [one("all", sum(n.values()), sum(k.values()))])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("questions")
    ap.add_argument("answers")
    ap.add_argument("--wrong", type=int, default=0, help="print so many wrong answers")
    a = ap.parse_args()
    lines = [json.loads(l) for l in open(a.questions) if l.strip()]
    an = [json.loads(l) for l in open(a.answers) if l.strip()]
    qs, talks = asked(lines), any("turns" in line for line in lines)
    if an and "image" in an[0] and "question" in an[0] and not talks and all("image" in line for line in lines):
        by = {(x["image"], x["question"]): x["answer"] for x in an}
        got = [by.get((q["line"]["image"], q["question"]), "") for q in qs]
    else:
        for i, (q, x) in enumerate(zip(qs, an)):
            if x.get("question", q["question"]) != q["question"]:
                sys.exit("%s: answer %d is to %r; expected the answer to %r, in the test's order" % (a.answers, i + 1, x["question"], q["question"]))
        got = [x["answer"] for x in an] + [""] * (len(qs) - len(an))
    rows, turns = [], []
    for q, g in zip(qs, got):
        ok = correct(q["kind"], q["answer"], g)
        rows.append((q["kind"], ok))
        turns.append(("turn %d" % q["turn"], ok))
        if not ok and a.wrong > 0:
            a.wrong -= 1
            shown = q["line"].get("image") or " ".join(q["line"]["images"])
            print("%s [%s, turn %d] %s\n  want %r\n  got  %r" % (shown, q["kind"], q["turn"], q["question"], q["answer"], g))
    print(table(rows, turns if talks else ()))


if __name__ == "__main__":
    main()
