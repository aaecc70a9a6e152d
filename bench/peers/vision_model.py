"""FastViTHD + projector of a llava_qwen2 checkpoint as a plain torch module, for timing other engines on it.

  vision_model.py CHECKPOINT OUT.onnx [--opset 20]     legacy exporter, static 1x3xSxS input, file for ONNX Runtime / OpenVINO

BatchNorm and layer scales are folded into the neighbouring weights, as any engine would do at load time, so peers get
the leanest graph: pixel_values [1,3,S,S] f32 -> image_features [1,(S/64)^2,H] f32.
"""
import argparse
import json
import os
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/reference"))
import st                                                                                    # noqa: E402
from fastvithd import FASTVITHD, VT                                                          # noqa: E402

HEAD = 32


class FFN(nn.Module):
    def __init__(self, t, p, scale):
        super().__init__()
        s = t(p + "conv.bn.weight") / torch.sqrt(t(p + "conv.bn.running_var") + 1e-5)
        w = t(p + "conv.conv.weight")
        self.dw = conv(w * s[:, None, None, None], t(p + "conv.bn.bias") - t(p + "conv.bn.running_mean") * s, 1, 3)
        self.fc1 = conv(t(p + "fc1.weight"), t(p + "fc1.bias"))
        s = scale.reshape(-1)
        self.fc2 = conv(t(p + "fc2.weight") * s[:, None, None, None], t(p + "fc2.bias") * s)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.dw(x))))


class RepMixer(nn.Module):
    def __init__(self, t, p):
        super().__init__()
        self.mix = conv(t(p + "token_mixer.reparam_conv.weight"), t(p + "token_mixer.reparam_conv.bias"), 1, 1)
        self.ffn = FFN(t, p + "convffn.", t(p + "layer_scale"))

    def forward(self, x):
        x = self.mix(x)
        return x + self.ffn(x)


class Attention(nn.Module):
    def __init__(self, t, p):
        super().__init__()
        c = t(p + "norm.weight").numel()
        self.norm = nn.LayerNorm(c, eps=1e-5)
        self.norm.weight.data, self.norm.bias.data = t(p + "norm.weight"), t(p + "norm.bias")
        self.qkv = linear(t(p + "token_mixer.qkv.weight"), None)
        s = t(p + "layer_scale_1").reshape(-1)
        self.proj = linear(t(p + "token_mixer.proj.weight") * s[:, None], t(p + "token_mixer.proj.bias") * s)
        self.ffn = FFN(t, p + "convffn.", t(p + "layer_scale_2"))
        self.heads = c // HEAD
        self.sdpa = True

    def forward(self, x):
        b, c, h, w = x.shape
        n = h * w
        qkv = self.qkv(self.norm(x.flatten(2).transpose(1, 2)))
        q, k, v = qkv.reshape(b, n, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax((q * HEAD ** -0.5) @ k.transpose(-2, -1), -1) @ v
        y = self.proj(y.transpose(1, 2).reshape(b, n, c))
        x = x + y.transpose(1, 2).reshape(b, c, h, w)
        return x + self.ffn(x)


def conv(w, b, stride=1, pad=0):
    """Every k > 1 convolution but the first reads one channel a group; 7x7 stride 2 has two outputs a group."""
    co, ci, k, _ = w.shape
    groups = 1 if k == 1 or ci == 3 else (co // 2 if k == 7 and stride == 2 else co)
    m = nn.Conv2d(ci * groups, co, k, stride, pad, groups=groups)
    m.weight.data, m.bias.data = w.contiguous(), b.contiguous()
    return m


def linear(w, b):
    m = nn.Linear(w.shape[1], w.shape[0], bias=b is not None)
    m.weight.data = w.contiguous()
    if b is not None:
        m.bias.data = b.contiguous()
    return m


class Vision(nn.Module):
    def __init__(self, directory, projector=True):
        super().__init__()
        ck = st.Checkpoint(directory)
        with open(os.path.join(directory, "config.json")) as f:
            cfg = json.load(f)
        v = dict(FASTVITHD)
        v.update({k: w for k, w in (cfg.get("vision_config") or {}).items() if k in v})
        self.size = int(cfg["mm_vision_tower"].split("_")[-1])

        def t(name):
            return torch.from_numpy(np.array(ck.f32(VT + name)))

        def rep(name, stride=1, pad=0):
            return conv(t(name + ".weight"), t(name + ".bias"), stride, pad)

        g = nn.GELU
        seq = [rep("patch_embed.0.reparam_conv", 2, 1), g(), rep("patch_embed.1.reparam_conv", 2, 1), g(),
               rep("patch_embed.2.reparam_conv"), g()]
        idx, n = 0, len(v["layers"])
        for i in range(n):
            if v["pos_embs_shapes"][i] is not None:
                seq.append(rep("network.%d.reparam_conv" % idx, 1, 3))
                idx += 1
            blk = RepMixer if v["token_mixers"][i] == "repmixer" else Attention
            seq += [blk(t, "network.%d.%d." % (idx, j)) for j in range(v["layers"][i])]
            idx += 1
            if i < n - 1:
                seq += [rep("network.%d.proj.0.lkb_reparam" % idx, 2, 3), g(),
                        rep("network.%d.proj.1.reparam_conv" % idx), g()]
                idx += 1
        self.trunk = nn.Sequential(*seq)
        w = t("conv_exp.reparam_conv.weight")
        self.exp = nn.Conv2d(w.shape[0] // 2, w.shape[0], 3, 1, 1, groups=w.shape[0] // 2)
        self.exp.weight.data, self.exp.bias.data = w, t("conv_exp.reparam_conv.bias")
        self.se1, self.se2 = rep("conv_exp.se.reduce"), rep("conv_exp.se.expand")
        m = lambda s: torch.from_numpy(np.array(ck.f32("model.mm_projector." + s)))      # noqa: E731
        self.proj = nn.Sequential(linear(m("0.weight"), m("0.bias")), g(), linear(m("2.weight"), m("2.bias")))
        if not projector:
            self.proj = nn.Identity()
        for p in self.parameters():
            p.requires_grad_(False)
        self.eval()

    def forward(self, pixel_values):
        x = self.exp(self.trunk(pixel_values))
        y = x.mean((2, 3), keepdim=True)
        x = F.gelu(x * torch.sigmoid(self.se2(torch.relu(self.se1(y)))))
        return self.proj(x.flatten(2).transpose(1, 2))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("--opset", type=int, default=20)
    a = ap.parse_args()
    m = Vision(a.checkpoint)
    for b in m.modules():
        if isinstance(b, Attention):
            b.sdpa = False                               # MatMul + Softmax: what ONNX engines' attention fusions look for
    x = torch.zeros(1, 3, m.size, m.size)
    with torch.no_grad():
        torch.onnx.export(m, (x,), a.out, opset_version=a.opset, input_names=["pixel_values"],
                          output_names=["image_features"], dynamo=False)
    print(a.out, os.path.getsize(a.out))


if __name__ == "__main__":
    main()
