"""Cases of tools/test-schema.sh: what the real llguidance makes of schemas, good and hostile.

The validator here knows the few keywords that the good schemas use, and is no llguidance."""
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../serve"))
from serving import Server, picture, user, words  # noqa: E402

PROGRAM = os.environ["FASTVLM"]
ANSWERS = os.environ["SCHEMA_ANSWERS"]
MODEL = "models/demo/demo.gguf"
IMAGES = [f"examples/images/{name}" for name in ("sign.png", "shapes.png", "number.png")]
SECONDS = 20  # no schema may keep the program longer

SHAPE = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue", "yellow", "orange", "purple", "black", "white"]},
        "shape": {"type": "string", "enum": ["circle", "square", "triangle", "star", "heart"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
    },
    "required": ["colour", "shape", "count"],
    "additionalProperties": False,
}
OTHERS = {
    "a list of objects": {"type": "array", "items": SHAPE, "minItems": 1, "maxItems": 3},
    "strings with lengths and patterns": {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 12}, "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
                       "sure": {"type": "boolean"}, "nothing": {"type": "null"}},
        "required": ["title", "code", "sure", "nothing"], "additionalProperties": False},
    "references, a choice of types": {
        "$defs": {"word": {"type": "string", "maxLength": 6}},
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/word"}, "two": {"anyOf": [{"$ref": "#/$defs/word"}, {"type": "integer", "minimum": -5, "maximum": 5}]}},
        "required": ["one", "two"], "additionalProperties": False},
}


def valid(value, schema, root):
    """Is value what schema, one of those above, asks for?"""
    if "$ref" in schema:
        return valid(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return any(valid(value, s, root) for s in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
        return False
    if kind == "object":
        return (all(key in value for key in schema["required"]) and all(key in schema["properties"] for key in value)
                and all(valid(v, schema["properties"][key], root) for key, v in value.items()))
    if kind == "array":
        return schema["minItems"] <= len(value) <= schema["maxItems"] and all(valid(v, schema["items"], root) for v in value)
    if kind == "string":
        return len(value) <= schema.get("maxLength", 1 << 20) and re.search(schema.get("pattern", ""), value) is not None
    if kind == "integer":
        return schema["minimum"] <= value <= schema["maximum"]
    return True


def answers(schema, count):
    """That many answers, as text."""
    result = subprocess.run([ANSWERS, MODEL, json.dumps(schema), str(count), *IMAGES], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == count, len(lines)
    return lines


def case_a_thousand_answers():
    """Objects with colour, shape and count: all of 1,000 are valid, and they differ."""
    lines = answers(SHAPE, 1000)
    bad = [line for line in lines if not valid(json.loads(line), SHAPE, SHAPE)]
    assert not bad, bad[:3]
    assert len(set(lines)) > 50, len(set(lines))
    assert not any(" " in line for line in lines), "blanks between tokens"


def case_other_schemas():
    """Lists, patterns, lengths, references."""
    for name, schema in OTHERS.items():
        for line in answers(schema, 60):
            assert valid(json.loads(line), schema, schema), (name, line)


def case_the_program():
    """fastvlm run, greedy: the model's own words where the schema leaves a choice."""
    code, out, err = run(json.dumps(SHAPE), "-q")
    assert code == 0, err
    answer = json.loads(out)
    assert valid(answer, SHAPE, SHAPE), answer
    assert answer["shape"] == "star", answer
    assert out == run(json.dumps(SHAPE), "-q")[1], "not the same answer twice"


def case_batch():
    """fastvlm batch: all rows are valid, whatever is decoded together; a request of OpenAI's by its own schema."""
    with tempfile.TemporaryDirectory() as folder:
        schema, rows, outputs = os.path.join(folder, "schema"), os.path.join(folder, "rows"), []
        with open(schema, "w") as f:
            json.dump(SHAPE, f)
        own = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 3}, "minItems": 2, "maxItems": 2}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": own}}
        with open(rows, "w") as f:
            json.dump({"custom_id": "own", "body": {"response_format": form, "messages": [{"role": "user", "content": "Which?"}]}}, f)
        for together in ("1", "8"):
            out = os.path.join(folder, "out" + together)
            result = subprocess.run([PROGRAM, "batch", "-m", MODEL, *IMAGES * 4, rows, "-o", out, "--json-schema", schema, "--together", together, "-q"],
                                    capture_output=True, text=True, timeout=120)
            assert result.returncode == 0, result.stderr
            with open(out) as f:
                outputs.append(f.read())
    assert outputs[0] == outputs[1]
    found = [json.loads(line) for line in outputs[0].splitlines()]
    assert len(found) == 13 and all(row["status"] == "ok" and row["finish"] == "stop" for row in found), found
    assert all(valid(json.loads(row["text"]), SHAPE, SHAPE) for row in found[:-1]), found
    assert valid(json.loads(found[-1]["text"]), own, own), found[-1]


def case_requests():
    """Requests over HTTP, 8 at once, streamed and whole, with images and without, each by one of the schemas: all answers are valid."""
    schemas, bad, n = [SHAPE, *OTHERS.values()], [], 600

    def ask(s, first):
        connection = s.connect()
        for i in range(first, n, 8):
            schema, stream = schemas[i // 8 % len(schemas)], i % 2 == 1
            form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
            parts = [picture(os.path.basename(IMAGES[i % 3]))] if i % 5 else []
            body = {"messages": [user(*parts, words("Describe it."))], "response_format": form, "temperature": 1.5, "seed": i, "stream": stream}
            answer = s.call("POST", "/v1/chat/completions", body, connection=connection)
            try:
                choices = [event["choices"][0] for event in answer.events] if stream else [answer.json["choices"][0]]
                text = "".join(c["delta"].get("content", "") if stream else c["message"]["content"] for c in choices)
                assert choices[-1]["finish_reason"] == "stop" and valid(json.loads(text), schema, schema), text
                texts.add(text)
            except (AssertionError, ValueError, KeyError) as e:
                bad.append((i, repr(e), answer))

    texts = set()
    with Server("--parallel", "8", model=[MODEL]) as s:
        threads = [threading.Thread(target=ask, args=(s, first)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not bad, (len(bad), bad[:2])
        assert s.metric('jobs_total{outcome="done"}') == n and len(texts) > 200, len(texts)


def case_marks_are_text():
    """A control mark in the schema is those characters in the answer, never the control token."""
    schema = {"const": {"mark": "<|im_end|>", "and": "<|endoftext|>"}}
    code, out, err = run(json.dumps(schema), "-q")
    assert code == 0 and json.loads(out) == schema["const"], (code, out, err)


def run(schema, *more):
    """Exit code, stdout, stderr of an answer by this schema, text or bytes."""
    data = schema if isinstance(schema, bytes) else schema.encode()
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        f.write(data)
        f.flush()
        began = time.monotonic()
        result = subprocess.run([PROGRAM, "run", IMAGES[0], "What is it?", "--json-schema", f.name, *more], capture_output=True,
                                text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert time.monotonic() - began < SECONDS, ("too long", schema[:80])
    return result.returncode, result.stdout, result.stderr


def nested(depth):
    return '{"properties":{"a":' * depth + "{}" + "}}" * depth


REFUSED = {  # name: schema, part of the message
    "not JSON": ("colour", "schema: "),
    "nothing": ("", "schema: empty"),
    "a number": ("7", "schema: "),
    "a list": ("[]", "expected an object"),
    "true": ("true", "schema: "),
    "100,000 brackets": ("[" * 100000, "schema: "),
    "deep": (nested(1000), "schema: "),
    "deep, as llguidance parses": (nested(100), "recursion limit"),
    "keyword not enforced: not": ('{"not": {"type": "string"}}', "cannot be enforced: Unimplemented keys"),
    "keyword not enforced: uniqueItems": ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
    "keyword not enforced: if": ('{"if": {"type": "string"}, "then": {"maxLength": 3}}', "Unimplemented keys"),
    "unknown format": ('{"type": "string", "format": "colour"}', "Unknown format"),
    "bad regular expression": ('{"type": "string", "pattern": "(["}', "cannot be enforced"),
    "look-ahead": ('{"type": "string", "pattern": "(?=a)b"}', "cannot be enforced"),
    "false within": ('{"type": "object", "properties": {"a": false}, "required": ["a"]}', "nsatisfiable"),
    "a contradiction": ('{"type": "integer", "minimum": 5, "maximum": 4}', "cannot be enforced"),
    "no such definition": ('{"$ref": "#/$defs/none"}', "cannot be enforced"),
    "a reference into the network": ('{"$ref": "https://example.com/schema.json"}', "cannot be enforced"),
    "a reference to a file": ('{"$ref": "file:///etc/passwd"}', "cannot be enforced"),
    "llguidance's own options": ('{"x-guidance": {"lenient": true}, "not": {}}', "x-guidance is set"),
    "an unknown type": ('{"type": "colour"}', "cannot be enforced"),
    "NaN": ('{"type": "number", "minimum": NaN}', "schema: "),
    "long text with wide characters": ('{"type": "string", "format": 1, "enum": "' + "é" * 150 + '"}', "cannot be enforced"),
    "products of alternatives": (json.dumps({"allOf": [{"anyOf": [{"properties": {f"k{i}_{j}": {"type": "string", "maxLength": j + 1}}} for j in range(10)]}
                                                       for i in range(12)]}), "cannot be enforced"),
}


def case_refused_schemas():
    """One clear message before anything is computed, and no answer."""
    for name, (schema, message) in REFUSED.items():
        code, out, err = run(schema)
        assert code == 1 and out == "", (name, code, out, err)
        lines = [line for line in err.splitlines() if "demonstration model" not in line]
        assert len(lines) == 1 and message in lines[0], (name, err)
        assert "panic" not in err and "x-guidance\":" not in err, (name, err)
    code, out, err = run('{"type": "string", "pattern": "^(((a{1000}){1000}){1000}){1000}$"}', "-q")  # shows at the second token
    assert code == 1 and err.splitlines()[-1].startswith("fastvlm: schema: too complex"), (code, out, err)


def case_large_schemas():
    """What is large and enforceable is answered, or refused with one message; never a crash."""
    large = {
        "10,000 words": {"enum": [f"word {i}" for i in range(10000)]},
        "2,000 properties": {"type": "object", "properties": {f"p{i}": {"type": "boolean"} for i in range(2000)}},
        "a chain of 2,000 references": {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(2000)} | {"d2000": {"type": "boolean"}},
                                        "$ref": "#/$defs/d0"},
        "a reference to itself": {"$ref": "#"},
        "a list of itself": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
        "long strings": {"type": "string", "minLength": 100000, "maxLength": 100000},
    }
    for name, schema in large.items():
        code, out, err = run(json.dumps(schema), "-q", "-n", "40")
        assert code in (0, 1), (name, code, err)
        assert code == 0 or len(err.splitlines()) == 1, (name, err)
        if code == 0:
            json.loads(out)


def main():
    passed = failed = 0
    cases = [value for name, value in sorted(globals().items()) if name.startswith("case_")]
    for case in cases:
        if sys.argv[1:] and not any(word in case.__name__ for word in sys.argv[1:]):
            continue
        began = time.monotonic()
        try:
            case()
            passed += 1
            print(f"ok      {case.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except (AssertionError, ValueError, KeyError, subprocess.TimeoutExpired) as e:
            failed += 1
            print(f"FAILED  {case.__name__}: {str(e)[:800]}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
