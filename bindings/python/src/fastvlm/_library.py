"""libfastvlm through ctypes: finding it, calling it, its errors as exceptions, its callbacks."""
from __future__ import annotations

import contextlib
import ctypes
import logging
import operator
import os
import pathlib
import signal
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Type, Union

from . import _abi

Progress = Callable[[str, float], Optional[bool]]
"""progress(stage, done): called now and then, done from 0 to 1. Returning True stops the call with
`Cancelled`; an exception stops it, too, and is raised by the call."""

log = logging.getLogger("fastvlm")


class Error(Exception):
    """What the library could not do. The message says what was found and what was expected."""

    at: int = 0
    """Byte offset in the file, or 0."""
    index: Optional[int] = None
    """Which of several images, in `Model.caption_batch`."""


class ArgumentError(Error, ValueError):
    """An argument is out of range."""


class FileError(Error, OSError):
    """A file is missing or cannot be read. One that is missing is a `FileNotFoundError`, too, one that may
    not be opened a `PermissionError`; these have errno and filename."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # OSError's would repeat the name of the file


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file."""


class FilePermissionError(FileError, PermissionError):
    """The file may not be opened."""


class FormatError(Error, ValueError):
    """The bytes are not what their format says."""


class UnsupportedError(Error):
    """Well-formed, but not a model or an image that this build can use."""


class OutOfMemoryError(Error, MemoryError):
    """An allocation failed."""


class LimitError(Error):
    """A limit that protects the caller: image size, context length."""


class Cancelled(Error):
    """A progress function returned True."""


class StateError(Error, RuntimeError):
    """The call does not fit the object's state: closed, in another call, no answer begun."""


_CLASSES: Mapping[int, Type[Error]] = {
    _abi.FV_ERR_ARGUMENT: ArgumentError,
    _abi.FV_ERR_IO: FileError,
    _abi.FV_ERR_FORMAT: FormatError,
    _abi.FV_ERR_UNSUPPORTED: UnsupportedError,
    _abi.FV_ERR_MEMORY: OutOfMemoryError,
    _abi.FV_ERR_LIMIT: LimitError,
    _abi.FV_ERR_CANCELLED: Cancelled,
    _abi.FV_ERR_STATE: StateError,
}


def _load() -> ctypes.CDLL:
    """The library inside the package; FASTVLM_LIBRARY names another one, for work on fastvlm itself."""
    named = os.environ.get("FASTVLM_LIBRARY")
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    path = named or str(pathlib.Path(__file__).parent / "lib" / f"libfastvlm{suffix}")
    try:
        library = ctypes.CDLL(path)
    except OSError as e:
        raise ImportError(f"fastvlm: {path} cannot be loaded: {e}") from e
    for name, (result, parameters) in _abi.FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"fastvlm: {path} has no {name}; expected fastvlm {_abi.VERSION}") from None
        function.restype, function.argtypes = result, parameters
        if name.endswith("_free"):  # keeps the GIL, see Handle
            setattr(library, name, ctypes.PYFUNCTYPE(result, ctypes.c_void_p)((name, library)))
    found = library.fv_version().decode()
    if found != _abi.VERSION:
        raise ImportError(f"fastvlm: {path} is fastvlm {found}; expected {_abi.VERSION}")
    return library


lib = _load()


def error_of(status: int, message: str, at: int = 0) -> Error:
    error = _CLASSES.get(status, Error)(message)
    error.at = at
    return error


def call(function: Any, *arguments: Any, watch: Optional[Watch] = None) -> None:
    """Calls a function of the library that ends with an fv_error; raises what it reports."""
    error = _abi.fv_error()
    if watch is None:
        status = function(*arguments, ctypes.byref(error))
    else:
        status = watch.run(function, *arguments, ctypes.byref(error))
    if status:
        raise error_of(status, error.message.decode("utf-8", "replace"), error.at)


class Watch:
    """Callbacks for a call or a session. What they raise is kept, ends the call, and is raised by run().

    So is what a handler of Ctrl-C, of a timer or of SIGTERM raises on the main thread. Python runs it
    when a callback enters Python: before the first line of the callback, where nothing could catch
    it, so while C runs another handler stands before it."""

    def __init__(self, progress: Optional[Progress] = None, stopped: Optional[Callable[[], bool]] = None) -> None:
        state = self.state = _State()

        # Closures over state, not methods: a method would tie this object into a cycle.
        def on_progress(_user: Any, stage: bytes, done: float) -> bool:
            try:
                if state.raised is not None or (stopped is not None and stopped()):
                    return True
                return progress is not None and progress(stage.decode(), done) is True
            except BaseException as e:
                state.keep(e)
                return True

        def on_log(_user: Any, level: int, message: bytes) -> None:
            try:
                log.log(logging.WARNING if level == _abi.FV_LOG_WARNING else logging.INFO, "%s",
                        message.decode("utf-8", "replace"))
            except BaseException as e:
                state.keep(e)

        self.callbacks = sized(_abi.fv_callbacks, log=_abi.fv_log_fn(on_log),
                               progress=_abi.fv_progress_fn(on_progress))

    def run(self, function: Any, *arguments: Any) -> int:
        """The status of function(*arguments), unless a callback raised."""
        with self.deferred():
            return int(function(*arguments))

    @contextlib.contextmanager
    def deferred(self, wake: Callable[[], None] = lambda: None) -> Iterator[None]:
        """What signals raise meanwhile is raised at the end, and ends what C runs. wake: called at once,
        for who waits. Several calls that belong together are one when this stands around them."""
        state = self.state
        if state.deferring:
            yield
            return
        previous: Dict[int, Any] = {}

        def handler(signum: int, frame: Any) -> None:
            try:
                previous[signum](signum, frame)
            except BaseException as e:
                if not state.deferring:
                    raise
                state.raised = e
                wake()

        try:
            state.raised, state.deferring = None, True
            if threading.current_thread() is threading.main_thread():
                for one in _RAISING:
                    _replace(one, handler, previous)
            yield
        finally:
            try:
                state.deferring = False  # the handler raises from here on
                _put_back(handler, previous)
            finally:
                _put_back(handler, previous)  # the rest, where a signal ended the first
                raised, state.raised = state.raised, None
                if raised is not None:
                    raise raised


_RAISING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
"""Signals whose handlers raise in many programs: Ctrl-C, services, timers of tests."""


def _replace(signum: int, handler: Any, previous: Dict[int, Any]) -> None:
    function = signal.getsignal(signum)
    if callable(function):
        previous[signum] = function
        try:
            signal.signal(signum, handler)
        except ValueError as e:
            if e.__traceback__ is None or e.__traceback__.tb_next is not None:
                raise  # by the function, for a signal that came now
            del previous[signum]  # the main thread, but not of the main interpreter


def _put_back(handler: Any, previous: Mapping[int, Any]) -> None:
    for signum, function in previous.items():
        if signal.getsignal(signum) is handler:  # unless it was changed meanwhile
            signal.signal(signum, function)


class _State(threading.local):
    """Callbacks come on the thread that called the library, and so does run()."""

    raised: Optional[BaseException] = None
    deferring = False

    def keep(self, e: BaseException) -> None:
        """The first one: what follows, such as the Cancelled of a call in a callback, is because of it."""
        if self.raised is None:
            self.raised = e


class Handle:
    """An object of the library, passed to its functions as it is: who calls holds it, so that what is
    closed meanwhile is freed after the call. keep: what the object borrows, until it is freed.

    It is there before the object: `out` is where the function that makes one writes the pointer, so
    that an exception out of a handler of signals at any later moment loses nothing.

    Freeing takes no time, and keeps the GIL: where it is taken back, Python would run the handler of
    Ctrl-C, and what that raises is lost in __del__."""

    __slots__ = ("_as_parameter_", "keep", "_free")

    def __init__(self, free: Any, keep: Any = None) -> None:
        self._as_parameter_, self._free, self.keep = ctypes.c_void_p(), free, keep

    @property
    def out(self) -> Any:
        return ctypes.byref(self._as_parameter_)

    def __reduce__(self) -> Any:
        raise TypeError("models, sessions, features and images belong to one process and cannot be pickled; make a "
                        "fastvlm.Model in each process")

    def __del__(self) -> None:
        self._free(self._as_parameter_)


def sequence(name: str, value: Any) -> List[Any]:
    """The members of a list of strings, or one string; bytes would be a list of numbers."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (bytes, bytearray)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} is {value!r}; expected a str or a list of them")
    return list(value)


def sized(struct: Any, **fields: Any) -> Any:
    """A struct with its size and these fields; all others have their defaults."""
    return struct(size=ctypes.sizeof(struct), **fields)


def integer(name: str, value: Any, low: int, high: int) -> int:
    """value as an integer; ctypes would cut off what does not fit."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected an integer") from None
    if not low <= number <= high:
        raise ArgumentError(f"{name} is {number}; expected {low} to {high}")
    return number


def real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected a number") from None


def choice(name: str, value: str, choices: Mapping[str, int]) -> int:
    try:
        return choices[value]
    except (KeyError, TypeError):
        raise ArgumentError(f"{name} is {value!r}; expected {', '.join(choices)}") from None


def without_zero(name: str, data: bytes) -> bytes:
    """data, where a zero byte would end it in C, or is no text."""
    if b"\0" in data:
        raise ArgumentError(f"byte {data.index(0)} of {name} is a NUL; expected text without one")
    return data


@contextlib.contextmanager
def opening(path: Union[str, os.PathLike[str]], hint: str = "") -> Iterator[bytes]:
    """The path for C. The error of a file that cannot be opened becomes what Python's open raises, too.
    hint: added to the message where there is no such file."""
    name = without_zero("path", os.fsencode(path))
    try:
        yield name
    except FileError as e:
        try:
            os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
        except FileNotFoundError as why:
            raise MissingFileError(why.errno, f"{e}{hint}", os.fspath(path)) from None
        except PermissionError as why:
            raise FilePermissionError(why.errno, str(e), os.fspath(path)) from None
        raise


def utf8(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{name} is a {type(text).__name__}; expected str")
    return text.encode("utf-8")
