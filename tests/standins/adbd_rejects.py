#!/usr/bin/env python3
"""The stand-in for adbd must refuse wrong use: each case breaks the protocol, or asks its shell for
what a phone does not have, and looks at what the stand-in makes of it.

    adbd_rejects.py FOLDER        prints "N passed, N failed"
"""
import os
import socket
import struct
import subprocess
import sys

HEADER = struct.Struct("<6I")
STANDIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "adbd.py")


def number(name):
    return struct.unpack("<I", name)[0]


class Host:
    """A host that says what it is told to."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, name, arg0=0, arg1=0, data=b"", magic=None, n=None):
        command = number(name)
        self.sock.sendall(HEADER.pack(command, arg0, arg1, len(data) if n is None else n, sum(data),
                                      command ^ 0xffffffff if magic is None else magic) + data)

    def receive(self):
        """(name, arg0, arg1, data), or None when the connection has ended."""
        head = self.exactly(HEADER.size)
        if head is None:
            return None
        command, arg0, arg1, n, _, _ = HEADER.unpack(head)
        return struct.pack("<I", command), arg0, arg1, self.exactly(n)

    def exactly(self, n):
        data = b""
        while len(data) < n:
            try:
                part = self.sock.recv(n - len(data))
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        return data

    def greet(self):
        self.send(b"CNXN", 0x01000001, 1 << 20, b"host::features=shell_v2\0")
        assert self.receive()[0] == b"CNXN"
        return self

    def ends(self):
        while True:
            message = self.receive()
            if message is None:
                return True

    def open(self, name):
        self.send(b"OPEN", 7, 0, name + b"\0")
        return self.receive()

    def shell(self, command):
        """Exit code, standard output and error of a command."""
        name, theirs, _, _ = self.open(b"shell,v2,raw:" + command.encode())
        assert name == b"OKAY"
        data = b""
        while True:
            message = self.receive()
            if message is None or message[0] == b"CLSE":
                break
            if message[0] == b"WRTE":
                data += message[3]
                self.send(b"OKAY", 7, theirs)
        streams, code = {1: b"", 2: b""}, None
        while data:
            kind, n = struct.unpack("<BI", data[:5])
            if kind == 3:
                code = data[5]
            else:
                streams[kind] += data[5:5 + n]
            data = data[5 + n:]
        return code, streams[1].decode(), streams[2].decode()

    def sync(self, request):
        name, theirs, _, _ = self.open(b"sync:")
        assert name == b"OKAY"
        self.send(b"WRTE", 7, theirs, request)
        return self


def main():
    folder = sys.argv[1]
    server = subprocess.Popen([sys.executable, STANDIN, folder], stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline())
    passed = failed = 0

    def check(name, ok):
        nonlocal passed, failed
        passed, failed = passed + bool(ok), failed + (not ok)
        if not ok:
            print("FAILED:", name)

    def violations():
        with open(os.path.join(folder, "log"), encoding="utf-8") as f:
            return sum(line.startswith("VIOLATION") for line in f)

    def refused(name, act):
        before = violations() if os.path.exists(os.path.join(folder, "log")) else 0
        host = Host(port)
        act(host)
        check(name + ": the connection ends", host.ends())
        check(name + ": it is in the log", violations() == before + 1)

    path = b"/data/local/tmp/x"
    refused("OPEN before CNXN", lambda h: h.send(b"OPEN", 1, 0, b"sync:\0"))
    refused("a client for a device", lambda h: h.send(b"CNXN", 0x01000001, 4096, b"device::\0"))
    refused("a wrong magic", lambda h: h.greet().send(b"OPEN", 1, 0, b"sync:\0", magic=0))
    refused("too much data", lambda h: h.greet().send(b"WRTE", 1, 1, b"", n=2 << 20))
    refused("a name without NUL", lambda h: h.greet().send(b"OPEN", 1, 0, b"sync:"))
    refused("no id", lambda h: h.greet().send(b"OPEN", 0, 0, b"sync:\0"))
    refused("an unknown command", lambda h: h.greet().send(b"ABCD"))
    refused("WRTE without data", lambda h: h.greet().sync(b""))
    refused("an unknown sync request", lambda h: h.greet().sync(b"SNED" + struct.pack("<I", 3) + b"abc"))
    refused("SEND without a mode", lambda h: h.greet().sync(b"SEND" + struct.pack("<I", len(path)) + path))
    refused("a path upwards", lambda h: h.greet().sync(b"STAT" + struct.pack("<I", 19) + b"/data/local/tmp/../x"[:19]))
    refused("DATA that is too long", lambda h: h.greet().sync(
        b"SEND" + struct.pack("<I", len(path) + 6) + path + b",33188" + b"DATA" + struct.pack("<I", 1 << 20)))

    name = Host(port).greet().open(b"shell:ls")[0]
    check("the shell protocol of version 1", name == b"CLSE")
    name = Host(port).greet().open(b"root:")[0]
    check("an unknown service", name == b"CLSE")
    outside = b"/system/x,33188"
    host = Host(port).greet().sync(b"SEND" + struct.pack("<I", len(outside)) + outside + b"DATA" +
                                   struct.pack("<I", 1) + b"x" + b"DONE" + struct.pack("<I", 0))
    answer = b""
    while b"FAIL" not in answer:
        answer += (host.receive() or (0, 0, 0, b"FAIL?"))[3] or b""
    check("a file outside of /data/local/tmp", b"FAIL" in answer and b"?" not in answer)
    check("nothing is there", not os.path.exists(os.path.join(folder, "system/x")))

    code, out, _ = Host(port).greet().shell("echo a; echo b >&2; (exit 3)")
    check("a command's exit code and output", (code, out) == (3, "a\n"))
    code, _, err = Host(port).greet().shell("python3 --version")
    check("a program that phones do not have", code == 127 and "not found" in err)
    code, _, err = Host(port).greet().shell("ls --color=never")
    check("an option that toybox does not have", code == 1 and "Unknown option" in err)
    code, out, _ = Host(port).greet().shell("cd /data/local/tmp && pwd")
    check("paths are the phone's", (code, out) == (0, "/data/local/tmp\n"))

    server.kill()
    server.wait()
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
