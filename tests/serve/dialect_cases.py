"""fastvlm serve: embeddings and the part of Ollama's protocol that it speaks. See serving.py."""
import base64
import json
import struct
import sys

from serving import SIGN, Server, data_url, image, main

B64 = base64.b64encode(image()).decode()


def post(s, path, **body):
    return s.call("POST", path, body)


def lines(answer):
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/x-ndjson", answer
    return [json.loads(line) for line in answer.body.decode().splitlines()]


# ---- embeddings -------------------------------------------------------------------------------


def case_embeddings(folder):
    with Server() as s:
        url = data_url(image())
        one = post(s, "/v1/embeddings", input=url).json
        assert one["object"] == "list" and one["usage"] == {"prompt_tokens": 16, "total_tokens": 16}
        assert len(one["data"]) == 1 and len(one["data"][0]["embedding"]) == 192
        coded = post(s, "/v1/embeddings", input=[url], encoding_format="base64").json["data"][0]["embedding"]
        values = struct.unpack("<192f", base64.b64decode(coded))
        assert list(values) == one["data"][0]["embedding"], "base64 says something else"
        many = post(s, "/v1/embeddings", input=[url, {"image": data_url(image("shapes.png"))},
                                                {"type": "image_url", "image_url": {"url": url}}]).json["data"]
        assert [d["index"] for d in many] == [0, 1, 2]
        assert many[0]["embedding"] == many[2]["embedding"] == one["data"][0]["embedding"] != many[1]["embedding"]
        assert s.metric("images_encoded_total") == 2
        assert s.chat(SIGN).json["timings"]["images_cached_n"] == 1
        for body in ({"input": "a text"}, {"input": []}, {"input": [1]}, {}, {"input": url, "encoding_format": "int8"},
                     {"input": url, "dimensions": 5}, {"input": data_url(b"no image")}, {"input": {}}):
            answer = post(s, "/v1/embeddings", **body)
            assert answer.status == 400 and answer.error["message"].startswith("request: "), answer
        assert post(s, "/v1/embeddings", input=[url] * 17).status == 413
        assert post(s, "/v1/embeddings", input=url, model="other").status == 404


# ---- Ollama -----------------------------------------------------------------------------------


def case_ollama_chat(folder):
    with Server() as s:
        ask = {"model": "fastvlm-demo:latest", "messages": [{"role": "user", "content": "What does the text say?", "images": [B64]}]}
        whole = post(s, "/api/chat", stream=False, **ask)
        assert whole.status == 200 and whole.json["message"] == {"role": "assistant", "content": "HELLO"}, whole
        assert whole.json["done"] is True and whole.json["done_reason"] == "stop"
        assert whole.json["prompt_eval_count"] == s.chat(SIGN).json["usage"]["prompt_tokens"]
        assert all(isinstance(whole.json[k], int) for k in ("total_duration", "load_duration", "prompt_eval_duration", "eval_count"))
        streamed = lines(post(s, "/api/chat", **ask))
        assert "".join(line["message"]["content"] for line in streamed) == "HELLO"
        assert [line["done"] for line in streamed] == [False] * (len(streamed) - 1) + [True]
        short = post(s, "/api/chat", stream=False, options={"num_predict": 2, "temperature": 0, "stop": ["x"]}, **ask).json
        assert short["message"]["content"] == "HE" and short["done_reason"] == "length"
        history = ask["messages"] + [{"role": "assistant", "content": "HELLO"}, {"role": "user", "content": "What color is it?"}]
        later = post(s, "/api/chat", stream=False, messages=history).json
        assert later["prompt_eval_count"] > whole.json["prompt_eval_count"]
        system = post(s, "/api/chat", stream=False, messages=[{"role": "system", "content": "Be brief."}] + ask["messages"]).json
        assert system["prompt_eval_count"] != whole.json["prompt_eval_count"]


def case_ollama_generate(folder):
    with Server() as s:
        whole = post(s, "/api/generate", prompt="What does the text say?", images=[B64], stream=False)
        assert whole.status == 200 and whole.json["response"] == "HELLO" and "message" not in whole.json, whole
        streamed = lines(post(s, "/api/generate", prompt="What does the text say?", images=[B64]))
        assert "".join(line["response"] for line in streamed) == "HELLO" and streamed[-1]["done"]
        for path, body in (("/api/generate", {}), ("/api/chat", {"messages": []}), ("/api/chat", {})):
            loaded = post(s, path, stream=False, **body)
            assert loaded.status == 200 and loaded.json["done_reason"] == "load", loaded


def case_ollama_models(folder):
    with Server() as s:
        tags = s.get("/api/tags").json["models"]
        assert [m["name"] for m in tags] == ["fastvlm-demo"] and tags[0]["details"]["family"] == "fastvlm"
        show = post(s, "/api/show", model="fastvlm-demo").json
        assert show["capabilities"] == ["completion", "vision"] and show["model_info"]["fastvlm.context_length"] == 1024
        assert post(s, "/api/show", name="fastvlm-demo:latest").status == 200
        assert post(s, "/api/show", model="other").status == 404
        assert s.get("/api/version").json["version"]


def case_ollama_refused(folder):
    with Server() as s:
        hi = [{"role": "user", "content": "Hi"}]
        rows = [
            ("/api/chat", {"messages": hi, "tools": [{}]}), ("/api/chat", {"messages": hi, "think": True}),
            ("/api/chat", {"messages": hi, "format": "xml"}), ("/api/chat", {"messages": hi, "options": {"temperature": 9}}),
            ("/api/chat", {"messages": hi, "options": {"num_predict": -3}}), ("/api/chat", {"messages": hi, "options": 5}),
            *(("/api/chat", {"messages": hi, "options": options}) for options in (
                {"num_ctx": 4096}, {"mirostat": 1}, {"typical_p": 0.5}, {"tfs_z": 2.0}, {"presence_penalty": 1.5}, {"frequency_penalty": 1},
                {"repeat_penalty": 1.1, "repeat_last_n": 64}, {"repeat_penalty": 0})),
            ("/api/chat", {"messages": [{"role": "user", "content": "Hi", "images": ["?"]}]}),
            ("/api/chat", {"messages": [{"role": "user", "content": "Hi", "images": [5]}]}),
            ("/api/chat", {"messages": [{"role": "user", "content": "Hi", "images": ["aGVsbG8="]}]}),
            ("/api/chat", {"messages": [{"role": "tool", "content": "Hi"}]}), ("/api/chat", {"messages": [5]}),
            ("/api/chat", {"messages": hi + [{"role": "assistant", "content": "", "tool_calls": [{}]}] + hi}),
            ("/api/chat", {"messages": [{"role": "system", "content": "alone"}]}),
            ("/api/generate", {"prompt": "Hi", "raw": True}), ("/api/generate", {"prompt": "Hi", "suffix": "x"}),
            ("/api/generate", {"prompt": "Hi", "template": "x"}), ("/api/generate", {"prompt": "Hi", "context": [1]}),
            ("/api/generate", {"prompt": 5}), ("/api/show", {"model": 5}),
        ]
        for path, body in rows:
            answer = post(s, path, **body)
            assert answer.status == 400 and isinstance(answer.json["error"], str), (path, body, answer)
        off = {"mirostat": 0, "typical_p": 1.0, "repeat_last_n": 64, "num_gpu": 1, "num_predict": 1}
        assert post(s, "/api/chat", messages=hi, stream=False, options=off).status == 200
        answer = post(s, "/api/chat", messages=hi, model="llava")
        assert answer.status == 404 and "llava" not in answer.json["error"] and isinstance(answer.json["error"], str), answer


if __name__ == "__main__":
    main(sys.modules["__main__"])
