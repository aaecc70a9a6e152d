"""fastvlm batch: rows and what is wrong with them, runs that are stopped, killed and continued. See program.py."""
import base64
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time

from program import IMAGE, LIMIT, PROGRAM, ROOT, TINY, has_demo_model, main, run

NATIVE = ("full_disk", "a_file_system_that_fills", "killed_twenty_times", "stopped", "a_line_that_never_ends", "lines_of_many_values", "levels_of_instructions")  # all but the first two only for their time
DEMO = os.path.join(ROOT, "tests/data/demo/images")
QUICK = ("-q", "-n", "4")


def photos(folder, n):
    """A directory of n images."""
    path = os.path.join(folder, "photos")
    os.mkdir(path)
    for i in range(n):
        shutil.copy(os.path.join(DEMO, "%05d.jpg" % i), path)
    return path


def batch(folder, *args, code=0, **env):
    result = run("batch", TINY, *args, *QUICK, cwd=folder, **env)
    assert result.code == code, "%r: %r" % (args, result)
    return result


def data(folder, name="out.jsonl"):
    with open(os.path.join(folder, name), "rb") as f:
        return f.read()


def rows(folder, name="out.jsonl"):
    return [json.loads(line) for line in data(folder, name).splitlines()]


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return path


def answer(folder, image, prompt=None, *more):
    args = [image] if image else ["--no-image"]
    return json.loads(run("run", TINY, *args, *(["-p", prompt] if prompt else []), "--json", *QUICK, *more, cwd=folder).out)


def size(path):
    """0: it is not there, or no longer."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def complete(folder, name="out.jsonl"):
    """Nothing but the output and its manifest."""
    names = sorted(n for n in os.listdir(folder) if n.startswith(name))
    assert names == [name, name + ".manifest.json"], names


def case_answers_are_those_of_run(folder):
    photos(folder, 3)
    write(folder, "rows.jsonl", '{"image": "%s", "prompt": "How many?", "id": "a"}\n{"prompt": "Hello", "id": 7}\n'
          '{"image": ["photos/00000.jpg", "photos/00001.jpg"], "prompt": "First <image>, then <image>?"}\n' % IMAGE)
    batch(folder, "photos", IMAGE, "rows.jsonl", "-o", "out.jsonl")
    complete(folder)
    found = rows(folder)
    want = [answer(folder, "photos/%05d.jpg" % i) for i in range(3)] + [
        answer(folder, IMAGE), answer(folder, IMAGE, "How many?"), answer(folder, None, "Hello"),
        json.loads(run("run", TINY, "photos/00000.jpg", "photos/00001.jpg", "-p", "First <image>, then <image>?", "--json", *QUICK,
                       cwd=folder).out)]
    assert len(found) == len(want)
    for i, (row, w) in enumerate(zip(found, want)):
        assert row["row"] == i and row["status"] == "ok", row
        assert (row["text"], row["finish"], row["prompt_tokens"], row["new_tokens"]) == (
            w["text"], w["finish_reason"], w["prompt_tokens"], len(w["token_ids"])), (row, w)
    assert [r.get("id") for r in found] == [None] * 4 + ["a", "7", None]
    assert [r.get("image") for r in found] == ["photos/00000.jpg", "photos/00001.jpg", "photos/00002.jpg", IMAGE, IMAGE, None,
                                               "photos/00000.jpg"]


def case_a_bad_row_is_a_row(folder):
    """With its status; those around it are answered."""
    pictures = photos(folder, 2)
    write(folder, "photos/cut.jpg", open(os.path.join(DEMO, "00000.jpg"), "rb").read()[:300])
    write(folder, "photos/text.png", "this is no image")
    write(folder, "huge.ppm", "P6 60000 60000 255\n")
    os.mkfifo(os.path.join(folder, "pipe.jpg"))
    os.mkdir(os.path.join(folder, "dir.jpg"))
    good = b"photos/00001.jpg"
    cases = [(b"none.jpg", "io", "none.jpg"), (b"pipe.jpg", "io", "is a device or a pipe"), (b"/dev/zero", "io", "is a device or a pipe"),
             (b"dir.jpg", "io", "is a directory"), (b"huge.ppm", "limit", "60000 x 60000"), (b"a\0b.jpg", "format", "a NUL byte"),
             (b"\xff.jpg", "io", "cannot open"), (b"https://example.com/a.jpg", "io", "is an address"),
             (b'{"image": "photos/00000.jpg"', "format", "row"), (b'{"image": 3}', "format", "expected a string, found an integer"),
             (b'{"image": ["photos/00000.jpg", 4]}', "format", "image[1]"), (b'{"id": 3}', "format", 'neither "image" nor "prompt"'),
             (b'{"image": ""}', "format", "is empty"), (b'{"image": "photos/00000.jpg", "prompt": ["x"]}', "format", "prompt"),
             (b'{"image": "photos/00000.jpg", "prompt": "<image><image>"}', "argument", 'has 2 "<image>" marks for 1 image'),
             (b'{"image": "photos/00000.jpg", "prompt": ""}', "argument", "the prompt is blank"),
             (b'{"image": "photos/00000.jpg", "prompt": " \\t\\n\\r"}', "argument", "the prompt is blank"),
             (b'{"prompt": " "}', "argument", "the prompt is blank"), (b'{"image": "photos/00000.jpg", "image": "b"}', "format", "row"),
             (b'{"prompt": "' + b"word " * 6000 + b'"}', "limit", "context"), (b"[" * 5000, "limit", "has 5000 bytes"),
             (b'{"a":' * 3000, "format", "row"), (b'{"image": "photos/00000.jpg", "prompt": "\xff"}', "format", "UTF-8")]
    write(folder, "list", b"".join(good + b"\n" + line + b"\n" for line, _, _ in cases))
    result = run("batch", TINY, "photos", "list", "-o", "out.jsonl", "-n", "4", cwd=folder)
    assert result.code == 0, result
    found = rows(folder)
    assert [r["status"] for r in found[:4]] == ["ok", "ok", "format", "format"], found[:4]
    assert b"50 rows, 25 failed" in result.err, result
    want = [r for r in found[:2] if r["image"] == "photos/00001.jpg"][0]["text"]
    for (line, status, part), before, row in zip(cases, found[4::2], found[5::2]):
        assert before["text"] == want, before
        assert row["status"] == status and part in row["error"] and "text" not in row, (line[:60], row)
    assert pictures


def case_images_as_arguments(folder):
    """What is called an image is one row, however bad; other names are looked into."""
    photos(folder, 1)
    os.mkdir(os.path.join(folder, "gl"))
    shutil.copytree(os.path.join(folder, "photos"), os.path.join(folder, "dir.png"))
    os.mkfifo(os.path.join(folder, "gl/pipe.jpg"))
    write(folder, "gl/list.jpg", "photos/00000.jpg\nphotos/00000.jpg\n")
    write(folder, "gl/page.jpg", "<!DOCTYPE html><html></html>")
    write(folder, "gl/short.PNG", b"\x89PNG")
    write(folder, "gl/empty.png", b"")
    write(folder, "gl/closed.webp", photo(0))
    os.chmod(os.path.join(folder, "gl/closed.webp"), 0)
    shutil.copy(os.path.join(DEMO, "00000.jpg"), os.path.join(folder, "no_ending"))
    write(folder, "list", "photos/00000.jpg\n")
    good = [("photos/00000.jpg", "ok"), ("no_ending", "ok"), ("dir.png", "ok"), ("list", "ok")]
    bad = [("gl/list.jpg", "format"), ("gl/page.jpg", "format"), ("gl/short.PNG", "format"), ("gl/empty.png", "format"), ("gl/none.jpg", "io"),
           ("gl/pipe.jpg", "io"), ("https://example.com/a.jpg", "io"), ("gl/" + "x" * 5000 + ".jpg", "limit")]
    if os.geteuid() != 0:  # who may read anything
        bad.append(("gl/closed.webp", "io"))
    for args in (bad + good, good + bad):
        batch(folder, *[name for name, _ in args], "-o", "out.jsonl", "--force")
        assert [r["status"] for r in rows(folder)] == [status for _, status in args], rows(folder)
    assert [r["image"] for r in rows(folder)[:6]] == ["photos/00000.jpg", "no_ending", "dir.png/00000.jpg", "photos/00000.jpg", "gl/list.jpg", "gl/page.jpg"]


def case_the_same_bytes(folder):
    """Whatever the threads, and the answers beside it."""
    photos(folder, 12)
    batch(folder, "photos", "-o", "a.jsonl", "-t", "1", "--together", "1", "--readers", "1")
    for name, args in (("b", ("-t", "2")), ("c", ("-t", "3", "--together", "3", "--readers", "4")), ("d", ("--together", "64"))):
        batch(folder, "photos", "-o", name + ".jsonl", *args)
        assert data(folder, name + ".jsonl") == data(folder, "a.jsonl"), name


def case_prompts_of_nearly_the_context(folder):
    """Prompts that run together fail one by one, each with its own numbers."""
    write(folder, "list", "".join(json.dumps({"prompt": "Hello " * 5 + "o" * i}) + "\n" for i in range(0, 48, 2)))
    held = ("--context", "64")
    batch(folder, "list", "-o", "alone.jsonl", "--together", "1", *held)
    batch(folder, "list", "-o", "out.jsonl", "--together", "16", *held)
    assert data(folder) == data(folder, "alone.jsonl")
    errors = [row["error"] for row in rows(folder) if row["status"] == "limit"]
    ran = [e for e in errors if e.startswith("the prompt has ")]
    assert 0 < len(errors) < 24 and len(set(ran)) == len(ran) > 1, errors


def lines_of(path):
    """Those that are whole; 0: it is not there, or no longer."""
    try:
        with open(path, "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def case_killed_twenty_times(folder):
    """SIGKILL, also of the runs that go on: before the first row, at any moment, behind a row, and behind the last, while
    the output is put in its place; every kind of output has the bytes of a run that ran through."""
    rng, n = random.Random(17), 60
    photos(folder, 10)
    lines = [{"image": "photos/%05d.jpg" % (i % 10), "id": "a/%d" % i} if i % 3 else request("b%d" % i, "Hello") for i in range(n)]
    lines[7] = {"image": "none.jpg", "id": "c"}
    write(folder, "list", "".join(json.dumps(line) + "\n" for line in lines))

    def start(name, form):
        return subprocess.Popen([PROGRAM, "batch", TINY, "list", "-o", name + form, "--format", form, *QUICK], cwd=folder,
                                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(p, until):
        end = time.monotonic() + LIMIT
        while p.poll() is None and not until():
            assert time.monotonic() < end
            time.sleep(0.0005)

    def content(name, form):
        return texts(folder, name + form) if form == "txt" else data(folder, name + form)

    for form in ("jsonl", "txt", "tar", "openai"):
        begun = time.monotonic()
        p = start("whole.", form)
        wait(p, lambda: lines_of(os.path.join(folder, "whole.%s.partial" % form)) > 1)  # one is the journal's header
        first = time.monotonic() - begun
        assert p.wait(LIMIT) == 0
        seconds = time.monotonic() - begun
        want, partial = content("whole.", form), os.path.join(folder, "out.%s.partial" % form)
        assert len(want) >= n, len(want)  # bytes, or files: one a row that was answered, and rows.jsonl
        kills, moments = 0, ("early", "any", "row", "row", "end")
        for _ in range(50):
            moment, before = moments[kills], max(lines_of(partial), 1)
            p = start("out.", form)
            if moment == "early":
                time.sleep(rng.uniform(0, first))
            elif moment == "any":
                time.sleep(rng.uniform(0, seconds))
            elif moment == "row":  # one or more of its own
                wait(p, lambda: lines_of(partial) > before)
                time.sleep(rng.uniform(0, 0.01))
            else:
                wait(p, lambda: lines_of(partial) == n + 1)
                time.sleep(rng.uniform(0, 0.003))
            p.kill()
            code = p.wait()
            assert code in (0, -signal.SIGKILL), (form, moment, code)
            kills += code != 0
            if kills == len(moments):
                break
            if code == 0:  # it was faster: from the start again
                complete(folder, "out." + form)
                assert content("out.", form) == want, form
                for name in ("out." + form, "out.%s.manifest.json" % form):
                    path = os.path.join(folder, name)
                    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        assert kills == len(moments), "%s: %d kills" % (form, kills)
        batch(folder, "list", "-o", "out." + form, "--format", form)
        complete(folder, "out." + form)
        assert content("out.", form) == want, form


def case_stopped(folder):
    """SIGINT and SIGTERM keep what is finished."""
    photos(folder, 10)
    write(folder, "list", "".join("photos/%05d.jpg\n" % (i % 10) for i in range(400)))
    batch(folder, "list", "-o", "whole.jsonl")
    partial = os.path.join(folder, "out.jsonl.partial")
    for number in (signal.SIGINT, signal.SIGTERM):
        before = size(partial)
        p = subprocess.Popen([PROGRAM, "batch", TINY, "list", "-o", "out.jsonl", *QUICK], cwd=folder, stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and size(partial) <= before:
            pass
        p.send_signal(number)
        err = p.communicate()[1]
        assert p.returncode == 1 and b"stopped after" in err and err.count(b"\n") == 1, (number, p.returncode, err)
        assert not os.path.exists(os.path.join(folder, "out.jsonl"))
    result = run("batch", TINY, "list", "-o", "out.jsonl", "-n", "4", cwd=folder)
    assert result.code == 0 and b"from earlier runs" in result.err, result
    complete(folder)
    assert data(folder) == data(folder, "whole.jsonl")


def stop_quiet(folder, give, number, *args):
    """Stops a run that waits for its pipe, after so many rows; standard error."""
    fifo = os.path.join(folder, "fifo")
    partial = os.path.join(folder, "out.jsonl.partial")
    p = subprocess.Popen([PROGRAM, "batch", TINY, "fifo", "-o", "out.jsonl", *QUICK, *args], cwd=folder, stdin=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    f = open(fifo, "wb", buffering=0) if give is not None else None
    end = time.monotonic() + LIMIT
    if f:
        f.write("".join(give).encode())
    while time.monotonic() < end and p.poll() is None and (
            b'"row": %d,' % (len(give) - 1) not in data(folder, "out.jsonl.partial") if give else not os.path.exists(partial)):
        time.sleep(0.01)
    p.send_signal(number)
    try:
        err = p.communicate(timeout=LIMIT)[1]
    finally:
        p.kill()
        if f:
            f.close()
    assert p.returncode == 1, (p.returncode, err)
    return err


def case_a_quiet_pipe(folder):
    """A signal ends the run while its list sends nothing: before there is a writer, between rows, and while rows of an earlier run are read."""
    photos(folder, 4)
    names = ["photos/%05d.jpg\n" % i for i in range(4)]
    os.mkfifo(os.path.join(folder, "fifo"))
    assert b"stopped after 0 rows" in stop_quiet(folder, None, signal.SIGTERM)
    assert b"stopped after 2 rows" in stop_quiet(folder, names[:2], signal.SIGTERM)
    assert b"stopped after" in stop_quiet(folder, names[:2], signal.SIGINT)  # it has both already, and answers none
    p = subprocess.Popen([PROGRAM, "batch", TINY, "fifo", "-o", "out.jsonl", *QUICK], cwd=folder, stdin=subprocess.DEVNULL)
    with open(os.path.join(folder, "fifo"), "wb", buffering=0) as f:
        for name in names:  # in pieces
            f.write(name[:7].encode())
            time.sleep(0.06)
            f.write(name[7:].encode())
    assert p.wait(LIMIT) == 0
    batch(folder, "photos", "-o", "whole.jsonl")
    assert data(folder) == data(folder, "whole.jsonl")


def half(folder, n, name="out.jsonl"):
    """As if the run had been killed after n rows."""
    path = os.path.join(folder, name)
    lines = data(folder, name).splitlines(True)
    write(folder, name + ".partial", b'{"fastvlm_batch": 1}\n' + b"".join(lines[:n]))
    os.unlink(path)
    return path + ".partial"


def case_a_journal_that_is_torn(folder):
    """A line that is cut off, and bytes that never reached the disk; times of files mean nothing."""
    photos(folder, 5)
    batch(folder, "photos", "-o", "out.jsonl")
    whole = data(folder)
    for tail in (b"", b'{"row": 2, "image": "pho', b"\0" * 5000, b'{"row": 2, "im\0\0\0\0\0\0}\n{"row": 3}\n', whole.splitlines()[2]):
        partial = half(folder, 2)
        with open(partial, "ab") as f:
            f.write(tail)
        os.utime(partial, (0, 0))
        os.utime(os.path.join(folder, "photos/00001.jpg"), (4e9, 4e9))
        result = run("batch", TINY, "photos", "-o", "out.jsonl", "-n", "4", cwd=folder)
        assert result.code == 0 and b"5 rows, 0 failed, 2 from earlier runs" in result.err, result
        complete(folder)
        assert data(folder) == whole, tail
    for head in (b"", b'{"fastvlm_b', b"\0" * 40):  # nothing reached the disk: as if there had been no run
        half(folder, 2)
        write(folder, "out.jsonl.partial", head)
        batch(folder, "photos", "-o", "out.jsonl")
        assert data(folder) == whole, head


def case_a_finished_output_is_left_alone(folder):
    photos(folder, 2)
    batch(folder, "photos", "-o", "out.jsonl")
    before = os.stat(os.path.join(folder, "out.jsonl"))
    result = run("batch", TINY, "photos", "-o", "out.jsonl", "-n", "4", cwd=folder)
    assert result.code == 0 and b"is complete" in result.err, result
    after = os.stat(os.path.join(folder, "out.jsonl"))
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    result = run("batch", TINY, "photos", "-o", "out.jsonl", "-q", "--json", "-n", "4", cwd=folder)
    assert json.loads(result.out)["complete_before"] is True
    batch(folder, "photos", "-o", "out.jsonl", "--force")
    assert os.stat(os.path.join(folder, "out.jsonl")).st_ino != before.st_ino
    complete(folder)


def case_a_finished_output_counts(folder):
    """As the run that finished it did; and it must have the bytes it had then."""
    photos(folder, 1)
    write(folder, "list", "photos/00000.jpg\nnone.jpg\nnone.png\n")
    for form in ("jsonl", "txt", "tar", "openai"):
        held, manifest = ("batch", TINY, "list", "-o", form, "--format", form, "-n", "4"), form + ".manifest.json"
        path = os.path.join(folder, form, "rows.jsonl") if form == "txt" else os.path.join(folder, form)
        first = json.loads(run(*held, "--json", "-q", cwd=folder).out)
        assert (first["rows"], first["failed"], first["resumed"]) == (3, 2, 0), first
        whole, told = data(folder, path), data(folder, manifest)
        assert json.loads(told)["output"] == {"rows": 3, "failed": 2, "bytes": len(whole)}, told
        result = run(*held, "--json", cwd=folder)
        again = json.loads(result.out)
        assert (again["rows"], again["failed"], again["resumed"], again["new_tokens"]) == (3, 2, 3, 0) and again["complete_before"], again
        assert again["rows_per_second"] == 0 and b"%s is complete: 3 rows, 2 failed; --force" % form.encode() in result.err, result
        for changed in (whole[:-1], whole + b"x", b"", None):
            write(folder, path, changed) if changed is not None else os.unlink(path)
            if changed is None and form != "txt":  # there is no output then: the run begins
                continue
            result = run(*held, cwd=folder)
            size = len(changed or b"")
            assert result.code == 1 and b"was changed since it was complete: it has %d bytes; expected %d" % (size, len(whole)) in result.err, result
            assert b"--force answers again" in result.err and result.err.count(b"\n") == 1 and data(folder, manifest) == told, result
        assert run(*held, "--force", cwd=folder).code == 0
        assert data(folder, path) == whole and data(folder, manifest) == told
        # killed before the manifest said so, and before the journal went
        lines = texts(folder, "txt")["rows.jsonl"] if form == "txt" else samples(folder, form)["__rows__"] if form == "tar" else whole
        for text in (told, b"{" + told.split(b"{", 1)[1].rsplit(b",\n", 1)[0] + b"\n}\n"):
            write(folder, manifest, text)
            write(folder, form + ".partial", b'{"fastvlm_batch": 1}\n' + lines)
            result = run(*held, cwd=folder)
            assert result.code == 0 and b"3 rows, 2 failed, 3 from earlier runs" in result.err, result
            assert data(folder, path) == whole and data(folder, manifest) == told
        # an older version's says nothing
        write(folder, manifest, text)
        write(folder, path, whole + b"x")
        result = run(*held, cwd=folder)
        assert result.code == 0 and b"%s is complete; --force" % form.encode() in result.err and data(folder, manifest) == text, result
        for bad in (b'{"rows": 3}', b"3", b'{"rows": 3, "failed": 4, "bytes": 1}', b"{"):
            write(folder, manifest, text[:-3] + b',\n  "output": ' + bad + b"\n}\n")
            result = run(*held, cwd=folder)
            assert result.code == 1 and manifest.encode() in result.err and result.err.count(b"\n") == 1, result
        assert run(*held, "--force", cwd=folder).code == 0 and data(folder, manifest) == told


def case_another_run_is_refused(folder):
    """Model, prompt, options, inputs, precision, version, level: what decides the bytes must be as it was."""
    photos(folder, 3)
    write(folder, "list", "photos/00000.jpg\n")
    base = os.path.join(ROOT, "tests/data/variants/base/checkpoint")

    def refused(what, *args, model=TINY, **env):
        result = run("batch", model, *args, "-o", "out.jsonl", "-q", cwd=folder, **env)
        assert result.code == 1 and what in result.err and result.err.count(b"\n") == 1, "%r: %r" % (args, result)

    batch(folder, "photos", "list", "-o", "out.jsonl")
    whole = data(folder)
    for rest in (None, 1):
        if rest:
            half(folder, rest)
        n = ("-n", "4")
        refused(b'another prompt: it was "Describe the image.", and is "x y?" now; --force begins again', "photos", "list", *n, "-p", "x y?")
        refused(b'another system: it was null, and is "x" now', "photos", "list", *n, "-s", "x")
        refused(b"another max_new_tokens: it was 4, and is 5 now", "photos", "list", "-n", "5")
        refused(b"another model", "photos", "list", *n, model=base)
        refused(b"another decoder", "photos", "list", *n, "--decoder", "f16")
        refused(b"another fit", "photos", "list", *n, "--fit", "crop")
        refused(b"made with other inputs", "photos", *n)
        refused(b"another cpu_level: it was", "photos", "list", *n, FV_CPU="ref")
        refused(b"; FV_CPU in the environment chooses a level", "photos", "list", *n, FV_CPU="ref")
        refused(b"another shards", "photos", "list", *n, "--shard", "0/2")
        refused(b"another model", "photos", "list", *n, "--kv", "q8")
        write(folder, "list", "photos/00001.jpg\n")
        refused(b"made with other inputs", "photos", "list", *n)
        write(folder, "list", "photos/00000.jpg\n")
        text = data(folder, "out.jsonl.manifest.json")
        write(folder, "out.jsonl.manifest.json", text.replace(b'"fastvlm": "', b'"fastvlm": "0'))
        refused(b"another fastvlm", "photos", "list", *n)
        write(folder, "out.jsonl.manifest.json", b"{")
        refused(b"out.jsonl.manifest.json", "photos", "list", *n)
        write(folder, "out.jsonl.manifest.json", text)
    batch(folder, "photos", "list", "-o", "out.jsonl")
    assert data(folder) == whole
    run("batch", TINY, "photos", "list", "-o", "out.jsonl", *QUICK, "-p", "x y?", "--force", cwd=folder)
    assert data(folder) != whole
    complete(folder)
    os.unlink(os.path.join(folder, "out.jsonl.manifest.json"))
    refused(b"there is such a file already; --force replaces it", "photos", "list", "-n", "4")
    half(folder, 2)
    refused(b"rows of a run whose manifest is missing; --force begins again", "photos", "list", "-n", "4")
    batch(folder, "photos", "list", "-o", "out.jsonl", "--force")
    assert data(folder) == whole
    long = "What is that? " * 20  # they differ where a message does not reach
    batch(folder, "photos", "-o", "long.jsonl", "-p", long)
    result = batch(folder, "photos", "-o", "long.jsonl", "-p", long + "x", code=1)
    assert b'another prompt: both begin "What is that?' in result.err, result


def case_inputs_that_change(folder):
    """Between two runs: refused before a row is written to the wrong place."""
    pictures = photos(folder, 4)
    batch(folder, "photos", "-o", "out.jsonl")
    whole = data(folder)
    half(folder, 2)
    shutil.copy(IMAGE, os.path.join(pictures, "00000.png"))
    result = batch(folder, "photos", "-o", "out.jsonl", code=1)
    assert b"made with other inputs" in result.err and b"--force" in result.err, result
    os.unlink(os.path.join(pictures, "00000.png"))
    for i in (1, 2, 3):
        os.rename(os.path.join(pictures, "%05d.jpg" % i), os.path.join(folder, "%d" % i))
    result = batch(folder, "photos", "-o", "out.jsonl", code=1)
    assert b"made with other inputs" in result.err, result
    for i in (1, 2, 3):
        os.rename(os.path.join(folder, "%d" % i), os.path.join(pictures, "%05d.jpg" % i))
    batch(folder, "photos", "-o", "out.jsonl")
    assert data(folder) == whole
    shutil.copy(IMAGE, os.path.join(pictures, "00009.png"))  # behind an output that is complete
    result = batch(folder, "photos", "-o", "out.jsonl", code=1)
    assert b"made with other inputs" in result.err and data(folder) == whole, result
    # a pipe cannot be looked at beforehand: its rows are compared as they come
    names = ["photos/%05d.jpg\n" % i for i in range(4)]
    ask = lambda names: run("batch", TINY, "-", "-o", "pipe.jsonl", *QUICK, cwd=folder, stdin="".join(names).encode())
    assert ask(names).code == 0
    half(folder, 2, "pipe.jsonl")
    result = ask([names[1], *names])
    assert result.code == 1 and b"the inputs have changed: the row at byte" in result.err, result
    result = ask(names[:1])
    assert result.code == 1 and b"the inputs have changed: they have fewer rows" in result.err, result


def case_two_runs_on_one_output(folder):
    """The second is refused, and what the first does is not disturbed."""
    photos(folder, 1)
    fifo = os.path.join(folder, "fifo")
    os.mkfifo(fifo)
    first = subprocess.Popen([PROGRAM, "batch", TINY, "fifo", "-o", "out.jsonl", *QUICK], cwd=folder)
    with open(fifo, "wb") as f:  # it has opened its input, so it has the lock
        result = batch(folder, "fifo", "-o", "out.jsonl", code=1)
        assert b"another process is writing this output" in result.err, result
        result = batch(folder, "photos", "-o", "out.jsonl", "--force", code=1)
        assert b"another process is writing this output" in result.err, result
        f.write(b"photos/00000.jpg\n")
    assert first.wait(LIMIT) == 0
    complete(folder)
    assert len(rows(folder)) == 1


def case_full_disk(folder):
    """What is finished stays, and the same command goes on when there is room."""
    photos(folder, 10)
    write(folder, "list", "".join("photos/%05d.jpg\n" % (i % 10) for i in range(60)))
    batch(folder, "list", "-o", "whole.jsonl")
    limit = len(data(folder, "whole.jsonl")) // 2

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run([PROGRAM, "batch", TINY, "list", "-o", "out.jsonl", *QUICK], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, preexec_fn=small, timeout=LIMIT)
    assert done.returncode == 1 and b"out.jsonl.partial: cannot write" in done.stderr and done.stderr.count(b"\n") == 1, done
    assert os.path.getsize(os.path.join(folder, "out.jsonl.partial")) > limit // 2
    batch(folder, "list", "-o", "out.jsonl")
    complete(folder)
    assert data(folder) == data(folder, "whole.jsonl")
    # all rows are there, and the output has no room
    batch(folder, "photos", "-o", "whole.tar", "--format", "tar")
    limit = len(data(folder, "whole.tar")) - 1024
    done = subprocess.run([PROGRAM, "batch", TINY, "photos", "-o", "out.tar", "--format", "tar", *QUICK], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, preexec_fn=small, timeout=LIMIT)
    assert done.returncode == 1 and b"out.tar: cannot write" in done.stderr, done
    assert sorted(n for n in os.listdir(folder) if n.startswith("out.tar")) == ["out.tar.manifest.json", "out.tar.partial"]
    result = run("batch", TINY, "photos", "-o", "out.tar", "--format", "tar", "-n", "4", cwd=folder)
    assert result.code == 0 and b"10 from earlier runs" in result.err, result
    assert data(folder, "out.tar") == data(folder, "whole.tar")


def case_a_file_system_that_fills(folder):
    """And then has room again, and then is read-only: a small one, in a namespace where the machine lets us mount it."""
    photos(folder, 10)
    os.mkdir(os.path.join(folder, "disk"))
    write(folder, "list", "".join("photos/%05d.jpg\n" % (i % 10) for i in range(60)))
    batch(folder, "list", "-o", "whole.jsonl")
    script = """mount -t tmpfs -o size=8k none disk || exit 99
        "$@" -o disk/out.jsonl 2>full; echo $? >>codes; cp disk/out.jsonl.partial half
        mount -o remount,size=1m disk || exit 99
        "$@" -o disk/out.jsonl 2>roomy; echo $? >>codes; ls disk >names; cp disk/out.jsonl .
        mount -o remount,ro disk || exit 99
        "$@" -o disk/other.jsonl 2>closed; echo $? >>codes"""
    try:
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", PROGRAM, "batch", TINY, "list", *QUICK], cwd=folder,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    except FileNotFoundError as error:
        print("skipped: %s" % error)
        return
    if not os.path.exists(os.path.join(folder, "codes")):
        print("skipped: %r" % done.stderr)
        return
    assert data(folder, "codes").split() == [b"1", b"0", b"1"] and done.returncode == 0, (data(folder, "codes"), done)
    full, closed = data(folder, "full"), data(folder, "closed")
    assert b"out.jsonl.partial: cannot write" in full and b"No space left on device" in full and full.count(b"\n") == 1, full
    assert 10 < lines_of(os.path.join(folder, "half")) < 60
    assert data(folder) == data(folder, "whole.jsonl")
    assert data(folder, "names").split() == [b"out.jsonl", b"out.jsonl.manifest.json"]
    assert b"other.jsonl" in closed and b"Read-only file system" in closed and closed.count(b"\n") == 1, closed


def case_outputs_that_cannot_be(folder):
    """Before anything is computed."""
    photos(folder, 1)
    for out, what in (("none/out.jsonl", b"cannot create"), ("/proc/out.jsonl", b"cannot create"), ("photos", b"is a directory"),
                      ("/dev/null", b"is a device or a pipe")):
        result = batch(folder, "photos", "-o", out, code=1)
        assert what in result.err and result.err.count(b"\n") == 1, result
    assert sorted(os.listdir(folder)) == ["photos"]


def case_an_output_that_is_an_input(folder):
    """Is never replaced: nor are images in directories, by any name, nor what lies beside the output."""
    photos(folder, 2)
    os.mkdir(os.path.join(folder, "out"))
    os.mkdir(os.path.join(folder, "out/sub"))
    for name in ("list", "out.jsonl.partial", "out.jsonl.manifest.json", "out/a.txt", "out/rows.jsonl", "out/sub/b.txt", "out/c.csv", "txt.partial"):
        write(folder, name, "photos/00000.jpg\n")
    os.link(os.path.join(folder, "photos/00001.jpg"), os.path.join(folder, "hard"))
    os.symlink("list", os.path.join(folder, "link"))
    os.symlink("out", os.path.join(folder, "way"))
    os.symlink("../list", os.path.join(folder, "out/l.txt"))
    if has_tar(folder):
        shard(folder, "a.tar", ("0.jpg", photo(0)))
    before = texts(folder, "")
    cases = [("list", "list", "list", "jsonl"), ("list", "./list", "list", "tar"), ("list", "link", "list", "openai"), ("link", "list", "link", "jsonl"),
             ("photos/00001.jpg", "photos/00001.jpg", "photos/00001.jpg", "jsonl"), ("photos", "photos/00000.jpg", "photos/00000.jpg", "jsonl"),
             ("photos", "hard", "photos/00001.jpg", "jsonl"), ("out.jsonl.partial", "out.jsonl", "out.jsonl.partial", "jsonl"),
             ("out.jsonl.manifest.json", "out.jsonl", "out.jsonl.manifest.json", "jsonl"), ("out/a.txt", "out", "out/a.txt", "txt"),
             ("out/rows.jsonl", "out/", "out/rows.jsonl", "txt"), ("out/sub/b.txt", "out", "out/sub/b.txt", "txt"), ("way/a.txt", "out", "way/a.txt", "txt"),
             ("out/a.txt", "way", "out/a.txt", "txt"), ("out/l.txt", "out", "out/l.txt", "txt"), ("txt.partial", "txt", "txt.partial", "txt")]
    if "a.tar" in before:
        cases.append(("a.tar", "a.tar", "a.tar", "tar"))
    for source, out, named, form in cases:
        for force in ((), ("--force",)):
            result = batch(folder, "photos/00000.jpg", source, "-o", out, "--format", form, *force, code=2)
            assert b"would replace the input %s;" % named.encode() in result.err and out.rstrip("/").encode() in result.err, result
            assert result.err.count(b"\n") == 1 and texts(folder, "") == before, (source, out, result)
    # beside inputs, and of names that no text has
    batch(folder, "photos", "-o", "photos/new.jsonl")
    batch(folder, "out/c.csv", "-o", "out", "--format", "txt", "--force")
    batch(folder, "out/a.txt", "-o", "out/sub", "--format", "txt", "--force")
    assert sorted(texts(folder, "out/sub")) == ["00000.txt", "b.txt", "rows.jsonl"]


def case_a_read_only_directory(folder):
    """Also where root would write: as another user then."""
    photos(folder, 1)
    os.mkdir(os.path.join(folder, "closed"))
    os.chmod(os.path.join(folder, "closed"), 0o555)
    os.chmod(folder, 0o755)

    def other():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

    for form in ("jsonl", "txt"):
        try:
            done = subprocess.run([PROGRAM, "batch", TINY, "photos", "-o", "closed/out", "--format", form, *QUICK], cwd=folder, stdin=subprocess.DEVNULL,
                                  capture_output=True, preexec_fn=other, timeout=LIMIT)
        except (PermissionError, subprocess.SubprocessError) as error:  # another user does not reach the program
            print("skipped: %s" % error)
            return
        assert done.returncode == 1 and b"closed/out" in done.stderr and done.stderr.count(b"\n") == 1, done
        assert b"cannot create" in done.stderr and b"Permission denied" in done.stderr, done
    assert os.listdir(os.path.join(folder, "closed")) == []


def case_context_beyond_the_models(folder):
    """Not an output full of failed rows."""
    photos(folder, 1)
    result = run("batch", TINY, "photos", "-o", "out.jsonl", "--context", "10000000", *QUICK, cwd=folder)
    assert result.code != 0 and b"max_context" in result.err, result
    assert not os.path.exists(os.path.join(folder, "out.jsonl"))


def case_shards(folder):
    """Together they have all rows, each once."""
    photos(folder, 3)
    write(folder, "list", "photos/00001.jpg\nnone\n\nphotos/00002.jpg\n")
    batch(folder, "photos", "list", "-o", "all.jsonl")
    found = b""
    for k in range(4):
        batch(folder, "photos", "list", "-o", "%d.jsonl" % k, "--shard", "%d/4" % k)
        found += data(folder, "%d.jsonl" % k)
    lines = sorted(found.splitlines(True), key=lambda line: json.loads(line)["row"])
    assert b"".join(lines) == data(folder, "all.jsonl") and len(lines) == 6
    batch(folder, "photos", "list", "-o", "none.jsonl", "--shard", "7/9")
    assert data(folder, "none.jsonl") == b""
    complete(folder, "none.jsonl")


def case_lists(folder):
    """Line ends, blank lines, byte order marks, standard input, --root."""
    pictures = photos(folder, 2)
    names = ["photos/00000.jpg", "photos/00001.jpg"]
    for text in ("%s\n%s\n", "%s\n%s", "\ufeff%s\r\n%s\r\n", "\n\r\n  \n%s\n\t\n%s\n\n"):
        write(folder, "list", text % tuple(names))
        batch(folder, "list", "-o", "out.jsonl", "--force")
        assert [(r["row"], r["image"], r["status"]) for r in rows(folder)] == [(i, n, "ok") for i, n in enumerate(names)], text
    result = run("batch", TINY, "-", "-o", "stdin.jsonl", *QUICK, cwd=folder, stdin=b"00000.jpg\n{\"image\": \"00001.jpg\"}\n")
    assert result.code == 0 and [r["status"] for r in rows(folder, "stdin.jsonl")] == ["io", "io"]
    result = run("batch", TINY, "-", "-o", "root.jsonl", "--root", pictures, *QUICK, cwd=folder,
                 stdin=b"00000.jpg\n{\"image\": \"00001.jpg\"}\n%s\n" % os.path.join(pictures, "00000.jpg").encode())
    assert result.code == 0 and [r["status"] for r in rows(folder, "root.jsonl")] == ["ok"] * 3
    write(folder, "empty", "")
    batch(folder, "empty", "-o", "empty.jsonl")
    assert data(folder, "empty.jsonl") == b""


def case_no_lists(folder):
    """Binary data is refused as what it is, from a file and from a pipe, rather than read as rows."""
    photos(folder, 1)
    tar = data(folder, shard(folder, "a.tar", ("0.jpg", photo(0)), ("1.jpg", photo(0))))
    good = b"photos/00000.jpg\n"
    names = "\u5199\u771f/" * 700  # longer than what is looked at of a file beforehand, which ends within a character
    for text, what in ((tar, b"this is a tar archive; expected a list, or the name of that file"), (photo(0), b"this is a JPEG; expected a list"),
                       (good[:-1] + b"\0" + good, b"its first line has a NUL byte; expected a list in UTF-8"), (b"\0\n" + good, b"has a NUL byte"),
                       (b"a\xff.jpg\n" + good, b"its first line is not UTF-8; expected"), (b"\xe5\x86", b"is not UTF-8"),
                       (names.encode() + b"\xff.jpg\n", b"is not UTF-8"), (b"\x1f\x8b\x08" + photo(0), b"compressed with gzip"),
                       (good.decode().encode("utf-16"), b"text in UTF-16"), (b"\x7fELF" + bytes(range(60)), b"ELF")):
        for name in ("-", "list"):
            if name == "list" and text in (tar, photo(0)):  # which are inputs
                continue
            write(folder, "list", text)
            result = run("batch", TINY, name, "-o", "out.jsonl", *QUICK, cwd=folder, stdin=text)
            assert result.code == 1 and what in result.err and result.err.count(b"\n") == 1, (name, text[:20], result)
            assert not os.path.exists(os.path.join(folder, "out.jsonl"))
            if name == "list" and len(text) < 4096:
                assert not os.path.exists(os.path.join(folder, "out.jsonl.partial")), text[:20]
            batch(folder, "photos", "-o", "out.jsonl")  # no row was finished, so none is lost
            for rest in ("out.jsonl", "out.jsonl.manifest.json"):
                os.unlink(os.path.join(folder, rest))
    for i, text in enumerate((b"\xef\xbb\xbf" + good, names.encode() + b".jpg\n" + good, good + b"a\xff.jpg\nb\0\n" + good, b"\n\n" + good)):
        write(folder, "list", text)
        batch(folder, "list", "-o", "%d.jsonl" % i)
        assert "ok" in [r["status"] for r in rows(folder, "%d.jsonl" % i)], text[:20]


def case_a_line_that_never_ends(folder):
    """Is one bad row, and takes no more memory than a line may."""
    photos(folder, 1)
    write(folder, "list", b"photos/00000.jpg\n" + b"x" * (70 << 20) + b"\nphotos/00000.jpg\n")
    batch(folder, "list", "-o", "out.jsonl", "--format", "openai")
    found = [r["response"] for r in rows(folder)]
    assert [r["status_code"] for r in found] == [200, 413, 200], found
    assert found[1]["body"]["error"]["code"] == "too_large" and "more than 64 MiB" in found[1]["body"]["error"]["message"], found[1]


def case_lines_of_many_values(folder):
    """Are refused before they take memory: each value of JSON takes forty bytes."""
    write(folder, "list", b'{"image": [' + b"1," * 15000000 + b'1]}\n{"prompt": "Hello"}\n{"custom_id": "a", "body": {"x": [' + b"1," * 300000 + b"1]}}\n")
    result = run("batch", TINY, "list", "-o", "out.jsonl", "--json", *QUICK, cwd=folder)
    found = rows(folder)
    assert [r["status"] for r in found] == ["limit", "ok", "limit"], found
    assert "row 0: more than 200000 values" in found[0]["error"], found
    with open(PROGRAM, "rb") as f:
        sanitized = b"__asan_init" in f.read()
    assert sanitized or json.loads(result.out)["peak_rss_bytes"] < 250e6, result
    if has_tar(folder):
        shard(folder, "a.tar", ("1.jpg", photo(0)), ("1.json", b'{"x": [' + b"1," * 200000 + b"1]}"), ("2.jpg", photo(0)))
        batch(folder, "a.tar", "-o", "tar.jsonl")
        assert [r["status"] for r in rows(folder, "tar.jsonl")] == ["limit", "ok"], rows(folder, "tar.jsonl")


def shard(folder, name, *members, end=None, **options):
    """A tar file of (name, bytes); end: cut after so many bytes."""
    path = os.path.join(folder, name)
    with tarfile.open(path, "w", **options) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    if end:
        os.truncate(path, end)
    return path


def photo(i):
    with open(os.path.join(DEMO, "%05d.jpg" % i), "rb") as f:
        return f.read()


def has_tar(folder):
    """Whether the program was built with libarchive, and finds it."""
    shard(folder, "probe.tar")
    result = run("batch", TINY, "probe.tar", "-o", "probe.jsonl", *QUICK, cwd=folder)
    if b"tar files need libarchive" in result.err:
        print("skipped: " + result.err.decode().strip())
        return False
    assert result.code == 0 and data(folder, "probe.jsonl") == b"", result
    return True


def case_tar_shards(folder):
    """Samples by key, as img2dataset writes them; the answers are those of the files."""
    if not has_tar(folder):
        return
    # tar files beside other inputs: rows of tar files do not shift what is dealt one by one
    shard(folder, "a.tar", *[("%d.jpg" % i, photo(0)) for i in range(3)])
    write(folder, "lines", "none-0\nnone-1\nnone-2\nnone-3\n")
    asked = []
    for k in range(2):
        batch(folder, "a.tar", "lines", "-o", "shard%d.jsonl" % k, "--shard", "%d/2" % k)
        asked += [r["image"] for r in rows(folder, "shard%d.jsonl" % k)]
    assert sorted(asked) == ["0.jpg", "1.jpg", "2.jpg", "none-0", "none-1", "none-2", "none-3"], asked
    photos(folder, 3)
    for name, options in (("pax", {"format": tarfile.PAX_FORMAT}), ("gnu", {"format": tarfile.GNU_FORMAT}),
                          ("ustar", {"format": tarfile.USTAR_FORMAT})):
        shard(folder, name + ".tar", ("0001.jpg", photo(0)), ("0001.txt", b"a caption"), ("0001.json", b'{"key": "0001", "status": "success"}'),
              ("b.c/0002.json", b'{"prompt": "How many <image>?"}'), ("b.c/0002.jpg", photo(1)), ("__meta__", b"x"),
              ("\u5199\u771f.seg.png", b"no field of ours"), ("\u5199\u771f.JPG", photo(2)), **options)
        batch(folder, name + ".tar", "-o", name + ".jsonl")
        found = rows(folder, name + ".jsonl")
        assert [(r["row"], r["id"], r["image"], r["status"]) for r in found] == [
            (0, "0001", "0001.jpg", "ok"), (1, "b.c/0002", "b.c/0002.jpg", "ok"), (2, "\u5199\u771f", "\u5199\u771f.JPG", "ok")], found
        batch(folder, "photos", "-o", name + "-files.jsonl")
        files = rows(folder, name + "-files.jsonl")
        assert [found[0]["text"], found[2]["text"]] == [files[0]["text"], files[2]["text"]]
        assert found[1]["text"] == answer(folder, "photos/00001.jpg", "How many <image>?")["text"]


def case_bad_tar_shards(folder):
    """A member, a sample or a file that is bad is a row; what follows goes on."""
    if not has_tar(folder):
        return
    good = ("good.jpg", photo(0))
    shard(folder, "a.tar", ("0.txt", b"no image"), ("1.jpg", b"no image"), ("2.json", b"{"), ("2.jpg", photo(0)), ("../3.jpg", photo(0)),
          ("/4.jpg", photo(0)), ("5/../../5.jpg", photo(0)), ("6.jpg", b""), ("7.json", b"{}"), ("7.json", b"{}"), ("8.jpg", photo(0)[:200]),
          ("9.json", b'{"prompt": 3}'), ("b.jpg", photo(0)), ("b.json", b'{"prompt": " "}'), good, ("x.txt", b"x"), good)
    whole = shard(folder, "cut.tar", ("cut0.jpg", photo(0)), ("cut1.jpg", photo(1)))
    os.truncate(whole, 512 + (len(photo(0)) + 511) // 512 * 512 + 512 + 1000)
    header = bytearray(data(folder, "a.tar")[:512])  # a size of 8 GiB, and the header's sum made right
    header[124:136] = b"\x80" + (1 << 33).to_bytes(11, "big")
    header[0:100] = b"huge.jpg".ljust(100, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    write(folder, "huge.tar", bytes(header) + photo(0))
    write(folder, "none.tar", b"")
    write(folder, "noise.tar", bytes(random.Random(1).randrange(256) for _ in range(5000)))
    shard(folder, "last.tar", ("last.jpg", photo(0)))
    batch(folder, "a.tar", "cut.tar", "huge.tar", "none.tar", "noise.tar", "last.tar", "-o", "out.jsonl")
    found = rows(folder)
    assert [r["row"] for r in found] == list(range(len(found)))
    want = [("0", "format", "no image in the sample"), ("1", "format", "1.jpg: not an image"), ("2", "format", "2.json"), ("../3", "format", "leads out"),
            ("/4", "format", "leads out"), ("5/../../5", "format", "leads out"), ("6", "format", "6.jpg"), ("7", "format", "comes twice"),
            ("8", "format", "8.jpg"), ("9", "format", "prompt"), ("b", "argument", "blank"), ("good", "ok", ""), ("x", "format", "no image"),
            ("good", "format", "comes a second time"), ("cut0", "ok", ""), ("cut1", "format", "cut.tar: damaged or cut off"),
            ("huge", "limit", "has 8589934592 bytes"), (None, "format", "huge.tar: damaged or cut off"),
            (None, "format", "none.tar: damaged"), (None, "format", "noise.tar: damaged"), ("last", "ok", "")]
    for row, (key, status, part) in zip(found, want):
        assert row.get("id") == key and row["status"] == status and part in row.get("error", ""), (row, key, status, part)
    assert len(found) == len(want), found[len(want):]


def case_tar_shards_are_continued(folder):
    """A run that was killed in a tar file, and tar files dealt to shards as wholes."""
    if not has_tar(folder):
        return
    for k in range(3):
        shard(folder, "%d.tar" % k, *(("%d%d.jpg" % (k, i), photo(i)) for i in range(4)))
    tars = ["0.tar", "1.tar", "2.tar"]
    batch(folder, *tars, "-o", "out.jsonl")
    whole = data(folder)
    for n in (1, 5, 11):
        half(folder, n)
        batch(folder, *tars, "-o", "out.jsonl")
        assert data(folder) == whole, n
    half(folder, 5)
    shard(folder, "1.tar", *(("x%d.jpg" % i, photo(i)) for i in range(4)))
    result = batch(folder, *tars, "-o", "out.jsonl", code=1)
    assert b"the inputs have changed" in result.err, result
    found = []
    for k in range(2):
        batch(folder, *tars, "-o", "s%d.jsonl" % k, "--shard", "%d/2" % k)
        found.append([r["id"] for r in rows(folder, "s%d.jsonl" % k)])
    assert found == [["00", "01", "02", "03", "20", "21", "22", "23"], ["x0", "x1", "x2", "x3"]], found


def texts(folder, name="out"):
    """Path -> text of every file below the directory."""
    found = {}
    for top, _, names in os.walk(os.path.join(folder, name)):
        for n in names:
            with open(os.path.join(top, n), "rb") as f:
                found[os.path.relpath(os.path.join(top, n), os.path.join(folder, name))] = f.read()
    return found


def case_texts(folder):
    """A text file for each row that was answered, by its name, and all rows."""
    photos(folder, 2)
    os.mkdir(os.path.join(folder, "more"))
    shutil.copy(IMAGE, os.path.join(folder, "more", "00000.png"))
    lines = ['{"image": "more/00000.png", "id": "%s"}' % i for i in ("a/b", "a/b", "../x", "/x", "a//b", ".x", "a/../x", "x\\n", "", "n" * 201, "a.TXT/b", "rows.jsonl/x")]
    write(folder, "list", "more/00000.png\nnone.png\n" + "\n".join(lines) + '\n{"prompt": "Hello"}\n')
    batch(folder, "photos", "-o", "rows.jsonl")
    batch(folder, "photos", "list", "-o", "out", "--format", "txt")
    found = texts(folder)
    assert sorted(found) == ["00000.txt", "00001.txt", "a/b.txt", "rows.jsonl"], sorted(found)
    all_rows = [json.loads(line) for line in found["rows.jsonl"].splitlines()]
    assert [r["status"] for r in all_rows] == ["ok", "ok", "argument", "io", "ok"] + ["argument"] * 12, all_rows
    assert "an earlier row has this name" in all_rows[2]["error"] and "an earlier row" in all_rows[5]["error"], all_rows
    assert all("cannot be the name" in r["error"] for r in all_rows[6:16]) and "no name for its file" in all_rows[16]["error"], all_rows
    for row, name in ((0, "00000.txt"), (1, "00001.txt"), (4, "a/b.txt")):
        assert found[name] == all_rows[row]["text"].encode()
    assert data(folder, "rows.jsonl") == b"".join(line + b"\n" for line in found["rows.jsonl"].splitlines()[:2])
    complete(folder, "out")
    batch(folder, "photos", "list", "-o", "out", "--format", "txt")
    assert texts(folder) == found
    for name in (b"\xc1.jpg", b"\xc2.jpg"):  # would be one name in the journal
        shutil.copy(os.path.join(folder, "photos", "00000.jpg").encode(), os.path.join(folder, "more").encode() + b"/" + name)
    for form in "txt", "tar":
        batch(folder, "more", "-o", "odd." + form, "--format", form)
    odd = [json.loads(line) for line in texts(folder, "odd.txt")["rows.jsonl"].splitlines()]
    assert [r["status"] for r in odd] == ["ok", "argument", "argument"] and "not UTF-8" in odd[1]["error"], odd
    # killed when the directory was in its place, but for the journal
    write(folder, "out.partial", b'{"fastvlm_batch": 1}\n' + found["rows.jsonl"])
    batch(folder, "photos", "list", "-o", "out", "--format", "txt")
    assert texts(folder) == found
    complete(folder, "out")


def case_texts_into_a_directory(folder):
    """An empty one will do; files of others are not replaced unless asked."""
    photos(folder, 1)
    os.mkdir(os.path.join(folder, "empty"))
    batch(folder, "photos", "-o", "empty/", "--format", "txt")
    assert sorted(texts(folder, "empty")) == ["00000.txt", "rows.jsonl"]
    result = batch(folder, "photos", "-o", "photos", "--format", "txt", code=1)
    assert b"the directory is not empty" in result.err and b"--force" in result.err, result
    write(folder, "photos/00000.txt", "mine")
    batch(folder, "photos", "-o", "photos", "--format", "txt", "--force")
    assert texts(folder, "photos")["00000.txt"] == texts(folder, "empty")["00000.txt"]
    result = batch(folder, "photos", "-o", "list", "--format", "txt")
    result = batch(folder, "photos", "-o", "list", code=1)
    assert b"is a directory" in result.err, result


def samples(folder, name="out.tar"):
    """Name -> bytes of the members, in order, as Python's own reader of tar files finds them."""
    with tarfile.open(os.path.join(folder, name)) as tar:
        found = {}
        for member in tar:
            assert member.isreg() and member.name not in found, member.name
            assert (member.mtime, member.uid, member.gid, member.mode, member.uname) == (0, 0, 0, 0o644, ""), member.name
            found[member.name] = tar.extractfile(member).read()
        return found


def case_samples(folder):
    """A text and a JSON member for each row that was answered, with the key of the input."""
    photos(folder, 2)
    long = "/".join("%d" % i * 60 for i in range(5))
    cut = "p" * 150 + "/" + "n" * 60  # fits a header in two pieces; the others need a pax header
    names = ["00007", "a.b/c", "größe", long, cut, "n" * 100, "n" * 101, "x.y", "__x", "a.json/b", "00007"]
    write(folder, "list", "".join('{"image": "photos/00000.jpg", "id": "%s"}\n' % n for n in names) + "none.png\n")
    batch(folder, "photos", "list", "-o", "out.jsonl")
    batch(folder, "photos", "list", "-o", "out.tar", "--format", "tar")
    found, all_rows = samples(folder), rows(folder)
    keys = ["00000", "00001"] + names[:7]
    assert list(found) == [k + e for k in keys for e in (".txt", ".json")] + ["__rows__"], list(found)
    for row, key in zip(all_rows, keys):
        assert found[key + ".txt"].decode() == row["text"] and json.loads(found[key + ".json"]) == row, key
    lines = [json.loads(line) for line in found["__rows__"].splitlines()]
    assert lines[:9] == all_rows[:9] and [r["status"] for r in lines[9:]] == ["argument"] * 4 + ["io"], lines[9:]
    assert "cannot be the key" in lines[9]["error"] and "cannot be the key" in lines[10]["error"], lines
    assert "earlier row" in lines[12]["error"], lines
    assert len(data(folder, "out.tar")) % 512 == 0 and data(folder, "out.tar").endswith(b"\0" * 1024)
    complete(folder, "out.tar")
    whole = data(folder, "out.tar")
    for n in (0, 3, len(lines)):  # killed, also when all rows were there and the tar file was not
        journal = b'{"fastvlm_batch": 1}\n' + b"".join(line + b"\n" for line in found["__rows__"].splitlines()[:n])
        os.remove(os.path.join(folder, "out.tar"))
        write(folder, "out.tar.partial", journal + b'{"row": ')
        batch(folder, "photos", "list", "-o", "out.tar", "--format", "tar")
        assert data(folder, "out.tar") == whole, n
    write(folder, "none", "none.png\n")
    batch(folder, "none", "-o", "none.tar", "--format", "tar")
    assert list(samples(folder, "none.tar")) == ["__rows__"]


def case_members_that_are_no_files(folder):
    """Of a directory in which links, pipes and hidden files are: none vanishes that is called an image."""
    if not has_tar(folder):
        return
    kinds = {"b.jpg": tarfile.LNKTYPE, "c.jpg": tarfile.SYMTYPE, "d.jpg": tarfile.FIFOTYPE, "e.jpg": tarfile.CHRTYPE, "f.json": tarfile.SYMTYPE,
             "f.jpg": None, "g.jpg": None, "g.txt": tarfile.SYMTYPE, "g.png": tarfile.SYMTYPE, "h.jpg": tarfile.DIRTYPE, "sub/i.jpg": None, ".j.jpg": None,
             "README": None}
    with tarfile.open(os.path.join(folder, "in.tar"), "w") as tar:
        for name, kind in (("a.jpg", None), *kinds.items()):
            info = tarfile.TarInfo("./" + name)
            info.type, info.linkname, info.size = kind or tarfile.REGTYPE, "./a.jpg" if kind else "", 0 if kind else len(photo(0))
            tar.addfile(info, io.BytesIO(photo(0)))
    want = [("a", "ok"), ("b", "format"), ("c", "format"), ("d", "format"), ("e", "format"), ("f", "format"), ("g", "ok"), ("sub/i", "ok")]
    for form in ("jsonl", "txt", "tar"):
        batch(folder, "in.tar", "-o", form, "--format", form)
    for found in (data(folder, "jsonl"), texts(folder, "txt")["rows.jsonl"], samples(folder, "tar")["__rows__"]):
        lines = [json.loads(line) for line in found.splitlines()]
        assert [(r["id"], r["status"]) for r in lines] == [("./" + key, status) for key, status in want], lines
        assert all("is a link, a pipe or a device" in r["error"] for r in lines if r["status"] != "ok"), lines
    good = [key for key, status in want if status == "ok"]
    assert sorted(texts(folder, "txt")) == sorted([key + ".txt" for key in good] + ["rows.jsonl"])
    assert list(samples(folder, "tar")) == [key + end for key in good for end in (".txt", ".json")] + ["__rows__"]


def case_samples_of_shards(folder):
    """The keys of a shard are those of the output, which is a shard itself."""
    if not has_tar(folder):
        return
    shard(folder, "in.tar", *(("sub/%04d.jpg" % i, photo(i)) for i in range(3)))
    batch(folder, "in.tar", "-o", "out.tar", "--format", "tar")
    assert list(samples(folder)) == ["sub/%04d.%s" % (i, e) for i in range(3) for e in ("txt", "json")] + ["__rows__"]
    batch(folder, "out.tar", "-o", "out.jsonl")  # the samples are there, and have no image
    assert [(r["id"], r["status"]) for r in rows(folder)] == [("sub/%04d" % i, "format") for i in range(3)], rows(folder)


def request(custom_id, content, **body):
    """A line of an OpenAI batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": content}], **body}}


def case_openai(folder):
    """Requests of OpenAI's batch files, and their results; the answers are those of other rows."""
    with open(photos(folder, 1) + "/00000.jpg", "rb") as f:
        url = "data:image/jpeg;base64," + base64.b64encode(f.read()).decode()
    seen = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    broken = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(b"x" * 50).decode()}}]
    system = request("system", "Hello")
    system["body"]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    turns = request("turns", seen)
    turns["body"]["messages"] += [{"role": "assistant", "content": "A cross."}, {"role": "user", "content": "Sure?"}]
    good = [request("seen", seen), request("limit", "Hello", max_tokens=2), system, request("plain", "Hello"), turns]
    bad = [request("b0", "x", stream=True), request("b1", "x", logprobs=True), request("b2", "x", response_format={"type": "xml"}),
           request("b3", "x", temperature=3), request("b4", [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]), request("b5", broken),
           dict(request("b6", "x"), method="GET"), dict(request("b7", "x"), url="/v1/embeddings"), dict(request("b8", "x"), body=[]),
           request("b9", "x", x=[1] * 200001), request("b10", "word " * 6000), request("b0", "twice"), request(7, "Hello"), request(None, "Hello")]
    write(folder, "in", "".join(json.dumps(line) + "\n" for line in good + bad))
    write(folder, "same", "".join(json.dumps(line) + "\n" for line in (
        {"image": "photos/00000.jpg", "prompt": "What is it?", "id": "seen"}, {"prompt": "Hello", "id": "plain"})))
    batch(folder, "in", "-o", "out.jsonl", "--format", "openai", "--together", "3")
    batch(folder, "same", "-o", "same.jsonl")
    found = rows(folder)
    assert [r["custom_id"] for r in found[:-2]] == [r["custom_id"] if r["custom_id"] != "b9" else None for r in good + bad[:-2]]
    assert [r["id"] for r in found] == ["batch_req_%d" % i for i in range(len(found))] and not any(r["error"] for r in found)
    assert [r["response"]["status_code"] for r in found] == [200] * 5 + [400] * 9 + [413] + [400] * 4, found
    body = {r["custom_id"]: r["response"]["body"] for r in found[:-5]}
    for row in rows(folder, "same.jsonl"):
        choice, usage = body[row["id"]]["choices"][0], body[row["id"]]["usage"]
        assert choice["message"]["content"] == row["text"] and choice["finish_reason"] == "length", row
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row["prompt_tokens"], row["new_tokens"]), usage
    assert body["seen"]["usage"]["prompt_tokens_details"]["image_tokens"] > 0 and body["seen"]["object"] == "chat.completion"
    assert body["seen"]["model"] == "m" and body["limit"]["usage"]["completion_tokens"] == 2
    assert body["system"]["usage"]["prompt_tokens"] != body["plain"]["usage"]["prompt_tokens"]
    own = json.loads(run("run", TINY, "--no-image", "-p", "Hello", "--system", "Be brief.", "--json", *QUICK, cwd=folder).out)
    assert body["system"]["choices"][0]["message"]["content"] == own["text"], own
    for i, param in enumerate(("stream", "logprobs", "response_format.type", "temperature", "messages[0].content[0]")):
        assert body["b%d" % i]["error"]["param"] == param and body["b%d" % i]["error"]["type"] == "invalid_request_error", body["b%d" % i]
    assert body["b5"]["error"]["param"] == "messages[0].content[0]", body["b5"]
    errors = [r["response"]["body"]["error"] for r in found[-5:]]
    assert [e["code"] for e in errors] == ["too_large", "context_length_exceeded", None, None, None], errors
    assert [e["param"] for e in errors[2:]] == ["custom_id"] * 3 and "b0 comes a second time" in errors[2]["message"], errors
    assert "custom_id: expected a string, found an integer" in errors[3]["message"], errors
    whole = data(folder)
    half(folder, 6)
    batch(folder, "in", "-o", "out.jsonl", "--format", "openai", "--together", "1", "--threads", "1")
    assert data(folder) == whole
    os.mkdir(os.path.join(folder, "dir.jpg"))
    write(folder, "missing", "none.jpg\ndir.jpg\nhttps://example.com/a.jpg\nin\n")
    batch(folder, "missing", "-o", "missing.jsonl", "--format", "openai")  # 500 would be asked again
    for row, part in zip(rows(folder, "missing.jsonl"), ("none.jpg: cannot open", "is a directory", "is an address", "this is JSON")):
        error = row["response"]["body"]["error"]
        assert row["response"]["status_code"] == 400 and part in error["message"], row
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", None, None), row
    batch(folder, "in", "-o", "plain.jsonl")  # in any other format, too
    assert [r["status"] for r in rows(folder, "plain.jsonl")][:6] == ["ok"] * 5 + ["unsupported"]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def with_schema(folder, *args, code=0, **env):
    """By the stand-in for llguidance, whose every answer is {"a":1}."""
    env = {"FV_LLGUIDANCE": os.environ.get("FV_FAKE_LLGUIDANCE", ""), **env}
    result = run("batch", TINY, *args, "-q", cwd=folder, **env)
    assert result.code == code, "%r: %r" % (args, result)
    return result


def case_json_by_a_schema(folder):
    """One for all rows, in the manifest; what llguidance lacks or refuses is one message before anything is written."""
    photos(folder, 2)
    write(folder, "schema", json.dumps(SCHEMA))
    write(folder, "other", "{}")
    write(folder, "list", '{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "Hi"}]}}\n{"image": "none"}\n')
    held = ("photos", "list", "--json-schema", "schema")
    with_schema(folder, *held, "-o", "out.jsonl")
    found, whole = rows(folder), data(folder)
    assert [r.get("text") for r in found] == ['{"a":1}'] * 3 + [None] and [r.get("finish") for r in found[:3]] == ["stop"] * 3, found
    assert json.loads(data(folder, "out.jsonl.manifest.json"))["schema_sha256"] == hashlib.sha256(data(folder, "schema")).hexdigest()
    with_schema(folder, *held, "-o", "alone.jsonl", "--together", "1", "-t", "1")
    assert data(folder, "alone.jsonl") == whole
    half(folder, 2)
    with_schema(folder, *held, "-o", "out.jsonl")
    assert data(folder) == whole
    for more in (("--json-schema", "other"), ()):
        result = with_schema(folder, "photos", "list", *more, "-o", "out.jsonl", code=1)
        assert b"made with another schema_sha256" in result.err, result
    for name, form in (("out.tar", "tar"), ("out", "txt")):
        with_schema(folder, "photos", "--json-schema", "schema", "-o", name, "--format", form)
    assert samples(folder)["00000.txt"] == texts(folder)["00000.txt"] == b'{"a":1}'
    # an answer that is cut off is none: but of requests, which are told so
    with_schema(folder, *held, "-o", "cut.jsonl", "-n", "2")
    found = rows(folder, "cut.jsonl")
    assert [r["status"] for r in found] == ["limit", "limit", "ok", "io"] and found[2]["finish"] == "length", found
    assert "cut off before its JSON was complete" in found[0]["error"], found
    with_schema(folder, *held, "-o", "late.jsonl", FAKE_LLGUIDANCE="mask=3")
    found = rows(folder, "late.jsonl")
    assert [r["status"] for r in found] == ["limit", "limit", "unsupported", "io"] and "schema: too complex" in found[2]["error"], found
    write(folder, "list7", "[1]")
    before = sorted(os.listdir(folder))
    for env, args, what in (({"FV_LLGUIDANCE": "none.so"}, held, b"none.so: cannot open"),
                            ({"FAKE_LLGUIDANCE": "version=1.0.0"}, held, b"llguidance 1.0.0; expected version"),
                            ({"FAKE_LLGUIDANCE": 'schema=Unimplemented keys: ["not"]'}, held, b'cannot be enforced: Unimplemented keys: ["not"]'),
                            ({}, ("photos", "--json-schema", "list7"), b"schema: expected an object"),
                            ({}, ("photos", "--json-schema", "none"), b"none: No such file")):
        result = with_schema(folder, *args, "-o", "new.jsonl", code=1, **env)
        assert what in result.err and result.err.count(b"\n") == 1 and sorted(os.listdir(folder)) == before, result
    for args, what in ((("photos", "--stop", "x"), b"--json-schema and --stop exclude"), (("photos", "--ignore-eos"), b"--ignore-eos exclude")):
        result = with_schema(folder, *args, "--json-schema", "schema", "-o", "new.jsonl", code=2)
        assert what in result.err, result
    result = with_schema(folder, "-", "--json-schema", "-", "-o", "new.jsonl", code=2)
    assert b"standard input (-) is given more than once" in result.err, result


def case_requests_for_json(folder):
    """response_format of OpenAI's requests, as the server has it. Without llguidance the run ends at the first: with it, it goes on."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    lines = [request("text", "Hi"), request("any", "Hi", response_format={"type": "json_object"}), request("schema", "Hi", response_format=form),
             request("cut", "Hi", response_format=form, max_tokens=2), request("stop", "Hi", response_format=form, stop="1"),
             request("bad", "Hi", response_format={"type": "json_object", "schema": {"x-guidance": {}}}), request("last", "Hi")]
    write(folder, "list", "".join(json.dumps(line) + "\n" for line in lines))
    held = ("list", "-o", "out.jsonl", "--format", "openai", "-n", "9", "--together", "1")
    result = with_schema(folder, *held, code=1, FV_LLGUIDANCE="none.so")
    assert b"none.so: cannot open" in result.err and result.err.count(b"\n") == 1, result
    assert sorted(os.listdir(folder)) == ["list", "out.jsonl.manifest.json", "out.jsonl.partial"]
    with_schema(folder, *held)
    complete(folder)
    found = [r["response"] for r in rows(folder)]
    assert [r["status_code"] for r in found] == [200, 200, 200, 200, 400, 400, 200], found
    choices = [r["body"]["choices"][0] for r in found[:4]]
    assert [c["message"]["content"] for c in choices[1:3]] == ['{"a":1}'] * 2 and [c["finish_reason"] for c in choices[1:]] == ["stop", "stop", "length"]
    assert choices[0]["message"]["content"] != '{"a":1}'
    assert [r["body"]["error"]["param"] for r in found[4:6]] == ["stop", "response_format"], found
    assert "x-guidance is set" in found[5]["body"]["error"]["message"], found
    with_schema(folder, *held[:2], "whole.jsonl", *held[3:])
    assert data(folder) == data(folder, "whole.jsonl")


def case_levels_of_instructions(folder):
    """The trained model answers with the same bytes at other levels of instructions: see docs/batch.md for where it does not."""
    if not has_demo_model():
        return
    photos(folder, 4)
    outputs = {}
    for level in ("avx2", "avx512"):
        result = run("batch", "photos", "-o", level, "-q", cwd=folder, FV_CPU=level)
        assert result.code == 0, result
        outputs[json.loads(data(folder, level + ".manifest.json"))["cpu_level"]] = data(folder, level)
    assert len(set(outputs.values())) == 1 and b'"status": "ok"' in data(folder, "avx2"), outputs
    print("levels: " + ", ".join(sorted(outputs)))


def case_arguments(folder):
    photos(folder, 1)
    write(folder, "model.bin", "\x7fELF" + "\0" * 100)
    for args, what in ((("photos",), b"no output given"), (("-o", "a"), b"no input given"), (("photos", "-o", "-"), b"--output"),
                       (("photos", "-o", "a", "--shard", "3/3"), b"--shard: expected K/N"),
                       (("photos", "-o", "a", "--shard", "-1/3"), b"--shard"), (("photos", "-o", "a", "--shard", "1/3x"), b"--shard"),
                       (("photos", "-o", "a", "--together", "65"), b"--together"), (("photos", "-o", "a", "-p", " "), b"blank"),
                       (("photos", "", "-o", "a"), b"blank")):
        result = run("batch", TINY, *args, cwd=folder)
        assert result.code == 2 and what in result.err, "%r: %r" % (args, result)
    for args, what in ((("none", "-o", "a"), b"none: no such file"), (("photos", "model.bin", "-o", "a"), b"model.bin"),
                       (("photos", TINY, "-o", "a"), b"contains no images")):
        result = run("batch", TINY, *args, cwd=folder)
        assert result.code == 1 and what in result.err, "%r: %r" % (args, result)
    assert sorted(os.listdir(folder)) == ["model.bin", "photos"], os.listdir(folder)


if __name__ == "__main__":
    main(sys.modules[__name__])
