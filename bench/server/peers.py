#!/usr/bin/env python3
"""fastvlm serve beside other servers of OpenAI's protocol, with the clients of run.py.

    bench/server/peers.py --prepare     once: environments and conversions, in build/peers (bench/peers/run.py makes most of them)
    bench/server/peers.py               on a quiet machine: about 14 minutes

Every row has a server of its own, freshly started and asked once before. A row ends after its seconds: requests a second are those that were
answered by then, tokens those that had come; a first token that had not come counts as one that takes longer. Rows: the demonstration model; FastVLM-0.5B's shape with the same and with different images; the
same decoder on text alone beside llama-cpp-python's server (8-bit weights); FastVLM in transformers' own server (bf16). --only words of rows."""
import argparse
import os
import socket
import subprocess
import sys
import time

import run

ROOT = run.ROOT
PACKAGES = {"llamacpp": ["llama-cpp-python[server]==0.3.36", "gguf==0.19.0", "numpy"], "transformers": ["transformers[serving]==5.23.0", "accelerate"]}
OURS = ["--parallel", "64", "--queue", "256"]
TOKENS = 32


def rows(work, model):
    """(server, command, model's name in requests, images, clients, seconds)"""
    fastvlm = os.environ.get("FASTVLM", os.path.join(ROOT, "build/release/fastvlm"))
    demo, full = [fastvlm, "serve", *OURS, "--port", "PORT"], [fastvlm, "serve", model, *OURS, "--port", "PORT"]
    gguf, hf = os.path.join(work, "qwen2-q8_0.gguf"), os.path.join(work, "fast_vlm")
    llama = [os.path.join(work, "venv-llamacpp/bin/python"), "-m", "llama_cpp.server", "--model", gguf, "--n_threads", "2", "--n_ctx", "2048",
             "--interrupt_requests", "false", "--port", "PORT"]
    torch = [os.path.join(work, "venv-transformers/bin/transformers"), "serve", hf, "--device", "cpu", "--dtype", "bfloat16", "--port", "PORT"]
    for kind in ("same", "different"):
        for n in (1, 4, 16, 64):
            yield "fastvlm, demonstration model", demo, None, kind, n, 6
    for kind, seconds in (("none", (10, 10, 15, 25)), ("same", (10, 10, 15, 40)), ("different", (12, 20, 50, 150))):
        for n, s in zip((1, 4, 16, 64), seconds):
            yield "fastvlm, 0.5B int8/z8", full, None, kind, n, s
    for n, s in zip((1, 4, 16, 64), (10, 15, 30, 90)):
        yield "llama-cpp-python, decoder q8_0", llama, None, "none", n, s
    for n, s in zip((1, 4), (25, 50)):
        yield "transformers, 0.5B bf16", torch, hf, "different", n, s


def port_free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(process, port, kind, model):
    """Asks until there is an answer: a model takes time to load."""
    end = time.time() + 120
    while time.time() < end and process.poll() is None:
        warm = run.Load("127.0.0.1", port, kind, 4, model)
        warm.run(1, 0.1)
        if warm.total:
            return True
        time.sleep(0.2)
    return False


def last_line(path):
    with open(path, errors="replace") as f:
        return ([line.strip() for line in f if line.strip()] or ["no message"])[-1]


def measure(log, command, model, kind, clients, seconds):
    """A row's figures, or why there are none. log: the file that gets what the server prints."""
    port = port_free()
    try:
        with open(log, "w") as f:
            process = subprocess.Popen([str(port) if x == "PORT" else x for x in command], stdout=f, stderr=f,
                                       env=dict(os.environ, HF_HUB_OFFLINE="1"))
    except OSError as e:
        return "%s | | | |" % e
    try:
        if not answers(process, port, "none" if kind == "none" else "same", model):
            why = "no answer in two minutes" if process.poll() is None else "ended with %d" % process.returncode
            return "%s: %s | | | |" % (why, last_line(log))
        n, kind, requests, tokens, median, late, failed = run.Load("127.0.0.1", port, kind, TOKENS, model, cut=True).run(clients, seconds)
        if process.poll() is not None:
            print("%s: ended with %d: %s" % (command[0], process.returncode, last_line(log)), file=sys.stderr)
        return "%.2f | %.1f | %s | %s | %d" % (requests, tokens, median, late, failed)
    finally:
        process.kill()
        process.wait()


def prepare(work):
    subprocess.run([sys.executable, os.path.join(ROOT, "bench/peers/run.py"), "--work", work, "--only", "install,prepare", "--engines",
                    "transformers,llamacpp"], check=True)
    for name, packages in PACKAGES.items():
        subprocess.run([os.path.join(work, "venv-%s/bin/python" % name), "-m", "pip", "install", "-q", *packages], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default=os.path.join(ROOT, "build/peers"))
    p.add_argument("--model", help="of 0.5B's shape, packed as int8 and z8 (default: WORK/fastvlm-0.5b.gguf, packed by --prepare)")
    p.add_argument("--prepare", action="store_true")
    p.add_argument("--only", action="append", default=[], help="rows whose server or images have this in their name")
    args = p.parse_args()
    model = args.model or os.path.join(args.work, "fastvlm-0.5b.gguf")
    if args.prepare:
        prepare(args.work)
        if not os.path.exists(model):
            fastvlm = os.environ.get("FASTVLM", os.path.join(ROOT, "build/release/fastvlm"))
            subprocess.run([fastvlm, "pack", os.path.join(args.work, "fastvlm-0.5b"), "-o", model, "--vision", "int8", "--decoder", "z8"], check=True)
        return
    print("| server | images | clients | requests/s | tokens/s | first token, median ms | 95 % | failed |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    log = os.path.join(args.work, "server.log")
    os.makedirs(args.work, exist_ok=True)
    for name, command, of, kind, clients, seconds in rows(args.work, model):
        if all(word in name + " " + kind for word in args.only):
            print("| %s | %s | %d | %s |" % (name, kind, clients, measure(log, command, of, kind, clients, seconds)), flush=True)


if __name__ == "__main__":
    main()
