"""How are CIFAR-10, CIFAR-100 and STL-10 read straight out of their binary archives, without unpacking or unpickling?

Formats: Krizhevsky 2009, "Learning multiple layers of features from tiny images"
(https://www.cs.toronto.edu/~kriz/cifar.html, "binary version": label bytes, then 1,024 red, green and blue bytes row by
row); Coates, Ng & Lee 2011, "An analysis of single-layer networks" (https://cs.stanford.edu/~acoates/stl10/: 96 x 96
pictures, planes of red, green, blue in column-major order, labels from 1).
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from ..runtime.errors import DataError
from .downloads import ArchiveSpec, fetch
from .images import fit_pictures
from .tensors import TensorSource

_CHUNK = 2048
_MAX_NAMES_BYTES = 2**16
_DAMAGE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError)


@dataclass(frozen=True)
class BinarySpec:
    """A data set in binary form.

    Args:
        archive: the file it comes in.
        pictures: per split, the members with the pictures, in order.
        labels: per split, the member with the labels where they lie apart; "" where there are none.
        names: the member with the class names, one per line.
        label_bytes: bytes before every picture; the last one is its class.
        side: of the stored pictures, in pixels.
        column_major: planes are stored column by column.
        first_label: the number of the first class in the file.
    """

    archive: ArchiveSpec
    pictures: dict[str, tuple[str, ...]]
    names: str
    labels: dict[str, str] | None = None
    label_bytes: int = 0
    side: int = 32
    column_major: bool = False
    first_label: int = 0


CIFAR10 = BinarySpec(
    ArchiveSpec(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    {
        "train": tuple(f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6)),
        "test": ("cifar-10-batches-bin/test_batch.bin",),
    },
    names="cifar-10-batches-bin/batches.meta.txt",
    label_bytes=1,
)
CIFAR100 = BinarySpec(
    ArchiveSpec(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
    {"train": ("cifar-100-binary/train.bin",), "test": ("cifar-100-binary/test.bin",)},
    names="cifar-100-binary/fine_label_names.txt",
    label_bytes=2,  # the coarse class, then the fine one
)
STL10 = BinarySpec(
    ArchiveSpec(
        "stl10_binary.tar.gz",
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "91f7769df0f17e558f3565bffb0c7dfb",
    ),
    {
        "train": ("stl10_binary/train_X.bin",),
        "test": ("stl10_binary/test_X.bin",),
        "unlabelled": ("stl10_binary/unlabeled_X.bin",),
    },
    names="stl10_binary/class_names.txt",
    labels={"train": "stl10_binary/train_y.bin", "test": "stl10_binary/test_y.bin"},
    side=96,
    column_major=True,
    first_label=1,
)
BINARY_SPECS = {"cifar10": CIFAR10, "cifar100": CIFAR100, "stl10": STL10}


def read_binary(name: str, spec: BinarySpec, split: str, root: Path | None, size: int) -> TensorSource:
    """One split ("train", "test", STL-10's "unlabelled") of a binary archive, resized to `size`, in one pass.

    Raises:
        DataError: the archive is missing, its checksum is wrong, or it does not hold what it should.
    """
    path = fetch(spec.archive, root)
    label_member = (spec.labels or {}).get(split, "")
    wanted = {*spec.pictures[split], spec.names} | ({label_member} if label_member else set())
    pictures: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    class_names: tuple[str, ...] = ()
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member, stream in _members(tar, wanted):
                if member == spec.names:
                    class_names = tuple(stream.read(_MAX_NAMES_BYTES).decode("ascii").split())
                elif member == label_member:
                    labels[member] = torch.frombuffer(bytearray(stream.read()), dtype=torch.uint8)
                else:
                    pictures[member], labels[member] = _read_records(stream, spec, size)
    except _DAMAGE as error:
        raise DataError(
            f"data: {str(path)!r} is damaged ({error}); delete it, and it will be downloaded again."
        ) from error
    parts = spec.pictures[split]
    images = torch.cat([pictures.pop(member) for member in parts])
    numbers = torch.cat([labels[member] for member in ((label_member,) if label_member else parts)])
    if split == "unlabelled":
        return TensorSource(images, None, None, name=name, split="train")
    return TensorSource(images, numbers.long() - spec.first_label, class_names, name=name, split=split)


def _members(tar: tarfile.TarFile, wanted: set[str]) -> Iterator[tuple[str, io.BufferedIOBase]]:
    """The wanted plain files, by exactly the expected names, in the order in which they lie in the archive."""
    missing = set(wanted)
    for member in tar:
        stream = tar.extractfile(member) if member.isreg() and member.name in missing else None
        if isinstance(stream, io.BufferedIOBase):
            missing.discard(member.name)
            yield member.name, stream
        if not missing:
            return
    raise ValueError(f"it holds no {sorted(missing)[0]}")


def _read_records(
    stream: io.BufferedIOBase, spec: BinarySpec, size: int
) -> tuple[UInt8[Tensor, "n 3 size size"], UInt8[Tensor, " n"]]:
    """All pictures of one member, resized chunk by chunk, and the class of each (0 where labels lie apart)."""
    record = spec.label_bytes + 3 * spec.side**2
    images, labels = [], []
    while block := stream.read(record * _CHUNK):
        if len(block) % record:
            raise ValueError("a file of pictures ends inside a picture")
        rows = torch.frombuffer(bytearray(block), dtype=torch.uint8).view(-1, record)  # (b, label bytes + 3·s·s)
        pictures = rows[:, spec.label_bytes :].reshape(-1, 3, spec.side, spec.side)
        if spec.column_major:
            pictures = pictures.transpose(2, 3)
        images.append(fit_pictures(pictures.contiguous(), size))
        labels.append(
            rows[:, spec.label_bytes - 1].clone() if spec.label_bytes else torch.zeros(len(rows), dtype=torch.uint8)
        )
    if not images:
        raise ValueError("a file of pictures is empty")
    return torch.cat(images), torch.cat(labels)
