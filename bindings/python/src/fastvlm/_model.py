"""Models, and images that a model has encoded."""
from __future__ import annotations

import ctypes
import os
import pathlib
from dataclasses import dataclass
from typing import (TYPE_CHECKING, Any, Iterable, Iterator, List, Optional, Sequence, Tuple, Union, cast)

from . import _abi, _batch
from ._image import ImageLike, image_of
from ._library import (ArgumentError, Error, Handle, Progress, StateError, Watch, call, choice, integer, lib, opening,
                       sized, utf8)
from ._session import DEFAULT_PROMPT, Answer, AnswerOptions, Session, Stream, new_session

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._session import Images

_PRECISIONS = {"auto": _abi.FV_PRECISION_AUTO, "f32": _abi.FV_PRECISION_F32, "bf16": _abi.FV_PRECISION_BF16,
               "f16": _abi.FV_PRECISION_F16, "z8": _abi.FV_PRECISION_Z8, "q4": _abi.FV_PRECISION_Q4,
               "int8": _abi.FV_PRECISION_INT8, "w8a8": _abi.FV_PRECISION_W8A8}
_KV_TYPES = {"auto": _abi.FV_KV_AUTO, "f32": _abi.FV_KV_F32, "f16": _abi.FV_KV_F16, "q8": _abi.FV_KV_Q8}
_FITS = {"auto": _abi.FV_FIT_AUTO, "pad": _abi.FV_FIT_PAD, "crop": _abi.FV_FIT_CROP, "stretch": _abi.FV_FIT_STRETCH}

_HINT = " (python -m fastvlm pull apple/FastVLM-0.5B fetches one)"
DEMO = pathlib.Path(__file__).parent / "models" / "demo.gguf"


@dataclass(frozen=True)
class ModelInfo:
    """What a model is. Sizes of images are in pixels."""

    layout: str
    """ "llava_qwen2" or "fast_vlm"."""
    format: str
    """ "safetensors" or "GGUF"."""
    vision_precision: str
    decoder_precision: str
    weights_type: str
    image_size: int
    """Side of the encoder's square input."""
    n_image_tokens: int
    """Tokens that an image takes."""
    vision_stages: int
    vision_layers: Tuple[int, ...]
    vision_widths: Tuple[int, ...]
    n_features: int
    d_model: int
    d_ffn: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    vocab_rows: int
    n_tokens: int
    """Ids that may have a token."""
    max_context: int
    """Tokens that a session can hold."""
    n_parameters: int
    weight_bytes: int
    tied_head: bool
    n_threads: int
    cpu_level: str
    """The kernels in use: "avx512bf16", "neon" and so on."""
    end_tokens: Tuple[int, ...]
    """Ids that end an answer."""
    fit: str
    """How an image becomes a square: "pad", "crop" or "stretch"."""
    filter: str
    scaled_short_edge: int
    scaled_width: int
    scaled_height: int
    rescale: float
    image_mean: Tuple[float, ...]
    image_std: Tuple[float, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes of memory, by who holds them."""

    mapped_bytes: int
    """The model's files: mapped, shared between processes."""
    engine_bytes: int
    encoder_bytes: int
    """While an image is encoded; kept for the next."""
    session_bytes: int
    """Of one session at the model's context length."""


class Threads:
    """Threads that several models share. n_threads: the calling thread included; 0: one per physical
    core. cpus: processors to pin them to, n_threads different ones; the calling thread is not pinned
    (Linux)."""

    def __init__(self, n_threads: int = 0, cpus: Optional[Sequence[int]] = None) -> None:
        options = sized(_abi.fv_threads_options, n_threads=integer("n_threads", n_threads, 0, 1024))
        if cpus is not None:
            array = (ctypes.c_int * len(cpus))(*(integer("cpus", c, 0, 2**31 - 1) for c in cpus))
            options.cpus, options.n_cpus = array, len(cpus)
        self._handle = Handle(lib.fv_threads_free)
        call(lib.fv_threads_new, self._handle.out, ctypes.byref(options))


class Features:
    """An image that a model has encoded: image tokens, float32 [n_tokens, d_model]. Immutable; may be
    used by any number of sessions and threads, and outlives its model.

    numpy.asarray(features) and `rows` see them without a copy."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def _where(self) -> Tuple[int, Tuple[int, int]]:
        n, d = ctypes.c_size_t(), ctypes.c_size_t()
        return lib.fv_features_rows(self._handle, ctypes.byref(n), ctypes.byref(d)), (n.value, d.value)

    @property
    def shape(self) -> Tuple[int, int]:
        """(n_tokens, d_model)"""
        return self._where()[1]

    @property
    def rows(self) -> memoryview:
        """The values, read-only, format "f", shape (n_tokens, d_model); not copied."""
        address, (n, d) = self._where()
        rows: Any = type("_Rows", (ctypes.c_float * (n * d),), {})
        array = rows.from_address(address)
        array.owner = self
        view: Any = memoryview(array).cast("B").cast("f", (n, d))
        return cast(memoryview, view.toreadonly())

    @property
    def __array_interface__(self) -> dict[str, Any]:
        address, shape = self._where()
        return {"version": 3, "shape": shape, "typestr": "<f4", "data": (address, True)}

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, d = self.shape
        return f"<fastvlm.Features {n} tokens of {d}>"


class Model:
    """A model: immutable, may be used by any number of threads at once.

    path: a checkpoint directory as Hugging Face distributes it (`llava_qwen2`, `fast_vlm`), or a packed
    file, made by `fastvlm pack`. Without it, the small demonstration model that comes with this
    package, which knows drawn shapes and printed words. Its files must not change while it is open.

    vision: "auto", "f32", "bf16", "f16" or "int8"; decoder: "auto", "f32", "bf16", "f16", "z8", "q4"
    or "w8a8". A packed file runs as it was packed.
    kv: what sessions remember in: "auto", "f32", "f16" or "q8".
    image_size: side of the encoder's input, a multiple of 64 up to 4096; 0: the model's own.
    threads: their number, 0: one per physical core; or `Threads` shared with other models.
    prefault: read all weights now. lock: keep them in memory.
    progress: see `Progress`.
    """

    def __init__(self, path: Union[None, str, os.PathLike[str]] = None, *, vision: str = "auto", decoder: str = "auto",
                 kv: str = "auto", image_size: int = 0, threads: Union[int, Threads] = 0, prefault: bool = False,
                 lock: bool = False, progress: Optional[Progress] = None) -> None:
        self._engine_or_none: Optional[Handle] = None
        self._guide: Any = None  # fastvlm.guide's view of the tokens, made when it is needed
        self.path = os.fspath(path) if path is not None else str(DEMO)
        watch = Watch(progress)
        options = _engine_options(vision, decoder, kv, image_size, threads)
        options.prefault, options.lock = bool(prefault), bool(lock)
        options.callbacks = ctypes.pointer(watch.callbacks)
        engine = Handle(lib.fv_engine_free)
        with opening(self.path, _HINT) as name:
            call(lib.fv_engine_open, engine.out, name, ctypes.byref(options), watch=watch)
        self._engine_or_none = engine

    @property
    def _engine(self) -> Handle:
        engine = self._engine_or_none
        if engine is None:
            raise StateError("the model is closed")
        return engine

    # ---- questions

    def ask(self, image: Images, prompt: str = DEFAULT_PROMPT, **options: Unpack[AnswerOptions]) -> Answer:
        """Answers a question about an image: what `Image` takes, `Features`, a list of them, or None.

        >>> fastvlm.Model().ask("sign.png", "What does the text say?")
        'HELLO'
        """
        return self.stream(image, prompt, **options).answer()

    def stream(self, image: Images, prompt: str = DEFAULT_PROMPT, **options: Unpack[AnswerOptions]) -> Stream:
        """The same, piece by piece. The image is encoded before this returns."""
        return self.session().stream(prompt, image, **options)

    def session(self, *, system: Optional[str] = None, max_context: int = 0, threads: int = 0,
                exact_reuse: bool = False, progress: Optional[Progress] = None) -> Session:
        """A conversation.

        system: the system prompt; None: the model's. max_context: in tokens; 0: the model's. threads: at
        most, of the model's; 0: all. exact_reuse: after `Session.reset`, reuse only what is bit for bit
        what a new session would compute. progress: see `Progress`; stages "vision", "prefill", "decode".
        """
        return new_session(self, self._engine, system=system, max_context=max_context, threads=threads,
                           exact_reuse=exact_reuse, watch=Watch(progress))

    def caption_batch(self, images: Iterable[Any], prompt: Union[str, Sequence[str]] = DEFAULT_PROMPT, *,
                      together: int = 16, errors: str = "raise", **options: Unpack[AnswerOptions]) -> List[Any]:
        """Asks about many images: one answer for each, in their order.

        Reading, encoding and answering overlap, up to `together` answers are decoded in one pass over
        the weights, and no step holds the GIL. Every answer has the bits that `ask` gives.

        images: an iterable of what `ask` takes. It is used on another thread. prompt: for all, or a
        list with one for each.
        errors: "raise" the first one (its `index` says of which image) or "return" the `Error` in the
        place of the answer.
        """
        found = dict(self.captions(images, prompt, together=together, errors=errors, **options))
        return [found[i] for i in range(len(found))]

    def captions(self, images: Iterable[Any], prompt: Union[str, Sequence[str]] = DEFAULT_PROMPT, *,
                 together: int = 16, errors: str = "raise",
                 **options: Unpack[AnswerOptions]) -> Iterator[Tuple[int, Union[Answer, Error]]]:
        """`caption_batch` for any number of images: yields (index, answer) as they come, not in order."""
        if errors not in ("raise", "return"):
            raise ArgumentError(f"errors is {errors!r}; expected 'raise' or 'return'")
        return _batch.captions(self, images, prompt, integer("together", together, 1, 1024), errors == "raise", options)

    # ---- images

    def encode(self, image: ImageLike, *, fit: str = "auto", threads: int = 0,
               progress: Optional[Progress] = None) -> Features:
        """Encodes an image once, to ask about it many times.

        fit: how it becomes a square: "auto" (as the model was trained), "pad", "crop" or "stretch".
        threads: at most; 0: all of the model's.
        """
        return self._encode(image, fit, threads, Watch(progress))

    def _encode(self, image: ImageLike, fit: str, threads: int, watch: Watch) -> Features:
        options = sized(_abi.fv_encode_options, fit=choice("fit", fit, _FITS),
                        n_threads=integer("threads", threads, 0, 1024), callbacks=ctypes.pointer(watch.callbacks))
        engine, decoded, features = self._engine, image_of(image), Handle(lib.fv_features_free)
        call(lib.fv_encode, engine, decoded._handle, ctypes.byref(options), features.out, watch=watch)
        return Features(features)

    def features(self, rows: Any) -> Features:
        """Features computed elsewhere, copied: float32 [n_tokens, d_model], an array or a memoryview."""
        view = rows if isinstance(rows, memoryview) else memoryview(rows)
        if view.format not in ("f", "<f") or view.ndim != 2:
            raise ArgumentError(f"rows have format {view.format!r} and {view.ndim} dimensions; expected float32 "
                                "[n_tokens, d_model]")
        data = ctypes.create_string_buffer(view.tobytes(), view.nbytes)
        n, d = view.shape or (0, 0)
        features = Handle(lib.fv_features_free)
        call(lib.fv_features_new, self._engine, ctypes.cast(data, ctypes.POINTER(ctypes.c_float)), n, d,
             features.out)
        return Features(features)

    # ---- tokens

    def tokenize(self, text: str, *, special: bool = False) -> List[int]:
        """Token ids of text. special: marks such as <|im_end|> become their ids; otherwise they are
        ordinary text."""
        return tokenize(self._engine, text, special)

    def token_bytes(self, token: int) -> Optional[bytes]:
        """The bytes of one token; None when the id has none. They may be part of a character."""
        n, engine = ctypes.c_size_t(), self._engine
        text = lib.fv_engine_token_text(engine, integer("token", token, -2**31, 2**31 - 1), ctypes.byref(n))
        return ctypes.string_at(text, n.value) if text else None

    # ---- what it is

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        engine, raw = self._engine, sized(_abi.fv_model_info)
        lib.fv_engine_info(engine, ctypes.byref(raw))
        fields = {name: _value(getattr(raw, name)) for name in ModelInfo.__dataclass_fields__}
        fields["end_tokens"] = fields["end_tokens"][:raw.n_end_tokens]
        for name in ("vision_layers", "vision_widths"):
            fields[name] = fields[name][:raw.vision_stages]
        fields["fit"] = next(name for name, value in _FITS.items() if value == raw.fit)
        return ModelInfo(**fields)

    @property
    def memory(self) -> Memory:
        """Memory that the model takes."""
        engine, raw = self._engine, sized(_abi.fv_memory)
        call(lib.fv_engine_memory, engine, ctypes.byref(raw))
        return _memory(raw)

    def close(self) -> None:
        """Gives the model up; it is freed with its last session and grammar."""
        self._engine_or_none = self._guide = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._engine_or_none is None:
            return f"<fastvlm.Model {self.path!r}, closed>"
        info = self.info
        return f"<fastvlm.Model {self.path!r} {info.vision_precision} + {info.decoder_precision}>"


def tokenize(engine: Handle, text: str, special: bool = False) -> List[int]:
    data, n = utf8("text", text), ctypes.c_size_t()
    capacity = len(data) + 1
    ids = (ctypes.c_int32 * capacity)()
    call(lib.fv_engine_tokenize, engine, data, len(data), special, ids, capacity, ctypes.byref(n))
    return list(ids[:n.value])


def estimate(path: Union[None, str, os.PathLike[str]] = None, *, max_context: int = 0, vision: str = "auto",
             decoder: str = "auto", kv: str = "auto", image_size: int = 0) -> Memory:
    """Memory that a model would take, and a session of it with max_context tokens, without opening it."""
    options, raw = _engine_options(vision, decoder, kv, image_size, 0), sized(_abi.fv_memory)
    n_tokens = integer("max_context", max_context, 0, 2**31 - 1)
    with opening(path if path is not None else DEMO, _HINT) as name:
        call(lib.fv_engine_estimate, name, ctypes.byref(options), n_tokens, ctypes.byref(raw))
    return _memory(raw)


def _engine_options(vision: str, decoder: str, kv: str, image_size: int, threads: Union[int, Threads]) -> Any:
    options = sized(_abi.fv_engine_options, vision=choice("vision", vision, _PRECISIONS),
                    decoder=choice("decoder", decoder, _PRECISIONS), kv=choice("kv", kv, _KV_TYPES),
                    image_size=integer("image_size", image_size, 0, 2**31 - 1))
    if isinstance(threads, Threads):
        options.threads = threads._handle._as_parameter_
    else:
        options.n_threads = integer("threads", threads, 0, 1024)
    return options


def _memory(raw: Any) -> Memory:
    return Memory(**{name: getattr(raw, name) for name in Memory.__dataclass_fields__})


def _value(raw: Any) -> Any:
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    if isinstance(raw, ctypes.Array):
        return tuple(raw)
    return raw
