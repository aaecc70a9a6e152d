"""fastvlm serve with clients that others wrote: OpenAI's for Python and Node, Ollama's, LiteLLM, curl, and schemathesis
against the interface that the server describes. Run by tools/test-serve.sh, which installs them. See serving.py."""
import json
import os
import subprocess
import sys
from typing import Annotated, Literal

import litellm
import ollama
import openai
import pydantic

from serving import IMAGES, LIMIT, ROOT, Server, data_url, image, main

PLACE = os.environ["FV_CLIENTS"]
QUESTION = "What does the text say?"
CONTENT = [{"type": "image_url", "image_url": {"url": data_url(image())}}, {"type": "text", "text": QUESTION}]
ASK = [{"role": "user", "content": CONTENT}]


def case_openai_python(folder):
    with Server() as s:
        client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key="none", max_retries=0)
        assert [m.id for m in client.models.list()] == ["fastvlm-demo"]
        answer = client.chat.completions.create(model="fastvlm-demo", messages=ASK, logprobs=True, top_logprobs=1)
        assert answer.choices[0].message.content == "HELLO" and answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens > 16 and len(answer.choices[0].logprobs.content) == 5
        stream = client.chat.completions.create(model="fastvlm-demo", messages=ASK, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "HELLO"
        assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
        turns = ASK + [{"role": "assistant", "content": "HELLO"}, {"role": "user", "content": "What color is it?"}]
        later = client.chat.completions.create(model="fastvlm-demo", messages=turns)
        assert later.usage.prompt_tokens_details.cached_tokens > 16
        vector = client.embeddings.create(model="fastvlm-demo", input=data_url(image()))
        assert len(vector.data[0].embedding) == 192
        for error, call in ((openai.BadRequestError, {"messages": ASK, "model": "fastvlm-demo", "temperature": 3}),
                            (openai.NotFoundError, {"messages": ASK, "model": "gpt-4o"}),
                            (openai.BadRequestError, {"messages": [{"role": "user", "content": "word " * 5000}], "model": "fastvlm-demo"})):
            try:
                client.chat.completions.create(**call)
                raise AssertionError("not refused: %r" % call)
            except error as found:
                assert found.body["message"], found
                code = found.code
        assert code == "context_length_exceeded"
        with client.chat.completions.create(model="fastvlm-demo", messages=ASK, stream=True) as stream:
            next(iter(stream))  # and no more: the connection is closed
        s.until("an answer that nobody reads", lambda m: m["fastvlm_jobs_running"] == 0)


def case_openai_schema(folder):
    """response_format of the official client: a class of its caller's, and a schema."""
    if os.environ.get("FV_NO_LLGUIDANCE"):
        print("    left out: llguidance cannot be built without cargo")
        return
    class Sign(pydantic.BaseModel, extra="forbid"):
        colour: Literal["red", "green", "blue"]
        stars: int = pydantic.Field(ge=0, le=20)
        words: list[Annotated[str, pydantic.Field(max_length=8)]] = pydantic.Field(max_length=2)

    with Server() as s:
        client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key="none", max_retries=0)
        for seed in range(8):
            common = {"model": "fastvlm-demo", "messages": ASK, "temperature": 1.5, "seed": seed}
            found = client.chat.completions.parse(response_format=Sign, **common).choices[0]
            assert found.finish_reason == "stop" and isinstance(found.message.parsed, Sign), found
            form = {"type": "json_schema", "json_schema": {"name": "sign", "strict": True, "schema": Sign.model_json_schema()}}
            chunks = client.chat.completions.create(response_format=form, stream=True, **common)
            Sign.model_validate_json("".join(c.choices[0].delta.content or "" for c in chunks))
        try:
            form["json_schema"]["schema"] = {"not": {"type": "string"}}
            client.chat.completions.create(response_format=form, **common)
            raise AssertionError("not refused")
        except openai.BadRequestError as found:
            assert found.param == "response_format", found


def case_openai_key(folder):
    path = os.path.join(folder, "keys")
    with open(path, "w") as f:
        f.write("sk-test\n")
    os.chmod(path, 0o600)
    with Server("--api-key-file", path) as s:
        for key, good in (("sk-test", True), ("sk-other", False)):
            client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key=key, max_retries=0)
            try:
                assert list(client.models.list()) and good
            except openai.AuthenticationError:
                assert not good


def case_openai_node(folder):
    with Server() as s:
        done = subprocess.run(["node", os.path.join(ROOT, "tests/serve/client.mjs"), str(s.port), os.path.join(IMAGES, "sign.png")],
                              capture_output=True, timeout=LIMIT, env={**os.environ, "FV_CLIENTS": PLACE})
        assert done.returncode == 0 and done.stdout == b"ok\n", (done.stdout, done.stderr)


def case_ollama_python(folder):
    with Server() as s:
        client = ollama.Client("http://127.0.0.1:%d" % s.port)
        path = os.path.join(IMAGES, "sign.png")
        ask = [{"role": "user", "content": QUESTION, "images": [path]}]
        assert client.chat("fastvlm-demo", ask).message.content == "HELLO"
        assert "".join(part.message.content for part in client.chat("fastvlm-demo", ask, stream=True)) == "HELLO"
        answer = client.generate("fastvlm-demo", QUESTION, images=[image()], options={"temperature": 0, "num_predict": 2})
        assert answer.response == "HE" and answer.done_reason == "length"
        assert [m.model for m in client.list().models] == ["fastvlm-demo"]
        assert "vision" in client.show("fastvlm-demo").capabilities
        try:
            client.chat("llava", ask)
            raise AssertionError("another model answers")
        except ollama.ResponseError as found:
            assert found.status_code == 404


def case_litellm(folder):
    with Server() as s:
        common = {"api_key": "none", "api_base": "http://127.0.0.1:%d/v1" % s.port, "num_retries": 0}
        assert litellm.completion("openai/fastvlm-demo", ASK, **common).choices[0].message.content == "HELLO"
        parts = litellm.completion("openai/fastvlm-demo", ASK, stream=True, **common)
        assert "".join(p.choices[0].delta.content or "" for p in parts) == "HELLO"


def case_curl(folder):
    with Server() as s:
        path = os.path.join(folder, "request.json")
        with open(path, "w") as f:
            json.dump({"messages": ASK}, f)
        url = "http://127.0.0.1:%d" % s.port
        out = subprocess.run(["curl", "-sS", url + "/v1/chat/completions", "-d", "@" + path], capture_output=True, timeout=LIMIT).stdout
        assert json.loads(out)["choices"][0]["message"]["content"] == "HELLO", out
        long = {"messages": [{"role": "user", "content": [CONTENT[0], {"type": "text", "text": QUESTION + " " * (2 << 20)}]}], "max_tokens": 1}
        with open(path, "w") as f:
            json.dump(long, f)  # curl asks whether to go on: Expect: 100-continue
        out = subprocess.run(["curl", "-sS", "-w", "%{http_code}", url + "/v1/chat/completions", "-H", "Content-Type: application/json",
                              "--data-binary", "@" + path], capture_output=True, timeout=LIMIT).stdout
        assert out.endswith(b"400") and b"context_length_exceeded" in out, out[-300:]


def case_schemathesis(folder):
    """Requests made from the description, right and wrong ones: no 5xx, and only answers that it has."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with Server("--max-new-tokens", "4") as s:
        done = subprocess.run([os.path.join(PLACE, "venv/bin/schemathesis"), "run", "http://127.0.0.1:%d/openapi.json" % s.port,
                               "--checks", checks, "--max-examples", "20", "--seed", "1", "--phases", "examples,fuzzing",
                               "--generation-database", "none", "--no-color"], capture_output=True, timeout=LIMIT, cwd=folder)
        assert done.returncode == 0, done.stdout.decode()[-4000:] + done.stderr.decode()[-1000:]
        found = s.metrics()
        assert found['fastvlm_http_requests_total{status="2xx"}'] > 20, found
        assert found['fastvlm_http_requests_total{status="4xx"}'] > 20, found
        assert s.get("/health").status == 200


if __name__ == "__main__":
    main(sys.modules["__main__"])
