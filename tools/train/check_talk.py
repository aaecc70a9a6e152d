#!/usr/bin/env python3
"""check_talk.py [-n 400] [--first 0] [--split train]: answers every question of talk.py a second time and compares.

Listener below knows what is in the pictures and reads the conversation's words, as a user's; it shares no rule with talk.py or
scenes.py, and nothing of what they noted while they asked. Prints what differs, and how many turns of which kind agreed."""
import argparse
import json
import os
import re
import sys
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

SHAPES = "circle square triangle rectangle star heart cross hexagon moon arrow".split()
COLORS = "red orange yellow green blue purple pink brown black white gray".split()
SIZES = "small medium large".split()
OF = {"color": COLORS, "shape": SHAPES, "size": SIZES, "style": ["filled", "outlined"]}
NOUNS = "object objects shape shapes one ones".split()
SIDES = {"left": ("x", -1), "right": ("x", 1), "above": ("y", -1), "below": ("y", 1)}


def singular(w):
    return "cross" if w in ("crosses", "cross") else w[:-1] if w.endswith("s") and w[:-1] in SHAPES else w


def style(o):
    return "outlined" if o.outline else "filled"


class Listener:
    def __init__(self, pictures):
        self.pictures = pictures
        self.focus = self.about = self.members = self.last = None

    # ---- what is there

    def sc(self):
        return self.pictures[0]

    def named(self, words, objs=None):
        """The objects that a phrase fits, or None if it names something that is never drawn."""
        got = list(self.sc().objs if objs is None else objs)
        for w in words.split():
            w = singular(w)
            if w in COLORS:
                got = [o for o in got if o.color == w]
            elif w in SHAPES:
                got = [o for o in got if o.shape == w]
            elif w in SIZES:
                got = [o for o in got if o.size == w]
            elif w in ("filled", "outlined"):
                got = [o for o in got if style(o) == w]
            elif w not in NOUNS:
                return None
        return got

    def place(self, o, sc=None):
        sc = sc or self.sc()
        x, y = o.cx / sc.W, o.cy / sc.H
        column = "left" if x < .35 else "right" if x > .65 else "" if .41 < x < .59 else None
        row = "top" if y < .35 else "bottom" if y > .65 else "" if .41 < y < .59 else None
        assert column is not None and row is not None, "no clear place"
        return " ".join(w for w in (row, column) if w) or "center"

    def of(self, o, attr):
        return self.place(o) if attr == "where" else style(o) if attr == "style" else getattr(o, attr)

    def on_side(self, o, b, side):
        axis, sign = SIDES[side]
        d = ((o.cx - b.cx) if axis == "x" else (o.cy - b.cy)) * sign
        assert abs(d) > .1 * self.sc().L, "too close to say"
        return d > 0

    def one(self, words):
        """The only thing a phrase fits; a sentence if there is none."""
        if words == "text":
            assert len(self.sc().texts) == 1
            return self.sc().texts[0]
        got = self.named(words)
        if not got:
            return "There is no %s." % words
        assert len(got) == 1, "'%s' fits %d" % (words, len(got))
        return got[0]

    # ---- what is asked

    def tell(self, o, attr):
        if isinstance(o, str):
            self.focus, self.about, self.members = None, None, None
            return o
        self.focus, self.about, self.members = o, attr, None
        return self.of(o, attr)

    def attribute(self, q):
        """(attr, phrase) of a question about one thing."""
        for attr, form in (("color", r"what colou?r is (.+)"), ("color", r"what is the color of (.+)"), ("color", r"which color does (.+) have"),
                           ("size", r"how (?:big|large) is (.+)"), ("size", r"what size is (.+)"), ("size", r"is (.+) small, medium or large"),
                           ("style", r"is (.+) (?:filled or outlined|outlined or filled)"), ("where", r"in which part of the picture is (.+)"),
                           ("where", r"(?:and )?where is (.+?)(?: in the picture)?"), ("shape", r"what is the shape of (.+)"),
                           ("shape", r"what shape is (.+)"), ("shape", r"which shape is (it|[a-z]+(?: [a-z]+)?)")):
            m = re.fullmatch(form, q)
            if m and not re.search(r"left|right|above|below|in the picture$", m[1]):
                return attr, m[1]
        m = re.fullmatch(r"(?:and|what is) its (color|size|shape)", q)
        if m:
            return m[1], "it"
        m = re.fullmatch(r"what is the (.+) object", q)
        if m and all(w in COLORS + SIZES for w in m[1].split()):
            return "shape", "the " + m[1]
        return None

    def count(self, words):
        self.focus = self.about = None
        self.members = self.named(words)
        self.words = words
        return str(len(self.members or ()))

    def answer(self, question):
        q = question.lower().strip().rstrip("?.!")
        as_json = re.search(r"( answer)?( as|[.?,]? answer in| in) json$", q)
        asked = q
        if re.fullmatch(r"(say that |answer )?as json(, please)?|(please answer )?in json(, please)?", q):
            return json.dumps({self.about: self.of(self.focus, self.about)}, separators=(",", ":"))
        if as_json and self.pictures and not re.match(r"(describe|list)\b", q):
            plain = q[:as_json.start()].rstrip("?.")
            return self.in_json(plain)
        a = self.speak(asked)
        self.last = a
        return a

    def in_json(self, q):
        a = self.speak(q)
        got = self.attribute(q)
        if got:
            v = {got[0]: None if a.startswith("There is no") else a}
        elif q.startswith("how many"):
            v = {"count": int(a)}
        elif a.lower() in ("yes", "no"):
            v = {"answer": a.lower() == "yes"}
        elif "shape" in q:
            v = {"shape": a}
        else:
            v = {"text": a}
        self.last = None
        return json.dumps(v, separators=(",", ":"))

    def speak(self, q):
        sc = self.sc() if self.pictures else None
        chat = {"hello": "Hello!", "hi": "Hello!", "thanks": "You are welcome.", "thank you": "You are welcome.", "bye": "Goodbye!", "goodbye": "Goodbye!"}
        if q in chat:
            return chat[q]
        if q in ("who are you", "what are you"):
            return "A small demonstration model."
        if q in ("what can you do", "can you help me"):
            return "I name shapes and colors, count, compare and read words."
        if not self.pictures:
            return "There is no image."
        if len(self.pictures) == 2:
            return self.two(q)
        # ---- everything there is
        if re.fullmatch(r"describe the (picture|image)|what is in the picture|what do you see|what does the image show", q):
            alone = len(sc.objs) == 1 and not sc.texts
            self.focus, self.about, self.members = (sc.objs[0] if alone else None), None, None
            return ("describe", sc)
        m = re.fullmatch(r"(describe|list) (.+) (?:as|in) json", q)
        if m:
            entry = lambda o: {"shape": o.shape, "color": o.color, "size": o.size}
            everything = m[2] in ("the picture", "the image")
            self.about = self.members = None
            row = sorted(sc.objs, key=lambda o: o.cx)
            self.focus = None
            if m[1] == "list":
                if len(row) > 3:
                    return json.dumps({"count": len(row)}, separators=(",", ":"))
                return json.dumps({"shapes": [entry(o) for o in row]}, separators=(",", ":"))
            if everything:
                v = {"count": len(row), "shapes": [entry(o) for o in row], "text": [t.word for t in sorted(sc.texts, key=lambda t: t.cy)]}
                if len(row) > 3:
                    del v["shapes"]
                return json.dumps(v, separators=(",", ":"))
            self.focus = self.one(m[2][4:])
            return json.dumps(entry(self.focus), separators=(",", ":"))
        # ---- corrections
        m = re.fullmatch(r"(?:no, |sorry, )?i meant (its color|its size|its shape|its position|whether it is filled)", q)
        if m:
            return self.tell(self.focus, {"its position": "where", "whether it is filled": "style"}.get(m[1], m[1][4:]))
        m = re.fullmatch(r"(?:no, i meant|sorry, i meant|i meant|no,) the (.+)", q)
        if m:
            return self.tell(self.one(m[1]), self.about)
        if q in ("are you sure", "really", "is that right"):
            return "Yes, %s." % self.last
        if q in ("look again", "check again", "please look again", "try again"):
            return self.of(self.focus, self.about) if self.last.startswith(("Yes, ", "No, ")) else self.last
        m = re.fullmatch(r"isn't it (?:an? )?(\w+)|i think it is (?:an? )?(\w+)|it is (?:an? )?(\w+), isn't it", q)
        if m:
            claim = [w for w in m.groups() if w][0]
            attr = [a for a in OF if claim in OF[a]][0]
            truth = self.tell(self.focus, attr)
            return "%s, it is %s." % ("Yes" if claim == truth else "No", self.article(truth) if attr == "shape" else truth)
        m = re.fullmatch(r"(?:aren't there|i see) (\d+)", q)
        if m:
            n = len(self.members or ())
            return "%s, there %s %d." % ("Yes" if int(m[1]) == n else "No", "is" if n == 1 else "are", n)
        # ---- numbers
        m = re.fullmatch(r"how many of them are (.+)", q)
        if m:
            self.members = self.named(m[1], self.members)
            self.words += " " + m[1]
            return str(len(self.members))
        m = re.fullmatch(r"how many (.+?) (?:are there|can you see|are in the picture)|count the (.+)", q)
        if m:
            return self.count(m[1] or m[2])
        m = re.fullmatch(r"(?:and how many|and|what about) (\w+s|\w+ ones)", q)
        if m and m[1] != "cross" and self.members is not None and not re.match(r"(an?|the) ", m[1]):
            return self.count(m[1])
        m = re.fullmatch(r"are there (\d+) shapes", q)
        if m:
            self.focus = self.about = self.members = None
            return "Yes" if len(sc.objs) == int(m[1]) else "No"
        # ---- relations
        m = re.fullmatch(r"is (.+?) (?:to the )?(left|right|above|below)(?: of)? the (.+)", q)
        if m:
            a = self.focus if m[1] == "it" else self.one(m[1][4:])
            b = self.one(m[3])
            self.focus = self.about = self.members = None
            return "Yes" if self.on_side(a, b, m[2]) else "No"
        m = re.fullmatch(r"(?:what|which shape) is (?:to the )?(left|right|above|below)(?: of)? the (.+)", q)
        if m:
            b = self.one(m[2])
            got = [o for o in sc.objs if o is not b and self.on_side(o, b, m[1])]
            assert len(got) == 1
            self.focus, self.about, self.members = got[0], None, None
            return got[0].color + " " + got[0].shape
        m = re.fullmatch(r"(?:what|which) is the (leftmost|rightmost|topmost|lowest) (?:shape|object)", q)
        if m:
            key = {"leftmost": lambda o: o.cx, "rightmost": lambda o: -o.cx, "topmost": lambda o: o.cy, "lowest": lambda o: -o.cy}[m[1]]
            o = min(sc.objs, key=key)
            self.focus, self.about, self.members = o, None, None
            return o.color + " " + o.shape
        # ---- the other one, and another
        m = re.fullmatch(r"(?:and|what about) the (other .+)|(.*\bthe other (?!side).+)", q)
        if m:
            words = re.search(r"the other (\w+)", q)[1]
            if words == "text" or not hasattr(self.focus, "shape"):
                b = [t for t in sc.texts if t is not self.focus]
                assert len(b) == 1
                self.focus, self.about = b[0], None
                return b[0].word
            got = [o for o in (sc.objs if words == "one" else self.named(words)) if o is not self.focus]
            assert len(got) == 1
            attr = self.about if m[1] else self.attribute(q)[0]
            return self.tell(got[0], attr)
        m = re.fullmatch(r"(?:and|what about|and what about) the (.+)", q)
        if m:
            attr = self.about
            a = self.tell(self.one(m[1]), attr)
            return a
        m = re.fullmatch(r"(?:and|what about) (an? .+)", q)
        if m:
            return self.exists(m[1])
        # ---- words
        if re.search(r"text|written|word|number|what does it say", q) and not q.startswith(("where", "in which part", "is there", "can you see")):
            self.about = self.members = None
            if not sc.texts:
                self.focus = None
                return "There is no text."
            m = re.search(r"(?:at|on) the (top|bottom|left|right)", q)
            if m:
                self.focus = min(sc.texts, key={"top": lambda t: t.cy, "bottom": lambda t: -t.cy, "left": lambda t: t.cx, "right": lambda t: -t.cx}[m[1]])
                return self.focus.word
            if q in ("read all the text", "what are the words"):
                self.focus = None
                return "\n".join(t.word for t in sorted(sc.texts, key=lambda t: t.cy))
            if q.startswith(("is there", "can you see")):
                return "Yes"
            assert len(sc.texts) == 1
            self.focus = sc.texts[0]
            return self.focus.word
        if re.fullmatch(r"is there any text|is there text in the picture|can you see a word or a number", q):
            self.focus = self.about = self.members = None
            return "Yes" if sc.texts else "No"
        # ---- one thing
        m = re.fullmatch(r"(?:is there|can you see|does the picture show) (an? .+?)(?: in the picture)?", q)
        if m:
            return self.exists(m[1])
        if q in ("which shape is in the picture", "what shape is this", "what shape is it") and len(sc.objs) == 1:
            return self.tell(sc.objs[0], "shape")
        got = self.attribute(q)
        if got and not re.search(r"made|buy|weather", q):
            attr, words = got
            if words == "it":
                return self.tell(self.focus, attr)
            return self.tell(self.one(words[4:] if words.startswith("the ") else words), attr)
        m = re.fullmatch(r"is (.+) (\w+)", q)
        if m and m[2] in COLORS + SIZES:
            o = self.focus if m[1] == "it" else self.one(m[1][4:])
            self.focus, self.about, self.members = o, None, None
            return "Yes" if m[2] in (o.color, o.size) else "No"
        # ---- what no picture shows
        m = re.search(r"the (\w+(?: \w+){0,2}?)(?: (?:there|cost|made of|mean|feel like|smell like|expensive|drawn|think|come from|object))?$", q)
        self.focus = self.about = self.members = None
        if m and self.named(m[1]) and len(self.named(m[1])) == 1:
            self.focus = self.named(m[1])[0]
        return "The picture does not show that."

    def article(self, w):
        return ("an " if w[0] in "aeiou" else "a ") + w

    def exists(self, phrase):
        got = self.named(phrase.split(" ", 1)[1])
        self.focus, self.about, self.members = (got[0] if got and len(got) == 1 else None), None, None
        return "Yes" if got else "No"

    # ---- two pictures

    def two(self, q):
        a, b = self.pictures
        nth = re.search(r"\b(?:in|of)? ?the (first|second)(?: image)?$", q) or re.search(r"the (first|second) image", q)
        pick = lambda: self.pictures[["first", "second"].index(nth[1])]
        each = lambda words: [self.named(words, p.objs) or [] for p in self.pictures]
        m = re.fullmatch(r"and in the (first|second)(?: image)?", q)
        if m:
            return self.again(pick())
        self.again = None
        if re.fullmatch(r"what differs|what is different|what is the difference|find the difference|what has changed", q):
            return self.difference(a, b)
        m = re.fullmatch(r"(?:which (?:image|picture) has more|in which image are there more) (.+)", q)
        if m:
            x, y = map(len, each(m[1]))
            return "The first" if x > y else "The second" if y > x else "The same number"
        m = re.fullmatch(r"(?:which image shows|which picture has|in which image is there) an? (.+)", q)
        if m:
            x, y = map(bool, each(m[1]))
            return {(1, 1): "Both", (0, 0): "Neither", (1, 0): "The first", (0, 1): "The second"}[x, y]
        m = re.fullmatch(r"is there an? (.+) in both images", q)
        if m:
            return "Yes" if all(each(m[1])) else "No"
        m = re.fullmatch(r"how many (.+?) are there in (?:both images together|all)", q)
        if m:
            return str(sum(map(len, each(m[1]))))
        m = re.fullmatch(r"how many (.+) are in the (first|second) image", q)
        if m:
            self.again = lambda p: str(len(self.named(m[1], p.objs)))
            return self.again(pick())
        m = re.fullmatch(r"(?:do the (\w+) have the same|are the (\w+) the same) (color|size)", q)
        if m:
            x, y = each(m[1] or m[2])
            assert len(x) == len(y) == 1
            return "Yes" if getattr(x[0], m[3]) == getattr(y[0], m[3]) else "No"
        if "text in the" in q:
            assert len(pick().texts) == 1
            self.again = lambda p: p.texts[0].word
            return self.again(pick())
        if q.startswith("describe"):
            return ("describe", pick())
        m = re.sub(r" in the (first|second) image", "", q)
        attr, words = self.attribute(m)
        got = self.named(words[4:], pick().objs)
        assert len(got) == 1
        return self.place(got[0], pick()) if attr == "where" else self.of(got[0], attr)

    def difference(self, a, b):
        key = lambda o: (round(o.cx, 3), round(o.cy, 3), o.shape)
        x, y = {key(o): o for o in a.objs}, {key(o): o for o in b.objs}
        for k in x:
            if k not in y:
                return "The %s %s is only in the first." % (x[k].color, x[k].shape)
        for k in y:
            if k not in x:
                return "The %s %s is only in the second." % (y[k].color, y[k].shape)
            for attr in ("color", "style"):
                v, w = self.of(x[k], attr), self.of(y[k], attr)
                if v != w:
                    return re.compile("The (%s )?%s is %s in the first and %s in the second." % (x[k].color, x[k].shape, v, w))
        s, t = [t.word for t in a.texts], [t.word for t in b.texts]
        return "Nothing." if s == t else 'The text is "%s" in the first and "%s" in the second.' % (s[0], t[0])


def described(sc, text):
    """Does the sentence say what there is?"""
    want = Counter()
    if len(sc.objs) <= 3:
        for o in sc.objs:
            want["%s %s%s %s" % (o.size, "outlined " if o.outline else "", o.color, o.shape)] += 1
    else:
        want["%d shapes" % len(sc.objs)] += 1
    for t in sc.texts:
        want['"%s"' % t.word.lower()] += 1
    got = Counter()
    for part in re.split(r", | and ", text.rstrip(".")):
        part = re.sub(r"^an? |^the (?:text|number) ", "", part.lower())
        got[part] += 1
    return got == want or not want and text == "An empty background."


def agrees(mine, turn):
    said = turn["answer"]
    if isinstance(mine, tuple):
        return described(mine[1], said)
    if isinstance(mine, re.Pattern):
        return bool(mine.fullmatch(said))
    return mine == said if said[0] in '{"' else mine.lower() == said.lower()


def main():
    from pictures import partner, picture
    from rng import Rng
    from talk import talks
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-n", type=int, default=400)
    ap.add_argument("--first", type=int, default=0)
    ap.add_argument("--split", default="train")
    a = ap.parse_args()
    n, bad, before = Counter(), 0, None
    for s in range(a.first, a.first + a.n):
        sc = picture(a.split, s)
        for images, conv in talks(Rng("check", s), sc, before if partner(s) is not None else None):
            ear = Listener([[], [sc], [before, sc]][images])
            for k, t in enumerate(conv):
                try:
                    mine = ear.answer(t["question"])
                except Exception as e:
                    mine = "%s: %s" % (type(e).__name__, e)
                n[t["kind"]] += 1
                if not agrees(mine, t):
                    bad += 1
                    n["wrong " + t["kind"]] += 1
                    print("picture %d: %s\n  talk.py says %r, here %r" % (s, " | ".join("%s %s" % (u["question"], u["answer"]) for u in conv[:k + 1]),
                                                                     t["answer"], mine))
                    break
        before = sc
    print(", ".join("%s %d" % kv for kv in sorted(n.items())))
    print("%d turns, %d differ" % (sum(v for k, v in n.items() if not k.startswith("wrong")), bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
