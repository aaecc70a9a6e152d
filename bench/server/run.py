#!/usr/bin/env python3
"""Requests a second and time to the first token of fastvlm serve, and a soak with hostile clients.

    bench/server/run.py [--clients 1,4,16,64] [--seconds 10] [--model FILE] [-- OPTIONS OF SERVE]
    bench/server/run.py --soak 1800
    bench/server/run.py --url http://127.0.0.1:8000 --text        any server of OpenAI's protocol, text only

Starts build/release/fastvlm (FASTVLM names another). Every client sends one streamed request after the other. Images:
"same" is one for all, which is encoded once; "different" is another one each time; "none" is text. Prints a table in
Markdown. Python's standard library only."""
import argparse
import base64
import http.client
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHAT = "/v1/chat/completions"
QUESTION = "What does the text say?"


def start(model, options):
    program = os.environ.get("FASTVLM", os.path.join(ROOT, "build/release/fastvlm"))
    command = [program, "serve", *([model] if model else []), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        found = re.match(r"listening on http://(\S+):(\d+),", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found.group(1), int(found.group(2))
        last = line
    sys.exit("bench/server: %s" % last)


def picture(kind, n):
    """The sign of examples/, whole; different: the same pixels in a file that has other bytes."""
    with open(os.path.join(ROOT, "examples/images/sign.png"), "rb") as f:
        data = f.read()
    if kind == "different":  # an extra chunk before the last 12 bytes, IEND
        text = b"n\0%d" % n
        chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
        data = data[:-12] + chunk + data[-12:]
    return "data:image/png;base64," + base64.b64encode(data).decode()


def request(kind, n, tokens, model=None):
    content = QUESTION
    if kind != "none":
        content = [{"type": "image_url", "image_url": {"url": picture(kind, n)}}, {"type": "text", "text": QUESTION}]
    return json.dumps({"messages": [{"role": "user", "content": content}], "stream": True, "max_tokens": tokens, "temperature": 0,
                       "stream_options": {"include_usage": True}, **({"model": model} if model else {})})


class Late(Exception):
    """The row is over, the answer is not."""


class Unanswered(Exception):
    """The connection was closed before a byte of the answer."""


def quantile(came, waited, part):
    """The time by which a part of the first tokens has come, in ms, or "> N" where that was not seen. came: those that did; waited: how long
    others had been waited for when the row ended, which says that they take longer (Kaplan and Meier's estimate)."""
    left, share = len(came) + len(waited), 1.0
    for at, late in sorted([(t, False) for t in came] + [(t, True) for t in waited]):
        if not late:
            share *= 1 - 1 / left
            if share <= 1 - part + 1e-9:
                return "%.0f" % (at * 1e3)
        left -= 1
    return "> %.0f" % (max(came + waited) * 1e3) if came or waited else "-"


class Load:
    """Clients that ask for some seconds; what they saw. cut: answers that are not complete then are left. first: seconds to each first token;
    waited: of those that had not come."""

    TEXT = re.compile(rb'"content": ?"[^"]')
    USAGE = re.compile(rb'"completion_tokens": ?(\d+)')

    def __init__(self, host, port, kind, tokens, model=None, cut=False):
        self.host, self.port, self.kind, self.tokens, self.model, self.cut = host, port, kind, tokens, model, cut
        self.lock, self.n, self.first, self.waited, self.total, self.made, self.failed = threading.Lock(), 0, [], [], [], 0, 0

    def receive(self, s, end):
        if self.cut:
            left = end - time.perf_counter()
            if left <= 0:
                raise Late
            s.settimeout(left)
        try:
            data = s.recv(1 << 16)
        except socket.timeout:
            raise Late if self.cut else TimeoutError("stalled")
        if not data:
            raise ConnectionError("closed in the midst of an answer")
        return data

    def one(self, s, end):
        """A request on an open connection. The answer is looked through, not parsed: the clients share the machine with the server."""
        with self.lock:
            self.n += 1
            n = self.n
        body = request(self.kind, n, self.tokens, self.model).encode()
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body))
        began, first, answer, seen, made = time.perf_counter(), None, b"", 0, 0
        try:
            s.sendall(head + body)
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                answer += self.receive(s, end)
                if answer[9:12] not in (b"", b"200"):
                    raise ConnectionError(answer[:200].decode("utf-8", "replace"))
                found = [m.end() for m in self.TEXT.finditer(answer, seen)]
                if found:
                    first = first or time.perf_counter() - began
                    made, seen = made + len(found), found[-1]
            usage = self.USAGE.findall(answer)
            made = int(usage[-1]) if usage else made
            if first is None:
                raise ConnectionError("an answer without text")
        except Late:
            pass
        except OSError as e:
            if not answer and not isinstance(e, TimeoutError):
                raise Unanswered
            raise
        with self.lock:
            self.made += made
            if first is None:
                self.waited.append(time.perf_counter() - began)
            else:
                self.first.append(first)
            if answer.endswith(b"\r\n0\r\n\r\n"):
                self.total.append(time.perf_counter() - began)

    def client(self, end):
        s, idle = None, False
        while time.perf_counter() < end:
            try:
                if not s:
                    s = socket.create_connection((self.host, self.port), timeout=600)
                self.one(s, end)
                idle = True
            except (OSError, Unanswered) as e:
                if not (idle and isinstance(e, Unanswered)):  # an idle connection may be closed: asked again on another
                    with self.lock:
                        self.failed += 1
                if s:
                    s.close()
                s, idle = None, False
        if s:
            s.close()

    def run(self, clients, seconds):
        began = time.perf_counter()
        threads = [threading.Thread(target=self.client, args=(began + seconds,)) for _ in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        took = time.perf_counter() - began
        return (clients, self.kind, len(self.total) / took, self.made / took, quantile(self.first, self.waited, 0.5),
                quantile(self.first, self.waited, 0.95), self.failed)


def table(args, host, port):
    print("| clients | images | requests/s | tokens/s | first token, median ms | 95 % | failed |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    kinds = ["none"] if args.text else ["same", "different"]
    Load(host, port, kinds[0], args.tokens).run(1, 0.5)  # warm
    for kind in kinds:
        for clients in args.clients:
            print("| %d | %s | %.1f | %.0f | %s | %s | %d |" % Load(host, port, kind, args.tokens).run(clients, args.seconds), flush=True)


# ---- the soak ---------------------------------------------------------------------------------


def metrics(host, port):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/metrics")
    rows = [line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines() if line[:1] != "#"]
    connection.close()
    return {name[len("fastvlm_"):]: float(value) for name, value in rows}


def hostile(host, port, end, seed):
    """Vanishes, sends garbage, stalls, asks nonsense."""
    rng = random.Random(seed)
    while time.perf_counter() < end:
        try:
            body = request(rng.choice(["same", "different", "none"]), rng.randrange(1 << 30), 400).encode()
            head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body))
            with socket.create_connection((host, port), timeout=30) as s:
                what = rng.randrange(6)
                if what == 0:  # leaves before the answer
                    s.sendall(head + body)
                elif what == 1:  # leaves in the midst of it
                    s.sendall(head + body)
                    s.recv(100)
                elif what == 2:  # leaves in the midst of the question
                    s.sendall(head + body[:rng.randrange(len(body))])
                elif what == 3:
                    s.sendall(rng.randbytes(rng.randrange(5000)))
                    s.settimeout(0.2)
                    s.recv(100)
                elif what == 4:  # garbage within JSON
                    bad = bytearray(body)
                    for _ in range(8):
                        bad[rng.randrange(len(bad))] = rng.randrange(256)
                    s.sendall(head + bytes(bad))
                    s.recv(65536)
                else:  # a byte now and then
                    for byte in (head + body)[:5]:
                        s.sendall(bytes([byte]))
                        time.sleep(0.2)
                if rng.random() < 0.5:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        except OSError:
            pass


def resident_mb(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def soak(args, process, host, port):
    began = time.perf_counter()
    end = began + args.soak
    good = [Load(host, port, kind, args.tokens) for kind in ("same", "different")]
    threads = [threading.Thread(target=hostile, args=(host, port, end, seed)) for seed in range(12)]
    threads += [threading.Thread(target=load.client, args=(end,)) for load in good for _ in range(2)]
    for t in threads:
        t.start()
    print("| minute | resident MB | done | cancelled | failed | refused | running | queued | connections |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")

    def row(m):
        outcome = [m['jobs_total{outcome="%s"}' % o] for o in ("done", "cancelled", "failed", "refused")]
        print("| %.1f | %.1f | %d | %d | %d | %d | %d | %d | %d |" % ((time.perf_counter() - began) / 60, resident_mb(process.pid), *outcome,
                                                                       m["jobs_running"], m["jobs_queued"], m["http_connections"]), flush=True)
        return sum(outcome[:3])

    while time.perf_counter() < end:
        time.sleep(min(max(args.soak / 30, 1), max(0, end - time.perf_counter()) + 0.01))
        row(metrics(host, port))
    for t in threads:
        t.join()
    for _ in range(600):
        m = metrics(host, port)
        if not m["jobs_running"] + m["jobs_queued"] and m["http_connections"] <= 1:
            break
        time.sleep(0.1)
    ended = row(m)
    problems = []
    if m["jobs_running"] or m["jobs_queued"] or m["http_connections"] > 1:
        problems.append("something hangs")
    if ended != m["jobs_taken_total"]:
        problems.append("%d jobs taken, %d ended" % (m["jobs_taken_total"], ended))
    if sum(load.failed for load in good):
        problems.append("%d of %d honest requests failed" % (sum(load.failed for load in good), sum(load.n for load in good)))
    print("\n%d honest requests answered; %s" % (sum(len(load.total) for load in good), "; ".join(problems) or "counters add up, nothing hangs"))
    return bool(problems)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16, 64])
    p.add_argument("--seconds", type=float, default=10, help="of each row")
    p.add_argument("--tokens", type=int, default=64, help="of an answer at most")
    p.add_argument("--model", help="default: the demonstration model")
    p.add_argument("--url", help="a server that runs already")
    p.add_argument("--text", action="store_true", help="without images")
    p.add_argument("--soak", type=float, metavar="SECONDS")
    p.add_argument("options", nargs="*", help="of fastvlm serve, behind --")
    args = p.parse_args()
    code = 0
    if args.url:
        address = urllib.parse.urlsplit(args.url)
        table(args, address.hostname, address.port or 80)
        return code
    options = args.options or ["--parallel", "16", "--queue", "256", "--header-timeout", "5", "--body-timeout", "5"]
    if args.soak and not args.options:
        options += ["--image-cache", "4"]  # full within a minute: then memory has to stay where it is
    process, host, port = start(args.model, options)
    try:
        if args.soak:
            code = soak(args, process, host, port)
        else:
            table(args, host, port)
    finally:
        process.terminate()
        code = process.wait(120) or code
    return code


if __name__ == "__main__":
    sys.exit(main())
