"""Stand-ins for the programs of Qualcomm's QAIRT SDK, strict about how they are called.

They check: every option by name and number of values, none twice and none unknown; that files exist and have the
form and size that the contract says; the environment (PATH, LD_LIBRARY_PATH, PYTHONPATH, QNN_SDK_ROOT, on a phone
ADSP_LIBRARY_PATH); the working directory where it matters; configurations by their keys. Wrong use ends with a line
"STAND-IN: ..." on standard error and exit code 97, so that a test that only looks for failure notices.

They write the real formats: native types with scale and offset, Result_0/NAME_native.raw, ctx_info and profile JSON,
genie-t2t-run's output. Image tokens and answers are computed, by fastvlm itself, so that an image goes in at one end
and the right text comes out at the other only if everything between was right.

They cannot prove: that the real tools take the same options (those are from documents, public scripts and source);
that real conversion, compiling or emulation succeeds, its accuracy or speed; what the real tools print on failure.

$STANDIN_FAULT, "TOOL=FAULT", makes one misbehave: exit1, signal, nothing (exit 0, no files), stale (files from last
year), empty, hang, garbage (binary noise on both streams), error-line, full (disk), and what each tool has besides.
$STANDIN_LOG: a file that gets a line for every call, with the working directory.
"""
import array
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

TYPES = {"u8": (1032, 1, "UFIXED_POINT_8"), "u16": (1046, 2, "UFIXED_POINT_16"), "f16": (534, 2, "FLOAT_16"),
         "f32": (562, 4, "FLOAT_32"), "i32": (50, 4, "INT_32")}
ARCH = {30: 68, 43: 73, 57: 75, 69: 79, 87: 81}
DEFAULT_SOC = 30  # what the generator compiles for when nothing names a chip


def wrong(text):
    sys.stderr.write("STAND-IN: %s\n" % text)
    sys.stderr.flush()
    os._exit(97)


def need(condition, text):
    if not condition:
        wrong(text)


class Call:
    """One call: name, conf, arguments by option, fault."""

    def __init__(self, name, conf, argv):
        self.name, self.conf, self.argv = name, conf, argv
        self.phone = conf["target"] == "aarch64-android"
        self.sdk = conf["sdk"]
        fault = os.environ.get("STANDIN_FAULT", "")
        if self.phone and os.path.exists("standin_fault"):
            with open("standin_fault") as f:
                fault = f.read().strip()
        tool, _, what = fault.partition("=")
        self.fault = what if tool == name else ""
        if os.environ.get("STANDIN_LOG"):
            with open(os.environ["STANDIN_LOG"], "a") as f:
                f.write("%s\t%s\t%s\n" % (name, os.getcwd(), json.dumps(argv)))

    def options(self, table):
        """table: option -> number of values, "+": one or more; required ones end with "!". Returns option -> list."""
        known = {k.rstrip("!"): n for k, n in table.items()}
        found, i = {}, 0
        while i < len(self.argv):
            word = self.argv[i]
            need(word in known, "%s: unknown argument %r" % (self.name, word))
            need(word not in found or word in ("--input_dim", "--input_layout", "--out_node"), "%s: %s twice" % (self.name, word))
            i += 1
            if known[word] == "+":
                n = 0
                while i + n < len(self.argv) and not self.argv[i + n].startswith("-"):
                    n += 1
                need(n > 0, "%s: %s without a value" % (self.name, word))
            else:
                n = known[word]
            values = self.argv[i:i + n]
            need(len(values) == n, "%s: %s without a value" % (self.name, word))
            found.setdefault(word, []).extend(values)
            i += n
        for option in table:
            if option.endswith("!"):
                need(option[:-1] in found, "%s: %s is missing" % (self.name, option[:-1]))
        return found

    def host_environment(self, python):
        e = os.environ
        need(e.get("QNN_SDK_ROOT") == self.sdk, "QNN_SDK_ROOT is %r" % e.get("QNN_SDK_ROOT"))
        libraries = os.path.join(self.sdk, "lib/x86_64-linux-clang")
        need(e.get("LD_LIBRARY_PATH", "").split(":")[0] == libraries, "LD_LIBRARY_PATH is %r" % e.get("LD_LIBRARY_PATH"))
        if not python:
            return
        need(e.get("PYTHONPATH", "").split(":")[0] == os.path.join(self.sdk, "lib/python"), "PYTHONPATH is %r" % e.get("PYTHONPATH"))
        need(e.get("SNPE_ROOT") == self.sdk, "SNPE_ROOT is %r" % e.get("SNPE_ROOT"))
        need("PYTHONHOME" not in e, "PYTHONHOME is set")
        path = e.get("PATH", "").split(":")
        programs = os.path.join(self.sdk, "bin/x86_64-linux-clang")
        need(programs in path, "PATH lacks %s" % programs)  # a python3 of pyenv puts itself in front
        if e.get("STANDIN_VENV"):
            need(path[0] == os.path.join(e["STANDIN_VENV"], "bin"), "PATH begins %r, not with the Python environment" % path[:2])

    def phone_environment(self, dsp):
        here = os.path.dirname(os.path.abspath(sys.argv[0]))
        need(os.path.realpath(os.getcwd()) == os.path.realpath(here), "works in %s, expected the program's directory" % os.getcwd())
        path = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        need(path[0] and os.path.realpath(path[0]) == os.path.realpath(here), "LD_LIBRARY_PATH is %r: our directory must be first" % path)
        if dsp:
            need(path[-1] == "/vendor/lib64", "LD_LIBRARY_PATH ends %r, libcdsprpc.so is in /vendor/lib64" % path[-1])
            dsps = os.environ.get("ADSP_LIBRARY_PATH", "").split(";")
            need(os.path.realpath(dsps[0]) == os.path.realpath(here), "ADSP_LIBRARY_PATH is %r" % dsps)
            for name in ("libQnnHtp.so", "libQnnHtpV79Stub.so", "libQnnHtpV79Skel.so", "libQnnSystem.so"):
                need(os.path.exists(os.path.join(here, name)), "%s was not pushed" % name)
        else:
            for name in ("libGenie.so", "libQnnGenAiTransformer.so", "libQnnGenAiTransformerModel.so",
                         "libQnnGenAiTransformerCpuOpPkg.so", "libQnnCpu.so", "libQnnSystem.so", "libc++_shared.so"):
                need(os.path.exists(os.path.join(here, name)), "%s was not pushed" % name)

    def misbehave(self, outputs):
        """The faults that all tools have; outputs: files that the tool would have written."""
        f = self.fault
        if f == "exit1":
            sys.stderr.write("ERROR - stand-in: asked to fail\n")
            sys.exit(1)
        if f == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if f == "full":
            sys.stderr.write("OSError: [Errno 28] No space left on device\n")
            sys.exit(1)
        if f == "nothing":
            sys.exit(0)
        if f == "hang":
            print("working ...", flush=True)
            time.sleep(600)
        if f == "garbage":
            sys.stdout.buffer.write(bytes(range(256)) * 40)
            sys.stderr.buffer.write(b"\xff\x00\x80 not text")
            sys.exit(1)
        if f == "error-line":
            print(" [ ERROR ] stand-in: something went wrong", flush=True)
        if f in ("stale", "empty"):
            for path in outputs:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as out:
                    out.write(b"" if f == "empty" else b"old")
                if f == "stale":
                    os.utime(path, (time.time() - 4e7, time.time() - 4e7))
            sys.exit(0)


def path_of(value, what):
    need(not re.search(r"[\s,'\"\\]", value), "%s: %r has a character that the tool cannot take" % (what, value))
    return value


def file_of(value, what):
    need(os.path.isfile(path_of(value, what)), "%s: no such file %s" % (what, value))
    return value


def sanitized(name):
    name = re.sub(r"\W+", "_", name)
    return name if re.match(r"[A-Za-z_]", name) else "_" + name


def elements(dims):
    return math.prod(dims)


# ---------------------------------------------------------------- what fastvlm computes

def npy(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<H", data[8:10])[0]
    return array.array("f", data[10 + n:])


def image_tokens(conf, pixels, side):
    """Image tokens of u8 pixels [side, side, 3] by our own program: its preprocessing leaves such an image as it is."""
    work = tempfile.mkdtemp()
    try:
        picture = os.path.join(work, "picture.ppm")
        with open(picture, "wb") as f:
            f.write(b"P6\n%d %d\n255\n" % (side, side) + pixels)
        run = subprocess.run([conf["program"], "run", "-q", "-m", conf["model"], "--vision", "f32", "--image-size", str(side),
                              "--max-new-tokens", "1", "--dump", os.path.join(work, "dump"), picture, "x"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")})
        need(run.returncode == 0, "fastvlm itself failed: %s" % run.stderr.decode(errors="replace"))
        return npy(os.path.join(work, "dump", "image_tokens.npy"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def encoding_of(values, most):
    low, high = min(0.0, min(values)), max(0.0, max(values))
    scale = (high - low) / most or 1.0
    return scale, -int(round(-low / scale))


def quantize(values, scale, offset, kind):
    most = 255 if kind == "u8" else 65535
    out = array.array("B" if kind == "u8" else "H", bytes(len(values) * (1 if kind == "u8" else 2)))
    for i, x in enumerate(values):
        out[i] = max(0, min(most, int(round(x / scale)) - offset))
    return out.tobytes()


# ---------------------------------------------------------------- converters

def input_list(path, n_bytes):
    need(os.path.isabs(path), "--input_list %s is not absolute" % path)
    with open(file_of(path, "--input_list")) as f:
        lines = [line for line in f.read().split("\n") if line]
    need(lines, "%s is empty" % path)
    for line in lines:
        need(" " not in line and not line.startswith(("#", "%")), "%s: line %r" % (path, line))
        need(os.path.isabs(line), "%s: %s is not absolute" % (path, line))
        need(os.path.getsize(file_of(line, path)) == n_bytes, "%s: %d bytes, expected %d" % (line, os.path.getsize(line), n_bytes))
    return lines


def calibrated(conf, lines, side, keep_layout):
    """Encodings as min-max calibration finds them on the samples."""
    tokens, pixel_low, pixel_high = [], 1.0, 0.0
    for line in lines[:2]:
        with open(line, "rb") as f:
            x = array.array("f", f.read())
        pixel_low, pixel_high = min(pixel_low, min(x)), max(pixel_high, max(x))
        need(pixel_low >= 0 and pixel_high <= 1.0001, "%s: values outside [0, 1]" % line)
        u8 = bytearray(len(x))
        plane = side * side
        for i in range(len(x)):
            u8[i] = int(round(x[(i % 3) * plane + i // 3 if keep_layout else i] * 255))
        tokens.extend(image_tokens(conf, bytes(u8), side))
    need(tokens, "no calibration sample")
    return {"pixels": [1 / 255, 0], "tokens": list(encoding_of(tokens, 255)), "n_rows": None,
            "n_values": len(tokens) // min(2, len(lines))}


def converter_dims(value, name):
    dims = [int(d) for d in value.split(",")]
    need(len(dims) == 4 and dims[:2] == [1, 3] and dims[2] == dims[3], "dimensions of %s are %s" % (name, value))
    return dims


def onnx_of(path, *names):
    with open(file_of(path, "--input_network"), "rb") as f:
        data = f.read()
    need(path.endswith(".onnx") and data[:1] == b"\x08", "%s is not an ONNX file" % path)
    for name in names:
        need(name.encode() in data, "%s: no tensor %s in it" % (path, name))


def qnn_onnx_converter(c):
    o = c.options({"--input_network!": 1, "--input_dim!": 2, "--input_layout!": 2, "--input_list": 1, "--act_bitwidth": 1,
                   "--weights_bitwidth": 1, "--bias_bitwidth": 1, "--act_quantizer": 1, "--act_quantizer_calibration": 1,
                   "--act_quantizer_schema": 1, "--param_quantizer_calibration": 1, "--param_quantizer_schema": 1,
                   "--float_bitwidth": 1, "--float_bias_bitwidth": 1, "--out_node!": 1, "--preserve_io": "+",
                   "--use_per_channel_quantization": 0, "-o!": 1})
    c.host_environment(True)
    need("--input_list" in o, "without --input_list nothing would be quantised")
    name, prefix = o["--input_dim"][0], path_of(o["-o"][0], "-o")
    dims = converter_dims(o["--input_dim"][1], name)
    need(o["--input_layout"] == [name, "NCHW"], "--input_layout %r" % o["--input_layout"])
    for option, allowed in (("--act_bitwidth", ("8", "16")), ("--weights_bitwidth", ("4", "8")), ("--bias_bitwidth", ("8", "32")),
                            ("--act_quantizer", ("tf",)), ("--act_quantizer_calibration", ("min-max",)),
                            ("--act_quantizer_schema", ("asymmetric",)), ("--param_quantizer_calibration", ("min-max",)),
                            ("--param_quantizer_schema", ("asymmetric",)), ("--float_bitwidth", ("32", "16")),
                            ("--float_bias_bitwidth", ("32", "16"))):
        need(o.get(option, [allowed[0]])[0] in allowed, "%s %s" % (option, o.get(option)))
    keep = o.get("--preserve_io") == ["layout"]
    onnx_of(o["--input_network"][0], name, o["--out_node"][0])
    lines = input_list(o["--input_list"][0], elements(dims) * 4)
    need(os.path.isdir(os.path.dirname(prefix)), "the directory of -o %s is not there" % prefix)
    c.misbehave([prefix + ".cpp", prefix + ".bin"])
    print("INFO: converting %s" % o["--input_network"][0], flush=True)
    found = calibrated(c.conf, lines, dims[2], keep)
    found.update(input=name, output=o["--out_node"][0], side=dims[2], nchw=keep,
                 kind="u16" if o.get("--act_bitwidth") == ["16"] else "u8")
    if found["kind"] == "u16":
        found["tokens"][0] *= 255 / 65535
        found["tokens"][1] = -int(round(-found["tokens"][1] * 65535 / 255))
        found["pixels"] = [1 / 65535, 0]
    with open(prefix + ".cpp", "w") as f:
        f.write("/* COMMAND: %s %s */\nstatic const char *input = \"%s\";\n" % (c.name, " ".join(c.argv), name))
        f.write("" if c.fault == "cut" else "static const char *output = \"%s\";\n" % o["--out_node"][0])
    with open(prefix + ".bin", "w") as f:
        f.write("STANDIN-WEIGHTS " + json.dumps(found))
    with open(prefix + "_net.json", "w") as f:
        json.dump({"graph": os.path.basename(prefix)}, f)
    print("INFO: conversion complete", flush=True)


def qairt_converter(c):
    o = c.options({"--input_network!": 1, "--desired_input_shape!": 2, "--out_tensor_node!": 1, "--output_path!": 1})
    c.host_environment(True)
    name = o["--desired_input_shape"][0]
    dims = converter_dims(o["--desired_input_shape"][1], name)
    onnx_of(o["--input_network"][0], name, o["--out_tensor_node"][0])
    out = path_of(o["--output_path"][0], "--output_path")
    need(out.endswith(".dlc"), "--output_path %s" % out)
    c.misbehave([out])
    with open(out, "w") as f:
        f.write("STANDIN-DLC " + json.dumps({"input": name, "output": o["--out_tensor_node"][0], "side": dims[2], "kind": "f32",
                                             "nchw": True}))


def marked(path, mark, what):
    with open(file_of(path, what), errors="replace") as f:
        text = f.read()
    need(text.startswith(mark + " "), "%s: %s was not made by the tool before it" % (what, path))
    return json.loads(text[len(mark) + 1:])


def qairt_quantizer(c):
    o = c.options({"--input_dlc!": 1, "--output_dlc!": 1, "--input_list": 1, "--act_bitwidth": 1, "--weights_bitwidth": 1,
                   "--bias_bitwidth": 1, "--use_per_channel_quantization": 0, "--act_quantizer_calibration": 1,
                   "--act_quantizer_schema": 1})
    c.host_environment(True)
    need("--input_list" in o, "without --input_list nothing would be quantised")
    dlc = marked(o["--input_dlc"][0], "STANDIN-DLC", "--input_dlc")
    lines = input_list(o["--input_list"][0], dlc["side"] ** 2 * 12)
    out = path_of(o["--output_dlc"][0], "--output_dlc")
    c.misbehave([out])
    dlc.update(calibrated(c.conf, lines, dlc["side"], True), kind="u8")
    with open(out, "w") as f:
        f.write("STANDIN-DLC " + json.dumps(dlc))


def qnn_model_lib_generator(c):
    o = c.options({"-c!": 1, "-b": 1, "-t": "+", "-l!": 1, "-o!": 1})
    c.host_environment(True)
    with open(file_of(o["-c"][0], "-c")) as f:
        need(f.read(11) == "/* COMMAND:", "-c %s was not made by the converter" % o["-c"][0])
    need("-b" in o, "without -b the library would fail at run time")
    weights = marked(o["-b"][0], "STANDIN-WEIGHTS", "-b")
    weights["graph"] = os.path.splitext(os.path.basename(o["-c"][0]))[0]
    need(re.fullmatch(r"\w+", o["-l"][0]), "-l %r" % o["-l"][0])
    targets = o.get("-t", ["aarch64-android", "x86_64-linux-clang"])
    for target in targets:
        need(target in ("aarch64-android", "x86_64-linux-clang"), "-t %s" % target)
    if "aarch64-android" in targets:
        ndk = os.environ.get("ANDROID_NDK_ROOT")
        need(ndk and ndk in os.environ["PATH"].split(":"), "ANDROID_NDK_ROOT is not set, or not on PATH")
    libraries = [os.path.join(path_of(o["-o"][0], "-o"), t, "lib%s.so" % o["-l"][0]) for t in targets]
    c.misbehave(libraries)
    for path in libraries:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("STANDIN-LIB " + json.dumps(weights))


# ---------------------------------------------------------------- context binaries

def keys(value, required, optional, what):
    need(isinstance(value, dict), "%s is not an object" % what)
    for k in required:
        need(k in value, "%s: %s is missing" % (what, k))
    for k in value:
        need(k in required or k in optional, "%s: unknown key %s" % (what, k))


def htp_config(path, graph):
    """Chip, level and memory that a configuration gives this graph; what does not match is ignored, as the tool does."""
    found = {"soc": DEFAULT_SOC, "O": 2, "vtcm": 4}
    with open(file_of(path, "--config_file")) as f:
        outer = json.load(f)
    keys(outer, ["backend_extensions"], [], path)
    keys(outer["backend_extensions"], ["shared_library_path", "config_file_path"], [], path)
    need(outer["backend_extensions"]["shared_library_path"] == "libQnnHtpNetRunExtensions.so", "shared_library_path")
    with open(file_of(outer["backend_extensions"]["config_file_path"], "config_file_path")) as f:
        inner = json.load(f)
    keys(inner, [], ["graphs", "devices", "context"], "the inner configuration")
    for g in inner.get("graphs", []):
        keys(g, ["graph_names"], ["vtcm_mb", "O", "fp16_relaxed_precision", "hvx_threads", "dlbc"], "graphs")
        if graph in g["graph_names"]:
            found["O"], found["vtcm"] = g.get("O", 2), g.get("vtcm_mb", 4)
    for d in inner.get("devices", []):
        keys(d, ["soc_model"], ["dsp_arch", "pd_session", "cores"], "devices")
        need(d["soc_model"] in ARCH, "soc_model %r" % d["soc_model"])
        need(d.get("dsp_arch", "v%d" % ARCH[d["soc_model"]]) == "v%d" % ARCH[d["soc_model"]], "dsp_arch of another chip")
        for core in d.get("cores", []):
            keys(core, ["core_id"], ["perf_profile", "rpc_control_latency", "rpc_polling_time"], "cores")
        found["soc"] = d["soc_model"]
    return found


def qnn_context_binary_generator(c):
    o = c.options({"--backend!": 1, "--model!": 1, "--dlc_path": 1, "--output_dir": 1, "--binary_file!": 1, "--config_file": 1})
    c.host_environment(False)
    libraries = os.path.join(c.sdk, "lib/x86_64-linux-clang")
    need(o["--backend"][0] == os.path.join(libraries, "libQnnHtp.so"), "--backend %s" % o["--backend"][0])
    if "--dlc_path" in o:
        need(o["--model"][0] == os.path.join(libraries, "libQnnModelDlc.so"), "--model %s with --dlc_path" % o["--model"][0])
        model = marked(o["--dlc_path"][0], "STANDIN-DLC", "--dlc_path")
        need(model["kind"] != "f32", "a float DLC: quantise it first")
        model["graph"] = os.path.splitext(os.path.basename(o["--dlc_path"][0]))[0]
    else:
        model = marked(o["--model"][0], "STANDIN-LIB", "--model")
    found = {"soc": DEFAULT_SOC, "O": 2, "vtcm": 4}
    if "--config_file" in o:
        found = htp_config(o["--config_file"][0], model["graph"])
    name = path_of(o["--binary_file"][0], "--binary_file")
    path = name if os.path.isabs(name) else os.path.join(path_of(o.get("--output_dir", ["./output"])[0], "--output_dir"), name)
    if c.fault == "twice":
        path += ".bin"
    elif not path.endswith(".bin"):
        path += ".bin"
    c.misbehave([path])
    side, n = model["side"], model["n_values"]
    shape = "1 3 %d %d" % (side, side) if model["nchw"] else "1 %d %d 3" % (side, side)
    with open(os.path.join(c.conf["model"], "config.json")) as f:
        width = json.load(f)["hidden_size"]
    kind = TYPES[model["kind"]][0]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:  # the form of tests/npu/fake_qnn.c, whose libraries read it, too
        f.write("FAKEQNN 1\nsoc %d\narch %d\nO %d\nvtcm %d\ngraph %s\n" %
                (found["soc"], ARCH[found["soc"]], found["O"], found["vtcm"], "other" if c.fault == "graph" else model["graph"]))
        f.write("in %s %d %.9g %d 4 %s\n" % (model["input"], kind, model["pixels"][0], model["pixels"][1], shape))
        f.write("out %s %d %.9g %d 3 1 %d %d\nend\n" % (model["output"], kind, model["tokens"][0], model["tokens"][1], n // width, width))


def binary_of(path, what):
    with open(file_of(path, what), errors="replace") as f:
        lines = f.read().split("\n")
    if lines[0] != "FAKEQNN 1" or "end" not in lines:
        sys.stderr.write(" [ ERROR ] Failed to get context binary info\n")
        sys.exit(1)
    b = {"in": [], "out": [], "O": 3, "vtcm": 8}
    for line in lines[1:]:
        w = line.split()
        if w and w[0] in ("soc", "arch", "O", "vtcm"):
            b[w[0]] = int(w[1])
        elif w and w[0] == "graph":
            b["graph"] = w[1]
        elif w and w[0] in ("in", "out"):
            kind = [k for k, v in TYPES.items() if v[0] == int(w[2])][0]
            b[w[0]].append({"name": w[1], "kind": kind, "scale": float(w[3]), "offset": int(w[4]), "dims": [int(d) for d in w[6:]]})
    b.setdefault("arch", ARCH[b["soc"]])
    return b


def tensor_json(t, i):
    j = {"id": i, "name": t["name"], "dimensions": t["dims"], "dataType": "QNN_DATATYPE_" + TYPES[t["kind"]][2]}
    if t["scale"]:
        j["quantizeParams"] = {"definition": "QNN_DEFINITION_DEFINED", "quantizationEncoding": "QNN_QUANTIZATION_ENCODING_SCALE_OFFSET",
                               "scaleOffset": {"scale": t["scale"], "offset": t["offset"]}}
    return {"info": j, "version": "QNN_TENSOR_VERSION_1"}


def qnn_context_binary_utility(c):
    o = c.options({"--context_binary!": 1, "--json_file!": 1})
    c.host_environment(False)
    b = binary_of(o["--context_binary"][0], "--context_binary")
    out = path_of(o["--json_file"][0], "--json_file")
    need(os.path.isdir(os.path.dirname(os.path.abspath(out))), "the directory of --json_file is not there")
    c.misbehave([out])
    if c.fault == "notensor":
        b["out"] = []
    graph = {"graphName": b["graph"], "graphInputs": [tensor_json(t, i) for i, t in enumerate(b["in"])],
             "graphOutputs": [tensor_json(t, i) for i, t in enumerate(b["out"])],
             "graphBlobInfo": {"info": {"spillFillBufferSize": 0, "vtcmSize": b["vtcm"], "optimizationLevel": b["O"], "numHvxThreads": 4}}}
    info = {"backendId": 6, "buildId": "v%s.stand-in" % c.conf["version"], "socModel": b["soc"],
            "contextMetadata": {"info": {"dspArch": b["arch"]}}, "graphs": [{"info": graph}]}
    with open(out, "w") as f:
        f.write("{ cut" if c.fault == "badjson" else json.dumps({"info": info, "version": 3}, indent=2))


# ---------------------------------------------------------------- qnn-net-run

def qnn_net_run(c):
    o = c.options({"--backend!": 1, "--retrieve_context!": 1, "--input_list!": 1, "--output_dir!": 1, "--use_native_input_files": 0,
                   "--use_native_output_files": 0, "--num_inferences": 1, "--config_file": 1, "--profiling_level": 1, "--log_level": 1})
    if c.phone:
        c.phone_environment(True)
        need(o["--backend"][0] == "libQnnHtp.so", "--backend %s" % o["--backend"][0])
    else:
        c.host_environment(False)
        need(o["--backend"][0] == os.path.join(c.sdk, "lib/x86_64-linux-clang/libQnnHtp.so"), "--backend %s" % o["--backend"][0])
    need(o.get("--num_inferences", ["1"]) == ["1"], "--num_inferences")
    b = binary_of(o["--retrieve_context"][0], "--retrieve_context")
    need(len(b["in"]) == 1 and len(b["out"]) == 1, "one input and one output are all that this stand-in knows")
    source, target = b["in"][0], b["out"][0]
    native = "--use_native_input_files" in o
    with open(file_of(o["--input_list"][0], "--input_list")) as f:
        lines = [line for line in f.read().split("\n") if line]
    need(len(lines) == 1 and not lines[0].startswith(("#", "%")) and " " not in lines[0], "the list has %r, expected one path" % lines)
    path = lines[0].split(":=")[-1]
    with open(file_of(path, "the list"), "rb") as f:
        data = f.read()
    wanted = elements(source["dims"]) * (TYPES[source["kind"]][1] if native else 4)
    need(len(data) == wanted, "%s: %d bytes, the graph's input has %d" % (path, len(data), wanted))
    out = path_of(o["--output_dir"][0], "--output_dir")
    native_out = "--use_native_output_files" in o
    suffix = "_native.raw" if native_out and target["kind"] != "f32" else ".raw"
    result = os.path.join(out, "Result_0", sanitized(target["name"]) + suffix)
    c.misbehave([result])
    print("qnn-net-run pid:%d" % os.getpid(), flush=True)
    values = embed(c, source, data) if source["kind"] == "i32" else see(c, source, data, native)
    need(len(values) == elements(target["dims"]), "%d values for %s" % (len(values), target["dims"]))
    if suffix == ".raw":
        raw = array.array("f", values).tobytes()
    elif target["kind"] == "f16":
        raw = struct.pack("<%de" % len(values), *values)
    else:
        raw = quantize(values, target["scale"], target["offset"], target["kind"])
    os.makedirs(os.path.dirname(result), exist_ok=True)
    if "--profiling_level" in o:
        need(o["--profiling_level"][0] in ("basic", "detailed"), "--profiling_level %s" % o["--profiling_level"][0])
        with open(os.path.join(out, "qnn-profiling-data_0.log"), "w") as f:
            f.write("STANDIN-PROFILE {}")
    with open(result, "wb") as f:
        f.write(raw[:-4] if c.fault == "short" else raw)


def see(c, source, data, native):
    dims = source["dims"]
    nchw = dims[1] == 3 and dims[3] != 3
    side = dims[2]
    if native and source["kind"] in ("u8", "u16"):
        raw = array.array("B" if source["kind"] == "u8" else "H", data)
        x = [(q + source["offset"]) * source["scale"] for q in raw]
    else:
        x = array.array("f", data)
    u8, plane = bytearray(len(x)), side * side
    for i in range(len(x)):
        value = x[(i % 3) * plane + i // 3] if nchw else x[i]
        u8[i] = max(0, min(255, int(round(value * 255))))
    return image_tokens(c.conf, bytes(u8), side)


def embed(c, source, data):
    """Rows of the embedding, which the checkpoint's safetensors have."""
    table, width = checkpoint_embedding(c.conf["model"])
    values = array.array("f")
    for i in array.array("i", data):
        need(0 <= i < len(table) // width, "id %d" % i)
        values.extend(table[i * width:(i + 1) * width])
    return values


# ---------------------------------------------------------------- Genie

def checkpoint_embedding(model):
    """The embedding of a llava_qwen2 or fast_vlm checkpoint in f32: rows one behind the other, and their width."""
    for name in sorted(os.listdir(model)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(model, name), "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            head = json.loads(f.read(n))
            for key in ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"):
                if key in head:
                    t = head[key]
                    begin, end = t["data_offsets"]
                    f.seek(8 + n + begin)
                    data = f.read(end - begin)
                    if t["dtype"] == "BF16":
                        wide = bytearray(2 * len(data))
                        wide[2::4], wide[3::4] = data[0::2], data[1::2]
                        return array.array("f", bytes(wide)), t["shape"][1]
                    need(t["dtype"] == "F32", "an embedding in %s" % t["dtype"])
                    return array.array("f", data), t["shape"][1]
    return wrong("no embedding in %s" % model)


COMPOSER_KEYS = {"size.vocabulary": "vocab_size", "size.embedding": "hidden_size", "size.feedforward": "intermediate_size",
                 "architecture.num_decoders": "num_hidden_layers", "architecture.num_heads": "num_attention_heads",
                 "architecture.num_kv_heads": "num_key_value_heads", "operation.normalization_epsilon": "rms_norm_eps"}


def qnn_genai_transformer_composer(c):
    o = c.options({"--model!": 1, "--config_file": 1, "--outfile!": 1, "--dump_lut": 0, "--export_tokenizer_json": 0, "--quantize": 1})
    c.host_environment(True)
    model, out = path_of(o["--model"][0], "--model"), path_of(o["--outfile"][0], "--outfile")
    need(os.path.isfile(os.path.join(model, "config.json")), "--model %s: no config.json" % model)
    need(out.endswith(".bin"), "--outfile %s" % out)
    need(os.path.realpath(os.getcwd()) == os.path.realpath(os.path.dirname(out)), "works in %s, expected the output's directory" % os.getcwd())
    need(o.get("--quantize", ["Z8"])[0] in ("Z4", "Z8", "Q4"), "--quantize %s" % o.get("--quantize"))
    need("--config_file" in o, "Please provide configuration.json file for this model")
    with open(file_of(o["--config_file"][0], "--config_file")) as f:
        described = json.load(f)
    with open(os.path.join(model, "config.json")) as f:
        own = json.load(f)
    own = own.get("text_config", own)
    for key, name in COMPOSER_KEYS.items():
        need(described.get(key) == own[name], "%s is %r, the checkpoint's %s is %r" % (key, described.get(key), name, own[name]))
    for key in ("general.name", "general.architecture", "operation.activation", "operation.rope_num_rotations", "operation.rope_scaling",
                "tensor.layer_name", "tensor.embedding_token_weight", "tensor.output_weight"):
        need(key in described, "the configuration has no %s" % key)
    folder = os.path.dirname(out)
    lut = os.path.join(folder, "LUT.bin")
    c.misbehave([out, lut])
    with open(out, "w") as f:
        f.write("STANDIN-COMPOSED " + json.dumps({"quantize": o.get("--quantize", ["fp32"])[0], "model": os.path.realpath(model)}))
    if "--dump_lut" in o:
        table, _ = checkpoint_embedding(model)
        if c.fault == "wronglut":
            table[len(table) // 2:] = array.array("f", [x + 1 for x in table[len(table) // 2:]])
        with open(lut, "wb") as f:
            f.write(table.tobytes()[:-4] if c.fault == "shortlut" else table.tobytes())
    if "--export_tokenizer_json" in o and c.fault != "notokenizer":
        shutil.copy(os.path.join(model, "tokenizer.json"), os.path.join(folder, "tokenizer.json"))
    else:
        sys.stderr.write("WARNING: tokenizer.json is not written for this model\n")


def dialog_of(path):
    """The dialog, by the rules of Genie's own validator."""
    with open(file_of(path, "--config")) as f:
        root = json.load(f)
    keys(root, ["dialog"], [], path)
    d = root["dialog"]
    keys(d, ["version", "type", "context", "tokenizer", "engine"], ["sampler", "embedding", "max-num-tokens", "stop-sequence"], "dialog")
    keys(d["context"], ["version", "size", "n-vocab", "bos-token", "eos-token"], ["pad-token", "eot-token", "n-embd"], "context")
    keys(d["tokenizer"], ["version", "path"], [], "tokenizer")
    keys(d.get("embedding", {"version": 1, "size": 1}), ["version", "size"], ["datatype", "type"], "embedding")
    keys(d.get("sampler", {"version": 1}), ["version"], ["seed", "temp", "top-k", "top-p", "greedy"], "sampler")
    e = d["engine"]
    keys(e, ["version", "backend", "model", "n-threads"], [], "engine")
    keys(e["backend"], ["version", "type", "QnnGenAiTransformer"], [], "backend")
    need(e["backend"]["type"] == "QnnGenAiTransformer", "this stand-in is the CPU engine")
    keys(e["backend"]["QnnGenAiTransformer"], ["version", "model-input", "n-layer", "n-embd", "n-heads", "n-kv-heads"], ["use-mmap"], "engine")
    keys(e["model"], ["version", "type", "library"], [], "model")
    keys(e["model"]["library"], ["version", "model-bin"], [], "library")
    for block in (d, d["context"], d["tokenizer"], e, e["backend"], e["model"]):
        need(block["version"] == 1, "a version other than 1")
    need(d.get("embedding", {}).get("datatype") == "float32", "embedding.datatype must be float32 for the CPU engine")
    need(0 < d["max-num-tokens"] < d["context"]["size"], "max-num-tokens %r" % d["max-num-tokens"])
    return d


def genie_t2t_run(c):
    o = c.options({"--config!": 1, "--prompt": 1, "--embedding_file": 1, "--embedding_table": 1, "--embedding_query_output_type": 1,
                   "--profile": 1, "--log": 1})
    if c.phone:
        c.phone_environment(False)
    else:
        c.host_environment(False)
    d = dialog_of(o["--config"][0])
    file_of(d["tokenizer"]["path"], "tokenizer.path")
    marked(d["engine"]["model"]["library"]["model-bin"], "STANDIN-COMPOSED", "model-bin")
    need(("--prompt" in o) != ("--embedding_file" in o), "either a prompt or embeddings")
    profile = o.get("--profile", [None])[0]
    if profile and os.path.exists(profile):
        sys.stderr.write("Profile file already exists: %s\n" % profile)
        sys.exit(1)
    print("Using libGenie.so version 1.13.0\n", flush=True)
    c.misbehave([])
    if "--embedding_file" in o:
        need(o.get("--embedding_query_output_type") == ["text"], "--embedding_query_output_type must be text: token crashes")
        need("--embedding_table" in o, "without a table one token would be produced")
        rows, table = o["--embedding_file"][0], o["--embedding_table"][0]
        need("," not in rows + table, "a comma in a path")
        width = d["embedding"]["size"] * 4
        need(os.path.getsize(file_of(table, "--embedding_table")) == d["context"]["n-vocab"] * width, "the table's size")
        need(os.path.getsize(file_of(rows, "--embedding_file")) % width == 0, "the rows' size")
        n_rows = os.path.getsize(rows) // width
        print("Embedding file size: %d bytes\n" % os.path.getsize(rows), flush=True)
        if n_rows + 1 > d["context"]["size"]:
            sys.stderr.write("Context limit exceeded\n")
            sys.exit(1)
        most = min(d["max-num-tokens"], d["context"]["size"] - n_rows)
        run = subprocess.run([c.conf["decode_rows"], c.conf["model"], rows, table, str(most), str(d["context"]["eos-token"])],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        need(run.returncode == 0, "decode_rows: %s" % run.stderr.decode(errors="replace"))
        text = run.stdout
        n_prompt, n_made = map(int, run.stderr.split(b"\n")[0].split())
    else:
        print("[PROMPT]: %s\n" % o["--prompt"][0], flush=True)
        text, n_prompt, n_made = b"a prompt of %d characters" % len(o["--prompt"][0]), 5, 6
    say(c, text, n_made)
    if profile:
        with open(profile, "w") as f:
            f.write("not json" if c.fault == "badprofile" else json.dumps(profile_json(n_prompt, n_made), indent=2))


def say(c, text, n_made):
    out = sys.stdout.buffer
    if c.fault == "noend":
        out.write(b"[BEGIN]: " + text)
    elif c.fault == "marks":
        out.write(b"[INFO]  \"log\"\n[BEGIN]: a [END] and [BEGIN]: inside[END]\n")
    elif n_made == 0:
        out.write(b"[END]\n")
    else:
        out.write(b"[BEGIN]: ")
        for i in range(0, len(text), 3):  # pieces, also in the middle of a character
            out.write(text[i:i + 3])
            out.flush()
        out.write(b"[END]\n")
    out.flush()


def profile_json(n_prompt, n_made):
    def number(value, unit):
        return {"value": value, "unit": unit}
    query = {"type": "GenieDialog_query", "duration": 900000, "start": 1, "stop": 900001, "num-prompt-tokens": number(n_prompt, ""),
             "prompt-processing-rate": number(400.5, "toks/sec"), "time-to-first-token": number(250000, "us"),
             "num-generated-tokens": number(n_made, ""), "token-generation-rate": number(20.25, "toks/sec"),
             "token-generation-time": number(500000, "us")}
    create = {"type": "GenieDialog_create", "duration": 1200000, "start": 0, "stop": 1, "init-time": number(1100000, "us")}
    version = {"major": 0, "minor": 1, "patch": 0}
    return {"header": {"header_version": version, "version": version, "artifact_type": "GENIE_PROFILE"}, "metadata": {"timestamp": 1},
            "components": [{"name": "dialog7f00", "type": "dialog", "events": [query, create, {"type": "GenieDialog_free"}]}],
            "traceEvents": []}


def qnn_profile_viewer(c):
    o = c.options({"--input_log!": 1, "--output": 1, "--reader": 1})
    c.host_environment(False)
    marked(o["--input_log"][0], "STANDIN-PROFILE", "--input_log")
    out = path_of(o.get("--output", ["x"])[0], "--output")
    c.misbehave([out])
    print("Execute Stats (Average):\n------------------------\nTotal Inference Time: 1000 us", flush=True)
    if "--output" in o:
        with open(out, "w") as f:
            f.write("Msg Timestamp,Message,Time,Unit of Measurement\n0,EXECUTE,1000,US\n")


TOOLS = {"qnn-onnx-converter": qnn_onnx_converter, "qnn-model-lib-generator": qnn_model_lib_generator,
         "qairt-converter": qairt_converter, "qairt-quantizer": qairt_quantizer,
         "qnn-context-binary-generator": qnn_context_binary_generator, "qnn-context-binary-utility": qnn_context_binary_utility,
         "qnn-net-run": qnn_net_run, "qnn-profile-viewer": qnn_profile_viewer,
         "qnn-genai-transformer-composer": qnn_genai_transformer_composer, "genie-t2t-run": genie_t2t_run}


def main(name, conf):
    TOOLS[name](Call(name, conf, sys.argv[1:]))
