#!/usr/bin/env python3
"""features.py CHECKPOINT_DIR OUT.npy [-n 32768] [--share 0/1] [--hold FILE]: the encoder's features (before the projector) of the first
pictures of the second edition, for train.py --features. Two at once share the work as 0/2 and 1/2; started
again, one goes on where it ended."""
import argparse
import os
import sys
import time

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

PART = 16


def wait_while(path):
    """Seconds waited for a file to go away."""
    t = time.time()
    while path and os.path.exists(path):
        time.sleep(2)
    return time.time() - t


def open_features(path):
    """bf16 [n, tokens, width], as far as the file is filled"""
    f = np.load(path, mmap_mode="r+")
    n = next((i for i in range(0, len(f), PART) if not f[i + PART - 1].any()), len(f))
    return torch.from_numpy(f[:n]).view(torch.bfloat16)


def main():
    from export import load_exported
    from pictures import picture, show
    from scenes import to_input
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("out")
    ap.add_argument("-n", type=int, default=32768)
    ap.add_argument("--share", default="0/1", help="this process of how many")
    ap.add_argument("--hold", help="wait while this file exists")
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    if a.n % PART:
        ap.error("-n %d: expected a multiple of %d" % (a.n, PART))
    torch.set_num_threads(a.threads)
    c, model = load_exported(a.checkpoint)
    model.eval()
    shape = (a.n, (c["image"] // 64) ** 2, 2 * c["embed_dims"][-1])
    if not os.path.exists(a.out):
        np.lib.format.open_memmap(a.out, "w+", np.int16, shape).flush()
    out = np.load(a.out, mmap_mode="r+")
    assert out.shape == shape, "%s holds %s, expected %s" % (a.out, out.shape, shape)
    mine, of = map(int, a.share.split("/"))
    t, done = time.time(), 0
    for i in range(mine * PART, a.n, of * PART):
        if out[i + PART - 1].any():
            continue
        t += wait_while(a.hold)
        px = torch.from_numpy(np.stack([to_input(show(picture("train", s)), c["image"]) for s in range(i, i + PART)]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y = model.vision(px.permute(0, 3, 1, 2).float() / 255).bfloat16().contiguous()
        out[i:i + PART] = y.view(torch.int16).numpy()
        done += PART
        if done % 1024 == 0:
            print("%d, %.1f a second" % (i + PART, done / (time.time() - t)), flush=True)


if __name__ == "__main__":
    main()
