#!/usr/bin/env python3
"""Kills the program with SIGKILL while it writes, and looks at what the next run makes of it.

    FASTVLM=build/dev/fastvlm python3 tests/kill/matrix.py [--kills N] [--seed S] [--keep] [CASE...]

Half of the kills come at a random time, the other half just before a random call that changes the
file system (tests/kill/kill_at.c), where there is a compiler: the moments between two calls of a
commit are too short for a clock. Now and then the run that follows is killed as well, while it clears
up. Then

  - where files were replaced, a run that writes other files to the same place: the files of the killed
    run are all old or all new, and nothing else has appeared;
  - the same run again: what it leaves is what an undisturbed run leaves, beside the user's own files.

Ends with a line of figures for each case and "N passed, N failed"."""
import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "pull"))
from server import Hub  # noqa: E402

PROGRAM = os.path.abspath(os.environ["FASTVLM"])
BASE = os.path.join(ROOT, "tests/data/variants/base/checkpoint")
TINY = os.path.join(ROOT, "tests/data/tiny/checkpoint")
IMAGE = os.path.join(ROOT, "tests/data/tiny/image.png")
SIGN = os.path.join(ROOT, "examples/images/sign.png")
REPO = "some/model"
REQUESTS = "".join('{"custom_id": "%d", "body": {"messages": [{"role": "user", "content": "Hello"}]}}\n' % (i // 2) for i in range(6))


def tree(top):
    """Path -> hash of every file under top, path -> None of every directory; top itself is "."."""
    out = {}
    for folder, dirs, files in os.walk(top):
        out[os.path.relpath(folder, top)] = None
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                out[os.path.relpath(path, top)] = hashlib.sha256(f.read()).hexdigest()
    return out


class Case:
    """name; command; old: what makes the place's older content; other: a run that writes other files
    to the same place; user: files of the user's in it; given: text of files that the command reads."""

    def __init__(self, name, command, old=(), other=None, user=(), given=None):
        self.name, self.command, self.old, self.other, self.user, self.given = name, command, old, other, user, given or {}

    def prepare(self, top):
        for name, text in self.given.items():
            with open(os.path.join(top, name), "w") as f:
                f.write(text)
        for command in self.old:
            run(command, top, check=True)
        for path in self.user:
            path = os.path.join(top, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write("the user's\n")


def cases():
    checkpoint = ["-q", "--force", "-o", "out"]
    genie = ["export", "genie", BASE, *checkpoint]
    return [
        Case("pack", ["pack", TINY, "-o", "m.gguf", "-q"], user=["n.gguf"]),
        Case("pack over a file", ["pack", TINY, "-o", "m.gguf", "-q", "--decoder", "z8", "--rounding", "search"],
             old=[["pack", BASE, "-o", "m.gguf", "-q"]]),
        Case("export --all", ["export", "--all", BASE, "-o", "a/b/out", "-q"]),
        Case("export --all --force", ["export", "--all", BASE, *checkpoint],
             old=[["export", "--all", BASE, *checkpoint, "--only", "hf,onnx", "--image-size", "64"]],
             other=genie, user=["out/mine", "out/hf/mine"]),
        Case("export onnx --force", ["export", "onnx", BASE, *checkpoint],
             old=[["export", "onnx", BASE, *checkpoint, "--seq-len", "7", "--cache-len", "64"]], other=genie, user=["out/mine"]),
        Case("export hf", ["export", "hf", BASE, "-o", "new/out", "-q"]),
        Case("export hf --force", ["export", "hf", BASE, *checkpoint, "--layout", "llava_qwen2"],
             old=[["export", "hf", BASE, *checkpoint, "--dtype", "f32"]], other=genie, user=["out/mine"]),
        Case("export gguf", ["export", "gguf", BASE, "-o", "d.gguf", "-q"], user=["d.gguf.bak"]),
        Case("run --dump", ["run", BASE, IMAGE, "What?", "-n", "3", "--dump", "d/out", "-q", "--image-size", "64"]),
        Case("run --dump over files", ["run", BASE, IMAGE, "What?", "-n", "3", "--dump", "out", "-q", "--image-size", "64"],
             old=[["run", BASE, IMAGE, "Why?", "-n", "2", "--dump", "out", "-q", "--image-size", "64"]], other=genie,
             user=["out/mine"]),
        Case("handoff", ["handoff", BASE, "-o", "models", "-q"], user=["mine"]),
        Case("handoff over files", ["handoff", BASE, "-q", "-n", "3"], user=["models/mine", "models/fastvlm-genie/mine"],
             old=[["handoff", BASE, "-q", "--image-size", "128"]]),
        Case("batch", ["batch", TINY, *[IMAGE] * 9, "-o", "out.jsonl", "-q", "-n", "5"], user=["mine"]),
        Case("batch over a file", ["batch", TINY, *[IMAGE] * 9, "-o", "out.jsonl", "-q", "-n", "5", "--force"],
             old=[["batch", TINY, IMAGE, "-o", "out.jsonl", "-q", "-n", "3"]], user=["mine"]),
        Case("batch --format txt", ["batch", TINY, IMAGE, SIGN, "-o", "out", "--format", "txt", "-q", "-n", "5", "--force"],
             old=[["batch", TINY, IMAGE, "-o", "out", "--format", "txt", "-q", "-n", "3"]], user=["out/mine"]),
        Case("batch --format tar", ["batch", TINY, IMAGE, SIGN, "rows", "-o", "out.tar", "--format", "tar", "-q", "-n", "5"], given={"rows": "none.png\n"},
             user=["mine"]),
        Case("batch --format openai", ["batch", TINY, "rows", IMAGE, "-o", "out.jsonl", "--format", "openai", "-q", "-n", "5", "--force"],
             old=[["batch", TINY, IMAGE, "-o", "out.jsonl", "-q", "-n", "3"]], given={"rows": REQUESTS}, user=["mine"]),
        Case("pull", ["pull", REPO, "-o", "p/q/model", "-q"], user=["p/mine"]),
        Case("pull over files", ["pull", REPO, "-o", "model", "-q"], user=["model/mine", "model/config.json", "model/merges.txt.part"]),
    ]


shim = None
hub = None


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    if hub:
        env["HF_ENDPOINT"] = hub.url
    for name in ("FV_QNN_DIR", "QNN_SDK_ROOT"):
        env.pop(name, None)
    return {**env, "no_proxy": "*", "XDG_DATA_HOME": "/nonexistent", **more}


def run(command, top, check=False, **env):
    done = subprocess.run([PROGRAM, *command], cwd=top, env=environment(**env), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300)
    if check and done.returncode:
        raise AssertionError("%s: exit code %d: %s" % (" ".join(command), done.returncode, done.stderr))
    return done


def killed(command, top, after=None, call=None):
    """Runs and kills; whether it was still at work."""
    env = environment(LD_PRELOAD=shim, KILL_AT=str(call)) if call else environment()
    p = subprocess.Popen([PROGRAM, *command], cwd=top, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    if call is None:
        time.sleep(after)
        p.kill()
    return p.wait(timeout=300) == -9


def leftovers(found):
    return sorted(p for p in found if any(".part" in name or ".fastvlm" in name for name in p.split(os.sep)))


class Matrix:
    def __init__(self, case, rng, keep):
        self.case, self.rng, self.keep = case, rng, keep
        self.n = self.hit = self.left = self.by_call = self.again = 0
        self.folder = tempfile.mkdtemp()
        top = self.fresh()
        case.prepare(top)
        self.old = tree(top)
        count = os.path.join(top, "count")
        start = time.monotonic()
        run(case.command, top, check=True, **({"LD_PRELOAD": shim, "KILL_COUNT": count} if shim else {}))
        self.seconds = time.monotonic() - start
        self.n_calls = 0
        if shim:
            with open(count) as f:
                self.n_calls = int(f.read())
            os.unlink(count)
        self.want = tree(top)
        assert not leftovers(self.want), leftovers(self.want)
        assert all(path in self.want for path in case.user if not path.endswith(".part")), "the user's files"
        shutil.rmtree(top)

    def fresh(self):
        """The same path every time: some files name the directory that they are in."""
        top = os.path.join(self.folder, "work")
        if os.path.exists(top):
            os.rename(top, os.path.join(self.folder, "kept-%d" % self.n))
        os.mkdir(top)
        return top

    def kill(self, command, top):
        if self.n_calls and self.rng.random() < 0.5:
            self.by_call += 1
            # a commit stands at the end
            late = self.rng.random() < 0.5
            first = self.n_calls // 2 if late else 1
            return killed(command, top, call=self.rng.randint(first, self.n_calls))
        return killed(command, top, after=self.rng.uniform(0, 1.1 * self.seconds))

    def round(self):
        case, top = self.case, self.fresh()
        case.prepare(top)
        self.n += 1
        try:
            self.hit += self.kill(case.command, top)
            for _ in range(self.rng.choice((0, 0, 1, 2))):
                self.again += 1
                self.hit += self.kill(case.command, top)
            self.left += len(leftovers(tree(top))) > 0
            if case.other:
                self.check_other(top)
            done = run(case.command, top)
            found = tree(top)
            if case.other:
                self.forget_other(found)
            complete = "is not empty" in done.stderr  # it was killed between its last two calls
            assert done.returncode == 0 or complete, "exit code %d: %s" % (done.returncode, done.stderr)
            self.same(found, self.want, "after another run: " + done.stderr)
        except AssertionError as error:
            print("FAILED: %s, round %d: %s%s" % (case.name, self.n, error, " (%s)" % self.folder if self.keep else ""))
            if not self.keep:
                shutil.rmtree(top)
            return False
        shutil.rmtree(top)
        return True

    def same(self, found, want, when):
        more, fewer = sorted(set(found) - set(want)), sorted(set(want) - set(found))
        other = sorted(p for p in set(found) & set(want) if found[p] != want[p])
        assert not (more or fewer or other), "%s: too many %s, missing %s, different %s" % (when, more, fewer, other)

    def check_other(self, top):
        done = run(self.case.other, top)
        assert done.returncode == 0, done.stderr
        found = tree(top)
        assert not leftovers(found), "left over: %s" % leftovers(found)
        self.others = set(tree(top)) - set(self.old) - set(self.want)
        self.forget_other(found)
        if found != self.old:
            self.same(found, {**self.old, **self.want}, "neither old nor new: " + done.stderr)

    def forget_other(self, found):
        for path in self.others:
            found.pop(path, None)


def build_shim(folder):
    """The preloaded library; None where it cannot be made or the program has its own (sanitizers)."""
    path = os.path.join(folder, "kill_at.so")
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if not sys.platform.startswith("linux") or not compiler:
        return None
    with open(PROGRAM, "rb") as f, open(os.path.realpath(sys.executable), "rb") as own:
        text, head = f.read(), own.read(20)
        if b"__asan_init" in text or text[:5] + text[18:20] != head[:5] + head[18:20]:  # of another machine: emulated
            return None
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, os.path.join(HERE, "kill_at.c"), "-ldl"], check=True)
    return path


def main():
    global shim, hub
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="rounds of each case (200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the directories of failed rounds")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many, when every case had 3 rounds")
    parser.add_argument("case", nargs="*", help="names, or parts of them")
    o = parser.parse_args()
    folder, passed, failed, start = tempfile.mkdtemp(), 0, 0, time.monotonic()
    shim = build_shim(folder)
    files = {}
    for name in os.listdir(BASE):
        with open(os.path.join(BASE, name), "rb") as f:
            files[name] = f.read()
    pulls = Hub(REPO, files, {"model.safetensors"})
    pulls.slow = 0.02
    chosen = [c for c in cases() if not o.case or any(word in c.name for word in o.case)]
    for i, case in enumerate(chosen):
        hub = pulls if case.name.startswith("pull") else None
        m = Matrix(case, random.Random(o.seed), o.keep)
        budget = o.seconds * (i + 1) / len(chosen)
        for k in range(o.kills):
            if o.seconds and k >= 3 and time.monotonic() - start > budget:
                break
            if m.round():
                passed += 1
            else:
                failed += 1
        if not o.keep:
            shutil.rmtree(m.folder)
        print("%-22s %4d rounds, %4d kills hit (%d in the next run, %d at a call of %d), %4d left something"
              % (case.name, m.n, m.hit, m.again, m.by_call, m.n_calls, m.left), flush=True)
    shutil.rmtree(folder)
    if not shim:
        print("kills by time only: no compiler, or a sanitizer")
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
