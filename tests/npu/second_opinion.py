#!/usr/bin/env python3
"""Our float export quantised and compiled by others: ONNX Runtime's quantiser and its QNN provider.

  second_opinion.py PROGRAM FLOAT.onnx CALIBRATION SAMPLES OUT [N]     (pip: onnx onnxruntime onnxruntime-qnn numpy)

PROGRAM is fastvlm; CALIBRATION and SAMPLES are directories of `fastvlm export calib --layout nchw`; OUT is written.
The quantiser makes a QDQ graph with 8-bit weights and 16-bit activations, the provider compiles it for SM8750 into a
context binary, which fastvlm npu info must read, and runs N samples (20) on the emulator. Prints the cosine of image
tokens with those of the float graph on the CPU: of the QDQ graph on the CPU, of the same graph on the emulated NPU,
and of these two with each other. Last line: "N passed, M failed".

Not our own QDQ export: it leaves results in float between int8 layers, which the provider does not take as such.
"""
import glob
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import onnxruntime_qnn
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model

PROGRAM, FLOAT, CALIBRATION, SAMPLES, OUT = sys.argv[1:6]
N = int(sys.argv[6]) if len(sys.argv) > 6 else 20
EP = "QNNExecutionProvider"
passed = failed = 0


def check(what, ok, figure=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print("  %s  %s %s" % ("ok    " if ok else "FAILED", what, figure), flush=True)


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def samples(directory, n):
    files = sorted(glob.glob(os.path.join(directory, "sample_*.raw")))
    return files[:: max(1, len(files) // n)][:n]


class Reader(CalibrationDataReader):
    def __init__(self, name, shape):
        self.rest = ({name: np.fromfile(f, np.float32).reshape(shape)} for f in samples(CALIBRATION, 32))

    def get_next(self):
        return next(self.rest, None)


def quantised(path):
    """FLOAT -> the file at path: weights of 8 bits, activations of 16."""
    fused = os.path.join(OUT, "fused.onnx")
    source = fused if qnn_preprocess_model(FLOAT, fused) else FLOAT
    config = get_qnn_qdq_config(source, Reader(NAME, SHAPE), activation_type=QuantType.QUInt16,
                                weight_type=QuantType.QUInt8)
    quantize(source, path, config)
    return path


def options_make():
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a machine with other work
    return options


def cpu_session(path):
    return ort.InferenceSession(path, options_make(), providers=["CPUExecutionProvider"])


def npu_session(path, context):
    """QDQ graph -> context binary OUT/..._qnn.bin, everything on the NPU."""
    options = options_make()
    device = next(d for d in ort.get_ep_devices() if d.ep_name == EP)
    backend = os.path.join(os.path.dirname(onnxruntime_qnn.__file__), "libQnnHtp.so")
    options.add_provider_for_devices([device], {"backend_path": backend, "htp_arch": "79", "soc_model": "69"})
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_file_path", context)
    options.add_session_config_entry("ep.context_embed_mode", "0")
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(path, options)


ort.set_default_logger_severity(4)  # it tells every node that it passes over
os.makedirs(OUT, exist_ok=True)
for old in glob.glob(os.path.join(OUT, "*")):
    os.remove(old)
ort.register_execution_provider_library(EP, onnxruntime_qnn.get_library_path())
ref = cpu_session(FLOAT)
NAME, SHAPE = ref.get_inputs()[0].name, ref.get_inputs()[0].shape
QDQ = quantised(os.path.join(OUT, "qdq.onnx"))
cpu, npu = cpu_session(QDQ), npu_session(QDQ, os.path.join(OUT, "second.onnx"))
binaries = glob.glob(os.path.join(OUT, "*.bin"))
check("the provider makes one context binary", len(binaries) == 1, "%s" % binaries)

done = subprocess.run([PROGRAM, "npu", "info", "--json", "--qnn", os.path.dirname(onnxruntime_qnn.__file__)] + binaries[:1],
                      capture_output=True, text=True)
check("fastvlm npu info reads it", done.returncode == 0, done.stderr.strip())
info = json.loads(done.stdout)["info"]
graph = info["graphs"][0]["info"]
check("made for SM8750", info["socModel"] == 69 and info["contextMetadata"]["info"]["dspArch"] == 79)
shapes = [sorted(t["info"]["dimensions"] for t in graph[k]) for k in ("graphInputs", "graphOutputs")]
want = [sorted(list(t.shape) for t in cpu.get_inputs()), sorted(list(t.shape) for t in cpu.get_outputs())]
check("its inputs and outputs are the graph's", shapes == want, "%s, %s" % (shapes, want))

rows = []
for file in samples(SAMPLES, N):
    x = {NAME: np.fromfile(file, np.float32).reshape(SHAPE)}
    f, c, n = (np.asarray(session.run(None, x)[0]) for session in (ref, cpu, npu))
    rows.append((cosine(f, c), cosine(f, n), cosine(c, n)))
mean, least = np.mean(rows, 0), np.min(rows, 0)
print("  %d samples, cosine mean (least):" % len(rows))
for k, what in enumerate(("QDQ on the CPU against float", "QDQ on the NPU against float", "QDQ, NPU against CPU")):
    print("    %-30s %.5f (%.5f)" % (what, mean[k], least[k]))
check("NPU and CPU agree on the QDQ graph", mean[2] > 0.999, "%.5f" % mean[2])
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
