"""Captions for a dataset of Ray Data.

    import ray
    from fastvlm.ray import Captioner

    images = ray.data.read_binary_files("photos", include_paths=True)
    captions = images.map_batches(Captioner, fn_constructor_kwargs={"model": "FastVLM-0.5B", "threads": 1},
                                  batch_size=32, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=2))

Rows carry the bytes of image files: small, and decoded where they are used. `size` times `num_cpus` must
leave one CPU of the cluster for reading: workers that take all of them wait for ever.
"""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Union

from ._library import ArgumentError, Error
from ._model import Model
from ._session import DEFAULT_PROMPT, AnswerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Captioner:
    """A worker for `ray.data.Dataset.map_batches`: adds a column of answers and one of errors.

    model: a path; None: the demonstration model. prompt: the question, or None: each row's own, in the
    column prompt_column. image_column: bytes of image files. output_column: the answers, "" where an
    image could not be read; error_column: why, otherwise "". threads: as many as the worker's num_cpus.
    together, options: see `Model.caption_batch`.
    """

    def __init__(self, model: Union[None, str, os.PathLike[str]] = None, prompt: Optional[str] = DEFAULT_PROMPT, *,
                 image_column: str = "bytes", prompt_column: str = "prompt", output_column: str = "caption",
                 error_column: str = "error", threads: int = 0, together: int = 16,
                 **options: Unpack[AnswerOptions]) -> None:
        self._model = Model(model, threads=threads)
        self.image_column, self.prompt_column = image_column, prompt_column
        self.output_column, self.error_column = output_column, error_column
        self._prompt = prompt
        self._together, self._options = together, options

    def answers(self, images: Any, prompts: Any) -> Tuple[List[str], List[str]]:
        """(answers, errors) for bytes of image files; prompts: one each, or None where all have one."""
        if self._prompt is None and prompts is None:
            raise ArgumentError(f"there is no column {self.prompt_column!r}, where each row's question was expected")
        questions = self._prompt if self._prompt is not None else [str(p) for p in prompts]
        files = [b"" if image is None else image for image in images]
        found = self._model.caption_batch(files, questions, together=self._together, errors="return",
                                          **self._options)
        return (["" if isinstance(a, Error) else str(a) for a in found],
                [str(a) if isinstance(a, Error) else "" for a in found])

    def __call__(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        """batch: columns, as map_batches gives them with batch_format "numpy", its default."""
        answers, errors = self.answers(batch[self.image_column], batch.get(self.prompt_column))
        return {**batch, self.output_column: answers, self.error_column: errors}
