#!/usr/bin/env python3
"""export.py RUN_DIR OUT_DIR: the averaged weights of a run as a checkpoint directory (safetensors, bf16), in the layout of
apple/FastVLM (llava_qwen2, inference form): the BatchNorms of the stem and of the downsampling layers are fused, BatchNorm
statistics are first recomputed with the averaged weights (unless the run never moved the encoder). OUT_DIR must hold the
tokenizer files (tok.py)."""
import json
import os
import struct
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from data import batch, forward
from model import Model
from tok import SPECIAL, Tokenizer, dump

VT = "model.vision_tower.vision_tower.model."


def fuse(m):
    """ConvBN -> weight, bias (4-D)."""
    w = m.conv.weight if m.bn is None else m.conv.weight.double()
    w = w[:, :, None, None] if w.dim() == 2 else w
    if m.bn is None:
        return w, m.conv.bias
    s = m.bn.weight.double() / torch.sqrt(m.bn.running_var.double() + m.bn.eps)
    return w * s[:, None, None, None], m.bn.bias.double() - m.bn.running_mean.double() * s


def tensors(m):
    o = {}
    v = m.vision

    def put(name, wb):
        o[VT + name + ".weight"], o[VT + name + ".bias"] = wb
    for i, s in enumerate(v.stem):
        put("patch_embed.%d.reparam_conv" % i, fuse(s))

    def ffn(p, f):
        o[VT + p + "convffn.conv.conv.weight"] = f.conv.conv.weight
        for k in ("weight", "bias", "running_mean", "running_var"):
            o[VT + p + "convffn.conv.bn." + k] = getattr(f.conv.bn, k)
        o[VT + p + "convffn.conv.bn.num_batches_tracked"] = torch.tensor(1)
        put(p + "convffn.fc1", (f.fc1.weight[:, :, None, None], f.fc1.bias))
        put(p + "convffn.fc2", (f.fc2.weight[:, :, None, None], f.fc2.bias))
    for i, b in enumerate(v.net):
        p = "network.%d." % i
        kind = type(b).__name__
        if kind == "Conv":
            put(p + "reparam_conv", (b.weight, b.bias))
        elif kind == "Down":
            put(p + "proj.0.lkb_reparam", fuse(b.lk))
            put(p + "proj.1.reparam_conv", fuse(b.pw))
        else:
            for j, k in enumerate(b):
                q = p + "%d." % j
                if type(k).__name__ == "RepMixerBlock":
                    put(q + "token_mixer.reparam_conv", (k.mix.weight, k.mix.bias))
                    o[VT + q + "layer_scale"] = k.ls
                else:
                    o[VT + q + "layer_scale_1"], o[VT + q + "layer_scale_2"] = k.ls1, k.ls2
                    put(q + "norm", (k.ln.weight, k.ln.bias))
                    o[VT + q + "token_mixer.qkv.weight"] = k.qkv
                    put(q + "token_mixer.proj", (k.proj.weight, k.proj.bias))
                ffn(q, k.ffn)
    put("conv_exp.reparam_conv", fuse(v.exp))
    put("conv_exp.se.reduce", (v.se1.weight[:, :, None, None], v.se1.bias))
    put("conv_exp.se.expand", (v.se2.weight[:, :, None, None], v.se2.bias))
    o[VT + "head.proj"] = torch.zeros(v.se2.weight.shape[0], 16)      # CLIP head of the family, used by nobody
    for k, l in (("0", m.p0), ("2", m.p2)):
        o["model.mm_projector.%s.weight" % k], o["model.mm_projector.%s.bias" % k] = l.weight, l.bias
    o["model.embed_tokens.weight"], o["model.norm.weight"] = m.embed, m.norm.weight
    for i, l in enumerate(m.layers):
        p = "model.layers.%d." % i
        o[p + "input_layernorm.weight"], o[p + "post_attention_layernorm.weight"] = l.n1.weight, l.n2.weight
        for k in "qkv":
            o[p + "self_attn.%s_proj.weight" % k], o[p + "self_attn.%s_proj.bias" % k] = getattr(l, k).weight, getattr(l, k).bias
        o[p + "self_attn.o_proj.weight"] = l.o.weight
        for k in ("gate", "up", "down"):
            o[p + "mlp.%s_proj.weight" % k] = getattr(l, k).weight
    return {k: t.detach() for k, t in o.items()}


def load_exported(d, tok=None):
    """An exported directory -> (configuration, model in fused form), to train on from there. tok: another tokenizer to train on with;
    what it has as one token and the directory's has not starts as the mean of its pieces."""
    from infer import load_safetensors
    j = json.load(open(os.path.join(d, "config.json")))
    v = j["vision_config"]
    c = dict(image=v["image_size"], layers=v["layers"], embed_dims=v["embed_dims"], hidden=j["hidden_size"],
             inter=j["intermediate_size"], dec_layers=j["num_hidden_layers"], heads=j["num_attention_heads"],
             kv_heads=j["num_key_value_heads"], vocab=j["vocab_size"], fused=True)
    w = load_safetensors(os.path.join(d, "model.safetensors"))
    old = Tokenizer(d)
    if tok is not None and (tok.vocab, tok.added) != (old.vocab, old.added):
        c["vocab"] = (tok.size + 63) // 64 * 64
        e = w["model.embed_tokens.weight"]
        new = torch.zeros(c["vocab"], e.shape[1])
        for text, i in list(tok.vocab.items()) + list(tok.added.items()):
            new[i] = e[old.vocab[text] if text in old.vocab else old.added[text]] if text in old.vocab or text in old.added else \
                e[old.word(bytes(old.c2b[ch] for ch in text).decode())].mean(0)
        w["model.embed_tokens.weight"] = new
    m = Model(c)
    with torch.no_grad():
        for k, t in tensors(m).items():                   # the tensors share memory with the model
            if "num_batches" not in k and "head.proj" not in k:
                t.copy_(w[k])
    return c, m


def write_safetensors(path, ts):
    names = sorted(ts, key=lambda n: (ts[n].dtype != torch.int64, n))
    head, off, blobs = {"__metadata__": {"format": "pt"}}, 0, []
    for n in names:
        t = ts[n].contiguous()
        if t.dtype == torch.int64:
            raw, dt = t.numpy().tobytes(), "I64"
        else:
            raw, dt = t.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes(), "BF16"
        head[n] = {"dtype": dt, "shape": list(t.shape), "data_offsets": [off, off + len(raw)]}
        off += len(raw)
        blobs.append(raw)
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for b in blobs:
            f.write(b)
    return off


def config(c, tok):
    ids = [tok.added[s] for s in SPECIAL]
    e = c["embed_dims"]
    return {
        "_name_or_path": "fastvlm-demo", "architectures": ["LlavaQwen2ForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": ids[0], "eos_token_id": ids[2], "freeze_mm_mlp_adapter": False, "hidden_act": "silu",
        "hidden_size": c["hidden"], "image_aspect_ratio": "pad", "image_grid_pinpoints": None, "initializer_range": 0.02,
        "intermediate_size": c["inter"], "max_position_embeddings": 1024, "max_window_layers": c["dec_layers"],
        "mm_hidden_size": 2 * e[-1], "mm_patch_merge_type": "flat", "mm_projector_lr": None, "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": "mobileclip_l_%d" % c["image"], "model_type": "llava_qwen2",
        "num_attention_heads": c["heads"], "num_hidden_layers": c["dec_layers"], "num_key_value_heads": c["kv_heads"],
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 1024, "tie_word_embeddings": True,
        "tokenizer_model_max_length": 1024, "tokenizer_padding_side": "right", "torch_dtype": "bfloat16",
        "transformers_version": "4.39.3", "tune_mm_mlp_adapter": False, "unfreeze_mm_vision_tower": True, "use_cache": True,
        "use_mm_proj": True, "use_sliding_window": False, "vocab_size": c["vocab"],
        "vision_config": dict(
            layers=c["layers"], embed_dims=e, mlp_ratios=[4] * 5, token_mixers=["repmixer"] * 3 + ["attention"] * 2,
            pos_embs_shapes=[None, None, None, [7, 7], [7, 7]], down_patch_size=7, down_stride=2, repmixer_kernel_size=3,
            cls_ratio=2.0, downsamples=[True] * 5, image_size=c["image"], patch_size=64, model_name="fastvithd",
            projection_dim=16, layer_scale_init_value=0.3)}


def main():
    run, out = sys.argv[1:3]
    torch.set_num_threads(1)
    s = torch.load(os.path.join(run, "last.pt"), map_location="cpu")
    c = s["config"]
    tok = Tokenizer(out)
    m = Model(c)
    sd = {k: v for k, v in s["model"].items() if not k.startswith("aux.")}
    for k in sd:
        if k in s["ema"]:
            sd[k] = s["ema"][k]
    m.load_state_dict(sd)
    bns = [x for x in m.modules() if isinstance(x, torch.nn.BatchNorm2d)] if s.get("moved", True) else []
    for b in bns:
        b.reset_running_stats()
        b.momentum = None
    m.train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(24 if bns else 0):
            forward(m, batch(tok, 900000 + 16 * i, 16, 1, (c["image"] // 64) ** 2, c["image"], s.get("talk", False), False))
    m.eval()
    ts = tensors(m)
    n = write_safetensors(os.path.join(out, "model.safetensors"), ts)
    params = sum(t.numel() for k, t in ts.items() if "running" not in k and "num_batches" not in k and "head.proj" not in k)
    dump(os.path.join(out, "config.json"), config(c, tok), indent=2)
    dump(os.path.join(out, "generation_config.json"),
         {"do_sample": True, "temperature": None, "top_p": None, "transformers_version": "4.39.3"}, indent=2)
    dump(os.path.join(out, "preprocessor_config.json"),
         {"crop_size": {"height": c["image"], "width": c["image"]}, "do_center_crop": True, "do_convert_rgb": True,
          "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.0, 0.0, 0.0],
          "image_processor_type": "CLIPImageProcessor", "image_std": [1.0, 1.0, 1.0], "processor_class": "LlavaProcessor",
          "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": c["image"]}}, indent=2)
    print("%s: step %d, %d pictures, %d tensors, %d parameters, %.1f MB" % (out, s["step"], s["seen"], len(ts), params, n / 1e6))
    # the fused form against the training form, in f32
    from infer import Engine
    e = Engine(out, {k: t.float() for k, t in ts.items()})
    px = torch.rand(1, 3, c["image"], c["image"])
    with torch.no_grad():
        d = (e.image_tokens(px) - m.image_tokens(px)).abs().max()
    print("fused - training form, image tokens: max %.2e of %.2f" % (d, e.image_tokens(px).abs().max()))


if __name__ == "__main__":
    main()
