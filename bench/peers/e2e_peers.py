#!/usr/bin/env python3
"""Time to first token of whole-FastVLM peers: one 1024x1024 image (already decoded) and "Describe the image." (280 positions).

  e2e_peers.py hf-f32 | hf-bf16  FAST_VLM_DIR PICTURE     transformers' native model (fastvlm export hf), not compiled
  e2e_peers.py compile-f32 | compile-bf16                 the same with encoder, projector and decoder through torch.compile (needs a C++ compiler)
  options: -t 2 -r 4 -n 16 --roofline PATH --limit 240
"""
import argparse
import os
import resource
import statistics
import time

import quietly


def hf(a):
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    from PIL import Image
    from transformers import AutoProcessor, FastVlmForConditionalGeneration
    torch.set_num_threads(a.t)
    dt = torch.bfloat16 if a.engine.endswith("bf16") else torch.float32
    m, more = FastVlmForConditionalGeneration.from_pretrained(a.dir, dtype=dt).eval(), {}
    if a.engine.startswith("compile"):
        import torch._inductor.config as ic
        ic.freezing = True                               # weights are constants and can be repacked
        for part in (m.model.vision_tower, m.model.multi_modal_projector, m.model.language_model):
            part.forward = torch.compile(part.forward, dynamic=False)    # forward, not the module: the hooks below stay outside
        more["cache_implementation"] = "static"          # one shape a decode step, so that it is compiled once
    p = AutoProcessor.from_pretrained(a.dir)
    img = Image.open(a.picture).convert("RGB")
    conv = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    text = p.apply_chat_template(conv, add_generation_prompt=True)

    class Clock:
        """generate()'s streamer: told the prompt first, then every token."""

        def __init__(self):
            self.at = []

        def put(self, _):
            self.at.append(time.time())

        def end(self):
            pass
    spent = [0.0, 0.0]                                   # in the encoder and projector: start, sum

    def start(*_):
        spent[0] = time.time()

    def stop(*_):
        spent[1] += time.time() - spent[0]
    for part in (m.model.vision_tower, m.model.multi_modal_projector):
        part.register_forward_pre_hook(start)
        part.register_forward_hook(stop)

    @torch.no_grad()
    def run():
        spent[1], c, n = 0.0, Clock(), 1 + a.n
        t0 = time.time()
        b = p(images=img, text=text, return_tensors="pt").to(dt)
        t1 = time.time()
        m.generate(**b, max_new_tokens=n, min_new_tokens=n, do_sample=False, streamer=c, **more)
        assert len(c.at) == n + 1 and spent[1] > 0
        first = c.at[1] - t0
        return first, spent[1], first - (t1 - t0) - spent[1], a.n / (c.at[-1] - c.at[1])
    return "transformers %s torch%s %s" % (transformers.__version__, ".compile" if more else "", torch.__version__), run


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("engine"), ap.add_argument("dir"), ap.add_argument("picture")
    ap.add_argument("-t", type=int, default=2), ap.add_argument("-r", type=int, default=4), ap.add_argument("-n", type=int, default=16)
    ap.add_argument("--json", help="append records to this file")
    ap.add_argument("--roofline"), ap.add_argument("--limit", type=float, default=240)
    a = ap.parse_args()
    t0 = time.time()
    ver, run = hf(a)
    t1 = time.time()
    run()
    m0 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    r, note = quietly.reps(run, a.r, a.limit)
    m1 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    more = dict(engine=ver, precision=a.engine.split("-")[-1], threads=a.t, load_ms=(t1 - t0) * 1e3, quiet=note,
                peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    quietly.record(a.json, "vision", [x[1] for x in r], **more)
    quietly.record(a.json, "prefill", [x[2] for x in r], tokens=280, **more)
    quietly.record(a.json, "decode", [1 / x[3] for x in r], tokens=1, **more)
    quietly.record(a.json, "first_token", [x[0] for x in r], **more)
    k = min(range(len(r)), key=lambda i: r[i][0])
    print("%s %s t%d: time to first token %.2f s best %.2f med (vision %.2f, prefill %.2f), then %.1f tok/s; load %.1f s; rss %d MB  [%s]" %
          (ver, a.engine, a.t, r[k][0], statistics.median(x[0] for x in r), r[k][1], r[k][2], r[k][3], t1 - t0,
           resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, note), flush=True)
    if a.roofline:
        print("  machine before: %s; after: %s" % (m0, m1), flush=True)


if __name__ == "__main__":
    main()
