"""Decompression bombs are refused before they are unpacked: while it refuses, a process grows by less than 100 MB."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from pretint.data import images, inspection, open_source
from pretint.runtime.errors import DataError

# Reads every file of a folder in a process of its own; prints, of each, the refusal and by how much the peak of its memory grew.
_CHILD = """
import json, sys
from pathlib import Path
from pretint.data import decode_image, open_source
from pretint.runtime.errors import PretintError
from pretint.runtime.files import read_json

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

def read(path):
    if path.name.endswith(".json"):
        return read_json(path)
    if path.name.endswith((".tar.gz", ".tar.xz", ".npz")):
        return open_source(path, image_size=8)
    return decode_image(path, 32, extra_formats=("gif", "tiff"))

found = {}
for path in [sorted(Path(sys.argv[1]).iterdir())[0], *sorted(Path(sys.argv[1]).iterdir())]:  # the first also warms up
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        read(path)
        outcome = ""
    except PretintError as error:
        outcome = str(error)
    found[path.name] = (outcome, peak() - before)
print(json.dumps(found))
"""


def _zeros_npz(path: Path, shape: tuple[int, ...]) -> None:
    """An array of zeros as an .npz, without ever holding it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(int(np.prod(shape)) // 2**20):
            member.write(bytes(2**20))


def _tar_bomb(path: Path, gigabytes: float) -> None:
    """A member of zeros, gzipped twice as quickly as it could be: what is packed is one block, repeated."""
    info = tarfile.TarInfo("cat/zeros.bin")
    info.size = int(gigabytes * 2**30)
    block = gzip.compress(bytes(2**26), 1)
    with path.open("wb") as file:
        file.write(gzip.compress(info.tobuf()))
        for _ in range(info.size // 2**26 + 1):
            file.write(block)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
def test_memory_grows_by_less_than_100_mb_while_bombs_are_refused(tmp_path: Path):
    """Decompression bombs are refused before decoding: pictures, archives, arrays, and JSON of a hundred megabytes."""
    huge = _headers()
    for name, content in huge.items():
        (tmp_path / name).write_bytes(content)
    _zeros_npz(tmp_path / "zeros.npz", (600, 1024, 1024, 1))
    _tar_bomb(tmp_path / "zeros.tar.gz", 1.5)
    with tarfile.open(tmp_path / "nested.tar.xz", "w:xz", preset=0) as tar:
        inner = gzip.compress(bytes(2**27), 1)
        for name in ("cat/inner.tar.gz", "cat/inner.png"):
            info = tarfile.TarInfo(name)
            info.size = len(inner)
            tar.addfile(info, io.BytesIO(inner))
    (tmp_path / "strings.json").write_bytes(b'{"task": "' + b"x" * 100 * 2**20 + b'"}')
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert set(found) == {path.name for path in tmp_path.iterdir()}
    for name, (refusal, grown) in found.items():
        assert refusal, name
        assert grown < 100, (name, grown)
    assert "unpacks to" in found["zeros.npz"][0]
    assert "unpacks to more than" in found["zeros.tar.gz"][0]
    assert "over the limit" in found["strings.json"][0]


def _headers() -> dict[str, bytes]:
    """Pictures whose header claims more than they hold."""
    from PIL import Image

    made: dict[str, bytes] = {}
    for form, suffix in (("JPEG", "jpg"), ("BMP", "bmp"), ("GIF", "gif"), ("TIFF", "tif")):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), "red").save(buffer, form)
        made[f"huge.{suffix}"] = buffer.getvalue()

    def edit(name: str, start: int, content: bytes) -> None:
        made[name] = made[name][:start] + content + made[name][start + len(content) :]

    edit("huge.jpg", made["huge.jpg"].index(b"\xff\xc0") + 5, b"\xff\xdc\xff\xdc")
    edit("huge.bmp", 18, (40_000).to_bytes(4, "little") * 2)
    edit("huge.gif", 6, b"\xff\xff\xff\xff")
    for tag in (256, 257):  # width and height
        head = tag.to_bytes(2, "little")
        entry = max(made["huge.tif"].find(head + kind + b"\0\1\0\0\0") for kind in (b"\3", b"\4"))
        assert entry > 0
        edit("huge.tif", entry + 8, (65_000).to_bytes(4, "little"))
    sides = (16_000).to_bytes(3, "little") * 2
    webp = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(webp, "WEBP")
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + sides + webp.getvalue()[12:]
    made["huge.webp"] = b"RIFF" + len(body).to_bytes(4, "little") + body

    def png(width: int, height: int, extra: tuple[bytes, bytes] | None, pixels: bytes) -> bytes:
        header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
        parts = [(b"IHDR", header), *([extra] if extra else []), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
        chunks = (len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4) for kind, body in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    packed = b"bomb\0\0" + zlib.compress(bytes(200 * 2**20))
    return made | {
        "huge.png": png(30_000, 30_000, None, bytes(9)),
        "under pillow's limit.png": png(8_000, 8_000, None, bytes(9)),
        "text.png": png(4, 4, (b"zTXt", packed), bytes(52)),
        "profile.png": png(4, 4, (b"iCCP", packed), bytes(52)),
    }


def test_pillows_own_warning_of_a_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """The warning turned into an error refuses what our own limit, were it higher, would let through."""
    content = _headers()["under pillow's limit.png"]
    monkeypatch.setattr(
        images.Image, "MAX_IMAGE_PIXELS", 40_000_000
    )  # it warns from here, and raises from twice as much
    with pytest.raises(images.BrokenImageError, match="pixels"):
        images.decode_image(content, 32, max_pixels=10**9)


def test_an_honest_archive_that_packs_well_is_no_bomb(tmp_path: Path):
    """Flat pictures pack a hundredfold; only what is large and packs as pictures can't is refused."""
    np.savez_compressed(tmp_path / "flat.npz", images=np.full((50, 64, 64, 3), 200, np.uint8))
    assert len(open_source(tmp_path / "flat.npz", image_size=8)) == 50
    assert len(inspection.inspect_data(str(tmp_path / "flat.npz"))[0].pictures) == 50


def test_a_bomb_among_the_arrays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pretint.runtime import npz

    monkeypatch.setattr(npz, "_BOMB_BYTES", 2**20)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8), extra=np.zeros(2**21, np.uint8))
    with pytest.raises(DataError, match=r"extra\.npy unpacks to"):
        open_source(tmp_path / "x.npz")
