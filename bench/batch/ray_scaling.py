#!/usr/bin/env python3
"""How fast Ray's workers caption images, start-up left out: one worker, then two, of one thread each.

    python3 -m venv build/ray && build/ray/bin/pip install "ray[data]" fastvlm      # or the wheel of `make wheel`
    build/ray/bin/python bench/batch/ray_scaling.py IMAGES [--rows 8000] [--workers 1,2] [--model MODEL]

IMAGES is a folder; its files are repeated to --rows rows, which are in Ray's object store before the clock runs. Every batch notes when
it was done and by whom: counted are the rows between the moment at which every worker has done a batch and the moment at which the first
of them does its last."""
import argparse
import os
import time

import ray
from fastvlm.ray import Captioner

BATCH = 32


class Clocked(Captioner):
    def __call__(self, batch):
        n = len(batch["bytes"])
        super().__call__(batch)
        return {"worker": [os.getpid()] * n, "at": [time.time()] * n}


def rate(files, n_rows, n_workers, model):
    ray.init(num_cpus=n_workers + 1, logging_level="error", include_dashboard=False)   # one CPU is the readers'
    try:
        rows = ray.data.from_items([{"bytes": files[i % len(files)]} for i in range(n_rows)], override_num_blocks=n_rows // BATCH).materialize()
        done = rows.map_batches(Clocked, fn_constructor_kwargs={"model": model, "threads": 1, "max_tokens": 32}, batch_size=BATCH, num_cpus=1,
                                compute=ray.data.ActorPoolStrategy(size=n_workers)).take_all()
    finally:
        ray.shutdown()
    ends = {}
    for row in done:
        ends.setdefault(row["worker"], []).append(row["at"])
    first, last = max(min(e) for e in ends.values()), min(max(e) for e in ends.values())
    n = sum(first < at <= last for e in ends.values() for at in e)
    return len(ends), n, last - first


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("images")
    p.add_argument("--rows", type=int, default=8000)
    p.add_argument("--workers", default="1,2")
    p.add_argument("--model", help="a packed file (default: the demonstration model)")
    a = p.parse_args()
    files = []
    for name in sorted(os.listdir(a.images)):
        with open(os.path.join(a.images, name), "rb") as f:
            files.append(f.read())
    ray.data.DataContext.get_current().enable_progress_bars = False
    print("| workers | rows counted | seconds | images/s |\n|---|---|---|---|")
    for n in map(int, a.workers.split(",")):
        workers, rows, seconds = rate(files, a.rows, n, a.model)
        print("| %d | %d | %.1f | %.0f |" % (workers, rows, seconds, rows / seconds), flush=True)


main()
