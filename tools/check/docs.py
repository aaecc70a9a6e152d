#!/usr/bin/env python3
"""Commands and figures of README and docs, run again and compared with what the documents show.

    tools/check/docs.py [--fast] [--program FILE] [--only TEXT]        make check-docs

Commands: every indented line that calls fastvlm is run offline, in the order of its document, in a
scratch directory where FastVLM-0.5B and MODEL are small test checkpoints, photo.jpg and photos/ are
images and the hub is a local server. Lines below "$ COMMAND" are what it must print. A line with
[OPTION] is a synopsis: each option must be in the command's --help, and so must those of commands and
options in the text between back-ticks. make targets, CMake presets and scripts must exist.

Figures: CLAIMS, below, finds a figure in its document by a pattern and computes it again. A pattern that
is not found is an error, too: then the sentence has changed, and the claim has to follow. --fast leaves
out what takes more than a few seconds.

An HTML comment before a block of commands, which readers do not see, says how it differs:

    <!-- check-docs: skip, REASON -->            not run; its options exist
    <!-- check-docs: fails, REASON -->           exit code other than 0 expected"""
import argparse
import functools
import glob
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
os.chdir(ROOT)
sys.path.insert(0, os.path.join(ROOT, "tests", "pull"))
sys.dont_write_bytecode = True
from server import Hub  # noqa: E402

DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(glob.glob("docs/*.md")), "models/demo/README.md",
             *sorted(glob.glob("tools/*/README.md")), *sorted(glob.glob("bench/**/README.md", recursive=True))]
TINY = "tests/data/tiny/checkpoint"
# Options of other programs that the text names.
FOREIGN = {"--preserve_io", "--config_file", "--preset", "--test-dir", "--output-on-failure", "--text_model_id",
           "--quantize_full_type", "--target_runtime", "--interrupt_requests"}
program = None
failed, passed = [], 0


def ok(good, where, what):
    global passed
    if good:
        passed += 1
    else:
        failed.append(where)
        print("FAILED: %s: %s" % (where, what), flush=True)
    return good


def run(command, cwd=ROOT, typed="", **env):
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, input=typed, capture_output=True, text=True, timeout=600)


@functools.lru_cache(maxsize=None)
def help_of(*verb):
    done = run([program, *verb, "--help"])
    return done.stdout if done.returncode == 0 else ""


@functools.lru_cache(maxsize=None)
def groups():
    """Verbs that have verbs of their own."""
    verbs = re.findall(r"^  ([a-z]+) ", help_of(), flags=re.M)
    return [verb for verb in verbs if re.search(r"^(artefacts|commands):$", help_of(verb), flags=re.M)]


@functools.lru_cache(maxsize=None)
def all_options():
    """Every option of the program, and every one in a script of the repository."""
    out = set()
    verbs = re.findall(r"^  ([a-z]+) ", help_of(), flags=re.M)
    for verb in verbs:
        out |= set(re.findall(r"--[a-z][a-z0-9-]*", help_of(verb)))
    for verb in groups():
        for part in re.findall(r"^  ([a-z-]+) ", help_of(verb), flags=re.M):
            out |= set(re.findall(r"--[a-z][a-z0-9-]*", help_of(verb, part)))
    scripts = subprocess.run(["git", "ls-files", "tools", "bench", "tests", ".ci", "CMakePresets.json"], capture_output=True,
                             text=True, check=True).stdout.split()
    for path in scripts:
        if path.endswith((".py", ".sh", ".mjs", ".c")) or path == ".ci/run":
            with open(path, encoding="utf-8") as f:
                out |= set(re.findall(r"--[a-z][a-z0-9-]*", f.read()))
    return out | {"--help", "--version", "--all"}


# ---- commands ----

def blocks(text):
    """(line number, lines, note) of every indented block; the note is that of a comment before it."""
    lines, at, note = text.split("\n"), 0, ""
    while at < len(lines):
        found = re.match(r"<!-- check-docs: (.*) -->$", lines[at])
        if found:
            note = found[1]
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip() or lines[at - 1].startswith("<!--")):
            first = at
            while at < len(lines) and (lines[at].startswith("    ") or (not lines[at].strip() and at + 1 < len(lines) and
                                                                        lines[at + 1].startswith("    "))):
                at += 1
            yield first + 1, [line[4:] for line in lines[first:at]], note
            note = ""
            continue
        elif lines[at].strip():
            note = ""
        at += 1


def scratch():
    """A directory in which the documents' commands can run."""
    top = tempfile.mkdtemp(prefix="fastvlm-docs-")
    shutil.copytree(TINY, os.path.join(top, "FastVLM-0.5B"))
    for name in ("MODEL", "CHECKPOINT"):
        os.symlink("FastVLM-0.5B", os.path.join(top, name))
    os.makedirs(os.path.join(top, "photos"))
    for i, path in enumerate(sorted(glob.glob("tests/data/demo/images/*.jpg"))[:3]):
        shutil.copy(path, os.path.join(top, "photos", "%d.jpg" % i))
    for name in ("photo.jpg", "image.png"):
        shutil.copy("tests/data/tiny/image.png", os.path.join(top, name))
    os.mkdir(os.path.join(top, "models"))  # commands write there
    for name in ("examples", "models/demo", "tests"):
        os.symlink(os.path.join(ROOT, name), os.path.join(top, name))
    return top


def command_of(line):
    """The command of a line without the remark that may stand behind it."""
    return re.split(r"\s{2,}|\s+#\s", line.strip())[0]


def check_synopsis(where, command):
    words = re.sub(r"^\S*fastvlm ", "", command).split()
    parted = words[0] in groups() and not words[1].startswith("-")
    verb = words[:2] if parted else ["export", "all"] if words[0] == "export" else words[:1]
    text = help_of(*verb)
    for option in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", command):
        ok(option == "--all" or re.search(re.escape(option) + r"(?![\w-])", text), where,
           "%s is not in `fastvlm %s --help`" % (option, " ".join(verb)))
    for option, choices in re.findall(r"--([a-z-]+) ([a-z0-9_.]+(?:[|,][a-z0-9_.]+)+)", command):
        for choice in re.split(r"[|,]", choices):
            ok(choice in text, where, "--%s: %s is not in the help" % (option, choice))


def run_line(where, command, top, env, expected, note):
    if re.search(r"\[[A-Z-]", command):  # a synopsis
        return check_synopsis(where, command)
    check_synopsis(where, command)
    command = re.sub(r"\b([a-z0-9_]+)(\|[a-z0-9_]+)+", r"\1", command)
    words = shlex.split(command)
    words[0] = program
    asked = [line[2:] for line in expected if line.startswith("> ")]  # what is typed into chat
    expected = [line for line in expected if not line.startswith("> ")]
    done = run(words, cwd=top, typed="".join(line + "\n" for line in asked), **env)
    if note.startswith("fails"):
        return ok(done.returncode != 0, where, "%s: exit code 0" % command)
    if ok(done.returncode == 0, where, "%s: exit code %d: %s" % (command, done.returncode, done.stderr.strip())) and expected:
        got = (done.stdout + done.stderr).rstrip("\n").split("\n")
        ok(got == expected, where, "%s: printed %s, the document shows %s" % (command, got, expected))


def check_tool(where, command):
    """What is not run: it exists."""
    words = command.split()
    if words[0] == "make" and len(words) > 1 and re.match(r"[a-z-]+$", words[1]):
        ok(run(["make", "-n", words[1]]).returncode == 0, where, "no such target: %s" % command)
    for preset in re.findall(r"--preset ([a-z0-9-]+)", command):
        with open("CMakePresets.json", encoding="utf-8") as f:
            ok(any(p["name"] == preset for p in json.load(f)["configurePresets"]), where, "no preset %s" % preset)
    for script in re.findall(r"(?<!/)\b((?:tools|bench|tests)/[\w/.-]+\.(?:py|sh))", command):
        ok(os.path.exists(script), where, "%s does not exist" % script)
    test = re.search(r"-R (unit|api|golden|cli)\.(\w+)", command)
    if test:
        ok(glob.glob("tests/%s/%s.*" % test.groups()), where, "no test %s.%s" % test.groups())


def check_blocks(document, text, hub):
    top, n = None, 0
    for at, lines, note in blocks(text):
        at_line = 0
        while at_line < len(lines):
            where = "%s:%d" % (document, at + at_line)
            shown = lines[at_line].startswith("$ ")
            line = lines[at_line][2:] if shown else lines[at_line]
            at_line += 1
            while at_line < len(lines) and re.match(r"\s+[\[\\-]", lines[at_line]) and "fastvlm" in line:  # continued
                line += " " + lines[at_line].strip()
                at_line += 1
            expected = []
            while shown and at_line < len(lines) and not lines[at_line].startswith("$ "):
                expected.append(lines[at_line])
                at_line += 1
            command = command_of(line)
            if re.match(r"(build/\w+/)?fastvlm [a-z]", command):
                n += 1
                if " VERB" in command or command.endswith(" COMMAND"):
                    continue
                if note.startswith("skip"):
                    check_synopsis(where, command)
                    continue
                if re.search(r"[A-Z]{3}[A-Z.]*\.\.\.|\b(IMAGE|IMAGES|ARTEFACT|REF|OUT)\b", command):
                    check_synopsis(where, re.sub(r"\b(ARTEFACT)\b", "hf", command) + " [OPTION]")
                    continue
                top = top or scratch()
                run_line(where, command, top, {"HF_ENDPOINT": hub.url, "no_proxy": "*"}, expected, note)
            elif re.match(r"(make|cmake|ctest|\.?v?e?n?v?/?b?i?n?/?python3?|bash|tools/|bench/)\b", command):
                n += 1
                check_tool(where, command)
    if top:
        shutil.rmtree(top)
    return n


def check_spans(document, text):
    """Commands and options between back-ticks."""
    text = re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", text.replace("\n", " ")):
        where = "%s: `%s`" % (document, span)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", span):
            ok(option in all_options() or option in FOREIGN or "qnn" in span or "cmake" in span, where,
               "%s is an option of nothing here" % option)
        found = re.match(r"(?:fastvlm )?(run|chat|info|bench|pack|verify|eval|export|npu|qairt|genie|hub|handoff|pull|doctor) (.*-.*)$", span)
        if found and not re.search(r"[|\[]", span):
            verb = [found[1]]
            if found[1] in groups() and re.match(r"[a-z]", found[2]):
                verb.append(found[2].split()[0])
            elif found[1] == "export":
                verb.append("all")
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", found[2]):
                ok(option == "--all" or re.search(re.escape(option) + r"(?![\w-])", help_of(*verb)), where,
                   "%s is not in `fastvlm %s --help`" % (option, " ".join(verb)))


# ---- figures ----

@functools.lru_cache(maxsize=None)
def made(name):
    """A directory that commands fill once, for several claims."""
    top = tempfile.mkdtemp(prefix="fastvlm-docs-")
    out = os.path.join(top, "out")
    commands = {
        "all": [["export", "--all", "models/demo", "-o", out, "-q"]],
        "qdq": [["export", "onnx", "models/demo/demo.gguf", "-o", out, "--qdq", "--only", "vision", "-q"],
                ["export", "onnx", "models/demo", "-o", out + "/f32", "--only", "vision", "-q"]],
        "packed": [["pack", "models/demo", "models/demo/calibration", "-o", top + "/demo.gguf", "--vision", "int8", "--decoder", "z8",
                    "-q"]],
    }[name]
    for command in commands:
        done = run([program, *command])
        if done.returncode:
            raise RuntimeError("%s: %s" % (" ".join(command), done.stderr))
    return top


def size_of(*parts):
    return os.path.getsize(os.path.join(*parts))


def files_of_all():
    paths = [os.path.join(d, f) for d, _, files in os.walk(os.path.join(made("all"), "out")) for f in files]
    return [sum(map(os.path.getsize, paths)) / 1e6, len([p for p in paths if not p.endswith("manifest.json")])]


def info(*model):
    return json.loads(run([program, "info", *model, "--json"]).stdout)


def trained_parameters():
    """Without the running statistics of BatchNorm."""
    with open("models/demo/model.safetensors", "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    running = sum(math.prod(v["shape"]) for k, v in header.items() if ".running_" in k)
    return [info("-m", "models/demo")["parameters"] - running]


def packed_again():
    """Layer groups in w8a16, cosine; the last digits depend on the instruction set."""
    done = run([program, "info", os.path.join(made("packed"), "demo.gguf")]).stdout
    groups = re.search(r"in w8a16 +(\d+)", done)         # not said where there are none
    return [float(groups[1]) if groups else 0.0, float(re.search(r"feature cosine +([\d.]+)", done)[1])]


ONNX_PYTHON = "build/interop/onnx/bin/python"  # of make test-interop


@functools.lru_cache(maxsize=None)
def onnx_graphs(model, image):
    """What ONNX Runtime made of a model's graphs: relative L2 in f32 and f16 of the vision encoder and of the
    prompt's logits, cosines of the int8 encoder."""
    said = run([ONNX_PYTHON, "-B", "tests/interop/onnx_graphs.py", program, model, image, "What do you see?"]).stdout
    found = [re.search(part + r" relative L2 ([\d.e-]+)", said) for part in
             ("plain: vision encoder", " f16: vision encoder", "plain: prompt logits", " f16: prompt logits")]
    found += re.search(r"as ours in int8 cosine ([\d.]+); to f32 [\d.]+, ours ([\d.]+)", said).groups()
    return [float(x if isinstance(x, str) else x[1]) for x in found]


def onnx_figures(first, last):
    models = (TINY, "tests/data/tiny/image.png"), ("models/demo", "tests/data/demo/images/00000.jpg")
    return [x for model in models for x in onnx_graphs(*model)[first:last]]


def task(*options):
    """Right answers of the sample, in percent."""
    return json.loads(run([program, "eval", "--task", "tests/data/demo", "--json", *options]).stdout)["results"][0]["percent"]


def drawn(text):
    """The table of answers to drawn images: (image, question, answer, verdict)."""
    out, image = [], None
    for row in re.findall(r"^\| (.*) \| (.*) \| (.*) \| (.*) \|$", text, flags=re.M):
        found = re.search(r'src="\.\./([^"]+)"', row[0])
        image = found[1] if found else image
        if image and (found or not row[0].strip()):
            out.append((image, *row[1:]))
    return out


def check_drawn(document, text):
    rows = drawn(text)
    for image, question, answer, _ in rows:
        done = run([program, "run", "-q", image, question])
        ok(done.stdout.strip() == answer, document, "%s \"%s\": answered \"%s\", the table says \"%s\"" %
           (image, question, done.stdout.strip(), answer))
    right = sum(row[3].startswith("right") for row in rows)
    ok("%d of %d right." % (right, len(rows)) in text, document, "the table has %d of %d right" % (right, len(rows)))


def check_format(document, text):
    """Every key and every kind of tensor of a packed file is on the page."""
    sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))
    import importlib.util
    spec = importlib.util.spec_from_file_location("read_packed", os.path.join(ROOT, "tests/cli/read_packed.py"))
    source = open(spec.origin, encoding="utf-8").read().rsplit("\nmain(", 1)[0]
    reader = {}
    exec(compile(source, spec.origin, "exec"), reader)
    with open("models/demo/demo.gguf", "rb") as f:
        keys, _, _ = reader["Reader"](f.read()).file()
    for key in keys:
        short = key.replace("fastvlm.", ".", 1) if key.startswith("fastvlm.") else key
        parts = [key, short, "." + key.rsplit(".", 1)[1], "." + key.split(".", 2)[-1]]
        ok(any("`%s`" % p in text for p in parts), document, "the key %s of demo.gguf is not on the page" % key)


class Claim:
    """pattern: with a group for each figure; compute: their values; by: allowed difference, as a share, where
    it depends on the processor; needs: a file without which it is left out."""

    def __init__(self, document, pattern, compute, by=0.0, slow=False, needs=None):
        self.document, self.pattern, self.compute, self.by, self.slow, self.needs = document, pattern, compute, by, slow, needs

    def check(self):
        with open(self.document, encoding="utf-8") as f:
            text = " ".join(f.read().split())
        found = re.search(self.pattern, text)
        if not ok(found, self.document, "nothing matches %s" % self.pattern):
            return
        for shown, now in zip(found.groups(), self.compute()):
            said = float(shown.replace(",", ""))
            step = 0 if "e" in shown else 0.5000001 * 10**-len(shown.partition(".")[2])
            ok(abs(said - now) <= max(self.by * abs(now), step), self.document,
               "\"%s\": the document says %s, now it is %.6g" % (found[0], shown, now))


CLAIMS = [
    Claim("models/demo/README.md", r"parameters \| ([\d,]+),", trained_parameters),
    Claim("models/demo/README.md", r"`model.safetensors`, bf16: ([\d.]+) MB", lambda: [size_of("models/demo/model.safetensors") / 1e6]),
    Claim("models/demo/README.md", r"`demo.gguf`, is ([\d.]+) MB", lambda: [size_of("models/demo/demo.gguf") / 1e6]),
    Claim("docs/evaluation.md", r"models/demo/calibration; (\d+) of the 30 layer groups need w8a16", lambda: packed_again()[:1], slow=True),
    Claim("docs/onnx.md", r"inside the program the file is ([\d.]+) MB, the f32 graph ([\d.]+) MB",
          lambda: [size_of(made("qdq"), "out/vision_encoder_qdq.onnx") / 1e6, size_of(made("qdq"), "out/f32/vision_encoder_fp32.onnx") / 1e6]),
    Claim("docs/onnx.md", r"\| vision encoder, f32 / f16 \([^)]*\) \| ([\d.e-]+) / ([\d.e-]+) \| ([\d.e-]+) / ([\d.e-]+) \|",
          lambda: onnx_figures(0, 2), by=0.5, slow=True, needs=ONNX_PYTHON),
    Claim("docs/onnx.md", r"\| prompt logits, f32 / f16 \| ([\d.e-]+) / ([\d.e-]+) \| ([\d.e-]+) / ([\d.e-]+) \|",
          lambda: onnx_figures(2, 4), by=0.5, slow=True, needs=ONNX_PYTHON),
    Claim("docs/onnx.md", r"ours against f32\) \| ([\d.]+) \(([\d.]+)\) \| ([\d.]+) \(([\d.]+)\) \|",
          lambda: onnx_figures(4, 6), by=0.001, slow=True, needs=ONNX_PYTHON),
    Claim("docs/export.md", r"the demonstration model: [\d.]+ s, (\d+) MB", lambda: files_of_all()[:1]),
    Claim("docs/export.md", r"inputs and outputs it states of 9 graphs \| (\d+) files", lambda: files_of_all()[1:]),
    Claim("docs/demo-model.md", r"up to 256 pixels\): f32 ([\d.]+) %, bf16 ([\d.]+) %, packed ([\d.]+) %",
          lambda: [task("models/demo", "--vision", "f32", "--decoder", "f32"), task("models/demo"), task()], slow=True),
]


def main():
    global program
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--program", default=os.environ.get("FASTVLM", "build/release/fastvlm"))
    parser.add_argument("--only", default="", help="documents whose name holds this")
    o = parser.parse_args()
    program = os.path.abspath(o.program)
    files = {}
    for name in os.listdir(TINY):
        with open(os.path.join(TINY, name), "rb") as f:
            files[name] = f.read()
    hub = Hub("apple/FastVLM-0.5B", files, {"model.safetensors"})
    n_commands = n_claims = 0
    for document in DOCUMENTS:
        if o.only not in document:
            continue
        with open(document, encoding="utf-8") as f:
            text = f.read()
        n_commands += check_blocks(document, text, hub)
        check_spans(document, text)
        if document == "docs/demo-model.md":
            check_drawn(document, text)
        if document == "docs/format.md":
            check_format(document, text)
        for claim in CLAIMS:
            if claim.document == document and not (o.fast and claim.slow):
                if claim.needs and not os.path.exists(claim.needs):
                    print("left out, without %s: %s" % (claim.needs, claim.pattern))
                    continue
                n_claims += 1
                claim.check()
    for top in glob.glob(os.path.join(tempfile.gettempdir(), "fastvlm-docs-*")):
        shutil.rmtree(top, ignore_errors=True)
    print("%d commands, %d claims" % (n_commands, n_claims))
    print("%d passed, %d failed" % (passed, len(failed)))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
