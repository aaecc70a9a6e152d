#!/usr/bin/env python3
"""llama.cpp on the exported decoder: its tokenizer, logits and greedy ids against ours on text prompts.

  full_llama.py --program build/release/fastvlm --library build/release/libfastvlm.so MODEL [-n 24]      (pip: llama-cpp-python)

Ours is f32. f32 and f16 must choose the same ids. What q8_0 and q4_0 lose is held against what this program loses with
the same blocks (z8, q4): weights of noise lose more than trained ones.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

import fv

# relative L2 of the logits of one row; llama.cpp rounds activations to 16 bits where weights have 16
LIMIT = {"f32": 1e-4, "f16": 5e-3, "bf16": 1.5e-2}
PACKED = {"q8_0": "z8", "q4_0": "q4"}
MORE = 2  # times our own loss: it keeps the scale of activations in 16 bits, we in 32
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


def distance(got, want):
    n = min(len(got), len(want))
    return np.linalg.norm(got[:n] - want[:n]) / np.linalg.norm(want[:n])


def row_of(engine, question, n, dump):
    ids, _ = engine.answer(None, question, n, dump=dump)
    rows = np.load(os.path.join(dump, "logits_prefill.npy")).astype(np.float64)
    return ids, rows.reshape(-1, rows.shape[-1])[-1]


def our_loss(a, kind, ours, work):
    """The worst distance of our own rows with the decoder packed in the same blocks."""
    path = os.path.join(work, kind + ".packed")
    subprocess.run([a.program, "pack", a.model, "-o", path, "--decoder", kind], check=True, capture_output=True)
    engine = fv.Engine(a.library, path, "auto")
    worst = max(distance(row_of(engine, q, 1, os.path.join(work, kind))[1], row) for q, (_, row) in ours.items())
    os.remove(path)
    return worst


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
        ours[q] = row_of(engine, q, a.n, os.path.join(work, "dump%d" % i))
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
            worst = max(worst, distance(logits, row))
            same += chosen == ids
            if chosen != ids:
                first_apart.append(next(k for k, (x, y) in enumerate(zip(chosen, ids)) if x != y))
        limit = LIMIT[t] if t in LIMIT else MORE * our_loss(a, PACKED[t], ours, work)
        ok = tokens == len(PROMPTS) and worst < limit and (same == len(PROMPTS) or t not in ("f32", "f16"))
        bad += not ok
        print("%-5s %5.1f MB  token ids equal %d/%d  logits relative L2 %.2g (allowed %.2g)  greedy ids equal %d/%d%s  %s" %
              (t, os.path.getsize(path) / 1e6, tokens, len(PROMPTS), worst, limit, same, len(PROMPTS),
               "" if same == len(PROMPTS) else " (first apart at step %s)" % first_apart, "ok" if ok else "NOT OK"), flush=True)
        os.remove(path)
    return bad


if __name__ == "__main__":
    sys.exit(main())
