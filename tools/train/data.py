"""Scenes -> tensors. One row per image: prefix, image tokens, then conversations that each see only the prefix, the image and
themselves (positions restart), so every conversation is trained exactly as it is asked: alone. One about two images has the
tokens of the second among its own; one without an image sees the prefix alone.

ids: a token, or -1 - (place in the batch's image tokens)."""
import numpy as np
import torch

from fast import LIB
from model import rope_tables
from rng import Rng
from pictures import partner, picture, show
from scenes import COLORS, SHAPES, SIZES, font, questions, render, scene, to_input
from talk import talks

KIND_NAMES = ["describe", "count", "color", "shape", "size", "where", "relation", "text", "yesno", "absent", "context", "followup",
              "correction", "json", "unknown", "noimage", "two", "chat"]


CHARS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
COLOR_NAMES, SIZE_NAMES = sorted(COLORS), sorted(SIZES)
AUX = dict(n_char=len(CHARS) + 1, n_slot=7, n_shape=len(SHAPES) + 1, n_color=len(COLOR_NAMES) + 1, n_size=len(SIZE_NAMES))


def places(sc, size):
    """What stands where, for the auxiliary heads: cells [16,16,3] (character, shape, colour; 0 = none), and for grids of 8
    and 4 the objects per cell and the words whose centre is in a cell (cell, spelling; 0 = end, -1 = beyond). Grids of 16, 8, 4: is the object outlined."""
    k = size / sc.L
    ox, oy = (sc.L - sc.W) // 2 * k, (sc.L - sc.H) // 2 * k
    g = size // 16
    cells = np.zeros((g, g, 3), np.int64)
    c = np.arange(g) * 16 + 8.0
    X, Y = np.meshgrid(c, c)
    out = {"cells": cells}
    for n in (8, 4):
        out["obj%d" % n] = np.zeros((n * n, len(SHAPES) + len(COLOR_NAMES) + len(SIZE_NAMES)), np.float32)
        out["word%d" % n] = {}
    pos = {}
    for o in sc.objs + sc.texts:                          # where a thing is in the image, -1 .. 1, if alone in its cell
        x, y = o.cx * k + ox, o.cy * k + oy
        at = min(3, int(y * 4 / size)) * 4 + min(3, int(x * 4 / size))
        pos[at] = None if at in pos else [2 * o.cx / sc.W - 1, 2 * o.cy / sc.H - 1]
    out["pos4"] = pos
    for n in (16, 8, 4):                                  # the one object there: 1 outlined, 0 filled; -1 none or several
        out["line%d" % n] = np.full(n * n, -1, np.int8)
    centres = {n: [min(n - 1, int((o.cy * k + oy) * n / size)) * n + min(n - 1, int((o.cx * k + ox) * n / size)) for o in sc.objs]
               for n in (8, 4)}
    for i, o in enumerate(sc.objs):
        x, y, r = o.cx * k + ox, o.cy * k + oy, o.r * k
        for n in (8, 4):
            if centres[n].count(centres[n][i]) == 1:
                out["line%d" % n][centres[n][i]] = o.outline
        near = (X - x) ** 2 + (Y - y) ** 2 < (.85 * r) ** 2
        near[min(g - 1, int(y / 16)), min(g - 1, int(x / 16))] = True
        si, ci, zi = SHAPES.index(o.shape), COLOR_NAMES.index(o.color), SIZE_NAMES.index(o.size)
        cells[near, 1], cells[near, 2] = si + 1, ci + 1
        out["line16"].reshape(g, g)[near] = o.outline
        for n in (8, 4):
            q = out["obj%d" % n][min(n - 1, int(y * n / size)) * n + min(n - 1, int(x * n / size))]
            q[si] = q[len(SHAPES) + ci] = q[len(SHAPES) + len(COLOR_NAMES) + zi] = 1
    for t in sc.texts:
        x, y, w, h = t.cx * k + ox, t.cy * k + oy, t.w * k, t.h * k
        f = font(t.font, t.px)
        e = [(f.getlength(t.word[:i]) - t.off[0]) * k * getattr(t, "k", 1) - w / 2 for i in range(len(t.word) + 1)]
        cs, sn = np.cos(np.radians(t.rot)), np.sin(np.radians(t.rot))
        U, V = (X - x) * cs - (Y - y) * sn, (X - x) * sn + (Y - y) * cs
        row = np.abs(V) <= max(h / 2, 8)
        for i, ch in enumerate(t.word):
            cells[row & (U >= e[i]) & (U < e[i + 1]), 0] = CHARS.index(ch) + 1
        sp = ([CHARS.index(ch) + 1 for ch in t.word] + [0] + [-1] * 7)[:7]
        for n in (8, 4):
            at = min(n - 1, int(y * n / size)) * n + min(n - 1, int(x * n / size))
            out["word%d" % n][at] = None if at in out["word%d" % n] else sp
    return out


def pack_places(ps):
    y = {"cells": torch.from_numpy(np.stack([p["cells"] for p in ps]))}
    for n in ("16", "8", "4"):
        y["line" + n] = torch.from_numpy(np.stack([p["line" + n] for p in ps]))
    for n in ("8", "4"):
        y["obj" + n] = torch.from_numpy(np.stack([p["obj" + n] for p in ps]))
        m = int(n) ** 2
        w = [(i * m + at, sp) for i, p in enumerate(ps) for at, sp in p["word" + n].items() if sp]
        if n == "4":
            w4 = [(i * m + at, xy) for i, p in enumerate(ps) for at, xy in p["pos4"].items() if xy]
            y["pos4at"] = torch.tensor([a for a, _ in w4], dtype=torch.long)
            y["pos4"] = torch.tensor([s for _, s in w4], dtype=torch.float32)
        y["word" + n + "at"] = torch.tensor([a for a, _ in w], dtype=torch.long)
        y["word" + n] = torch.tensor([s for _, s in w], dtype=torch.long)
    return y


def encode_row(tok, convs, n_img, at=0):
    """convs: (images 0, 1 or 2, turns); `at`: the row's image in the batch (the second of two; the first is the one before it). ids,
    pos, branch, tokens of the trunk that are seen, and per answer (kind, positions that predict it, target ids)."""
    image = lambda i: [-1 - (i * n_img + k) for k in range(n_img)]
    pre = tok.prefix()
    two = [c for c in convs if c[0] == 2]
    convs = [c for c in convs if c[0] != 2]
    ids = pre + image(at)
    pos = list(range(len(ids)))
    br = [0] * len(ids)
    vis = [p + 1 for p in pos]
    trunk, ans = len(ids), []
    for b, (images, conv) in enumerate(convs + two):
        seq, marks = [], []
        if images == 2:                                   # the trunk has the second image, so the first is told after the prefix
            seq = image(at - 1) + tok.encode("\n") + image(at)
        for k, t in enumerate(conv):
            q = tok.next_turn() + tok.question(t["question"]) if k else tok.question(t["question"], images > 0)
            seq += q
            a = tok.encode(t["answer"]) + [tok.im_end]
            if "said" in t:                               # a wrong answer, not to be learnt
                seq += tok.encode(t["said"]) + [tok.im_end]
                continue
            marks.append((t["kind"], len(seq) - 1, a))
            seq += a
        if "said" not in conv[-1]:
            seq = seq[:-1]
        off = len(ids)
        for kind, o, a in marks:
            ans.append((KIND_NAMES.index(kind), off + o, a))
        base = trunk if images == 1 else len(pre)
        ids += seq
        pos += range(base, base + len(seq))
        br += [b + 1] * len(seq)
        vis += [base] * len(seq)
    return ids, pos, br, vis, ans


def pack(rows, images):
    n = max(len(r[0]) for r in rows)
    n = (n + 7) // 8 * 8
    B = len(rows)
    ids, pos, br, vis = (np.full((B, n), v, np.int64) for v in (0, 0, -2, 0))
    at, tgt, seg, kinds = [], [], [], []
    m = max(sum(len(t) for _, _, t in r[4]) for r in rows)
    only = np.zeros((B, m), np.int64)
    for i, (a, p, b, v, ans) in enumerate(rows):
        ids[i, :len(a)], pos[i, :len(a)], br[i, :len(a)], vis[i, :len(a)] = a, p, b, v
        j = 0
        for kind, o, t in ans:
            for k, x in enumerate(t):
                only[i, j] = o + k
                at.append(i * m + j)
                j += 1
                tgt.append(x)
                seg.append(len(kinds))
            kinds.append(kind)
    T = torch.from_numpy
    return dict(px=T(np.stack(images)) if images else None, ids=T(ids), pos=T(pos), br=T(br), vis=T(vis), only=T(only), at=torch.tensor(at), tgt=torch.tensor(tgt),
                seg=torch.tensor(seg), kinds=torch.tensor(kinds))


def batch(tok, first, count, n_q, n_img, size, talk=False, places_too=True):
    """first: the number of the first picture. talk: the second edition's pictures and conversations (first is even then)."""
    rows, ims, ps, last = [], [], [], None
    for i, s in enumerate(range(first, first + count)):
        if talk:
            sc = picture("train", s)
            ims.append(to_input(show(sc), size))
            rows.append(encode_row(tok, talks(Rng("talk", s), sc, last if partner(s) is not None else None, n_q), n_img, i))
            last = sc
        else:
            sc = scene("train", s, max(0.15, 0.8 * (1 - (s - 1000000) / 16000)))
            ims.append(to_input(render(sc), size))
            rows.append(encode_row(tok, [(1, c) for c in questions(sc, Rng("questions", s), n_q)], n_img, i))
        if places_too:
            ps.append(places(sc, size))
    b = pack(rows, ims)
    if places_too:
        b["places"] = pack_places(ps)
    return b


def batch_again(tok, first, count, epoch, n_q, n_img, features):
    """Pictures whose features are known, with new conversations."""
    rows, last = [], None
    for i, s in enumerate(range(first, first + count)):
        sc = picture("train", s)
        rows.append(encode_row(tok, talks(Rng("talk", s, epoch), sc, last if partner(s) is not None else None, n_q), n_img, i))
        last = sc
    b = pack(rows, [])
    b["features"] = features[first:first + count]
    return b


_tables, MAX_ROW = [], 1024                              # MAXN of kernels.c


def attention_meta(b):
    """What Attention in fast.py needs to know about a packed batch."""
    if not _tables:
        c, s = rope_tables(torch.arange(MAX_ROW), 32)
        _tables.extend([c[:, :16].contiguous(), s[:, :16].contiguous()])
    br = b["br"]
    B, n = br.shape
    if n > MAX_ROW:
        raise ValueError("a row of %d tokens; kernels.c takes up to %d: fewer --questions, or NO_FAST=1" % (n, MAX_ROW))
    rows = torch.arange(n, dtype=torch.int32).expand(B, n)
    new = torch.ones(B, n, dtype=torch.bool)
    new[:, 1:] = (br[:, 1:] != br[:, :-1]) | (br[:, 1:] < 0)
    start = torch.where(new, rows, 0).cummax(1).values
    start = torch.where(br == 0, rows + 1, start)         # a token of the trunk sees the trunk up to itself
    return dict(rows=rows.contiguous(), only=b["only"].int().contiguous(), start=start.int().contiguous(), seen=b["vis"].int().contiguous(),
                pos=b["pos"].int().contiguous(), cos=_tables[0], sin=_tables[1])


def forward(model, b, device="cpu"):
    """Logits at the positions that predict answers."""
    if "features" in b:
        img = model.project(b["features"].to(device).float())
    else:
        px = b["px"].to(device).permute(0, 3, 1, 2).float() / 255      # stays channels-last in memory
        img = model.image_tokens(px)
    ids, br, pos = b["ids"].to(device), b["br"].to(device), b["pos"].to(device)
    x = torch.nn.functional.embedding(ids.clamp_min(0), model.embed)
    img = img.to(x.dtype).flatten(0, 1)
    x = torch.where((ids < 0)[..., None], torch.nn.functional.embedding((-1 - ids).clamp_min(0), img), x)
    n = ids.shape[1]
    if LIB is not None and torch.is_autocast_enabled("cpu"):
        h = model.decode(x, pos, attention_meta(b), None, b["only"])
        return model.logits(h.reshape(-1, h.shape[-1])[b["at"]])
    trunk = (br[:, None, :] == 0) & (torch.arange(n, device=device)[None, None] < b["vis"].to(device)[:, :, None])
    ok = trunk | ((br[:, None, :] == br[:, :, None]) & torch.ones(n, n, dtype=torch.bool, device=device).tril())
    mask = torch.zeros(ok.shape, device=device).masked_fill_(~ok, -1e4)[:, None]
    h = model.decode(x, pos, mask, None, b["only"].to(device))
    return model.logits(h.reshape(-1, h.shape[-1])[b["at"].to(device)])
