#!/usr/bin/env python3
"""Other engines beside ours on the same weights, in one go.

  python3 bench/peers/run.py                              everything: install, prepare, run; then the table
  python3 bench/peers/run.py --only install,prepare       downloads and conversions, ahead of a quiet measurement
  python3 bench/peers/run.py --only run                   the measurement alone
  python3 bench/peers/run.py --engines ours,ort --reps 3
  python3 bench/peers/run.py --full                       also int8 encoders, OpenVINO GenAI and llama.cpp on the decoder
  python3 bench/peers/run.py --all                        also ONNX Runtime GenAI, LiteRT-LM, MNN and torch.compile
  python3 bench/peers/run.py --engines gemm               matrix products by shape: oneDNN, and ours from checkkernels

Needs Python >= 3.9 with venv and pip, a C compiler, npm (for the vocabulary; or --tokenizer FILE), 12 GB of disk (--full: 24 GB; --all: 40 GB). Each engine lives in a
virtual environment of its own under --work, because their requirements clash; remove the folder to be rid of them all. An engine that does not install,
convert or run here is left out, and the table's last lines say why. The model is the
full-size synthetic checkpoint unless --checkpoint names another llava_qwen2 directory of FastVLM-0.5B's shape.

A repetition counts only if the rest of the machine used less than 0.12 core meanwhile (QUIET_MAX); rows taken without such a repetition are marked
with a star. The machine's peaks are measured before and after; where one moved by more than a tenth, every row is taken a second time. Vision includes the projector. "x ours" is the peer's median time over
ours at the same stage and precision: above 1, ours is faster. Our rows are taken before and after the peers' and merged.
"""
import argparse
import collections
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
REFERENCE = os.path.join(ROOT, "tools/reference")
sys.path.insert(0, HERE)
import quietly                                                                               # noqa: E402

ENVIRONMENTS = {                                             # what was measured last; --latest drops the version numbers
    "ort": ["onnxruntime==1.32.0", "onnx==1.23.2", "numpy"],
    "openvino": ["openvino==2026.4.1", "nncf==3.4.0", "numpy"],
    "transformers": ["torch==2.15.0", "torchvision==0.29.2", "transformers==5.23.0", "timm==1.0.31", "onnx==1.23.2", "numpy", "pillow", "regex"],
    "genai": ["openvino-genai==2026.4.1.0", "optimum-intel==2.2.0", "torch==2.15.0"],
    "llamacpp": ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy"],
    "ortgenai": ["onnxruntime-genai==0.18.0", "onnx-ir==1.1.0"],
    "mnn": ["MNN==3.6.1", "llmexport==0.0.5"],
    "litert": ["litert-torch==0.10.0", "litert-lm==0.18.1", "torch==2.14.1", "transformers==5.24.0"],
}
UPON = {"ortgenai": "transformers", "mnn": "transformers"}   # sees the other's packages: torch alone takes 5 GB
HOME = {"compile": "transformers"}                           # the environment of an engine that has none of its name
DEFAULT = ["ours", "ort", "openvino", "transformers"]
FULL = DEFAULT + ["genai", "llamacpp"]
ALL = FULL + ["ortgenai", "litert", "mnn", "compile"]
OURS = ("z8", "w8a8", "q4")                                # decoders of our packed files
GGUF, LITERT = ("bf16", "f16", "q8_0", "q4_0"), {"8": "dynamic_wi8_afp32"}
SAME = {"q8_0": "int8", "z8": "int8", "w8a8": "int8", "q4_0": "int4", "q4": "int4"}
Product = collections.namedtuple("Product", "name engines env command")  # a conversion: OUT in the command is the product's path
Job = collections.namedtuple("Job", "engine script mode model more")     # SCRIPT MODE.. MODEL MORE.., in the engine's environment


def say(*x):
    print(*x, file=sys.stderr, flush=True)


class Peers:
    def __init__(self, a, before):
        self.a, self.w, self.before = a, os.path.abspath(a.work), before     # before: --guard's results
        os.makedirs(self.w, exist_ok=True)
        self.engines = a.engines.split(",") if a.engines else ALL if a.all else FULL if a.full else DEFAULT
        self.full, self.out = a.full or a.all, {}            # out: (engine, its model or None) -> why it is left out
        known = ALL + ["gemm"]
        for e in self.engines:
            if e not in known:
                sys.exit("run.py: unknown engine '%s'; known: %s" % (e, ", ".join(known)))
        self.ck = os.path.abspath(a.checkpoint) if a.checkpoint else self.at("fastvlm-0.5b")
        self.picture = os.path.join(ROOT, "tests/data/full/scene.jpg")
        self.records = self.at("records.jsonl")

    def at(self, name):
        return os.path.join(self.w, name)

    def need(self, *engines):
        return any(e in self.engines for e in engines)

    def leave_out(self, engine, model, why):
        if (engine, None) not in self.out and (engine, model) not in self.out:
            self.out[engine, model] = why
            say("run.py: left out: " + self.reason(engine, model))

    def reason(self, engine, model):
        return "%s: %s" % (engine + (" " + model if model else ""), self.out[engine, model])

    def installed(self, env):
        return os.path.exists(self.at("venv-" + env + "/installed"))

    def python(self, env):
        return self.at("venv-" + env + "/bin/python")

    def call(self, *argv, **kw):
        """-> exit status; negative: the signal that ended it."""
        env = dict(os.environ, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1", **kw.pop("env", {}))
        say("$ " + " ".join(map(str, argv)))
        return subprocess.run([str(x) for x in argv], env=env, **kw).returncode

    def logged(self, name, *argv):
        """Runs it with its output in WORK/logs/NAME.log. -> None, or why it failed: how it ended and the last line it wrote."""
        path = self.at("logs/" + name + ".log")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            rc = self.call(*argv, stdout=f, stderr=subprocess.STDOUT)
        if rc == 0:
            return None
        with open(path, errors="replace") as f:
            lines = [x.strip() for x in f.read().replace("\r", "\n").split("\n") if x.strip()]
        how = "signal %d" % -rc if rc < 0 else "status %d" % rc
        return "%s ended with %s: %s (%s)" % (name, how, lines[-1][:160] if lines else "no output", path)

    def build(self, source, target, *flags):
        src, out = os.path.join(ROOT, "bench", source), self.at(target)
        if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(src):
            if self.call(os.environ.get("CC", "cc"), "-O3", src, "-o", out, *flags):
                return None
        return out

    # ---- install

    def environments(self):
        e = [HOME.get(x, x) for x in self.engines if HOME.get(x, x) in ENVIRONMENTS]
        if self.need("ort", "openvino", *UPON):
            e.insert(0, "transformers")                      # torch writes the ONNX graph
        return list(dict.fromkeys(e))

    def install(self):
        for e in self.environments():
            wanted = [p.split("==")[0] if self.a.latest else p for p in ENVIRONMENTS[e]]
            mark = self.at("venv-" + e + "/installed")
            if os.path.exists(mark) and open(mark).read().split() == wanted:
                continue
            why = None
            if os.path.exists(mark):
                os.remove(mark)
            if not os.path.exists(self.python(e)):
                why = self.logged("venv-" + e, sys.executable, "-m", "venv", self.at("venv-" + e))
            if not why and e in UPON:
                own, other = (sysconfig.get_path("purelib", "posix_prefix", {"base": self.at("venv-" + x)}) for x in (e, UPON[e]))
                with open(os.path.join(own, "upon.pth"), "w") as f:
                    f.write(other + "\n")
            why = why or self.logged("venv-" + e, self.python(e), "-m", "pip", "install", *wanted)
            if why:
                for x in self.engines:
                    if HOME.get(x, x) == e:
                        self.leave_out(x, None, why)
                continue
            with open(mark, "w") as f:
                f.write("\n".join(wanted) + "\n")

    # ---- prepare: made once, beside a temporary name, so that an interrupted run leaves nothing half-made

    def make(self, name, *argv):
        """argv with OUT for the product's path. -> None, or why it failed."""
        out = name if os.path.isabs(name) else self.at(name)
        if os.path.exists(out):
            return None
        part = os.path.join(os.path.dirname(out), "part." + os.path.basename(out))
        shutil.rmtree(part, ignore_errors=True)
        if not os.path.exists(argv[0]):
            return "%s: no %s" % (os.path.basename(out), argv[0])
        why = self.logged(os.path.basename(out), *[part if x == "OUT" else x for x in argv])
        if why:
            return why
        if out.endswith(".xml"):                             # OpenVINO puts the weights beside it
            os.rename(part[:-3] + "bin", out[:-3] + "bin")
        os.rename(part, out)
        return None

    def products(self):
        """Every conversion, in the order in which they need each other."""
        peer = lambda f: os.path.join(HERE, f)               # noqa: E731
        onnx, pictures, qwen2 = self.at("vision_f32.onnx"), self.at("pictures"), self.at("qwen2")
        full = lambda *e: e if self.full else ()             # noqa: E731
        ov4 = ("int4", "--sym", "--group-size", "32", "--ratio", "1.0")
        return [
            Product("vision_f32.onnx", ("ort", "openvino", "mnn"), "transformers", [peer("vision_model.py"), self.ck, "OUT"]),
            Product("pictures", ("ort", "openvino", "mnn"), "transformers", [peer("vision_peers.py"), "images", "OUT", "-n", "4"]),
            Product("fast_vlm", ("transformers", "compile"), "transformers", [os.path.join(REFERENCE, "make_fast_vlm.py"), self.ck, "OUT"]),
            Product("vision_ort8.onnx", full("ort"), "ort", [peer("vision_peers.py"), "quant-ort", onnx, "OUT", pictures, "--ops", "Conv,MatMul", "--no-dw"]),
            Product("vision_ov8.xml", full("openvino"), "openvino", [peer("vision_peers.py"), "quant-ov", onnx, "OUT", pictures, "--transformer"]),
            Product("qwen2", ("genai", "ortgenai", "litert", "mnn"), None, [peer("make_qwen2_hf.py"), self.ck, "OUT"]),
        ] + [
            Product("qwen2-ov" + b, ("genai",), "genai", [self.at("venv-genai/bin/optimum-cli"), "export", "openvino", "-m", qwen2, "--task",
                                                         "text-generation-with-past", "--weight-format", *how, "OUT"])
            for b, how in (("8", ("int8",)), ("4", ov4))
        ] + [
            Product("qwen2-%s.gguf" % t, ("llamacpp",), "llamacpp", [peer("make_qwen2_gguf.py"), self.ck, "OUT", "--type", t]) for t in GGUF
        ] + [
            Product("qwen2-og" + b, ("ortgenai",), "ortgenai", ["-m", "onnxruntime_genai.models.builder", "-m", qwen2, "-i", qwen2, "-o", "OUT",
                                                               "-p", "int" + b, "-e", "cpu", "-c", self.at("cache"), "--extra_options",
                                                               "accuracy_level=4", "block_size=32"])
            for b in "84"
        ] + [
            Product("qwen2-lt" + b, ("litert",), "litert", [peer("make_litert.py"), qwen2, "OUT", "--recipe", recipe]) for b, recipe in LITERT.items()
        ] + [
            Product("qwen2-mnn" + b, ("mnn",), "mnn", [peer("make_mnn.py"), "llm", qwen2, "OUT", "--bits", b]) for b in "84"
        ] + [
            Product("vision_mnn32.mnn", ("mnn",), "mnn", [peer("make_mnn.py"), "vision", onnx, "OUT"]),
            Product("vision_mnn8.mnn", ("mnn",), "mnn", [peer("make_mnn.py"), "vision", onnx, "OUT", "--bits", "8"]),
        ]

    def prepare(self):
        a = self.a
        numpy_env = next((self.python(e) for e in ENVIRONMENTS if self.installed(e)), None)
        if self.engines == ["gemm"]:
            return
        if numpy_env is None:
            sys.exit("run.py: install an environment first (--only install)")
        if not os.path.exists(os.path.join(self.ck, "config.json")):
            if a.checkpoint:
                sys.exit("run.py: no checkpoint in %s" % self.ck)
            why = self.make(self.ck, numpy_env, os.path.join(REFERENCE, "make_checkpoint.py"), "OUT", "--size", "0.5b",
                            *(["--tokenizer", a.tokenizer] if a.tokenizer else []))
            if why:
                sys.exit("run.py: no checkpoint: " + why)
        for p in self.products():
            users = [e for e in p.engines if e in self.engines]
            if not users:
                continue
            if p.env and not self.installed(p.env):
                why = "environment %s is not installed" % p.env
            else:
                program = [] if p.command[0].startswith(self.at("venv-")) else [self.python(p.env) if p.env else numpy_env]
                why = self.make(p.name, *program, *p.command)
            for e in users if why else ():
                self.leave_out(e, p.name, why)
        for d in OURS if self.full and not a.packed and "ours" in self.engines else ():
            why = self.make("int8-%s.gguf" % d, a.fastvlm, "pack", self.ck, "-o", "OUT", "--vision", "int8", "--decoder", d)
            if why:
                self.leave_out("ours", "int8-%s.gguf" % d, why)

    # ---- run

    def peer(self, job):
        a, env, model = self.a, HOME.get(job.engine, job.engine), os.path.basename(job.model)
        if not self.installed(env):
            log = self.at("logs/venv-" + env + ".log")
            self.leave_out(job.engine, None, "not installed (%s)" % (log if os.path.exists(log) else "--only install --engines " + job.engine))
        elif not os.path.exists(job.model):
            log = self.at("logs/" + model + ".log")
            self.leave_out(job.engine, model, "not converted (%s)" % (log if os.path.exists(log) else "--only prepare --engines " + job.engine))
        elif self.call(self.python(env), os.path.join(HERE, job.script), *job.mode, job.model, *job.more,
                           "-t", a.threads, "-r", a.reps, "--limit", a.limit, "--json", self.records):
            self.leave_out(job.engine, model, "%s ended with an error, printed above" % " ".join((job.script,) + job.mode))

    def jobs(self):
        """Every measurement of the peers."""
        pictures, n = self.at("pictures"), ("-n", self.a.tokens)

        def vision(engine, mode, model, *more):
            return Job(engine, "vision_peers.py", ("time", mode), self.at(model), (pictures, "--ref", self.at("reference.npy"), *more))

        def decoder(engine, mode, model, precision):
            return Job(engine, "llm_peers.py", (mode,), self.at(model), ("--precision", precision, *n))

        def whole(engine, mode):
            return Job(engine, "e2e_peers.py", (mode,), self.at("fast_vlm"), (self.picture,))
        int8 = [vision("ort", "ort", "vision_ort8.onnx", "--precision", "int8"), vision("openvino", "ov-bf16", "vision_ov8.xml", "--precision", "int8")]
        return [vision("ort", "ort", "vision_f32.onnx"),
                *[vision("openvino", "ov-" + p, "vision_f32.onnx") for p in ("f32", "bf16")], *(int8 if self.full else ()),
                *[whole("transformers", "hf-" + p) for p in ("f32", "bf16")],
                *[decoder("genai", "ov", "qwen2-ov" + b, "int" + b) for b in "84"],
                *[decoder("llamacpp", "llama", "qwen2-%s.gguf" % t, t) for t in GGUF],
                *[decoder("ortgenai", "og", "qwen2-og" + b, "int" + b) for b in "84"],
                *[decoder("litert", "lt", "qwen2-lt" + b, "int" + b) for b in LITERT],
                *[decoder("mnn", "mnn", "qwen2-mnn" + b, "int" + b) for b in "84"],
                vision("mnn", "mnn-f32", "vision_mnn32.mnn"), vision("mnn", "mnn-int8", "vision_mnn8.mnn"),
                *[whole("compile", "compile-" + p) for p in ("f32", "bf16")]]

    def ours(self):
        a = self.a
        if not os.path.exists(a.fastvlm):
            say("run.py: no %s, our rows left out (make, or --fastvlm PATH)" % a.fastvlm)
            return
        runs = [(self.ck, ["--vision", v, "--decoder", d]) for v, d in [p.split("/") for p in a.ours.split(",") if p]]
        packed = a.packed.split(",") if a.packed else [self.at("int8-%s.gguf" % d) for d in OURS] if self.full else []
        for p in packed:
            if not os.path.exists(p):
                self.leave_out("ours", os.path.basename(p), "not packed (--only prepare --engines ours)")
        for model, how in runs + [(p, []) for p in packed if os.path.exists(p)]:
            cmd = [a.fastvlm, "bench", model, "--json"] + how + ["--stages",
                   "load,preprocess,vision,projector,prefill,decode,first_token", "--reps", str(a.reps), "--threads", str(a.threads)]
            say("$ " + " ".join(cmd))
            for _ in range(3):
                quietly.wait(a.limit / 3)
                p, others, _ = quietly.others(lambda: subprocess.run(cmd, stdout=subprocess.PIPE, text=True))
                if p.returncode != 0 or others < quietly.MAX:
                    break
            if p.returncode != 0:
                say("run.py: fastvlm bench ended with %d, rows left out" % p.returncode)
                continue
            out = json.loads(p.stdout)
            note = "quiet" if others < quietly.MAX else "NOT QUIET: others %.2f core" % others
            stages = {s["name"]: s for s in out["stages"]}
            if "vision" in stages and "projector" in stages:
                for k in ("best_ms", "median_ms"):
                    stages["vision"][k] += stages["projector"][k]
            with open(self.records, "a") as f:
                for s in stages.values():
                    s["stage"] = s.pop("name")
                    if s["stage"] == "load" and model != self.ck:
                        s["precision"] = "packed"
                    if s["stage"] == "first_token":
                        v, d = stages["vision"]["precision"], stages["decode"]["precision"]
                        s["precision"] = v if v == d else v + "+" + d
                    s.update(engine="fastvlm", threads=a.threads, quiet=note)
                    if model != self.ck:
                        s["file"] = os.path.basename(model)
                    f.write(json.dumps(s) + "\n")

    def run(self):
        a = self.a
        if os.path.exists(self.records):
            os.remove(self.records)
        if self.engines == ["gemm"]:
            return self.gemm()
        roof = self.build("roofline.c", "roofline", "-march=native", "-pthread")
        peaks = [quietly.machine(roof, a.threads, min(a.limit, 120))] if roof else []
        for again in (False, True):
            if self.need("ours"):
                self.ours()
            for j in self.jobs():
                if self.need(j.engine):
                    self.peer(j)
            if self.need("ours") and len(self.engines) > 1:
                self.ours()
            if roof:
                peaks.append(quietly.machine(roof, a.threads, min(a.limit, 120)))
            if not roof or not moved(*peaks[-2:]) or again:
                break
            say("run.py: the machine's peaks moved by more than a tenth, %s to %s; all rows are taken again and merged" % tuple(peaks[-2:]))
        if self.need("gemm"):
            self.gemm()
        if os.path.exists(self.records):
            self.report(peaks)
        elif self.out:
            sys.exit("run.py: nothing was measured")

    # ---- tables

    def report(self, peaks):
        with open(self.records) as f:
            rows = [json.loads(x) for x in f]
        merged = {}
        for r in rows:                                       # our two passes become one row
            merged.setdefault((r["stage"], SAME.get(r.get("precision"), r.get("precision")), r["engine"], r.get("precision"), r.get("file")), []).append(r)
        ours, table = {}, []
        for (stage, same, engine, *_), rs in merged.items():
            m = dict(rs[0], best_ms=min(r.get("best_ms", 0) for r in rs), median_ms=statistics.mean(r.get("median_ms", 0) for r in rs))
            if rs[0].get("tokens_per_second"):
                m["tokens_per_second"] = statistics.mean(r["tokens_per_second"] for r in rs)
            m["star"] = "*" if any("NOT" in r.get("quiet", "") for r in rs) else ""
            if engine == "fastvlm":
                ours.setdefault((stage, same), m)            # the file named first is the one that peers are compared with
            table.append(((stage, same), m))
        order = ["load", "preprocess", "vision", "projector", "prefill", "decode", "first_token"]
        table.sort(key=lambda t: (order.index(t[0][0]) if t[0][0] in order else 99, str(t[0][1]), t[1]["median_ms"]))
        out = [("stage", "precision", "engine", "best ms", "median ms", "tokens/s", "x ours")]
        for key, m in table:
            o, ratio = ours.get(key), "-"
            if o and m["engine"] != "fastvlm":
                m["times_ours"] = m["median_ms"] / o["median_ms"]
                ratio = "%.2f" % m["times_ours"]
            tps = m.get("tokens_per_second")
            name = m["engine"] + (" " + m["file"] if m.get("file") else "")
            out.append((m["stage"], m.get("precision") or "", name + m["star"], "%.1f" % m["best_ms"], "%.1f" % m["median_ms"],
                        "%.1f" % tps if tps else "", ratio))
        cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "unknown") if os.path.exists("/proc/cpuinfo") else "unknown"
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
        head = ["%s, %s threads, commit %s, %s" % (cpu, self.a.threads, commit or "unknown", time.strftime("%Y-%m-%d"))]
        head += ["machine: " + "; then ".join(peaks)] if len(peaks) > 1 else []
        lines = show(out)
        print("\n".join(head + [""] + lines))
        if any(m["star"] for _, m in table):
            print("* no quiet repetition: other processes were using the machine")
        for x in self.out:
            print("left out: " + self.reason(*x))
        base = self.a.out or self.at("results")
        with open(base + ".json", "w") as f:
            json.dump({"cpu": cpu, "commit": commit, "threads": self.a.threads, "peaks": peaks, "left_out": [self.reason(*x) for x in self.out],
                       "rows": [m for _, m in table], "records": rows}, f, indent=1)
        markdown(base + ".md", head, out)
        say("run.py: wrote %s.json and %s.md" % (base, base))
        if self.before:
            self.guard(cpu, [m for _, m in table])

    def guard(self, cpu, rows):
        """Ends the program with 1 where we have lost a tenth to a peer since the results in the file."""
        old = self.before
        if old["cpu"] != cpu or old["threads"] != self.a.threads:
            sys.exit("run.py: --guard %s: of %s with %s threads; this is %s with %s" % (self.a.guard, old["cpu"], old["threads"], cpu, self.a.threads))
        key = lambda m: (m["stage"], m.get("precision"), m["engine"])    # noqa: E731
        before = {key(m): m["times_ours"] for m in old["rows"] if m.get("times_ours")}
        compared = [(key(m), before[key(m)], m["times_ours"]) for m in rows if m.get("times_ours") and key(m) in before]
        lost = [(k, b, n) for k, b, n in compared if n < 0.9 * b]
        for (stage, precision, engine), b, n in lost:
            print("guard: %s %s: %s took %.2f of our time, now %.2f" % (stage, precision, engine, b, n))
        print("guard: %d of %d ratios lost more than a tenth" % (len(lost), len(compared)))
        if lost or not compared:
            sys.exit(1)

    def gemm(self):
        """oneDNN (system library) by shape, beside checkkernels --bench at one thread where that is built."""
        shapes = os.path.join(ROOT, "bench/shapes/gemm.txt")
        prog = self.build("gemm_peers.c", "gemm_peers", "-fopenmp", "-ldnnl")
        if not prog:
            say("run.py: gemm_peers.c did not build (libdnnl-dev)")
            return
        counts = sorted({1, self.a.threads})
        p = subprocess.run([prog, "-t", ",".join(map(str, counts)), "-d", "f32,bf16,int8", "-m", "8192", shapes], stdout=subprocess.PIPE, text=True,
                           env=dict(os.environ, OMP_WAIT_POLICY="active"))
        rate, names = {}, {}
        for x in p.stdout.splitlines():
            f = x.split()
            if len(f) == 9 and f[0] != "#":
                names[f[0]] = "x".join(f[1:4])
                rate[f[0], f[4], int(f[5])] = float(f[8])
        mine, check = {}, os.path.join(os.path.dirname(self.a.fastvlm), "checkkernels")
        for c in (check, os.path.join(os.path.dirname(check), "tests", "checkkernels")):
            if os.path.exists(c):
                q = subprocess.run([c, "--bench", "--only", "gemm"], stdout=subprocess.PIPE, text=True)
                for x in q.stdout.splitlines():
                    m = re.match(r"(\S+)\s+(\S+)\s+(\S+).*? ns\b.*?([\d.]+) G", x)
                    t = m and next((t for t in ("bf16", "f32", "int8") if t in re.sub("u8|s8|q8", "int8", m.group(2)).split("_")), None)
                    if t:
                        k = (m.group(3), t)
                        mine[k] = max(mine.get(k, (0, "")), (float(m.group(4)), m.group(1) + " " + m.group(2)))
                break
        out = [("product", "M x N x K", "type") + tuple("oneDNN, %d thr" % c for c in counts) + ("ours, 1 thr", "share", "kernel")]
        for n in names:
            for t in ("f32", "bf16", "int8"):
                if (n, t, 1) in rate:
                    o, k = mine.get((n, t), (0, "-"))
                    out.append((n, names[n], t) + tuple("%.0f" % rate[n, t, c] for c in counts) +
                               (("%.0f" % o, "%.0f %%" % (100 * o / rate[n, t, 1]), k) if o else ("-", "-", "-")))
        print("\nG operations a second on the model's matrix products (best time; %s)" % p.stdout.split(";")[0].lstrip("# "))
        print("\n".join(show(out)))
        markdown(self.at("gemm.md"), ["G operations a second, best time"], out)


def moved(before, after):
    """Whether a peak of quietly.machine() changed by more than a tenth."""
    a, b = (list(map(float, re.findall(r"[a-z]+\d* ([\d.]+)", x.split("(")[0]))) for x in (before, after))
    return any(abs(x / y - 1) > 0.1 for x, y in zip(a, b))


def show(rows):
    width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    right = [i >= 3 and i < len(rows[0]) for i in range(len(rows[0]))]
    return ["  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, width, right)).rstrip() for row in rows]


def markdown(path, head, rows):
    with open(path, "w") as f:
        f.write("\n\n".join(head) + "\n\n")
        for i, r in enumerate(rows):
            f.write("| " + " | ".join(r) + " |\n")
            if i == 0:
                f.write("|" + "---|" * len(r) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", default=os.path.join(ROOT, "build/peers"), help="folder of environments and converted models (build/peers)")
    ap.add_argument("--checkpoint", help="llava_qwen2 directory (default: WORK/fastvlm-0.5b, made if missing)")
    ap.add_argument("--tokenizer", help="a Qwen2 tokenizer.json for the synthetic checkpoint, instead of npm's")
    ap.add_argument("--only", default="install,prepare,run", help="phases, comma separated")
    ap.add_argument("--engines", help="of: %s, gemm (default: %s)" % (", ".join(ALL), ",".join(DEFAULT)))
    ap.add_argument("--full", action="store_true", help="also OpenVINO GenAI, llama.cpp, and int8 encoders of ONNX Runtime and OpenVINO")
    ap.add_argument("--all", action="store_true", help="--full, and ONNX Runtime GenAI, LiteRT-LM, MNN, torch.compile")
    ap.add_argument("--latest", action="store_true", help="newest versions instead of the measured ones")
    ap.add_argument("--fastvlm", default=os.path.join(ROOT, "build/release/fastvlm"), help="our program (build/release/fastvlm)")
    ap.add_argument("--packed", default="", help="packed files of ours to time as well, comma separated; peers are compared with the first of each precision "
                    "(with --full and --all: int8 encoders with decoders in %s, packed in WORK)" % ", ".join(OURS))
    ap.add_argument("--ours", default="f32/f32,bf16/bf16", help="vision/decoder precisions of our runs (f32/f32,bf16/bf16)")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--reps", type=int, default=7)
    ap.add_argument("--tokens", type=int, default=64, help="decoded tokens per repetition, engines that run the decoder alone")
    ap.add_argument("--limit", type=float, default=240, help="seconds a job may wait for quiet repetitions")
    ap.add_argument("--out", help="results go to OUT.json and OUT.md (WORK/results)")
    ap.add_argument("--guard", metavar="FILE", help="results.json of an earlier run on this kind of machine: says which ratios to a peer got worse by more "
                    "than a tenth since, and ends with 1 if any did")
    a = ap.parse_args()
    before = None
    if a.guard:                                              # now: this run may overwrite the file
        try:
            with open(a.guard) as f:
                before = json.load(f)
        except (OSError, ValueError) as e:
            ap.error("--guard %s: %s" % (a.guard, e))
    for x in a.packed.split(",") if a.packed else ():
        if not os.path.isfile(x):
            ap.error("--packed %s: no such file" % x)
    p = Peers(a, before)
    for phase in a.only.split(","):
        if phase not in ("install", "prepare", "run"):
            ap.error("unknown phase '%s'; phases: install, prepare, run" % phase)
    for phase in ("install", "prepare", "run"):
        if phase in a.only.split(","):
            getattr(p, phase)()


if __name__ == "__main__":
    main()
