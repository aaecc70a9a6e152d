"""A server for the tests beside this file, and a client of http.client. FASTVLM names the program."""
import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

PROGRAM = os.path.abspath(os.environ["FASTVLM"])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = os.path.join(ROOT, "examples/images")
LIMIT = 240  # s, under sanitizers and emulators
CHAT = "/v1/chat/completions"


def image(name="sign.png"):
    with open(os.path.join(IMAGES, name), "rb") as f:
        return f.read()


def data_url(data, kind="image/png"):
    return "data:%s;base64,%s" % (kind, base64.b64encode(data).decode())


def picture(name="sign.png"):
    return {"type": "image_url", "image_url": {"url": data_url(image(name))}}


def words(text):
    return {"type": "text", "text": text}


def user(*parts):
    return {"role": "user", "content": parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(parts)}


def assistant(text):
    return {"role": "assistant", "content": text}


SIGN = user(picture(), words("What does the text say?"))  # HELLO


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.json["choices"][0]["message"]["content"]

    @property
    def error(self):
        return self.json["error"]

    @property
    def events(self):
        """Of a stream, [DONE] left out and checked."""
        assert self.headers["Content-Type"] == "text/event-stream", self.body
        lines = [line for line in self.body.decode().split("\n\n") if line]
        assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines), self.body
        return [json.loads(line[6:]) for line in lines[:-1]]

    def __repr__(self):
        return "%d %r %r" % (self.status, dict(self.headers), self.body[:2000])


class Server:
    """with Server("--parallel", "2") as s: ..."""

    def __init__(self, *args, env=None, model=()):
        self.args = [PROGRAM, "serve", *model, "--port", "0", *args]
        self.env = {**os.environ, **(env or {})}
        self.lines = []

    def __enter__(self):
        self.process = subprocess.Popen(self.args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT, env=self.env)
        self.host = self.port = None
        for line in self.process.stderr:
            self.lines.append(line.decode())
            found = re.match(r"listening on http://(\S+):(\d+),", line.decode())
            if found:
                self.host, self.port = found.group(1), int(found.group(2))
                break
        if not self.port:
            self.process.wait()
            if "built without a server" in self.lines[-1]:
                print("skipped: built without libmicrohttpd")
                sys.exit(77)
            raise RuntimeError("".join(self.lines))
        self.reader = threading.Thread(target=lambda: self.lines.extend(line.decode() for line in self.process.stderr), daemon=True)
        self.reader.start()
        return self

    def stop(self, number=signal.SIGTERM):
        """The exit code; what was printed is in lines."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(LIMIT)
        self.reader.join(LIMIT)
        return self.process.returncode

    def __exit__(self, kind, value, trace):
        code = self.stop()
        text = "".join(self.lines)
        if kind is None:
            assert code == 0, "exit code %s\n%s" % (code, text[-4000:])
        elif "Sanitizer" in text or code:
            print(text[-4000:])

    def connect(self):
        return http.client.HTTPConnection(self.host.strip("[]"), self.port, timeout=LIMIT)

    def call(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connect()
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response, response.read())

    def get(self, path, **headers):
        return self.call("GET", path, headers=headers)

    def chat(self, *messages, **options):
        return self.call("POST", CHAT, {"messages": list(messages), **options})

    def metrics(self):
        """Name, with its labels, to value."""
        answer = self.get("/metrics")
        assert answer.status == 200, answer
        rows = [line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def metric(self, name):
        return self.metrics()["fastvlm_" + name]

    def until(self, what, condition):
        """Polls condition(metrics) until it is true."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            metrics = self.metrics()
            if condition(metrics):
                return metrics
            time.sleep(0.02)
        raise AssertionError("%s: %r" % (what, metrics))

    def raw(self, data=b""):
        """A socket on which data was sent."""
        s = socket.create_connection((self.host.strip("[]"), self.port), timeout=LIMIT)
        s.sendall(data)
        return s


with open(os.path.join(ROOT, "models/demo/added_tokens.json")) as f:
    END_IDS = sorted(json.load(f).values())  # what ends an answer


def endless(s):
    """Options of an answer that goes on up to the context's end."""
    assert s.chat(user("Hi"), max_tokens=1).status == 200
    return {"max_tokens": 900, "temperature": 1, "seed": 1, "logit_bias": {str(id): -100 for id in END_IDS}}


def expect(answer, status, *parts, code=None):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json", answer
    error = answer.error
    assert set(error) == {"message", "type", "param", "code"}, answer
    for part in parts:
        assert part in error["message"], (part, answer)
    assert code is None or error["code"] == code, answer


def read_all(s):
    """Until the server closes."""
    data = b""
    while True:
        try:
            more = s.recv(65536)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


def main(module):
    """Every function named case_*; those named on the command line only."""
    passed, failed, wanted = 0, 0, sys.argv[1:]
    for name, case in sorted(vars(module).items()):
        if not name.startswith("case_") or (wanted and name[5:] not in wanted):
            continue
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                case(folder)
            passed += 1
            print("[       OK ] %s (%.1f s)" % (name[5:], time.monotonic() - began), flush=True)
        except Exception:  # a test that fails in any way has failed
            failed += 1
            traceback.print_exc(file=sys.stdout)
            print("[  FAILED  ] " + name[5:], flush=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(bool(failed))
