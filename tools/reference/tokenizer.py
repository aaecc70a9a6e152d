"""Byte-level BPE of the Qwen2 family, in plain Python (needs the "regex" module for \\p classes).

encode(): 1. cut the text at added tokens (leftmost, longest); 2. NFC-normalise each remaining piece;
3. split it with PATTERN; 4. map UTF-8 bytes to the 256 printable stand-in characters; 5. BPE merges by
rank. No BOS, no prefix space, nothing appended.
"""
import json
import os
import unicodedata

try:
    import regex                     # only needed to encode text: writing a full-size checkpoint does without
except ImportError:
    regex = None

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

SYSTEM = "You are a helpful assistant."
IMAGE_TOKEN_INDEX = -200


def byte_alphabet():
    """byte -> stand-in character (GPT-2 table): printable Latin-1 maps to itself, the rest to U+0100+."""
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(0x100 + extra)
            extra += 1
    return table


def byte_order():
    """The order in which the 256 single-byte tokens take ids 0..255 in the Qwen2 vocabulary."""
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    return keep + [b for b in range(256) if b not in set(keep)]


class Tokenizer:
    def __init__(self, directory):
        vj, mt = os.path.join(directory, "vocab.json"), os.path.join(directory, "merges.txt")
        tj = os.path.join(directory, "tokenizer.json")
        if os.path.exists(vj) and os.path.exists(mt):
            with open(vj, encoding="utf-8") as f:
                self.vocab = json.load(f)
            merges = []
            with open(mt, encoding="utf-8") as f:
                for i, line in enumerate(f):
                    line = line.rstrip("\n")
                    if not line or (i == 0 and line.startswith("#version:")):
                        continue
                    merges.append(tuple(line.split(" ")))
            with open(os.path.join(directory, "added_tokens.json"), encoding="utf-8") as f:
                self.added = json.load(f)
        else:
            with open(tj, encoding="utf-8") as f:
                t = json.load(f)
            self.vocab = t["model"]["vocab"]
            merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in t["model"]["merges"]]
            self.added = {a["content"]: a["id"] for a in t["added_tokens"]}
        self.rank = {m: i for i, m in enumerate(merges)}
        self.b2c = byte_alphabet()
        self.c2b = {c: b for b, c in self.b2c.items()}
        self.inv = {i: s for s, i in self.vocab.items()}
        self.inv_added = {i: s for s, i in self.added.items()}
        self.size = max(max(self.inv), max(self.inv_added)) + 1          # len(tokenizer)
        self._added_re = None
        if self.added:
            alt = sorted(self.added, key=len, reverse=True)
            self._added_re = regex.compile("|".join(regex.escape(a) for a in alt))
        self._re = regex.compile(PATTERN)
        self._cache = {}

    def _bpe(self, word):
        if word in self._cache:
            return self._cache[word]
        parts = list(word)
        while len(parts) > 1:
            best, at = None, -1
            for i in range(len(parts) - 1):
                r = self.rank.get((parts[i], parts[i + 1]))
                if r is not None and (best is None or r < best):
                    best, at = r, i
            if best is None:
                break
            a, b = parts[at], parts[at + 1]
            i, out = 0, []
            while i < len(parts):            # merge every non-overlapping occurrence, left to right
                if i < len(parts) - 1 and parts[i] == a and parts[i + 1] == b:
                    out.append(a + b)
                    i += 2
                else:
                    out.append(parts[i])
                    i += 1
            parts = out
        self._cache[word] = parts
        return parts

    def _encode_plain(self, text):
        ids = []
        for m in self._re.finditer(unicodedata.normalize("NFC", text)):
            word = "".join(self.b2c[b] for b in m.group().encode("utf-8"))
            ids.extend(self.vocab[p] for p in self._bpe(word))
        return ids

    def encode(self, text):
        if self._added_re is None:
            return self._encode_plain(text)
        ids, pos = [], 0
        for m in self._added_re.finditer(text):
            if m.start() > pos:
                ids.extend(self._encode_plain(text[pos:m.start()]))
            ids.append(self.added[m.group()])
            pos = m.end()
        if pos < len(text):
            ids.extend(self._encode_plain(text[pos:]))
        return ids

    def decode(self, ids, skip_special=True):
        out, buf = [], bytearray()

        def flush():
            if buf:
                out.append(buf.decode("utf-8", "replace"))
                buf.clear()
        for i in ids:
            if i in self.inv_added:
                flush()
                if not skip_special:
                    out.append(self.inv_added[i])
            elif i in self.inv:
                buf.extend(self.c2b[c] for c in self.inv[i])
        flush()
        return "".join(out)

    # ---------------------------------------------------------------- prompt

    @staticmethod
    def prompt_text(user, system=SYSTEM, with_image=True):
        if with_image:
            user = "<image>\n" + user
        return ("<|im_start|>system\n" + system + "<|im_end|>\n<|im_start|>user\n" + user
                + "<|im_end|>\n<|im_start|>assistant\n")

    def encode_prompt(self, text):
        """Each piece between "<image>" markers is tokenised on its own; -200 goes in between."""
        ids = []
        for i, piece in enumerate(text.split("<image>")):
            if i:
                ids.append(IMAGE_TOKEN_INDEX)
            ids.extend(self.encode(piece))
        return ids
