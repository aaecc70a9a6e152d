#!/usr/bin/env python3
"""The exported ONNX graphs in ONNX Runtime against the engine.

  onnx_graphs.py PROGRAM MODEL PICTURE QUESTION          (pip: onnx onnxruntime numpy)

`fastvlm run --dump` gives what the engine computes in f32 at every stage; each graph gets the same input. Prints one
line for every comparison and, last, "N passed, M failed".
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

PROGRAM, MODEL, PICTURE, QUESTION = sys.argv[1:5]
F32, F16, N_NEW = 1e-5, 2e-3, 24
WORK = tempfile.TemporaryDirectory()
passed = failed = 0


def check(what, ok, figure=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print("  %s  %s %s" % ("ok    " if ok else "FAILED", what, figure))


def close(what, got, want, limit):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return check(what, False, "shape %s, expected %s" % (got.shape, want.shape))
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    check(what, error < limit, "relative L2 %.1e, allowed %.0e" % (error, limit))


def fastvlm(*args):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit("fastvlm %s: %s" % (" ".join(args), done.stderr))
    return done.stdout


def sha(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def export(name, *args, model=MODEL):
    """Exports into a folder of its own, checks every file, returns {file name: path}."""
    out = os.path.join(WORK.name, name)
    fastvlm("export", "onnx", model, "-o", out, "-q", *args)
    files = {}
    for root, _, names in os.walk(out):
        for n in sorted(names):
            files[n] = os.path.join(root, n)
            if n.endswith(".onnx"):
                try:
                    onnx.checker.check_model(files[n], full_check=True)
                    check("%s: checker takes %s" % (name, n), True)
                except Exception as e:
                    check("%s: checker takes %s" % (name, n), False, str(e)[:300])
    return files


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def real(sess, name):
    kind = [i.type for i in sess.get_inputs() if i.name == name][0]
    return np.float16 if kind == "tensor(float16)" else np.float32


class Fixed:
    """The cache inside the graph: right-aligned, the oldest entry falls out. window: pretend it were that long."""

    def __init__(self, path, window=None):
        self.s = session(path)
        self.shape = {i.name: i.shape for i in self.s.get_inputs()}
        self.type, self.n = real(self.s, "inputs_embeds"), self.shape["inputs_embeds"][1]
        self.past = {k: np.zeros(v, self.type) for k, v in self.shape.items() if k.startswith("past")}
        self.mask = np.zeros(self.shape["attention_mask"], np.int64)
        self.window, self.at = window, 0

    def step(self, rows):
        n, mask = self.n, self.mask
        mask[..., :-n] = mask[..., n:].copy()
        mask[..., -n:] = 1
        if self.window:
            mask[..., :max(0, mask.shape[-1] - n - self.window)] = 0
        out = self.s.run(None, {"inputs_embeds": rows[None].astype(self.type), "attention_mask": mask,
                                "position_ids": np.arange(self.at, self.at + n)[None], **self.past})
        self.past = dict(zip(self.past, out[1:]))
        self.at += n
        return out[0][0]


class Host:
    """The host keeps the cache (--for npu): new entries are written behind the old ones."""

    def __init__(self, path):
        self.s = session(path)
        self.shape = {i.name: i.shape for i in self.s.get_inputs()}
        self.type, self.n, self.at = real(self.s, "inputs_embeds"), 1, 0
        self.past = {k: np.zeros(v, self.type) for k, v in self.shape.items() if k.startswith("past")}

    def step(self, rows):
        mask = np.zeros(self.shape["attention_mask"], np.int64)
        mask[..., :self.at] = 1
        mask[..., -1] = 1
        out = self.s.run(None, {"inputs_embeds": rows[None].astype(self.type), "attention_mask": mask,
                                "position_ids": np.array([[self.at]]), **self.past})
        for (name, past), new in zip(self.past.items(), out[1:]):
            if name.endswith("key"):
                past[:, :, :, self.at] = new[:, :, :, 0]
            else:
                past[:, :, self.at] = new[:, :, 0]
        self.at += 1
        return out[0][0]


class Growing:
    """The cache as transformers.js keeps it."""

    def __init__(self, path, all_rows=True):
        self.s, self.at, self.all_rows = session(path), 0, all_rows
        self.past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), real(self.s, i.name))
                     for i in self.s.get_inputs() if i.name.startswith("past")}

    def step(self, rows):
        n = len(rows)
        out = self.s.run(None, {"inputs_embeds": rows[None], "attention_mask": np.ones((1, self.at + n), np.int64),
                                "position_ids": np.arange(self.at, self.at + n)[None],
                                "num_logits_to_keep": np.array(0 if self.all_rows else 1), **self.past})
        self.past = dict(zip(self.past, out[1:]))
        self.at += n
        return out[0][0]


def prefill(decoder, rows, n):
    return np.concatenate([decoder.step(rows[i:i + n]) for i in range(0, len(rows), n)])


def generate(decoder, logits, table, n_tokens):
    """Greedy from the prompt's last logits; the ids and the logits each was chosen from."""
    ids, seen = [], []
    for _ in range(N_NEW):
        seen.append(logits)
        ids.append(int(logits[:n_tokens].argmax()))
        logits = decoder.step(table[ids[-1:]])[-1]
    return ids, np.array(seen)


def engine():
    """What the engine says: stages, ids, how many ids have a token."""
    dump = os.path.join(WORK.name, "dump")
    answer = json.loads(fastvlm("run", "-q", "--json", "--vision", "f32", "--decoder", "f32", "-n", str(N_NEW), "--ignore-eos",
                                "--dump", dump, MODEL, PICTURE, "-p", QUESTION))
    info = json.loads(fastvlm("info", "--json", MODEL))
    stages = {n: np.load(os.path.join(dump, n + ".npy"))
              for n in ("pixels_u8", "image_tokens", "inputs_embeds", "logits_prefill", "logits_steps")}
    return stages, answer["token_ids"], info


def pixels(e, kind):
    return (e["pixels_u8"].astype(np.float64) * (1 / 255)).astype(kind).transpose(2, 0, 1)[None]


def cosine(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return a @ b / np.sqrt((a @ a) * (b @ b))


def vision(name, path, e, limit):
    s = session(path)
    got = s.run(["image_features"], {"pixel_values": pixels(e, real(s, "pixel_values"))})[0][0]
    close(name + ": vision encoder", got, e["image_tokens"], limit)


def embedding(name, path, e, rows):
    """All rows of the table; each text row of the prompt must be one of them, to the last bit."""
    s = session(path)
    n = s.get_inputs()[0].shape[1]
    n = n if isinstance(n, int) else 64
    ids = np.resize(np.arange(rows), (rows + n - 1) // n * n).reshape(-1, 1, n)
    table = np.concatenate([s.run(["inputs_embeds"], {"input_ids": i})[0][0] for i in ids])[:rows]
    known = {r.tobytes() for r in table.astype(np.float32)}
    image = {r.tobytes() for r in e["image_tokens"]}
    text = [r.tobytes() for r in e["inputs_embeds"] if r.tobytes() not in image]
    exact = e["inputs_embeds"].dtype == table.dtype
    check(name + ": embedding", not exact or (len(text) > 8 and all(t in known for t in text)), "%d rows, %d of them in the prompt" % (
        rows, len(text)) if exact else "")
    return table


def decoder(name, d, e, ids, table, n_tokens, limit, n=1):
    """Prompt and greedy answer through a graph. Rows of n steps must be whole."""
    prompt, want = e["inputs_embeds"], e["logits_prefill"]
    whole = len(prompt) // n * n
    rows = prefill(d, prompt[:whole], n)
    # Ids without a token may be sunk in the graph.
    close(name + ": prompt logits", rows[:, :n_tokens], want[whole - len(rows):whole, :n_tokens], limit)
    if n > 1 and len(prompt) != whole:
        return
    got, seen = generate(d, rows[-1], table, n_tokens) if n == 1 else ([], [])
    if got:
        check("%s: %d greedy ids" % (name, N_NEW), got == ids, "" if got == ids else "%s, expected %s" % (got, ids))
        if got == ids:
            close(name + ": answer logits", seen[:, :n_tokens], e["logits_steps"][:N_NEW, :n_tokens], limit)


def overflow(name, short, long, e, table, n_tokens):
    """A cache shorter than the prompt against a long one whose mask ends at the same place."""
    c = short.shape["attention_mask"][-1] - 1
    a, b = prefill(short, e["inputs_embeds"], 1), prefill(long, e["inputs_embeds"], 1)
    close("%s: %d rows through a cache of %d" % (name, len(a), c), a, b, F32)
    check(name + ": the overflow changes the logits", np.abs(a[c] - e["logits_prefill"][c]).max() < 1e-2 <
          np.abs(a[-1] - e["logits_prefill"][-1]).max())
    ids_a, seen_a = generate(short, a[-1], table, n_tokens)
    ids_b, seen_b = generate(long, b[-1], table, n_tokens)
    check("%s: %d greedy ids after the overflow" % (name, N_NEW), ids_a == ids_b)
    close(name + ": answer logits after the overflow", seen_a, seen_b, F32)


def main():
    e, ids, info = engine()
    rows, n_tokens = info["decoder"]["vocab_rows"], info["decoder"]["tokens"]
    print("onnx %s, onnxruntime %s | %s" % (onnx.__version__, ort.__version__, MODEL))

    plain = export("plain")
    vision("plain", plain["vision_encoder_fp32.onnx"], e, F32)
    table = embedding("plain", plain["embed_tokens_fp32.onnx"], e, rows)
    decoder("plain", Fixed(plain["decoder_fixed_kv_fp32.onnx"]), e, ids, table, n_tokens, F32)
    again = export("again")
    check("the same bytes a second time", all(sha(plain[n]) == sha(again[n]) for n in plain))

    short = export("short", "--cache-len", "16", "--only", "decoder")["decoder_fixed_kv_fp32.onnx"]
    overflow("short", Fixed(short), Fixed(plain["decoder_fixed_kv_fp32.onnx"], window=16), e, table, n_tokens)
    steps = export("steps", "--step-len", "4", "--cache-len", "64", "--only", "decoder")["decoder_fixed_kv_fp32.onnx"]
    decoder("steps of 4", Fixed(steps), e, ids, table, n_tokens, F32, 4)

    outside = export("outside", "--external-data")
    check("weights in files of their own", all(n + "_data" in outside for n in plain))
    for n in plain:
        check("outside: %s is small" % n, os.path.getsize(outside[n]) < os.path.getsize(plain[n]) / 2 or n.startswith("embed"))
    vision("outside", outside["vision_encoder_fp32.onnx"], e, F32)
    decoder("outside", Fixed(outside["decoder_fixed_kv_fp32.onnx"]), e, ids, table, n_tokens, F32)

    for ops, opset in (("primitive", 13), ("primitive", 18), ("primitive", 24), ("fused", 17), ("fused", 20), ("fused", 23)):
        name = "%s, opset %d" % (ops, opset)
        files = export(name, "--ops", ops, "--opset", str(opset), "--only", "vision,decoder")
        kinds = {n.op_type for f in files.values() for n in onnx.load(f, load_external_data=False).graph.node}
        want = {"LayerNormalization": 17, "Gelu": 20, "RMSNormalization": 23}
        check(name + ": its operators", all((k in kinds) == (ops == "fused" and opset >= v) for k, v in want.items()))
        vision(name, files["vision_encoder_fp32.onnx"], e, F32)
        decoder(name, Fixed(files["decoder_fixed_kv_fp32.onnx"]), e, ids, table, n_tokens, F32)

    half = export("f16", "--precision", "f16")
    vision("f16", half["vision_encoder_fp16.onnx"], e, F16)
    close("f16: embedding", embedding("f16", half["embed_tokens_fp16.onnx"], e, rows), table, F16)
    decoder("f16", Fixed(half["decoder_fixed_kv_fp16.onnx"]), e, ids, table, n_tokens, F16)

    npu = export("npu", "--for", "npu")
    vision("npu", npu["vision_encoder_fp16.onnx"], e, F16)
    decoder("npu", Host(npu["decoder_npu_fp16.onnx"]), e, ids, table, n_tokens, F16)
    npu = export("npu f32", "--for", "npu", "--precision", "f32", "--cache-len", "100", "--only", "decoder")
    decoder("npu f32", Host(npu["decoder_npu_fp32.onnx"]), e, ids, table, n_tokens, F32)

    js = export("transformers.js", "--for", "transformers.js")
    vision("transformers.js", js["vision_encoder.onnx"], e, F32)
    check("transformers.js: the same embedding", np.array_equal(embedding("transformers.js", js["embed_tokens.onnx"], e, rows), table))
    d = Growing(js["decoder_model_merged.onnx"])
    decoder("transformers.js", d, e, ids, table, n_tokens, F32, len(e["inputs_embeds"]))
    decoder("transformers.js, row by row", Growing(js["decoder_model_merged.onnx"]), e, ids, table, n_tokens, F32)
    last = Growing(js["decoder_model_merged.onnx"], False).step(e["inputs_embeds"])
    close("transformers.js: the last row alone", last[:, :n_tokens], e["logits_prefill"][-1:, :n_tokens], F32)
    check("transformers.js: ids without a token sink", rows == n_tokens or last[:, n_tokens:].max() < -1e30)
    js = export("transformers.js f16", "--for", "transformers.js", "--precision", "f16", "--ops", "fused")
    vision("transformers.js f16", js["vision_encoder_fp16.onnx"], e, F16)
    decoder("transformers.js f16", Growing(js["decoder_model_merged_fp16.onnx"]), e, ids, table, n_tokens, F16)

    # Block weights of a packed file, widened: as the plain graph, but for the 8 bits.
    packed = os.path.join(WORK.name, "packed.gguf")
    fastvlm("pack", MODEL, "-o", packed, "--decoder", "z8", "-q")
    files = export("packed", model=packed)
    vision("packed", files["vision_encoder_fp32.onnx"], e, F32)
    rows = prefill(Fixed(files["decoder_fixed_kv_fp32.onnx"]), e["inputs_embeds"], 1)
    close("packed: prompt logits", rows[:, :n_tokens], e["logits_prefill"][:, :n_tokens], 3e-2)

    # An int8 encoder, every layer of it: closer to ours in int8 than int8 is to f32. On the tiny checkpoint our own
    # levels differ by that much (0.9988: sums in another order end in another u8): there, no farther from f32 than ours.
    int8 = os.path.join(WORK.name, "int8.gguf")
    fastvlm("pack", MODEL, PICTURE, "-o", int8, "--vision", "int8", "--min-cosine", "0.1", "-q")
    dump = os.path.join(WORK.name, "dump8")
    fastvlm("run", "-q", "-n", "1", "--dump", dump, int8, PICTURE, "-p", QUESTION)
    ours = np.load(os.path.join(dump, "image_tokens.npy"))
    files = export("qdq", "--qdq", "--only", "vision", model=int8)
    kinds = [n.op_type for n in onnx.load(files["vision_encoder_qdq.onnx"]).graph.node]
    check("qdq: its operators", kinds.count("QuantizeLinear") > 20 and kinds.count("DequantizeLinear") == 2 * kinds.count("QuantizeLinear"))
    got = session(files["vision_encoder_qdq.onnx"]).run(["image_features"], {"pixel_values": pixels(e, np.float32)})[0][0]
    like, lost, own = cosine(got, ours), cosine(e["image_tokens"], ours), cosine(got, e["image_tokens"])
    close_enough = like > 0.999 and like > lost if "tiny" not in MODEL else like > 0.998 and own > lost
    figures = "cosine %.5f; to f32 %.5f, ours %.5f" % (like, own, lost)
    check("qdq: image tokens as ours in int8", close_enough, figures)
    files = export("widened", "--only", "vision", model=int8)
    got = session(files["vision_encoder_fp32.onnx"]).run(["image_features"], {"pixel_values": pixels(e, np.float32)})[0][0]
    like = cosine(got, e["image_tokens"])
    check("int8 widened: image tokens", like > lost, "cosine %.5f to f32" % like)

    print("%d passed, %d failed" % (passed, failed))
    return failed > 0


sys.exit(main())
