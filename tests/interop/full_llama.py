#!/usr/bin/env python3
"""llama.cpp on the exported decoder: its tokenizer, logits and greedy ids against ours on text prompts.

  full_llama.py --program build/release/fastvlm --library build/release/libfastvlm.so MODEL [-n 24]      (pip: llama-cpp-python)

Ours is f32. f16 must choose the same ids; the block types must lose as little as their noise allows.
"""
import argparse
import os
import sys
import tempfile

import llama_cpp
import numpy as np

import fv

# relative L2 of the logits of one row that a type may have: weights in blocks carry 0.3 % and 8 % of noise, and
# llama.cpp rounds the activations that meet them to 8 bits, those that meet 16-bit weights to 16
LIMIT = {"f32": 1e-4, "f16": 5e-3, "bf16": 1.5e-2, "q8_0": 5e-2, "q4_0": 0.6}
PROMPTS = ["What do you see?", "How many people are there, and what are they doing?", "Name three colours.", "Hello! It's 12:30, isn't it?",
           "Ünïcödé — 日本語 🙂", "def f(x):\n    return x + 1\n"]


def logits_of(model):
    return np.array(np.ctypeslib.as_array(llama_cpp.llama_get_logits(model.ctx), (model.n_vocab(),)), np.float64)


def greedy(model, ids, n, limit):
    model.reset()
    model.eval(ids)
    first, out = logits_of(model), []
    row = first
    for _ in range(n):
        out.append(int(row[:limit].argmax()))
        model.eval([out[-1]])
        row = logits_of(model)
    return first, out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--library", required=True)
    ap.add_argument("model"), ap.add_argument("-n", type=int, default=24)
    ap.add_argument("--types", default="f32,f16,bf16,q8_0,q4_0")
    a = ap.parse_args()
    engine, bad = fv.Engine(a.library, a.model), 0
    # Ids that have a token: the rows behind them were never trained, and ours never chooses them.
    work = tempfile.mkdtemp()
    ours = {}
    for i, q in enumerate(PROMPTS):
        dump = os.path.join(work, "dump%d" % i)
        ids, _ = engine.answer(None, q, a.n, dump=dump)
        rows = np.load(os.path.join(dump, "logits_prefill.npy")).astype(np.float64)
        ours[q] = ids, rows.reshape(-1, rows.shape[-1])[-1]
    print("llama_cpp_python", llama_cpp.__version__, "|", a.model)
    for t in a.types.split(","):
        path = os.path.join(work, t + ".gguf")
        fv.export(a.program, "gguf", a.model, "-o", path, "--type", t)
        m = llama_cpp.Llama(path, n_ctx=512, n_batch=512, n_threads=2, verbose=False,
                            type_k=0, type_v=0)  # the cache in f32, as ours
        worst, same, first_apart, tokens = 0.0, 0, [], 0
        for q in PROMPTS:
            text = fv.prompt_text(q, False)
            want = engine.ids(text)
            got = m.tokenize(text.encode(), add_bos=False, special=True)
            tokens += got == want
            ids, row = ours[q]
            logits, chosen = greedy(m, want, len(ids), engine.limit())
            worst = max(worst, np.linalg.norm(logits[:len(row)] - row) / np.linalg.norm(row))
            same += chosen == ids
            if chosen != ids:
                first_apart.append(next(k for k, (x, y) in enumerate(zip(chosen, ids)) if x != y))
        ok = tokens == len(PROMPTS) and worst < LIMIT[t] and (same == len(PROMPTS) or t not in ("f32", "f16"))
        bad += not ok
        print("%-5s %5.1f MB  token ids equal %d/%d  logits relative L2 %.2g  greedy ids equal %d/%d%s  %s" %
              (t, os.path.getsize(path) / 1e6, tokens, len(PROMPTS), worst, same, len(PROMPTS),
               "" if same == len(PROMPTS) else " (first apart at step %s)" % first_apart, "ok" if ok else "NOT OK"), flush=True)
        os.remove(path)
    return bad


if __name__ == "__main__":
    sys.exit(main())
