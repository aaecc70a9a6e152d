"""Scenes -> tensors. One row per picture: prefix, image tokens, then n conversations that each see only the prefix, the
image and themselves (positions restart), so every conversation is trained exactly as it is asked: alone."""
import numpy as np
import torch

from rng import Rng
from scenes import questions, render, scene, to_input

KIND_NAMES = ["describe", "count", "color", "shape", "size", "where", "relation", "text", "yesno", "absent", "context", "followup"]


class Row:
    pass


def encode_row(tok, convs, n_img):
    """ids (-1 at image tokens), pos, branch, and per answer (kind, positions that predict it, target ids)."""
    pre = tok.prefix()
    ids = pre + [-1] * n_img
    pos = list(range(len(ids)))
    br = [0] * len(ids)
    base, ans = len(ids), []
    for b, conv in enumerate(convs):
        seq, marks = [], []
        for k, t in enumerate(conv):
            seq += (tok.next_turn() if k else []) + tok.question(t["question"])
            a = tok.encode(t["answer"]) + [tok.im_end]
            marks.append((t["kind"], len(seq) - 1, a))
            seq += a
        seq = seq[:-1]
        off = len(ids)
        for kind, at, a in marks:
            ans.append((KIND_NAMES.index(kind), off + at, a))
        ids += seq
        pos += range(base, base + len(seq))
        br += [b + 1] * len(seq)
    return ids, pos, br, ans


def pack(rows, images):
    n = max(len(r[0]) for r in rows)
    n = (n + 7) // 8 * 8
    B = len(rows)
    ids, pos, br = (np.full((B, n), v, np.int64) for v in (0, 0, -2))
    at, tgt, seg, kinds = [], [], [], []
    m = max(sum(len(t) for _, _, t in r[3]) for r in rows)
    only = np.zeros((B, m), np.int64)
    for i, (a, p, b, ans) in enumerate(rows):
        ids[i, :len(a)], pos[i, :len(a)], br[i, :len(a)] = a, p, b
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
    return dict(px=T(np.stack(images)), ids=T(ids), pos=T(pos), br=T(br), only=T(only), at=torch.tensor(at), tgt=torch.tensor(tgt),
                seg=torch.tensor(seg), kinds=torch.tensor(kinds))


def batch(tok, first, count, n_q, n_img, size):
    rows, ims = [], []
    for s in range(first, first + count):
        sc = scene("train", s)
        ims.append(to_input(render(sc), size))
        rows.append(encode_row(tok, questions(sc, Rng("questions", s), n_q), n_img))
    return pack(rows, ims)


def forward(model, b, device="cpu"):
    """Logits at the positions that predict answers."""
    px = b["px"].to(device).permute(0, 3, 1, 2).float() / 255      # stays channels-last in memory
    img = model.image_tokens(px)
    ids, br, pos = b["ids"].to(device), b["br"].to(device), b["pos"].to(device)
    x = torch.nn.functional.embedding(ids.clamp_min(0), model.embed)
    at = int((ids[0] < 0).nonzero()[0])
    x = torch.cat([x[:, :at], img.to(x.dtype), x[:, at + img.shape[1]:]], 1)
    n = ids.shape[1]
    ok = (br[:, None, :] == 0) | (br[:, None, :] == br[:, :, None])
    ok &= torch.ones(n, n, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(ok.shape, device=device).masked_fill_(~ok, -1e4)[:, None]
    h = model.decode(x, pos, mask, None, b["only"].to(device))
    return model.logits(h.reshape(-1, h.shape[-1])[b["at"].to(device)])
