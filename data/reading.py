"""How are many picture files decoded into one tensor, and what happens to the broken ones?"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, DataError
from ..runtime.words import legible
from .images import BrokenImageError, decode_quietly, pillow_warnings
from .workers import usable_cores

_CHUNK = 64
# Below this size a picture's decoding is mostly Python, where threads only wait for each other (measured: 25 % slower
# at 1 KiB).
_THREADS_FROM_BYTES = 16 * 2**10


@dataclass(frozen=True)
class Job:
    """One picture to decode: the row it goes to, the name to call it by, and its content or path."""

    row: int
    name: str
    content: bytes | Path


@dataclass
class Decoded:
    """The outcome: pictures (n, 3, size, size), which rows hold one (n,), and the broken files as "name: reason"."""

    images: UInt8[Tensor, "n 3 s s"]
    good: Bool[Tensor, " n"]
    broken: list[str]


def check_max_broken(max_broken: float) -> None:
    """Raise an ArgumentError unless `max_broken` is a share."""
    if not 0 <= max_broken <= 1:
        raise ArgumentError(
            f"max_broken: got {max_broken}; the allowed share of broken pictures lies in [0, 1], for example 0.01."
        )


def decode_all(
    jobs: Iterable[Job],
    n: int,
    size: int,
    *,
    where: str,
    max_broken: float,
    refused: tuple[str, ...] = (),
    extra_formats: Collection[str] = (),
) -> Decoded:
    """Decode `n` jobs into one tensor; broken files are skipped and listed.

    Args:
        jobs: in any order; each row once. Read lazily, a few hundred at a time.
        where: what messages call the whole.
        max_broken: the share of broken files at which the run goes on.
        refused: files already found to be unusable; they count as broken.
        extra_formats: "gif" or "tiff", to read these too.

    Raises:
        DataError: more are broken than allowed (raised as soon as that is certain), or none is readable.
    """
    check_max_broken(max_broken)
    total = n + len(refused)
    if not total:
        raise DataError(f"data: {where} holds no picture; needed is at least one JPEG, PNG, WebP or BMP file.")
    decoded = Decoded(torch.zeros(n, 3, size, size, dtype=torch.uint8), torch.zeros(n, dtype=torch.bool), list(refused))
    stop_if_too_broken(decoded.broken, total, where, max_broken)
    with pillow_warnings(), ThreadPoolExecutor(max_workers=min(usable_cores(), 16)) as pool:
        for broken in _decode_chunks(iter(jobs), decoded, size, extra_formats, pool):
            if broken:
                decoded.broken.extend(broken)
                stop_if_too_broken(decoded.broken, total, where, max_broken)
    if not decoded.good.any():
        raise DataError(f"data: no picture in {where} can be read; the first is {decoded.broken[0]}.")
    return decoded


def _decode_chunks(
    jobs: Iterator[Job], into: Decoded, size: int, extra_formats: Collection[str], pool: ThreadPoolExecutor
) -> Iterator[list[str]]:
    """Decode chunk by chunk, large pictures in threads, with a bounded number of chunks under way."""
    under_way: deque[Future[list[str]]] = deque()
    try:
        while chunk := list(itertools.islice(jobs, _CHUNK)):
            if _bytes(chunk[0].content) < _THREADS_FROM_BYTES:
                yield _decode_chunk(chunk, into, size, extra_formats)
                continue
            under_way.append(pool.submit(_decode_chunk, chunk, into, size, extra_formats))
            if len(under_way) > 2 * pool._max_workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def _decode_chunk(jobs: list[Job], into: Decoded, size: int, extra_formats: Collection[str]) -> list[str]:
    broken = []
    for job in jobs:
        try:
            into.images[job.row] = torch.from_numpy(decode_quietly(job.content, size, extra_formats=extra_formats))
            into.good[job.row] = True
        except BrokenImageError as error:
            broken.append(f"{job.name}: {legible(str(error))}")
    return broken


def _bytes(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    try:
        return content.stat().st_size
    except OSError:
        return 0


def stop_if_too_broken(broken: list[str], total: int, where: str, max_broken: float) -> None:
    """Raise a DataError if more than the allowed share of `total` files are `broken`."""
    if len(broken) > max_broken * total:
        first = "; ".join(broken[:3]) + ("; …" if len(broken) > 3 else "")
        raise DataError(
            f"data: at least {len(broken)} of {total} pictures in {where} are broken, over {100 * max_broken:.3g} % "
            f"({first}); mend or remove them, or allow more with --max-broken."
        )
