#!/usr/bin/env python3
"""transformers' own FastVLM class on exported checkpoint directories: loading report, prompt ids, logits, greedy ids against ours.

  full_transformers.py --program build/release/fastvlm --library build/release/libfastvlm.so MODEL PICTURE... [-n 24]
                                                        (pip: torch torchvision transformers timm pillow)

Pixels come from `fastvlm export calib`: transformers crops where FastVLM pads, so its own processor is only checked
on its prompt. Both sides compute in f32.
"""
import argparse
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import timm
import torch
import transformers

import fv

QUESTION = "What do you see?"


def pixels(program, picture, size, work):
    out = os.path.join(work, "pixels")
    fv.export(program, "calib", picture, "-o", out, "--force", "-q", "--layout", "nchw", "--image-size", str(size))
    return torch.from_numpy(np.fromfile(os.path.join(out, "sample_000.raw"), "<f4").reshape(1, 3, size, size))


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--library", required=True)
    ap.add_argument("model"), ap.add_argument("pictures", nargs="+"), ap.add_argument("-n", type=int, default=24)
    a = ap.parse_args()
    torch.set_num_threads(2)
    work, bad = tempfile.mkdtemp(), 0
    out = os.path.join(work, "hf")
    fv.export(a.program, "hf", a.model, "-o", out, "--layout", "fast_vlm")
    try:
        engine = fv.Engine(a.library, a.model)
    except RuntimeError:  # packed in blocks, which only run with quantised activations: ours reads the export too
        engine = fv.Engine(a.library, out)
    print("transformers %s torch %s timm %s | %s" % (transformers.__version__, torch.__version__, timm.__version__, a.model))
    hf, info = transformers.FastVlmForConditionalGeneration.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    hf.eval()
    missing = {k: sorted(v)[:4] for k, v in info.items() if v}
    bad += bool(missing)
    print("loading:", missing or "no tensor missing, unexpected or of another shape (%d)" % len(hf.state_dict()))
    proc = transformers.AutoProcessor.from_pretrained(out)
    conv = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = proc.apply_chat_template(conv, add_generation_prompt=True)
    size = proc.image_processor.crop_size["height"]
    n_image = (size // 64) ** 2
    ours = fv.prompt_text(QUESTION, True)
    before, after = ours.split("<image>")
    image_id = hf.config.image_token_id
    ids = engine.ids(before) + [image_id] * n_image + engine.ids(after)
    theirs = proc.tokenizer(text.replace("<image>", "<image>" * n_image))["input_ids"]
    bad += text != ours or theirs != ids
    print("processor %s: prompt text equal %s, %d ids equal %s" % (type(proc).__name__, text == ours, len(ids), theirs == ids))
    limit = engine.limit()
    rows = hf.config.text_config.vocab_size
    for p in a.pictures:
        dump = os.path.join(work, "dump")
        want, answer = engine.answer(p, QUESTION, a.n, dump=dump)
        row = np.load(os.path.join(dump, "logits_prefill.npy")).astype(np.float64)
        row = row.reshape(-1, row.shape[-1])[-1]
        px = pixels(a.program, p, size, work)
        batch = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), pixel_values=px)
        logits = hf(**batch).logits[0, -1].double().numpy()
        n = min(len(row), len(logits))
        d = np.linalg.norm(logits[:n] - row[:n]) / np.linalg.norm(row[:n])
        # ids without a token, and <image>, are not chosen: transformers must be told
        suppress = [i for i in range(rows) if i >= limit or i == image_id]
        got = hf.generate(**batch, max_new_tokens=len(want), do_sample=False, suppress_tokens=suppress)[0, len(ids):].tolist()
        ok = d < 1e-4 and got == want
        bad += not ok
        print("%s: logits relative L2 %.2g, %d greedy ids equal %s  %r  %s" %
              (os.path.basename(p), d, len(want), got == want, answer[:60], "ok" if ok else "NOT OK: %s, ours %s" % (got, want)), flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
