"""Runs the program for the tests beside this file, with pipes or in a terminal. FASTVLM names it."""
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = os.path.abspath(os.environ["FASTVLM"])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = os.path.join(ROOT, "tests/data/tiny/checkpoint")
IMAGE = os.path.join(ROOT, "tests/data/tiny/image.png")
SIGN = os.path.join(ROOT, "examples/images/sign.png")
LEAKS = os.path.join(ROOT, "tests/cli/libedit.leaks")
LIMIT = 240  # s, under sanitizers and emulators


def machine(path):
    """Of an ELF file."""
    try:
        return open(path, "rb").read(20)[18:]
    except OSError:
        return b""


EMULATED = machine(PROGRAM) != machine(sys.executable)  # faults and limits are the emulator's


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return "exit code %s\n  out: %r\n  err: %r" % (self.code, self.out[-1500:], self.err[-1500:])


def run(*args, stdin=b"", cwd=None, **env):
    """With pipes; out and err are bytes."""
    done = subprocess.run([PROGRAM, *args], input=stdin, capture_output=True, cwd=cwd or ROOT, timeout=LIMIT,
                          env={**os.environ, **env})
    return Result(done.returncode, done.stdout, done.stderr)


class Terminal:
    """The program in a terminal of its own: typed=True has it read from there, too."""

    def __init__(self, *args, stdin=None, cwd=None, size=None, **env):
        self.screen = b""
        env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent",
               "LSAN_OPTIONS": f"suppressions={LEAKS}:print_suppressions=0", **env}
        env = {k: v for k, v in env.items() if v is not None}
        read, write = os.pipe() if stdin is not None else (None, None)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if read is not None:
                os.dup2(read, 0)
                os.close(read)
                os.close(write)
            os.chdir(cwd or ROOT)
            os.execve(PROGRAM, [PROGRAM, *args], env)
        if read is not None:
            os.close(read)
            os.write(write, stdin)
            os.close(write)
        self.code = None

    def read(self, seconds=0.05):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            self.screen += data
            return bool(data)
        return None

    def wait_for(self, text, n=1, seconds=LIMIT):
        """Until text has come n times."""
        end = time.monotonic() + seconds
        while self.screen.count(text) < n:
            assert time.monotonic() < end and self.read() is not False, "no %r in %r" % (text, self.screen[-2000:])

    def type(self, keys):
        time.sleep(0.3)  # a person's pause: the program may still be about to read
        os.write(self.fd, keys)

    def end(self, seconds=LIMIT):
        """Reads to the end; the exit code."""
        end = time.monotonic() + seconds
        while self.read() is not False:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError("does not end; %r" % self.screen[-2000:])
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return self.code


def has_demo_model():
    return b"no built-in demonstration model" not in run("doctor").out


def main(module):
    """Every function named case_*; those named on the command line only."""
    passed, failed, wanted = 0, 0, sys.argv[1:]
    for name, case in sorted(vars(module).items()):
        if not name.startswith("case_") or (wanted and name[5:] not in wanted):
            continue
        if EMULATED and name[5:] in getattr(module, "NATIVE", ()):
            print("skipped: %s (emulated)" % name[5:])
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                case(folder)
            passed += 1
            print("[       OK ] " + name[5:], flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            failed += 1
            print("%s: %s\n[  FAILED  ] %s" % (type(error).__name__, error, name[5:]), flush=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(bool(failed))
