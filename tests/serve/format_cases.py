"""Answers in JSON over HTTP, with a stand-in for llguidance (tests/standins/fake_llguidance.c), whose every answer
is $FAKE_ANSWER. Run by test_format.sh."""
import json
import os
import sys
import threading

from serving import SIGN, Server, expect, main

FAKE = os.environ["FV_FAKE_LLGUIDANCE"]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
OPENAI = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
LLAMA = {"type": "json_object", "schema": SCHEMA}


def serving(**env):
    return Server(env={"FV_LLGUIDANCE": FAKE, **env})


def case_nestings(folder):
    with serving() as s:
        for form in (OPENAI, LLAMA, {"type": "json_schema", "schema": SCHEMA}, {"type": "json_object"}):
            answer = s.chat(SIGN, response_format=form)
            assert answer.text == '{"a":1}' and answer.json["choices"][0]["finish_reason"] == "stop", (form, answer)
        assert s.chat(SIGN, response_format={"type": "text"}).text == "HELLO"
        for other in (None, {"type": "text"}):
            assert s.chat(SIGN, json_schema=SCHEMA, response_format=other).text == '{"a":1}'
        expect(s.chat(SIGN, json_schema=SCHEMA, response_format=OPENAI), 400, "json_schema", "none beside response_format")
        expect(s.chat(SIGN, json_schema="{}"), 400, "json_schema")
        events = s.chat(SIGN, response_format=OPENAI, stream=True, temperature=1.5).events
        assert "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]) == '{"a":1}', events
        for form in ("json", SCHEMA):
            answer = s.call("POST", "/api/chat", {"model": "fastvlm-demo", "messages": [{"role": "user", "content": "Hi"}], "format": form, "stream": False})
            assert answer.json["message"]["content"] == '{"a":1}', answer


def case_no_library(folder):
    with Server(env={"FV_LLGUIDANCE": folder + "/none.so"}) as s:
        for _ in range(2):
            answer = s.chat(SIGN, response_format=OPENAI)
            expect(answer, 400, "response_format", "llguidance")
            assert answer.error["param"] == "response_format" and folder not in answer.error["message"], answer
        assert s.chat(SIGN).text == "HELLO"
    with serving(FAKE_LLGUIDANCE="version=1.0.0") as s:
        expect(s.chat(SIGN, response_format=OPENAI), 400, "response_format", "llguidance")


def case_refused(folder):
    with serving(FAKE_LLGUIDANCE="schema=Unimplemented keys: [\"not\"]~<backtrace> of it") as s:
        for stream in (False, True):
            answer = s.chat(SIGN, response_format=OPENAI, stream=stream)
            expect(answer, 400, 'response_format: schema: cannot be enforced: Unimplemented keys: ["not"]')
            assert "trace" not in answer.error["message"], answer
        assert s.chat(SIGN).text == "HELLO"
    with serving() as s:
        expect(s.chat(SIGN, response_format={"type": "json_object", "schema": {"x-guidance": {}}}), 400, "x-guidance is set")
        expect(s.chat(SIGN, response_format=OPENAI, stop="1"), 400, "request: stop: ")
        deep = {}
        for _ in range(500):
            deep = {"not": deep}
        expect(s.chat(SIGN, response_format={"type": "json_object", "schema": deep}), 400, "levels deep")
        for odd in ('"a\\u0000"', '"\\ud800"', "1e400", "9223372036854775809"):  # would be enforced as something else
            body = '{"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object", "schema": {"const": %s}}}' % odd
            expect(s.call("POST", "/v1/chat/completions", body), 400)


def case_fails_midway(folder):
    with serving(FAKE_LLGUIDANCE="mask=3") as s:
        expect(s.chat(SIGN, response_format=OPENAI), 400, "response_format: schema: too complex")
        answer = s.chat(SIGN, response_format=OPENAI, stream=True)
        assert answer.status == 200, answer
        last = [json.loads(line[6:]) for line in answer.body.decode().split("\n\n") if line.startswith("data: {")][-1]
        assert "too complex" in last["error"]["message"], answer
        assert s.chat(SIGN).text == "HELLO"


def case_together(folder):
    """Constrained and free answers at once, each its own."""
    with serving(FAKE_ANSWER='{"word":"<|im_end|> a longer answer, of many tokens, é"}') as s:
        got = []

        def ask(form):
            for _ in range(6):
                got.append((form is None, (s.chat(SIGN, response_format=form) if form else s.chat(SIGN)).text))

        threads = [threading.Thread(target=ask, args=(form,)) for form in (OPENAI, None, LLAMA, None)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 24
        for free, text in got:
            assert text == ("HELLO" if free else '{"word":"<|im_end|> a longer answer, of many tokens, é"}'), (free, text)


def case_page(folder):
    """The page's files with their policy; it needs no key."""
    with open(folder + "/keys", "w") as f:
        f.write("secret\n")
    os.chmod(folder + "/keys", 0o600)
    with Server("--api-key-file", folder + "/keys") as s:
        for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
            answer = s.call("GET", path)
            assert answer.status == 200 and answer.headers["Content-Type"] == kind + "; charset=utf-8", answer
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy, policy
            name = "page.html" if path == "/" else path[1:]
            with open("src/serve/" + name, "rb") as f:
                data = f.read()
            assert answer.body == data and b"http://" not in data.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in data, path
        assert s.call("POST", "/").status == 405
        assert s.call("GET", "/page.html").status == 404


if __name__ == "__main__":
    main(sys.modules["__main__"])
