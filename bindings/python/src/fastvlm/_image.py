"""Images of every kind that Python programs hold, as fv_image."""
from __future__ import annotations

import ctypes
import math
import os
import sys
from typing import Any, Optional, Tuple, Union

from . import _abi
from ._library import ArgumentError, Error, FormatError, Handle, call, integer, lib, opening, sized

_EXIF_ORIENTATION = 0x0112


class Image:
    """An image, decoded.

    source: a path (`str` or `os.PathLike`); the bytes of a file (`bytes`, `bytearray`, `memoryview`); a
    `PIL.Image.Image`; or an array of pixels: uint8 [height, width], [height, width, 1], [height, width,
    3] in the order R, G, B or [height, width, 4] (alpha is ignored), or float32 [height, width, 3] from
    0 to 1, others are refused. An array is anything with `__array_interface__` or `__array__`. Arrays
    in C order, also with gaps between rows, are used where they are: do not change them while the Image
    lives.

    ignore_exif: leave out the rotation that the EXIF data of a file or a PIL image asks for.
    max_pixels: larger files are refused before they are decoded (0: 2^28).
    """

    def __init__(self, source: ImageLike, *, ignore_exif: bool = False, max_pixels: int = 0) -> None:
        options = sized(_abi.fv_image_options, ignore_exif=bool(ignore_exif),
                        max_pixels=integer("max_pixels", max_pixels, 0, 2**64 - 1))
        if isinstance(source, Image):
            self._handle: Handle = source._handle
        elif isinstance(source, (str, os.PathLike)):
            with opening(source) as path:
                self._handle = _made(lib.fv_image_open, path, options)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            data, n_bytes, _borrowed = _buffer(source)
            self._handle = _made(lib.fv_image_read, data, n_bytes, options)
        elif _is_pil(source):
            try:
                self._handle = _of_pil(source, ignore_exif)
            except Error:
                raise
            except (OSError, SyntaxError, ValueError) as e:  # Pillow decodes when pixels are asked for
                raise FormatError(f"Pillow cannot read the image: {e}") from e
        elif hasattr(source, "__array_interface__") or hasattr(source, "__array__"):
            self._handle = _of_array(source)
        else:
            raise TypeError(f"{type(source).__name__} is not an image; expected a path, bytes, a PIL image or an array")

    @property
    def width(self) -> int:
        """In pixels, as it is seen: turned as EXIF says."""
        return int(lib.fv_image_width(self._handle))

    @property
    def height(self) -> int:
        """In pixels, as it is seen: turned as EXIF says."""
        return int(lib.fv_image_height(self._handle))

    @property
    def format(self) -> str:
        """ "JPEG", "PNG" and so on; of pixels "RGB", "GRAY" and so on."""
        return str(lib.fv_image_format(self._handle).decode())

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Pixels uint8 [height, width, 3], not copied: numpy.asarray(image). Of a file only."""
        rgb = lib.fv_image_rgb(self._handle)
        if not rgb:
            raise AttributeError("an image made of an array or a PIL image gives no pixels back")
        return {"version": 3, "shape": (self.height, self.width, 3), "typestr": "|u1", "data": (rgb, True)}

    def __repr__(self) -> str:
        return f"<fastvlm.Image {self.format} {self.width}x{self.height}>"


ImageLike = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, Image, Any]
"""What `Image` takes as its source."""


def image_of(source: ImageLike) -> Image:
    return source if isinstance(source, Image) else Image(source)


def _made(function: Any, *arguments: Any, keep: Any = None) -> Handle:
    handle = Handle(lib.fv_image_free, keep)
    *values, options = arguments
    call(function, handle.out, *values, ctypes.byref(options))
    return handle


def _buffer(data: Union[bytes, bytearray, memoryview]) -> Tuple[Any, int, Any]:
    """(what to pass, bytes, what must live as long)"""
    if isinstance(data, bytes):
        return data, len(data), data
    view = memoryview(data)
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    view = view.cast("B")
    if view.readonly or not view.nbytes:
        copied = view.tobytes()
        return copied, len(copied), copied
    array = (ctypes.c_char * view.nbytes).from_buffer(view)
    return array, view.nbytes, array


def _is_pil(source: Any) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(source, pil.Image)


def _of_pil(source: Any, ignore_exif: bool) -> Handle:
    orientation = 0 if ignore_exif else source.getexif().get(_EXIF_ORIENTATION, 0)
    if not isinstance(orientation, int) or not 0 <= orientation <= 8:
        orientation = 0
    formats = {"RGB": (_abi.FV_PIXELS_RGB, 3), "RGBA": (_abi.FV_PIXELS_RGBA, 4), "RGBX": (_abi.FV_PIXELS_RGBA, 4),
               "L": (_abi.FV_PIXELS_GRAY, 1)}
    if source.mode in ("I", "F"):
        raise ArgumentError(f'PIL image has the mode "{source.mode}", which does not say what white is; expected a mode '
                            'of 8 bits, such as "L" or "RGB", or "I;16"')
    wide = source.mode.startswith("I;16")
    if not wide and source.mode not in formats:
        source = source.convert("RGB")
    pixel_format, n_channels = formats["L" if wide else source.mode]
    data = source.tobytes()
    if wide:  # the high byte, as in files; convert() would clip
        data = data[0 if source.mode == "I;16B" else 1::2]
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    return _wrapped(pixel_format, source.width, source.height, address, source.width * n_channels, orientation, data)


def _wrapped(pixel_format: int, width: int, height: int, address: Optional[int], stride: int, orientation: int,
             keep: Any) -> Handle:
    if not 1 <= width <= 65535 or not 1 <= height <= 65535:
        raise ArgumentError(f"image is {width} x {height} pixels; expected 1 to 65535 each")
    pixels = sized(_abi.fv_pixels, format=pixel_format, width=width, height=height, orientation=orientation)
    pixels.plane[0] = address
    pixels.stride_bytes[0] = stride
    return _made(lib.fv_image_wrap, pixels, keep=keep)


def _of_array(source: Any) -> Handle:
    if not hasattr(source, "__array_interface__"):
        import numpy  # whoever has __array__ has numpy
        source = numpy.asarray(source)
    about = source.__array_interface__
    shape, dtype = tuple(about["shape"]), about["typestr"]
    formats = {("|u1", 1): _abi.FV_PIXELS_GRAY, ("|u1", 3): _abi.FV_PIXELS_RGB, ("|u1", 4): _abi.FV_PIXELS_RGBA,
               ("<f4", 3): _abi.FV_PIXELS_RGB_F32}
    n_channels = 1 if len(shape) == 2 else shape[-1] if len(shape) == 3 else 0
    if (dtype, n_channels) not in formats:
        raise ArgumentError(f"array is {dtype} {list(shape)}; expected uint8 [height, width], [height, width, 3 or 4] "
                            "or float32 [height, width, 3]")
    pixel_bytes = int(dtype[2:]) * n_channels
    strides = about.get("strides")
    wanted = (pixel_bytes,) if len(shape) == 2 else (pixel_bytes, int(dtype[2:]))
    data = about.get("data")
    if not isinstance(data, tuple) or (strides is not None and tuple(strides[1:]) != wanted):
        import numpy  # pixels in another order than rows of pixels of channels
        return _of_array(numpy.array(source, order="C", copy=True))
    height, width = shape[:2]
    stride = strides[0] if strides is not None else width * pixel_bytes
    if stride == 0 and height > 1:  # one row again and again, which C reads as "no gap"
        import numpy
        return _of_array(numpy.array(source, order="C", copy=True))
    handle = _wrapped(formats[dtype, n_channels], width, height, data[0], stride, 0, (source, about))
    if dtype == "<f4":
        _check_floats(data[0], width * n_channels, height, stride)
    return handle


def _check_floats(address: int, n_in_row: int, height: int, stride: int) -> None:
    """The library clamps: an array from 0 to 255 would be white, one with NaN partly black."""
    numpy = sys.modules.get("numpy")
    slack = 0.5 / 255  # the same byte as 0 or 1
    for y in range(height):
        raw = (ctypes.c_char * (4 * n_in_row)).from_address(address + y * stride)
        row = memoryview(raw).cast("B").cast("f")
        if numpy is not None:
            low, high = float(numpy.min(row)), float(numpy.max(row))
        else:
            low, high = (min(row), max(row)) if not math.isnan(sum(row)) else (math.nan, math.nan)
        if not (-slack <= low and high <= 1 + slack):
            found = high if low >= -slack else low
            raise ArgumentError(f"array holds {found:g}; expected float32 from 0 to 1, or uint8")
