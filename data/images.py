"""How does a file from anywhere become an RGB picture of one size, and which files are refused with which reason?"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image
from torch import Tensor

from ..runtime.errors import ArgumentError, DataError, UnknownNameError
from ..runtime.pictures import to_rgb_image

# Pillow's other decoders (PSD, EPS, FITS …) are the ones with the long list of security notices; they are never asked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Read only when asked for by name: what a file begins with, and what people call its form.
EXTRA_FORMATS: dict[str, tuple[bytes, ...]] = {
    "gif": (b"GIF87a", b"GIF89a"),
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
# How pictures become square; whoever changes what decode_image does with sizes changes this name too, and packs are made anew.
RESIZE_RULE = "centre square, bicubic, antialiased"
MAX_FILE_BYTES = 64 * 2**20

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(DataError):
    """A file that cannot be read as a picture; the message is the reason alone, callers add the name."""


def check_extra_formats(names: Collection[str]) -> None:
    """Raise an UnknownNameError unless all names are keys of EXTRA_FORMATS."""
    for name in names:
        if name not in EXTRA_FORMATS:
            raise UnknownNameError("extra_formats", name, EXTRA_FORMATS)


def decode_image(
    source: bytes | Path,
    size: int | None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_FILE_BYTES,
    extra_formats: Collection[str] = (),
) -> UInt8[np.ndarray, "3 h w"]:
    """A picture file as uint8 RGB (3, size, size), or (3, h, w) as it is when `size` is None.

    Any mode becomes RGB: transparency over white, CMYK and palettes converted, 16-bit grey by its high byte. The EXIF
    orientation is honoured, of an animation the first frame is taken. The shorter side is resized to `size` (bicubic,
    antialiased) and the centre is cropped. Formats: JPEG, PNG, WebP and BMP, by content, whatever the file is called.

    Args:
        source: the file's content, or its path.
        max_pixels: larger pictures are refused before anything is decoded; above Pillow's own limit (89 million) that counts.
        max_bytes: larger files are refused before they are read.
        extra_formats: "gif" or "tiff", to read these too.

    Raises:
        BrokenImageError: with the reason, for everything that is no such picture.
        ArgumentError: `size` is below 1.
        UnknownNameError: an extra format of another name.
    """
    check_extra_formats(extra_formats)
    if size is not None and size < 1:
        raise ArgumentError(f"size: got {size}; a picture has at least 1 pixel a side.")
    with pillow_warnings():
        return decode_quietly(source, size, max_pixels, max_bytes, extra_formats)


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """While decoding, a warning of a decompression bomb is an error, and what Pillow thinks of metadata is not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_quietly(
    source: bytes | Path,
    size: int | None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_FILE_BYTES,
    extra_formats: Collection[str] = (),
) -> UInt8[np.ndarray, "3 h w"]:
    """:func:`decode_image` for threads: whoever starts them enters :func:`pillow_warnings`, which cannot be done in each."""
    content = read_content(source, max_bytes)
    try:
        picture = _upright_rgb(content, size, max_pixels, extra_formats)
        _check_png_sums(content)
    except BrokenImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BrokenImageError(f"has more pixels than the limit of {max_pixels}") from error
    except Image.UnidentifiedImageError as error:
        raise BrokenImageError(_why_unidentified(content, extra_formats)) from error
    # Pillow's decoders answer hostile bytes with almost any exception (OSError, SyntaxError, struct.error, IndexError
    # …).
    except Exception as error:
        raise BrokenImageError(f"cannot be decoded ({type(error).__name__}: {str(error)[:100]})") from error
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def read_content(source: bytes | Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """A picture file's content.

    Raises:
        BrokenImageError: it is empty, larger than allowed, no regular file, or can't be read.
    """
    content = _read_file(source, max_bytes) if isinstance(source, Path) else source
    if not content:
        raise BrokenImageError("the file is empty")
    if len(content) > max_bytes:
        raise BrokenImageError(f"the file has {len(content)} bytes, over the limit of {max_bytes}")
    return content


def fit_pictures(images: Num[Tensor, "n 3 h w"], size: int) -> Num[Tensor, "n 3 size size"]:
    """Resize (bicubic, antialiased) and centre-crop pictures, uint8 or floating, to `size`; at that size they stay as they are."""
    h, w = images.shape[-2:]
    if (h, w) == (size, size):
        return images
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == size:
        return square.contiguous()
    return torch.nn.functional.interpolate(square, size=(size, size), mode="bicubic", antialias=True)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        # A named pipe called .jpg would block for ever, so only regular files are opened.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImageError("not a regular file")
        if status.st_size > max_bytes:
            raise BrokenImageError(f"the file has {status.st_size} bytes, over the limit of {max_bytes}")
        # The file may have been changed for a pipe or may have grown since: it is opened without waiting, and read so far.
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BrokenImageError("not a regular file")
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise BrokenImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_png_sums(content: bytes) -> None:
    """Compare the sums of a PNG's critical chunks, of which Pillow leaves that of the pixels out: a flipped byte would be a
    slightly different picture. Metadata may be damaged, and what follows the last chunk is not looked at."""
    if not content.startswith(_PNG):
        return
    view, start = memoryview(content), len(_PNG)
    while start + 12 <= len(content):
        length, kind = int.from_bytes(view[start : start + 4]), bytes(view[start + 4 : start + 8])
        end = start + 8 + length
        if kind[:1].isupper() and zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise BrokenImageError(f"its part {kind.decode('latin-1')} has a wrong checksum")
        if kind == b"IEND":
            return
        start = end + 4


def _why_unidentified(content: bytes, extra_formats: Collection[str]) -> str:
    for name, beginnings in EXTRA_FORMATS.items():
        if content.startswith(beginnings) and name not in extra_formats:
            return f"a {name.upper()} picture, which is read only with --extra-formats {name}"
    return f"not a picture in {', '.join((*FORMATS, *(name.upper() for name in sorted(extra_formats))))} form"


def _upright_rgb(content: bytes, size: int | None, max_pixels: int, extra_formats: Collection[str]) -> Image.Image:
    """Decode with Pillow; a centred square may be turned after it is resized, which is less work."""
    formats = (*FORMATS, *(name.upper() for name in extra_formats))
    with Image.open(io.BytesIO(content), formats=formats) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise BrokenImageError(f"has {width} x {height} pixels, over the limit of {max_pixels}")
        if size is not None and image.format == "JPEG":
            image.draft(None, (2 * size, 2 * size))  # large JPEGs are decoded at a fraction of their size
        orientation = _orientation(image)
        picture = to_rgb_image(image)
    if size is not None:
        picture = _centre_square(picture, size)
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; damaged EXIF data is no reason to lose the picture."""
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        return None


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    if (width, height) == (size, size):
        return image
    # Cropped first: with resize(box=…) the filter would reach beyond the square, as it does not in fit_pictures.
    return image.crop(box).resize((size, size), Image.Resampling.BICUBIC)
