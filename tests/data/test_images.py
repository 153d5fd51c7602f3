"""Every kind of file a photograph folder may hold becomes the picture it shows, or a reason."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pretint.data import BrokenImageError, decode_image
from pretint.runtime.errors import ArgumentError


def _encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    """Smooth enough that JPEG keeps it: red grows to the right, green downwards, blue is constant; (24, 32, 3)."""
    ys, xs = np.mgrid[0:24, 0:32]
    return np.stack([xs * 8, ys * 10, np.full_like(xs, 60)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_come_back_to_the_bit(picture, form):
    content = _encode(Image.fromarray(picture), form, **({"lossless": True} if form == "WEBP" else {}))
    assert np.array_equal(decode_image(content, None), picture.transpose(2, 0, 1))


def test_jpeg_comes_back_within_its_own_loss(picture):
    decoded = decode_image(_encode(Image.fromarray(picture), "JPEG", quality=95, subsampling=0), None)
    assert np.abs(decoded.astype(int) - picture.transpose(2, 0, 1)).mean() < 2


def test_resizing_crops_the_centre_and_keeps_its_colours():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (10, 200, 30), (0, 0, 255)
    for size in (5, 20, 33):
        decoded = decode_image(_encode(Image.fromarray(wide), "PNG"), size)
        assert decoded.shape == (3, size, size)
        assert decoded.dtype == np.uint8
        assert (decoded == np.array([10, 200, 30], np.uint8)[:, None, None]).all()


def test_a_large_jpeg_is_reduced_to_its_average_not_to_single_pixels():
    checks = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    decoded = decode_image(_encode(Image.fromarray(checks).convert("RGB"), "JPEG", quality=95), 16)
    assert np.abs(decoded.astype(int) - 127).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_upright_picture(picture, orientation):
    # Pillow's own operation, inverted by hand, stores the picture as a camera held that way would.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(decode_image(content, None), picture.transpose(2, 0, 1))
    assert np.array_equal(decode_image(content, 24), picture[:, 4:28].transpose(2, 0, 1))


def test_damaged_exif_does_not_lose_the_picture(picture):
    content = _encode(Image.fromarray(picture), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert np.array_equal(decode_image(content, None), picture.transpose(2, 0, 1))


def test_transparency_lies_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0], rgba[0, 1] = (200, 0, 0, 255), (200, 0, 0, 0)
    decoded = decode_image(_encode(Image.fromarray(rgba), "PNG"), None)
    assert decoded[:, 0, 0].tolist() == [200, 0, 0]
    assert decoded[:, 0, 1].tolist() == [255, 255, 255]
    palette = Image.new("P", (1, 1))
    palette.putpalette([9, 8, 7])
    assert decode_image(_encode(palette, "PNG", transparency=0), None).flatten().tolist() == [255, 255, 255]


def test_palette_cmyk_grey_and_one_bit_pictures_become_rgb(picture):
    rgb = Image.fromarray(picture)
    palette = rgb.quantize(16)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_image(_encode(palette, "PNG"), None), expected)
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode_image(_encode(cmyk, "JPEG", quality=95), 16)
    assert np.abs(decoded.astype(int) - np.array([255, 0, 0])[:, None, None]).max() < 6
    grey = Image.new("L", (4, 4), 77)
    assert (decode_image(_encode(grey, "PNG"), 4) == 77).all()
    assert (decode_image(_encode(Image.new("1", (4, 4), 1), "PNG"), 4) == 255).all()


def test_sixteen_bit_grey_keeps_its_tones():
    levels = np.array([[0, 1000], [32768, 65535]], np.uint16)
    decoded = decode_image(_encode(Image.fromarray(levels), "PNG"), None)
    assert decoded[0].tolist() == [[0, 3], [128, 255]]


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = _encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert decode_image(content, 8, extra_formats=("gif",))[:, 3, 3].tolist() == [255, 0, 0]


def test_one_pixel_fills_the_picture():
    decoded = decode_image(_encode(Image.new("RGB", (1, 1), (5, 6, 7)), "PNG"), 8)
    assert (decoded == np.array([5, 6, 7])[:, None, None]).all()


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_000, 30_000, 2**31 - 1])
def test_decompression_bombs_are_refused_before_decoding(side, recwarn):
    with pytest.raises(BrokenImageError, match=r"pixels|Bomb|decoded"):
        decode_image(_png_claiming(side, side), 32)
    assert not recwarn.list


def test_the_pixel_limit_is_exact():
    content = _encode(Image.new("RGB", (10, 10)), "PNG")
    assert decode_image(content, 4, max_pixels=100).shape == (3, 4, 4)
    with pytest.raises(BrokenImageError, match="over the limit of 99"):
        decode_image(content, 4, max_pixels=99)


def _broken_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg, png = _encode(Image.fromarray(noise), "JPEG"), _encode(Image.fromarray(noise), "PNG")
    tables = jpeg.index(b"\xff\xc4")
    return {
        "empty": b"",
        "html": b"<!DOCTYPE html><html><body>404 not found</body></html>",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "bad huffman table": jpeg[: tables + 4] + b"\xff" * 60 + jpeg[tables + 64 :],
        "only a header": jpeg[:20],
        "tiff": _encode(Image.fromarray(noise), "TIFF"),
        "random": noise.tobytes(),
    }


@pytest.mark.parametrize("kind", list(_broken_files()))
def test_what_is_no_picture_is_refused_with_a_reason(kind):
    with pytest.raises(BrokenImageError) as caught:
        decode_image(_broken_files()[kind], 32)
    assert len(str(caught.value)) > 10


def test_random_damage_gives_a_picture_or_a_reason_and_nothing_else(picture):
    random = np.random.default_rng(1)
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        content = _encode(Image.fromarray(picture), form)
        for _ in range(60):
            damaged = bytearray(content)
            for position in random.integers(0, len(content), 3):
                damaged[position] = random.integers(256)
            with contextlib.suppress(BrokenImageError):
                assert decode_image(bytes(damaged), 16, max_pixels=10**6).shape == (3, 16, 16)


def test_paths_with_blanks_and_unicode_are_read(tmp_path, picture):
    path = tmp_path / "ein Bild – 猫.png"
    path.write_bytes(_encode(Image.fromarray(picture), "PNG"))
    assert np.array_equal(decode_image(path, None), picture.transpose(2, 0, 1))


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("pipe.jpg", "loop.jpg", "missing.jpg", "."):
        with pytest.raises(BrokenImageError):
            decode_image(tmp_path / name, 32)


def test_large_files_are_refused_before_they_are_read(tmp_path, picture):
    path = tmp_path / "large.png"
    path.write_bytes(_encode(Image.fromarray(picture), "PNG"))
    with pytest.raises(BrokenImageError, match="over the limit of 10"):
        decode_image(path, 32, max_bytes=10)


def test_a_size_below_one_is_an_argument_error(picture):
    with pytest.raises(ArgumentError, match="size"):
        decode_image(_encode(Image.fromarray(picture), "PNG"), 0)
