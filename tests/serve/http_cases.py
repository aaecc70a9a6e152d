"""fastvlm serve: the protocol, what is refused, and what a hostile client gets. See serving.py."""
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from serving import (CHAT, LIMIT, PROGRAM, ROOT, SIGN, Server, assistant, data_url, image, main, picture, read_all, user,
                    words)

LONG = {"max_tokens": 900, "temperature": 1, "seed": 1}  # with the end forbidden: see endless()


def endless(s):
    """Options of an answer that goes on up to the context's end."""
    answer = s.chat(user("Hi"), max_tokens=1)
    assert answer.status == 200, answer
    return {**LONG, "logit_bias": {str(id): -100 for id in END_IDS}}


END_IDS = range(700, 759)  # the demonstration model's control tokens are the last ids


def run_program(*args, stdin=None):
    done = subprocess.run([PROGRAM, *args], capture_output=True, cwd=ROOT, timeout=LIMIT, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def expect(answer, status, *parts, code=None):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json", answer
    error = answer.error
    assert set(error) == {"message", "type", "param", "code"}, answer
    for part in parts:
        assert part in error["message"], (part, answer)
    assert code is None or error["code"] == code, answer


# ---- what is answered -------------------------------------------------------------------------


def case_chat(folder):
    with Server() as s:
        answer = s.chat(SIGN)
        assert answer.status == 200 and answer.text == "HELLO", answer
        body = answer.json
        assert body["object"] == "chat.completion" and body["model"] == "fastvlm-demo" and body["id"].startswith("chatcmpl-")
        assert body["choices"][0]["finish_reason"] == "stop" and body["choices"][0]["message"]["role"] == "assistant"
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage
        assert usage["prompt_tokens_details"]["image_tokens"] == 16, usage
        timings = body["timings"]
        assert timings["prompt_n"] + timings["cache_n"] == usage["prompt_tokens"], timings
        assert timings["predicted_n"] == usage["completion_tokens"] and timings["images_n"] == 1, timings
        # as the program answers
        code, out, _ = run_program("run", "-q", os.path.join("examples/images/sign.png"), "What does the text say?")
        assert code == 0 and out.decode().strip() == answer.text, out


def case_stream(folder):
    with Server() as s:
        whole = s.chat(SIGN).text
        events = s.chat(SIGN, stream=True).events
        assert all(e["object"] == "chat.completion.chunk" and len(e["choices"]) == 1 and "usage" not in e for e in events)
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == whole
        assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + ["stop"]
        assert "timings" in events[-1]
        events = s.chat(SIGN, stream=True, stream_options={"include_usage": True}).events
        assert all(e["usage"] is None and e["choices"] for e in events[:-1])
        assert events[-1]["choices"] == [] and events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def case_history(folder):
    """Assistant's turns reach the model; so do images of earlier turns, in their order."""
    with Server() as s:
        first = s.chat(SIGN).json["usage"]["prompt_tokens"]
        turns = [SIGN, assistant("HELLO"), user("And the color of the text?")]
        other = [SIGN, assistant("GOODBYE AND GOOD NIGHT"), user("And the color of the text?")]
        rows = [s.chat(*t, logprobs=True, top_logprobs=5).json for t in (turns, other, turns)]
        assert rows[0]["usage"]["prompt_tokens"] > first
        assert rows[0]["usage"]["prompt_tokens"] != rows[1]["usage"]["prompt_tokens"]
        assert rows[0]["choices"][0]["logprobs"] != rows[1]["choices"][0]["logprobs"]
        assert rows[0]["choices"] == rows[2]["choices"]
        two = s.chat(user(picture("shapes.png"), picture("sign.png"), words("What does the text say?")))
        assert two.status == 200 and two.json["usage"]["prompt_tokens_details"]["image_tokens"] == 32, two
        system = s.chat({"role": "system", "content": "Be brief."}, SIGN).json["usage"]["prompt_tokens"]
        assert system != first, "the system message is not part of the prompt"


def case_image_formats(folder):
    with Server() as s:
        for name, kind in (("sign.png", "image/png"), ("outlines.jpg", "image/jpeg")):
            url = data_url(image(name), kind)
            for part in ({"url": url}, {"url": url, "detail": "low"}, url):
                answer = s.chat(user({"type": "image_url", "image_url": part}, words("What is it?")))
                assert answer.status == 200, answer
        pnm = b"P6 2 2 255\n" + bytes(range(12))
        assert s.chat(user({"type": "image_url", "image_url": {"url": data_url(pnm)}}, words("What is it?"))).status == 200


def case_reuse(folder):
    """The image of the first turn is not encoded again in the second, nor in another conversation;
    the beginning that two conversations share is not computed again; the answers stay the same."""
    with Server("--parallel", "2") as s:
        s.chat(SIGN)
        assert s.metric("images_encoded_total") == 1
        second = s.chat(SIGN, assistant("HELLO"), user("What color is it?"), logprobs=True).json
        assert s.metric("images_encoded_total") == 1 and s.metric("images_cached_total") == 1
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 16, second["usage"]
        assert second["timings"]["vision_ms"] == 0 and second["timings"]["images_cached_n"] == 1
        s.chat(user("Hi"))
        s.chat(user(words("Look:"), picture(), words("What is it?")))
        assert s.metric("images_encoded_total") == 1, "the cache is of one conversation only"
        with Server("--image-cache", "0") as fresh:
            alone = fresh.chat(SIGN, assistant("HELLO"), user("What color is it?"), logprobs=True).json
            fresh.chat(SIGN)
            assert alone["choices"] == second["choices"], "reuse has changed the answer"
            assert fresh.metric("images_encoded_total") == 2 and fresh.metric("cache_bytes") == 0


def case_cache_is_bounded(folder):
    with Server("--image-cache", "1") as s:
        pixels = [b"P6 2 2 255\n" + bytes([i, j] * 6) for i in range(10) for j in range(10)]
        for start in range(0, 100, 10):
            parts = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in pixels[start:start + 10]]
            assert s.chat(user(*parts, words("?")), max_tokens=1).status == 200
        metrics = s.metrics()
        assert metrics["fastvlm_images_encoded_total"] == 100
        assert metrics["fastvlm_cache_bytes"] <= 1 << 20 and 0 < metrics["fastvlm_cache_images"] < 100, metrics


def case_sampling(folder):
    with Server() as s:
        hot = {"temperature": 2, "max_tokens": 12}
        texts = [s.chat(user("Tell me."), seed=seed, **hot).text for seed in (1, 1, 2, 3, 4)]
        assert texts[0] == texts[1] and len(set(texts)) > 1, texts
        assert len({s.chat(user("Tell me."), **hot).text for _ in range(4)}) > 1, "without a seed each is the same"
        greedy = s.chat(SIGN).text
        assert s.chat(SIGN, temperature=2, top_p=0, seed=5).text == greedy
        assert s.chat(SIGN, temperature=2, top_k=1, seed=5).text == greedy
        assert s.chat(SIGN, temperature=2, top_k=-1, top_p=1, min_p=1, seed=5).text == greedy
        short = s.chat(SIGN, max_tokens=2).json["choices"][0]
        assert short == {**short, "finish_reason": "length"} and short["message"]["content"] == greedy[:2]
        assert s.chat(SIGN, max_completion_tokens=3).text == greedy[:3]
        stopped = s.chat(SIGN, stop="L").json["choices"][0]
        assert stopped["message"]["content"] == "HE" and stopped["finish_reason"] == "stop"
        assert s.chat(SIGN, stop=["x", "LO"]).text == "HEL"
        streamed = s.chat(SIGN, stop=["LO"], stream=True).events
        assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == "HEL"


def case_logprobs(folder):
    with Server() as s:
        content = s.chat(SIGN, logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
        assert b"".join(bytes(t["bytes"]) for t in content) == b"HELLO", content
        assert all(len(t["top_logprobs"]) == 2 and t["logprob"] <= 0 for t in content)
        assert all(t["top_logprobs"][0]["token"] == t["token"] for t in content), "greedy is the best"
        events = s.chat(SIGN, logprobs=True, stream=True).events
        streamed = [t for e in events for t in (e["choices"][0].get("logprobs") or {"content": []})["content"]]
        assert [t["logprob"] for t in streamed] == [t["logprob"] for t in content]
        assert streamed[0]["top_logprobs"] == []
        assert s.chat(SIGN).json["choices"][0]["logprobs"] is None
        h = s.chat(SIGN, logprobs=True, max_tokens=1, logit_bias={str(i): -100 for i in range(256)}).json
        assert h["choices"][0]["message"]["content"] != "H", "a ban is not heeded"


def case_models_and_health(folder):
    with Server("--alias", "my model") as s:
        assert s.get("/health").json == {"status": "ok"}
        models = s.get("/v1/models").json
        assert models["object"] == "list" and models["data"][0]["id"] == "my model"
        assert models["data"][0]["architecture"]["input_modalities"] == ["text", "image"]
        assert models["data"][0]["meta"]["image_tokens"] == 16
        assert s.get("/v1/models/my%20model").json == models["data"][0]
        expect(s.get("/v1/models/other"), 404, "my model", code="model_not_found")
        expect(s.chat(user("Hi"), model="other"), 404, code="model_not_found")
        assert s.chat(user("Hi"), model="my model", max_tokens=1).status == 200
        head = s.call("HEAD", "/health")
        assert head.status == 200 and head.body == b""


# ---- what is refused --------------------------------------------------------------------------


def case_bad_requests(folder):
    with Server() as s:
        def post(body):
            return s.call("POST", CHAT, body)

        expect(post(b""), 400, "empty")
        expect(post(b"{"), 400)
        expect(post(b"[]"), 400, "expected an object")
        expect(post(b'{"a": "\xff"}'), 400)
        expect(post(b"[" * 5000), 400)
        expect(post(b"{" + b",".join(b'"%d":[]' % i for i in range(200000)) + b"}"), 413, "values")
        expect(post({}), 400, "messages")
        expect(s.chat(), 400, "messages")
        hi = user("Hi")
        rows = [
            ("temperature", [-1, 2.1, "hot", True, [1]]), ("top_p", [-0.1, 1.1, "x"]), ("min_p", [2]), ("top_k", [-2, 1.5, 1e10]),
            ("max_tokens", [0, -1, 1.5, "5", 1 << 40]), ("max_completion_tokens", [0]), ("n", [0, 2, "1"]), ("seed", [1.5, "1"]),
            ("stop", ["", [""], [1], 5, ["x"] * 17]), ("stream", [1, "yes"]), ("logprobs", [1]), ("top_logprobs", [-1, 21, 5]),
            ("presence_penalty", [1]), ("frequency_penalty", [0.5]), ("tools", [[{}], "x"]), ("functions", [[{}]]),
            ("logit_bias", [{"x": 1}, {"-1": 1}, {"99999": 1}, {"1": 101}, {"1": "x"}, [1]]), ("model", [1]),
            ("response_format", ["json", {}, {"type": "xml"}, {"type": "json_schema"}]), ("stream_options", [1]),
            ("messages", [1, {}, [1], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}], [{"role": "user", "content": 1}],
                          [{"role": "user", "content": []}], [{"role": "user", "content": ["x"]}], [{"role": "user", "content": "a\0b"}],
                          [{"role": "user", "content": [{"type": "audio"}]}], [{"role": "assistant", "content": "x"}],
                          [hi, {"role": "assistant", "content": "x"}], [hi, {"role": "assistant", "content": "x", "tool_calls": [{}]}, hi],
                          [hi, assistant("a"), assistant("b"), hi], [hi, {"role": "system", "content": "late"}, hi],
                          [{"role": "system", "content": "alone"}], [{"role": "system", "content": [picture()]}, hi]]),
        ]
        for key, values in rows:
            for value in values:
                answer = post({"messages": [hi], key: value})
                expect(answer, 400, "request: ")
                assert key in answer.error["message"], (key, value, answer)
        expect(post(b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}'), 400, "temperature")
        expect(post(b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 99999999999999999999999}'), 400, "seed")
        assert s.chat(hi, temperature=None, n=1, tools=[], stop=None, max_tokens=1, presence_penalty=0, user="me").status == 200
        assert answer.error["param"], answer


def case_context_length(folder):
    with Server("--context", "64") as s:
        expect(s.chat(user("word " * 400)), 400, code="context_length_exceeded")
        expect(s.chat(user(*[picture()] * 5, words("?"))), 400, code="context_length_exceeded")
        assert s.chat(SIGN).text == "HELLO"


def case_images_refused(folder):
    with Server("--max-images", "2", "--max-megapixels", "1") as s:
        def ask(url):
            return s.chat(user({"type": "image_url", "image_url": {"url": url}}, words("?")))

        for url in ("http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd", "/etc/passwd", "", "ftp://x", "gopher://x"):
            expect(ask(url), 400, "data: URL", "fetches no address")
        for url in ("data:", "data:image/png", "data:image/png;base64", "data:image/png,abc", "data:;base64,", "data:image/png;base64,",
                    "data:image/png;base64,A", "data:image/png;base64,AAA=A", "data:image/png;base64,AA\nAA", "data:image/png;base64,????"):
            expect(ask(url), 400, "messages[0].content[0]")
        whole = image()
        for data in (whole[:60], whole[:-30], b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"<svg/>"):
            answer = ask(data_url(data))
            expect(answer, 400, "messages[0].content[0]")
            assert "/" not in answer.error["message"].replace("image/", "") and "0x" not in answer.error["message"], answer
        # few bytes, many pixels
        expect(ask(data_url(b"P6 30000 30000 255\n")), 413, "max_pixels", code="too_large")
        expect(ask(data_url(b"P6 70000 1 255\n")), 413, code="too_large")
        expect(s.chat(user(picture(), picture(), picture(), words("?"))), 413, "more than 2 images")
        assert s.chat(SIGN).text == "HELLO"


def case_paths_and_methods(folder):
    with Server() as s:
        expect(s.get("/nothing"), 404)
        expect(s.get("/../../etc/passwd"), 404)
        expect(s.get("/v1/models/"), 404)
        answer = s.get(CHAT)
        expect(answer, 405)
        assert answer.headers["Allow"] == "POST"
        answer = s.call("DELETE", "/health", headers={"Content-Length": "0"})
        expect(answer, 405)
        assert answer.headers["Allow"] == "GET, HEAD"
        answer = s.call("OPTIONS", CHAT)
        assert answer.status == 405 and "Access-Control-Allow-Origin" not in answer.headers


def case_browsers(folder):
    """Pages of other sites, and their names for this machine."""
    with Server("--allow-host", "example.org") as s:
        port = s.port
        for host in ("127.0.0.1", "localhost:%d" % port, "LOCALHOST", "[::1]:80", "10.1.2.3", "example.org", "Example.Org:443"):
            assert s.get("/health", Host=host).status == 200, host
        for host in ("evil.example", "evil.example:%d" % port, "localhost.evil.example", "127.0.0.1.evil.example", "example.org.evil",
                     "127.0.0.1:80@evil", "[::1", "127.0.0.1:80:80", "a" * 300, "localhost:8x"):
            expect(s.get("/health", Host=host), 403, code="host_not_allowed")
        for origin in ("http://evil.example", "null", "http://127.0.0.1", "file://", "http://127.0.0.1:%d.evil" % port):
            answer = s.call("POST", CHAT, {"messages": [user("Hi")]}, {"Origin": origin})
            expect(answer, 403, code="origin_not_allowed")
            assert "Access-Control-Allow-Origin" not in answer.headers
        same = "http://127.0.0.1:%d" % port
        assert s.call("POST", CHAT, {"messages": [user("Hi")], "max_tokens": 1}, {"Origin": same}).status == 200
        reply = read_all(s.raw(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"))
        assert reply.startswith(b"HTTP/1.1 400"), reply
        reply = read_all(s.raw(b"GET /health HTTP/1.0\r\n\r\n"))
        assert b" 403 " in reply.split(b"\n")[0] or b" 400 " in reply.split(b"\n")[0], reply


def case_keys(folder):
    path = os.path.join(folder, "keys")
    with open(path, "w") as f:
        f.write("# those of the tests\nfirst-key\n\nsecond key\r\n")
    os.chmod(path, 0o600)
    with Server("--api-key-file", path) as s:
        assert s.get("/health").status == 200
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "first-key"},
                       {"Authorization": "Basic first-key"}, {"Authorization": "Bearer first-keyx"}, {"Authorization": "Bearer first-ke"}):
            for path_of in ("/v1/models", "/metrics"):
                answer = s.get(path_of, **header)
                expect(answer, 401, code="invalid_api_key")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            expect(s.call("POST", CHAT, {"messages": [user("Hi")]}, header), 401)
        for key in ("first-key", "second key"):
            assert s.get("/v1/models", Authorization="Bearer " + key).status == 200
            assert s.get("/v1/models", Authorization="bearer " + key).status == 200
    for text, what in (("", "holds no key"), ("x" * 600, "up to 64 keys"), ("k\n" * 65, "up to 64 keys")):
        with open(path, "w") as f:
            f.write(text)
        code, _, err = run_program("serve", "--api-key-file", path)
        assert code == 1 and what.encode() in err, err
    assert run_program("serve", "--api-key-file", "/none")[0] == 1


def case_body_limit(folder):
    with Server("--max-body", "1") as s:
        big = json.dumps({"messages": [user("x" * (1 << 20))]}).encode()
        sent = s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(big)))
        reply = read_all(sent)
        assert b" 413 " in reply.split(b"\n")[0] and b"1 MB" in reply, reply
        for length in (b"99999999999999999999999", b"18446744073709551615"):
            reply = read_all(s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n" % (CHAT.encode(), length)))
            assert not reply or reply.startswith(b"HTTP/1.1 4"), reply
        # in chunks, of which nobody says how many there will be
        chunked = s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % CHAT.encode())
        for at in range(0, len(big), 1 << 16):
            part = big[at:at + (1 << 16)]
            chunked.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        chunked.sendall(b"0\r\n\r\n")
        reply = read_all(chunked)
        assert b" 413 " in reply.split(b"\n")[0], reply
        small = json.dumps({"messages": [user("Hi")], "max_tokens": 1}).encode()
        chunked = s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % CHAT.encode())
        for byte in small:
            chunked.sendall(b"1\r\n%c\r\n" % byte)
        chunked.sendall(b"0\r\n\r\n")
        assert b" 200 " in read_all(chunked).split(b"\n")[0]


def case_slow_clients(folder):
    """A byte now and then does not keep a connection: headers, body and idle time are bounded."""
    with Server("--header-timeout", "1", "--body-timeout", "1") as s:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" % CHAT.encode()
        slow = [s.raw(), s.raw(b"GET /hea"), s.raw(head), s.raw(head)]
        closed = [False] * len(slow)
        end = time.monotonic() + LIMIT
        while not all(closed) and time.monotonic() < end:
            time.sleep(0.05)
            for i, one in enumerate(slow):
                try:
                    if i in (1, 3) and not closed[i]:
                        one.sendall(b"x")
                    one.setblocking(False)
                    closed[i] = closed[i] or one.recv(65536) == b""
                except BlockingIOError:
                    pass
                except OSError:
                    closed[i] = True
                one.setblocking(True)
        assert all(closed), closed
        assert s.get("/health").status == 200


def case_stalled_reader(folder):
    """Who asks and does not read is cut off; the answer's session is free for others."""
    with Server("--send-timeout", "1", "--header-timeout", "1", "--parallel", "1") as s:
        body = json.dumps({"messages": [user("Hi")], "stream": True, "logprobs": True, "top_logprobs": 20, **endless(s)}).encode()
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((s.host, s.port))
        stalled.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
        s.until("a stalled reader keeps its connection", lambda m: m["fastvlm_http_connections"] == 1)
        assert s.chat(SIGN).text == "HELLO"
        stalled.close()


def case_garbage(folder):
    with Server() as s:
        for data in (b"\0" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\x01" + b"x" * 100, b"A" * 200000,
                     b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n" % CHAT.encode(),
                     b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" % CHAT.encode(),
                     b"GET /%00%ff%0d%0aX:%20y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
            with s.raw() as sock:
                try:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                reply = read_all(sock)
                assert not reply or b" 4" in reply.split(b"\r\n")[0] or b" 5" in reply.split(b"\r\n")[0], (data[:60], reply[:200])
        assert s.chat(SIGN).text == "HELLO"


# ---- many at once -----------------------------------------------------------------------------


def together(calls):
    results = [None] * len(calls)

    def one(i):
        results[i] = calls[i]()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(LIMIT)
    return results


def case_many_clients(folder):
    """Each gets the answer, to the last bit of its logarithms, that it gets alone."""
    questions = ["What does the text say?", "What color is the text?", "How many shapes are there?", "What is it?"]
    asks = [(user(picture(name), words(q)), stream) for name in ("sign.png", "shapes.png", "count.png") for q in questions
            for stream in (False, True)]

    def ask(server, message, stream):
        answer = server.chat(message, logprobs=True, top_logprobs=1, max_tokens=30, stream=stream)
        assert answer.status == 200, answer
        if not stream:
            return answer.json["choices"][0]["logprobs"]["content"]
        return [t for e in answer.events for t in (e["choices"][0].get("logprobs") or {"content": []})["content"]]

    with Server("--parallel", "1") as s:
        alone = [ask(s, *a) for a in asks]
    with Server("--parallel", "6") as s:
        assert together([lambda a=a: ask(s, *a) for a in asks]) == alone
        metrics = s.metrics()
        assert metrics["fastvlm_images_encoded_total"] == 3, metrics
        assert metrics['fastvlm_jobs_total{outcome="done"}'] == metrics["fastvlm_jobs_taken_total"] == len(asks)


def case_vanishing_clients(folder):
    """Clients that close their connection end their work, streamed or not, and nothing hangs."""
    with Server("--parallel", "2", "-t", "1", env={"FV_CPU": "ref"}) as s:
        options = endless(s)
        for attempt in range(20):
            sockets = []
            for i in range(12):
                body = json.dumps({"messages": [user("Client %d" % i)], "stream": i % 2 == 0, **options}).encode()
                sockets.append(s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body)))
            for i, sock in enumerate(sockets):
                if i % 3 == 0:  # rudely: a reset
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            metrics = s.until("work for clients that have gone", lambda m: m["fastvlm_jobs_running"] == m["fastvlm_jobs_queued"] == 0)
            if metrics['fastvlm_jobs_total{outcome="cancelled"}'] > 0:
                break
        total = sum(metrics['fastvlm_jobs_total{outcome="%s"}' % o] for o in ("done", "failed", "cancelled"))
        assert metrics['fastvlm_jobs_total{outcome="cancelled"}'] > 0 and total == metrics["fastvlm_jobs_taken_total"], metrics
        assert s.chat(SIGN).text == "HELLO"


def case_full(folder):
    """A queue and connections that are full are said to be, with when to come again."""
    with Server("--parallel", "1", "--queue", "0") as s:
        answer = s.chat(user("Hi"))
        expect(answer, 503, code="queue_full")
        assert answer.headers["Retry-After"]
    with Server("--connections", "2") as s:
        held = [s.raw(), s.raw()]
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            answer = s.get("/v1/models")
            if answer.status == 429:
                break
        expect(answer, 429, "more than 2", code="too_many_connections")
        assert answer.headers["Retry-After"] and s.get("/health").status == 200
        for one in held:
            one.close()
        while s.get("/v1/models").status != 200:
            assert time.monotonic() < end, "connections that were closed still count"


def case_keep_alive(folder):
    with Server() as s:
        connection = s.connect()
        for body in ({"messages": [SIGN]}, {"messages": 5}, {"messages": [SIGN], "stream": True}, {"messages": [SIGN]}):
            answer = s.call("POST", CHAT, body, connection=connection)
            assert answer.status == (400 if body["messages"] == 5 else 200), answer
        assert s.call("GET", "/nothing", connection=connection).status == 404
        # a body that is not read does not become the next request
        assert s.call("POST", "/nothing", b"GET /health HTTP/1.1\r\n\r\n", connection=connection).status == 404
        assert s.call("GET", "/health", connection=connection).json == {"status": "ok"}


# ---- beginning and end ------------------------------------------------------------------------


def case_drain(folder):
    """SIGTERM lets an answer that is under way end; new requests are refused."""
    with Server("-t", "1", env={"FV_CPU": "ref"}) as s:
        connection = s.connect()
        connection.request("POST", CHAT, json.dumps({"messages": [user("Hi")], "stream": True, **endless(s), "max_tokens": 60}))
        response = connection.getresponse()
        first = response.read(10)
        s.process.send_signal(signal.SIGTERM)
        rest = first + response.read()
        assert rest.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"length"' in rest, rest[-500:]
        assert s.process.wait(LIMIT) == 0
    with Server("--drain", "0", "-t", "1", env={"FV_CPU": "ref"}) as s:
        connection = s.connect()
        connection.request("POST", CHAT, json.dumps({"messages": [user("Hi")], "stream": True, **endless(s)}))
        response = connection.getresponse()
        response.read(10)
        assert s.stop(signal.SIGINT) == 0, "answers under way hold up the end"


def case_arguments(folder):
    for args, what in ((["--host", "0.0.0.0"], "--api-key-file"), (["--host", "::"], "--api-key-file"), (["--log-prompts"], "--access-log"),
                       (["--port", "70000"], "--port"), (["--parallel", "0"], "--parallel"), (["examples/images/sign.png"], "unexpected"),
                       (["--access-log", ""], "--access-log")):
        code, _, err = run_program("serve", *args)
        assert code == 2 and what.encode() in err, (args, err)
    code, _, err = run_program("serve", "--host", "nowhere.example", "--api-key-file", PROGRAM)
    assert code in (1, 2), err
    code, _, err = run_program("serve", "tests/data/variants", "--port", "0")
    assert code == 1, err
    with Server() as s:
        code, _, err = run_program("serve", "--port", str(s.port))
        assert code == 1 and b"cannot listen" in err, err


def case_access_log(folder):
    path = os.path.join(folder, "log")
    secret = "a question that nobody else is to see"
    with Server("--access-log", path) as s:
        s.chat(user(secret), max_tokens=2)
        s.get("/nothing%22%0a")
        s.chat(SIGN, stream=True)
    with open(path) as f:
        rows = [json.loads(line) for line in f]
    assert [(r["method"], r["path"], r["status"]) for r in rows] == [("POST", CHAT, 200), ("GET", '/nothing"\n', 404), ("POST", CHAT, 200)]
    assert rows[0]["new_tokens"] == 2 and rows[0]["outcome"] == "ok" and rows[2]["images"] == 1
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", r["time"]) for r in rows)
    with open(path) as f:
        assert secret not in f.read()
    with Server("--access-log", path, "--log-prompts") as s:
        s.chat(user(secret), max_tokens=2)
    with open(path) as f:
        assert json.loads(f.readlines()[-1])["prompt"] == secret


if __name__ == "__main__":
    main(sys.modules["__main__"])
