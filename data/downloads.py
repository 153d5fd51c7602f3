"""Where are downloaded archives kept, how are they fetched, and how is a damaged one noticed?"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import DataError
from ..runtime.processes import main_first

_CHUNK = 2**20


@dataclass(frozen=True)
class ArchiveSpec:
    """An archive on the network: its file name, address, and MD5 (the checksum its publishers and torchvision give)."""

    filename: str
    url: str
    md5: str


def cache_root(root: Path | None = None) -> Path:
    """The folder of downloaded archives: `root`, else the variable PRETINT_DATA, else pretint/ in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("PRETINT_DATA"):
        return Path(os.environ["PRETINT_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "pretint"


def fetch(spec: ArchiveSpec, root: Path | None) -> Path:
    """The path of the checked archive; downloaded first if it is not in the cache folder.

    A download goes to a temporary folder beside its place and is moved there when its checksum is right, so that an
    interrupted one leaves nothing that could be taken for the archive.

    Raises:
        DataError: it is not there and cannot be downloaded, or its checksum is wrong.
    """
    with main_first():
        return _fetch(spec, cache_root(root))


def _fetch(spec: ArchiveSpec, folder: Path) -> Path:
    path = folder / spec.filename
    try:
        if not path.is_file():
            _download(spec, folder)
            return path  # the checksum was right before it was moved here
        found = _md5(path)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"data: the file {spec.filename} is needed and could not be downloaded ({_short(error)}); "
            f"fetch {spec.url} and put it into {str(folder)!r} (or choose that folder with --root or PRETINT_DATA)."
        ) from error
    if found != spec.md5:
        raise DataError(
            f"data: {str(path)!r} is damaged (MD5 {found}, needed {spec.md5}); "
            f"delete it, and it will be downloaded from {spec.url}."
        )
    return path


def _download(spec: ArchiveSpec, folder: Path) -> None:
    # torchvision is slow to import, and needed only here.
    from torchvision.datasets.utils import download_url

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{spec.filename}.", dir=folder) as temporary:
        download_url(spec.url, temporary, spec.filename, spec.md5)
        os.replace(Path(temporary) / spec.filename, folder / spec.filename)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
