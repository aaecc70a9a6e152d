#!/usr/bin/env python3
"""The decoder of a llava_qwen2 checkpoint as a GGUF file, written with llama.cpp's own gguf-py (for llama.cpp as a peer).

  make_qwen2_gguf.py CHECKPOINT OUT.gguf [--type f32|f16|bf16|q8_0|q4_0]        (pip: gguf)

q4_0: the embedding, which is also the head, in q8_0, as llama.cpp's quantiser does by default.
"""
import argparse
import json
import os
import sys

import gguf
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/reference"))
import st                                                                                    # noqa: E402

LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}
FILE = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}


def name_of(n):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if n in fixed:
        return fixed[n]
    _, _, i, rest = n.split(".", 3)
    stem, _, kind = rest.rpartition(".")
    return "blk.%s.%s.%s" % (i, LAYER[stem], kind)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("--type", default="f16", choices=sorted(FILE))
    a = ap.parse_args()
    ck = st.Checkpoint(a.checkpoint)
    with open(os.path.join(a.checkpoint, "config.json")) as f:
        c = json.load(f)
    w = gguf.GGUFWriter(a.out, "qwen2")
    w.add_name("synthetic qwen2")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    w.add_file_type(gguf.LlamaFileType[FILE[a.type]])
    with open(os.path.join(a.checkpoint, "vocab.json"), encoding="utf-8") as f:
        vocab = json.load(f)
    with open(os.path.join(a.checkpoint, "added_tokens.json"), encoding="utf-8") as f:
        added = json.load(f)
    with open(os.path.join(a.checkpoint, "merges.txt"), encoding="utf-8") as f:
        merges = [x for x in f.read().split("\n")[1:] if x]
    tokens, types = ["[PAD%d]" % i for i in range(c["vocab_size"])], [gguf.TokenType.UNUSED] * c["vocab_size"]
    for t, i in vocab.items():
        tokens[i], types[i] = t, gguf.TokenType.NORMAL
    for t, i in added.items():
        tokens[i], types[i] = t, gguf.TokenType.CONTROL
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_eos_token_id(c["eos_token_id"])
    w.add_bos_token_id(c["bos_token_id"])
    w.add_add_bos_token(False)
    tied = c.get("tie_word_embeddings")
    for n in ck.keys():
        if not n.startswith(("model.layers.", "model.embed_tokens.", "model.norm.")) and (n != "lm_head.weight" or tied):
            continue
        x, ty = np.ascontiguousarray(ck.f32(n)), "f32" if len(ck.info(n)[1]) == 1 else a.type
        if ty == "q4_0" and n in ("model.embed_tokens.weight", "lm_head.weight"):
            ty = "q8_0"
        q = gguf.GGMLQuantizationType[ty.upper()]
        w.add_tensor(name_of(n), gguf.quants.quantize(x, q), raw_dtype=q)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(a.out, os.path.getsize(a.out))


if __name__ == "__main__":
    main()
