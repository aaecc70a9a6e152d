#!/usr/bin/env python3
"""Hugging Face's tokenizers (Rust) on the exported tokenizer.json: the ids of ours, and decoding back to the text.

  hf_tokenizers.py --program build/release/fastvlm --library build/release/libfastvlm.so MODEL... [--strings 4000]
                                                                                            (pip: tokenizers)

The checkpoint's own tokenizer.json is put aside first, so that the exported one is built from the vocabulary. Models in the
fast_vlm layout are exported too, whose tokenizer has "<image>" besides.
"""
import argparse
import os
import shutil
import sys
import tempfile

import tokenizers

import fv

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/reference"))
from tokenizer_crosscheck import strings  # noqa: E402


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--program", required=True), ap.add_argument("--library", required=True)
    ap.add_argument("models", nargs="+"), ap.add_argument("--strings", type=int, default=4000)
    a = ap.parse_args()
    bad = 0
    texts = strings(a.strings)
    for model in a.models:
        with tempfile.TemporaryDirectory() as work:
            bare = os.path.join(work, "model")
            os.mkdir(bare)
            for name in os.listdir(model):
                if name != "tokenizer.json":
                    os.symlink(os.path.abspath(os.path.join(model, name)), os.path.join(bare, name))
            if not os.path.exists(os.path.join(bare, "vocab.json")):
                shutil.copy(os.path.join(model, "tokenizer.json"), bare)
            engine = fv.Engine(a.library, bare)
            built = os.path.join(work, "tokenizer.json")
            fv.export(a.program, "tokenizer", bare, "-o", built)
            checked = [("tokenizer.json", built, 0)]
            for layout in ("fast_vlm", "llava_qwen2"):
                fv.export(a.program, "hf", bare, "-o", os.path.join(work, layout), "--layout", layout)
                checked.append(("hf " + layout, os.path.join(work, layout, "tokenizer.json"), True))
            for what, path, image in checked:  # "<image>" is a token in one layout and text in the other
                t = tokenizers.Tokenizer.from_file(path)
                wrong = lost = n = 0
                for s in texts:
                    if image and "<image>" in s:
                        continue
                    n += 1
                    ids = t.encode(s, add_special_tokens=False).ids
                    wrong += ids != engine.ids(s)
                    plain = t.normalizer.normalize_str(s)
                    lost += "<|" not in s and t.decode(ids, skip_special_tokens=False) != plain
                bad += wrong + lost
                print("tokenizers %s | %s | %s: %d strings, %d with other ids, %d not decoded back"
                      % (tokenizers.__version__, model, what, n, wrong, lost), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
