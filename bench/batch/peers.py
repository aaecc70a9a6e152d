#!/usr/bin/env python3
"""Many images through `fastvlm batch`, through a process of `fastvlm run` for each, and through transformers' pipeline.

    bench/batch/peers.py --prepare                       once: checkpoint, environment, packed file, in build/peers (see bench/peers)
    bench/batch/peers.py [--images 8] [--tokens 40]      on a quiet machine: about 4 minutes
    bench/batch/peers.py --only batch --only int8        rows that have all these words in their name

All answer the same question about the same images (those of examples/images, decoded anew each time) with exactly as many tokens, greedily,
on the CPU. The weights are random, in FastVLM-0.5B's shape, the same for all; answers are not compared. A row is a process of its own. Its
rate counts from the first image to the last answer and leaves out loading the model, but for `run`, which loads it for each image; the
first image of transformers' rows, which warms it up, does not count."""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROMPT = "Describe the image."


def pictures(n):
    """n paths: the example images in turn."""
    folder = os.path.join(ROOT, "examples/images")
    names = sorted(name for name in os.listdir(folder) if name.rsplit(".", 1)[-1] in ("jpg", "jpeg", "png", "webp"))
    return [os.path.join(folder, name) for name in itertools.islice(itertools.cycle(names), n)]


# ---- inside transformers' environment: a line of JSON

def transformers_(a):
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    torch.set_num_threads(a.threads)
    pipe = transformers.pipeline("image-text-to-text", model=a.checkpoint, dtype=torch.bfloat16 if a.precision == "bf16" else torch.float32, device="cpu")
    pipe.tokenizer.padding_side = "left"
    chats = [[{"role": "user", "content": [{"type": "image", "path": path}, {"type": "text", "text": PROMPT}]}] for path in pictures(a.images)]
    how = {"max_new_tokens": a.tokens, "min_new_tokens": a.tokens, "do_sample": False}
    pipe(text=chats[:1], batch_size=1, generate_kwargs=how, return_full_text=False)
    start = time.perf_counter()
    out = pipe(text=chats, batch_size=a.together, generate_kwargs=how, return_full_text=False)
    seconds = time.perf_counter() - start
    assert len(out) == a.images, len(out)
    return "transformers %s, torch %s" % (transformers.__version__, torch.__version__.split("+")[0]), seconds


# ---- rows

def peak_mb(command):
    """Runs it -> (its standard output, its peak memory in MB)"""
    with tempfile.TemporaryFile("w+") as err:
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        out = p.stdout.read()
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = status
        err.seek(0)
        if status:
            raise RuntimeError("%s: %s" % (command[0], (err.read().strip().splitlines() or ["ended with status %d" % status])[-1]))
    return out, usage.ru_maxrss / 1000


def batch(a, model, precision, together):
    with tempfile.TemporaryDirectory() as folder:
        paths = os.path.join(folder, "list")
        with open(paths, "w") as f:
            f.write("".join(path + "\n" for path in pictures(a.images)))
        out, mb = peak_mb([a.fastvlm, "batch", model, paths, "-o", os.path.join(folder, "out"), "--together", str(together), "-n", str(a.tokens),
                           "--ignore-eos", "-p", PROMPT, "-q", "--json", "-t", str(a.threads), *precision])
    report = json.loads(out)
    assert report["rows"] == a.images and not report["failed"] and report["new_tokens"] == a.images * a.tokens, report
    return "fastvlm", report["ms"] / 1e3, mb


def one_by_one(a, model, precision, _):
    start, most = time.perf_counter(), 0.0
    for path in pictures(a.images):
        mb = peak_mb([a.fastvlm, "run", model, path, PROMPT, "-n", str(a.tokens), "--ignore-eos", "-q", "-t", str(a.threads), *precision])[1]
        most = max(most, mb)
    return "fastvlm", time.perf_counter() - start, most


def pipeline(a, checkpoint, precision, together):
    out, mb = peak_mb([os.path.join(a.work, "venv-transformers/bin/python"), os.path.abspath(__file__), "--inside", "--checkpoint", checkpoint,
                       "--precision", precision, "--together", str(together), "--images", str(a.images), "--tokens", str(a.tokens), "--threads",
                       str(a.threads)])
    name, seconds = json.loads(out.strip().splitlines()[-1])
    return name, seconds, mb


def rows(a):
    """(name, precision, function, its model, its precision, answers together)"""
    bf16 = ["--vision", "bf16", "--decoder", "bf16"]
    yield "batch", "int8, 8 bits", batch, a.model, [], 8
    yield "batch", "bf16", batch, a.checkpoint, bf16, 8
    yield "run, a process for each", "int8, 8 bits", one_by_one, a.model, [], 1
    yield "run, a process for each", "bf16", one_by_one, a.checkpoint, bf16, 1
    for together in (1, 4):
        yield "pipeline, batch_size %d" % together, "bf16", pipeline, a.checkpoint, "bf16", together


def prepare(a):
    subprocess.run([sys.executable, os.path.join(ROOT, "bench/peers/run.py"), "--work", a.work, "--only", "install,prepare", "--engines", "transformers"],
                   check=True)
    if not os.path.exists(a.model):
        subprocess.run([a.fastvlm, "pack", a.checkpoint, "-o", a.model, "--vision", "int8", "--decoder", "z8"], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default=os.path.join(ROOT, "build/peers"))
    p.add_argument("--model", help="of 0.5B's shape, packed as int8 and z8 (default: WORK/fastvlm-0.5b.gguf)")
    p.add_argument("--checkpoint", help="the same in bf16, in transformers' layout (default: WORK/fast_vlm)")
    p.add_argument("--images", type=int, default=8)
    p.add_argument("--tokens", type=int, default=40)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--prepare", action="store_true")
    p.add_argument("--only", action="append", default=[], help="rows that have this in their name or precision")
    p.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--precision", default="bf16", help=argparse.SUPPRESS)
    p.add_argument("--together", type=int, default=1, help=argparse.SUPPRESS)
    a = p.parse_args()
    a.fastvlm = os.environ.get("FASTVLM", os.path.join(ROOT, "build/release/fastvlm"))
    a.model = a.model or os.path.join(a.work, "fastvlm-0.5b.gguf")
    a.checkpoint = a.checkpoint or os.path.join(a.work, "fast_vlm")
    if a.inside:
        print(json.dumps(transformers_(a)))
        return
    if a.prepare:
        prepare(a)
        return
    print("| | precision | engine | rows/s | tokens/s | s | memory, MB |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name, precision, row, model, how, together in rows(a):
        if not all(word in name + " " + precision for word in a.only):
            continue
        try:
            engine, seconds, mb = row(a, model, how, together)
            print("| %s | %s | %s | %.3f | %.1f | %.1f | %.0f |" % (name, precision, engine, a.images / seconds, a.images * a.tokens / seconds, seconds, mb),
                  flush=True)
        except (RuntimeError, OSError, ValueError) as e:
            print("| %s | %s | %s | | | | |" % (name, precision, e), flush=True)


if __name__ == "__main__":
    main()
