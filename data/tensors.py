"""What is an image source? Pictures of one size, as one uint8 tensor that lives where the computing happens, if it fits there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from .selections import Ids

_GREY_SAMPLE = 2048
_CHUNK = 4096
_GPU_SHARE = 0.5


@runtime_checkable
class ImageSource(Protocol):
    """The contract of everything that training and evaluation read pictures from.

    Ids are positions 0 … len(source) − 1. `labels` and `class_names` are None where the data has none; `broken` lists
    the skipped files as "name: reason"; `fingerprint` says what the data is: equal content, equal fingerprint.
    """

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def broken(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...
    def labels_of(self, ids: Tensor) -> Tensor | None: ...
    def gather(self, ids: Tensor, device: torch.device | str | None = None) -> Tensor: ...
    def subset(self, ids: Ids) -> ImageSource: ...
    def to(self, device: torch.device | str) -> ImageSource: ...


class TensorSource:
    """Pictures held as one uint8 tensor; :meth:`subset` gives views that share its memory.

    Args:
        images: uint8 RGB (n, 3, s, s).
        labels: int64 (n,), class numbers from 0, or None.
        class_names: one name per class number, or None.
        name, split: what messages and model cards call this data.
        broken: files that were skipped on reading, each as "name: reason".
        fingerprint: if it is known already.

    Raises:
        ArgumentError: the tensors do not fit each other, or are of another kind than said above.

    >>> source = TensorSource(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    >>> len(source), source.image_size, source.subset(torch.tensor([1, 3])).labels.tolist()
    (4, 8, [1, 1])
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        class_names: tuple[str, ...] | None = None,
        *,
        name: str = "images",
        split: str = "train",
        broken: tuple[str, ...] = (),
        fingerprint: str | None = None,
    ):
        _check_images(images)
        if labels is not None:
            labels = _checked_labels(labels, images, class_names)
        self._images, self._labels, self._rows = images, labels, None
        self.device = images.device
        self.class_names = tuple(class_names) if class_names is not None else None
        self.name, self.split, self.broken = name, split, tuple(broken)
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._images) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        classes = "no labels" if self._labels is None else f"{len(self.class_names or ()) or 'unnamed'} classes"
        return f"TensorSource({self.name!r}, {self.split!r}: {len(self)} pictures of {self.image_size} px, {classes})"

    @property
    def image_size(self) -> int:
        """Side of every picture, in pixels."""
        return self._images.shape[-1]

    @property
    def streams(self) -> bool:
        """Whether batches are read ahead: the pictures did not fit on `device`, where they are wanted."""
        return self.device != self._images.device

    @property
    def images(self) -> UInt8[Tensor, "n 3 s s"]:
        """All pictures (n, 3, s, s): the tensor itself, or, of a subset, a copy of its part."""
        return self._images if self._rows is None else self._images.index_select(0, self._rows)

    @property
    def labels(self) -> Int64[Tensor, " n"] | None:
        """Class numbers (n,) on `device`, or None."""
        if self._labels is None:
            return None
        return (self._labels if self._rows is None else self._labels[self._rows]).to(self.device)

    def labels_of(self, ids: Int64[Tensor, " b"]) -> Int64[Tensor, " b"] | None:
        """The class numbers of these pictures, on the device of `ids`, or None."""
        if self._labels is None:
            return None
        return self._labels[self._rows_of(ids)].to(ids.device)

    def _rows_of(self, ids: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """Where pictures lie in the tensor, as numbers beside it."""
        home = self._images.device
        # a copy from a GPU to here must be waited for: rows that have not arrived yet would be read
        rows = ids.to(home, non_blocking=home.type == "cuda")
        return rows if self._rows is None else self._rows.index_select(0, rows)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of size, pictures and labels; computed when first asked for, then kept."""
        if self._fingerprint is None:
            ids = torch.arange(len(self))
            parts = (self.gather(part, "cpu") for part in ids.split(_CHUNK))
            self._fingerprint = content_fingerprints(parts, len(self), self.labels_of(ids))[0]
        return self._fingerprint

    def gather(self, ids: Int64[Tensor, " b"], device: torch.device | str | None = None) -> UInt8[Tensor, "b 3 s s"]:
        """The pictures with these ids, on `device` (None: that of the source)."""
        target, rows = self.device if device is None else torch.device(device), self._rows_of(ids)
        if not self.streams:
            pictures = self._images.index_select(0, rows)
        else:
            pictures = torch.index_select(self._images, 0, rows, out=host_batch(len(rows), self.image_size, target))
        # a copy to the host that nobody waited for would be read before it has arrived
        return pictures.to(target, non_blocking=target.type == "cuda")

    def subset(self, ids: Ids) -> TensorSource:
        """A view of the pictures with these ids (m,), in this order, without a copy; its own ids count from 0 again."""
        rows = (ids if isinstance(ids, Tensor) else ids[:]).to(self._images.device)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise ArgumentError(
                f"ids: between {int(rows.min())} and {int(rows.max())}, but this source has ids 0 to {len(self) - 1}."
            )
        return self._like(self._images, self._labels, rows if self._rows is None else self._rows[rows])

    def unlabelled(self) -> TensorSource:
        """The same pictures without labels."""
        view = self._like(self._images, None, self._rows)
        view.class_names = None
        return view

    def to(self, device: torch.device | str) -> TensorSource:
        """The same source for computing on `device`, where pictures and labels move, but for those that do not fit on a GPU: they
        stay, and are copied there batch by batch."""
        device = torch.device(device)
        if device == self.device or (device.type == self.device.type and device.index is None):
            return self
        stay = not fits(self._images.nbytes, device)
        images, labels, rows = (
            tensor if tensor is None or stay else tensor.to(device)
            for tensor in (self._images, self._labels, self._rows)
        )
        assert images is not None
        moved = self._like(images, labels, rows)
        moved.device = device if stay else images.device
        moved._fingerprint = self._fingerprint
        return moved

    def _like(self, images: Tensor, labels: Tensor | None, rows: Tensor | None) -> TensorSource:
        """A source of the same name, split and classes over these tensors."""
        view = TensorSource(images, None, self.class_names, name=self.name, split=self.split, broken=self.broken)
        view._labels, view._rows = labels, rows
        if images is self._images:
            view.device = self.device
        return view


def fits(size: int, device: torch.device) -> bool:
    """Whether pictures of so many bytes may live on a device: on a GPU they may take half of its free memory."""
    return device.type != "cuda" or size <= _GPU_SHARE * torch.cuda.mem_get_info(device)[0]


def host_batch(n: int, side: int, target: torch.device) -> UInt8[Tensor, "n 3 side side"]:
    """Room for a batch's pictures on the way to `target`: page-locked where the copy to a GPU is to run while the processor goes
    on."""
    return torch.empty(n, 3, side, side, dtype=torch.uint8, pin_memory=target.type == "cuda")


def concatenate(sources: list[TensorSource], split: str) -> TensorSource:
    """One source with the pictures of all; labelled when every part is. Class names are those of the first part."""
    if len(sources) == 1:
        only = sources[0]
        return TensorSource(only.images, only.labels, only.class_names, name=only.name, split=split, broken=only.broken)
    parts = [source.labels for source in sources]
    labels = torch.cat([part for part in parts if part is not None]) if all(p is not None for p in parts) else None
    return TensorSource(
        torch.cat([source.images for source in sources]),
        labels,
        sources[0].class_names if labels is not None else None,
        name=sources[0].name,
        split=split,
        broken=tuple(line for source in sources for line in source.broken),
    )


def is_grey(source: ImageSource) -> bool:
    """Whether no picture has any colour: red = green = blue in all pixels of up to 2,048 pictures, evenly spread.

    >>> is_grey(TensorSource(torch.full((3, 3, 8, 8), 7, dtype=torch.uint8)))
    True
    """
    ids = (
        torch.linspace(0, len(source) - 1, min(len(source), _GREY_SAMPLE), dtype=torch.float64).round().to(torch.int64)
    )
    for part in ids.split(256):
        rgb = source.gather(part)
        if not bool((rgb[:, :2] == rgb[:, 1:]).all()):
            return False
    return True


def _check_images(images: Shaped[Tensor, ...]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ArgumentError(
            f"images: got {images.dtype} of shape {tuple(images.shape)}; "
            "needed are uint8 RGB pictures of shape (n, 3, s, s)."
        )


def _checked_labels(labels: Tensor, images: Tensor, class_names: tuple[str, ...] | None) -> Int64[Tensor, " n"]:
    """The labels as int64 beside the pictures, or an ArgumentError that says what does not fit."""
    if labels.ndim != 1 or len(labels) != len(images) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ArgumentError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)} for {len(images)} pictures; "
            "needed is one integer each."
        )
    labels = labels.to(images.device, torch.int64)
    if len(labels):
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0:
            raise ArgumentError(f"labels: the smallest is {lowest}; class numbers start at 0.")
        if class_names is not None and highest >= len(class_names):
            raise ArgumentError(f"labels: the largest is {highest}, but there are {len(class_names)} class names.")
    return labels


def content_fingerprints(
    parts: Iterable[UInt8[Tensor, "_ 3 s s"]], n: int, labels: Int64[Tensor, " n"] | None
) -> tuple[str, str]:
    """The fingerprint of pictures with their labels and without: 16 hex digits of the SHA-256 over shape, pixels and labels.

    Args:
        parts: the pictures in order, some at a time, so that no second copy of all is made.
        n: how many they are.
        labels: class numbers (n,), or None.
    """
    digest = hashlib.sha256()
    for number, part in enumerate(parts):
        if not number:
            digest.update(f"{n} 3 {part.shape[-1]}\n".encode())
        digest.update(part.contiguous().numpy().data)
    labelled = digest.copy()
    if labels is not None:
        labelled.update(b"labels\n")
        labelled.update(labels.cpu().contiguous().numpy().data)
    return labelled.hexdigest()[:16], digest.hexdigest()[:16]
