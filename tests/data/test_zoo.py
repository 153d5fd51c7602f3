"""A zoo of broken, odd and hostile files, made here: each is a picture or a named rejection, counted and listed by name, and the
run goes on under a stated share of broken files and stops above it."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pretint.cli import main
from pretint.data import folders as folders_module
from pretint.data import open_source
from pretint.runtime.errors import DataError

_Y, _X = np.mgrid[0:30, 0:40]
PIXELS = np.stack([_X * 6, _Y * 8, np.full_like(_X, 90)], axis=-1).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, interlace: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG written by hand: what Pillow can't write, and what it should not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def interlaced(pixels: np.ndarray) -> bytes:
    """Adam7: seven passes over ever denser grids of pixels."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    parts = (pixels[y0::dy, x0::dx] for y0, dy, x0, dx in passes)
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png(pixels.shape[1], pixels.shape[0], rows, interlace=1)


def huge(form: str) -> bytes:
    """A picture whose header claims at least 30,000 × 30,000 pixels."""
    if form == "PNG":
        return png(30_000, 30_000, bytes(9))
    content = bytearray(encode(PICTURE, form))
    if form == "JPEG":
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    elif form == "BMP":
        content[18:26] = struct.pack("<ii", 40_000, 40_000)
    else:  # WebP's extended header: 24 bits for each side less one
        sides = (16_000).to_bytes(3, "little") * 2
        body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides + bytes(content[12:])
        content = bytearray(b"RIFF" + struct.pack("<I", len(body)) + body)
    return bytes(content)


def zoo() -> dict[str, tuple[bytes, str | None]]:
    """File name -> (content, why it is rejected; None for a picture)."""
    jpeg, as_png, webp, bmp = (encode(PICTURE, form) for form in ("JPEG", "PNG", "WEBP", "BMP"))
    tables = jpeg.index(b"\xff\xc4")
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    packed = zlib.compress(bytes(100 * 2**20))
    frames = [PICTURE, PICTURE.transpose(Image.Transpose.ROTATE_180)]
    pictures = {
        "photo.jpg": jpeg,
        "photo.JPEG": jpeg,
        "progressive.jpg": encode(PICTURE, "JPEG", progressive=True),
        "trailing garbage.jpg": jpeg + b"garbage" * 1000,
        "cmyk.jpg": encode(PICTURE.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(PICTURE.convert("L"), "JPEG"),
        "colour profile.jpg": encode(PICTURE, "JPEG", icc_profile=profile),
        "turned by EXIF.jpg": encode(PICTURE, "JPEG", exif=turned),
        "16 bit.png": encode(Image.fromarray(_X.astype(np.uint16) * 1000), "PNG"),
        "16 bit colour.png": png(
            40, 30, b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS.astype(np.uint16) * 257), depth=16
        ),
        "palette.png": encode(PICTURE.quantize(16), "PNG"),
        "palette with transparency.png": encode(PICTURE.quantize(16), "PNG", transparency=3),
        "rgba.png": encode(PICTURE.convert("RGBA"), "PNG"),
        "grey with alpha.png": encode(PICTURE.convert("LA"), "PNG"),
        "one bit.png": encode(PICTURE.convert("1"), "PNG"),
        "interlaced.png": interlaced(PIXELS),
        "1 x 1.png": encode(Image.new("RGB", (1, 1), "red"), "PNG"),
        "1 x 500.png": encode(Image.new("RGB", (1, 500), "red"), "PNG"),
        "more pixels than it says.png": png(4, 4, bytes(50 * 2**20)),
        "really a png.jpg": as_png,
        "unicode 猫 ü.png": as_png,
        "  blanks  .png": as_png,
        "a\nnew line.png": as_png,
        "quote'\"<b>.png": as_png,
        "animated.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "transparent.webp": encode(PICTURE.convert("RGBA"), "WEBP", lossless=True),
        "upside down.bmp": bmp,
        "palette.bmp": encode(PICTURE.quantize(16), "BMP"),
    }
    rejected = {
        "zero bytes.jpg": (b"", "is empty"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "not a picture"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        "postscript.jpg": (encode(PICTURE, "EPS"), "not a picture"),
        "icon.png": (encode(PICTURE, "ICO"), "not a picture"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded"),
        "truncated.png": (as_png[: len(as_png) // 2], "cannot be decoded|not a picture"),
        "truncated.webp": (webp[: len(webp) // 2], "cannot be decoded|not a picture"),
        "truncated.bmp": (bmp[: len(bmp) // 2], "cannot be decoded"),
        "header only.jpg": (jpeg[:20], "cannot be decoded|not a picture"),
        "bad huffman table.jpg": (
            jpeg[: tables + 4] + b"\xff" * 60 + jpeg[tables + 64 :],
            "cannot be decoded|not a picture",
        ),
        "bad checksum.png": (as_png[:60] + bytes([as_png[60] ^ 1]) + as_png[61:], "checksum|cannot be decoded"),
        "no size.png": (png(0, 0, b""), "cannot be decoded|not a picture"),
        "animated.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "--extra-formats gif"),
        "scan.tif": (encode(PICTURE, "TIFF"), "--extra-formats tiff"),
        "a tiff.jpg": (encode(PICTURE, "TIFF"), "--extra-formats tiff"),
        "text bomb.png": (png(4, 4, bytes(52), extra=chunk(b"zTXt", b"bomb\0\0" + packed)), "cannot be decoded"),
        "profile bomb.png": (png(4, 4, bytes(52), extra=chunk(b"iCCP", b"bomb\0\0" + packed)), "cannot be decoded"),
        "huge.jpg": (huge("JPEG"), "pixels"),
        "huge.png": (huge("PNG"), "pixels"),
        "huge.webp": (huge("WEBP"), "pixels|cannot be decoded"),
        "huge.bmp": (huge("BMP"), "pixels"),
    }
    return {name: (content, None) for name, content in pictures.items()} | rejected


ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder.jpg": (lambda path: path.mkdir(), "a folder, not a file"),
    "pipe.jpg": (os.mkfifo, "not a regular file"),
    "nowhere.jpg": (lambda path: path.symlink_to("gone.jpg"), "No such file"),
    "loop.jpg": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "device.jpg": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "unreadable.jpg": (lambda path: (path.write_bytes(encode(PICTURE, "JPEG")), path.chmod(0)), "Permission"),
}


def make_zoo(folder: Path) -> dict[str, str | None]:
    """Writes all of it; file name -> why it is rejected."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str | None] = {}
    for name, (content, reason) in zoo().items():
        (folder / name).write_bytes(content)
        expected[name] = reason
    for name, (make, reason) in ODD_FILES.items():
        make(folder / name)
        expected[name] = None if name == "unreadable.jpg" and os.geteuid() == 0 else reason
    bad_name = os.fsencode(folder) + b"/no utf-8 \xff.png"
    try:
        Path(os.fsdecode(bad_name)).write_bytes(encode(PICTURE, "PNG"))
        expected["no utf-8 \\xff.png"] = None
    except OSError:  # file systems that know Unicode names only
        pass
    return expected


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    folder = tmp_path_factory.mktemp("zoo") / "ein Zoo – 猫"
    return folder, make_zoo(folder)


def shown(name: str) -> str:
    return name.replace("\n", "\\x0a")


def test_every_file_of_the_zoo_is_a_picture_or_a_named_rejection(animals):
    """Truncated JPEG and PNG, zero bytes, HTML, a bad Huffman table, CMYK, 16 bit, palettes, RGBA, 1 × 1, EXIF rotation, animated
    GIF, unicode and blanks in the path, symlink loop, unreadable file, and more."""
    folder, expected = animals
    source = open_source(folder, image_size=16, max_broken=1.0)
    reasons = dict(line.split(": ", 1) for line in source.broken)
    assert set(reasons) == {shown(name) for name, reason in expected.items() if reason is not None}
    for name, reason in expected.items():
        if reason is not None:
            assert re.search(reason, reasons[shown(name)]), (name, reasons[shown(name)])
    assert len(source) == sum(reason is None for reason in expected.values())
    assert len(expected) > 50
    assert all(line.isprintable() for line in source.broken)


def test_the_pictures_of_the_zoo_show_what_they_should(animals):
    """What is not lossy, grey or turned gives the pixels that went in."""
    folder, expected = animals
    names = sorted(shown(name) for name, reason in expected.items() if reason is None)
    source = open_source(folder, image_size=30, max_broken=1.0)
    middle = PIXELS[:, 5:35].transpose(2, 0, 1)
    exact = [
        "interlaced.png",
        "16 bit colour.png",
        "really a png.jpg",
        "rgba.png",
        "transparent.webp",
        "upside down.bmp",
        "a\\x0anew line.png",
    ]
    images = dict(zip(names, source.images.numpy(), strict=True))
    for name in exact:
        assert np.array_equal(images[name], middle), name
    for name in ("photo.jpg", "progressive.jpg", "trailing garbage.jpg", "cmyk.jpg", "colour profile.jpg"):
        assert np.abs(images[name].astype(int) - middle).mean() < 6, name


def test_gif_and_tiff_are_read_when_asked_for(animals):
    """Formats are restricted to JPEG, PNG, WebP and BMP; TIFF and GIF by option."""
    folder, expected = animals
    plain = open_source(folder, image_size=16, max_broken=1.0)
    more = open_source(folder, image_size=16, max_broken=1.0, extra_formats=("gif", "tiff"))
    assert len(more) == len(plain) + sum("--extra-formats" in (reason or "") for reason in expected.values())


def test_the_run_goes_on_under_the_stated_share_of_broken_files_and_stops_above_it(animals):
    folder, expected = animals
    broken = sum(reason is not None for reason in expected.values())
    share = broken / len(expected)
    assert len(open_source(folder, image_size=8, max_broken=share + 1e-6).broken) == broken
    with pytest.raises(DataError, match=rf"of {len(expected)} pictures .* are broken, over .*--max-broken"):
        open_source(folder, image_size=8, max_broken=share - 1e-3)


def test_a_socket_in_a_folder_is_no_picture(tmp_path: Path):
    (tmp_path / "good.png").write_bytes(encode(PICTURE, "PNG"))
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the name of a socket must be short
        try:
            server.bind("s.jpg")
        finally:
            os.chdir(here)
        assert open_source(tmp_path, image_size=8, max_broken=0.5).broken == ("s.jpg: not a regular file",)


def test_files_that_change_between_listing_and_reading_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Removed, cut short, grown beyond the limit, or replaced by a pipe after the folder was listed."""
    for name in ("cut", "good", "gone", "grown", "pipe"):
        (tmp_path / f"{name}.png").write_bytes(encode(PICTURE, "PNG"))
    part_of = folders_module.part_of

    def changed(*arguments):
        part = part_of(*arguments)
        (tmp_path / "gone.png").unlink()
        os.truncate(tmp_path / "cut.png", 60)
        os.truncate(tmp_path / "grown.png", 2**30)  # a hole: it takes no room
        (tmp_path / "pipe.png").unlink()
        os.mkfifo(tmp_path / "pipe.png")
        return part

    monkeypatch.setattr(folders_module, "part_of", changed)
    source = open_source(tmp_path, image_size=8, max_broken=0.9)
    assert [line.split(".png")[0] for line in source.broken] == ["cut", "gone", "grown", "pipe"]
    assert len(source) == 1


def test_data_check_lists_the_zoo_without_training(animals, capsys: pytest.CaptureFixture[str]):
    """`pretint data check` counts and names every broken file, and its exit code tells whether the share is above --max-broken."""
    folder, expected = animals
    assert main(["data", "check", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    names = {shown(name) for name, reason in expected.items() if reason is not None}
    assert {line.split(": ", 1)[0] for line in found["splits"]["train"]["broken"]} == names
    assert found["splits"]["train"]["pictures"] == len(expected) - len(names)
    assert main(["data", "check", str(folder), "--max-broken", "0.9"]) == 0
    assert "\x1b" not in capsys.readouterr().out
