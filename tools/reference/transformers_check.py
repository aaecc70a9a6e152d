#!/usr/bin/env python3
"""Compare this reference with transformers' native FastVLM on the same weights.

  transformers_check.py LLAVA_QWEN2_DIR FAST_VLM_DIR [IMAGE] [--prompt TEXT] [-n 24]

FAST_VLM_DIR comes from make_fast_vlm.py LLAVA_QWEN2_DIR FAST_VLM_DIR. Needs pip packages torch, torchvision,
transformers (5.x), timm, regex. fp32, two threads. Prints one line per comparison: max abs difference, relative L2.
"""
import argparse
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image

from fastvlm import Model
from names import to_fast_vlm
from preprocess import process_pil
from tokenizer import Tokenizer


def show(what, a, b):
    a, b = a.double().reshape(-1), b.double().reshape(-1)
    d = (a - b).abs().max().item()
    print("%-34s max abs %.3g of %.3g   rel L2 %.3g" % (what, d, a.abs().max().item(), ((a - b).norm() / a.norm()).item()))


def stages(tower):
    """{reference trace name: module of the timm tower} for every block and stage output."""
    m = {"vision.stem.%d" % i: tower.stem[i] for i in range(3)}
    net = {0: 0, 2: 1, 4: 2, 7: 3, 10: 4}
    for n, s in net.items():
        st = tower.stages[s]
        for j, b in enumerate(st.blocks):
            m["vision.network.%d.%d" % (n, j)] = b
        m["vision.network.%d" % n] = st
        if s:
            m["vision.network.%d" % {1: 1, 2: 3, 3: 5, 4: 8}[s]] = st.downsample
        if s >= 3:
            m["vision.network.%d" % {3: 6, 4: 9}[s]] = st.pos_emb
    m["vision.conv_exp"] = tower.final_conv
    return m


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("llava")
    ap.add_argument("fast_vlm")
    ap.add_argument("image", nargs="?", default=os.path.join(os.path.dirname(__file__), "../../tests/data/tiny/image.png"))
    ap.add_argument("--prompt", default="What do you see?")
    ap.add_argument("-n", type=int, default=24)
    a = ap.parse_args()
    import timm
    import transformers
    from transformers import AutoImageProcessor, AutoProcessor, FastVlmForConditionalGeneration
    print("torch", torch.__version__, "transformers", transformers.__version__, "timm", timm.__version__)
    torch.set_num_threads(2)
    ref, tok = Model(a.llava), Tokenizer(a.llava)
    ref.trace = {}
    hf, info = FastVlmForConditionalGeneration.from_pretrained(a.fast_vlm, dtype=torch.float32, output_loading_info=True)
    hf.eval()
    print("loading:", {k: sorted(v)[:4] for k, v in info.items() if v} or "every tensor used, none missing")
    sd = hf.state_dict()
    want = {to_fast_vlm(n) for n in ref.ck.keys()} - {None}
    print("state_dict %d names; in the table but not there: %s; there but not in the table: %s"
          % (len(sd), sorted(want - set(sd)), sorted(set(sd) - want)))
    print("tie_word_embeddings", hf.config.tie_word_embeddings, "same storage:",
          hf.lm_head.weight.data_ptr() == hf.model.language_model.embed_tokens.weight.data_ptr(),
          "| generation eos", hf.generation_config.eos_token_id)

    # ---- prompt
    proc = AutoProcessor.from_pretrained(a.fast_vlm)
    print("processor", type(proc).__name__, type(proc.image_processor).__name__, type(proc.tokenizer).__name__)
    conv = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": a.prompt}]}]
    text = proc.apply_chat_template(conv, add_generation_prompt=True)
    ours = tok.prompt_text(a.prompt)
    print("prompt text equal:", text == ours)
    pil = Image.open(a.image).convert("RGB")
    batch = proc(images=pil, text=text, return_tensors="pt")
    ids = batch["input_ids"][0].tolist()
    mine = tok.encode_prompt(ours)
    n_img = (ref.image_size // 64) ** 2
    flat = [x for t in mine for x in ([hf.config.image_token_id] * n_img if t == -200 else [t])]
    print("prompt ids equal (%d): %s" % (len(ids), ids == flat))

    # ---- preprocessing: default and other back ends against this reference (crop and pad)
    w, h = pil.size
    for wh in ((w, h), (640, 427), (427, 640), (1500, 1100)):
        im = pil.resize(wh, Image.BILINEAR)
        for aspect in ("pad", "crop"):
            mine_px = process_pil(im, ref.image_size, aspect=aspect)
            src = im
            if aspect == "pad":                          # what a caller must do first to get predict.py's pixels
                s = max(im.size)
                src = Image.new("RGB", (s, s))
                src.paste(im, ((s - im.size[0]) // 2, (s - im.size[1]) // 2))
            for be in ("torchvision", "pil"):
                ip = AutoImageProcessor.from_pretrained(a.fast_vlm, backend=be)
                px = np.asarray(ip(images=src, return_tensors="pt")["pixel_values"][0])
                d = np.abs(px - mine_px)
                lv = np.rint(d * 255).astype(int)
                print("pixels %-4s %4dx%-4d %-24s max abs %.3g, levels off: %s" %
                      (aspect, wh[0], wh[1], type(ip).__name__, d.max(),
                       {int(k): int((lv == k).sum()) for k in np.unique(lv)}))

    # ---- vision, projector, decoder on the reference's own pixels
    px = torch.from_numpy(process_pil(pil, ref.image_size, aspect=ref.cfg["image_aspect_ratio"]))[None]
    got = {}
    for name, mod in stages(hf.model.vision_tower.timm_model).items():
        mod.register_forward_hook(lambda m, i, o, k=name: got.__setitem__(k, o.detach()))
    img = ref.encode_image(px)
    out = hf.model.get_image_features(px)
    worst = 0.0
    for k, v in got.items():
        r = ref.trace[k]
        worst = max(worst, ((v - r).norm() / r.norm()).item())
    print("encoder: %d block and stage outputs, worst rel L2 %.3g" % (len(got), worst))
    show("vision features", ref.trace["vision.features"], out.last_hidden_state.flatten(2).transpose(1, 2))
    show("image tokens", img, out.pooler_output)
    torch.set_num_threads(2)
    gen, rows, pre = ref.greedy(mine, [img[0]], a.n, limit=tok.size)
    o = hf(input_ids=torch.tensor([flat]), pixel_values=px)
    v = ref.cfg["vocab_size"]
    print("logits", tuple(o.logits.shape))
    show("logits, all prompt rows", pre[:, :v], o.logits[0, :, :v])
    bad = list(range(tok.size, o.logits.shape[-1]))
    g = hf.generate(input_ids=torch.tensor([flat]), attention_mask=torch.ones(1, len(flat), dtype=torch.long), pixel_values=px,
                    max_new_tokens=a.n, do_sample=False, suppress_tokens=bad)
    g = g[0, len(flat):].tolist()
    print("greedy ids equal (%d): %s" % (len(g), g == gen))
    free = hf.generate(input_ids=torch.tensor([flat]), attention_mask=torch.ones(1, len(flat), dtype=torch.long), pixel_values=px,
                       max_new_tokens=a.n, do_sample=False)[0, len(flat):].tolist()
    print("greedy without suppressing ids >= %d: equal %s" % (tok.size, free == gen))

    # ---- prompts in which the template and the original differ
    for conv in ([{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
                 [{"role": "user", "content": "Hi."}],
                 [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                  {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "image"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
                  {"role": "user", "content": [{"type": "text", "text": "And?"}]}]):
        try:
            print(repr(proc.apply_chat_template(conv, add_generation_prompt=True)))
        except Exception as e:
            print("template:", type(e).__name__, e)


if __name__ == "__main__":
    main()
