"""`pretint data pack`: data is decoded once, into files that training reads as a memory map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from tyro.conf import Positional

from ..data import PackIndex, make_pack
from ..runtime.errors import ArgumentError
from ..runtime.progress import WorkProgress
from ..runtime.runlog import note
from .options import DataOptions, Outcome, positive

_LARGEST_SIZE = 4096
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class PackConfig(DataOptions):
    """Decode data once, for training from a memory map.

    Attributes:
        data: a folder, a .tar(.gz, .xz, .bz2) of a folder, a folder of tar shards, an .npz file, or a data set's name.
        out: the pack's folder; what a stopped run left in it is not decoded again.
        image_size: side in pixels that images are resized and cropped to.
        unlabelled: take images as they are, without classes; for stl10 its 100,000 unlabelled images.
        deduplicate: drop files with the content of another one; a test image stays, its copy in the train split goes.
        workers: processes that decode; one for each core by default.
        shard_mb: about how many MiB each file of images has.
        json: print results as JSON for programs.
    """

    data: Positional[str]
    out: Positional[Path]
    image_size: int = 32
    unlabelled: bool = False
    deduplicate: bool = False
    workers: int | None = None
    shard_mb: int = 64
    json: bool = False

    def __post_init__(self) -> None:
        positive(self, "image_size", "workers", "shard_mb")
        if self.image_size > _LARGEST_SIZE:
            raise ArgumentError(f"--image-size: {self.image_size} must be from 1 to {_LARGEST_SIZE}.")


def pack(config: PackConfig) -> Outcome:
    """Packs all splits of a data set.

    Returns:
        What the pack holds.

    Raises:
        PretintError: bad or unreadable data, too many broken images, no room, or a folder that holds something else.
    """
    with WorkProgress("data pack") as progress:
        index = make_pack(
            config.data,
            config.out,
            image_size=config.image_size,
            root=config.root,
            unlabelled=config.unlabelled,
            deduplicate=config.deduplicate,
            max_broken=config.max_broken,
            extra_formats=config.extra_formats,
            workers=config.workers,
            shard_bytes=config.shard_mb * 2**20,
            progress=progress,
        )
    for split, part in index.splits.items():
        if part.broken:
            note(f"{len(part.broken)} unreadable images were skipped in {index.name} ({split}):")
            for line in part.broken[:_LISTED]:
                note(f"  {line}")
    table = Table("split", "images", "classes", "broken", "duplicates", "files", "GB")
    for split, row in _rows(index).items():
        table.add_row(split, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    size = "" if index.image_size == 32 else f" --image-size {index.image_size}"
    lines = [f"Pack: {config.out}", f"Next: pretint pretrain --data {config.out}{size}"]
    return Outcome({"pack": str(config.out), **asdict(index)}, [table], lines)


def _rows(index: PackIndex) -> dict[str, dict[str, int | float | str]]:
    return {
        split: {
            "images": part.pictures,
            "classes": len(index.class_names or ()) or "unnamed" if part.labels_sha256 else "–",
            "broken": len(part.broken),
            "duplicates": part.duplicates,
            "files": len(part.shards),
            "GB": part.pictures * 3 * index.image_size**2 / 1e9,
        }
        for split, part in index.splits.items()
    }
