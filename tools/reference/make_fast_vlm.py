#!/usr/bin/env python3
"""Rewrite a llava_qwen2 checkpoint (make_checkpoint.py) in the layout of transformers' native "fast_vlm" model.

  make_fast_vlm.py CHECKPOINT_DIR OUTDIR [--keep-head]

Follows what transformers' conversion script does to the released weights: tensor names by names.py, the CLIP head
dropped, one token <image> added after the last one, embedding (and an untied head) grown to a multiple of 64 rows,
nested config, chat template and processor files. The new rows are noise in the script; here they come from gauss().
A tied checkpoint is written without lm_head.weight, as transformers saves it; --keep-head stores it all the same.
"""
import argparse
import json
import os
import shutil
import sys

import numpy as np

import st
from fastvithd import FASTVITHD
from make_checkpoint import dump, gauss
from names import to_fast_vlm

SYSTEM = "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n"
TEMPLATE = (                                             # same rendering as the released template, written afresh
    "{%- for m in messages -%}"
    "{%- if loop.first and m.role != 'system' -%}{{ '" + SYSTEM + "' }}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- for c in m.content if c.type == 'image' -%}{{ '<image>' }}{%- endfor -%}"
    "{%- for c in m.content if c.type == 'text' -%}{{ '\\n' + c.text }}{%- endfor -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}")

TEXT_KEYS = ("attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "initializer_range",
             "intermediate_size", "max_position_embeddings", "max_window_layers", "num_attention_heads",
             "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "use_cache", "use_sliding_window")


def config(c, rows, image_id, tied, dtype):
    """config.json. Widths of the vision tower appear only when they are not FastViTHD's, as timm arguments."""
    v = dict(FASTVITHD)
    v.update(c.get("vision_config") or {})
    args = {"inference_mode": True}
    for k in ("layers", "embed_dims"):
        if tuple(v[k]) != tuple(FASTVITHD[k]):
            args[k] = list(v[k])
    size = int(c["mm_vision_tower"].split("_")[-1])
    text = {k: c[k] for k in TEXT_KEYS}
    text.update(model_type="qwen2", vocab_size=rows, tie_word_embeddings=tied, dtype=dtype,
                rope_parameters={"rope_type": "default", "rope_theta": c["rope_theta"]},
                layer_types=["full_attention"] * c["num_hidden_layers"], sliding_window=None)
    feat = int(v["embed_dims"][-1] * v["cls_ratio"])
    return {"architectures": ["FastVlmForConditionalGeneration"], "model_type": "fast_vlm", "dtype": dtype,
            "image_seq_length": (size // 64) ** 2, "image_token_index": image_id, "multimodal_projector_bias": True,
            "projector_hidden_act": "gelu", "text_config": text, "tie_word_embeddings": tied,
            "vision_config": {"architecture": "fastvit_mci3", "do_pooling": True, "dtype": dtype, "global_pool": "avg",
                              "hidden_size": feat, "initializer_range": 0.02, "label_names": [], "model_args": args,
                              "model_type": "timm_wrapper", "num_classes": 0, "num_features": feat},
            "vision_feature_layer": -1, "vision_feature_select_strategy": "full"}


def convert(src, out, keep_head=False):
    os.makedirs(out, exist_ok=True)
    ck = st.Checkpoint(src)
    with open(os.path.join(src, "config.json")) as f:
        c = json.load(f)
    with open(os.path.join(src, "tokenizer.json"), encoding="utf-8") as f:
        tok = json.load(f)
    with open(os.path.join(src, "tokenizer_config.json"), encoding="utf-8") as f:
        tcfg = json.load(f)
    tied = bool(c.get("tie_word_embeddings"))
    image_id = max(t["id"] for t in tok["added_tokens"]) + 1
    rows = -(-(c["vocab_size"] + 1) // 64) * 64
    table = {}
    for n in ck.keys():
        new = to_fast_vlm(n)
        if new and not (new == "lm_head.weight" and tied and not keep_head):
            table[new] = n
    decl = []
    for new, n in table.items():
        dt, sh = ck.info(n)
        grow = new == "lm_head.weight" or new.endswith("embed_tokens.weight")
        decl.append((new, dt, (rows,) + sh[1:] if grow else sh))
    decl.sort(key=lambda d: (d[1] != "I64", d[0]))
    w = st.Writer(os.path.join(out, "model.safetensors"), decl, {"format": "pt"})
    for new, dt, sh in decl:
        x = ck.raw(table[new])[1] if dt == "I64" else ck.f32(table[new])
        if x.shape != sh:
            x = np.concatenate([x, gauss(new + ".grown", (sh[0] - x.shape[0]) * sh[1]).reshape(-1, sh[1]) * np.float32(0.02)])
        w.write(new, x)
    w.close()

    dtype = c["torch_dtype"]
    dump(os.path.join(out, "config.json"), config(c, rows, image_id, tied, dtype), indent=2)
    dump(os.path.join(out, "generation_config.json"),
         {"_from_model_config": True, "bos_token_id": c["bos_token_id"], "eos_token_id": c["eos_token_id"],
          "pad_token_id": c["bos_token_id"]}, indent=2)
    s = int(c["mm_vision_tower"].split("_")[-1])
    dump(os.path.join(out, "preprocessor_config.json"),
         {"crop_size": {"height": s, "width": s}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
          "do_rescale": True, "do_resize": True, "image_mean": [0.0] * 3, "image_processor_type": "CLIPImageProcessor",
          "image_std": [1.0] * 3, "processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": 1 / 255,
          "size": {"shortest_edge": s}}, indent=2)
    dump(os.path.join(out, "processor_config.json"),
         {"image_token": "<image>", "num_additional_image_tokens": 0, "patch_size": 64,
          "processor_class": "LlavaProcessor", "vision_feature_select_strategy": "full"}, indent=2)
    with open(os.path.join(out, "chat_template.jinja"), "w") as f:
        f.write(TEMPLATE)
    img = {"content": "<image>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tok["added_tokens"].append(dict(img, id=image_id))
    tcfg["added_tokens_decoder"][str(image_id)] = img
    tcfg.pop("chat_template", None)
    tcfg["processor_class"] = "LlavaProcessor"
    dump(os.path.join(out, "tokenizer.json"), tok, separators=(",", ":"))
    dump(os.path.join(out, "tokenizer_config.json"), tcfg, indent=2)
    for f in ("vocab.json", "merges.txt"):
        shutil.copy(os.path.join(src, f), out)
    dump(os.path.join(out, "added_tokens.json"),
         {t["content"]: t["id"] for t in tok["added_tokens"]}, indent=2)
    print("%s: %d tensors, %d rows, <image> = %d" % (out, len(decl), rows, image_id))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("--keep-head", action="store_true")
    a = ap.parse_args()
    convert(a.checkpoint, a.out, a.keep_head)


if __name__ == "__main__":
    sys.exit(main())
