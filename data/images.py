"""How does a file from anywhere become an RGB picture of one size, and which files are refused with which reason?"""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image
from torch import Tensor

from ..runtime.errors import ArgumentError, DataError
from ..runtime.pictures import to_rgb_image

# Pillow's other decoders (TIFF, PSD, EPS, FITS …) are the ones with the long list of security notices; they are never
# asked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MAX_PIXELS = 50_000_000
# How pictures become square; whoever changes what decode_image does with sizes changes this name too, and packs are made anew.
RESIZE_RULE = "centre square, bicubic, antialiased"
MAX_FILE_BYTES = 64 * 2**20

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


def decode_image(
    source: bytes | Path, size: int | None, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_FILE_BYTES
) -> UInt8[np.ndarray, "3 h w"]:
    """A picture file as uint8 RGB (3, size, size), or (3, h, w) as it is when `size` is None.

    Any mode becomes RGB: transparency over white, CMYK and palettes converted, 16-bit grey by its high byte. The EXIF
    orientation is honoured, of an animation the first frame is taken. The shorter side is resized to `size` (bicubic,
    antialiased) and the centre is cropped. Formats: JPEG, PNG, WebP, BMP, GIF, by content, whatever the file is called.

    Args:
        source: the file's content, or its path.
        max_pixels: larger pictures are refused before anything is decoded.
        max_bytes: larger files are refused before they are read.

    Raises:
        BrokenImageError: with the reason, for everything that is no such picture.
        ArgumentError: `size` is below 1.
    """
    if size is not None and size < 1:
        raise ArgumentError(f"size: got {size}; a picture has at least 1 pixel a side.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_quietly(source, size, max_pixels, max_bytes)


def decode_quietly(
    source: bytes | Path, size: int | None, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_FILE_BYTES
) -> UInt8[np.ndarray, "3 h w"]:
    """:func:`decode_image` for threads: whoever starts them silences Pillow's warnings, which cannot be done in each.

    Nothing is lost with them: our own limit is lower than the one Pillow warns at, and is checked before anything is
    decoded.
    """
    content = read_content(source, max_bytes)
    try:
        picture = _upright_rgb(content, size, max_pixels)
    except BrokenImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise BrokenImageError(f"not a picture in {', '.join(FORMATS)} form") from error
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
        return path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"cannot be read ({error.strerror or error})") from error


def _upright_rgb(content: bytes, size: int | None, max_pixels: int) -> Image.Image:
    """Decode with Pillow; a centred square may be turned after it is resized, which is less work."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
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
