#!/usr/bin/env python3
"""Reference values of a full-size synthetic checkpoint.   make_full_golden.py CHECKPOINT IMAGE OUT.json [-n 16] [--brief]

Statistics and a few sampled values of every stage, in float32: tests/data/full/*.json. One and a half minutes and 5 GB for 0.5B on two
cores. --brief: logits and ids only. Sampled positions come from a counter, so they lie all over a map and are the same in every file.
"""
import argparse
import hashlib
import json
import os
import sys

import numpy as np
import torch
from PIL import Image

import preprocess
from fastvlm import Model
from tokenizer import Tokenizer

PROMPT = "Describe the image."


def sha(b):
    return hashlib.sha256(b).hexdigest()


def file_sha(directory):
    h = hashlib.sha256()
    with open(os.path.join(directory, "model.safetensors"), "rb") as f:
        for b in iter(lambda: f.read(1 << 24), b""):
            h.update(b)
    return h.hexdigest()


def short(x):
    """The shortest decimal that gives the float32 back."""
    return [float(str(v)) for v in np.asarray(x, np.float32).reshape(-1)]


def spread(n, k):
    """k indices below n."""
    return [(i * 2654435761 + 40503) % n for i in range(1, k + 1)]


def sample(x, k=16):
    x = x.detach().numpy()
    flat = spread(x.size, k)
    return {"shape": list(x.shape), "rms": float(np.sqrt((x.astype(np.float64) ** 2).mean())), "absmax": float(np.abs(x).max()),
            "at": [[int(j) for j in np.unravel_index(i, x.shape)] for i in flat], "values": short(x.reshape(-1)[flat])}


class Taps(dict):
    """Model.trace that keeps samples instead of maps."""

    def __setitem__(self, name, x):
        if x.dim() in (3, 4) and name.startswith("vision."):
            x = x[0]
        super().__setitem__(name, sample(x))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("image")
    ap.add_argument("out")
    ap.add_argument("-n", type=int, default=16)
    ap.add_argument("--brief", action="store_true")
    ap.add_argument("--fast-vlm", help="the same model from make_fast_vlm.py: record its sha256 beside the other")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    m, tok = Model(a.checkpoint), Tokenizer(a.checkpoint)
    with open(a.image, "rb") as f:
        raw = f.read()
    rgb = np.asarray(Image.open(a.image).convert("RGB"))
    u8 = preprocess.resize_bicubic_u8(preprocess.pad_to_square(rgb, (0, 0, 0)), m.image_size, m.image_size)
    px = preprocess.to_pixels(u8, (0,) * 3, (1,) * 3)
    assert np.array_equal(px, preprocess.process_pil(Image.open(a.image), m.image_size))
    ids = tok.encode_prompt(tok.prompt_text(PROMPT))
    out = {"about": "float32 reference values; positions in `at` are [channel, y, x] for vision maps, else [row, column]",
           "model_sha256": file_sha(a.checkpoint), **({"fast_vlm_sha256": file_sha(a.fast_vlm)} if a.fast_vlm else {}), "torch": torch.__version__,
           "image": {"file": os.path.basename(a.image), "sha256": sha(raw), "width": rgb.shape[1], "height": rgb.shape[0],
                     "rgb_sha256": sha(rgb.tobytes()), "resized_u8_sha256": sha(u8.tobytes()), "pixels_f32_sha256": sha(px.tobytes())},
           "prompt": PROMPT, "prompt_ids": ids, "limit": tok.size}
    taps = Taps()
    m.trace = None if a.brief else taps
    img = m.encode_image(torch.from_numpy(px)[None])[0]
    if not a.brief:
        taps.pop("image_tokens")
        out["vision"], m.trace = dict(taps), None
        out["image_tokens"] = sample(img, 64)
        taps.clear()
        m.trace = taps
    got, rows, pre = m.greedy(ids, [img], a.n, limit=tok.size)
    if not a.brief:
        out["decoder"] = dict(taps)
    last = pre[-1]
    top = torch.topk(last, 32)
    fixed = spread(len(last), 64)
    out["logits"] = {"rms": float(last.double().pow(2).mean().sqrt()), "top_ids": top.indices.tolist(), "top_values": short(top.values.numpy()),
                     "fixed_ids": fixed, "fixed_values": short(last.numpy()[fixed])}
    steps = [torch.topk(r[:tok.size], 4) for r in rows]
    out["greedy"] = {"ids": got, "top1_minus_top2": [round(float(t.values[0] - t.values[1]), 4) for t in steps],
                     "top4_ids": [t.indices.tolist() for t in steps], "top4_values": [short(t.values.numpy()) for t in steps]}
    with open(a.out, "w") as f:
        f.write("{\n" + ",\n".join(" %s: %s" % (json.dumps(k), "{\n" + ",\n".join("  %s: %s" % (json.dumps(i), json.dumps(j)) for i, j in v.items())
                                                + "\n }" if isinstance(v, dict) else json.dumps(v)) for k, v in out.items()) + "\n}\n")
    print("%s: greedy %s, narrowest margin %.3f" % (a.out, got, min(out["greedy"]["top1_minus_top2"])))


if __name__ == "__main__":
    sys.exit(main())
