"""Captions for a DataFrame of Spark.

    from fastvlm.spark import captioner

    images = spark.read.format("binaryFile").load("photos")
    captions = images.mapInPandas(captioner("FastVLM-0.5B", image_column="content", threads=1),
                                  "path string, caption string, error string")
"""
from __future__ import annotations

from typing import Any, Callable, Iterator, Sequence

from .ray import Captioner


def captioner(*arguments: Any, image_column: str = "content", keep: Sequence[str] = ("path",),
              **options: Any) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for `DataFrame.mapInPandas`. keep: columns of the input that the output has, too; the
    other arguments are those of `fastvlm.ray.Captioner`. The model is opened once for each partition."""

    def run(frames: Iterator[Any]) -> Iterator[Any]:
        worker = Captioner(*arguments, image_column=image_column, **options)
        for frame in frames:
            prompts = frame[worker.prompt_column] if worker.prompt_column in frame else None
            answers, errors = worker.answers(frame[image_column], prompts)
            yield frame[list(keep)].assign(**{worker.output_column: answers, worker.error_column: errors})

    return run
