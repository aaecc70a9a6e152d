"""Captions for a folder of images, with Ray Data: on this machine, or on the cluster of RAY_ADDRESS.

    python ray_captions.py FOLDER OUTPUT [MODEL]

Files travel as bytes, never as pixels, and are decoded by the worker that captions them. A worker that
dies is started again by Ray, and its batch with it; the answers are bit-identical."""
import os
import sys

import ray
from fastvlm.ray import Captioner


def main(folder, output, model=None):
    ray.init(logging_level="warning")
    # One CPU stays free for reading: workers that take all of them would wait for files for ever. Where
    # there is only one, the worker takes none as Ray counts them.
    n_cpus = int(ray.cluster_resources()["CPU"])
    files = ray.data.read_binary_files(os.path.abspath(folder), include_paths=True)
    captions = files.map_batches(
        Captioner,
        fn_constructor_kwargs={"model": model, "prompt": "Describe the image.", "threads": 1},
        batch_size=8,
        num_cpus=min(1, n_cpus - 1),
        compute=ray.data.ActorPoolStrategy(size=max(1, n_cpus - 1)),
    )
    captions.drop_columns(["bytes"]).write_json(os.path.abspath(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
