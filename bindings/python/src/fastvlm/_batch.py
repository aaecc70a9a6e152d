"""Many images, each asked about once.

    reader      an image of the caller's iterable, decoded         a thread
    encoder     image tokens                                       a thread, and the model's
    answers     up to `together` sessions, a token each a step     the caller's thread, and the model's

All three spend their time in C, where ctypes has released the GIL; the library shares the model's
threads between them."""
from __future__ import annotations

import ctypes
import os
import queue
import threading
from typing import TYPE_CHECKING, Any, Iterable, Iterator, List, Sequence, Sized, Tuple, Union

from . import _abi
from ._image import image_of
from ._library import ArgumentError, Error, StateError, Watch, call, error_of, lib, sequence, sized
from ._session import Answer, AnswerOptions, Choosing, Collected, Session, images_of, new_session, question

if TYPE_CHECKING:
    from ._model import Model

_READ_AHEAD = 2  # images decoded and not yet encoded
_LOOK_S = 0.5  # between looks for a signal that came just before the wait, which it does not end
_PATIENCE_S = 1.0  # for a next image that nobody wants any more
_END = object()


class _Feeder:
    """Reads and encodes on two threads; `out` gives (index, features or exception), then _END."""

    def __init__(self, model: Model, images: Iterable[Any], ahead: int) -> None:
        self.model, self.images = model, images
        self.stopped = threading.Event()
        self.out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._may_read, self.may_encode = threading.Semaphore(_READ_AHEAD), threading.Semaphore(ahead)
        self._threads = [threading.Thread(target=work, daemon=True, name=f"fastvlm {work.__name__}")
                         for work in (self.read, self.encode)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self._may_read.release()
        self.may_encode.release()
        self._read.put(_END)
        reader, encoder = self._threads
        if encoder.is_alive():  # otherwise it may not have been started
            encoder.join()
        if reader.is_alive():
            reader.join(_PATIENCE_S)  # it may be in the caller's iterable, which may wait for ever

    def read(self) -> None:
        from ._model import Features
        index = 0
        try:
            source = iter(self.images)
            while True:
                self._may_read.acquire()
                if self.stopped.is_set():
                    return
                try:
                    item = next(source)
                except StopIteration:
                    break
                if self.stopped.is_set():
                    return
                try:
                    parts: Any = [i if isinstance(i, Features) else image_of(i) for i in images_of(item)]
                except Exception as e:
                    parts = e
                self._read.put((index, parts))
                index += 1
            self._read.put(_END)
        except BaseException as e:  # the caller's iterable failed
            self._read.put(e)

    def encode(self) -> None:
        from ._model import Features
        watch = Watch(stopped=self.stopped.is_set)
        while True:
            item = self._read.get()
            self.may_encode.acquire()
            if self.stopped.is_set():
                return
            if not isinstance(item, tuple):
                self.out.put(item)
                return
            index, parts = item
            self._may_read.release()
            if not isinstance(parts, Exception):
                try:
                    parts = [p if isinstance(p, Features) else self.model._encode(p, "auto", 0, watch) for p in parts]
                except BaseException as e:
                    parts = e
            self.out.put((index, parts))


class _Seat:
    """A session that answers one question after the other."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def begin(self, index: int, parts: Sequence[Any], prompt: str, choosing: Choosing) -> None:
        self.index = index
        self.session.reset()
        question(prompt)
        for part in parts:
            self.session.add_image(part)
        self.session.add_text(prompt)
        self.choosing, self.collected = choosing, Collected(choosing.n_logprobs)
        self.session._begun(choosing)


def _step(seats: List[_Seat], watch: Watch) -> List[Tuple[_Seat, Union[None, Answer, Error]]]:
    """A token for every seat. What is over: its answer or its error."""
    n = len(seats)
    sessions = (ctypes.c_void_p * n)(*(s.session._handle._as_parameter_ for s in seats))
    pieces, statuses, error = (_abi.fv_piece * n)(), (ctypes.c_int * n)(), _abi.fv_error()
    for piece in pieces:
        piece.size = ctypes.sizeof(_abi.fv_piece)
    whole = watch.run(lib.fv_sessions_next, sessions, n, pieces, statuses, ctypes.byref(error))
    if whole and not any(statuses):  # nothing has happened
        raise error_of(whole, error.message.decode("utf-8", "replace"))
    over: List[Tuple[_Seat, Union[None, Answer, Error]]] = []
    for seat, piece, status in zip(seats, pieces, statuses):
        seat.choosing.check()
        if status:
            over.append((seat, error_of(status, _reason(seat, status, error))))
            continue
        seat.collected.take(piece)
        if piece.done:
            over.append((seat, seat.collected.answer()))
    return over


def _reason(seat: _Seat, status: int, first: Any) -> str:
    """The library describes the first session that failed; of the others it gives the status."""
    if first.status == status and first.message:
        return str(first.message.decode("utf-8", "replace"))
    return f"the answer failed: {lib.fv_status_name(status).decode()}"


def captions(model: Model, images: Iterable[Any], prompt: Union[str, Sequence[str]], together: int, raising: bool,
             options: AnswerOptions) -> Iterator[Tuple[int, Union[Answer, Error]]]:
    Choosing(options)  # wrong options are the call's error, not that of each image
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(f"images is one {type(images).__name__}; expected a list of images, or another iterable")
    if isinstance(prompt, str):
        question(prompt)
    else:
        prompt = sequence("prompt", prompt)
        if isinstance(images, Sized) and len(images) != len(prompt):
            raise ArgumentError(f"there are {len(images)} images and {len(prompt)} prompts")
    return _run(model, images, prompt, together, raising, options)


def _run(model: Model, images: Iterable[Any], prompt: Union[str, List[str]], together: int, raising: bool,
         options: AnswerOptions) -> Iterator[Tuple[int, Union[Answer, Error]]]:
    feeder, watch = _Feeder(model, images, together), Watch()
    results = _results(model, feeder, watch, prompt, together, options)
    try:
        with watch.deferred():
            feeder.start()
        while True:
            with watch.deferred(wake=lambda: feeder.out.put(_END)):
                one = next(results, None)
            if one is None:
                return
            index, value = one
            if isinstance(value, Exception) and not raising:
                value = _as_error(value)
            if isinstance(value, Error):
                value.index = index
            if isinstance(value, BaseException) and (raising or not isinstance(value, Error)):
                raise value
            yield index, value
    finally:
        feeder.stop()


def _as_error(e: Exception) -> Error:
    """What is wrong with one image or prompt, as callers tell it from an answer."""
    if isinstance(e, Error):
        return e
    error = (ArgumentError if isinstance(e, (TypeError, ValueError)) else Error)(str(e) or repr(e))
    error.__cause__ = e
    return error


def _results(model: Model, feeder: _Feeder, watch: Watch, prompt: Union[str, List[str]], together: int,
             options: AnswerOptions) -> Iterator[Tuple[int, Any]]:
    """(index, answer or exception) as they come."""
    free: List[_Seat] = []
    active: List[_Seat] = []
    ended = False
    while active or not ended:
        while not ended and len(active) < together:
            try:
                item = feeder.out.get(block=not active, timeout=_LOOK_S)
            except queue.Empty:
                if active:
                    break
                continue
            if not isinstance(item, tuple):
                if item is not _END:
                    raise item
                ended = True
                break
            index, parts = item
            feeder.may_encode.release()
            if isinstance(parts, BaseException):
                yield index, parts
                continue
            if not free:
                free.append(_Seat(new_session(model, model._engine, exact_reuse=True, watch=watch)))
            seat, choosing = free.pop(), Choosing(options)
            try:
                seat.begin(index, parts, prompt if isinstance(prompt, str) else _at(prompt, index), choosing)
            except (Error, TypeError, ValueError) as e:  # the last two: of a prompt
                free.append(seat)
                yield index, e
                continue
            active.append(seat)
        if not active:
            continue
        for seat, value in _step(active, watch):
            active.remove(seat)
            free.append(seat)
            yield seat.index, value


def _at(prompts: List[str], index: int) -> str:
    if index >= len(prompts):
        raise ArgumentError(f"there are {len(prompts)} prompts, and more images")
    return prompts[index]
