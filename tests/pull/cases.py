"""`fastvlm pull` against the server beside this file. FASTVLM names the program."""
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import COMMIT, Hub  # noqa: E402

PROGRAM = os.path.abspath(os.environ["FASTVLM"])
TOKEN = "hf_SecretTokenThatNobodyMaySee"
REPO = "apple/FastVLM-0.5B"
rng = random.Random(4)
FILES = {
    "config.json": b'{"model_type": "llava_qwen2"}\n',
    "generation_config.json": b"{}",
    "tokenizer_config.json": b"{}" * 3000,
    "vocab.json": rng.randbytes(70000),
    "merges.txt": b"a b\n" * 500,
    "LICENSE": b"Apple Machine Learning Research Model\n",
    "README.md": b"",
    "model.safetensors": rng.randbytes(3 << 20),
}
UNWANTED = {"llava_qwen.py": b"import os", "acc.png": b"png", "onnx/model.onnx": b"onnx", "training_args.bin": b"x"}
passed, failed = 0, []


class Case:
    def __init__(self, **settings):
        self.hub = Hub(REPO, {**FILES, **UNWANTED}, {"model.safetensors"})
        self.dir = tempfile.mkdtemp()
        for name, value in settings.items():
            setattr(self.hub, name, value)

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
        env.update({"HF_ENDPOINT": self.hub.url, "no_proxy": "*"}, **more)
        return env

    def pull(self, *args, repo=REPO, limit=None, **env):
        command = [PROGRAM, "pull", repo, *args]
        if limit is not None:
            command = ["bash", "-c", "ulimit -f %d; exec \"$@\"" % limit, "pull", *command]
        done = subprocess.run(command, cwd=self.dir, env=self.environment(**env), capture_output=True, text=True, timeout=120)
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        return self

    def path(self, name=""):
        return os.path.join(self.dir, "FastVLM-0.5B", name)

    def names(self):
        return sorted(os.listdir(self.path())) if os.path.isdir(self.path()) else []

    def whole(self, files=FILES):
        assert self.names() == sorted(files), self.names()
        for name, data in files.items():
            assert open(self.path(name), "rb").read() == data, name

    def succeeds(self):
        assert self.code == 0, self.err
        self.whole()

    def fails(self, *texts, code=1):
        assert self.code == code, "exit code %d" % self.code
        last = self.err.strip().split("\n")[-1]
        for text in texts:
            assert text in last, "no \"%s\" in: %s" % (text, last)

    def count(self, part):
        return sum(part in path for _, path, _ in self.hub.log)

    def end(self):
        self.hub.stop()
        shutil.rmtree(self.dir)
        assert not self.hub.violations, self.hub.violations
        for text in (getattr(self, "out", ""), getattr(self, "err", "")):
            assert TOKEN not in text and "Signature" not in text, "a secret is shown: " + text


def plain():
    c = Case().pull()
    c.succeeds()
    assert "apple-amlr, see LICENSE" in c.err and "into the directory FastVLM-0.5B" in c.err
    assert "fastvlm run FastVLM-0.5B photo.jpg" in c.out
    return c


def again_checks_and_fetches_nothing():
    c = Case().pull().pull()
    c.succeeds()
    assert "nothing to fetch" in c.out and c.count("model.safetensors") == 2  # hub and CDN, once
    return c


def damaged_file_is_replaced():
    c = Case().pull()
    data = bytearray(FILES["model.safetensors"])
    data[1234567] ^= 1
    open(c.path("model.safetensors"), "wb").write(data)
    open(c.path("config.json"), "ab").write(b" ")
    c.pull().succeeds()
    assert "model.safetensors differs from the hub's" in c.err and "config.json differs from the hub's" in c.err
    return c


def output_folder_and_json():
    c = Case()
    c.pull("-o", "a/b c", "--json", "-q")
    assert c.code == 0 and c.err == "", c.err
    answer = json.loads(c.out)
    assert answer["commit"] == COMMIT and answer["complete"] and answer["dir"] == "a/b c"
    assert {f["name"] for f in answer["files"]} == set(FILES)
    assert sorted(os.listdir(os.path.join(c.dir, "a", "b c"))) == sorted(FILES)
    return c


def output_is_full():
    for args in ((), ("--json",), ("--list",)):
        c = Case()
        with open("/dev/full", "w") as full:
            done = subprocess.run([PROGRAM, "pull", REPO, "-q", *args], cwd=c.dir, env=c.environment(), stdout=full, stderr=subprocess.PIPE, text=True,
                                  timeout=120)
        assert done.returncode == 1 and done.stderr == "fastvlm: cannot write to standard output: it is closed or full\n", done.stderr
        c.end()
    return Case().pull()


def closed_descriptors():
    """Messages never go down a connection that took a closed descriptor's number."""
    for closed in ("2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        c = Case(file_faults=[(500, []), (503, [])])
        subprocess.run(["bash", "-c", 'exec "$@" ' + closed, "x", PROGRAM, "pull", REPO], cwd=c.dir, env=c.environment(), stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=120)
        c.whole()
        c.end()
    return Case().pull()


def list_fetches_nothing():
    c = Case().pull("--list")
    assert c.code == 0 and hashlib.sha256(FILES["model.safetensors"]).hexdigest() in c.out
    assert os.listdir(c.dir) == [] and c.count("resolve") == 0
    return c


def page_address_as_repo():
    c = Case()
    c.pull(repo=c.hub.url + "/" + REPO).succeeds()
    return c


def revision():
    c = Case().pull("--revision", "refs/pr/1")
    c.succeeds()
    assert c.count("/revision/refs%2Fpr%2F1?") == 1
    c.pull("--revision", "nope").fails('no revision "nope"', "404")
    return c


def shards_and_index():
    c = Case()
    files = {k: v for k, v in FILES.items() if k != "model.safetensors"}
    files.update({"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": rng.randbytes(300000),
                  "model-00002-of-00002.safetensors": rng.randbytes(400000)})
    c.hub.files, c.hub.served = dict(files), dict(files)
    c.hub.lfs = {n for n in files if n.endswith(".safetensors")}
    c.pull()
    assert c.code == 0, c.err
    c.whole(files)
    return c


def token_goes_to_the_hub_only():
    c = Case(token=TOKEN, gated="manual")
    c.pull(HF_TOKEN=TOKEN).succeeds()
    assert any(cdn for cdn, _, _ in c.hub.log)
    return c


def no_token():
    c = Case(token=TOKEN, gated="manual").pull()
    c.fails("accept its licence", "HF_TOKEN")
    return c


def private():
    c = Case(token=TOKEN).pull()
    c.fails("401", "HF_TOKEN")
    return c


def forbidden():
    c = Case(token=TOKEN, api_faults=[(403, [("X-Error-Code", "GatedRepo")])])
    c.pull(HF_TOKEN=TOKEN).fails("403", "licence")
    return c


def token_over_plain_http():
    c = Case()
    c.pull(HF_TOKEN=TOKEN, HF_ENDPOINT="http://hub.invalid").fails("unencrypted", code=2)
    return c


def token_with_a_newline():
    c = Case()
    c.pull(HF_TOKEN=TOKEN + "\r\nX: y").fails("access token", code=2)
    return c


def unknown_repo():
    c = Case().pull(repo="apple/none")
    c.fails("no such repository", "404")
    for bad in ("../x", "a/b/c", "a b/c", "/etc", "a/.."):
        c.pull(repo=bad).fails("not the name of a repository", code=2)
    return c


def cut_connections():
    c = Case(cuts=[0, 1, 100, 65537, 500000, 700001, 3])
    c.pull().succeeds()
    assert not c.hub.cuts and any(r for _, _, r in c.hub.log)
    return c


def busy_and_failing():
    c = Case(api_faults=[(503, []), (429, [("Retry-After", "1")])],
             file_faults=[(500, []), (429, [("Retry-After", "1")]), (502, [])])
    start = time.monotonic()
    c.pull().succeeds()
    assert time.monotonic() - start > 2 and "429 (too many requests); retrying" in c.err
    return c


def gives_up():
    c = Case(file_faults=[(500, [])] * 40)
    c.pull("--retries", "1").fails("500", "gave up after 2 attempts", "resumes from here")
    assert not [n for n in c.names() if not n.endswith(".part") and open(c.path(n), "rb").read() != FILES[n]]
    c.hub.file_faults = []
    c.pull().succeeds()
    return c


def interrupted_and_resumed():
    c = Case(slow=0.02)
    run = subprocess.Popen([PROGRAM, "pull", REPO], cwd=c.dir, env=c.environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not os.path.exists(c.path("model.safetensors.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    c.pull("-q").fails("another download into this directory")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=10)
    assert run.returncode == 1 and "interrupted; the next run resumes" in err, err
    assert "model.safetensors" not in c.names()
    c.hub.log.clear()
    c.hub.slow = 0
    c.pull().succeeds()
    begins = [int(r[6:].split("-")[0]) for cdn, _, r in c.hub.log if cdn and r]
    assert begins and min(begins) > 100000, begins
    return c


def killed_and_resumed():
    c = Case(slow=0.04)
    run = subprocess.Popen([PROGRAM, "pull", "-q", REPO], cwd=c.dir, env=c.environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(1.6)
    run.kill()
    run.wait()
    assert "model.safetensors.part" in c.names()
    c.hub.slow = 0
    c.pull().succeeds()
    return c


def leave_half(c):
    """An interrupted download of the weights."""
    c.hub.cuts, c.hub.cut_lfs_only = [1000000] + [0] * 20, True
    c.pull("--retries", "1").fails("gave up")
    c.hub.cuts = []
    c.hub.log.clear()
    assert "model.safetensors.part" in c.names()


def changed_on_the_hub():
    c = Case()
    leave_half(c)
    new = rng.randbytes(3 << 20)
    c.hub.files["model.safetensors"] = c.hub.served["model.safetensors"] = new
    c.pull()
    assert c.code == 0 and "starting over" not in c.err, c.err
    c.whole({**FILES, "model.safetensors": new})
    return c


def partial_file_damaged():
    c = Case()
    leave_half(c)
    with open(c.path("model.safetensors.part"), "r+b") as f:
        f.seek(5000)
        f.write(b"damage")
    c.pull().succeeds()
    assert "1.1 MB already present" in c.err and "starting over" in c.err, c.err
    return c


def record_damaged():
    c = Case()
    leave_half(c)
    with open(c.path("model.safetensors.part"), "r+b") as f:
        f.seek(3 << 20)
        f.write(b"fastvlm part 9")
    c.pull().succeeds()
    assert "starting over" not in c.err
    return c


def wrong_hash():
    c = Case()
    bad = bytearray(FILES["model.safetensors"])
    bad[-1] ^= 1
    c.hub.served["model.safetensors"] = bytes(bad)
    c.pull().fails("model.safetensors does not have the SHA-256", "removed")
    assert "model.safetensors" not in c.names() and "model.safetensors.part" not in c.names()
    return c


def wrong_git_hash():
    c = Case()
    c.hub.served["vocab.json"] = FILES["vocab.json"][:-1] + b"?"
    c.pull().fails("vocab.json does not have the git hash")
    assert "vocab.json" not in c.names()
    return c


def sizes_that_lie():
    for served in (FILES["vocab.json"] + b"more", FILES["vocab.json"][:-1]):
        c = Case()
        c.hub.served["vocab.json"] = served
        c.pull("--retries", "1").fails("vocab.json")
        assert "vocab.json" not in c.names()
        c.end()
    return Case().pull()


def lying_ranges():
    c = Case()
    leave_half(c)
    c.hub.served["model.safetensors"] = FILES["model.safetensors"][:-5]
    c.pull("--retries", "1").fails("model.safetensors", "the server sends")
    return c


def no_ranges():
    c = Case()
    leave_half(c)
    c.hub.ranges = False
    c.pull().succeeds()
    assert "does not support ranges" in c.err
    return c


def strange_names():
    """Of files that no checkpoint needs: passed over, and never on the disk."""
    names = ("../evil.json", "/etc/config.json", "a/../config.json", "a\\config.json", "a//b", ".", "", "x\ny", "c:x", "notes: draft 2.txt",
             "LICENSE:zone", "LICENSE\x1b]0;x\x07", "model-00001-of-00002.safetensors:x", "long" * 400, "a\u202eb", "sub/c:d/e.txt", "%2e%2e/config.json",
             "config.json ", "CON", "config.json/..")
    for name in names:
        c = Case(extra=[{"rfilename": name, "size": 1, "blobId": "0" * 40}]).pull()
        c.succeeds()
        assert os.listdir(c.dir) == ["FastVLM-0.5B"]
        c.end()
    c = Case(extra=[{"rfilename": n, "size": -1} for n in names] + [{"rfilename": 7}, {"size": 1}, {"rfilename": None}, {}])
    c.pull().succeeds()
    return c


def range_not_satisfiable():
    """416 to what would resume a file: the file is begun anew, without a range."""
    for cuts in (1000, 1000000, 3 << 20):
        c = Case()
        c.hub.cuts, c.hub.cut_lfs_only = [cuts] + [0] * 20, True
        c.pull("--retries", "1")
        c.hub.cuts, c.hub.refuses_ranges = [], True
        c.hub.log.clear()
        c.pull().succeeds()
        assert cuts == 3 << 20 or ("(416); starting the file over" in c.err and any(r is None for cdn, _, r in c.hub.log if cdn)), c.err
        c.end()
    c = Case()
    leave_half(c)
    c.hub.refuses_ranges = "always"  # of the whole file, too: no use trying
    c.pull().fails("model.safetensors", "416")
    c.hub.refuses_ranges = False
    c.pull().succeeds()
    return c


def replaced_files_are_named():
    """Whenever a file that is not the hub's gives way, of any size and kind."""
    data = FILES["model.safetensors"]
    for name, mine in (("model.safetensors", data[:-1] + b"?"), ("model.safetensors", data + b" "), ("model.safetensors", data[:100]),
                       ("config.json", b"{}"), ("config.json", b""), ("LICENSE", b"mine"), ("README.md", b"mine"), ("vocab.json", bytes(70000))):
        c = Case()
        os.makedirs(c.path())
        open(c.path(name), "wb").write(mine)
        c.pull("-q").succeeds()
        assert c.err.count("%s differs from the hub's" % name) == 1 and "will be replaced" in c.err, c.err
        c.pull("-q").succeeds()
        assert "differs" not in c.err, c.err
        c.end()
    c = Case(slow=0.02)  # one that comes while the hub's is on its way
    late = threading.Timer(0.6, lambda: open(c.path("model.safetensors"), "wb").write(b"mine"))
    late.start()
    c.pull()
    late.join()
    c.succeeds()
    assert c.err.count("model.safetensors differs from the hub's") == 1, c.err
    c.end()
    c = Case()
    os.makedirs(c.path())
    os.symlink("/nonexistent", c.path("config.json"))
    os.mkfifo(c.path("merges.txt"))
    c.pull()
    assert c.code == 0 and c.err.count("differs from the hub's (it is not a regular file)") == 2, c.err
    os.remove(c.path("vocab.json"))
    os.mkdir(c.path("vocab.json"))  # cannot give way: said before anything is fetched
    c.hub.log.clear()
    c.pull().fails("vocab.json: is a directory")
    assert c.count("resolve") == 0
    os.rmdir(c.path("vocab.json"))
    return c.pull()


def hostile_metadata():
    def drop(key):
        return lambda a: a.pop(key)

    def first(**more):
        return lambda a: a["siblings"][0].update(more)

    for edit, text in ((drop("sha"), "sha"), (drop("siblings"), "siblings"), (lambda a: a.update(sha="../../x"), "40 hexadecimal"),
                       (first(size=-1), "size"), (first(size=1 << 60), "size"), (first(blobId="zz"), "blob hash"),
                       (first(lfs={"sha256": "x"}), "SHA-256"), (first(lfs={"sha256": "0" * 64, "size": 7}), "two sizes"),
                       (lambda a: a["siblings"].append(a["siblings"][0]), "twice"), (lambda a: a["siblings"].append(3), "list of files"),
                       (lambda a: a["siblings"].pop(0), "does not contain a checkpoint")):
        c = Case(edit=edit).pull()
        c.fails(text)
        assert os.listdir(c.dir) == []
        c.end()
    return Case().pull()


def disk_too_small():
    c = Case(edit=lambda a: a["siblings"][7].update(size=1 << 49, lfs={"sha256": "0" * 64, "size": 1 << 49}))
    c.pull().fails("not enough disk space", "free")
    assert c.names() == []
    return c


def nothing_stays_where_nothing_came():
    c = Case(edit=lambda a: a["siblings"][7].update(size=1 << 49, lfs={"sha256": "0" * 64, "size": 1 << 49}))
    c.pull("-o", "a/b/model").fails("not enough disk space")
    assert os.listdir(c.dir) == [], os.listdir(c.dir)
    c.hub.edit = None
    os.makedirs(os.path.join(c.dir, "a"))
    c.hub.file_faults = [(404, [])] * 100
    c.pull("-o", "a/b/model", "--retries", "0")
    assert c.code == 1 and os.listdir(os.path.join(c.dir, "a")) == [], c.err
    c.hub.file_faults = []
    c.hub.cuts, c.hub.cut_lfs_only = [100000] * 100, True  # some of it comes: kept, to resume
    c.pull("-o", "a/b/model", "--retries", "0")
    assert c.code == 1 and "model.safetensors.part" in os.listdir(os.path.join(c.dir, "a", "b", "model"))
    return c


def part_of_an_earlier_run_goes():
    """Its file has come another way since."""
    c = Case().pull()
    open(c.path("config.json.part"), "w").write("half")
    open(c.path("mine.part"), "w").write("the user's")
    c.pull()
    assert c.code == 0 and c.names() == sorted([*FILES, "mine.part"]), c.names()
    return c


def write_fails():
    c = Case().pull("--retries", "0", limit=1000)
    c.fails("model.safetensors.part")
    assert "model.safetensors" not in c.names()
    c.pull().succeeds()
    return c


def redirects():
    c = Case()
    c.hub.redirect_to = c.hub.url + "/%s/resolve/%s/model.safetensors" % (REPO, COMMIT)
    c.pull().fails("redirects")
    c.hub.redirect_to = "file:///etc/passwd"
    c.pull().fails("model.safetensors")
    assert "model.safetensors" not in c.names()
    return c


def nothing_listens():
    c = Case()
    c.hub.stop()
    c.pull("--retries", "2").fails("no connection", "gave up after 3 attempts")
    assert c.err.count("no connection") == 3 and c.err.count("retrying in") == 2, c.err
    c.pull("--retries", "0").fails("no connection")
    assert "retrying" not in c.err and "attempts" not in c.err, c.err
    c.pull(HF_ENDPOINT="https://hub.invalid").fails("host not found")
    assert "retrying" not in c.err, c.err
    c.pull(HF_ENDPOINT="https://user:secret@hub.invalid").fails("not a plain https", code=2)
    assert "secret" not in c.err
    c.hub = Hub(REPO, FILES, ())
    return c


def listens_late():
    """The hub refuses connections at first, then again between the listing and the files."""
    c = Case()
    c.hub.stop()
    late = threading.Timer(0.5, c.hub.start_again)
    late.start()
    c.pull()
    late.join()
    c.succeeds()
    assert "no connection" in c.err and "retrying in" in c.err, c.err
    shutil.rmtree(c.path())

    late = threading.Timer(0.5, c.hub.start_again)
    c.hub.edit = lambda answer: (c.hub.stop(), late.start())
    c.pull()
    late.join()
    c.succeeds()
    assert "no connection" in c.err and "retrying in" in c.err, c.err
    return c


def links_are_not_followed():
    c = Case()
    os.makedirs(c.path())
    target = os.path.join(c.dir, "target")
    open(target, "w").write("precious")
    os.symlink(target, c.path("model.safetensors.part"))
    c.pull().fails("model.safetensors.part")
    assert open(target).read() == "precious"
    os.unlink(target)
    os.unlink(c.path("model.safetensors.part"))
    return c


def tls():
    c = Case()
    key, cert = os.path.join(c.dir, "key"), os.path.join(c.dir, "cert")
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                           "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], capture_output=True) if shutil.which("openssl") else None
    if not made or made.returncode:
        print("skipped: tls (no openssl)")
        return c
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    c.hub.hub.socket = context.wrap_socket(c.hub.hub.socket, server_side=True)
    url = c.hub.url.replace("http:", "https:")
    c.pull(HF_ENDPOINT=url).fails("TLS failed", "ca-certificates")
    c.pull(HF_ENDPOINT=url, SSL_CERT_FILE=cert).fails("redirected from https to unencrypted")
    c.hub.lfs = set()
    c.pull(HF_ENDPOINT=url, SSL_CERT_FILE=cert).succeeds()
    return c


def main():
    global passed
    wanted = sys.argv[1:]
    cases = [f for n, f in sorted(globals().items()) if callable(f) and n not in ("main", "leave_half", "Case", "Hub") and
             f.__module__ == __name__ and (not wanted or n in wanted)]
    for case in cases:
        try:
            case().end()
            passed += 1
            print("[       OK ] " + case.__name__, flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            failed.append(case.__name__)
            print("%r\n[  FAILED  ] %s" % (error, case.__name__), flush=True)
    print("%d passed, %d failed" % (passed, len(failed)))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
