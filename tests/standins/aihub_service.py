"""A stand-in for the service of Qualcomm AI Hub, for the real client qai-hub 0.56.0 on this machine.

It checks, strictly: the address and query of every request and that it ends with "/"; the headers that
the client sends, the token only at the service and never at the place files go to; every message, field
by field (an unknown field or one of the wrong type is refused); the order of an upload (record, part
addresses, parts of exactly the announced sizes, their ETags, completion); that a job names a whole
ONNX model, one device that exists, and options from a known list. Wrong use is answered with 400 and
kept in `violations`, which fails the test.

It cannot prove: that the real service takes these requests, these options or these devices, what it
answers, how long a job takes, or that it gives a context binary: what is "compiled" here are bytes
from this file. Uploads with S3 credentials, which the real service may offer, are not offered. The
requests and answers are those seen from the client; whether the service still knows
--quantize_full_type is open.

    service = Service();  service.write_ini(path);  ...;  service.stop()

Faults, which a test sets (lists are used up from the front):
    faults          (part of "METHOD path", code): answered so; 0 cuts the connection. A count of
                    times may follow
    cut_parts       after how many bytes of a part the connection ends
    job_states      what a job goes through, a state a look
    fail_reason     jobs end as FAILED with this
    lose_answers    parts of "METHOD path": done, but the connection ends without an answer
    short_files     bytes that do not come at the end of a file, though the connection ends in order
    token           another one: what was given before has expired
    result          bytes that are "compiled"; result_name: what the service calls the file
Python's standard library only."""
import http.server
import json
import re
import struct
import threading
import time
import urllib.parse

VERSION = "0.56.0"
FIELDS = {  # number: (name, kind); kinds: s text, u number, b bytes; [x]: repeated; a name: a message
    "User": {1: ("id", "u"), 4: ("email", "s")},
    "Time": {1: ("seconds", "u"), 2: ("nanos", "u")},
    "Device": {1: ("name", "s"), 2: ("os", "s"), 3: ("attributes", "[s]")},
    "DeviceList": {1: ("devices", "[Device]"), 2: ("total", "u")},
    "Created": {1: ("id", "s"), 2: ("status", "s"), 3: ("creation_time", "Time")},
    "Model": {1: ("model_id", "s"), 2: ("owner", "User"), 3: ("name", "s"), 4: ("creation_time", "Time"),
              5: ("model_type", "u"), 6: ("file_upload_complete", "u"), 7: ("producer_id", "s"),
              9: ("is_directory", "u")},
    "ModelList": {1: ("models", "[Model]"), 2: ("total", "u")},
    "Upload": {2: ("multipart_url", "PartUrls")},
    "PartUrls": {1: ("urls", "[s]"), 2: ("upload_id", "s"), 3: ("max_part_size", "u")},
    "Complete": {1: ("upload_id", "s"), 2: ("etags", "[s]")},
    "Download": {1: ("url", "DownloadUrl")},
    "DownloadUrl": {1: ("url", "s"), 2: ("filename", "s")},
    "TypeList": {},
    "CompileJob": {1: ("compile_job_id", "s"), 2: ("user", "User"), 4: ("model", "Model"), 5: ("job_state", "u"),
                   6: ("device", "Device"), 7: ("devices", "DeviceList"), 8: ("tensor_type_list", "TypeList"),
                   9: ("name", "s"), 10: ("options", "s"), 11: ("failure_reason", "s"),
                   12: ("target_model", "Model"), 14: ("creation_time", "Time")},
    "Job": {4: ("compile_job", "CompileJob")},
    "Summary": {4: ("compile_job_summary", "CompileSummary")},
    "CompileSummary": {1: ("job_id", "s"), 2: ("user", "User"), 3: ("name", "s"), 4: ("job_state", "u"),
                       5: ("device_name", "s"), 7: ("creation_time", "Time")},
    "SummaryList": {1: ("job_summaries", "[Summary]"), 2: ("total", "u")},
}
CREATED, DONE, FAILED, OPTIMIZING = 1, 10, 30, 50
ONNX, CONTEXT_BINARY = 6, 11
OPTIONS = {"--target_runtime": {"qnn_context_binary"}, "--quantize_full_type": {"float16"}, "--truncate_64bit_io": None,
           "--qairt_version": {"2.42", "latest", "default"}}
DEVICES = [{"name": name, "os": os, "attributes": ["chipset:" + chip, "framework:qnn", "framework:onnx", "os:android"]}
           for name, os, chip in (("Snapdragon 8 Elite QRD", "15", "qualcomm-snapdragon-8-elite"),
                                  ("Samsung Galaxy S24", "14", "qualcomm-snapdragon-8gen3"))]


class Refused(Exception):
    """Wrong use."""


# ---------------------------------------------------------------- protobuf

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def encode(kind, message):
    out = b""
    for number, (name, what) in FIELDS[kind].items():
        values = message.get(name)
        for value in values or [] if what[0] == "[" else [] if values is None else [values]:
            inner = what.strip("[]")
            if inner == "u":
                out += varint(number << 3) + varint(value)
            else:
                data = value.encode() if inner == "s" else encode(inner, value)
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(kind, data):
    at, message = 0, {}

    def number():
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Refused("%s: a number is cut" % kind)
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        name, what = FIELDS[kind].get(tag >> 3) or refuse("%s: field %d is not expected" % (kind, tag >> 3))
        inner = what.strip("[]")
        if tag & 7 != (0 if inner == "u" else 2):
            raise Refused("%s.%s: wire type %d" % (kind, name, tag & 7))
        value = number()
        if inner != "u":
            if value > len(data) - at:
                raise Refused("%s.%s: is cut" % (kind, name))
            part, at = data[at:at + value], at + value
            value = part.decode() if inner == "s" else decode(inner, part)
        if what[0] == "[":
            message.setdefault(name, []).append(value)
        elif name in message:
            raise Refused("%s.%s: twice" % (kind, name))
        else:
            message[name] = value
    return message


def refuse(text):
    raise Refused(text)


def expect(good, text):
    if not good:
        raise Refused(text)


# ---------------------------------------------------------------- the service

class Service:
    def __init__(self):
        self.token = "secret-token-that-nobody-may-see"
        self.user = {"id": 7, "email": "engineer@example.com"}
        self.models, self.jobs, self.uploads, self.files = {}, {}, {}, {}
        self.result = b"a context binary" * 4000
        self.result_name = None
        self.max_part_size = 1 << 20
        self.faults, self.cut_parts, self.lose_answers, self.short_files = [], [], [], []
        self.job_states, self.fail_reason = [CREATED, OPTIMIZING], None
        self.violations, self.log, self.lock = [], [], threading.RLock()
        self.slow = 0                   # seconds before each answer
        self.count = 0
        self.server = self.start(Handler)
        self.store = self.start(StoreHandler)

    def start(self, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda request, address: None  # a client that went away
        server.daemon_threads = True
        server.state = self
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stop(self):
        for server in (self.server, self.store):
            server.shutdown()
            server.server_close()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server.server_port

    @property
    def store_url(self):
        return "http://127.0.0.1:%d" % self.store.server_port

    def write_ini(self, path, token=None, verbose=True):
        with open(path, "w") as ini:
            ini.write("[api]\napi_token = %s\napi_url = %s\nweb_url = %s\nverbose = %s\n"
                      % (token or self.token, self.url, self.url, verbose))

    def new_id(self, letter):
        self.count += 1
        digits, n = "", self.count * 7919 + 46656
        while n:
            digits, n = "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36] + digits, n // 36
        return letter + digits

    def add_model(self, name, kind=ONNX, complete=False, owner=None, at=None, producer=None):
        with self.lock:
            model = {"model_id": self.new_id("m"), "owner": owner or self.user, "name": name, "model_type": kind,
                     "creation_time": {"seconds": int(time.time()) if at is None else at},
                     "file_upload_complete": int(complete)}
            if producer:
                model["producer_id"] = producer
            self.models[model["model_id"]] = model
            return model

    def fault(self, line):
        with self.lock:
            for i, (part, code, *times) in enumerate(self.faults):
                if part in line:
                    left = (times[0] if times else 1) - 1
                    self.faults[i:i + 1] = [(part, code, left)] if left > 0 else []
                    return code
        return None

    def loses(self, line):
        with self.lock:
            for i, part in enumerate(self.lose_answers):
                if part in line:
                    del self.lose_answers[i]
                    return True
        return False

    def step(self, job):
        """A job's state moves on with each look."""
        if job["left"]:
            job["job_state"] = job["left"].pop(0)
        elif job["job_state"] not in (DONE, FAILED):
            if self.fail_reason is not None:
                job["job_state"], job["failure_reason"] = FAILED, self.fail_reason
            else:
                job["job_state"] = DONE
                job["target_model"]["file_upload_complete"] = 1
                self.files[job["target_model"]["model_id"]] = self.result


class Base(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def cut(self):
        self.close_connection = True
        self.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: a reset, not an end
        self.connection.close()
        raise OSError("cut")

    def answer(self, code, body=b"", kind="text/plain", headers=()):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def body(self, limit=None):
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding") == "chunked":
            out = b""
            while True:
                n = int(self.rfile.readline(), 16)
                out += self.rfile.read(n)
                self.rfile.readline()
                if n == 0:
                    return out
        n = int(length or 0)
        return self.rfile.read(n if limit is None else min(n, limit))

    def handle_request(self):
        state = self.server.state
        line = "%s %s" % (self.command, self.path)
        with state.lock:
            state.log.append(line)
        try:
            self.handle_line(state, line)
        except Refused as why:
            with state.lock:
                state.violations.append("%s: %s" % (line, why))
            self.answer(400, str(why).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_request


class Handler(Base):
    def handle_line(self, state, line):
        body = self.body()
        time.sleep(state.slow)
        code = state.fault(line)
        if code == 0:
            self.cut()
        if code:
            return self.answer(code, b"trouble")
        self.check_headers()
        if self.headers["Authorization"] != "token " + state.token:
            return self.answer(401, b'{"detail": "Invalid token."}')
        with state.lock:
            reply = self.route(state, body)
        if state.loses(line):
            self.cut()
        if reply is None:
            return self.answer(404, b'{"detail": "Not found."}')
        self.answer(*reply, kind="application/x-protobuf")

    def check_headers(self):
        for name, pattern in (("Authorization", r"token \S+"), ("Content-Type", r"application/x-protobuf"),
                              ("User-Agent", r"qai_hub/" + re.escape(VERSION)), ("Client-Version", re.escape(VERSION)),
                              ("Client-Mode", "cli|library"), ("Python-Version", r"3\.\d+\.\d+\S*"), ("OS-Type", r"\w+"),
                              ("OS-Version", r"\S+"), ("Host", r"127\.0\.0\.1:\d+")):
            value = self.headers.get(name)
            expect(value is not None and re.fullmatch(pattern, value), "header %s: %s" % (name, value))

    def query(self, text, **patterns):
        """The query has exactly these; a pattern that begins with "?" may be absent."""
        found = urllib.parse.parse_qs(text, keep_blank_values=True)
        for name, pattern in patterns.items():
            values = found.pop(name, None)
            if values is None:
                expect(pattern[0] == "?", "query %s is missing" % name)
            else:
                expect(len(values) == 1 and re.fullmatch(pattern.lstrip("?"), values[0]), "query %s: %s" % (name, values))
        expect(not found, "query: %s is not expected" % ", ".join(found))
        return {k: v[0] for k, v in urllib.parse.parse_qs(text, keep_blank_values=True).items()}

    def page(self, items, query):
        first = int(query.get("offset", 0))
        return items[first:first + int(query["limit"])]

    def route(self, state, body):
        url = urllib.parse.urlsplit(self.path)
        expect(url.path.startswith("/api/v1/"), "no such address")
        expect(url.path.endswith("/"), "the address does not end with /")
        at = (self.command, *url.path[len("/api/v1/"):-1].split("/"))
        transfer = {"use_acceleration": "true", "supports_s3_credentials": "true"}
        if self.command == "GET":
            expect(not body, "a body in GET")
        if at == ("GET", "users", "auth", "user"):
            self.query(url.query)
            return 200, encode("User", state.user)
        if at == ("GET", "devices"):
            q = self.query(url.query, name=".*", os=".*", select="True|False", attributes="?.*")
            found = [d for d in DEVICES if q["name"] in ("", d["name"]) and q["os"] in ("", d["os"])]
            found = found[:1] if q["select"] == "True" else found
            return 200, encode("DeviceList", {"devices": found, "total": len(found)})
        if at == ("POST", "models"):
            self.query(url.query)
            message = decode("Model", body)
            expect(set(message) == {"name", "model_type", "is_directory"}, "Model has %s" % sorted(message))
            expect(not message["is_directory"], "a directory")
            expect(message["model_type"] == ONNX, "model_type %d" % message["model_type"])
            expect(re.fullmatch(r"fastvlm_\w+", message["name"]), "name %s" % message["name"])
            model = state.add_model(message["name"])
            return 201, encode("Created", {"id": model["model_id"], "creation_time": model["creation_time"]})
        if at == ("GET", "models"):
            q = self.query(url.query, limit=r"[1-9]\d*", offset=r"?\d+")
            models = sorted(state.models.values(), key=lambda m: -m["creation_time"]["seconds"])
            return 200, encode("ModelList", {"models": self.page(models, q), "total": len(models)})
        if at == ("GET", "job_summaries"):
            q = self.query(url.query, limit=r"[1-9]\d*", offset=r"?\d+", type="compile")
            jobs = sorted(state.jobs.values(), key=lambda j: -j["creation_time"]["seconds"])
            list_ = [{"compile_job_summary": {"job_id": j["compile_job_id"], "user": j["user"], "name": j["name"],
                                              "job_state": j["job_state"], "device_name": j["device"]["name"],
                                              "creation_time": j["creation_time"]}} for j in self.page(jobs, q)]
            return 200, encode("SummaryList", {"job_summaries": list_, "total": len(jobs)})
        if at[1] == "models" and len(at) > 2:
            model = state.models.get(at[2])
            return model and self.route_model(state, at, url.query, transfer, model, body)
        if at == ("POST", "jobs"):
            self.query(url.query, seed_target_model="true")
            return self.new_job(state, decode("Job", body))
        if at[:2] == ("GET", "jobs") and len(at) == 3:
            self.query(url.query)
            job = state.jobs.get(at[2])
            if job:
                state.step(job)
                return 200, encode("Job", {"compile_job": job})
            return None
        raise Refused("no such address")

    def route_model(self, state, at, query, transfer, model, body):
        id = model["model_id"]
        if at == ("GET", "models", id):
            self.query(query)
            return 200, encode("Model", model)
        if at == ("GET", "models", id, "multipart_upload"):
            size = int(self.query(query, file_size=r"[1-9]\d*", **transfer)["file_size"])
            expect(not model["file_upload_complete"] and "producer_id" not in model, "the model's file is there already")
            n = -(-size // state.max_part_size)
            upload = {"id": "u-" + id, "size": size, "parts": [None] * n}
            state.uploads[id] = upload
            urls = ["%s/%s/%d?X-Amz-Signature=secret-signature" % (state.store_url, id, i) for i in range(n)]
            return 200, encode("Upload", {"multipart_url": {"urls": urls, "upload_id": upload["id"],
                                                            "max_part_size": state.max_part_size}})
        if at == ("POST", "models", id, "multipart_upload"):
            self.query(query)
            message, upload = decode("Complete", body), state.uploads.get(id)
            expect(upload is not None, "an upload that was not begun")
            expect(message.get("upload_id") == upload["id"], "upload_id %s" % message.get("upload_id"))
            expect(None not in upload["parts"], "parts are missing")
            etags = ['"etag-%s-%d"' % (id, i) for i in range(len(upload["parts"]))]
            expect(message.get("etags") == etags, "etags %s" % message.get("etags"))
            data = b"".join(upload["parts"])
            expect(len(data) == upload["size"], "%d bytes, announced were %d" % (len(data), upload["size"]))
            state.files[id] = data
            model["file_upload_complete"] = 1
            return 200, encode("Created", {"id": id})
        if at == ("GET", "models", id, "download"):
            self.query(query, **transfer)
            expect(model["file_upload_complete"], "the model has no file")
            name = state.result_name or "job_%s_optimized_bin_%s.bin" % (model.get("producer_id"), id)
            return 200, encode("Download", {"url": {"url": "%s/%s/file?X-Amz-Signature=secret-signature"
                                                    % (state.store_url, id), "filename": name}})
        raise Refused("no such address")

    def new_job(self, state, message):
        expect(set(message) == {"compile_job"}, "a job that is no compile job")
        job = message["compile_job"]
        expect(set(job) - {"tensor_type_list"} == {"model", "name", "devices", "options"}, "CompileJob has %s" % sorted(job))
        model = state.models.get(job["model"].get("model_id"))
        expect(model and set(job["model"]) == {"model_id"}, "no such model")
        expect(model["file_upload_complete"] and model["model_type"] == ONNX, "the model is no whole ONNX model")
        devices = job["devices"].get("devices", [])
        expect(set(job["devices"]) <= {"devices", "total"} and len(devices) == 1 and devices[0] in DEVICES,
               "devices: %s" % devices)
        expect(job["name"] == model["name"] + "_qnn_context_fp16", "name %s" % job["name"])
        self.check_options(job["options"])
        id = state.new_id("j")
        target = state.add_model(job["name"], CONTEXT_BINARY, producer=id)
        state.jobs[id] = {"compile_job_id": id, "user": state.user, "model": model, "job_state": CREATED,
                          "device": devices[0], "devices": job["devices"], "name": job["name"], "options": job["options"],
                          "target_model": target, "creation_time": {"seconds": int(time.time())},
                          "left": list(state.job_states)}
        return 201, encode("Created", {"id": id})

    def check_options(self, text):
        words = text.split(" ")
        while words:
            option = words.pop(0)
            expect(option in OPTIONS, "option %s" % option)
            if OPTIONS[option] is not None:
                value = words.pop(0) if words else None
                expect(value in OPTIONS[option], "option %s %s" % (option, value))
        expect("--target_runtime qnn_context_binary" in text, "no --target_runtime")


class StoreHandler(Base):
    """Where files go to and come from, by addresses that are signed: no token may come here."""

    def handle_line(self, state, line):
        match = re.fullmatch(r"/(m[a-z0-9]+)/(\d+|file)\?X-Amz-Signature=secret-signature", self.path)
        code = state.fault("store " + line)
        cut = None
        with state.lock:
            if self.command == "PUT" and state.cut_parts:
                cut = state.cut_parts.pop(0)
        if code == 0 or cut is not None:
            self.body(limit=cut or 0)
            self.cut()
        body = self.body()
        if code:
            return self.answer(code, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
                               kind="application/xml")
        expect(match, "not a signed address")
        expect(self.headers.get("Authorization") is None, "the token was given to the store")
        id, part = match[1], match[2]
        with state.lock:
            if self.command == "PUT":
                upload = state.uploads.get(id)
                expect(part != "file" and upload and int(part) < len(upload["parts"]), "no such part")
                expect(self.headers.get("Content-Type") is None, "a content type")
                i = int(part)
                size = min(state.max_part_size, upload["size"] - i * state.max_part_size)
                expect(len(body) == size, "part of %d bytes, expected %d" % (len(body), size))
                upload["parts"][i] = body
                reply = (200, b"", [("ETag", '"etag-%s-%d"' % (id, i))])
            else:
                expect(self.command == "GET" and part == "file" and id in state.files, "no such file")
                reply = (200, state.files[id], [])
        if state.loses("store " + line):  # half of it
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply[1])))
            self.end_headers()
            self.wfile.write(reply[1][:len(reply[1]) // 2])
            self.cut()
        if self.command == "GET" and state.short_files:
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply[1])))
            self.end_headers()
            self.wfile.write(reply[1][:-state.short_files.pop(0)])
            return
        self.answer(reply[0], reply[1], "application/octet-stream", reply[2])


if __name__ == "__main__":
    import sys
    service = Service()
    service.write_ini(sys.argv[1] if len(sys.argv) > 1 else "standin.ini")
    print(json.dumps({"url": service.url}), flush=True)
    threading.Event().wait()
