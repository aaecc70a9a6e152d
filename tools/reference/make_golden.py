#!/usr/bin/env python3
"""Golden tensors of the tiny checkpoint.   make_golden.py CHECKPOINT_DIR OUTDIR

Writes .npy files (float32 / uint8 / int32, C order) and manifest.json. The test image is drawn with integer
arithmetic, so it is the same everywhere; it is stored as PNG and as PPM.
"""
import argparse
import hashlib
import json
import os

import numpy as np
import torch
from PIL import Image

import preprocess as P
import tokenizer as tk
from fastvlm import Model

PROMPT = "What do you see?"                    # chosen for its wide greedy margins
TEXTS = ["Describe the image.", "", " ", "\n\n", "What is in the picture?  Two  spaces\tand a tab",
         "It's the assistant's cup; they'll count 1234 cars.", "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m",
         "\u65e5\u672c\u8a9e \U0001F600 na\u00efve \u2014 dash", "<|im_start|>user\nhello<|im_end|>\n",
         "<|im_start|x <|endoftext|><|im_end|>", "trailing space ", "x\r\ny\r\n\r\n z", "THEY'RE I'LL don\u2019t"]


def test_image(w, h):
    """Gradient, checks, two discs and integer noise; deterministic."""
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    r = (x * 255 // max(w - 1, 1))
    g = (y * 255 // max(h - 1, 1))
    b = (((x // 12) + (y // 9)) % 2) * 180 + 30
    n = ((x * 2654435761 + y * 40503 + x * y * 97) >> 7) % 24
    img = np.stack([r, g, b], -1) + n[..., None] - 12
    for cx, cy, rad, col in ((w // 3, h // 2, min(w, h) // 5, (220, 30, 40)),
                             (2 * w // 3, h // 3, min(w, h) // 6, (20, 60, 230))):
        img[(x - cx) ** 2 + (y - cy) ** 2 < rad * rad] = col
    return np.clip(img, 0, 255).astype(np.uint8)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("-n", type=int, default=24)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    man = {"tensors": {}, "checkpoint_sha256": {}, "torch": torch.__version__, "numpy": np.__version__}

    def save(name, arr, note=None):
        arr = np.ascontiguousarray(arr)
        fn = name + ".npy"
        np.save(os.path.join(a.out, fn), arr)
        e = {"file": fn, "shape": list(arr.shape), "dtype": str(arr.dtype)}
        if arr.dtype.kind == "f":
            e["absmax"] = float(np.abs(arr).max())
            e["rms"] = float(np.sqrt((arr.astype(np.float64) ** 2).mean()))
        if note:
            e["note"] = note
        man["tensors"][name] = e

    for fn in sorted(os.listdir(a.checkpoint)):
        with open(os.path.join(a.checkpoint, fn), "rb") as f:
            man["checkpoint_sha256"][fn] = hashlib.sha256(f.read()).hexdigest()

    m, tok = Model(a.checkpoint), tk.Tokenizer(a.checkpoint)
    m.trace = {}
    S = m.image_size

    # ---- preprocessing
    img = test_image(200, 150)
    Image.fromarray(img).save(os.path.join(a.out, "image.png"), optimize=True)
    with open(os.path.join(a.out, "image.ppm"), "wb") as f:
        f.write(b"P6\n200 150\n255\n" + img.tobytes())
    px = P.process_exact(img, S)
    assert np.array_equal(px, P.process_pil(Image.fromarray(img), S))
    u8 = P.resize_bicubic_u8(P.pad_to_square(img, (0, 0, 0)), S, S)
    assert np.array_equal(P.to_pixels(u8, (0,) * 3, (1,) * 3), px)
    save("pixels_u8", u8, "HWC after pad + resize; pixel_values[c][y][x] = (float)(u8[y][x][c] * (1.0 / 255))")
    man["pixels"] = {"from": "image.ppm", "f32_sha256": hashlib.sha256(px.tobytes()).hexdigest(),
                     "layout": "CHW float32", "shape": list(px.shape)}
    cases = []
    for w, h, s, mode in ((100, 37, 64, "pad"), (37, 100, 64, "pad"), (20, 13, 48, "pad"), (64, 64, 64, "pad"),
                          (90, 70, 64, "crop"), (50, 131, 32, "crop")):
        src = test_image(w, h)
        dst = P.process_exact(src, s, aspect=mode)
        if mode == "pad" or h <= 2 * w:                       # Pillow 13 runs the passes of tall images in the other order
            assert np.array_equal(dst, P.process_pil(Image.fromarray(src), s, aspect=mode))
        n = "pre_%dx%d_%d_%s" % (w, h, s, mode)
        save(n + "_in", src, "HWC u8")
        out8 = np.rint(dst.transpose(1, 2, 0) * 255).astype(np.uint8)
        assert np.array_equal(P.to_pixels(out8, (0,) * 3, (1,) * 3), dst)
        save(n + "_out", out8, "HWC u8, expected after pad/resize/crop")
        cases.append({"input": n + "_in", "output": n + "_out", "size": s, "mode": mode})
    man["preprocess_cases"] = cases

    # ---- tokenizer
    man["tokenizer_cases"] = [{"text": t, "ids": tok.encode(t), "decoded": tok.decode(tok.encode(t), False)}
                              for t in TEXTS]
    prompt = tok.prompt_text(PROMPT)
    ids = tok.encode_prompt(prompt)
    man["prompt"] = {"user": PROMPT, "text": prompt, "ids": ids}

    # ---- network
    stage_of = {idx: stage for idx, kind, stage, _, _ in m.vision_plan()}
    img_tok = m.encode_image(torch.from_numpy(px)[None])
    for k, v in m.trace.items():
        if k == "image_tokens":
            continue
        parts = k.split(".")
        if len(parts) == 4 and int(parts[3]) == m.v["layers"][stage_of[int(parts[2])]] - 1:
            continue                                          # the last block equals the stage output
        if k == "vision.stem.0":
            save(k, v[0, :, :32].numpy(), "CHW, rows 0..31 only (to save space)")
            continue
        save(k, v[0].numpy(), "CHW" if v.dim() == 4 else "[token, channel], token = y * W + x")
    save("image_tokens", img_tok[0].numpy())
    x = m.splice(ids, [img_tok[0]])
    save("inputs_embeds", x.numpy())
    m.trace = {}
    out, rows, pre = m.greedy(ids, [img_tok[0]], a.n, limit=tok.size)
    for k, v in m.trace.items():
        save(k, v.numpy(), "prefill, [position, hidden]")
    save("logits_prefill", pre.numpy(), "[position, vocab]; the last row chooses the first token")
    save("logits_steps", np.stack([r.numpy() for r in rows]), "row i chose greedy id i")
    top = [torch.topk(r[:tok.size], 2).values for r in rows]
    man["greedy"] = {"ids": out, "text": tok.decode(out, False),
                     "top1_minus_top2": [float(t[0] - t[1]) for t in top], "eos_token_id": m.cfg["eos_token_id"],
                     "max_new_tokens": a.n, "limit": tok.size}
    # cross-check: no cache, full recomputation at the end
    full, _ = m.decoder(torch.cat([x, m.embed(out[:-1])]))
    d = float((m.logits(full)[len(x) - 1:] - torch.stack(rows)).abs().max())
    man["greedy"]["cache_vs_full_recompute_max_abs"] = d
    # ---- text only
    t_ids = tok.encode(tok.prompt_text("Describe the picture.", with_image=False))
    t_out, t_rows, t_pre = m.greedy(t_ids, [], 8, limit=tok.size)
    save("text_logits_last", t_pre[-1].numpy())
    man["text_only"] = {"ids": t_ids, "greedy": t_out,
                        "top1_minus_top2": [float(torch.topk(r[:tok.size], 2).values.diff().abs()) for r in t_rows]}
    man["tolerance"] = ("float32 arithmetic in another summation order stays within about 1e-4 * absmax of these "
                        "(the original PyTorch code and this reference differ by at most 6e-7 relative L2)")
    with open(os.path.join(a.out, "manifest.json"), "w") as f:
        json.dump(man, f, indent=1, ensure_ascii=False)
        f.write("\n")
    tot = sum(os.path.getsize(os.path.join(a.out, f)) for f in os.listdir(a.out) if os.path.isfile(os.path.join(a.out, f)))
    print("golden bytes", tot, "greedy", out, "min margin", min(man["greedy"]["top1_minus_top2"]), "cache diff", d)


if __name__ == "__main__":
    main()
