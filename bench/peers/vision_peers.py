#!/usr/bin/env python3
"""Other engines on the exported encoder (vision_model.py writes MODEL.onnx). One process, one engine, one line of output.

  vision_peers.py images DIR [-n 8] [--size 1024]           drawn calibration images, DIR/%02d.npy  f32 [1,3,S,S] in 0..1
  vision_peers.py quant-ort MODEL.onnx OUT.onnx DIR [-n 4]  onnxruntime.quantization, static QDQ, s8 weights per channel, u8 activations
  vision_peers.py quant-ov  MODEL.onnx OUT.xml  DIR [-n 4]  nncf.quantize (post-training), default preset
  vision_peers.py time ENGINE MODEL DIR [-t 2] [-r 7] [--ref REF.npy]
     ENGINE: ort | ov-f32 | ov-bf16 | ov-f16 (MODEL .onnx or .xml) | mnn-f32 | mnn-int8 (make_mnn.py vision)
             torch-eager | torch-cl | torch-bf16 | torch-compile | torch-compile-bf16 (MODEL = checkpoint directory)
  --ref: cosine and relative L2 of the output against it; written when it does not exist
"""
import argparse
import glob
import os
import resource
import statistics
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import quietly                                                                               # noqa: E402


def picture(k, s):
    """Shading, 1/f noise, discs and text-like strokes; different for every k, the same everywhere."""
    r = np.random.default_rng(k)
    f = np.fft.rfftfreq(s)[None, :] ** 2 + np.fft.fftfreq(s)[:, None] ** 2
    f[0, 0] = 1
    img = np.empty((3, s, s), np.float32)
    base = np.fft.rfft2(r.standard_normal((s, s))) / f ** (0.5 + 0.05 * (k % 4))
    for c in range(3):
        own = np.fft.rfft2(r.standard_normal((s, s))) / f ** 0.6
        x = np.fft.irfft2(base + 0.5 * own, (s, s))
        img[c] = 0.5 + 0.18 * (x - x.mean()) / x.std()
    y, x = np.mgrid[0:s, 0:s]
    for _ in range(12):
        cx, cy, rad = r.integers(0, s, 2).tolist() + [int(r.integers(s // 40, s // 6))]
        img[:, (x - cx) ** 2 + (y - cy) ** 2 < rad * rad] = r.random(3)[:, None]
    for _ in range(60):
        x0, y0, w, h = r.integers(0, s - 40), r.integers(0, s - 12), r.integers(2, 40), r.integers(1, 12)
        img[:, y0:y0 + h, x0:x0 + w] = r.integers(0, 2)
    return np.clip(img, 0, 1)[None].astype(np.float32)


def load(d, n=None):
    return [np.load(f) for f in sorted(glob.glob(os.path.join(d, "*.npy")))[:n]]


def quant_ort(a):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, xs):
            self.it = iter([{"pixel_values": x} for x in xs])

        def get_next(self):
            return next(self.it, None)
    pre = a.out + ".pre.onnx"
    quant_pre_process(a.model, pre, skip_symbolic_shape=True)
    skip = []
    if a.no_dw:
        import onnx
        for n in onnx.load(pre, load_external_data=False).graph.node:
            g = [t.i for t in n.attribute if t.name == "group"]
            if n.op_type == "Conv" and g and g[0] > 1:
                skip.append(n.name)
    quantize_static(pre, a.out, Reader(load(a.images, a.n)), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=skip,
                    op_types_to_quantize=a.ops.split(",") if a.ops else None)
    os.remove(pre)


def quant_ov(a):
    import nncf
    import openvino as ov
    m = ov.Core().read_model(a.model)
    data = nncf.Dataset(load(a.images, a.n), lambda x: {"pixel_values": x})
    q = nncf.quantize(m, data, subset_size=a.n, **({"model_type": nncf.ModelType.TRANSFORMER} if a.transformer else {}))
    ov.save_model(q, a.out)


def engine(name, model, threads, x):
    """-> function returning the output as numpy"""
    if name == "ort":
        import onnxruntime as ort
        so = ort.SessionOptions()
        so.intra_op_num_threads, so.inter_op_num_threads = threads, 1
        s = ort.InferenceSession(model, so, providers=["CPUExecutionProvider"])
        return "onnxruntime " + ort.__version__, lambda: s.run(None, {"pixel_values": x})[0]
    if name.startswith("ov"):
        import openvino as ov
        core = ov.Core()
        c = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                                              "INFERENCE_PRECISION_HINT": name[3:]})
        r = c.create_infer_request()
        return "openvino " + ov.__version__.split("-")[0], lambda: r.infer({0: x})[0]
    if name.startswith("mnn"):
        import MNN
        import MNN.expr
        import MNN.nn
        mode = {"backend": "CPU", "numThread": threads, "precision": "normal", "memory": "low" if name == "mnn-int8" else "normal"}
        m = MNN.nn.load_module_from_file(model, ["pixel_values"], ["image_features"], runtime_manager=MNN.nn.create_runtime_manager((mode,)))

        def mnn():
            y = m.forward([MNN.expr.const(x, list(x.shape), MNN.expr.NCHW)])[0]
            return np.array(MNN.expr.convert(y, MNN.expr.NCHW).read())
        return "MNN " + MNN.version(), mnn
    import torch
    from vision_model import Vision
    torch.set_num_threads(threads)
    m, t = Vision(model), torch.from_numpy(x)
    kind = name[6:]
    if kind != "eager":
        m, t = m.to(memory_format=torch.channels_last), t.contiguous(memory_format=torch.channels_last)
    if "bf16" in kind:
        m, t = m.bfloat16(), t.bfloat16()
    if "compile" in kind:
        import torch._inductor.config as ic
        ic.freezing = True
        if "tune" in kind:
            ic.max_autotune = True
        m = torch.compile(m)

    def run():
        with torch.no_grad():
            return m(t).float().numpy()
    return "torch " + torch.__version__, run


def main():
    ap = argparse.ArgumentParser()
    sub = ap.add_subparsers(dest="cmd", required=True)
    p = sub.add_parser("images")
    p.add_argument("dir"), p.add_argument("-n", type=int, default=8), p.add_argument("--size", type=int, default=1024)
    for c in ("quant-ort", "quant-ov"):
        p = sub.add_parser(c)
        p.add_argument("model"), p.add_argument("out"), p.add_argument("images"), p.add_argument("-n", type=int, default=4)
        p.add_argument("--ops", help="quant-ort: operator types, comma separated (default: all it knows)")
        p.add_argument("--no-dw", action="store_true", help="quant-ort: leave grouped convolutions in f32")
        p.add_argument("--transformer", action="store_true", help="quant-ov: model_type TRANSFORMER")
    p = sub.add_parser("time")
    p.add_argument("engine"), p.add_argument("model"), p.add_argument("images")
    p.add_argument("-t", type=int, default=2), p.add_argument("-r", type=int, default=7), p.add_argument("--ref")
    p.add_argument("--roofline", help="path of the roofline program: print the machine's peaks before and after")
    p.add_argument("--limit", type=float, default=240, help="seconds to spend looking for quiet repetitions")
    p.add_argument("--json", help="append a record to this file"), p.add_argument("--precision", help="name of it in the record")
    a = ap.parse_args()
    if a.cmd == "images":
        os.makedirs(a.dir, exist_ok=True)
        for k in range(a.n):
            np.save(os.path.join(a.dir, "%02d.npy" % k), picture(k, a.size))
        return
    if a.cmd != "time":
        return quant_ort(a) if a.cmd == "quant-ort" else quant_ov(a)
    x = load(a.images, 1)[0]
    t0 = time.time()
    ver, f = engine(a.engine, a.model, a.t, x)
    t1 = time.time()
    y = f()
    f()
    t2 = time.time()

    def once():
        t = time.time()
        f()
        return time.time() - t
    m0 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    ts, note = quietly.reps(once, a.r, a.limit)
    m1 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    q, more = "", {}
    if a.ref:
        if not os.path.exists(a.ref):
            np.save(a.ref, y)
        z = np.load(a.ref)
        more = {"cosine": float((y * z).sum() / np.linalg.norm(y) / np.linalg.norm(z)), "rel_l2": float(np.linalg.norm(y - z) / np.linalg.norm(z))}
        q = " cos %.5f relL2 %.2e" % (more["cosine"], more["rel_l2"])
    quietly.record(a.json, "vision", ts, engine=ver, precision=a.precision or (a.engine.split("-")[-1] if "-" in a.engine else "f32"), threads=a.t,
                   load_ms=(t1 - t0) * 1e3, peak_mb=rss, quiet=note, **more)
    print("%s %s %s threads %d: min %.0f med %.0f ms = %.0f GFLOP/s, load %.1f s, two warm-ups %.1f s, rss %d MB%s" %
          (ver, a.engine, os.path.basename(a.model.rstrip("/")), a.t, min(ts) * 1e3, statistics.median(ts) * 1e3, 488.5 / min(ts), t1 - t0, t2 - t1,
           rss, q + "  [" + note + "]"), flush=True)
    if a.roofline:
        print("  machine before: %s; after: %s" % (m0, m1), flush=True)


if __name__ == "__main__":
    main()
