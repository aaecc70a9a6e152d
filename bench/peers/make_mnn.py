#!/usr/bin/env python3
"""MNN's formats, written with MNN's own converters without what they do besides (pip: MNN, llmexport).

  make_mnn.py llm    QWEN2_DIR  OUTDIR [--bits 4] [--block 32]    decoder with its embedding and tokenizer (make_qwen2_hf.py wrote QWEN2_DIR)
  make_mnn.py vision MODEL.onnx OUT.mnn [--bits 8]                the encoder; without --bits in f32

MNN's tools install a logging package with pip when they start and report every conversion over the network: their logger is replaced by nothing.
"""
import argparse
import importlib.util
import os
import sys
import tempfile
import types


def quiet():
    log = types.ModuleType("MNN.tools.utils.log")
    log.mnn_logger = None
    sys.modules["MNN.tools.utils.log"] = log


def llm(a):
    home = os.path.dirname(importlib.util.find_spec("llmexport").origin)
    sys.path.insert(0, home)                                 # its modules import each other by bare names
    import llmexport
    sys.argv = ["llmexport", "--path", os.path.abspath(a.source), "--dst_path", os.path.abspath(a.out), "--export", "mnn",
                "--quant_bit", str(a.bits or 4), "--quant_block", str(a.block)]
    with tempfile.TemporaryDirectory() as d:                 # for its .export.log
        os.chdir(d)
        llmexport.main()
        os.chdir("/")
    if not os.path.exists(os.path.join(a.out, "llm.mnn.weight")):
        sys.exit("make_mnn.py: llmexport wrote no llm.mnn.weight")


def vision(a):
    from MNN.tools import mnnconvert
    argv = ["mnnconvert", "-f", "ONNX", "--modelFile", a.source, "--MNNModel", a.out, "--transformerFuse"]
    mnnconvert.convert(argv + (["--weightQuantBits", str(a.bits)] if a.bits else []))
    if not os.path.exists(a.out):
        sys.exit("make_mnn.py: mnnconvert wrote no " + a.out)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("kind", choices=("llm", "vision")), ap.add_argument("source"), ap.add_argument("out")
    ap.add_argument("--bits", type=int), ap.add_argument("--block", type=int, default=32, help="weights of one scale, 0: a row")
    a = ap.parse_args()
    a.source, a.out = os.path.abspath(a.source), os.path.abspath(a.out)
    quiet()
    (llm if a.kind == "llm" else vision)(a)


if __name__ == "__main__":
    main()
