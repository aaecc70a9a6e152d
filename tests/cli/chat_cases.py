"""`fastvlm chat`: lines from a pipe, and a person at a terminal. See program.py."""
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse

from program import IMAGE, PROGRAM, ROOT, SIGN, TINY, Terminal, has_demo_model, main, run

QUESTION = b"What does the text say?\n"
ANSWER = b"HELLO\n"
BOM = b"\xef\xbb\xbf"
NATIVE = ("ctrl_c_in_a_pipe", "terminal_ctrl_c", "terminal_ctrl_c_keeps_the_image", "terminal_ctrl_c_twice", "terminate")


def chat(text, *args, cwd=None, **env):
    return run("chat", "-n", "8", *args, stdin=text, cwd=cwd, **env)


def expect(result, code, answers, *texts, what=""):
    assert result.code == code, "%s: expected exit code %d\n%r" % (what, code, result)
    assert result.out == answers, "%s: expected answers %r\n%r" % (what, answers, result)
    for text in texts:
        assert text in result.err, "%s: no %r\n%r" % (what, text, result)


def odd_names(folder):
    """Images whose names shells have to quote."""
    names = ["plain.png", "my pic.png", "it's.png", "two  blanks.png", "par(en)s & more.png", "100%.png", "a%20b.png",
             "ünï.png", "日本.png", 'quo"te.png', "back\\slash.png", "#hash?.png", "-dash.png", "semi;colon$HOME.png"]
    for name in names:
        shutil.copy(SIGN, os.path.join(folder, name))
    return [os.path.join(folder, name) for name in names]


def backslashed(path):
    return "".join(c if c.isalnum() or c in "/._-" or ord(c) > 127 else "\\" + c for c in path)


def pasted(path):
    """The ways in which a path is pasted."""
    single = "'" + path.replace("'", "'\\''") + "'"
    double = '"' + "".join("\\" + c if c in '\\"$`' else c for c in path) + '"'
    url = "file://" + urllib.parse.quote(path)
    return [path, path + " ", "  " + path + "\t ", path + "\u00a0", "\u202a" + path, single, single + " ", double, double + "  ",
            backslashed(path), backslashed(path) + " ", url, url + " ", url.replace("file:///", "file://localhost/"),
            url.replace("file:///", "file:/"), url.replace("file:", "FILE:"), "'" + url + "' "]


def case_pasted_paths(folder):
    paths = odd_names(folder)
    n = 0
    for path in paths:
        for form in pasted(path):
            text = ("/image " + form + "\n").encode()
            result = chat(text + b"/quit\n", TINY)
            assert result.code == 0 and ("image 1 of the next question: " + path + "\n").encode() in result.err, \
                "%r: %r" % (text, result)
            n += 1
    assert n > 200


def case_lines_that_are_paths(folder):
    paths = odd_names(folder)
    for path in paths:
        for form in pasted(path):
            if form.startswith("FILE:") or "\u202a" in form or "\u00a0" in form:
                continue
            result = chat(form.encode() + b"\n/quit\n", TINY)
            assert result.code == 0 and ("image 1 of the next question: " + path + "\n").encode() in result.err, \
                "%r: %r" % (form, result)
    home = {"HOME": folder}
    for line in ("~/my pic.png", "~/my\\ pic.png", "./my pic.png", "'./my pic.png'"):
        assert b"image 1 of" in chat(line.encode() + b"\n/quit\n", TINY, cwd=folder, **home).err, line
    assert b"image 1 of" in chat(b"plain.png\n/quit\n", TINY, cwd=folder).err


def case_several_paths(folder):
    paths = odd_names(folder)[:4]
    for quote in (backslashed, lambda p: "'" + p.replace("'", "'\\''") + "'", lambda p: "file://" + urllib.parse.quote(p)):
        for command in ("/image ", ""):
            text = command + " ".join(quote(p) for p in paths) + " \n/quit\n"
            result = chat(text.encode(), TINY)
            assert result.code == 0 and all(("image %d of the next question: %s\n" % (i + 1, p)).encode() in result.err
                                            for i, p in enumerate(paths)), "%r: %r" % (text, result)
    # one of them is not there: none is added
    result = chat(("/image %s /none.png\n/quit\n" % backslashed(paths[0])).encode(), TINY)
    assert result.code == 1 and b"image 1 of" not in result.err, result


def case_path_and_question(folder):
    if not has_demo_model():
        return
    for path in odd_names(folder)[:4]:
        for form in (backslashed(path), "'" + path.replace("'", "'\\''") + "'", "file://" + urllib.parse.quote(path)):
            expect(chat(form.encode() + b" " + QUESTION), 0, ANSWER, b"image 1 of", what=form)
    result = chat(("'%s' what's it, then?\n" % SIGN).encode(), "-n", "1")
    assert result.code == 0 and b"image 1 of" in result.err and result.out, result


def case_bytes(folder):
    """A byte order mark, NULs, other encodings."""
    if not has_demo_model():
        return
    image = b"/image examples/images/sign.png\n"
    expect(chat(BOM + image + QUESTION), 0, ANSWER, what="BOM before a command")
    expect(chat(BOM + QUESTION, SIGN), 0, ANSWER, what="BOM before a question")
    expect(chat(BOM), 0, b"", what="BOM only")
    for text in (BOM + b"Why?\n", b"Why?\n"):
        assert b"you:   Why?\n" in chat(text + b"/history\n", TINY).err, text
    expect(chat(b"\n" + BOM + image + QUESTION), 0, ANSWER, what="BOM of a second file")
    for line, text in ((b"What\0?\n", b"NUL"), (b"\0\n", b"NUL"), (b"caf\xe9?\n", b"not valid UTF-8 at byte 3"), (b"\x80\n", b"not valid"),
                       (b"\xed\xa0\x80\n", b"not valid"), (b"\xc0\xaf\n", b"not valid"), (b"\xf4\x90\x80\x80\n", b"not valid"),
                       (b"cut \xe2\x82\n", b"not valid"), ("Was?\n".encode("utf-16"), b"UTF-16"), ("Was?\n".encode("utf-16-be"), b"UTF-16"),
                       ("Was?\n".encode("utf-16-le"), b"UTF-16"), (b"last line \xff", b"not valid")):
        result = chat(line, SIGN)
        assert result.code == 1 and result.out == b"" and b"line 1: " in result.err and text in result.err, "%r: %r" % (line, result)
    # refused and counted; the next question is answered
    expect(chat(b"What\0?\n" + QUESTION, SIGN), 1, ANSWER, b"line 1: byte 4 is a NUL")
    expect(chat(QUESTION + b"caf\xe9?\n", SIGN), 1, ANSWER, b"line 2: not valid UTF-8")
    # but not where the line was to give it its image
    expect(chat(b"/image caf\xe9.png\n" + QUESTION), 1, b"", b"line 1: not valid UTF-8")
    expect(chat(b"'/tmp/caf\xe9.png'\n" + QUESTION), 1, b"", b"line 1: not valid UTF-8")
    expect(chat(QUESTION.replace(b"\n", b"\r\n"), SIGN), 0, ANSWER, what="CRLF")
    expect(chat(QUESTION[:-1], SIGN), 0, ANSWER, what="no newline at the end")
    expect(chat(("Was heißt das? " + "語" * 3 + "\n").encode(), SIGN, "-n", "1"), 0, chat("Was heißt das? 語語語".encode(), SIGN, "-n", "1").out)
    result = run("chat", TINY, "-q", stdin=None, cwd=folder) if False else chat(b"x" * (17 << 20), TINY)
    assert result.code == 1 and b"longer than" in result.err, result


def case_failed_commands(folder):
    """In a pipe nothing is answered without what failed, up to /reset."""
    if not has_demo_model():
        return
    text = os.path.join(folder, "text.txt")
    open(text, "w").write("words\n")
    image = b"/image examples/images/sign.png\n"
    lines = [b"/image none.png", b"/image", b"/image   ", b"/image " + folder.encode(), b"/image " + text.encode(),
             b"/image https://example.com/a.png", b"/image 'none.png", b"/image \"/no ne.png\"", b"/image file:///none.png",
             b"/image file://elsewhere/none.png", b"/image a%zz.png", b"/img examples/images/sign.png", b"/imgae", b"/Image x",
             b"/nonsense", b"/nonsense and more", b"/none/such.png", b"/none.png", b"'/none such.png'", b"~/none.png", b"./none.png",
             b"file:///none.png", b"none.png", b"https://example.com/a.png", b"www.example.com/a", b"C:\\Users\\me\\a.png",
             text.encode(), b"/tmp"]
    for line in lines:
        expect(chat(line + b"\n" + QUESTION), 1, b"", b"line 1 failed", what=line)
        expect(chat(image + QUESTION + line + b"\n" + QUESTION), 1, ANSWER, b"line 3 failed", what=line)
        expect(chat(line + b"\n" + QUESTION + b"/reset\n" + image + QUESTION), 1, ANSWER, what=line)
        result = chat(line + b"\n")
        assert result.code == 1 and result.err.count(b"\n") <= 3, result


def case_lines_that_are_text(folder):
    """Lines that begin like commands or paths and are questions."""
    if not has_demo_model():
        return
    for line in (b" /image is what?", b"\t/nonsense", b" /none/such.png", b"/ is which sign?", b"/5 of it?", b"/?!",
                 b"and/or?", b"Is it a .png?", b"What is in the file photo.jpg", b"e.g.", b"\"Quoted\" words?", b"'tis what?",
                 b"~ what is this?", b"... and?", "/画 は何?".encode(), b"-", b"--help"):
        result = chat(line + b"\n", SIGN, "-n", "1")
        if line.strip().startswith(b"/image"):  # a blank does not turn a command into a question
            assert result.code == 1 and result.out == b"", "%r: %r" % (line, result)
        else:
            assert result.code == 0 and result.out.count(b"\n") == 1, "%r: %r" % (line, result)


def case_image_names_and_questions(folder):
    """A name without a slash in front of a question: the image is asked about, or it is an error."""
    if not has_demo_model():
        return
    shutil.copy(os.path.join(ROOT, SIGN), os.path.join(folder, "sign.png"))
    shutil.copy(os.path.join(ROOT, SIGN), os.path.join(folder, "a b.png"))
    for line in (b"sign.png " + QUESTION, b'"a b.png" ' + QUESTION, b"a\\ b.png " + QUESTION):
        result = chat(line, cwd=folder)
        assert result.code == 0 and result.out == b"HELLO\n" and b"no image yet" not in result.err, "%r: %r" % (line, result)
    for line in (b"nope.png what is it?\n", b'"nope.JPG" what is it?\n', b"./sub/nope.heic what is it?\n", b"nope.gif, what is it?\nnope.png so?\n"):
        result = chat(line, cwd=folder)
        assert result.code == 1 and b"no such file" in result.err, "%r: %r" % (line, result)


def case_commands(folder):
    expect(chat(b"/help\n/?\n/history\n/quit\nnever asked\n", TINY), 0, b"", b"/image FILE", b"the conversation is empty")
    for word in (b"/quit", b"/exit", b"/quit  ", b"  /quit", b"/bye"):
        expect(chat(word + b"\nnever asked\n", TINY), 0, b"", what=word)
    expect(chat(b"/image\t" + IMAGE.encode() + b"\n/quit\n", TINY), 0, b"", b"image 1 of")


def case_image_and_question(folder):
    if not has_demo_model():
        return
    note, left = b"no image yet", b"no question after it"
    result = chat(b"Why?\nAnd why?\n", "-n", "1")
    assert result.code == 0 and result.err.count(note) == 1, result
    assert note in chat(b"Why?\n", "-q", "-n", "1").err
    assert note not in chat(QUESTION, SIGN).err
    assert note not in chat(b"/image examples/images/sign.png\n" + QUESTION + QUESTION).err
    assert note in chat(b"/image examples/images/sign.png\n" + QUESTION + b"/reset\n" + QUESTION).err
    for text in (b"/image examples/images/sign.png\n", b"/image examples/images/sign.png\n/quit\n", b""):
        assert left in chat(text, *([SIGN] if not text else [])).err, text
    assert left not in chat(QUESTION, SIGN).err


# ---- a person at a terminal

PROMPT = b"> "


def case_terminal_conversation(folder):
    for edit in (True, False):
        t = Terminal("chat", TINY, "-n", "4", TERM="xterm" if edit else "dumb")
        t.wait_for(b"type /help")
        t.wait_for(PROMPT)
        t.type(b"/image " + IMAGE.encode() + b" \r")
        t.wait_for(b"image 1 of the next question")
        t.type("Was ist das, ü?\r".encode())
        t.wait_for(PROMPT, 3)
        t.type(b"/history\r")
        t.wait_for("you:   Was ist das, ü?".encode())
        t.type(b"/none\r")
        t.wait_for(b"unknown command")
        t.type(b"\x03")
        t.wait_for(b"Ctrl-C again")
        t.type(b"Still there?\r")
        t.wait_for(PROMPT, 7)
        t.type(b"\x04")
        assert t.end() == 1, t.screen  # the unknown command


def case_terminal_history_and_arrows(folder):
    t = Terminal("chat", TINY, "-n", "2")
    t.wait_for(PROMPT)
    t.type(b"/none\r")
    t.wait_for(PROMPT, 2)
    if b"\x1b" not in t.screen and b"\r\n" not in t.screen:
        return
    before = t.screen.count(b"unknown command")
    t.type(b"\x1b[A\r")  # up: the line again
    try:
        t.wait_for(b"unknown command", before + 1, 20)
    except AssertionError:
        assert b"^[[A" in t.screen, t.screen  # a program without libedit
        print("skipped: no libedit")
        os.kill(t.pid, signal.SIGTERM)
        t.end()
        return
    t.type(b"/hi\x1b[Dx\x1b[C\x7f\x7f\x7f")  # left, right, backspace
    t.type(b"\x15/history\r")
    t.wait_for(b"the conversation is empty")
    t.type(b"half a line\x03")  # Ctrl-C gives a line up
    t.wait_for(b"^C")
    t.type(b"/history\r")
    t.wait_for(b"the conversation is empty", 2)
    t.type(b"\x03")  # on an empty line a second one in a row ends the program
    t.wait_for(b"Ctrl-C again")
    t.type(b"/history\r")
    t.wait_for(b"the conversation is empty", 3)
    t.type(b"\x03")
    t.wait_for(b"Ctrl-C again", 2)
    t.type(b"\x03")
    t.end(60)
    assert b"half a line" not in t.screen[t.screen.rindex(b"^C"):], t.screen


def long_answer(t, n):
    """An answer that would take minutes has begun."""
    t.type(b"What do you see?\r")
    t.wait_for(b"see?", n)
    mark, end = len(t.screen), time.monotonic() + 120
    while len(t.screen) < mark + 20 and time.monotonic() < end:
        t.read()


def case_terminal_ctrl_c(folder):
    for term in ("xterm", "dumb"):
        t = Terminal("chat", "models/demo", SIGN, "-q", "-n", "900", "--ignore-eos", "--threads", "1", TERM=term, FV_CPU="ref")
        t.wait_for(PROMPT)
        long_answer(t, 1)
        prompts = t.screen.count(b"\n> ")
        t.type(b"\x03")
        begun = len(t.screen)
        t.wait_for(b"\n> ", prompts + 1, 60)
        assert len(t.screen) < begun + 600, "the answer went on: %r" % t.screen[begun:]
        t.type(b"/history\r")  # the conversation goes on, with what was said
        t.wait_for(b"model: ")
        t.wait_for(b"\n> ", prompts + 2, 60)  # what is typed before would be echoed into the list
        long_answer(t, 3)
        t.type(b"\x03")
        t.wait_for(b"\n> ", prompts + 3, 60)
        t.type(b"\x03")  # the second one, where nothing is being answered
        t.end(60)
        assert t.code in (0, 1), t.code


def case_terminal_ctrl_c_at_once(folder):
    """Ctrl-C in the instant in which the prompt appears, without a key behind it, 200 times."""
    for term in ("xterm", "dumb"):
        t = Terminal("chat", TINY, TERM=term)
        t.wait_for(PROMPT)
        for i in range(200):
            os.write(t.fd, b"\x03")
            t.wait_for(b"Ctrl-C again", i + 1, 30)
            t.wait_for(PROMPT, t.screen[:t.screen.rindex(b"Ctrl-C again")].count(PROMPT) + 1, 30)
            mark = t.screen.count(PROMPT)
            os.write(t.fd, b"\r")  # two in a row would end the conversation
            t.wait_for(PROMPT, mark + 1, 30)
        t.type(b"/quit\r")
        assert t.end(60) == 0, t.screen[-500:]


def case_terminal_ctrl_c_twice(folder):
    t = Terminal("chat", TINY, IMAGE, "--image-size", "1024", "--threads", "1", FV_CPU="ref")
    t.wait_for(PROMPT)
    t.type(b"What do you see?\r")
    t.wait_for(b"see?")
    time.sleep(1)
    t.type(b"\x03")
    time.sleep(0.05)
    t.type(b"\x03")
    assert t.end(60) in (0, 1), t.code


def case_terminal_ctrl_c_keeps_the_image(folder):
    t = Terminal("chat", TINY, IMAGE, "--image-size", "1024", "--threads", "1", FV_CPU="ref")
    t.wait_for(PROMPT)
    t.type(b"What do you see?\r")
    t.wait_for(b"vision")  # the progress line
    t.type(b"\x03")
    t.wait_for(b"the image stays for the next question", 1, 120)
    t.type(b"/quit\r")
    t.end(60)


def case_ctrl_c_in_a_pipe(folder):
    """Ends an answer; the next question is answered; the second one ends the program."""
    for twice in (False, True):
        run = subprocess.Popen([PROGRAM, "chat", "models/demo", SIGN, "-q", "-n", "400", "--ignore-eos", "--threads", "1"], cwd=ROOT,
                               env={**os.environ, "FV_CPU": "ref"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        run.stdin.write(b"What do you see?\nAnd what else?\n")
        run.stdin.close()
        begun = run.stdout.read(1)
        run.send_signal(signal.SIGINT)
        first = b""
        while not first.endswith(b"\n"):
            first += run.stdout.read(1)
        begun = run.stdout.read(1)
        if twice:
            run.send_signal(signal.SIGINT)
        second = begun + run.stdout.read()
        assert run.wait(60) == 1 and len(first) < 250, (run.returncode, first)
        assert second.endswith(b"\n") != twice, second
        run.stdout.close()
        run.stderr.close()


def case_terminate(folder):
    """SIGTERM ends the program, in the midst of an answer and at the prompt."""
    for begun in (False, True):
        t = Terminal("chat", "models/demo", SIGN, "-q", "-n", "900", "--ignore-eos", "--threads", "1", FV_CPU="ref")
        t.wait_for(PROMPT)
        if begun:
            long_answer(t, 1)
        os.kill(t.pid, signal.SIGTERM)
        assert t.end(60) == 1, t.screen


if __name__ == "__main__":
    main(sys.modules["__main__"])
