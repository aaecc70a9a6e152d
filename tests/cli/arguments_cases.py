"""What the program makes of its arguments: files, addresses, text; exit codes; outputs. See program.py."""
import json
import os
import shutil
import sys

from program import IMAGE, SIGN, TINY, has_demo_model, main, run

DEMO_TASK = "tests/data/demo"


def case_an_image_that_is_not_there(folder):
    """Never becomes the question: exit code 2, no answer, whatever else is given."""
    shutil.copy(IMAGE, os.path.join(folder, "here.png"))
    words = ["https://example.com/img?id=3", "http://example.com/a.jpg", "HTTPS://EXAMPLE.COM/A.PNG", "https://example.com/a b.jpg",
             "http://example.com/my file", "Https://example.com/a what is this?",
             "ftp://host/a.png", "s3://bucket/key", "data:image/png;base64,iVBORw0KGgo=", "www.example.com/a", "file:///none.png",
             "file:///none", "photo.jpg", "photo.JPG", "photo.heic", "photo.cr2", "photo.raw", "clip.mp4", "photo.jpg?raw=1", "none/photo",
             "./photo", "../photo", "/none", "~/photo", "my photo.jpg", "my photo.HEIC", "'photo.jpg'", '"my photo.png"', "photo.jpg ",
             "photo.png\n", "C:\\Users\\me\\photo", "C:/Users/me/photo.png", "\\\\server\\photo", "apple/FastVLM-0.5B", "FastVLM-0.5B",
             "model.gguf", "/tmp/none such", "photo.jpe g.png", "описание.jpg", "写真.png", ".png", "", " ", "IMG_0001", "$IMG", "${IMG}",
             "photo.png,", "photo.jpg;", "photo.png!", "(photo.png)", "“photo.png”", "<photo.png>", "content://media/1", "user@host:/tmp/a.png",
             "%2Ftmp%2Fa.png", "a.png#frag", "*.png", "b\ta.png", "\u202aC:\\x.png", "192.168.0.1/x.png"]
    for word in words:
        for args in ([word], [word, "What is it?"], ["here.png", word], [TINY, "here.png", word]):
            result = run("run", "-q", *args, cwd=folder)
            assert result.code == 2 and not result.out and result.err.startswith(b"fastvlm run: "), "%r: %r" % (args, result)
            assert result.err.count(b"\n") <= 2 or "\n" in word, "%r: %r" % (args, result)
    # a word alone asks nothing
    for word in ("Describe", "photo", "Yes", "描述", "why?", "DSC01234", "image", "ja!", "$5?", "3.14?", "e.g.", "...", "Wow!"):
        for verb in ("run", "chat"):
            result = run(verb, "-q", word, cwd=folder)
            assert result.code == 2 and not result.out, "%r: %r" % (word, result)
        if has_demo_model():
            assert run("run", "-q", "here.png", word, "-n", "1", cwd=folder).code == 0, word


def case_hints_are_the_verbs_own(folder):
    """--prompt is hinted at where there is such an option."""
    for word in ("none.jpg", "none", "a/b", "two words", "https://example.com"):
        for verb in ("run", "chat", "info", "doctor", "bench"):
            result = run(verb, word, cwd=folder)
            assert (b"--prompt" in result.err) <= (verb == "run"), "%s %s: %r" % (verb, word, result)
            assert result.code == (0 if verb == "chat" and word == "two words" else 2), "%s %s: %r" % (verb, word, result)


def case_text_alone(folder):
    """Is asked for by an option, with -q and without."""
    for args in (["What is two and two?"], ["-p", "What is two and two?"], ["-p", "Hello"], [TINY, "What is it?"], ["-m", TINY, "-p", "x y"]):
        for quiet in ([], ["-q"]):
            result = run("run", *quiet, *args, "-n", "1")
            assert result.code == 2 and b"--no-image" in result.err and not result.out, "%r: %r" % (args, result)
            result = run("run", *quiet, TINY if TINY not in args else "--no-image", *args, "-n", "1", "--no-image")
            assert result.code == 0 and result.out, "%r: %r" % (args, result)
    assert run("run", TINY, IMAGE, "What?", "--no-image").code == 2
    assert run("run", TINY, "--no-image").code == 2


def case_files_in_odd_dress(folder):
    """An image that is there is found, as it was pasted."""
    for name in ("my pic.png", "ü.png", "no ending", "100%.png"):
        shutil.copy(IMAGE, os.path.join(folder, name))
    wanted = run("run", TINY, IMAGE, "-n", "2", "-q").out
    for word in ("my pic.png", "my pic.png ", " my pic.png\n", "'my pic.png'", "my\\ pic.png", '"./my pic.png"', "file://%s/my%%20pic.png" % folder,
                 folder + "/my%20pic.png", "ü.png", "file://%s/%%C3%%BC.png" % folder, "no ending", "100%.png", "~/my pic.png"):
        for args in ([word], ["-i", word]):
            result = run("run", TINY, *args, "-n", "2", "-q", cwd=folder, HOME=folder)
            assert result.code == 0 and result.out == wanted, "%r: %r" % (args, result)


def case_file_that_is_neither(folder):
    for name, data in (("words", b"only words\n"), ("words.txt", b"only words\n"), ("empty", b""), ("script", b"#!/bin/sh\n")):
        path = os.path.join(folder, name)
        open(path, "wb").write(data)
        result = run("run", TINY, path)
        assert result.code == 2 and b"neither an image nor a model" in result.err, result
    for name, data in (("a.jpg", b"words"), ("b.heic", b"words"), ("c", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"), ("d", b"GIF89a" + bytes(20)),
                       ("e", b"II*\x00" + bytes(20)), ("f", b"8BPS" + bytes(20)), ("g", b"%PDF-1.7\n" + bytes(20))):
        path = os.path.join(folder, name)
        open(path, "wb").write(data)
        result = run("run", TINY, path)
        assert result.code == 1 and name.encode() in result.err, result


def case_blank_prompts(folder):
    """Are refused wherever they come from; a line of a conversation is passed over."""
    path = os.path.join(folder, "blank.txt")
    for blank in (" ", "\t", "\n\n", "  \r\n ", "\u00a0", "\u200b", "\ufeff \u200e"):
        for args in (["run", TINY, IMAGE, blank], ["run", TINY, IMAGE, "-p", blank], ["chat", TINY, IMAGE, blank]):
            result = run(*args)
            assert result.code == 2 and b"blank" in result.err and not result.out, "%r: %r" % (args, result)
        open(path, "w", encoding="utf-8", newline="").write(blank)
        for args, stdin in ((["--prompt-file", path], b""), (["--prompt-file", "-"], blank.encode())):
            result = run("run", TINY, IMAGE, *args, stdin=stdin)
            assert result.code == 1 and b"expected a question" in result.err and not result.out, "%r: %r" % (blank, result)
        result = run("chat", TINY, IMAGE, "-n", "1", stdin=blank.encode() + b"\n")
        assert result.code == 0 and not result.out, "%r: %r" % (blank, result)


def case_paths_of_options(folder):
    """As they are pasted, behind options, too."""
    for name in ("my pic.png", "q ü.txt"):
        shutil.copy(IMAGE, os.path.join(folder, name))
    question = os.path.join(folder, "q ü.txt")
    open(question, "w").write("What is it?")
    model = os.path.join(folder, "my model")
    shutil.copytree(TINY, model)
    wanted = run("run", TINY, IMAGE, "What is it?", "-n", "2", "-q").out
    for form in (lambda p: p, lambda p: "file://" + p.replace(" ", "%20").replace("ü", "%C3%BC"), lambda p: "'" + p + "'",
                 lambda p: p.replace(" ", "\\ "), lambda p: p + " "):
        result = run("run", "-m", form(model), "-i", form(folder + "/my pic.png"), "--prompt-file", form(question), "-n", "2", "-q")
        assert result.code == 0 and result.out == wanted, "%s: %r" % (form(model), result)
    for option, address in (("-m", "https://huggingface.co/apple/FastVLM-0.5B"), ("--prompt-file", "https://example.com/q.txt"),
                            ("-i", "https://example.com/a.png")):
        result = run("run", option, address, IMAGE, *([] if option == "--prompt-file" else ["x y"]))
        assert result.code == 2 and b"is an address; download the" in result.err, result
    assert b"/none.txt: No such file" in run("run", TINY, IMAGE, "--prompt-file", "file:///none.txt".replace("file://", "")).err


def case_a_directory_of_images(folder):
    """Is no model, and what to type is said."""
    photos = os.path.join(folder, "photos")
    os.mkdir(photos)
    for name in ("b.png", "a.png", "notes.txt", "a.png.json"):
        shutil.copy(IMAGE, os.path.join(photos, name))
    open(os.path.join(photos, "notes.txt"), "w").write("words")
    open(os.path.join(photos, "a.png.json"), "w").write("{}")
    for args in (["run", photos, "What is it?"], ["run", TINY, photos, "What is it?"], ["run", photos + "/", IMAGE], ["run", "-m", photos, IMAGE], ["chat", photos]):
        result = run(*args)
        assert result.code == 2 and b"is a directory of images, not a model; name one or more of its images, such as " in result.err, result
        assert (photos + "/a.png").encode() in result.err, result
    for args in (["info", photos], ["doctor", photos], ["bench", photos]):
        result = run(*args)
        assert result.code == 2 and b"is a directory of images, not a model; expected a checkpoint directory" in result.err, result
    for args in (["pack", photos, "-o", folder + "/a"], ["eval", TINY, photos, IMAGE], ["export", "hf", photos, "-o", folder + "/a"]):
        result = run(*args)
        assert result.code == 1 and b"found a directory of images" in result.err, result
    os.symlink(os.path.join(TINY, "tokenizer.json"), os.path.join(photos, "tokenizer.json"))  # a checkpoint that lacks something
    result = run("info", photos)
    assert result.code == 1 and b"no config.json" in result.err and b"images" not in result.err, result


def case_help(folder):
    """In any order, of every command."""
    for words in (["run"], ["pack"], ["npu"], ["npu", "compile"], ["export"], ["export", "onnx"], ["doctor"]):
        wanted = run(*words, "--help")
        assert wanted.code == 0 and wanted.out.startswith(b"usage: fastvlm " + " ".join(words).encode()), wanted
        for args in (["help", *words], ["--help", *words], [*words, "-h"], [*words[:1], "help", *words[1:]] if len(words) > 1 else [*words, "-h"]):
            result = run(*args)
            assert result.code == 0 and result.out == wanted.out and not result.err, "%r: %r" % (args, result)
    for args in (["version"], ["-V"], ["--version"]):
        assert run(*args).out.startswith(b"fastvlm 0.") and run(*args).code == 0, args
    for args in (["help"], ["--help"], ["-h"], ["help", "help"]):
        assert run(*args).out.startswith(b"fastvlm ") and run(*args).code == 0
    result = run("help", "flyy")
    assert result.code == 2 and b"unknown command \"flyy\"" in result.err, result
    for words in ([], ["run"], ["pack"], ["npu"], ["export"], ["bench"], ["doctor"]):
        assert b"VERB" not in run(*words, "--help").out and b"verb" not in run(*words, "--help").out, words


def case_values(folder):
    """An option that takes none, and standard output as one."""
    for args, text in ((["run", TINY, IMAGE, "--json=yes"], b"--json takes no value"), (["info", "--tensors=1", TINY], b"--tensors takes no value"),
                       (["pack", TINY, "-o", "-"], b"standard output cannot be written to"),
                       (["export", "gguf", TINY, "-o", "-"], b"standard output cannot be written to"), (["run", TINY, "--jsom"], b"unknown option --jsom")):
        result = run(*args, cwd=folder)
        assert result.code == 2 and text in result.err and not os.listdir(folder), "%r: %r" % (args, result)


def case_ranges(folder):
    """Are shown as numbers that can be typed."""
    for args, text in ((["-n", "abc"], b"an integer from 0 to "), (["--threads", "x"], b"an integer from 0 to 1024"), (["--context", "x"], b"an integer from ")):
        result = run("run", TINY, IMAGE, *args)
        assert result.code == 2 and text in result.err and b"e+" not in result.err, result


def case_prompt_file(folder):
    def file(data, name="question.txt"):
        path = os.path.join(folder, name)
        open(path, "wb").write(data)
        return path

    wanted = run("run", TINY, IMAGE, "-p", "What do you see?\nIn detail.", "-n", "6", "-q")
    assert wanted.code == 0
    for data in (b"What do you see?\nIn detail.", b"What do you see?\nIn detail.\n", b"\xef\xbb\xbfWhat do you see?\nIn detail.\r\n"):
        for args, stdin in ((["--prompt-file", file(data)], b""), (["--prompt-file", "-"], data)):
            result = run("run", TINY, IMAGE, *args, "-n", "6", "-q", stdin=stdin)
            assert result.code == 0 and result.out == wanted.out, "%r: %r" % (data, result)
    for data, text in ((b"", b"is empty"), (b"\n", b"is empty"), (b"\xef\xbb\xbf\r\n", b"is empty"), (b"a\0b", b"byte 1 is a NUL"),
                       (b"caf\xe9", b"not valid UTF-8 at byte 3"), ("Was?".encode("utf-16"), b"UTF-16"), (b"<image> and <image>", b"2 \"<image>\" marks"),
                       (b"x" * (17 << 20), b"too long")):
        for args, stdin in ((["--prompt-file", file(data)], b""), (["--prompt-file", "-"], data)):
            result = run("run", TINY, IMAGE, *args, "-q", stdin=stdin)
            assert result.code == 1 and text in result.err and not result.out and result.err.count(b"\n") == 1, "%r: %r" % (data[:40], result)
    for path in ("/none.txt", folder, "/none/such"):
        assert run("run", TINY, IMAGE, "--prompt-file", path).code == 1, path
    assert run("run", TINY, IMAGE, "--prompt-file", "-", "-p", "x y").code == 2
    assert run("run", TINY, IMAGE, "What is it?", "--prompt-file", "-").code == 2
    assert run("run", TINY, "-", "--prompt-file", "-").code == 2
    assert run("run", TINY, "--prompt-file", "-", stdin=b"What is it?").code == 2
    assert run("run", TINY, "--no-image", "--prompt-file", "-", "-n", "1", "-q", stdin=b"What is it?").code == 0


# ---- exit codes: 2 for arguments, 1 for failures

def case_wrong_arguments(folder):
    out = os.path.join(folder, "out")
    rows = [[verb, option] for verb in ("run", "chat", "info", "bench", "pack", "verify", "eval", "export", "pull", "doctor", "export onnx",
                                        "export calib", "export lut", "export tokenizer", "export genie", "export gguf", "export hf", "export all")
            for option in ("--no-such-option",)]
    for value in ("100", "1", "63", "-64", "4160", "1e3", "64.5", "", "many", "0x40", "99999999999999999999", "64 "):
        rows += [[verb, TINY, IMAGE, "--image-size", value] for verb in ("run", "chat", "bench")]
        rows += [[verb, TINY, "--image-size", value] for verb in ("info", "doctor")]
        rows += [["eval", TINY, TINY, IMAGE, "--image-size", value], ["eval", "--task", DEMO_TASK, "--image-size", value]]
        rows += [["export " + kind, TINY, "-o", out, "--image-size", value] for kind in ("onnx", "all")]
        rows += [["export calib", IMAGE, "-o", out, "--image-size", value]]
    for option, values in (("--threads", ("-1", "1025", "two")), ("--vision", ("int3", "")), ("--decoder", ("q5", "F32")), ("--kv", ("f64",)),
                           ("--temperature", ("nan", "inf", "-1", "hot")), ("--top-p", ("1.1", "-0.1")), ("--seed", ("-1", "x")),
                           ("--max-new-tokens", ("-1", "1e9")), ("--context", ("-1", "x")), ("--fit", ("squeeze",)), ("--max-megapixels", ("0",)),
                           ("--top-k", ("5",)), ("--stop", ("", b"\xff")), ("--system", (b"\xff",)), ("--context", ("1000000",))):
        rows += [[verb, TINY, IMAGE, option, value] for value in values for verb in ("run", "chat")]
    rows += [["run", TINY, IMAGE, "-p", b"a\xffb"], ["run", TINY, IMAGE, "three <image> and <image>"], ["run", TINY, IMAGE, "-p", "<image><image>"],
             ["run", TINY, "-", "-"], ["run"], ["run", TINY], ["run", TINY, TINY, IMAGE], ["run", TINY, IMAGE, "one a", "two b"],
             ["run", TINY, IMAGE, "--greedy", "--temperature", "1"], ["run", TINY, IMAGE, "--threads"], ["run", TINY, "-i", "https://example.com/a.png"],
             ["chat", "-i", "http://example.com/a.png"], ["info", IMAGE], ["info", "two words"], ["doctor", IMAGE], ["info", TINY, TINY],
             ["bench", TINY, "--stages", "none"], ["bench", TINY, "--reps", "0"], ["bench", TINY, IMAGE, IMAGE], ["bench", TINY, IMAGE, "-i", IMAGE],
             ["bench", TINY, "--format", "xml"], ["pack"], ["pack", TINY], ["pack", TINY, "-o", out, "--min-cosine", "1"],
             ["pack", TINY, "-o", out, "--rounding", "search"], ["pack", TINY, IMAGE, "-o", out], ["pack", TINY, "-o", out, "--pure"], ["verify"],
             ["verify", "a", "b"], ["eval"], ["eval", TINY, TINY], ["eval", "--task", DEMO_TASK, "--svg", out], ["eval", "--answers", out, TINY, TINY, IMAGE],
             ["eval", "--layers"], ["eval", TINY, TINY, IMAGE, "-p", b"\xff"], ["eval", "--task", DEMO_TASK, "--min", "101"], ["export"],
             ["export none"], ["export onnx", TINY], ["export onnx", "-o", out], ["export onnx", TINY, TINY, "-o", out],
             ["export onnx", TINY, "-o", out, "--only", "none"], ["export onnx", TINY, "-o", out, "--opset", "12"],
             ["export onnx", TINY, "-o", out, "--qdq", "--precision", "f16"], ["export onnx", TINY, "-o", ""], ["export hf", TINY, "-o", out, "--dtype", "q4"],
             ["export gguf", TINY, "-o", out, "--type", "q5"], ["export calib", "-o", out], ["export calib", IMAGE, "--random", "2", "-o", out],
             ["export all", TINY, "-o", out, "--only", "x"], ["export genie", TINY, "-o", out, "--context", "1"], ["pull"], ["pull", "a/b", "c/d"],
             ["pull", "../x"], ["pull", "a b"], ["pull", "a/b", "-j", "17"], ["pull", "a/b", "-o", ""],
             ["pack", TINY, "-o", ""], ["export gguf", TINY, "-o", ""], ["export hf", TINY, "-o", ""], ["run", "-m", "", IMAGE], ["run", TINY, "-i", ""],
             ["run", TINY, IMAGE, "--dump", ""], ["run", TINY, IMAGE, "--prompt-file", ""], ["eval", "--task", ""], ["eval", "--task", DEMO_TASK, "--answers", ""],
             ["eval", TINY, TINY, IMAGE, "--svg", ""], ["bench", "-i", ""], ["pull", "a/b", "--retries", "21"], ["nonsense"], [], ["npu"], ["npu none"],
             ["npu compile"], ["npu compile", TINY], ["npu compile", TINY, "-o", ""], ["npu compile", TINY, "-o", out, "--image-size", "100"],
             ["npu compile", TINY, "-o", out, "--precision", "w4"], ["npu info"], ["npu info", "a", "b"], ["npu run", "a"], ["npu eval", TINY],
             ["npu socs", "x"], ["npu check", "x"], ["npu setup", "x"]]
    for row in rows:
        words = [w if isinstance(w, bytes) else w.encode() for w in row]
        if words and words[0].startswith((b"export ", b"npu ")):
            words[:1] = words[0].split(b" ")
        result = run(*words)
        assert result.code == 2 and not result.out and result.err, "%r: %r" % (row, result)
        assert not os.path.exists(out), row


def case_failures(folder):
    """What a file holds, or that it is not there, is no usage."""
    empty, words = os.path.join(folder, "empty.gguf"), os.path.join(folder, "words.jpg")
    open(empty, "w").close()
    open(words, "w").write("words")
    rows = [["run", empty, IMAGE], ["run", TINY, words], ["run", TINY, "-i", "/none.png"], ["run", "-m", "/none", IMAGE], ["run", TINY, folder + "/../.", "-i", words],
            ["info", folder], ["info", "-m", "/none"], ["doctor", folder], ["bench", empty, "--reps", "1"], ["bench", TINY, "-i", words], ["chat", TINY, words],
            ["pack", "/none", "-o", folder + "/a"], ["pack", folder, "-o", folder + "/a"], ["verify", "/none"], ["verify", words], ["verify", folder],
            ["eval", TINY, TINY, words], ["eval", TINY, empty, IMAGE], ["eval", "--task", folder], ["eval", TINY, "models/demo", IMAGE],
            ["export", "onnx", folder, "-o", folder + "/a"], ["export", "lut", "/none", "-o", folder + "/a"], ["export", "calib", words, "-o", folder + "/a"],
            ["run", TINY, IMAGE, "--vision", "int8"], ["run", TINY, IMAGE, "--dump", words]]
    rows.remove(["run", TINY, folder + "/../.", "-i", words])
    for row in rows:
        result = run(*row)
        assert result.code == 1 and result.err, "%r: %r" % (row, result)


# ---- outputs are refused before anything is computed

def case_outputs_first(folder):
    if not has_demo_model():
        return
    link = os.path.join(folder, "link")
    os.symlink("/nonexistent/target", link)
    file = os.path.join(folder, "file")
    open(file, "w").write("old")
    bad = ["/nonexistent/a", folder, "/dev/null", "/dev/full", link, file + "/a", "/proc/none"]
    for path in bad:
        for args in (["eval", "--task", DEMO_TASK, "--answers", path], ["eval", TINY, TINY, IMAGE, "--svg", path],
                     ["pack", "models/demo", "-o", path, "--vision", "int8", "-q"], ["pack", "/no/model", "-o", path]):
            result = run(*args)  # no models are opened, no questions asked, nothing is calibrated: at once
            assert result.code == 1 and not result.out and os.path.basename(path).encode() in result.err, "%r: %r" % (args, result)
            assert b"demonstration" not in result.err and b"warning" not in result.err, "%r: %r" % (args, result)
    for path in (file, file + "/a", "/proc/none", "/dev/null"):
        result = run("run", TINY, IMAGE, "--dump", path, "-q")
        assert result.code == 1 and not result.out, "%r: %r" % (path, result)
    assert open(file).read() == "old"
    # what can be written is
    for path in (os.path.join(folder, "new"), file):
        assert run("eval", "--task", DEMO_TASK, "--limit", "2", "--answers", path, "-q").code == 0
        assert open(path).read().count("\n") == 2
    assert sorted(os.listdir(folder)) == ["file", "link", "new"]


def case_results_are_kept(folder):
    """The second model cannot be opened: what the first one answered is printed."""
    result = run("eval", "--task", DEMO_TASK, "--limit", "2", "--json", "models/demo", folder)
    assert result.code == 1 and len(json.loads(result.out)["results"]) == 1, result


# ---- JSON

def case_demonstration(folder):
    if not has_demo_model():
        return
    rows = [(["run", SIGN, "--json", "-q"], lambda j: j["model"]), (["info", "--json"], lambda j: j),
            (["bench", "--json", "--reps", "1", "--stages", "load"], lambda j: j),
            (["eval", "--task", DEMO_TASK, "--limit", "1", "--json", "-q"], lambda j: j["results"][0])]
    for args, part in rows:
        assert part(json.loads(run(*args).out))["demonstration"] is True, args
        verb, *rest = [a for a in args if a != SIGN]
        extra = [IMAGE, "-n", "1"] if verb == "run" else []
        result = run(verb, *rest, *extra, "models/demo" if verb == "eval" else TINY)
        assert part(json.loads(result.out))["demonstration"] is False, result


def case_names_that_are_not_utf8(folder):
    """Replaced in JSON; the finished answer is never lost."""
    for name in (b"mod\xff\xe9l", b"caf\xe9", b"\x80", b"cut\xe2\x82", "gut-ü".encode()):
        model = os.path.join(os.fsencode(folder), name)
        shutil.copytree(os.fsencode(TINY), model)
        wanted = name.decode("utf-8", "replace")
        for args in (["run", model, IMAGE, "-n", "1", "--json", "-q"], ["info", model, "--json", "--tensors"],
                     ["bench", model, "--json", "--reps", "1", "--stages", "load"], ["eval", model, model, IMAGE, "-n", "1", "--json", "-q"],
                     ["eval", "--task", DEMO_TASK, "--limit", "1", "--json", "-q", model]):
            result = run(*args)
            assert result.code == 0, "%r: %r" % (args, result)
            json.loads(result.out.decode("utf-8"))
            assert wanted in json.dumps(json.loads(result.out), ensure_ascii=False), "%r: %r" % (args, result)
        image = os.path.join(model, name + b".png")
        shutil.copy(IMAGE, image)
        result = run("eval", TINY, TINY, image, "-n", "1", "--json", "-q")
        assert result.code == 0 and wanted in json.loads(result.out)["images"][0]["path"], result


if __name__ == "__main__":
    main(sys.modules["__main__"])
