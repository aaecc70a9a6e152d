#!/usr/bin/env python3
"""The fixed-KV decoder ("decoder_fixed_kv") in the reference: one static-shape step.

  fixed_kv.py CHECKPOINT_DIR [--cache-len 64] [--onnx OUT.onnx]

Inputs   inputs_embeds [1, N, H] f32, attention_mask [1, C + N] i64 (1 = attend), position_ids [1, N] i64,
         past_key_values.{i}.key / .value [1, KV, C, D] f32, i = 0 .. L-1
Outputs  logits [1, N, V] f32, present.{i}.key / .value [1, KV, C, D] f32
The cache is right-aligned: the newest entry is in slot C-1, unused slots are on the left and masked by 0 in
attention_mask. present = concat(past, new)[-C:], so a full cache drops its oldest entry. Keys are stored after
RoPE, so position_ids keep counting when entries are dropped.
Without --onnx the script checks this step against the growing-cache decoder.
"""
import argparse
import inspect
import math

import torch
import torch.nn.functional as F

from fastvlm import Model
from tokenizer import Tokenizer

# torch >= 2.5 must be told to use the exporter that writes opset 14
LEGACY = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


class FixedKV(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m
        c = m.cfg
        d = c["hidden_size"] // c["num_attention_heads"]
        self.register_buffer("inv", 1.0 / (c["rope_theta"] ** (torch.arange(0, d, 2).float() / d)))

    def forward(self, x, mask, pos, *past):
        m, c = self.m, self.m.cfg
        nh, nkv = c["num_attention_heads"], c["num_key_value_heads"]
        d, n = c["hidden_size"] // nh, x.shape[1]
        C = past[0].shape[2]
        g = nh // nkv
        ang = pos.float()[0][:, None] * self.inv[None, :]
        ang = torch.cat([ang, ang], -1)
        cos, sin = ang.cos(), ang.sin()
        causal = torch.ones(n, C + n).tril(C)
        bias = (1.0 - causal[None, None] * mask[:, None, None, :].float()) * -3.4028235e38 / 2
        outs = []
        for i in range(c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            a = p + "self_attn."
            h = m._rms(x, p + "input_layernorm.weight")

            def heads(t, k):
                return F.linear(h, m.w(a + t + "_proj.weight"), m.w(a + t + "_proj.bias")).view(1, n, k, d).transpose(1, 2)
            q, k, v = m._rot(heads("q", nh), cos, sin), m._rot(heads("k", nkv), cos, sin), heads("v", nkv)
            k, v = torch.cat([past[2 * i], k], 2), torch.cat([past[2 * i + 1], v], 2)
            outs += [k[:, :, n:], v[:, :, n:]]
            kk = k[:, :, None].expand(1, nkv, g, C + n, d).reshape(1, nh, C + n, d)
            vv = v[:, :, None].expand(1, nkv, g, C + n, d).reshape(1, nh, C + n, d)
            o = torch.softmax(q @ kk.transpose(2, 3) / math.sqrt(d) + bias, -1) @ vv
            x = x + F.linear(o.transpose(1, 2).reshape(1, n, nh * d), m.w(a + "o_proj.weight"))
            h = m._rms(x, p + "post_attention_layernorm.weight")
            x = x + F.linear(F.silu(F.linear(h, m.w(p + "mlp.gate_proj.weight")))
                             * F.linear(h, m.w(p + "mlp.up_proj.weight")), m.w(p + "mlp.down_proj.weight"))
        return (F.linear(m._rms(x, "model.norm.weight"), m.head_weight()), *outs)


def names(layers):
    i, o = ["inputs_embeds", "attention_mask", "position_ids"], ["logits"]
    for k in range(layers):
        i += ["past_key_values.%d.key" % k, "past_key_values.%d.value" % k]
        o += ["present.%d.key" % k, "present.%d.value" % k]
    return i, o


def empty(m, cache_len, n=1):
    c = m.cfg
    d = c["hidden_size"] // c["num_attention_heads"]
    past = [torch.zeros(1, c["num_key_value_heads"], cache_len, d) for _ in range(2 * c["num_hidden_layers"])]
    return torch.zeros(1, cache_len + n, dtype=torch.int64), past


@torch.no_grad()
def step_through(step, x, mask, past, pos0=0):
    """Feed rows of x one by one; returns logits rows and the final state."""
    rows = []
    for t in range(x.shape[0]):
        mask = torch.cat([mask[:, 1:], torch.ones(1, 1, dtype=torch.int64)], 1)
        out = step(x[None, t:t + 1], mask, torch.tensor([[pos0 + t]]), *past)
        rows.append(out[0][0, 0])
        past = list(out[1:])
    return torch.stack(rows), mask, past


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("--cache-len", type=int, default=64)
    ap.add_argument("--onnx")
    a = ap.parse_args()
    m = Model(a.checkpoint)
    step = FixedKV(m).eval()
    mask, past = empty(m, a.cache_len)
    if a.onnx:
        i, o = names(m.cfg["num_hidden_layers"])
        with torch.no_grad():
            torch.onnx.export(step, (torch.zeros(1, 1, m.cfg["hidden_size"]), mask, torch.zeros(1, 1, dtype=torch.int64),
                                     *past), a.onnx, input_names=i, output_names=o, opset_version=14,
                              do_constant_folding=True, **LEGACY)
        print("wrote", a.onnx)
        return
    tok = Tokenizer(a.checkpoint)
    x = m.embed(tok.encode(tok.prompt_text("Count the objects.", with_image=False)))
    ref, _ = m.decoder(x)
    got, _, _ = step_through(step, x, mask, past)
    print("tokens", len(x), "cache", a.cache_len, "max abs difference of logits",
          float((m.logits(ref) - got).abs().max()))


if __name__ == "__main__":
    main()
