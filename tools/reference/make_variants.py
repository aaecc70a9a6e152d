#!/usr/bin/env python3
"""Checkpoints in every layout a loader must take, each a few hundred kB, and what they must answer.

  make_variants.py OUT [--only NAME,...] [--checkpoints-only]

OUT/NAME/checkpoint/ is the model; OUT/NAME/expect.json, features.npy, image_tokens.npy and logits_last.npy are what the
reference computes in float32 for tests/data/tiny/image.png. tests/data/variants holds the result. The checkpoints need numpy and
regex, the expectations torch and pillow too.

A variant is one departure from `base`, so that a failing test names its cause; README.md in OUT lists them.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys

import numpy as np

import make_checkpoint as mc
import make_fast_vlm
import reparam
import st
from fastvithd import FASTVITHD, VT

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE = os.path.join(HERE, "../../tests/data/tiny/image.png")
PROMPTS = ["What do you see?", "Describe the image.", "What is in the image?", "How many objects are there?", "Is there a cat?",
           "Count the cars.", "Read the text on the sign.", "Who is in the picture?", "Where is the red square?", "Name three things.",
           "What is on the table?", "Is it a photo?", "What colour is the circle?", "Describe the table.", "Tell me more.",
           "Is the door open?", "What does the user ask?", "Which animal is it?", "Look at the left side.", "Why?"]
N_GREEDY = 16

MICRO = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=288, max_window_layers=2, image=256, max_position_embeddings=2048, tokenizer_model_max_length=1024,
             tie=True, store_head=False, same_head=False, vision=dict(layers=[1, 1, 1, 1, 1], embed_dims=[4, 8, 16, 32, 64]))
# head width 128 as in 1.5B and 7B, three query heads on one kv head, 25 image tokens, separate head
SHAPE = dict(MICRO, hidden_size=384, intermediate_size=32, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=1,
             image=320, tie=False, store_head=True, max_window_layers=1,
             vision=dict(layers=[2, 1, 3, 2, 1], embed_dims=[4, 8, 16, 32, 64]))


# ------------------------------------------------------------------------------------- training-time form of the vision tower


def bn(p, c, kind="ubn"):
    return [(p + "." + q, (c,), kind + "_" + q) for q in ("weight", "bias", "running_mean", "running_var")] + \
           [(p + ".num_batches_tracked", (), "count")]


def conv_bn(p, shape, kind):
    return [(p + ".conv.weight", shape, kind)] + bn(p + ".bn", shape[0])


def mobileone(p, shape, kind, scale, skip, branches=1):
    out = []
    for j in range(branches):
        out += conv_bn("%s.rbr_conv.%d" % (p, j), shape, kind)
    if scale:
        out += conv_bn(p + ".rbr_scale", shape[:2] + (1, 1), kind + "_scale")
    return out + (bn(p + ".rbr_skip", shape[0]) if skip else [])


def unfuse(tensors):
    """The same inventory with every fused convolution replaced by its training-time branches (docs/model.md 3.6)."""
    out = []
    for name, shape, kind in tensors:
        if not name.startswith(VT):
            out.append((name, shape, kind))
            continue
        p, _, last = name.rpartition(".")
        base, _, what = p.rpartition(".")
        if what == "reparam_conv" and last == "bias" or what == "lkb_reparam" and last == "bias":
            continue
        if what == "lkb_reparam":
            out += conv_bn(base + ".lkb_origin", shape, "ulkb") + conv_bn(base + ".small_conv", shape[:2] + (3, 3), "usmall")
        elif what == "reparam_conv" and kind == "repmix":
            c = shape[0]
            out += bn(base + ".norm.rbr_skip", c) + mobileone(base + ".mixer", shape, "umix", True, True)
            out.append((base + ".layer_scale", (c, 1, 1), "uls"))
        elif what == "reparam_conv" and kind == "cpe":
            out += [(base + ".pe.weight", shape, "upe"), (base + ".pe.bias", (shape[0],), "cpe_b")]
        elif what == "reparam_conv":
            # the stem has no scale branch; skips where in == out and stride 1: the 1x1 convolutions
            exp = "conv_exp" in name
            out += mobileone(base, shape, "u" + kind, exp, shape[2] == 1)
        else:
            out.append((name, shape, kind))
    return out


def branch_values(name, shape, kind, c):
    """values() for the branch tensors: sums of branches come out at the size of the fused tensors."""
    f = np.float32
    n = int(np.prod(shape, dtype=np.int64))
    if kind == "count" or not kind.startswith("u") or kind == "up":         # "up": the MLP's up_proj
        return mc.values(name, shape, kind, c)
    g = mc.gauss(name, n).reshape(shape)
    fan = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1
    rf = f(1.0 / np.sqrt(float(fan)))
    if kind == "ubn_weight":       return f(1.0) + g * f(0.2)
    if kind == "ubn_bias":         return g * f(0.2)
    if kind == "ubn_running_mean": return g * f(0.2)
    if kind == "ubn_running_var":  return f(1.1) + g * f(0.25)
    if kind == "uls":              return f(0.1) + g * f(0.04)
    if kind == "umix":             return g * f(0.4)
    if kind == "umix_scale":       return g * f(0.5)
    if kind == "upe":              return g * f(0.03)
    if kind == "ulkb":             return g * f(1.0) * rf
    if kind == "usmall":           return g * f(0.7) * rf
    if kind == "ustem0":           return g * f(2.4) * rf
    if kind == "ustem1":           return g * f(1.9) * rf
    if kind == "upw_gelu":         return g * f(1.1) * rf
    if kind == "uexp":             return g * f(1.3) * rf
    if kind == "uexp_scale":       return g * f(0.8)
    raise KeyError(kind)


def fuse(directory):
    """{fused tensor name: float32 array} of an unfused checkpoint, by reparam.py."""
    ck = st.Checkpoint(directory)
    with open(os.path.join(directory, "config.json")) as fh:
        c = json.load(fh)
    v = dict(FASTVITHD)
    v.update(c["vision_config"])

    def g(n):
        return ck.f32(VT + n)

    def has(n):
        return VT + n in ck
    out = {}
    for name, shape, kind in mc.vision_tensors(v, v["projection_dim"]):
        n = name[len(VT):]
        base, _, what = n.rpartition(".")[0].rpartition(".")
        if not n.endswith(".weight") or what not in ("reparam_conv", "lkb_reparam"):
            continue
        k = shape[-1]
        if what == "lkb_reparam":
            w, b = reparam.large_kernel(g, has, base, k)
        elif kind == "repmix":
            w, b = reparam.repmixer(g, has, base, k)
        elif kind == "cpe":
            w, b = reparam.cpe(g, base)
        else:
            w, b = reparam.mobileone(g, has, base, k, shape[0] // shape[1] if kind != "exp" else shape[0] // 2)
        assert w.shape == shape, (name, w.shape, shape)
        out[name], out[name[:-len("weight")] + "bias"] = w.astype(np.float32), b.astype(np.float32)
    return out


# ------------------------------------------------------------------------------------- the checkpoints


def plain(out, s, dtype="bf16", tensors=lambda t: t, value=mc.values):
    vocab, merges = mc.tiny_vocab(24)
    c = mc.write_small_files(out, s, dtype, vocab, merges)
    mc.write_tensors(os.path.join(out, "model.safetensors"), c, tensors(mc.all_tensors(c, s)), dtype, value)


def base(out, root):
    plain(out, MICRO)


def f16(out, root):
    plain(out, MICRO, "f16")


def f32(out, root):
    plain(out, MICRO, "f32")


def stored_head(out, root):
    plain(out, dict(MICRO, store_head=True))


def unfused(out, root):
    plain(out, MICRO, "bf16", unfuse, branch_values)


def shape(out, root):
    plain(out, SHAPE)


def fast_vlm(out, root):
    make_fast_vlm.convert(os.path.join(root, "base/checkpoint"), out)


def sharded(out, root):
    """Three shards; the names are dealt out by size, so that neighbours lie in different files now and then."""
    src = os.path.join(root, "base/checkpoint")
    copy_small(src, out)
    ck = st.Checkpoint(src)
    names = sorted(ck.keys(), key=lambda n: (-int(np.prod(ck.info(n)[1], dtype=np.int64)), n))
    where, total = {}, 0
    for k in range(3):
        fn = "model-%05d-of-00003.safetensors" % (k + 1)
        mine = sorted(names[k::3])
        w = st.Writer(os.path.join(out, fn), [(n,) + ck.info(n) for n in mine], {"format": "pt"})
        for n in mine:
            dt, raw = ck.raw(n)
            w.write(n, raw if dt == "I64" else ck.f32(n))
            where[n] = fn
            total += raw.nbytes
        w.close()
    mc.dump(os.path.join(out, "model.safetensors.index.json"),
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}, indent=2)


def tokenizer_json(out, root):
    """No vocab.json, merges.txt, added_tokens.json. The weights are base's, through a relative link."""
    copy_small(os.path.join(root, "base/checkpoint"), out)
    for f in ("vocab.json", "merges.txt", "added_tokens.json"):
        os.remove(os.path.join(out, f))
    os.symlink("../../base/checkpoint/model.safetensors", os.path.join(out, "model.safetensors"))


def copy_small(src, out):
    os.makedirs(out, exist_ok=True)
    for f in os.listdir(src):
        if not f.endswith(".safetensors"):
            shutil.copy(os.path.join(src, f), out)


VARIANTS = [(base, "llava_qwen2, bf16, one file, tied and no lm_head.weight: what the others depart from"),
            (fast_vlm, "transformers' fast_vlm names and nested config, 320 rows of which 283 may be chosen, <image> 283; answers as base"),
            (sharded, "three shards and model.safetensors.index.json; answers as base"),
            (tokenizer_json, "only tokenizer.json, no vocab.json, merges.txt, added_tokens.json; answers as base"),
            (stored_head, "tie_word_embeddings true beside a stored, different lm_head.weight that must be ignored; answers as base"),
            (f16, "float16 weights"), (f32, "float32 weights"),
            (unfused, "vision tower in training-time form: MobileOne branches, RepMixer with mixer and norm, RepCPE with pe, large kernels "
                      "with small_conv (docs/model.md 3.6); expectations by reparam.py in double precision, fused tensors rounded to float32"),
            (shape, "image size 320 (25 tokens), blocks 2,1,3,2,1, one decoder layer, head width 128, three query heads on one kv head, "
                    "separate lm_head")]


# ------------------------------------------------------------------------------------- what they answer


def expect(name, out, root):
    import torch
    from PIL import Image

    import preprocess
    from fastvlm import Model
    from tokenizer import Tokenizer
    torch.set_num_threads(1)
    # two layouts are the same model; the reference reads the plain one, unfused ones through the fused tensors
    src = os.path.join(root, "base" if name == "fast_vlm" else name, "checkpoint")
    m, tok = Model(src), Tokenizer(src)
    if name == "unfused":
        fused = {k: torch.from_numpy(w) for k, w in fuse(src).items()}
        check_fusion(m, fused)
        m._cache.update(fused)
    m.trace = {}
    px = torch.from_numpy(preprocess.process_exact(np.asarray(Image.open(IMAGE).convert("RGB")), m.image_size))[None]
    img = m.encode_image(px)
    trace, best = m.trace, None
    for p in PROMPTS:                                        # the prompt whose narrowest greedy choice is widest
        m.trace = None
        ids = tok.encode_prompt(tok.prompt_text(p))
        got, rows, pre = m.greedy(ids, [img[0]], N_GREEDY, limit=tok.size)
        margin = [float(-torch.topk(r[:tok.size], 2).values.diff()) for r in rows]
        if m.cfg["eos_token_id"] not in got and (best is None or min(margin) > min(best[3])):
            best = (p, ids, got, margin, pre[-1])
    p, ids, got, margin, last = best
    stats = {k: {"rms": float(x.double().pow(2).mean().sqrt()), "absmax": float(x.abs().max())}
             for k, x in trace.items() if k not in ("image_tokens", "vision.features")}
    arrays = {"features": trace["vision.features"][0].numpy(), "image_tokens": img[0].numpy(), "logits_last": last.numpy()}
    for k, x in arrays.items():
        np.save(os.path.join(out, k + ".npy"), np.ascontiguousarray(x))
    with open(IMAGE, "rb") as f:
        sha = hashlib.sha256(f.read()).hexdigest()
    mc.dump(os.path.join(out, "expect.json"),
            {"variant": name, "about": dict((f.__name__, t) for f, t in VARIANTS)[name], "image": "../../tiny/image.png", "image_sha256": sha,
             "prompt": p, "prompt_ids": ids, "greedy": got, "top1_minus_top2": [round(x, 4) for x in margin], "text": tok.decode(got),
             "limit": tok.size, "image_size": m.image_size, "image_tokens": int(img.shape[1]), "stages": stats,
             "arrays": {k: {"file": k + ".npy", "shape": list(x.shape)} for k, x in arrays.items()}}, indent=1)
    print("%-14s %-28r narrowest margin %.3f  %s" % (name, p, min(margin), got))


def check_fusion(m, fused):
    """Every fused convolution against its branches run as such, on noise."""
    import torch
    import torch.nn.functional as F
    g = torch.Generator().manual_seed(1)

    def has(n):
        return VT + n in m.ck

    def branch(x, p, stride, groups):
        w = m.w(VT + p + ".conv.weight")
        return m._bn(F.conv2d(x, w, None, stride, w.shape[-1] // 2, 1, groups), p + ".bn")

    def mobile(x, p, stride, groups):
        y, j = 0, 0
        while has("%s.rbr_conv.%d.conv.weight" % (p, j)):
            y, j = y + branch(x, "%s.rbr_conv.%d" % (p, j), stride, groups), j + 1
        if has(p + ".rbr_scale.conv.weight"):
            y = y + branch(x, p + ".rbr_scale", stride, groups)
        return y + m._bn(x, p + ".rbr_skip") if has(p + ".rbr_skip.weight") else y
    worst = 0.0
    with torch.no_grad():
        for name, w in fused.items():
            if not name.endswith(".weight"):
                continue
            p, what = name[len(VT):].rsplit(".", 2)[:2]
            co, cg, k, _ = w.shape
            stride = 2 if what == "lkb_reparam" or p in ("patch_embed.0", "patch_embed.1") else 1
            groups = 1 if k == 1 or cg == 3 else co // 2 if what == "lkb_reparam" or p == "conv_exp" else co
            x = torch.randn(1, cg * groups, 20, 20, generator=g)
            if what == "lkb_reparam":
                y = branch(x, p + ".lkb_origin", 2, groups) + branch(x, p + ".small_conv", 2, groups)
            elif has(p + ".pe.weight"):
                y = x + F.conv2d(x, m.w(VT + p + ".pe.weight"), m.w(VT + p + ".pe.bias"), 1, k // 2, 1, groups)
            elif has(p + ".norm.rbr_skip.weight"):
                y = x + m.w(VT + p + ".layer_scale") * (mobile(x, p + ".mixer", 1, co) - mobile(x, p + ".norm", 1, co))
            else:
                y = mobile(x, p, stride, groups)
            z = F.conv2d(x, w, fused[name[:-len("weight")] + "bias"], stride, k // 2, 1, groups)
            worst = max(worst, float((y - z).norm() / y.norm()))
    assert worst < 1e-6, worst
    print("%d fused convolutions agree with their branches: worst rel L2 %.1e" % (len(fused) // 2, worst))


README = """# Checkpoint variants

Made by `python3 tools/reference/make_variants.py tests/data/variants` (numpy, regex, torch, pillow); nothing here derives from real
weights. Each folder holds `checkpoint/`, and what it must answer for `../tiny/image.png`:

* expect.json: prompt, its ids (-200 = the image), %d greedy ids with the margin of each choice, `limit` (only lower ids may be chosen),
  rms and absmax of every vision stage;
* features.npy [tokens, channels], image_tokens.npy [tokens, hidden], logits_last.npy [rows]: float32; logits of the last prompt row.

`base` is a smaller sibling of ../tiny: image 256 (16 tokens), widths 4,8,16,32,64, one block a stage, two decoder layers of width 64 with four
query and two kv heads, 288 rows of which 283 have a token. The others depart from it in one thing:

| variant | what |
|---|---|
%s

float32 arithmetic in another summation order stays within relative L2 1e-5 of the arrays.
"""


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--only", help="comma separated names (fast_vlm, sharded and tokenizer_json need base there)")
    ap.add_argument("--checkpoints-only", action="store_true")
    a = ap.parse_args()
    for f, _ in VARIANTS:
        n = f.__name__
        if a.only and n not in a.only.split(","):
            continue
        d = os.path.join(a.out, n)
        shutil.rmtree(d, ignore_errors=True)
        f(os.path.join(d, "checkpoint"), a.out)
        if not a.checkpoints_only:
            expect(n, d, a.out)
    if not a.only:
        with open(os.path.join(a.out, "README.md"), "w") as f:
            f.write(README % (N_GREEDY, "\n".join("| %s | %s |" % (v.__name__, t) for v, t in VARIANTS)))


if __name__ == "__main__":
    sys.exit(main())
