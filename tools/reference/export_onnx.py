#!/usr/bin/env python3
"""Export the three static ONNX graphs of a FastVLM pipeline from the reference (for importer tests).

  export_onnx.py CHECKPOINT_DIR OUTDIR [--seq-len 512] [--cache-len 512] [--only vision,embed,decoder]

  vision_encoder_fp32.onnx    pixel_values [1,3,S,S] f32        -> image_features [1,(S/64)^2,H] f32
  embed_tokens_fp32.onnx      input_ids [1,seq-len] i64         -> inputs_embeds [1,seq-len,H] f32
  decoder_fixed_kv_fp32.onnx  see fixed_kv.py
"""
import argparse
import os

import torch

from fastvlm import Model
from fixed_kv import LEGACY, FixedKV, empty, names


class Vision(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, pixel_values):
        return self.m.project(self.m.vision(pixel_values))


class Embed(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.register_buffer("table", m.w("model.embed_tokens.weight"))

    def forward(self, input_ids):
        return self.table[input_ids]


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("--seq-len", type=int, default=512)
    ap.add_argument("--cache-len", type=int, default=512)
    ap.add_argument("--only", default="vision,embed,decoder")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    m = Model(a.checkpoint)
    h, s = m.cfg["hidden_size"], m.image_size
    mask, past = empty(m, a.cache_len)
    di, do = names(m.cfg["num_hidden_layers"])
    jobs = {"vision": (Vision(m), (torch.zeros(1, 3, s, s),), "vision_encoder_fp32", ["pixel_values"], ["image_features"]),
            "embed": (Embed(m), (torch.zeros(1, a.seq_len, dtype=torch.int64),), "embed_tokens_fp32", ["input_ids"],
                      ["inputs_embeds"]),
            "decoder": (FixedKV(m), (torch.zeros(1, 1, h), mask, torch.zeros(1, 1, dtype=torch.int64), *past),
                        "decoder_fixed_kv_fp32", di, do)}
    for k in a.only.split(","):
        mod, args, name, i, o = jobs[k]
        path = os.path.join(a.out, name + ".onnx")
        torch.onnx.export(mod.eval(), args, path, input_names=i, output_names=o, opset_version=14,
                          do_constant_folding=True, **LEGACY)
        print(path, os.path.getsize(path))


if __name__ == "__main__":
    main()
