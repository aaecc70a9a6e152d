#!/usr/bin/env python3
"""The manifest of `fastvlm export --all` against the files: sizes, SHA-256, and the tensors it states against ONNX's own reader.

  manifest.py --program build/release/fastvlm --library ... MODEL                                                (pip: onnx)
"""
import argparse
import hashlib
import json
import os
import sys
import tempfile

import onnx

import fv

NAME = {"f32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16, "i64": onnx.TensorProto.INT64}


def signature(path):
    g = onnx.load(path, load_external_data=False).graph
    out = {}
    for way, values in (("input", g.input), ("output", g.output)):
        for v in values:
            t = v.type.tensor_type
            shape = [d.dim_value if d.HasField("dim_value") else "any" for d in t.shape.dim]
            out[way, v.name] = t.elem_type, shape
    return out


def stated(tensors, layers):
    out = {}
    for t in tensors:
        for i in range(layers if "{layer}" in t["name"] else 1):
            out[t["as"], t["name"].replace("{layer}", str(i))] = NAME[t["dtype"]], t["shape"]
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--library"), ap.add_argument("model")
    a = ap.parse_args()
    bad = []
    with tempfile.TemporaryDirectory() as work:
        lot = os.path.join(work, "lot")
        fv.export(a.program, "--all", a.model, "-o", lot)
        with open(os.path.join(lot, "manifest.json")) as f:
            m = json.load(f)
        there = {os.path.relpath(os.path.join(d, n), lot) for d, _, names in os.walk(lot) for n in names} - {"manifest.json"}
        if there != {f["name"] for f in m["files"]}:
            bad.append("files differ: %s" % sorted(there ^ {f["name"] for f in m["files"]}))
        graphs = 0
        for f in m["files"]:
            path = os.path.join(lot, f["name"])
            with open(path, "rb") as data:
                digest = hashlib.sha256(data.read()).hexdigest()
            if digest != f["sha256"] or os.path.getsize(path) != f["bytes"]:
                bad.append(f["name"] + ": size or hash")
            if path.endswith(".onnx"):
                graphs += 1
                want, got = signature(path), stated(f.get("tensors", []), m["model"]["layers"])
                if want != got:
                    odd = sorted(k for k in set(want) | set(got) if want.get(k) != got.get(k))
                    bad += ["%s: %s is %s, stated %s" % (f["name"], k, want.get(k), got.get(k)) for k in odd[:6]]
            elif f["name"].endswith((".raw", "LUT.bin")):
                t = f["tensors"][0]
                n = {"f32": 4, "u8": 1}[t["dtype"]]
                for d in t["shape"]:
                    n *= d
                if n != f["bytes"]:
                    bad.append(f["name"] + ": shape and size")
        lines = "".join("%s  %s\n" % (s["sha256"], s["name"]) for s in m["source"]["files"])
        if hashlib.sha256(lines.encode()).hexdigest() != m["source"]["sha256"]:
            bad.append("hash of the source")
        for s in m["source"]["files"]:
            with open(os.path.join(a.model, s["name"]), "rb") as data:
                if hashlib.sha256(data.read()).hexdigest() != s["sha256"]:
                    bad.append("source " + s["name"])
    print("manifest | onnx %s | %s: %d files, %d graphs: %s" % (onnx.__version__, a.model, len(m["files"]), graphs, "; ".join(bad) or "all as stated"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
