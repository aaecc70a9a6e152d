"""What this machine and this build offer."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Dict

from . import _abi
from ._library import lib, sized


@dataclass(frozen=True)
class System:
    """This machine, as far as the library is concerned."""

    cpu_best: str
    """The highest level of kernels for this processor."""
    cpu_level: str
    """The one in use: lower when the environment's FV_CPU says so."""
    cpu_unknown: bool
    fast_bf16: bool
    n_cores: int
    """Physical cores that this process may use."""
    bf16_reason: str
    memory_bytes: int
    memory_available_bytes: int
    memory_limited: bool
    """By a container or service."""


def system() -> System:
    """This machine."""
    raw = sized(_abi.fv_system)
    lib.fv_system_info(ctypes.byref(raw))
    fields: Dict[str, Any] = {name: getattr(raw, name) for name in System.__dataclass_fields__}
    for name, value in fields.items():
        fields[name] = value.decode() if isinstance(value, bytes) else value
    return System(**fields)


def image_formats() -> Dict[str, str]:
    """The formats of image files: "" where a format can be read, otherwise why it cannot."""
    found: Dict[str, str] = {}
    name, error = ctypes.c_char_p(), _abi.fv_error()
    while True:
        status = lib.fv_image_format_check(len(found), ctypes.byref(name), ctypes.byref(error))
        if name.value is None:
            return found
        found[name.value.decode()] = error.message.decode("utf-8", "replace") if status else ""
