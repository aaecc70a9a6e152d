"""Expected pixels of fast_vlm's image processor, made with transformers itself.

    pip install 'transformers==5.24.0' 'pillow<13' numpy
    python make_processor_cases.py tests/data/processor

Writes cases.txt, a line for each case:

    WIDTH HEIGHT SEED CRC JSON

JSON is a preprocessor_config.json, CRC the CRC-32 (zlib) in hexadecimal of what CLIPImageProcessor with
Pillow (CLIPImageProcessorPil) makes of pattern(WIDTH, HEIGHT, SEED) of make_image_cases.py: f32,
little-endian, [S, S, 3] (its own order is [3, S, S]). Pillow must be older than 13, as there.
"""
import json
import os
import random
import sys
import zlib

import numpy as np
import PIL
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 orders its passes differently"
OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/processor"


def pattern(w, h, seed):
    y, x, c = np.meshgrid(np.arange(h, dtype=np.uint32), np.arange(w, dtype=np.uint32),
                          np.arange(3, dtype=np.uint32), indexing="ij")
    if seed & 1:
        return (((x * 5) ^ (y * 3)) + c * 40 + seed).astype(np.uint8)
    v = x * np.uint32(0x9E3779B1) + y * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D) + np.uint32(seed)
    v ^= v >> np.uint32(15)
    v *= np.uint32(0x2C1B3C6D)
    v ^= v >> np.uint32(12)
    return (v & np.uint32(255)).astype(np.uint8)


def crc_of(config, w, h, seed):
    processor = CLIPImageProcessorPil(**config)
    pixels = processor(Image.fromarray(pattern(w, h, seed)))["pixel_values"][0]
    pixels = np.ascontiguousarray(np.moveaxis(np.asarray(pixels, dtype="<f4"), 0, -1))
    assert pixels.shape[0] == pixels.shape[1]
    return zlib.crc32(pixels.tobytes())


APPLE = {"crop_size": {"height": 64, "width": 64}, "do_center_crop": True, "do_convert_rgb": True,
         "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.0, 0.0, 0.0],
         "image_processor_type": "CLIPImageProcessor", "image_std": [1.0, 1.0, 1.0], "resample": 3,
         "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 64}}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

EDITS = [{}, {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}, {"image_mean": 0.5, "image_std": 0.5},
         {"image_mean": [0.1, 0.2, 0.3]}, {"image_std": [0.5, 2, 4.0]}, {"do_normalize": None},
         {"do_normalize": False, "image_mean": None}, {"image_mean": [-1, 2, 1e-3], "image_std": [-0.5, 1e-3, 3]},
         {"rescale_factor": 1 / 127.5}, {"rescale_factor": 1}, {"rescale_factor": 0.0039}, {"do_rescale": False},
         {"do_rescale": False, "do_normalize": False}, {"do_normalize": False, "image_mean": CLIP_MEAN},
         {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
         {"resample": 0}, {"resample": 1}, {"resample": 2}, {"resample": 4}, {"resample": 5},
         {"size": 64}, {"size": {"shortest_edge": 80}}, {"size": 50}, {"size": {"height": 64, "width": 64}},
         {"size": [64, 64]}, {"size": {"height": 70, "width": 90}}, {"size": [50, 128]}, {"size": [33, 47]},
         {"size": 64, "default_to_square": True}, {"size": 72, "default_to_square": True},
         {"size": {"height": 64, "width": 64}, "do_center_crop": False}, {"do_resize": False}, {"do_resize": None, "do_rescale": None, "resample": None},
         {"crop_size": 64}, {"crop_size": [64, 64]}, {"crop_size": 128}, {"crop_size": 128, "resample": 1},
         {"do_resize": False, "resample": 0, "image_mean": CLIP_MEAN}, {"size": 63}, {"size": 65}, {"size": 1},
         {"size": 200, "resample": 2, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}]
IMAGES = [(100, 37, 2), (37, 100, 3), (64, 64, 4), (131, 50, 5), (20, 13, 6), (63, 200, 7), (1, 9, 8), (300, 299, 9)]


def random_edit(rng):
    edit = {"resample": rng.choice([0, 1, 2, 3, 4, 5])}
    edit["size"] = rng.choice([rng.randint(20, 150), {"shortest_edge": rng.randint(20, 150)},
                               {"height": rng.randint(20, 150), "width": rng.randint(20, 150)},
                               [rng.randint(20, 150), rng.randint(20, 150)]])
    if rng.random() < 0.5:
        edit["image_mean"] = [round(rng.uniform(-1, 1), rng.randint(1, 8)) for _ in range(3)]
        edit["image_std"] = [round(rng.uniform(0.05, 3), rng.randint(2, 8)) for _ in range(3)]
    if rng.random() < 0.3:
        edit["rescale_factor"] = round(rng.uniform(1e-4, 2), rng.randint(4, 12))
    edit["crop_size"] = rng.choice([64, 128, [64, 64], {"height": 128, "width": 128}])
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if rng.random() < 0.15:
            edit[key] = False
    return edit


def main():
    rng = random.Random(7)
    lines = []
    for edit in EDITS + [random_edit(rng) for _ in range(60)]:
        config = {**APPLE, **edit}
        for w, h, seed in IMAGES if len(lines) < 8 * len(EDITS) else rng.sample(IMAGES, 3):
            lines.append(f"{w} {h} {seed} {crc_of(config, w, h, seed):08x} {json.dumps(config)}")
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "cases.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(len(lines), "cases")


main()
