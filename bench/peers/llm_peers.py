#!/usr/bin/env python3
"""Prefill and decode speed of packaged decoders on a Qwen2 directory (make_qwen2_hf.py) in their own format.

  llm_peers.py ENGINE DIR [-t 2] [-p 280] [-n 64] [-r 4]
     ov, ov-sdpa, ov-f32   openvino_genai.LLMPipeline (optimum-cli export openvino ... --weight-format int8 | int4)
     og                    onnxruntime_genai (python -m onnxruntime_genai.models.builder ... -e cpu)
     mnn                   MNN.llm (make_mnn.py llm)
     lt                    litert_lm (make_litert.py); loads the file anew for every run
     torch, torch-bf16     transformers, not compiled; DIR is the Hugging Face directory
     llama                 llama_cpp (llama-cpp-python); DIR is a .gguf file (make_qwen2_gguf.py)
Prompt: pseudo-random ids, others in every run. Decoding is greedy and ignores the end token. Best and median of r runs after one warm-up.
"""
import argparse
import json
import os
import resource
import statistics
import time

import numpy as np

import quietly


SEED, VOCAB = [0], 151936


def ids_of(n):
    """A new prompt for every run: some pipelines keep the caches of earlier prompts and skip a prefix they have seen."""
    SEED[0] += 1
    return np.random.default_rng(SEED[0]).integers(1000, 100000, n).tolist()


def ov(a):
    import openvino as o
    import openvino_genai as g
    cfg = {"INFERENCE_NUM_THREADS": a.t, "NUM_STREAMS": 1}
    if a.engine == "ov-sdpa":
        cfg["ATTENTION_BACKEND"] = "SDPA"
    if a.engine == "ov-f32":
        cfg["INFERENCE_PRECISION_HINT"] = "f32"
    p = g.LLMPipeline(a.dir, "CPU", **cfg)
    c = g.GenerationConfig()
    c.max_new_tokens, c.ignore_eos, c.do_sample, c.apply_chat_template = a.n + 1, True, False, False

    def run():
        ids = np.array([ids_of(a.p)], np.int64)
        r = p.generate(g.TokenizedInputs(o.Tensor(ids), o.Tensor(np.ones_like(ids))), c)
        m = r.perf_metrics
        assert m.get_num_generated_tokens() == a.n + 1
        return m.get_ttft().mean / 1e3, m.get_tpot().mean / 1e3
    return "openvino_genai " + g.__version__.split("-")[0], run


def og(a):
    import onnxruntime_genai as g
    c = g.Config(a.dir)
    c.clear_providers()
    try:
        c.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": a.t, "inter_op_num_threads": 1}}}}))
    except AttributeError:
        pass
    m = g.Model(c)

    def run():
        ids = np.array(ids_of(a.p), np.int32)
        q = g.GeneratorParams(m)
        q.set_search_options(max_length=a.p + a.n + 2, min_length=a.p + a.n + 2, do_sample=False)
        e = g.Generator(m, q)
        t0 = time.time()
        e.append_tokens(ids)
        e.generate_next_token()
        t1 = time.time()
        for _ in range(a.n):
            e.generate_next_token()
        return t1 - t0, (time.time() - t1) / a.n
    return "onnxruntime_genai " + g.__version__, run


def mnn(a):
    import MNN
    import MNN.llm as ml
    m = ml.create(os.path.join(a.dir, "config.json"))
    m.set_config({"thread_num": a.t, "precision": "low", "memory": "low", "reuse_kv": False, "backend_type": "cpu"})
    m.load()

    def best(logits):
        return int(np.array(logits.read()).reshape(-1)[-VOCAB:].argmax())

    def run():
        ids = ids_of(a.p)
        m.reset()
        t0 = time.time()
        t = best(m.forward(ids))
        t1 = time.time()
        for _ in range(a.n):
            t = best(m.forward([t]))
        return t1 - t0, (time.time() - t1) / a.n
    return "MNN " + MNN.version(), run


def lt(a):
    import litert_lm as g
    from importlib.metadata import version
    g.set_min_log_severity(g.LogSeverity.ERROR)
    words = "%d " * (a.p // 2)                               # more tokens than a.p: the benchmark cuts the prompt there

    def run():
        b = g.Benchmark(os.path.join(a.dir, "model.litertlm"), backend=g.Backend.CPU(thread_count=a.t), prefill_tokens=a.p, decode_tokens=a.n,
                        max_num_tokens=512, prompt=words % tuple(ids_of(a.p // 2))).run()
        assert b.last_prefill_token_count == a.p and b.last_decode_token_count == a.n, b
        return b.last_prefill_token_count / b.last_prefill_tokens_per_second, 1 / b.last_decode_tokens_per_second
    return "litert_lm " + version("litert-lm"), run


def torch_(a):
    import torch
    import transformers
    torch.set_num_threads(a.t)
    m = transformers.AutoModelForCausalLM.from_pretrained(a.dir, dtype=torch.bfloat16 if "bf16" in a.engine else torch.float32)
    m.eval()

    @torch.no_grad()
    def run():
        ids = torch.tensor([ids_of(a.p)])
        t0 = time.time()
        o = m(input_ids=ids, use_cache=True, logits_to_keep=1)
        t = o.logits[0, -1].argmax()
        t1 = time.time()
        for _ in range(a.n):
            o = m(input_ids=t.view(1, 1), past_key_values=o.past_key_values, use_cache=True)
            t = o.logits[0, -1].argmax()
        return t1 - t0, (time.time() - t1) / a.n
    return "transformers %s torch %s" % (transformers.__version__, torch.__version__), run


def llama(a):
    import llama_cpp
    # n_batch above the prompt: the whole prompt in one pass; flash attention is the faster choice on CPUs
    m = llama_cpp.Llama(a.dir, n_ctx=a.p + a.n + 8, n_batch=512, n_ubatch=512, n_threads=a.t, n_threads_batch=a.t, flash_attn=True, verbose=False)

    def best():
        return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits(m.ctx), (m.n_vocab(),)).argmax())

    def run():
        m.reset()
        ids = ids_of(a.p)
        t0 = time.time()
        m.eval(ids)
        t = best()
        t1 = time.time()
        for _ in range(a.n):
            m.eval([t])
            t = best()
        return t1 - t0, (time.time() - t1) / a.n
    return "llama_cpp_python " + llama_cpp.__version__, run


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("engine"), ap.add_argument("dir")
    ap.add_argument("-t", type=int, default=2), ap.add_argument("-p", type=int, default=280)
    ap.add_argument("-n", type=int, default=64), ap.add_argument("-r", type=int, default=4)
    ap.add_argument("--roofline", help="path of the roofline program: print the machine's peaks before and after")
    ap.add_argument("--limit", type=float, default=240, help="seconds to spend looking for quiet repetitions")
    ap.add_argument("--json", help="append two records to this file"), ap.add_argument("--precision", help="name of it in the records")
    a = ap.parse_args()
    t0 = time.time()
    f = torch_ if a.engine.startswith("torch") else {"ov": ov, "og": og, "mn": mnn, "ll": llama, "lt": lt}[a.engine[:2]]
    ver, run = f(a)
    t1 = time.time()
    run()
    m0 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    r, note = quietly.reps(run, a.r, a.limit)
    m1 = quietly.machine(a.roofline, a.t) if a.roofline else ""
    pre, dec = [x[0] for x in r], [x[1] for x in r]
    more = dict(engine=ver, precision=a.precision or (a.engine.split("-")[-1] if "-" in a.engine else "f32"), threads=a.t, load_ms=(t1 - t0) * 1e3,
                peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, quiet=note)
    quietly.record(a.json, "prefill", pre, tokens=a.p, **more)
    quietly.record(a.json, "decode", dec, tokens=1, **more)
    print("%s %s %s t%d: prefill %d: %.0f tok/s best %.0f med (%.0f ms); decode %.1f tok/s best %.1f med; load %.2f s; rss %d MB" %
          (ver, a.engine, os.path.basename(a.dir.rstrip("/")), a.t, a.p, a.p / min(pre), a.p / statistics.median(pre), min(pre) * 1e3,
           1 / min(dec), 1 / statistics.median(dec), t1 - t0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024) + "  [" + note + "]", flush=True)
    if a.roofline:
        print("  machine before: %s; after: %s" % (m0, m1), flush=True)


if __name__ == "__main__":
    main()
