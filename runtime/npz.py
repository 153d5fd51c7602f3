"""How is an .npz file read, so that a damaged or hostile one neither runs code nor fills the memory?"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# What numpy and zipfile raise on damaged bytes.
NPZ_DAMAGE = (
    OSError, ValueError, KeyError, EOFError, MemoryError, OverflowError, NotImplementedError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Pictures hardly compress: an array that unpacks to more than this many bytes, and this many times its packed size, is a bomb.
_BOMB_BYTES, _BOMB_RATIO = 2**28, 200


@contextmanager
def open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of an .npz, each read when it is asked for. Object arrays, which are pickles, are refused.

    Before anything is read, what the headers claim is compared with what is there, since numpy sets aside as much memory as they
    claim.

    Raises:
        one of NPZ_DAMAGE: it is damaged, claims more than it holds, or unpacks to far more than pictures could.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # numpy takes other files for a single array, or for a pickle
            raise ValueError("it is no zip file")
    _check_sizes(path)
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays


def _check_sizes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * info.compress_size):
                raise ValueError(f"{info.filename} unpacks to {info.file_size} bytes, as no array of pictures does")
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
                claimed = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize + member.tell()
                if not dtype.hasobject and claimed != info.file_size:
                    raise ValueError(f"{info.filename} claims {claimed} bytes and has {info.file_size}")
