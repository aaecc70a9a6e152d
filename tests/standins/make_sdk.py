#!/usr/bin/env python3
"""Makes a directory that looks like a QAIRT SDK, with the stand-ins of qairt_tools.py as its programs.

    make_sdk.py DIR --program FASTVLM --decode-rows HELPER --model CHECKPOINT [--version 2.42.0.251225]
                [--fake-qnn DIR] [--without TOOL]... [--bare]

FASTVLM and HELPER compute what qnn-net-run and genie-t2t-run stand for, with CHECKPOINT. --fake-qnn: the
stand-in libraries of tests/npu go to lib/. --bare: nothing says the version but the directory's name.

It cannot prove that a real SDK has this layout: names are those of the documents and scripts that describe it.
"""
import argparse
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = ["qnn-onnx-converter", "qnn-model-lib-generator", "qairt-converter", "qairt-quantizer",
          "qnn-genai-transformer-composer"]
NATIVE = ["qnn-context-binary-generator", "qnn-context-binary-utility", "qnn-net-run", "qnn-profile-viewer",
          "genie-t2t-run"]
PHONE = ["qnn-net-run", "genie-t2t-run"]
PHONE_LIBRARIES = ["libQnnHtp.so", "libQnnHtpPrepare.so", "libQnnHtpV79Stub.so", "libGenie.so", "libQnnCpu.so",
                   "libQnnSystem.so", "libQnnHtpNetRunExtensions.so", "libQnnGenAiTransformer.so",
                   "libQnnGenAiTransformerModel.so", "libQnnGenAiTransformerCpuOpPkg.so"]


def script(path, name, target, a):
    """A program of its own: it may be pushed to a phone's directory without the files beside it."""
    interpreter = "/usr/bin/env python3" if name in PYTHON else sys.executable
    conf = {"target": target, "sdk": os.path.realpath(a.dir), "program": os.path.realpath(a.program),
            "decode_rows": os.path.realpath(a.decode_rows), "model": os.path.realpath(a.model), "version": a.version}
    with open(path, "w") as f:
        f.write("#!%s\n# stand-in for %s: see qairt_tools.py\nimport sys\nsys.dont_write_bytecode = True\n"
                "sys.path.insert(0, %r)\nimport qairt_tools\nqairt_tools.main(%r, %r)\n"
                % (interpreter, name, HERE, name, conf))
    os.chmod(path, 0o755)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir"), ap.add_argument("--program", required=True), ap.add_argument("--model", required=True)
    ap.add_argument("--decode-rows", required=True), ap.add_argument("--version", default="2.42.0.251225")
    ap.add_argument("--fake-qnn"), ap.add_argument("--without", action="append", default=[])
    ap.add_argument("--bare", action="store_true")
    a = ap.parse_args()
    for folder in ("bin/x86_64-linux-clang", "bin/aarch64-android", "lib/x86_64-linux-clang", "lib/aarch64-android",
                   "lib/hexagon-v79/unsigned", "lib/python", "include/QNN"):
        os.makedirs(os.path.join(a.dir, folder), exist_ok=True)
    for target, names in (("x86_64-linux-clang", PYTHON + NATIVE), ("aarch64-android", PHONE)):
        for name in names:
            if name not in a.without:
                script(os.path.join(a.dir, "bin", target, name), name, target, a)
    for name in PHONE_LIBRARIES:
        with open(os.path.join(a.dir, "lib/aarch64-android", name), "w") as f:
            f.write("stand-in for %s of the phone\n" % name)
    with open(os.path.join(a.dir, "lib/hexagon-v79/unsigned/libQnnHtpV79Skel.so"), "w") as f:
        f.write("stand-in for the skeleton\n")
    host = os.path.join(a.dir, "lib/x86_64-linux-clang")
    for name in ("libQnnHtp.so", "libQnnSystem.so"):
        if a.fake_qnn:
            shutil.copy(os.path.join(a.fake_qnn, name), host)
        else:
            with open(os.path.join(host, name), "w") as f:
                f.write("stand-in for %s\n" % name)
    for name in ("libQnnModelDlc.so", "libQnnHtpNetRunExtensions.so"):
        with open(os.path.join(host, name), "w") as f:
            f.write("stand-in for %s\n" % name)
    if not a.bare:
        with open(os.path.join(a.dir, "sdk.yaml"), "w") as f:
            f.write("name: stand-in\nversion: %s\n" % a.version)


if __name__ == "__main__":
    main()
