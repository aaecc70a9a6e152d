"""Conversations, and answers as they come."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import (TYPE_CHECKING, Any, Iterator, List, Mapping, Optional, Protocol, Sequence, Tuple, TypedDict, Union)

from . import _abi
from ._image import ImageLike, image_of
from ._library import (ArgumentError, Error, Handle, StateError, Watch, call, integer, lib, real, sequence, sized, utf8,
                       without_zero)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._model import Features, Model

DEFAULT_PROMPT = "Describe the image."
_FINISH = {_abi.FV_FINISH_NONE: "", _abi.FV_FINISH_STOP: "stop", _abi.FV_FINISH_LENGTH: "length",
           _abi.FV_FINISH_STOP_STRING: "stop_string"}
_INT = 2**31 - 1


class MaskState(Protocol):
    """What decides which tokens one answer may continue with."""

    def fill(self, mask: memoryview) -> None:
        """Called before each choice. mask: writable, format "I": bit id % 32 of mask[id // 32] is set
        if the token id may be chosen; clear bits to forbid tokens. Valid during the call."""

    def chosen(self, token: int) -> None:
        """Called after each choice, also of the token that ends the answer."""


class Mask(Protocol):
    """What the option `mask` takes: a grammar, a schema. `fastvlm.guide` makes some."""

    def start(self) -> MaskState:
        """A new state, for one answer."""


class AnswerOptions(TypedDict, total=False):
    """How an answer is chosen: keyword arguments of `ask`, `stream` and `caption_batch`."""

    max_tokens: int
    """Tokens at most; 0: what the context leaves."""
    temperature: float
    """0 (the default): always the most likely token."""
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    """Over the tokens of prompts and answers; 0 or 1: off."""
    seed: int
    stop: Union[str, Sequence[str]]
    """Strings that end the answer and are not part of it."""
    logprobs: int
    """Best alternatives reported per token, up to 20; 0: none, and no log-probabilities."""
    bias: Mapping[int, float]
    """Added to the logits of these token ids; -inf forbids one."""
    mask: Mask
    """Decides which tokens may be chosen."""
    ignore_end: bool
    """Continue after the end token: for timing."""


class Piece(str):
    """A part of an answer: the text of one token, complete characters only, so it may be empty."""

    token: int
    """The id of the token; -1 when the answer ended without one."""
    finish: str
    """Of the last piece, why the answer ended: "stop", "length" or "stop_string"; otherwise ""."""
    logprob: Optional[float]
    """Natural logarithm of the token's probability; None when the option logprobs is not set."""
    top: List[Tuple[int, float]]
    """The best alternatives, best first: (token id, log-probability)."""


class Answer(str):
    """An answer: text, with what is known about it."""

    finish: str
    """Why it ended: "stop" (the model ended it), "length" or "stop_string"."""
    tokens: List[int]
    """Ids of its tokens, the end token included."""
    logprobs: Optional[List[float]]
    """One for each token; None when the option logprobs is not set."""
    top_logprobs: Optional[List[List[Tuple[int, float]]]]
    """The best alternatives for each token; None when the option logprobs is not set."""


@dataclass(frozen=True)
class Stats:
    """What the last answer of a session took; times in milliseconds."""

    image_ms: float
    preprocess_ms: float
    vision_ms: float
    projector_ms: float
    prefill_ms: float
    decode_ms: float
    first_token_ms: float
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    context_used: int
    reused_tokens: int


@dataclass(frozen=True)
class Score:
    """How likely the model finds an answer."""

    n_tokens: int
    """Tokens of the answer, its end token included."""
    logprob: float
    """Natural logarithm of the whole answer's probability."""
    n_greedy: int
    """Tokens that greedy choice would have taken."""


def question(prompt: str) -> bytes:
    data = without_zero("prompt", utf8("prompt", prompt))
    if not data.strip():
        raise ArgumentError("the prompt is blank; expected a question")
    return data


class Choosing:
    """AnswerOptions as fv_answer_options, with all that it points to and what a mask raised."""

    def __init__(self, options: AnswerOptions) -> None:
        given = dict(options)
        self._raised: List[BaseException] = []  # by a mask, the first one
        self.n_logprobs = integer("logprobs", given.pop("logprobs", 0), 0, 20)
        fields = sized(_abi.fv_answer_options, n_logprobs=self.n_logprobs)
        fields.max_new_tokens = integer("max_tokens", given.pop("max_tokens", 0), 0, _INT)
        fields.top_k = integer("top_k", given.pop("top_k", 0), 0, _INT)
        fields.seed = integer("seed", given.pop("seed", 0), 0, 2**64 - 1)
        fields.ignore_end = bool(given.pop("ignore_end", False))
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            setattr(fields, name, real(name, given.pop(name, 0.0)))
        stop = sequence("stop", given.pop("stop", ()))
        self._stop = (ctypes.c_char_p * len(stop))(*(without_zero("stop", utf8("stop", s)) for s in stop))
        fields.stop, fields.n_stop = self._stop, len(stop)
        bias: Any = given.pop("bias", None) or {}
        if not hasattr(bias, "items"):
            raise TypeError(f"bias is {bias!r}; expected a dict of token ids")
        self._bias = (_abi.fv_logit_bias * len(bias))()
        for entry, (token, value) in zip(self._bias, bias.items()):
            entry.id, entry.bias = integer("bias: token id", token, 0, _INT), real("bias", value)
        fields.bias, fields.n_bias = self._bias, len(bias)
        mask: Any = given.pop("mask", None)
        if mask is not None:
            if not callable(getattr(mask, "start", None)):
                raise TypeError(f"mask is {mask!r}; expected an object with a method start(), see fastvlm.Mask")
            self._hook(fields, mask.start())
        if given:
            raise TypeError(f"unknown option {next(iter(given))!r}; expected {', '.join(AnswerOptions.__annotations__)}")
        self.fields = fields

    def _hook(self, fields: Any, state: MaskState) -> None:
        raised = self._raised  # not self: that would be a cycle

        def on_mask(_user: Any, words: Any, n_tokens: int) -> None:
            try:
                if not raised:
                    n_words = (n_tokens + 31) // 32
                    array = (ctypes.c_uint32 * n_words).from_address(ctypes.addressof(words.contents))
                    state.fill(memoryview(array).cast("B").cast("I"))
            except BaseException as e:
                raised.append(e)

        def on_chosen(_user: Any, token: int) -> None:
            try:
                if not raised:
                    state.chosen(token)
            except BaseException as e:
                raised.append(e)

        fields.mask, fields.chosen = _abi.fv_mask_fn(on_mask), _abi.fv_chosen_fn(on_chosen)

    def check(self) -> None:
        if self._raised:
            raise self._raised.pop()


class Collected:
    """The pieces of an answer, added up."""

    def __init__(self, n_logprobs: int) -> None:
        self.n_logprobs = n_logprobs
        self.pieces: List[Piece] = []

    def take(self, raw: Any) -> Piece:
        """What fv_session_next gave, before the session's next call."""
        text = ctypes.string_at(raw.text, raw.n_bytes).decode("utf-8", "replace") if raw.n_bytes else ""
        piece = Piece(text)
        piece.token = raw.id
        piece.finish = _FINISH.get(raw.finish, "") if raw.done else ""
        piece.logprob = raw.logprob if self.n_logprobs and raw.id >= 0 else None
        piece.top = [(raw.top[i].id, raw.top[i].logprob) for i in range(raw.n_top)]
        self.pieces.append(piece)
        return piece

    def answer(self) -> Answer:
        chosen = [p for p in self.pieces if p.token >= 0]
        answer = Answer("".join(self.pieces))
        answer.finish = self.pieces[-1].finish if self.pieces else ""
        answer.tokens = [p.token for p in chosen]
        answer.logprobs = [float(p.logprob or 0.0) for p in chosen] if self.n_logprobs else None
        answer.top_logprobs = [p.top for p in chosen] if self.n_logprobs else None
        return answer


class Stream(Iterator[Piece]):
    """An answer as it comes: an iterator over its pieces.

        for piece in model.stream("photo.jpg", "What is this?"):
            print(piece, end="", flush=True)
    """

    def __init__(self, session: Session, choosing: Choosing, position: Optional[int]) -> None:
        self._session: Optional[Session] = session
        self._choosing, self._position, self._turn = choosing, position, session._turn
        self._collected = Collected(choosing.n_logprobs)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        session = self._session
        if session is None:
            raise StopIteration
        if session._turn is not self._turn:
            raise StateError("another turn was begun before the end of this answer")
        raw = sized(_abi.fv_piece)
        try:
            call(lib.fv_session_next, session._handle, ctypes.byref(raw), watch=session._watch)
            self._choosing.check()
            piece = self._collected.take(raw)
        except BaseException:
            self._drop()
            raise
        if raw.done:
            self.close()
        return piece

    def answer(self) -> Answer:
        """The whole answer; takes what has not come yet."""
        try:
            for _ in self:
                pass
        except BaseException:
            self._drop()
            raise
        return self._collected.answer()

    def close(self) -> None:
        """Ends the answer where it is."""
        session, self._session = self._session, None
        if session is not None and session._turn is self._turn:
            session._turn = None

    def _drop(self) -> None:
        """After a failure: the conversation as it was before the turn."""
        session = self._session
        if session is not None and session._turn is self._turn and self._position is not None:
            session.rewind(self._position)
        self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """A conversation, made by `Model.session`. One thread at a time may use it.

        with model.session() as s:
            print(s.ask("What shape is red?", "photo.jpg"))
            print(s.ask("And where is it?"))
    """

    def __init__(self, model: Model, handle: Handle, watch: Watch) -> None:
        self._model, self._watch = model, watch
        self._handle_or_none: Optional[Handle] = handle
        self._turn: Optional[object] = None  # of the stream whose answer it is

    @property
    def _handle(self) -> Handle:
        handle = self._handle_or_none
        if handle is None:
            raise StateError("the session is closed")
        return handle

    # ---- a turn and its answer

    def ask(self, prompt: str = DEFAULT_PROMPT, image: Images = None, **options: Unpack[AnswerOptions]) -> Answer:
        """Asks, and waits for the whole answer. image: what `Image` takes, `Features`, or a list of
        them; they come before the text. When it fails, also by Ctrl-C, the conversation is what it
        was before."""
        stream = None
        try:
            with self._watch.deferred():
                stream = self.stream(prompt, image, **options)
                return stream.answer()
        except BaseException:
            if stream is not None and stream._position is not None:
                self.rewind(stream._position)
            raise

    def stream(self, prompt: str = DEFAULT_PROMPT, image: Images = None, **options: Unpack[AnswerOptions]) -> Stream:
        """Asks; the answer comes piece by piece. Images are encoded at once. An answer that is not
        taken to its end is cut off there by the next question."""
        choosing = Choosing(options)
        text = question(prompt)
        position = None
        try:
            with self._watch.deferred():
                for one in images_of(image):
                    self.add_image(one)
                    # Now, since an answer that was not taken to its end is cut off by the first part.
                    position = self.position if position is None else position
                call(lib.fv_session_add_text, self._handle, text, len(text), watch=self._watch)
                position = self.position if position is None else position
                return self._begun(choosing, position)
        except BaseException:
            if position is not None:
                self.rewind(position)
            raise

    def _begun(self, choosing: Choosing, position: Optional[int] = None) -> Stream:
        call(lib.fv_session_begin, self._handle, ctypes.byref(choosing.fields), watch=self._watch)
        self._turn = object()
        return Stream(self, choosing, position)

    # ---- a turn in parts

    def add_image(self, image: Union[ImageLike, Features]) -> None:
        """Adds an image to the user's turn, in the order of the calls; encodes it now."""
        from ._model import Features
        self._turn = None
        if isinstance(image, Features):
            call(lib.fv_session_add_features, self._handle, image._handle, watch=self._watch)
        else:
            call(lib.fv_session_add_image, self._handle, image_of(image)._handle, None, watch=self._watch)

    def add_text(self, text: str) -> None:
        """Adds text to the user's turn; marks such as <image> in it are words."""
        self._turn = None
        data = without_zero("text", utf8("text", text))
        call(lib.fv_session_add_text, self._handle, data, len(data), watch=self._watch)

    def add_answer(self, text: str) -> None:
        """What the assistant said earlier: ends the user's turn that is being written."""
        data = utf8("text", text)
        self._end_turn(lib.fv_session_add_answer, data, len(data))

    def answer(self, **options: Unpack[AnswerOptions]) -> Stream:
        """Begins the answer to the turn written with add_image and add_text."""
        return self._begun(Choosing(options))

    def score(self, answer: str) -> Score:
        """How likely the model finds this answer to the turn written so far. It becomes part of the
        conversation."""
        data, out = utf8("answer", answer), sized(_abi.fv_score)
        self._end_turn(lib.fv_session_score, data, len(data), ctypes.byref(out))
        return Score(out.n_tokens, out.logprob, out.n_greedy)

    def _end_turn(self, function: Any, *arguments: Any) -> None:
        """Calls what ends the user's turn with an answer. A stream goes on only where the library
        refused; what a handler of signals raised may have come after the library was done."""
        turn, self._turn = self._turn, None
        try:
            call(function, self._handle, *arguments, watch=self._watch)
        except Error:
            self._turn = turn
            raise

    # ---- the conversation

    def reset(self) -> None:
        """Begins another conversation. What it will have in common with this one is not computed again."""
        self._turn = None
        lib.fv_session_reset(self._handle)

    def copy(self) -> Session:
        """A second session with the same conversation. Not during an answer."""
        # The copy has the callbacks of this session, and with them its Watch.
        copied = Handle(lib.fv_session_free, self._watch)
        call(lib.fv_session_copy, copied.out, self._handle, watch=self._watch)
        return Session(self._model, copied, self._watch)

    @property
    def position(self) -> int:
        """Tokens of the conversation, without the turn being written; for `rewind`."""
        return int(lib.fv_session_position(self._handle))

    def rewind(self, position: int) -> None:
        """Back to a position taken between turns; drops the turn being written and cuts an answer."""
        self._turn = None
        call(lib.fv_session_rewind, self._handle, integer("position", position, 0, 2**63 - 1), watch=self._watch)

    def save(self) -> bytes:
        """The conversation with its images and KV cache, for `load`."""
        parts: List[bytes] = []

        def on_write(_user: Any, data: int, n_bytes: int) -> int:
            try:
                parts.append(ctypes.string_at(data, n_bytes))
                return int(_abi.FV_OK)
            except BaseException:  # no memory
                return int(_abi.FV_ERR_MEMORY)

        call(lib.fv_session_save, self._handle, _abi.fv_write_fn(on_write), None, watch=self._watch)
        return b"".join(parts)

    def load(self, data: bytes) -> None:
        """Replaces the conversation by a saved one of the same model."""
        self._turn = None
        data = bytes(data)
        call(lib.fv_session_load, self._handle, data, len(data), watch=self._watch)

    @property
    def stats(self) -> Stats:
        """What the last answer took."""
        out = sized(_abi.fv_stats)
        lib.fv_session_stats(self._handle, ctypes.byref(out))
        return Stats(**{name: getattr(out, name) for name in Stats.__dataclass_fields__})

    def close(self) -> None:
        """Frees the conversation. Also at the end of a `with` block, or with the last reference."""
        self._handle_or_none = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if TYPE_CHECKING:
    Images = Union[None, ImageLike, Features, Sequence[Union[ImageLike, Features]]]


def images_of(image: Any) -> Sequence[Any]:
    if image is None:
        return ()
    return image if isinstance(image, (list, tuple)) else (image,)


def new_session(model: Model, engine: Handle, *, system: Optional[str] = None, max_context: int = 0, threads: int = 0,
                exact_reuse: bool = False, watch: Watch) -> Session:
    options = sized(_abi.fv_session_options, max_context=integer("max_context", max_context, 0, _INT),
                    n_threads=integer("threads", threads, 0, 1024), exact_reuse=bool(exact_reuse),
                    callbacks=ctypes.pointer(watch.callbacks))
    if system is not None:
        data = without_zero("system", utf8("system", system))
        keep = ctypes.create_string_buffer(data)
        options.system, options.n_system_bytes = ctypes.addressof(keep), len(data)
    session = Handle(lib.fv_session_free, watch)
    call(lib.fv_session_new, session.out, engine, ctypes.byref(options), watch=watch)
    return Session(model, session, watch)
