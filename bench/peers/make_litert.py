#!/usr/bin/env python3
"""A Qwen2 directory (make_qwen2_hf.py) as LiteRT-LM's file, written with Google's own converter (pip: litert-torch).

  make_litert.py QWEN2_DIR OUTDIR [--recipe dynamic_wi8_afp32] [--prompt 280] [--context 512]

litert-torch 0.10 imports TensorFlow's flatbuffer schema without requiring TensorFlow; the same schema comes with ai_edge_litert.
"""
import argparse
import importlib.machinery
import os
import sys
import types


def schema():
    from ai_edge_litert import schema_py_generated
    for name in ("tensorflow", "tensorflow.lite", "tensorflow.lite.python"):
        m = types.ModuleType(name)
        m.__path__, m.__spec__ = [], importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = m
    m.schema_py_generated = schema_py_generated
    sys.modules[name + ".schema_py_generated"] = schema_py_generated


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("source"), ap.add_argument("out"), ap.add_argument("--recipe", default="dynamic_wi8_afp32")
    ap.add_argument("--prompt", type=int, default=280, help="tokens of the prefill graph")
    ap.add_argument("--context", type=int, default=512)
    a = ap.parse_args()
    schema()
    from litert_torch import cli
    sys.argv = ["litert-torch", "export_hf", "--model", a.source, "--output_dir", a.out, "--prefill_lengths", "[%d]" % a.prompt,
                "--cache_length", str(a.context), "--quantization_recipe", a.recipe, "--bundle_litert_lm", "True"]
    cli.main()
    if not os.path.exists(os.path.join(a.out, "model.litertlm")):
        sys.exit("make_litert.py: the converter wrote no model.litertlm")


if __name__ == "__main__":
    main()
