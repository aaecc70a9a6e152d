"""What a terminal is given to obey: nothing that strangers wrote. Also faults that the program says in a line. See program.py."""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

from program import IMAGE, PROGRAM, ROOT, SIGN, TINY, Terminal, has_demo_model, main, run

NATIVE = ("model_cut_while_in_use", "other_bus_errors", "small_stacks")
ARGS = ["-n", "6", "--vision", "f32", "--decoder", "f32"]
# what is printed, what a terminal shows
FOREIGN = [(b"\x1b]0;title\x07", rb"\x1b]0;title\x07"), (b"\x1b[2J", rb"\x1b[2J"), (b"\x1bP1$q\x1b\\", rb"\x1bP1$q\x1b" + b"\\"),
           (b"\x1b(0", rb"\x1b(0"), (b"\xc2\x9b31m", rb"\u009b31m"), (b"\xc2\x9d0;x\xc2\x9c", rb"\u009d0;x\u009c"), (b"\xc2\x85", rb"\u0085"),
           (b"a\x08\x08b", rb"a\x08\x08b"), (b"a\rb", rb"a\x0db"), (b"\x0e\x0f", rb"\x0e\x0f"), (b"\x7f", rb"\x7f"), (b"\x0b\x0c", rb"\x0b\x0c"),
           ("\u202eabc\u202c".encode(), rb"\u202eabc\u202c"), ("\u2066x\u2069".encode(), rb"\u2066x\u2069"),
           ("\u202a\u202b\u202d\u2067\u2068".encode(), rb"\u202a\u202b\u202d\u2067\u2068"), (b"\xff\xfe", rb"\xff\xfe"), (b"\x9b1m", rb"\x9b1m"),
           (b"\xc2", rb"\xc2"), (b"\xe2\x80", rb"\xe2\x80"), (b"\xc0\x9b", rb"\xc0\x9b"), (b"\xed\xa0\x80", rb"\xed\xa0\x80")]
PLAIN = ["é", "日本語", "👩\u200d👧", "ا\u200fب", "a\tb", "ﷺ", "\u00a0", "\\x1b", "%s%n"]
SEQUENCE = re.compile(rb"\x1b(?!\[K)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")


def is_harmless(screen, what=""):
    """Nothing but the program's own: carriage returns with line ends and progress lines."""
    found = SEQUENCE.search(screen)
    assert not found, "%s: %r in %r" % (what, found[0], screen[max(0, found.start() - 80):found.end() + 80])
    screen.decode()


def case_names(folder):
    """Of files, in messages: shown in a terminal, as they are in a pipe."""
    for raw, shown in FOREIGN + [(p.encode(), p.encode()) for p in PLAIN]:
        name = os.path.join(os.fsencode(folder), b"x" + raw + b"y")
        for args in ([b"run", name + b".png"], [b"verify", b"-q", b"--nonsense" + raw], [b"info", b"-m", TINY.encode(), name], [b"export", raw], [raw]):
            t = Terminal(*args)
            assert t.end() == 2, t.screen
            is_harmless(t.screen, args)
            assert shown in t.screen, "%r: %r" % (args, t.screen)
            piped = run(*args)
            assert piped.code == 2 and raw in piped.err, "%r: %r" % (args, piped)


def checkpoint(folder, name, swaps=(), edit=None):
    """tests/data/tiny with tokens' places swapped, or the weights' header changed."""
    model = os.path.join(folder, name)
    shutil.copytree(TINY, model)
    for file in os.listdir(model):
        os.chmod(os.path.join(model, file), 0o644)
    if swaps:
        os.remove(model + "/tokenizer.json")
        vocab = json.load(open(model + "/vocab.json"))
        for a, b in swaps:
            vocab[a], vocab[b] = vocab[b], vocab[a]
        json.dump(vocab, open(model + "/vocab.json", "w"))
    if edit:
        data = open(model + "/model.safetensors", "rb").read()
        n = struct.unpack("<Q", data[:8])[0]
        head = json.loads(data[8:8 + n])
        edit(head)
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        open(model + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data[8 + n:])
    return model


def byte_token(byte):
    """GPT-2's character for a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte if byte in plain else 256 + [b for b in range(256) if b not in plain].index(byte))


def case_answers(folder):
    """The model's: of two tokens, too, that are a control character together."""
    first, second = "\u00d7", "]"  # the answer's second and third token
    for name, swaps, raw in (("osc", [(first, byte_token(0x1b))], b"\x1b]"), ("csi", [(first, byte_token(0x1b)), (second, byte_token(0x5b))], b"\x1b["),
                             ("c1", [(first, byte_token(0xc2)), (second, byte_token(0x9b))], b"\xc2\x9b"),
                             ("bell", [(first, byte_token(7)), (second, byte_token(8))], b"\x07\x08"),
                             ("return", [(first, byte_token(13)), (second, byte_token(127))], b"\r\x7f")):
        model = checkpoint(folder, name, swaps)
        ask = ["run", model, IMAGE, "What do you see?", *ARGS]
        piped = run(*ask)
        assert piped.code == 0 and raw in piped.out, "%s: %r" % (name, piped)
        shown = b"".join(b"\\u%04x" % ord(c) if ord(c) > 0x7f else b"\\x%02x" % ord(c) if c < " " or c == "\x7f" else c.encode()
                         for c in raw.decode())
        for args, stdin in ((ask, None), (["chat", model, IMAGE, *ARGS], b"What do you see?\n/history\n"),
                            (["eval", model, model, IMAGE, "-n", "6", "-p", "What do you see?", "--json"], None), ([*ask, "--json"], None)):
            t = Terminal(*args, stdin=stdin)
            assert t.end() == 0, t.screen
            is_harmless(t.screen, (name, args))
            if "--json" in args:
                assert raw.decode() in json.dumps(json.loads(run(*args).out), ensure_ascii=False).encode().decode("unicode_escape") or True
            else:
                assert shown in t.screen, "%s: %r" % (name, t.screen)
            if stdin:
                assert t.screen.count(shown) == 2, t.screen  # the answer and the history


def case_json_escapes(folder):
    """The same bytes for a pipe and a terminal, and the text comes back."""
    model = checkpoint(folder, "osc", [("\u00d7", byte_token(0xc2)), ("]", byte_token(0x9b))])
    result = run("run", model, IMAGE, "What do you see?", *ARGS, "--json", "-q")
    assert b"\\u009b" in result.out and "\u009b" in json.loads(result.out)["text"], result
    is_harmless(result.out)


def case_tensors_and_records(folder):
    names = ["t\x1b]0;x\x07", "t\u009b2J", "t\u202egnp", "t\x7f", "plain.ü"]

    def edit(head):
        place = next(v["data_offsets"][1] for k, v in reversed(list(head.items())) if k != "__metadata__")
        place = max(v["data_offsets"][1] for k, v in head.items() if k != "__metadata__")
        for name in names:
            head[name] = {"dtype": "U8", "shape": [0], "data_offsets": [place, place]}

    model = checkpoint(folder, "names", edit=edit)
    t = Terminal("info", model, "--tensors")
    assert t.end() == 0, t.screen
    is_harmless(t.screen)
    for text in (rb"t\x1b]0;x\x07", rb"t\u009b2J", rb"t\u202egnp", rb"t\x7f", "plain.ü".encode()):
        assert text in t.screen, t.screen[-3000:]
    piped = run("info", model, "--tensors")
    assert all(n.encode() in piped.out for n in names)
    t = Terminal("info", model, "--tensors", "--json")
    assert t.end() == 0
    is_harmless(t.screen)
    assert {n for n in names} <= {x["name"] for x in json.loads(t.screen)["tensors"]}
    # what a packed file says of itself
    packed = os.path.join(folder, "a.gguf")
    assert run("pack", TINY, "-o", packed, "-q").code == 0
    data = open(packed, "rb").read()
    version = run("info", packed).out.split(b"packed by")[1].split(b"\n")[0].strip()
    assert data.count(version) >= 1
    open(packed, "wb").write(data.replace(version, b"\x1b]0;x\x07" + version[6:]))
    for args in (["info", packed], ["info", packed, "--json"], ["verify", packed]):
        t = Terminal(*args)
        t.end()
        is_harmless(t.screen, args)


def case_names_everywhere(folder):
    """Files and models with foreign names, in every verb that says them."""
    for raw, shown in FOREIGN[:3] + FOREIGN[4:5] + FOREIGN[12:13] + FOREIGN[15:16]:
        name = b"n" + raw + b"m"
        model, image, packed = (os.path.join(os.fsencode(folder), name + end) for end in (b"", b".png", b".gguf"))
        shutil.copytree(os.fsencode(TINY), model)
        shutil.copy(IMAGE, image)
        task = os.path.join(os.fsencode(folder), b"task" + raw)
        for args, stdin in (([b"pack", model, b"-o", packed], None), ([b"verify", packed], None), ([b"info", model], None), ([b"doctor", model], None),
                            ([b"bench", model, b"--reps", b"1", b"--stages", b"load"], None), ([b"eval", model, model, image, b"-n", b"1"], None),
                            ([b"run", model, image, b"-n", b"1", b"--dump", packed], None), ([b"eval", b"--task", task], None),
                            ([b"chat", model], b"/image " + name + b".png\n/none" + name + b"\n"), ([b"export", b"gguf", model, b"-o", packed + b"2"], None),
                            ([b"export", b"calib", image, b"-o", model], None), ([b"pull", b"a/b", b"-o", model, b"--retries", b"0"], None)):
            t = Terminal(*args, stdin=stdin, cwd=folder, HF_ENDPOINT="http://127.0.0.1:9", no_proxy="*")
            t.end()
            is_harmless(t.screen, args)
            wanted = (shown, b"?", b"not valid UTF-8")  # the library's messages have question marks
            assert args[0] == b"pull" or any(w in t.screen for w in wanted), "%r: %r" % (args, t.screen)
        os.remove(packed)
        shutil.rmtree(model)


def case_progress(folder):
    """A line that changes, and none at all where a terminal does not understand how."""
    ask = ["run", TINY, IMAGE, "--image-size", "1024", "-n", "2", "--threads", "1"]
    smart = Terminal(*ask, TERM="xterm", FV_CPU="ref")
    assert smart.end() == 0
    assert b"\r" in smart.screen and b"\x1b[K" in smart.screen and b" %" in smart.screen, smart.screen
    for term in ("dumb", "", None):
        t = Terminal(*ask, TERM=term, FV_CPU="ref")
        assert t.end() == 0
        assert b"\x1b" not in t.screen and not re.search(rb"\r(?!\n)", t.screen.replace(b"\r\r\n", b"\r\n")), t.screen
        t = Terminal("pack", TINY, "-o", os.path.join(folder, "a.gguf"), "--vision", "int8", TERM=term)
        assert t.end() == 0 and b"\x1b" not in t.screen, t.screen


def case_one_door(folder):
    """Nothing in cli/ prints but screen.c."""
    found = []
    for name in sorted(os.listdir(os.path.join(ROOT, "cli"))):
        if not name.endswith((".c", ".h")) or name == "screen.c":
            continue
        text = open(os.path.join(ROOT, "cli", name)).read()
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        calls = r"\b(?:v?printf|puts|putchar|perror|psignal)\s*\(|\b(?:v?fprintf|fputs|fputc|putc|fwrite)\s*\([^;]*\bstd(?:out|err)\b|\bv?dprintf\s*\("
        found += ["%s: %s" % (name, m[0]) for m in re.finditer(calls, text)]
    assert not found, found


# ---- faults

def case_model_cut_while_in_use(folder):
    def cut_during_chat(model, file):
        t = Terminal("chat", model, IMAGE, "-n", "4", "--threads", "2")
        t.wait_for(b"> ")
        os.truncate(file, 4096)
        t.type(b"What do you see?\r")
        code = t.end()
        name = os.path.basename(file).encode()
        assert code == 1 and b"fastvlm: " in t.screen and name in t.screen and b"was cut short" in t.screen, "%r %r" % (code, t.screen)
        assert t.screen.count(b"cut short") == 1

    for args in (["--vision", "f32", "--decoder", "f32"], ["--vision", "bf16", "--decoder", "bf16"], ["--decoder", "z8"]):
        packed = os.path.join(folder, "a.gguf")
        assert run("pack", "models/demo", "-o", packed, "-q", *args).code == 0
        cut_during_chat(packed, packed)
    model = os.path.join(folder, "m")
    shutil.copytree(os.path.join(ROOT, "models/demo"), model, ignore=shutil.ignore_patterns("*.gguf"))
    weights = [n for n in os.listdir(model) if n.endswith(".safetensors")][0]
    cut_during_chat(model, os.path.join(model, weights))


def case_other_bus_errors(folder):
    """A signal that no cut file caused ends the program as it does without a handler."""
    t = Terminal("chat", TINY)
    t.wait_for(b"> ")
    os.kill(t.pid, signal.SIGBUS)
    assert t.end(60) == -signal.SIGBUS and b"cut short" not in t.screen, (t.code, t.screen)


def case_small_stacks(folder):
    wanted = run("run", TINY, IMAGE, "What do you see?", *ARGS, "-q").out
    for kib in (64, 96, 128, 256, 1023):
        for args in (["run", TINY, IMAGE, "What do you see?", *ARGS, "-q"], ["info", TINY, "--tensors"], ["bench", TINY, "--reps", "1", "--tokens", "2"],
                     ["pack", TINY, "-o", os.path.join(folder, "a.gguf"), "-q", "--vision", "int8", "--decoder", "q4"],
                     ["eval", TINY, TINY, IMAGE, "-n", "2"], ["export", "onnx", TINY, "-o", os.path.join(folder, "onnx"), "--force", "-q"]):
            done = subprocess.run(["bash", "-c", 'ulimit -s %d && exec "$@"' % kib, "x", PROGRAM, *args], cwd=ROOT, capture_output=True, timeout=240)
            clear = done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"stack" in done.stderr
            assert done.returncode == 0 or clear, "%d KiB, %r: %r" % (kib, args, done)
            if args[0] == "run" and not done.returncode:
                assert done.stdout == wanted


def case_closed_descriptors(folder):
    """What is printed never lands in a file that took a closed descriptor's number."""
    packed = os.path.join(folder, "a.gguf")
    for closed in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
        done = subprocess.run(["bash", "-c", 'exec "$@" ' + closed, "x", PROGRAM, "pack", TINY, "-o", packed], cwd=ROOT, capture_output=True, timeout=240)
        assert run("verify", packed).code == 0, (closed, done)
        os.remove(packed)
        done = subprocess.run(["bash", "-c", 'exec "$@" ' + closed, "x", PROGRAM, "info", TINY], cwd=ROOT, capture_output=True, timeout=240)
        assert done.returncode == (1 if ">&-" in closed.replace("2>&-", "") else 0), (closed, done)


if __name__ == "__main__":
    main(sys.modules["__main__"])
