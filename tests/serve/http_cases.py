"""fastvlm serve: the protocol, what is refused, and what a hostile client gets. See serving.py."""
import json
import os
import re
import socket
import struct
import subprocess
import sys

from serving import CHAT, LIMIT, PROGRAM, ROOT, SIGN, Server, assistant, data_url, endless, expect, image, main, picture, read_all, user, words

def run_program(*args, stdin=None):
    done = subprocess.run([PROGRAM, *args], capture_output=True, cwd=ROOT, timeout=LIMIT, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


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
        parts = {"role": "assistant", "content": [words("HEL"), words(""), words("LO")]}
        joined = s.chat(SIGN, parts, turns[2], logprobs=True, top_logprobs=5).json
        assert joined["choices"] == rows[0]["choices"] and joined["usage"]["prompt_tokens"] == rows[0]["usage"]["prompt_tokens"], joined
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


def case_openapi(folder):
    """What the document describes is there, by those methods and no others."""
    with Server() as s:
        answer = s.get("/openapi.json")
        with open(os.path.join(ROOT, "docs/openapi.json"), "rb") as f:
            assert answer.status == 200 and answer.body == f.read()
        paths = answer.json["paths"]
        assert answer.json["info"]["version"] == s.get("/api/version").json["version"]
        for path, methods in paths.items():
            there = s.call("PUT", path.replace("{model}", "x"), b"")
            expected = {"GET, HEAD": ["get"], "POST": ["post"]}[there.headers["Allow"]]
            assert there.status == 405 and list(methods) == expected, (path, there)
        with open(os.path.join(ROOT, "src/serve/routes.c")) as f:
            rows = set(re.findall(r'^    { "[A-Z]+", "(/[^"]*)"', f.read(), re.M))
        described = {path.replace("{model}", "*") for path in paths}
        assert described <= rows and all(p in described for p in rows if p.startswith(("/v1/", "/api/"))), rows ^ described


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
            ("tool_choice", ["required", {"type": "function"}]), ("function_call", [{"name": "x"}]), ("grammar", ['root ::= "a"']),
            ("guided_json", [{}, "{}"]), ("guided_regex", ["a+"]), ("guided_choice", [["a"]]), ("guided_grammar", ["x"]),
            ("structured_outputs", [{"regex": "a"}]), ("regex", ["a"]), ("ebnf", ["x"]), ("samplers", [["top_k"]]), ("ignore_eos", [True]),
            ("use_beam_search", [True]), ("bad_words", [["a"]]), ("stop_token_ids", [[1]]), ("allowed_token_ids", [[1]]),
            ("include_stop_str_in_output", [True]), ("truncate_prompt_tokens", [5]), ("mm_processor_kwargs", [{"a": 1}]),
            ("logits_processors", [["x"]]), ("n_probs", [3]), ("images", [["aGk="]]), ("num_beams", [3]), ("top_a", [0.5]),
            ("add_generation_prompt", [False, 1]), ("skip_special_tokens", [False]),
            ("continue_final_message", [True]), ("chat_template", ["x"]), ("web_search_options", [{}]), ("best_of", [2]), ("n_predict", [5]),
            ("min_tokens", [5]), ("length_penalty", [2]), ("mirostat", [1]), ("typical_p", [0.5]), ("tfs_z", [0.5]), ("top_n_sigma", [1]),
            ("dynatemp_range", [1]), ("dry_multiplier", [0.8]), ("xtc_probability", [0.5]),
            ("logit_bias", [{"x": 1}, {"-1": 1}, {"99999": 1}, {"1": 101}, {"1": "x"}, [1]]), ("model", [1]),
            ("response_format", ["json", {}, {"type": "xml"}, {"type": "json_schema"}]), ("stream_options", [1]),
            ("messages", [1, {}, [1], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}], [{"role": "user", "content": 1}],
                          [{"role": "user", "content": []}], [{"role": "user", "content": ["x"]}], [{"role": "user", "content": "a\0b"}],
                          [{"role": "user", "content": [{"type": "audio"}]}], [{"role": "assistant", "content": "x"}],
                          [hi, {"role": "assistant", "content": "x"}], [hi, {"role": "assistant", "content": "x", "tool_calls": [{}]}, hi],
                          [{"role": "user", "content": "Hi", "images": ["aGk="]}], [hi, {"role": "assistant", "content": []}, hi], [hi, {"role": "assistant", "content": [words("a"), picture()]}, hi],
                          [{"role": "assistant", "content": [words("a"), words("b")]}, hi],
                          [hi, assistant("a"), assistant("b"), hi], [hi, {"role": "system", "content": "late"}, hi],
                          [{"role": "system", "content": "alone"}], [{"role": "system", "content": [picture()]}, hi]]),
        ]
        for key, values in rows:
            for value in values:
                answer = post({"messages": [hi], key: value})
                expect(answer, 400, "request: ")
                assert key in answer.error["message"], (key, value, answer)
        expect(post({"messages": [hi], "n": 2}), 400, "n: expected 1 only, found 2")
        compressed = post(b"\x1f\x8b\x08\0\0\0\0\0\0\3")
        expect(compressed, 400, "compressed")
        assert compressed.error["param"] is None, compressed
        expect(post(b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}'), 400, "temperature")
        expect(post(b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 99999999999999999999999}'), 400, "seed")
        expect(s.chat(hi, repeat_penalty=1.1, repeat_last_n=64), 400, "repeat_last_n")
        off = {"temperature": None, "n": 1, "tools": [], "tool_choice": "auto", "function_call": "none", "stop": None, "presence_penalty": 0,
               "skip_special_tokens": True, "add_generation_prompt": True, "num_beams": 1, "images": [],
               "grammar": "", "guided_json": None, "ignore_eos": False, "mirostat": 0, "typical_p": 1.0, "repeat_penalty": 1, "repeat_last_n": 64}
        assert s.chat(hi, max_tokens=1, user="me", **off).status == 200
        assert answer.error["param"], answer


def case_context_length(folder):
    with Server("--context", "64") as s:
        expect(s.chat(user("word " * 400)), 400, code="context_length_exceeded")
        expect(s.chat(user(*[picture()] * 5, words("?"))), 400, code="context_length_exceeded")
        # one long word: cutting it into tokens would take gigabytes and minutes
        system = {"role": "system", "content": "a" * (24 << 20)}
        expect(s.chat(system, user("Hi")), 400, "the system prompt", code="context_length_exceeded")
        assert s.chat(SIGN).text == "HELLO"
    code, _, err = run_program("serve", "--port", "0", "--context", "1000000")
    assert code == 1 and b"expected at most" in err, err


def case_images_refused(folder):
    with Server("--max-images", "2", "--max-megapixels", "1") as s:
        def ask(url):
            return s.chat(user({"type": "image_url", "image_url": {"url": url}}, words("?")))

        for url in ("http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd", "/etc/passwd", "", "ftp://x", "gopher://x"):
            expect(ask(url), 400, "data: URL", "no address is fetched")
        for url in ("data:", "data:image/png", "data:image/png;base64", "data:image/png,abc", "data:;base64,", "data:image/png;base64,",
                    "data:image/png;base64,A", "data:image/png;base64,AAA=A", "data:image/png;base64,AA\nAA", "data:image/png;base64,????"):
            expect(ask(url), 400, "messages[0].content[0]")
        whole = image()
        for data in (whole[:60], whole[:-30], b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"<svg/>"):
            answer = ask(data_url(data))
            expect(answer, 400, "messages[0].content[0]")
            assert "/" not in answer.error["message"].replace("image/", "") and "0x" not in answer.error["message"], answer
        # few bytes, many pixels
        expect(ask(data_url(b"P6 30000 30000 255\n")), 413, "expected up to 1000000: scale the image down", code="too_large")
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


def case_bodies_that_nobody_reads(folder):
    """Requests that need no key hold no memory: those with one are still answered."""
    path = os.path.join(folder, "keys")
    with open(path, "w") as f:
        f.write("a-key\n")
    with Server("--max-body", "1", "--api-key-file", path) as s:
        held = []
        for _ in range(12):  # more than all bodies together may be
            held.append(s.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"))
            held[-1].sendall(b"x" * 999999)
        body = {"messages": [user("x" * 600000)], "max_tokens": 1}
        expect(s.call("POST", CHAT, body, {"Authorization": "Bearer a-key"}), 400, code="context_length_exceeded")
        for one in held:
            one.sendall(b"x")
            one.shutdown(socket.SHUT_WR)
            assert b" 200 " in read_all(one).split(b"\n")[0]


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


# ---- bench/server -----------------------------------------------------------------------------


def case_bench(folder):
    """First tokens that had not come when a row ended count; a server that ends says why."""
    sys.path.insert(0, os.path.join(ROOT, "bench/server"))
    import peers
    import run

    assert [run.quantile([4, 3, 2, 1], [], part) for part in (0.5, 0.95)] == ["2000", "4000"]
    assert run.quantile([1, 2, 3, 4], [1.5, 1.5], 0.5) == "3000"  # 1 of 6, then 1 of 3 for each of those that are left
    assert run.quantile([1, 2], [10] * 10, 0.5) == "> 10000" and run.quantile([], [], 0.5) == "-"
    found = peers.measure(os.path.join(folder, "log"), ["sh", "-c", "echo no such model >&2; exit 3"], None, "none", 1, 1)
    assert found == "ended with 3: no such model | | | |", found
    with Server() as s:
        load = run.Load(s.host, s.port, "none", 1000, cut=True)
        *_, failed = load.run(4, 0.3)
        assert failed == 0 and load.first + load.waited, (load.first, load.waited)


# ---- beginning and end ------------------------------------------------------------------------


def case_arguments(folder):
    for args, what in ((["--host", "0.0.0.0"], "--api-key-file"), (["--host", "::"], "--api-key-file"), (["--log-prompts"], "--access-log"),
                       (["--port", "70000"], "--port"), (["--parallel", "0"], "--parallel"), (["model", "What is it?"], "unexpected"),
                       (["--access-log", ""], "--access-log"), (["--alias", ""], "--alias: is empty"), (["--allow-host", "x:80"], "--allow-host x:80"),
                       (["--allow-host", ""], "--allow-host")):
        code, _, err = run_program("serve", *args)
        assert code == 2 and what.encode() in err, (args, err)
    code, _, err = run_program("serve", "--host", "nowhere.example", "--api-key-file", PROGRAM)
    assert code in (1, 2), err
    for model, what in (("tests/data/variants", b""), ("none", b"no such model"), ("examples/images/sign.png", b"sign.png")):
        code, _, err = run_program("serve", model, "--port", "0")
        assert code == 1 and what in err, err
    with Server() as s:
        code, _, err = run_program("serve", "--port", str(s.port))
        assert code == 1 and b"cannot listen" in err, err


def case_unprivileged(folder):
    """Without any capability, on a file system that cannot be written to."""
    script = """for at in $(cut -d" " -f5 /proc/self/mountinfo); do mount -o remount,bind,ro "$at"; done 2>/dev/null
                touch "$0" 2>/dev/null && exit 9
                exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@\""""
    confined = ["unshare", "-rm", "sh", "-c", script, os.path.join(folder, "written")]
    try:
        possible = subprocess.run([*confined, "true"], capture_output=True, timeout=LIMIT).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        print("unprivileged: left out, there is no unshare or it is not allowed")
        return
    s = Server()
    s.args = [*confined, *s.args]
    with s:
        with open("/proc/%d/status" % s.process.pid) as f:
            status = f.read()
        assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^CapBnd:\s+0+$", status, re.M), status
        assert s.chat(SIGN).text == "HELLO" and s.get("/").status == 200


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
    # a client that leaves in the midst of its answer: the job has ended when the line is written
    with Server("--access-log", path, "--log-prompts", "-t", "1", env={"FV_CPU": "ref"}) as s:
        body = json.dumps({"messages": [user(secret)], "stream": True, **endless(s)}).encode()
        for _ in range(3):
            sock = s.raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body))
            sock.recv(64)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        s.until("work for clients that have gone", lambda m: m["fastvlm_jobs_running"] == m["fastvlm_jobs_queued"] == 0)
    with open(path) as f:
        rows = [json.loads(line) for line in f]
    cut = [r for r in rows if r["path"] == CHAT][-3:]
    assert len(cut) == 3 and all(r["outcome"] in ("cancelled", "ok") for r in cut), rows
    assert all(r["outcome"] == "cancelled" or r["new_tokens"] > 0 for r in cut), rows


if __name__ == "__main__":
    main(sys.modules["__main__"])
