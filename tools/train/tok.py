"""Byte-level BPE of the Qwen2 family: builds the small vocabulary and encodes with it.

The merges are chosen, not counted: every ordinary question/answer word becomes one token by a chain of merges that starts
at its leading space or capital letter. Printed words stand after a quotation mark or at the start of an answer, where no
chain begins, so they are spelt letter by letter.
"""
import json
import os
import unicodedata

import regex

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RE = regex.compile(PATTERN)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SYSTEM = "You are a helpful assistant."


def byte_table():
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    order = keep + [b for b in range(256) if b not in set(keep)]
    t = {b: chr(b) for b in keep}
    for i, b in enumerate(order[len(keep):]):
        t[b] = chr(0x100 + i)
    return t, order


B2C, ORDER = byte_table()


def build(words, start=None):
    """words: strings (with their leading space or not) that shall be single tokens; start: a vocabulary and merges to add them to."""
    vocab, merges = start or ({B2C[b]: i for i, b in enumerate(ORDER)}, [])
    seen = set(merges)

    def chain(s, start=0):
        s = "".join(B2C[b] for b in s.encode())
        left = s[start]
        for c in s[start + 1:]:
            add(left, c)
            left += c
        for c in reversed(s[:start]):
            add(c, left)
            left = c + left

    def add(a, b):
        if (a, b) not in seen:
            seen.add((a, b))
            merges.append((a, b))
            vocab.setdefault(a + b, len(vocab))
    for w in words:
        chain(w)
    chain(' "')
    chain('".')
    chain('",')
    for w, at in (("system", 1), ("user", 0), ("assistant", 1)):   # chat roles: rare pairs first, last in rank
        chain(w, at)
    return vocab, merges


class Tokenizer:
    def __init__(self, d):
        self.vocab = json.load(open(os.path.join(d, "vocab.json"), encoding="utf-8"))
        self.rank = {}
        for line in open(os.path.join(d, "merges.txt"), encoding="utf-8"):
            if line.strip() and not line.startswith("#version"):
                self.rank[tuple(line.rstrip("\n").split(" "))] = len(self.rank)
        self.added = json.load(open(os.path.join(d, "added_tokens.json"), encoding="utf-8"))
        self.inv = {i: s for s, i in self.vocab.items()}
        self.c2b = {c: b for b, c in B2C.items()}
        self.size = len(self.vocab) + len(self.added)
        self.im_start, self.im_end = self.added["<|im_start|>"], self.added["<|im_end|>"]
        self.cache = {}

    def word(self, w):
        got = self.cache.get(w)
        if got is None:
            p = [B2C[b] for b in w.encode()]
            while len(p) > 1:
                r, i = min((self.rank.get((p[i], p[i + 1]), 1 << 30), i) for i in range(len(p) - 1))
                if r == 1 << 30:
                    break
                a, b, out, i = p[i], p[i + 1], [], 0
                while i < len(p):
                    if i + 1 < len(p) and p[i] == a and p[i + 1] == b:
                        out.append(a + b)
                        i += 2
                    else:
                        out.append(p[i])
                        i += 1
                p = out
            got = [self.vocab[x] for x in p]
            if len(self.cache) < 100000:
                self.cache[w] = got
        return got

    def encode(self, s):
        """Plain text (no special tokens inside)."""
        return [t for m in RE.findall(unicodedata.normalize("NFC", s)) for t in self.word(m)]

    def decode(self, ids):
        return bytes(self.c2b[c] for i in ids if i in self.inv for c in self.inv[i]).decode("utf-8", "replace")

    def prefix(self):
        """Everything before the image."""
        s, e = self.im_start, self.im_end
        return [s] + self.encode("system\n" + SYSTEM) + [e] + self.encode("\n") + [s] + self.encode("user\n")

    def question(self, q, line=True):
        return self.encode("\n" * line + q) + [self.im_end] + self.encode("\n") + [self.im_start] + self.encode("assistant\n")

    def next_turn(self):
        return self.encode("\n") + [self.im_start] + self.encode("user")


def collect_words(n=6000):
    from collections import Counter
    from rng import Rng
    from scenes import scene, questions
    c = Counter()
    for i in range(n):
        sc = scene("train", i)
        for conv in questions(sc, Rng("tok", i), 9):
            for t in conv:
                for s in (t["question"],) + (() if t["kind"] == "text" else (t["answer"],)):
                    s = regex.sub(r'"[^"]*"', '""', s)
                    for m in RE.findall(s):
                        if regex.fullmatch(r" ?\p{L}+", m) and len(m) > 1:
                            c[m] += 1
    words = sorted((w for w, k in c.items() if k >= 8 and (w[0] == " " or w[0].isupper())), key=lambda w: (-c[w], w))
    extra = [" helpful", " assistant", " thank", "Thank", "You", " photo", " this", " your", " and", " or"]
    for cw in ("What", "Which", "Where", "How", "Is", "Are", "Read", "Describe", "Count", "Does", "Can", "Do", "In"):
        extra.append(cw)
    return words + [w for w in extra if w not in c]


def collect_talk(old, n=6000):
    """The words of the second edition's conversations that are not single tokens of `old`."""
    from collections import Counter
    from pictures import picture
    from rng import Rng
    from talk import THINGS, talks
    c = Counter()
    for i in range(n):
        sc = picture("train", i)
        for _, conv in talks(Rng("tok-talk", i), sc, picture("train", i - 1) if i & 1 else None):
            for t in conv:
                a = t["answer"]
                if a[0] == "{":
                    c.update(RE.findall(regex.sub(r'"[A-Z0-9]+"', '"X"', a)))
                else:
                    a = regex.sub(r'"[^"]*"', '""', a) if any(map(str.islower, a)) else ""
                    c.update(m for m in RE.findall(t["question"]) + RE.findall(a) if m[0] == " " or m[0].isupper())
    things = {" " + w for t in THINGS for w in (t, t + "s", t + "es")}
    printable = lambda w: regex.fullmatch(r" ?\p{L}+", w) and any(map(str.islower, w)) or not regex.search(r"[\p{L}\p{N}\s]", w)
    words = sorted((w for w, k in c.items() if k >= 30 and w not in things and printable(w) and len(old.word(w)) > 1), key=lambda w: (-c[w], w))
    typed = "what which where how is are read describe count does can and".split()
    words += [" JSON"] + [w for w in typed if w not in words]
    return sorted(words, key=lambda w: w[0].islower())    # inside others' chains: last in rank


CHAT_TEMPLATE = ("{%- set turn = '<|im_start|>%s\n%s<|im_end|>\n' -%}"
                 "{%- if messages[0].role != 'system' -%}{{ turn | format('system', 'You are a helpful assistant.') }}"
                 "{%- endif -%}{%- for m in messages -%}{{ turn | format(m.role, m.content) }}{%- endfor -%}"
                 "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}")


def dump(path, obj, **kw):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(obj, f, ensure_ascii=False, **kw)
        f.write("\n")


def write(out, vocab, merges, max_len=512):
    os.makedirs(out, exist_ok=True)
    ids = [len(vocab) + i for i in range(3)]
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, s in zip(ids, SPECIAL)]
    j = lambda n: os.path.join(out, n)
    dump(j("vocab.json"), vocab, separators=(",", ":"))
    with open(j("merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(a + " " + b + "\n" for a, b in merges))
    dump(j("added_tokens.json"), {SPECIAL[0]: ids[0], SPECIAL[2]: ids[2], SPECIAL[1]: ids[1]}, indent=2)
    part = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    dump(j("special_tokens_map.json"), {"additional_special_tokens": SPECIAL[1:], "eos_token": dict(content=SPECIAL[2], **part),
                                        "pad_token": dict(content=SPECIAL[0], **part)}, indent=2)
    dec = {str(a["id"]): {k: a[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")} for a in added}
    dump(j("tokenizer_config.json"),
         {"add_prefix_space": False, "added_tokens_decoder": dec, "additional_special_tokens": SPECIAL[1:], "bos_token": None,
          "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": SPECIAL[2], "errors": "replace",
          "model_max_length": max_len, "pad_token": SPECIAL[0], "padding_side": "right", "split_special_tokens": False,
          "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}, indent=2)
    bl = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    dump(j("tokenizer.json"),
         {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
          "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
              {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, bl]},
          "post_processor": bl, "decoder": bl,
          "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                    "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": [a + " " + b for a, b in merges]}},
         separators=(",", ":"))


if __name__ == "__main__":
    import sys
    if len(sys.argv) > 2:                                 # tok.py DIR OLD: the second edition's, whose first tokens are OLD's
        old = Tokenizer(sys.argv[2])
        v, m = build(collect_talk(old), (dict(old.vocab), sorted(old.rank, key=old.rank.get)))
        write(sys.argv[1], v, m, 1024)
    else:
        v, m = build(collect_words())
        write(sys.argv[1], v, m)
    t = Tokenizer(sys.argv[1])
    print("entries", t.size)
    for s in ["\nWhat color is the large red circle?", "HELLO", "hello", "Hello", 'A small red star and the text "SUN".', "Top left",
              "There is no red star.", "system\n" + SYSTEM, "user\n", "assistant\n", "42", "what is written here", "bus", "They"]:
        print(repr(s), [t.decode([i]) for i in t.encode(s)])
    print(len(t.prefix()))
