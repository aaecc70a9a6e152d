"""FastVLM reference model (inference form), written for clarity: explicit tensors, no nn.Module.

Everything runs in the dtype given to Model (float32 by default) on CPU. Weights stored as bf16/f16
are widened first, so the result is "bf16 weights, fp32 arithmetic".

Vision tensor prefix (apple / llava_qwen2 layout): model.vision_tower.vision_tower.model.
"""
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F

from fastvithd import FASTVITHD, VT
from st import Checkpoint

BN_EPS = 1e-5
LN_EPS = 1e-5
HEAD_DIM_V = 32


def gelu(x):
    """Exact GELU: 0.5 x (1 + erf(x / sqrt 2))."""
    return F.gelu(x)


class Model:
    def __init__(self, directory, dtype=torch.float32):
        self.dir = directory
        with open(os.path.join(directory, "config.json")) as f:
            self.cfg = json.load(f)
        self.ck = Checkpoint(directory)
        self.dtype = dtype
        self._cache = {}
        v = dict(FASTVITHD)
        v.update({k: w for k, w in (self.cfg.get("vision_config") or {}).items() if k in v})
        self.v = v
        self.image_size = int(self.cfg["mm_vision_tower"].split("_")[-1])
        self.trace = None  # set to a dict to collect named intermediate tensors

    def w(self, name):
        t = self._cache.get(name)
        if t is None:
            t = torch.from_numpy(np.ascontiguousarray(self.ck.f32(name))).to(self.dtype)
            self._cache[name] = t
        return t

    def _tap(self, name, x):
        if self.trace is not None:
            self.trace[name] = x.detach().clone()
        return x

    # ------------------------------------------------------------------ vision encoder

    def _conv(self, x, name, stride=1, pad=0, groups=1, bias=True):
        return F.conv2d(x, self.w(VT + name + ".weight"), self.w(VT + name + ".bias") if bias else None,
                        stride=stride, padding=pad, groups=groups)

    def _bn(self, x, name):
        g, b = self.w(VT + name + ".weight"), self.w(VT + name + ".bias")
        m, s2 = self.w(VT + name + ".running_mean"), self.w(VT + name + ".running_var")
        return F.batch_norm(x, m, s2, g, b, training=False, eps=BN_EPS)

    def _ln_channel(self, x, name):
        """LayerNorm over the channel axis at each pixel (biased variance, eps inside the root)."""
        u = x.mean(1, keepdim=True)
        d = x - u
        s = (d * d).mean(1, keepdim=True)
        y = d / torch.sqrt(s + LN_EPS)
        return y * self.w(VT + name + ".weight")[:, None, None] + self.w(VT + name + ".bias")[:, None, None]

    def _ffn(self, x, name):
        """ConvFFN: depthwise 7x7 (no bias) -> BatchNorm -> 1x1 expand -> GELU -> 1x1 project."""
        x = self._conv(x, name + ".conv.conv", pad=3, groups=x.shape[1], bias=False)
        x = self._bn(x, name + ".conv.bn")
        x = gelu(self._conv(x, name + ".fc1"))
        return self._conv(x, name + ".fc2")

    def _mhsa(self, x, name):
        b, c, h, w = x.shape
        n, nh = h * w, c // HEAD_DIM_V
        t = x.flatten(2).transpose(1, 2)                                   # [b, n, c], row-major pixels
        qkv = F.linear(t, self.w(VT + name + ".qkv.weight"))               # no bias; rows: q | k | v
        q, k, v = qkv.reshape(b, n, 3, nh, HEAD_DIM_V).permute(2, 0, 3, 1, 4)
        a = torch.softmax((q * HEAD_DIM_V ** -0.5) @ k.transpose(-2, -1), dim=-1)
        t = (a @ v).transpose(1, 2).reshape(b, n, c)
        t = F.linear(t, self.w(VT + name + ".proj.weight"), self.w(VT + name + ".proj.bias"))
        return t.transpose(1, 2).reshape(b, c, h, w)

    def _repmixer_block(self, x, name):
        c = x.shape[1]
        k = self.v["repmixer_kernel_size"]
        x = self._conv(x, name + ".token_mixer.reparam_conv", pad=k // 2, groups=c)   # no residual: it is inside
        return x + self.w(VT + name + ".layer_scale") * self._ffn(x, name + ".convffn")

    def _attention_block(self, x, name):
        y = self._mhsa(self._ln_channel(x, name + ".norm"), name + ".token_mixer")
        x = x + self.w(VT + name + ".layer_scale_1") * y
        return x + self.w(VT + name + ".layer_scale_2") * self._ffn(x, name + ".convffn")

    def vision_plan(self):
        """The flat "network" list: (index, kind, stage, channels, depth)."""
        v, plan, idx = self.v, [], 0
        n = len(v["layers"])
        for i in range(n):
            if v["pos_embs_shapes"][i] is not None:
                plan.append((idx, "cpe", i, v["embed_dims"][i], 1))
                idx += 1
            plan.append((idx, v["token_mixers"][i], i, v["embed_dims"][i], v["layers"][i]))
            idx += 1
            if i < n - 1:
                plan.append((idx, "down", i, v["embed_dims"][i + 1], 1))
                idx += 1
        return plan

    @torch.no_grad()
    def vision(self, pixels):
        """pixels [b, 3, S, S] -> features [b, (S/64)^2, 2*embed_dims[-1]]."""
        x = pixels.to(self.dtype)
        d0 = self.v["embed_dims"][0]
        x = self._tap("vision.stem.0", gelu(self._conv(x, "patch_embed.0.reparam_conv", stride=2, pad=1)))
        x = self._tap("vision.stem.1", gelu(self._conv(x, "patch_embed.1.reparam_conv", stride=2, pad=1, groups=d0)))
        x = self._tap("vision.stem.2", gelu(self._conv(x, "patch_embed.2.reparam_conv")))
        for idx, kind, stage, ch, depth in self.vision_plan():
            p = "network.%d" % idx
            if kind == "cpe":
                x = self._conv(x, p + ".reparam_conv", pad=self.v["pos_embs_shapes"][stage][0] // 2, groups=ch)
            elif kind == "down":
                k = self.v["down_patch_size"]
                x = gelu(self._conv(x, p + ".proj.0.lkb_reparam", stride=self.v["down_stride"], pad=k // 2,
                                    groups=x.shape[1]))
                x = gelu(self._conv(x, p + ".proj.1.reparam_conv"))
            else:
                blk = self._repmixer_block if kind == "repmixer" else self._attention_block
                for j in range(depth):
                    x = blk(x, "%s.%d" % (p, j))
                    self._tap("vision.network.%d.%d" % (idx, j), x)
            self._tap("vision.network.%d" % idx, x)
        x = self._conv(x, "conv_exp.reparam_conv", pad=1, groups=x.shape[1])
        s = x.mean((2, 3), keepdim=True)
        s = torch.relu(self._conv(s, "conv_exp.se.reduce"))
        s = torch.sigmoid(self._conv(s, "conv_exp.se.expand"))
        x = self._tap("vision.conv_exp", gelu(x * s))
        return self._tap("vision.features", x.flatten(2).transpose(1, 2))

    # ------------------------------------------------------------------ projector

    @torch.no_grad()
    def project(self, feats):
        x = F.linear(feats, self.w("model.mm_projector.0.weight"), self.w("model.mm_projector.0.bias"))
        x = F.linear(gelu(x), self.w("model.mm_projector.2.weight"), self.w("model.mm_projector.2.bias"))
        return self._tap("image_tokens", x)

    def encode_image(self, pixels):
        return self.project(self.vision(pixels))

    # ------------------------------------------------------------------ Qwen2 decoder

    def embed(self, ids):
        return self.w("model.embed_tokens.weight")[torch.as_tensor(ids, dtype=torch.long)]

    def splice(self, ids, image_tokens, image_token_index=-200):
        """ids: list with image_token_index where an image goes; image_tokens: list of [n, hidden]."""
        rows, img = [], 0
        run = []
        for t in list(ids) + [None]:
            if t is None or t == image_token_index:
                if run:
                    rows.append(self.embed(run))
                    run = []
                if t is not None:
                    rows.append(image_tokens[img].to(self.dtype))
                    img += 1
            else:
                run.append(t)
        x = torch.cat(rows, 0)
        mx = self.cfg.get("tokenizer_model_max_length")
        return x if mx is None else x[:mx]

    def _rms(self, x, name):
        # the reference computes the statistics in fp32 and multiplies the weight last
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.cfg["rms_norm_eps"])
        return self.w(name) * y.to(x.dtype)

    def _rope(self, pos):
        c = self.cfg
        d = c["hidden_size"] // c["num_attention_heads"]
        inv = 1.0 / (c["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.int64).float() / d))
        ang = pos.float()[:, None] * inv[None, :]                     # fp32 product
        ang = torch.cat([ang, ang], -1)
        return ang.cos().to(self.dtype), ang.sin().to(self.dtype)

    @staticmethod
    def _rot(x, cos, sin):
        h = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., h:], x[..., :h]], -1) * sin

    @torch.no_grad()
    def decoder(self, x, cache=None, collect=False):
        """x [n, hidden]; cache: list of (k, v) per layer, k/v [kv_heads, t, head_dim], or None.
        Returns (hidden after the final norm [n, hidden], new cache)."""
        c = self.cfg
        nh, nkv = c["num_attention_heads"], c["num_key_value_heads"]
        d = c["hidden_size"] // nh
        n = x.shape[0]
        past = 0 if cache is None else cache[0][0].shape[1]
        cos, sin = self._rope(torch.arange(past, past + n))
        mask = torch.full((n, past + n), float("-inf")).triu(past + 1).to(self.dtype)
        new = []
        for i in range(c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            h = self._rms(x, p + "input_layernorm.weight")
            a = p + "self_attn."
            q = F.linear(h, self.w(a + "q_proj.weight"), self.w(a + "q_proj.bias")).view(n, nh, d).transpose(0, 1)
            k = F.linear(h, self.w(a + "k_proj.weight"), self.w(a + "k_proj.bias")).view(n, nkv, d).transpose(0, 1)
            v = F.linear(h, self.w(a + "v_proj.weight"), self.w(a + "v_proj.bias")).view(n, nkv, d).transpose(0, 1)
            q, k = self._rot(q, cos, sin), self._rot(k, cos, sin)
            if cache is not None:
                k = torch.cat([cache[i][0], k], 1)
                v = torch.cat([cache[i][1], v], 1)
            new.append((k, v))
            g = nh // nkv                                             # query head j uses kv head j // g
            s = q @ k.repeat_interleave(g, 0).transpose(1, 2) / math.sqrt(d) + mask
            o = torch.softmax(s.float(), -1).to(self.dtype) @ v.repeat_interleave(g, 0)
            o = o.transpose(0, 1).reshape(n, nh * d)
            x = x + F.linear(o, self.w(a + "o_proj.weight"))
            h = self._rms(x, p + "post_attention_layernorm.weight")
            m = F.silu(F.linear(h, self.w(p + "mlp.gate_proj.weight"))) * F.linear(h, self.w(p + "mlp.up_proj.weight"))
            x = x + F.linear(m, self.w(p + "mlp.down_proj.weight"))
            if collect:
                self._tap("decoder.layer.%d" % i, x)
        x = self._rms(x, "model.norm.weight")
        if collect:
            self._tap("decoder.norm", x)
        return x, new

    def head_weight(self):
        """tie_word_embeddings true -> the embedding matrix, even if lm_head.weight is stored."""
        if not self.cfg.get("tie_word_embeddings", False) and "lm_head.weight" in self.ck:
            return self.w("lm_head.weight")
        return self.w("model.embed_tokens.weight")

    @torch.no_grad()
    def logits(self, hidden):
        return F.linear(hidden, self.head_weight())

    @torch.no_grad()
    def greedy(self, ids, image_tokens, max_new_tokens=32, eos=None, limit=None):
        """Returns (generated ids incl. the eos if hit, list of logits rows, prefill logits [n, vocab]).

        limit: only ids below it may be chosen. The original loader shrinks the embedding matrix to
        len(tokenizer) rows, so pass tokenizer.size to get its choices; the padding rows above have no token.
        """
        eos = {self.cfg["eos_token_id"]} if eos is None else set(eos)
        x = self.splice(ids, image_tokens)
        hid, cache = self.decoder(x, collect=True)
        pre = self.logits(hid)
        row, out, rows = pre[-1], [], []
        for _ in range(max_new_tokens):
            rows.append(row)
            t = int(row[:limit].argmax())
            out.append(t)
            if t in eos:
                break
            hid, cache = self.decoder(self.embed([t]), cache)
            row = self.logits(hid)[0]
        return out, rows, pre
