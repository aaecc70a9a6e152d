"""What the tests of `fastvlm hub` share: a directory like the reference pipeline's, the program run in
it, its ledgers read. FASTVLM names the program."""
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
STANDINS = os.path.join(os.path.dirname(HERE), "standins")
PROGRAM = os.path.abspath(os.environ["FASTVLM"])
NAMES = ["fastvlm_vision_encoder_fp32", "fastvlm_embed_tokens_fp32", "fastvlm_decoder_fixed_kv_fp32"]
FP16 = "--target_runtime qnn_context_binary --quantize_full_type float16 --truncate_64bit_io"
rng = random.Random(5)
ONNX = {name: rng.randbytes(1_200_000 + 1000 * i) for i, name in enumerate(NAMES)}


class Place:
    """A pipeline's directory; `token` must never be printed."""

    def __init__(self, token):
        self.temporary = tempfile.TemporaryDirectory(prefix="fastvlm-hub-")
        self.dir, self.token = self.temporary.name, token
        self.printed = ""
        os.makedirs(self.path("models/fastvlm-onnx-fp32"))
        for name, data in ONNX.items():
            self.write("models/fastvlm-onnx-fp32/%s.onnx" % name[len("fastvlm_"):], data)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as out:
            out.write(data if isinstance(data, bytes) else data.encode())

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if k not in ("QAIHUB_CLIENT_INI", "FV_QNN_DIR", "QNN_SDK_ROOT")}
        env.update(HOME=self.dir, XDG_DATA_HOME=self.dir, no_proxy="*")
        env.update(self.client_environment())
        env.update({k: v for k, v in more.items() if v is not None})
        return env

    def command(self, *words):
        return [PROGRAM, "hub", *words]

    def took(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.printed += out + err
        return self

    def run(self, *words, **env):
        done = subprocess.run(self.command(*words), cwd=self.dir, env=self.environment(**env), capture_output=True,
                              text=True, timeout=300, stdin=subprocess.DEVNULL)
        return self.took(done.returncode, done.stdout, done.stderr)

    def start(self, *words, **env):
        return subprocess.Popen(self.command(*words), cwd=self.dir, env=self.environment(**env), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def succeeds(self):
        assert self.code == 0, "exit code %d: %s" % (self.code, self.err)
        return self

    def fails(self, *texts, code=1):
        assert self.code == code, "exit code %d: %s" % (self.code, self.err)
        self.says(*texts)
        return self

    def says(self, *texts):
        for text in texts:
            assert text in self.out + self.err, "no \"%s\" in: %s%s" % (text, self.out, self.err)

    # ---- the ledgers

    def model_lines(self):
        path = self.path("handoff/qaihub-model-ids.txt")
        return open(path).read().splitlines() if os.path.exists(path) else []

    def ids(self):
        """As the reference pipeline reads them: every line that is no comment."""
        found = []
        for line in self.model_lines():
            if line.strip() and not line.startswith("#"):
                name, model_id = line.split(":", 1)
                assert re.fullmatch("m[a-z0-9]+", model_id), line
                found.append((name, model_id))
        return found

    def job_lines(self):
        path = self.path("handoff/qaihub-fp16-jobs.txt")
        return open(path).read().splitlines() if os.path.exists(path) else []

    def job(self, name):
        """(job id, status) of the last line of a name."""
        lines = [line for line in self.job_lines() if line.startswith(name + ": ")]
        match = lines and re.fullmatch(r"\S+: model_id=(m\w+) job_id=(j\w+) status=(.*) url=(\S*)", lines[-1])
        assert match, self.job_lines()
        return match[2], match[3]

    def binaries(self):
        top = self.path("models/fastvlm-qaihub-fp16-context")
        return sorted(os.path.relpath(os.path.join(d, f), top) for d, _, files in os.walk(top) for f in files)

    def end(self):
        assert self.token not in self.printed, "the token was printed"
        assert "secret-signature" not in self.printed, "a signed address was printed"
        for _, dirs, files in os.walk(self.dir):
            for f in dirs + files:
                assert ".part-" not in f, f
        self.temporary.cleanup()


def wait_for(what, seconds=60):
    until = time.time() + seconds
    while not what():
        assert time.time() < until, "it does not come"
        time.sleep(0.05)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def interrupt(process, number=signal.SIGINT):
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def run_cases(cases, chosen):
    passed, failed = 0, []
    for case in cases:
        if chosen and case.__name__ not in chosen:
            continue
        try:
            start = time.time()
            case()
            passed += 1
            if os.environ.get("VERBOSE"):
                print("  ok      %s (%.1f s)" % (case.__name__, time.time() - start), flush=True)
        except Exception:
            failed.append(case.__name__)
            print("  FAILED  %s" % case.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed" % (passed, len(failed)), flush=True)
    return 1 if failed or not passed else 0
