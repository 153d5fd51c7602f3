"""Where do pictures come from? One function opens a named data set, a folder, an archive or an array file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ..runtime.errors import ArgumentError, DataError, UnknownNameError
from .arrays import array_splits, read_arrays
from .binaries import BINARY_SPECS, read_binary
from .downloads import cache_root
from .folders import is_tar, list_files, read_files
from .images import check_extra_formats
from .layout import splits_of
from .pack_index import is_pack
from .packs import open_pack, pack_splits
from .reading import check_max_broken
from .shard_reading import open_shards
from .shards import find_shards
from .streams import StreamedSource
from .tensors import ImageSource, TensorSource, concatenate
from .toy import make_toy

SOURCES = ("toy", *BINARY_SPECS)
SPLITS = ("train", "test", "all")

Opener = Callable[..., ImageSource]
_registered: dict[str, tuple[Opener, tuple[str, ...]]] = {}


def open_source(
    spec: str | Path,
    split: str = "train",
    root: Path | None = None,
    *,
    image_size: int = 32,
    unlabelled: bool = False,
    max_broken: float = 0.01,
    extra_formats: Collection[str] = (),
    toy_size: int | None = None,
    seed: int = 0,
) -> ImageSource:
    """Open pictures by name or path, resized and cropped to `image_size`: once, as one uint8 tensor, unless they stay in files.

    Those of a pack are read from its files as they are wanted, and those of a folder of tar shards decoded too.

    Args:
        spec: "toy", "cifar10", "cifar100", "stl10", a registered name, or the path of a folder, of a .tar / .tar.gz /
            .tar.xz of such a folder, of an .npz, of a pack, or of a folder of tar shards. A name goes before a path: write
            ./toy for a folder that is called so.
        split: "train", "test" or "all" (the splits there are, one after the other). Folders: sub-folders train/ and
            test/ (or val/) are the splits, else all is "train".
        root: where downloads, the indices of tar shards, and which packs were found whole are kept (see :func:`cache_root`).
        image_size: side in pixels.
        unlabelled: leave labels out; a folder may then have any shape, and stl10's "train" is its 100,000 unlabelled
            pictures.
        max_broken: the share of broken files at which reading goes on; they are listed in `broken`.
        extra_formats: "gif" or "tiff": read such pictures too, which are else counted as broken. A pack has those that it was
            made with.
        toy_size: pictures in the toy's train split (its test split has a fifth of them).
        seed: of the toy, and given to registered sources.

    Raises:
        UnknownNameError: neither a name nor a path that exists, or no such split or extra format.
        DataError: missing, empty or damaged data, no such split in it, too many broken files, or a pack of another size.
        ArgumentError: a size below 1, or `max_broken` outside [0, 1].

    >>> open_source("toy", "test", toy_size=50)
    TensorSource('toy', 'test': 10 pictures of 32 px, 10 classes)
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if image_size < 1:
        raise ArgumentError(f"image_size: got {image_size}; a picture has at least 1 pixel a side.")
    check_max_broken(max_broken)
    check_extra_formats(extra_formats)
    name, path = resolve(spec)
    if name in _registered:
        source = _registered[name][0](split, image_size=image_size, root=cache_root(root), seed=seed)
        return source.unlabelled() if unlabelled and isinstance(source, TensorSource | StreamedSource) else source

    if path is not None and path.is_dir():
        splits = available_splits(spec, root) if split == "all" else (split,)
        if is_pack(path):
            return open_pack(
                path, splits, split, image_size,
                unlabelled=unlabelled, max_broken=max_broken, cache=cache_root(root) / "packs",
            )  # fmt: skip
        if find_shards(path):
            return open_shards(
                path, splits, split, image_size,
                unlabelled=unlabelled, max_broken=max_broken, extra_formats=extra_formats, root=root,
            )  # fmt: skip

    def one(which: str) -> TensorSource:
        if name == "toy":
            return _open_toy(which, toy_size, seed, image_size, unlabelled)
        if name is not None:
            return _open_binary(name, which, root, image_size, unlabelled)
        assert path is not None
        if path.suffix.lower() == ".npz":
            return read_arrays(path, which, image_size, unlabelled=unlabelled)
        return read_files(
            path, which, image_size, unlabelled=unlabelled, max_broken=max_broken, extra_formats=extra_formats
        )

    if split != "all":
        return one(split)
    return concatenate([one(which) for which in available_splits(spec, root)], "all")


def available_splits(spec: str | Path, root: Path | None = None) -> tuple[str, ...]:
    """Which of "train" and "test" there are; no picture is decoded (a compressed archive is read through once).

    >>> available_splits("toy")
    ('train', 'test')

    Raises:
        UnknownNameError, DataError: as :func:`open_source`.
    """
    name, path = resolve(spec)
    if name in _registered:
        return _registered[name][1]
    if name is not None:
        return ("train", "test")
    assert path is not None
    if path.is_dir() and is_pack(path):
        return pack_splits(path)
    if path.is_dir() and (shards := find_shards(path)):
        return tuple(shards)
    return array_splits(path) if path.suffix.lower() == ".npz" else tuple(splits_of(list_files(path)))


def register_source(name: str, opener: Opener, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Make a source of one's own known to :func:`open_source` and every verb.

    Args:
        name: how it is asked for.
        opener: called as opener(split, image_size=…, root=…, seed=…); returns an ImageSource, such as a TensorSource.
        splits: which of "train" and "test" it has.

    Raises:
        ArgumentError: the name belongs to a built-in source.
    """
    if name in SOURCES:
        raise ArgumentError(f"name: {name!r} is a built-in source; choose another name.")
    _registered[name] = (opener, tuple(splits))


def source_names() -> tuple[str, ...]:
    """All names that :func:`open_source` knows: the built-in ones, then the registered ones."""
    return (*SOURCES, *_registered)


def resolve(spec: str | Path) -> tuple[str | None, Path | None]:
    """A known name, or a path that exists and is of a kind that can be read.

    Raises:
        UnknownNameError, DataError: it is neither.
    """
    if str(spec) in source_names() and not isinstance(spec, Path):
        return str(spec), None
    path = Path(spec).expanduser()
    # os.path-like checks raise on a NUL byte or an overlong name, which are no paths either.
    try:
        exists = str(spec) != "" and path.exists()  # Path("") is the working folder, which nobody asked for
    except (OSError, ValueError):
        exists = False
    if not exists:
        if isinstance(spec, Path) or "/" in str(spec) or path.suffix:
            raise DataError(
                f"data: the path {str(spec)!r} does not exist; give a folder, .tar or .npz that does, "
                f"or one of {', '.join(source_names())}."
            )
        raise UnknownNameError("data (a name, or a path that exists)", str(spec), source_names())
    if not (path.is_dir() or (path.is_file() and (is_tar(path) or path.suffix.lower() == ".npz"))):
        raise DataError(
            f"data: {str(spec)!r} is neither a folder nor a .tar, .tar.gz, .tar.xz, .tar.bz2 or .npz file; "
            "give one of these."
        )
    return None, path


def _open_toy(split: str, toy_size: int | None, seed: int, image_size: int, unlabelled: bool) -> TensorSource:
    n = toy_size if toy_size is None or split == "train" else max(toy_size // 5, 1)
    source = make_toy(split, n, seed, image_size)
    return source.unlabelled() if unlabelled else source


def _open_binary(name: str, split: str, root: Path | None, image_size: int, unlabelled: bool) -> TensorSource:
    spec = BINARY_SPECS[name]
    member = "unlabelled" if unlabelled and split == "train" and "unlabelled" in spec.pictures else split
    source = read_binary(name, spec, member, root, image_size)
    return source.unlabelled() if unlabelled else source
