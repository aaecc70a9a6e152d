#!/usr/bin/env python3
"""Qualcomm's own libGenie on the exported dialog configurations, which it validates strictly without a model.

  full_genie.py --program build/release/fastvlm --qnn DIR MODEL...      DIR: the unpacked wheel onnxruntime-qnn (Linux, x86_64)

Each configuration must be accepted; with a key removed or added it must be refused, which shows that the library looked.
"""
import argparse
import copy
import ctypes
import glob
import json
import os
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


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--qnn", required=True), ap.add_argument("models", nargs="+")
    a = ap.parse_args()
    genie, bad = library(a.qnn), 0
    version = ".".join(str(getattr(genie, "Genie_getApi%sVersion" % n)()) for n in ("Major", "Minor", "Patch"))

    def accepts(config):
        handle = ctypes.c_void_p()
        status = genie.GenieDialogConfig_createFromJson(json.dumps(config).encode(), ctypes.byref(handle))
        if not status:
            genie.GenieDialogConfig_free(handle)
        return status == 0

    for model in a.models:
        with tempfile.TemporaryDirectory() as work:
            for options in ([], ["--sampling", "--context", "256"]):
                fv.export(a.program, "genie", model, "-o", os.path.join(work, "g"), "--force", *options)
                for name, backend in (("genie_dialog.json", "QnnGenAiTransformer"), ("genie_dialog_htp.json", "QnnHtp")):
                    with open(os.path.join(work, "g", name)) as f:
                        config = json.load(f)
                    refused = 0
                    for spoil in (lambda d: d["context"].pop("size"), lambda d: d["engine"]["backend"][backend].update(zzz=1),
                                  lambda d: d.pop("tokenizer")):
                        other = copy.deepcopy(config)
                        spoil(other["dialog"])
                        refused += not accepts(other)
                    ok = accepts(config) and refused == 3
                    bad += not ok
                    print("libGenie API %s | %s | %s %s: %s, %d of 3 spoilt ones refused" %
                          (version, model, name, " ".join(options), "accepted" if accepts(config) else "REFUSED", refused), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
