#!/usr/bin/env python3
"""Qualcomm's own libGenie on the exported dialog configurations, which it validates strictly without a model.

  full_genie.py --program build/release/fastvlm --qnn DIR [--decode-rows FILE] MODEL...

DIR: the unpacked wheel onnxruntime-qnn (Linux, x86_64). FILE: standin_decode_rows of the build; with it, also the
dialogs that "fastvlm qairt run" leaves for the demonstration model, from the stand-in SDK of tests/standins.

Each configuration must be accepted; with a key removed or added it must be refused, which shows that the library looked.
"""
import argparse
import copy
import ctypes
import glob
import json
import os
import subprocess
import sys
import tempfile

import fv


def library(folder):
    for name in ("libc++abi.so*", "libc++abi-*", "libunwind*", "libc++.so*", "libc++-*"):
        for path in glob.glob(os.path.join(folder, "**", name), recursive=True):
            try:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            except OSError:
                pass
    return ctypes.CDLL(glob.glob(os.path.join(folder, "**", "libGenie.so"), recursive=True)[0])


ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DEMO, SIGN = os.path.join(ROOT, "models/demo"), os.path.join(ROOT, "examples/images/sign.png")


def dialogs_of_runs(program, helper, work):
    """(what, dialog) of runs through the stand-in SDK, and of genie config."""
    def run(*args):
        subprocess.run([program, *args], check=True, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-B", os.path.join(ROOT, "tests/standins/make_sdk.py"), os.path.join(work, "2.42.0.251225"),
                    "--program", program, "--decode-rows", helper, "--model", DEMO], check=True)
    run("export", "onnx", DEMO, "-o", "onnx", "--only", "vision", "-q")
    run("export", "calib", os.path.join(DEMO, "calibration"), "-o", "calib", "-n", "1", "--image-size", "256", "-q")
    run("qairt", "convert", "onnx/vision_encoder_fp32.onnx", "-i", "calib/input_list.txt", "--image-size", "256", "-o", "int8", "-q")
    run("qairt", "lib", "int8/vision_encoder_int8_qnnmodel.cpp", "-o", "lib", "-q")
    run("qairt", "context", "lib/x86_64-linux-clang/libvision_encoder_int8_qnnmodel.so", "-o", "npu", "-q")
    run("genie", "build", DEMO, "-o", "genie", "-q")
    for options in ([], ["--sampling", "--seed", "7", "-n", "9", "-t", "2", "--context", "256"], ["--order", "pipeline"]):
        before = set(glob.glob(os.path.join(work, "run_outputs/*")))
        run("qairt", "run", "-m", DEMO, "--vision", "npu/fastvlm_vision_encoder_int8_htp.bin", "--decoder", "genie/fastvlm_model.bin",
            *options, SIGN, "What does the text say?")
        folder, = set(glob.glob(os.path.join(work, "run_outputs/*"))) - before
        with open(os.path.join(folder, "fastvlm_genie_device_config.json")) as f:
            yield "qairt run %s" % " ".join(options), json.load(f)
    run("genie", "config", DEMO, "-o", "config", "--device-dir", "/data/local/tmp/x", "-q")
    with open(os.path.join(work, "config/genie_dialog.json")) as f:
        yield "genie config", json.load(f)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--qnn", required=True), ap.add_argument("models", nargs="+")
    ap.add_argument("--decode-rows")
    a = ap.parse_args()
    genie, bad = library(a.qnn), 0
    version = ".".join(str(getattr(genie, "Genie_getApi%sVersion" % n)()) for n in ("Major", "Minor", "Patch"))

    def accepts(config):
        handle = ctypes.c_void_p()
        status = genie.GenieDialogConfig_createFromJson(json.dumps(config).encode(), ctypes.byref(handle))
        if not status:
            genie.GenieDialogConfig_free(handle)
        return status == 0

    def judge(what, config, backend):
        refused = 0
        for spoil in (lambda d: d["context"].pop("size"), lambda d: d["engine"]["backend"][backend].update(zzz=1),
                      lambda d: d.pop("tokenizer")):
            other = copy.deepcopy(config)
            spoil(other["dialog"])
            refused += not accepts(other)
        taken = accepts(config)
        print("libGenie API %s | %s: %s, %d of 3 spoilt ones refused" % (version, what, "accepted" if taken else "REFUSED", refused), flush=True)
        return taken and refused == 3

    if a.decode_rows:
        with tempfile.TemporaryDirectory() as work:
            for what, config in dialogs_of_runs(os.path.realpath(a.program), os.path.realpath(a.decode_rows), work):
                bad += not judge(what, config, "QnnGenAiTransformer")
    for model in a.models:
        with tempfile.TemporaryDirectory() as work:
            for options in ([], ["--sampling", "--context", "256"]):
                fv.export(a.program, "genie", model, "-o", os.path.join(work, "g"), "--force", *options)
                for name, backend in (("genie_dialog.json", "QnnGenAiTransformer"), ("genie_dialog_htp.json", "QnnHtp")):
                    with open(os.path.join(work, "g", name)) as f:
                        config = json.load(f)
                    bad += not judge("%s | %s %s" % (model, name, " ".join(options)), config, backend)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
