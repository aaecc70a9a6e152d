"""A small Hugging Face hub for tests: the API, the files, and a second port that plays the CDN.

Strict: a request that the real hub would not understand, or that gives a secret to the wrong host, is answered with
400 and kept in `violations`, which fails the test. Python's standard library only.
"""
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    def __init__(self, repo, files, lfs):
        self.repo, self.files, self.lfs = repo, dict(files), set(lfs)
        self.served = dict(files)      # what really comes; a test may make it differ
        self.token = None              # required when set
        self.gated = False
        self.extra = []                # more entries of the listing, as they are
        self.edit = None               # changes the API's answer before it is sent
        self.api_faults = []           # (code, headers), one for each request
        self.file_faults = []          # the same for resolve/ and the CDN
        self.cuts = []                 # after how many bytes of a body the connection ends
        self.cut_lfs_only = False
        self.ranges = True             # the CDN knows ranges
        self.refuses_ranges = False    # the CDN answers 416 to any; "always": to the whole file, too
        self.slow = 0                  # seconds between blocks of 64 KiB
        self.redirect_to = None        # another place than the CDN
        self.violations, self.log, self.lock = [], [], threading.Lock()
        self.hub = self.start(HubHandler)
        self.cdn = self.start(CdnHandler)

    def start(self, handler, port=0):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.handle_error = lambda request, address: None  # a client that went away
        server.daemon_threads = True
        server.state = self
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stop(self):
        for server in (self.hub, self.cdn):
            server.shutdown()
            server.server_close()

    def start_again(self):
        self.hub = self.start(HubHandler, self.hub.server_port)
        self.cdn = self.start(CdnHandler, self.cdn.server_port)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.hub.server_port

    def pop(self, name):
        with self.lock:
            faults = getattr(self, name)
            return faults.pop(0) if faults else None

    def listing(self):
        siblings = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
            if name in self.lfs:
                entry["blobId"] = git_blob(b"pointer of " + name.encode())
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        answer = {"id": self.repo, "sha": COMMIT, "gated": self.gated, "private": False, "tags": ["license:from-tag"],
                  "cardData": {"license": "apple-amlr"}, "siblings": siblings + self.extra}
        if self.edit:
            self.edit(answer)
        return answer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", headers=()):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def violate(self, what):
        self.server.state.violations.append("%s: %s" % (self.path, what))
        self.answer(400, what.encode())

    def range(self, size):
        """(begin, end) or None; False after a violation."""
        header = self.headers.get("Range")
        if header is None:
            return None
        match = re.fullmatch(r"bytes=(0|[1-9]\d*)-(0|[1-9]\d*)", header)
        if not match or not int(match[1]) <= int(match[2]) < size:
            self.violate("range %s of %d bytes" % (header, size))
            return False
        return int(match[1]), int(match[2]) + 1

    def common(self):
        state = self.server.state
        state.log.append((self.server is state.cdn, self.path, self.headers.get("Range")))
        if not self.headers.get("User-Agent", "").startswith("fastvlm/"):
            self.violate("no user agent")
        elif self.headers.get("Host") != "127.0.0.1:%d" % self.server.server_port:
            self.violate("host %s" % self.headers.get("Host"))
        elif self.headers.get("Accept-Encoding", "identity") != "identity":
            self.violate("asks for an encoding")
        elif self.headers.get("Cookie") or self.headers.get("Content-Length"):
            self.violate("cookie or body")
        else:
            return True
        return False

    def send_file(self, name):
        state = self.server.state
        data = state.served[name]
        asked = self.range(len(data) if name not in state.files else max(len(data), len(state.files[name])))
        if asked is False:
            return
        if self.server is state.cdn and (state.refuses_ranges == "always" or (state.refuses_ranges and asked)):
            return self.answer(416, b"", [("Content-Range", "bytes */%d" % len(data))])
        headers = [("ETag", '"%s"' % hashlib.sha256(data).hexdigest()), ("Content-Type", "application/octet-stream")]
        if asked and state.ranges:
            begin, end = asked[0], min(asked[1], len(data))
            headers.append(("Content-Range", "bytes %d-%d/%d" % (begin, end - 1, len(data))))
            code, body = 206, data[begin:end]
        else:
            code, body = 200, data
        cut = state.pop("cuts") if len(body) > 1000 and (name in state.lfs or not state.cut_lfs_only) else None
        self.send_response(code)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if cut is not None:
                self.wfile.write(body[:cut])
                self.close_connection = True
            elif state.slow:
                for at in range(0, len(body), 65536):
                    self.wfile.write(body[at:at + 65536])
                    time.sleep(state.slow)
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True


class HubHandler(Handler):
    def do_GET(self):
        state = self.server.state
        if not self.common():
            return
        token = self.headers.get("Authorization")
        if token is not None and token != "Bearer %s" % state.token:
            return self.violate("a token that was not asked for, or a wrong one")
        url = urllib.parse.urlsplit(self.path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", url.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/([^/]+)", url.path)
        if not (api and url.query == "blobs=true") and not (file and not url.query):
            return self.violate("no such route")
        fault = state.pop("api_faults" if api else "file_faults")
        if fault:
            return self.answer(fault[0], b"<html>trouble</html>", fault[1])
        if state.token and token is None:
            return self.answer(401, b"{}", [("X-Error-Code", "GatedRepo" if state.gated else "RepoNotFound")])
        if (api or file)[1] != state.repo:
            return self.answer(404, b"{}", [("X-Error-Code", "RepoNotFound")])
        if api:
            if urllib.parse.unquote(api[2]) not in ("main", COMMIT, "refs/pr/1"):
                return self.answer(404, b"{}", [("X-Error-Code", "RevisionNotFound")])
            return self.answer(200, json.dumps(state.listing()).encode(), [("Content-Type", "application/json")])
        name = urllib.parse.unquote(file[3])
        if file[2] != COMMIT or name not in state.files:
            return self.answer(404, b"{}", [("X-Error-Code", "EntryNotFound")])
        if name in state.lfs:
            to = state.redirect_to or "http://127.0.0.1:%d/blob/%s?Signature=abc%%2Fdef" % (state.cdn.server_port, file[3])
            return self.answer(302, b"Found. Redirecting", [("Location", to), ("X-Linked-Size", str(len(state.files[name])))])
        if name == "merges.txt" and "%2E" not in self.path:  # the hub redirects within itself, too
            return self.answer(307, b"", [("Location", "/%s/resolve/%s/merges%%2Etxt" % (state.repo, COMMIT))])
        self.send_file(name)


class CdnHandler(Handler):
    def do_GET(self):
        state = self.server.state
        if not self.common():
            return
        if self.headers.get("Authorization"):
            return self.violate("the token was given to another host")
        match = re.fullmatch(r"/blob/([^/?]+)\?Signature=abc%2Fdef", self.path)
        if not match:
            return self.violate("not the signed address")
        fault = state.pop("file_faults")
        if fault:
            return self.answer(fault[0], b"", fault[1])
        self.send_file(urllib.parse.unquote(match[1]))
