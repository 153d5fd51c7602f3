"""How do pictures that stay in files serve as an image source? Read batch by batch, with memory that does not grow with them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from .copies import Arrival, Copies
from .selections import Ids, LazyIds
from .tensors import ImageSource, TensorSource, fits, host_batch

_AHEAD = 2
_CHUNK = 4096


@runtime_checkable
class Reader(Protocol):
    """Pictures in files, by row 0 … n − 1.

    `image_size` is their side in pixels, `decoded` whether they lie there as uint8 and need no decoding, and `broken` lists the
    files that could not be read so far as "name: reason".
    """

    @property
    def image_size(self) -> int: ...
    @property
    def decoded(self) -> bool: ...
    @property
    def broken(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...
    def read(self, rows: Tensor, out: Tensor) -> None: ...


class StreamedSource:
    """Pictures of a :class:`Reader`, by the contract of every image source.

    Args:
        reader: where the pictures are.
        labels: int64 (n,), or None; may be a memory map, since only parts of it are read.
        class_names: one name per class number, or None.
        name, split: what messages and model cards call this data.
        fingerprints: with its labels and without.
    """

    streams = True  # batches of it are read ahead

    def __init__(
        self,
        reader: Reader,
        labels: Int64[Tensor, " n"] | None,
        class_names: tuple[str, ...] | None,
        *,
        name: str,
        split: str,
        fingerprints: tuple[str, str],
    ):
        self._reader, self._labels, self.class_names = reader, labels, class_names
        self.name, self.split, self._fingerprints = name, split, fingerprints
        self._rows: Ids | None = None
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self._reader) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        classes = "no labels" if self._labels is None else f"{len(self.class_names or ()) or 'unnamed'} classes"
        return f"StreamedSource({self.name!r}, {self.split!r}: {len(self)} pictures of {self.image_size} px, {classes})"

    @property
    def image_size(self) -> int:
        """Side of every picture, in pixels."""
        return self._reader.image_size

    @property
    def decoded(self) -> bool:
        """Whether pictures lie in their files as they are given, so that all broken ones are known."""
        return self._reader.decoded

    @property
    def broken(self) -> tuple[str, ...]:
        """The files that could not be read; where reading is decoding, those met so far."""
        return self._reader.broken

    @property
    def labels(self) -> Int64[Tensor, " n"] | None:
        """Class numbers (n,) on `device`, or None; of a view they are gathered anew each time."""
        if self._labels is None:
            return None
        rows = self._rows[:] if isinstance(self._rows, LazyIds) else self._rows
        return (self._labels if rows is None else self._labels[rows]).to(self.device)

    def labels_of(self, ids: Int64[Tensor, " b"]) -> Int64[Tensor, " b"] | None:
        """The class numbers of these pictures, beside `ids`, or None."""
        return None if self._labels is None else self._labels[self._rows_of(ids)].to(ids.device)

    @property
    def fingerprint(self) -> str:
        """16 hex digits; those of a view tell which pictures it has and in which order."""
        whole = self._fingerprints[0 if self._labels is not None else 1]
        if self._rows is None:
            return whole
        digest = hashlib.sha256(whole.encode())
        for ids in self._rows.split(_CHUNK):
            digest.update(ids.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def _rows_of(self, ids: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        rows = ids.to("cpu")
        return rows if self._rows is None else self._rows[rows]

    def gather(self, ids: Int64[Tensor, " b"], device: torch.device | str | None = None) -> UInt8[Tensor, "b 3 s s"]:
        """The pictures with these ids, on `device` (None: that of the source), read in the order in which they lie."""
        target = self.device if device is None else torch.device(device)
        rows = self._rows_of(ids)
        out = host_batch(len(rows), self.image_size, target)
        if len(rows):
            if not (int(rows.min()) >= 0 and int(rows.max()) < len(self._reader)):
                raise ArgumentError(f"ids: this source has ids 0 to {len(self) - 1}.")
            self._reader.read(rows, out)
        return out.to(target, non_blocking=True)

    def subset(self, ids: Ids) -> StreamedSource:
        """A view of the pictures with these ids, in this order; of lazy ids nothing is stored."""
        rows, inner = ids, self._rows
        if isinstance(ids, Tensor):
            ids = ids.to("cpu")
            if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < len(self)):
                raise ArgumentError(
                    f"ids: between {int(ids.min())} and {int(ids.max())}, but this source has ids 0 to {len(self) - 1}."
                )
            rows = ids if inner is None else inner[ids]
        elif inner is not None:
            rows = LazyIds(len(ids), lambda positions: inner[ids[positions]])
        view = self._like(self._labels)
        view._rows = rows
        return view

    def unlabelled(self) -> StreamedSource:
        """The same pictures without labels."""
        view = self._like(None)
        view.class_names = None
        return view

    def to(self, device: torch.device | str) -> StreamedSource | TensorSource:
        """The same source for computing on `device`; decoded pictures that fit on a GPU move there."""
        device = torch.device(device)
        if device.type == "cuda" and self.decoded and fits(len(self) * 3 * self.image_size**2, device):
            return self._resident(device)
        view = self._like(self._labels)
        view.device = device
        return view

    def _resident(self, device: torch.device) -> TensorSource:
        """All pictures as one tensor on the device; the host holds a chunk of them at a time."""
        images = torch.empty(len(self), 3, self.image_size, self.image_size, dtype=torch.uint8, device=device)
        for start in range(0, len(self), _CHUNK):
            ids = torch.arange(start, min(start + _CHUNK, len(self)))
            images[start : start + len(ids)] = self.gather(ids, device)
        return TensorSource(
            images, self.labels, self.class_names, name=self.name, split=self.split, broken=self.broken,
            fingerprint=self.fingerprint,
        )  # fmt: skip

    def _like(self, labels: Tensor | None) -> StreamedSource:
        view = StreamedSource(
            self._reader, labels, self.class_names, name=self.name, split=self.split, fingerprints=self._fingerprints
        )
        view._rows, view.device = self._rows, self.device
        return view


Fetched = tuple[Tensor, Tensor, Tensor | None]


def gathered(source: ImageSource, id_batches: Iterable[Tensor], device: torch.device | str) -> Iterator[Fetched]:
    """Ids (b,), pictures (b, 3, s, s) and labels (b,) of each batch on `device`.

    Those of a source that streams are read by a thread, two batches ahead, which changes when they are read and never which:
    order and content are those of reading one batch after the other.
    """
    if not getattr(source, "streams", False):
        yield from ((ids, source.gather(ids, device), source.labels_of(ids)) for ids in id_batches)
        return
    copies, pool = Copies(device), ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    under_way = deque[Future[tuple[Fetched, Arrival]]]()
    try:
        for ids in id_batches:
            under_way.append(pool.submit(copies.send, partial(_fetch, source, ids, device)))
            if len(under_way) > _AHEAD:
                yield copies.receive(under_way.popleft().result())
        while under_way:
            yield copies.receive(under_way.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(source: ImageSource, ids: Tensor, device: torch.device | str) -> Fetched:
    labels = source.labels_of(ids)
    moved = None if labels is None else labels.to(device, non_blocking=True)
    return ids.to(device, non_blocking=True), source.gather(ids, device), moved
