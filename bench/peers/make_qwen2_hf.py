#!/usr/bin/env python3
"""Split the decoder of a llava_qwen2 checkpoint off as a plain Hugging Face Qwen2ForCausalLM directory (for decoder peers).

  make_qwen2_hf.py CHECKPOINT OUTDIR
"""
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/reference"))
import st                                                                                    # noqa: E402
from make_checkpoint import dump                                                             # noqa: E402

KEYS = ("attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "initializer_range", "intermediate_size",
        "max_position_embeddings", "max_window_layers", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
        "rms_norm_eps", "rope_theta", "sliding_window", "tie_word_embeddings", "torch_dtype", "use_cache", "use_sliding_window",
        "vocab_size")


def main():
    src, out = sys.argv[1:3]
    os.makedirs(out, exist_ok=True)
    ck = st.Checkpoint(src)
    with open(os.path.join(src, "config.json")) as f:
        c = json.load(f)
    tied = c["tie_word_embeddings"]
    names = sorted(n for n in ck.keys() if n.startswith(("model.layers.", "model.embed_tokens.", "model.norm.")) or
                   (n == "lm_head.weight" and not tied))
    decl = [(n,) + ck.info(n) for n in names]
    w = st.Writer(os.path.join(out, "model.safetensors"), decl, {"format": "pt"})
    for n, dt, _ in decl:
        w.write(n, ck.f32(n))
    w.close()
    cfg = {k: c[k] for k in KEYS}
    cfg.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2")
    dump(os.path.join(out, "config.json"), cfg, indent=2)
    dump(os.path.join(out, "generation_config.json"), {"bos_token_id": c["bos_token_id"], "eos_token_id": c["eos_token_id"],
                                                       "pad_token_id": c["bos_token_id"]}, indent=2)
    for f in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"):
        shutil.copy(os.path.join(src, f), out)
    print("%s: %d tensors" % (out, len(decl)))


if __name__ == "__main__":
    main()
