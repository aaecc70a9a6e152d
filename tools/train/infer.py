"""Inference from a checkpoint directory, batched, in PyTorch f32: what evaluate.py scores."""
import json
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

from model import rope_tables, rot
from tok import Tokenizer

VT = "model.vision_tower.vision_tower.model."


def load_safetensors(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for k, d in json.loads(raw[8:8 + n]).items():
        if k == "__metadata__" or d["dtype"] != "BF16":
            continue
        a, b = d["data_offsets"]
        u = np.frombuffer(raw, np.uint16, (b - a) // 2, 8 + n + a).astype(np.uint32) << 16
        out[k] = torch.from_numpy(u.view(np.float32).reshape(d["shape"]).copy())
    return out


class Engine:
    def __init__(self, d, w=None):
        self.c = json.load(open(os.path.join(d, "config.json")))
        self.w = w or load_safetensors(os.path.join(d, "model.safetensors"))
        self.tok = Tokenizer(d)
        self.size = self.c["vision_config"]["image_size"]
        self.peak = {}

    def see(self, name, x):
        self.peak[name] = max(self.peak.get(name, 0.0), float(x.abs().max()))
        return x

    def conv(self, x, n, s=1, g=1, bias=True):
        w = self.w[VT + n + ".weight"]
        return self.see(n, F.conv2d(x, w, self.w[VT + n + ".bias"] if bias else None, s, w.shape[-1] // 2, 1, g))

    def ffn(self, x, p):
        w = self.w
        y = self.conv(x, p + ".conv.conv", 1, x.shape[1], False)
        b = VT + p + ".conv.bn."
        y = F.batch_norm(y, w[b + "running_mean"], w[b + "running_var"], w[b + "weight"], w[b + "bias"], False, 0, 1e-5)
        return self.conv(F.gelu(self.conv(self.see(p + ".bn", y), p + ".fc1")), p + ".fc2")

    def vision(self, x):
        v, w = self.c["vision_config"], self.w
        d = v["embed_dims"]
        x = F.gelu(self.conv(x, "patch_embed.0.reparam_conv", 2))
        x = F.gelu(self.conv(x, "patch_embed.1.reparam_conv", 2, d[0]))
        x = F.gelu(self.conv(x, "patch_embed.2.reparam_conv"))
        i = 0
        for st in range(5):
            if st >= 3:
                x = self.conv(x, "network.%d.reparam_conv" % i, 1, d[st])
                i += 1
            for j in range(v["layers"][st]):
                p = "network.%d.%d." % (i, j)
                if st < 3:
                    x = self.conv(x, p + "token_mixer.reparam_conv", 1, d[st])
                    x = x + w[VT + p + "layer_scale"] * self.ffn(x, p + "convffn")
                else:
                    b, c, h, ww = x.shape
                    t = F.layer_norm(x.permute(0, 2, 3, 1), (c,), w[VT + p + "norm.weight"], w[VT + p + "norm.bias"], 1e-5)
                    qkv = self.see(p + "qkv", F.linear(t, w[VT + p + "token_mixer.qkv.weight"]))
                    q, k, vv = qkv.view(b, h * ww, 3, c // 32, 32).permute(2, 0, 3, 1, 4)
                    t = F.scaled_dot_product_attention(q, k, vv).transpose(1, 2).reshape(b, h, ww, c)
                    t = F.linear(t, w[VT + p + "token_mixer.proj.weight"], w[VT + p + "token_mixer.proj.bias"])
                    x = x + w[VT + p + "layer_scale_1"] * t.permute(0, 3, 1, 2)
                    x = x + w[VT + p + "layer_scale_2"] * self.ffn(x, p + "convffn")
                self.see("network.%d.%d" % (i, j), x)
            i += 1
            if st < 4:
                x = F.gelu(self.conv(x, "network.%d.proj.0.lkb_reparam" % i, 2, d[st]))
                x = F.gelu(self.conv(x, "network.%d.proj.1.reparam_conv" % i))
                i += 1
        x = self.conv(x, "conv_exp.reparam_conv", 1, d[-1])
        g = torch.sigmoid(self.conv(F.relu(self.conv(x.mean((2, 3), True), "conv_exp.se.reduce")), "conv_exp.se.expand"))
        return F.gelu(x * g).flatten(2).transpose(1, 2)

    def image_tokens(self, px):
        w = self.w
        x = F.linear(self.vision(px), w["model.mm_projector.0.weight"], w["model.mm_projector.0.bias"])
        return self.see("image_tokens", F.linear(F.gelu(x), w["model.mm_projector.2.weight"], w["model.mm_projector.2.bias"]))

    def decode(self, x, past):
        """x [n, h]; past: list of [k, v] or [] per layer."""
        c, w = self.c, self.w
        nh, nk = c["num_attention_heads"], c["num_key_value_heads"]
        d, n = c["hidden_size"] // nh, x.shape[0]
        p0 = past[0][0].shape[1] if past[0] else 0
        cos, sin = rope_tables(torch.arange(p0, p0 + n), d, c["rope_theta"])
        mask = torch.full((n, p0 + n), float("-inf")).triu(p0 + 1)
        rms = lambda t, name: F.rms_norm(t, t.shape[-1:], w[name], c["rms_norm_eps"])
        for i in range(c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            h, a = rms(x, p + "input_layernorm.weight"), p + "self_attn."
            q, k, v = (self.see("layer.%d.%s" % (i, s), F.linear(h, w[a + s + "_proj.weight"], w[a + s + "_proj.bias"]))
                       .view(n, -1, d).transpose(0, 1) for s in "qkv")
            q, k = rot(q, cos, sin), rot(k, cos, sin)
            if past[i]:
                k, v = torch.cat([past[i][0], k], 1), torch.cat([past[i][1], v], 1)
            past[i][:] = [k, v]
            g = nh // nk
            s = q @ k.repeat_interleave(g, 0).transpose(1, 2) * d ** -0.5 + mask
            o = (s.softmax(-1) @ v.repeat_interleave(g, 0)).transpose(0, 1).reshape(n, -1)
            x = x + F.linear(o, w[a + "o_proj.weight"])
            h = rms(x, p + "post_attention_layernorm.weight")
            m = F.silu(F.linear(h, w[p + "mlp.gate_proj.weight"])) * F.linear(h, w[p + "mlp.up_proj.weight"])
            x = self.see("layer.%d" % i, x + F.linear(self.see("layer.%d.mlp" % i, m), w[p + "mlp.down_proj.weight"]))
        return rms(x, "model.norm.weight")

    @torch.no_grad()
    def converse(self, images, turns, limit=96):
        """The answers to a conversation's questions in order, each with the model's own answers before it. images: image tokens [n, h]
        of 0, 1 or 2 images; a turn with "said" has that in the history and is not answered (None)."""
        t, emb = self.tok, self.w["model.embed_tokens.weight"]
        past, answers = [[] for _ in range(self.c["num_hidden_layers"])], []
        x = [emb[t.prefix()]]
        for i, img in enumerate(images):
            x += [emb[t.encode("\n")]] * (i > 0) + [img]
        for k, turn in enumerate(turns):
            x.append(emb[t.next_turn() + t.question(turn["question"]) if k else t.question(turn["question"], len(images) > 0)])
            if "said" in turn:
                x.append(emb[t.encode(turn["said"]) + [t.im_end]])
                answers.append(None)
                continue
            x, out = torch.cat(x), []
            while len(out) < limit:
                h = self.decode(x, past)[-1]
                best = int((emb[:t.size] @ h).argmax())
                if best == t.im_end:
                    break
                out.append(best)
                x = emb[[best]]
            answers.append(t.decode(out).strip())
            x = [x] * (len(out) == limit) + [emb[[t.im_end]]]
        return answers

    def answer(self, img, question, history=(), limit=96):
        """img: image tokens [n, h] of one image."""
        return self.converse([img], [dict(question=q, said=a) for q, a in history] + [dict(question=question)], limit)[-1]
