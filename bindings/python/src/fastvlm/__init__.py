"""Apple's FastVLM vision-language models on the CPU.

    import fastvlm

    model = fastvlm.Model()                   # the demonstration model; or Model("FastVLM-0.5B")
    print(model.ask("sign.png", "What does the text say?"))

    for piece in model.stream("sign.png"):    # as it comes
        print(piece, end="", flush=True)

    features = model.encode("sign.png")       # encoded once, asked many times
    print(model.ask(features, "What shape is red?"))

    with model.session() as s:                # a conversation
        print(s.ask("What shape is red?", "sign.png"))
        print(s.ask("What does the text say?"))

    captions = model.caption_batch(["a.png", "b.png"])
"""
from ._abi import VERSION as __version__
from ._image import Image, ImageLike
from ._library import (ArgumentError, Cancelled, Error, FileError, FormatError, LimitError, OutOfMemoryError, Progress,
                       StateError, UnsupportedError)
from ._model import Features, Memory, Model, ModelInfo, Threads, estimate
from ._session import Answer, AnswerOptions, Mask, MaskState, Piece, Score, Session, Stats, Stream
from ._system import System, image_formats, system

__all__ = [
    "Answer", "AnswerOptions", "ArgumentError", "Cancelled", "Error", "Features", "FileError", "FormatError", "Image",
    "ImageLike", "LimitError", "Mask", "MaskState", "Memory", "Model", "ModelInfo", "OutOfMemoryError", "Piece",
    "Progress", "Score", "Session", "StateError", "Stats", "Stream", "System", "Threads", "UnsupportedError",
    "__version__", "estimate", "image_formats", "system",
]
