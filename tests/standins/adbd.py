#!/usr/bin/env python3
"""A stand-in for the phone's side of adb, for the real adb client.

Checks: it speaks adbd's protocol over TCP (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE; the shell protocol
v2; sync with STAT, LSTAT, LIST, SEND, RECV, their v2 requests and QUIT) and ends the connection at
the first message that breaks it: a bad magic or length, a stream that does not exist, data that was
not awaited. Its shell knows only commands that Android's toybox has, without long options; only
files below /data/local/tmp may be written. Each violation is a line "VIOLATION" in its log.

Cannot prove: that a phone's SELinux lets the shell do what is asked, that USB behaves as TCP does,
how long anything takes, what toybox prints where it differs from the tools of this machine, and
nothing about a GPU, an NPU or their libraries.

    adbd.py FOLDER [--port N] [--abi arm64-v8a|x86_64] [--preload FILE] [--same-paths]

FOLDER becomes the phone: data/local/tmp, proc, sys, system/bin; FOLDER/faults is read anew at each
event: a line "NAME" or "NAME=VALUE" each. FOLDER/log gets what happens. Prints the port when it is
ready. --preload: a library that has programs for 64-bit Arm started by qemu (exec_aarch64.c).
--same-paths: the phone's directory is FOLDER/data/local/tmp there, too, for programs that read paths from files.

    unauthorized         never accepts the host's key
    no_space=BYTES       a file of more than that many bytes cannot be written
    unplug_push=BYTES    the connection ends after that many bytes of a file
    unplug_run           ... when the program has written its first bytes
    corrupt=once|always  a bit of the next file, or of every file, arrives wrong
    lie_sizes            sync says that files are larger than they are, and sends less of them
    no_shell_v2          the feature is missing
    prop.NAME=VALUE      of getprop
    free_kib, memory_kib, page_kib, machine
"""
import argparse
import os
import queue
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

A_CNXN, A_AUTH, A_OPEN, A_OKAY, A_CLSE, A_WRTE = (
    struct.unpack("<I", name)[0] for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))
VERSION, MAX_PAYLOAD, HEADER = 0x01000001, 1 << 20, struct.Struct("<6I")
SHELL_STDIN, SHELL_STDOUT, SHELL_STDERR, SHELL_EXIT, SHELL_CLOSE_STDIN, SHELL_WINDOW = range(6)
MAX_SYNC_DATA, MAX_PATH = 64 * 1024, 1024
TMP = "/data/local/tmp"

PROPERTIES = {
    "ro.product.model": "SM-S938B", "ro.product.manufacturer": "samsung", "ro.product.name": "pa3q",
    "ro.product.device": "pa3q", "ro.build.version.release": "15", "ro.build.version.sdk": "35",
    "ro.soc.model": "SM8750", "ro.board.platform": "sun",
}
# Of toybox, what a script might use; the shell's own (echo, kill, test, trap, wait ...) need no file.
TOYBOX = ("cat chmod cmp cp cut du find grep head kill ls mkdir mv nproc ps pwd readlink rm rmdir sed "
          "sha256sum sleep sort stat sync tail tee touch tr true false wc xargs").split()


class Violation(Exception):
    """The other side broke the protocol."""


class Unplugged(Exception):
    """A fault: the cable is out."""


class Phone:
    """The folder that looks like a phone, its faults and its log."""

    def __init__(self, folder, abi, preload, same_paths):
        self.root = os.path.realpath(folder)
        self.abi, self.preload, self.same_paths = abi, preload, same_paths
        self.unplugged = threading.Event()
        self.corrupted = False
        self.lock = threading.Lock()
        for name in ("data/local/tmp", "proc", "system/bin", "sys/class/thermal/thermal_zone0",
                     "sys/devices/system/cpu/cpu0/cpufreq"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        self.write("sys/class/thermal/thermal_zone0/type", "cpu-0-0\n")
        self.write("sys/class/thermal/thermal_zone0/temp", "41500\n")
        for name, value in (("governor", "walt"), ("cur_freq", "1804800"), ("max_freq", "4473600")):
            self.write(f"sys/devices/system/cpu/cpu0/cpufreq/scaling_{name}", value + "\n")
        self.tools()

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.root, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)

    def tools(self):
        for name in TOYBOX:
            real = shutil.which(name, path="/usr/bin:/bin")
            if real:
                self.write(f"system/bin/{name}", f"""#!/bin/sh
for word; do case $word in --) break;; --?*) echo "{name}: Unknown option '$word'" >&2; exit 1;; esac; done
exec {real} "$@"
""", 0o755)

    def fault(self, name, default=None):
        """Its value, "" when it has none; default when it is not set."""
        try:
            with open(os.path.join(self.root, "faults"), encoding="utf-8") as f:
                for line in f:
                    key, _, value = line.strip().partition("=")
                    if key == name:
                        return value
        except FileNotFoundError:
            pass
        return default

    def log(self, *words):
        with self.lock, open(os.path.join(self.root, "log"), "a", encoding="utf-8") as f:
            print(*words, file=f)

    def property(self, name):
        default = PROPERTIES.get(name, "")
        if name == "ro.product.cpu.abi":
            default = self.abi
        return self.fault("prop." + name, default)

    def path(self, name):
        """A path of the phone as one of this machine."""
        text = name.decode("utf-8")
        if not text.startswith("/") or ".." in text.split("/"):
            raise Violation(f"the path {text!r} is not absolute or leads upwards")
        return text if self.same_paths and text.startswith(self.root + "/") else self.root + text

    def may_write(self, name):
        return self.path(name).startswith(self.root + TMP + "/")

    def shell_files(self):
        """What the commands of the next shell say about the phone."""
        names = " ".join(f"{key}) echo '{self.property(key)}';;" for key in
                         list(PROPERTIES) + ["ro.product.cpu.abi"])
        self.write("system/bin/getprop", f"#!/bin/sh\ncase $1 in {names} *) echo;; esac\n", 0o755)
        free = int(self.fault("free_kib", "75078042"))
        self.write("system/bin/df", "#!/bin/sh\n[ \"$1\" = -k ] || { echo 'df: expected -k' >&2; exit 1; }\n"
                   "echo 'Filesystem       1K-blocks     Used Available Use% Mounted on'\n"
                   f"echo '/dev/block/dm-56 115343360 40265318 {free}  35% /data'\n", 0o755)
        machine = self.fault("machine", "aarch64" if self.abi == "arm64-v8a" else "x86_64")
        self.write("system/bin/uname", f"#!/bin/sh\n[ \"$1\" = -m ] && echo {machine}\n", 0o755)
        page = int(self.fault("page_kib", "4"))
        self.write("system/bin/getconf", f"#!/bin/sh\n[ \"$1\" = PAGE_SIZE ] && echo {page * 1024}\n", 0o755)
        memory = int(self.fault("memory_kib", "11534336"))
        self.write("proc/meminfo", f"MemTotal:       {memory} kB\nMemFree:         {memory // 8} kB\n"
                   f"MemAvailable:   {memory // 2} kB\n")


class Stream:
    """One OPENed service: what comes in, and the right to send."""

    def __init__(self, link, ours, theirs):
        self.link, self.ours, self.theirs = link, ours, theirs
        self.incoming, self.pending = queue.Queue(), b""
        self.ready = threading.Semaphore(0)  # an OKAY has come
        self.closed = threading.Event()

    def send(self, data):
        for at in range(0, len(data), self.link.max_payload):
            self.link.message(A_WRTE, self.ours, self.theirs, data[at:at + self.link.max_payload])
            while not self.ready.acquire(timeout=0.05):
                if self.closed.is_set():
                    raise EOFError

    def read(self, n):
        """Exactly n bytes."""
        while len(self.pending) < n:
            data = self.incoming.get()
            if data is None:
                raise EOFError
            self.pending += data
        data, self.pending = self.pending[:n], self.pending[n:]
        return data

    def close(self):
        if not self.closed.is_set():
            self.closed.set()
            self.link.message(A_CLSE, self.ours, self.theirs)
        self.link.streams.pop(self.ours, None)


class Link:
    """One connection of an adb server."""

    def __init__(self, sock, phone):
        self.sock, self.phone = sock, phone
        self.streams, self.next_id, self.max_payload = {}, 1, MAX_PAYLOAD
        self.write_lock = threading.Lock()

    def message(self, command, arg0=0, arg1=0, data=b""):
        check = sum(data) & 0xffffffff
        head = HEADER.pack(command, arg0, arg1, len(data), check, command ^ 0xffffffff)
        with self.write_lock:
            try:
                self.sock.sendall(head + data)
            except OSError:
                pass

    def end(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def receive(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def next_message(self):
        command, arg0, arg1, n, _, magic = HEADER.unpack(self.receive(HEADER.size))
        if magic != command ^ 0xffffffff:
            raise Violation(f"command {command:#x} has the magic {magic:#x}")
        if n > MAX_PAYLOAD:
            raise Violation(f"{n} bytes of data, more than {MAX_PAYLOAD}")
        return command, arg0, arg1, self.receive(n)

    def greet(self):
        command, version, payload, banner = self.next_message()
        if command != A_CNXN or not banner.startswith(b"host:"):
            raise Violation("the first message is not CNXN of a host")
        if version < 0x01000000:
            raise Violation(f"version {version:#x}")
        self.max_payload = min(payload, MAX_PAYLOAD)
        if self.phone.fault("unauthorized") is not None:
            while True:  # keys are offered, none is taken
                self.message(A_AUTH, 1, 0, bytes(range(20)))
                command, kind, _, _ = self.next_message()
                if command != A_AUTH or kind not in (2, 3):
                    raise Violation("a message before it was authorised")
                if kind == 3:
                    self.phone.log("public key offered")
                    self.receive(1)
        features = ["cmd", "stat_v2", "ls_v2", "fixed_push_mkdir"]
        if self.phone.fault("no_shell_v2") is None:
            features.insert(0, "shell_v2")
        banner = "device::" + "".join(f"{key}={self.phone.property(key)};" for key in (
            "ro.product.name", "ro.product.model", "ro.product.device"))
        self.message(A_CNXN, VERSION, MAX_PAYLOAD, (banner + "features=" + ",".join(features)).encode())

    def serve(self):
        try:
            self.greet()
            while not self.phone.unplugged.is_set():
                self.dispatch(*self.next_message())
        except Violation as why:
            self.phone.log("VIOLATION", why)
        except (EOFError, OSError):
            pass
        finally:
            self.sock.close()
            for stream in list(self.streams.values()):
                stream.closed.set()
                stream.incoming.put(None)

    def dispatch(self, command, arg0, arg1, data):
        if command == A_OPEN:
            self.open(arg0, data)
            return
        stream = self.streams.get(arg1)
        if command == A_CLSE:
            if stream:
                stream.closed.set()
                stream.incoming.put(None)
            return
        if not stream:
            if command in (A_OKAY, A_WRTE):  # crossed with our CLSE
                return
            raise Violation(f"command {command:#x} is not known")
        if arg0 != stream.theirs:
            raise Violation(f"stream {arg1} belongs to {stream.theirs}, not to {arg0}")
        if command == A_OKAY:
            stream.ready.release()
        elif command == A_WRTE:
            if not data:
                raise Violation("WRTE without data")
            stream.incoming.put(data)
            self.message(A_OKAY, stream.ours, stream.theirs)
        else:
            raise Violation(f"command {command:#x} is not known")

    def open(self, theirs, data):
        if theirs == 0 or not data.endswith(b"\0"):
            raise Violation("OPEN without an id, or its name does not end with NUL")
        name = data[:-1].decode("utf-8")
        kind, _, rest = name.partition(":")
        words = kind.split(",")
        if name == "sync:":
            service = Sync
        elif words[0] == "shell" and "v2" in words and "raw" in words and rest:
            service = Shell
        else:
            self.phone.log("refused", name)
            self.message(A_CLSE, 0, theirs)
            return
        stream = Stream(self, self.next_id, theirs)
        self.streams[self.next_id] = stream
        self.next_id += 1
        self.message(A_OKAY, stream.ours, theirs)
        threading.Thread(target=service(self.phone, stream, rest).run, daemon=True).start()


class Service:
    def __init__(self, phone, stream, argument):
        self.phone, self.stream, self.argument = phone, stream, argument

    def run(self):
        try:
            self.work()
        except Violation as why:
            self.phone.log("VIOLATION", why)
            self.stream.link.end()
        except Unplugged:
            self.phone.log("unplugged")
            self.phone.unplugged.set()
            self.stream.link.end()
        except EOFError:
            pass
        finally:
            self.stream.close()


class Sync(Service):
    """Files. Every request: a name of four letters, a length, a path."""

    def work(self):
        while True:
            name, n = struct.unpack("<4sI", self.stream.read(8))
            if name == b"QUIT":
                return
            if n > MAX_PATH:
                raise Violation(f"{name!r} with a path of {n} bytes")
            path = self.stream.read(n)
            handler = {b"STAT": self.stat1, b"STA2": self.stat2, b"LST2": self.stat2, b"LIST": self.list1,
                       b"LIS2": self.list2, b"SEND": self.take, b"RECV": self.give}.get(name)
            if not handler:
                raise Violation(f"sync request {name!r} is not known")
            handler(name, path)

    def lie(self, size):
        return size + 4096 if self.phone.fault("lie_sizes") is not None else size

    def info(self, path, follow):
        try:
            return (os.stat if follow else os.lstat)(self.phone.path(path)), 0
        except OSError as why:
            return None, why.errno

    def stat1(self, _, path):
        info, _ = self.info(path, False)
        self.stream.send(b"STAT" + (struct.pack("<3I", info.st_mode, self.lie(info.st_size) & 0xffffffff,
                                                int(info.st_mtime)) if info else bytes(12)))

    def record(self, info, code):
        if not info:
            return struct.pack("<I", code) + bytes(64)
        return struct.pack("<IQQIIIIQqqq", 0, info.st_dev, info.st_ino, info.st_mode, info.st_nlink, 2000, 2000,
                           self.lie(info.st_size), int(info.st_atime), int(info.st_mtime), int(info.st_ctime))

    def stat2(self, name, path):
        self.stream.send(name + self.record(*self.info(path, name == b"STA2")))

    def entries(self, path):
        real = self.phone.path(path)
        return [(n, os.lstat(os.path.join(real, n))) for n in os.listdir(real)] if os.path.isdir(real) else []

    def list1(self, _, path):
        for name, info in self.entries(path):
            self.stream.send(b"DENT" + struct.pack("<4I", info.st_mode, info.st_size, int(info.st_mtime),
                                                   len(name.encode())) + name.encode())
        self.stream.send(b"DONE" + bytes(16))

    def list2(self, _, path):
        for name, info in self.entries(path):
            self.stream.send(b"DNT2" + self.record(info, 0) + struct.pack("<I", len(name.encode())) + name.encode())
        self.stream.send(b"DONE" + bytes(72))

    def fail(self, text):
        self.phone.log("sync fails:", text)
        self.stream.send(b"FAIL" + struct.pack("<I", len(text)) + text.encode())

    def take(self, _, argument):
        path, comma, mode = argument.rpartition(b",")
        if not comma or not mode.isdigit():
            raise Violation(f"SEND without a mode: {argument!r}")
        real, problem, n = self.phone.path(path), None, 0
        limit, unplug = self.phone.fault("no_space"), self.phone.fault("unplug_push")
        corrupt = self.phone.fault("corrupt")
        self.phone.log("send", path.decode())
        if not self.phone.may_write(path):
            problem = "couldn't create file: Permission denied"
        else:
            os.makedirs(os.path.dirname(real), exist_ok=True)
        out = None if problem else open(real, "wb")
        while True:
            name, size = struct.unpack("<4sI", self.stream.read(8))
            if name == b"DONE":
                break
            if name != b"DATA" or size > MAX_SYNC_DATA:
                raise Violation(f"SEND: {name!r} of {size} bytes, expected DATA of up to {MAX_SYNC_DATA}")
            data = bytearray(self.stream.read(size))
            if n == 0 and data and (corrupt == "always" or (corrupt == "once" and not self.phone.corrupted)):
                self.phone.corrupted = True
                data[len(data) // 2] ^= 1
            n += len(data)
            if unplug is not None and n > int(unplug):
                raise Unplugged
            if limit is not None and n > int(limit) and not problem:
                problem = "write failed: No space left on device"
            if not problem:
                out.write(data)
        if out:
            out.close()
        if problem:
            if out:
                os.unlink(real)
            self.fail(problem)
            return
        os.chmod(real, int(mode) & 0o777)
        os.utime(real, (size, size))  # DONE's number is the time of change
        self.stream.send(b"OKAY" + bytes(4))

    def give(self, _, path):
        try:
            with open(self.phone.path(path), "rb") as f:
                data = f.read()
        except OSError as why:
            self.fail(f"open failed: {why.strerror}")
            return
        if self.phone.fault("lie_sizes") is not None:
            data = data[:-100]
        self.phone.log("recv", path.decode())
        for at in range(0, len(data), MAX_SYNC_DATA):
            part = data[at:at + MAX_SYNC_DATA]
            self.stream.send(b"DATA" + struct.pack("<I", len(part)) + part)
        self.stream.send(b"DONE" + bytes(4))


class Shell(Service):
    """A command, its three streams and its exit code."""

    def mapped(self, command):
        """Paths of the phone in a command, as they are here."""
        for name in ("/sys/", "/proc/meminfo") if self.phone.same_paths else (TMP, "/sys/", "/proc/meminfo"):
            command = command.replace(name, self.phone.root + name)
        return command

    def work(self):
        self.phone.shell_files()
        self.phone.log("shell", repr(self.argument))
        environment = {"PATH": self.phone.root + "/system/bin", "ANDROID_DATA": "/data", "SHELL": "/system/bin/sh",
                       "HOME": "/", "USER": "shell"}
        if self.phone.preload:
            environment["LD_PRELOAD"] = self.phone.preload
            environment.update((k, v) for k, v in os.environ.items() if k.startswith("QEMU_"))
        environment.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))
        shell = shutil.which("mksh") or "/bin/sh"  # Android's is mksh
        process = subprocess.Popen([shell, "-c", self.mapped(self.argument)], env=environment, cwd=self.phone.root,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        readers = [threading.Thread(target=self.forward, args=(process.stdout, SHELL_STDOUT), daemon=True),
                   threading.Thread(target=self.forward, args=(process.stderr, SHELL_STDERR), daemon=True)]
        for reader in readers:
            reader.start()
        threading.Thread(target=self.take_input, args=(process,), daemon=True).start()
        while process.poll() is None:
            if self.stream.closed.wait(0.02):
                process.send_signal(signal.SIGHUP)  # as adbd does, to the shell alone
                self.phone.log("SIGHUP to the shell")
                process.stdout.close()
                process.stderr.close()
                process.wait()
                return
        for reader in readers:
            reader.join()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        self.phone.log("shell exits with", code)
        self.packet(SHELL_EXIT, bytes([code & 255]))

    def packet(self, kind, data):
        try:
            self.stream.send(struct.pack("<BI", kind, len(data)) + data)
        except EOFError:
            pass

    def forward(self, pipe, kind):
        """Output as it comes, with paths as the phone has them; one may be cut in two."""
        root, held = self.phone.root.encode(), b""
        while True:
            try:
                data = os.read(pipe.fileno(), 65536)
            except (OSError, ValueError):
                return
            if data and kind == SHELL_STDOUT and "bin/fastvlm run" in self.argument and \
                    self.phone.fault("unplug_run") is not None:
                self.phone.log("unplugged")
                self.phone.unplugged.set()
                self.stream.link.end()
                return
            held = (held + data).replace(b"/:same:" if self.phone.same_paths else root, b"")
            keep = 0 if not data else max((n for n in range(1, min(len(root), len(held) + 1))
                                           if held.endswith(root[:n])), default=0)
            give, held = held[:len(held) - keep], held[len(held) - keep:]
            if give:
                self.packet(kind, give)
            if not data:
                return

    def take_input(self, process):
        try:
            while True:
                kind, n = struct.unpack("<BI", self.stream.read(5))
                data = self.stream.read(n)
                if kind == SHELL_STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                elif kind == SHELL_CLOSE_STDIN:
                    process.stdin.close()
                elif kind != SHELL_WINDOW:
                    self.phone.log("VIOLATION", f"shell packet {kind}")
                    return
        except (EOFError, OSError, ValueError):
            pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--abi", default="arm64-v8a")
    parser.add_argument("--preload")
    parser.add_argument("--same-paths", action="store_true")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    phone = Phone(options.folder, options.abi, options.preload, options.same_paths)
    listener = socket.create_server(("127.0.0.1", options.port))
    print(listener.getsockname()[1], flush=True)
    listener.settimeout(0.1)
    while not phone.unplugged.is_set():
        try:
            sock, _ = listener.accept()
        except socket.timeout:
            continue
        sock.settimeout(None)
        threading.Thread(target=Link(sock, phone).serve, daemon=True).start()
    listener.close()  # and nobody can connect again
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(main())
