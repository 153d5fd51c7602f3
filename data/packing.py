"""How is data decoded once, into a pack that training reads as a memory map?

What is to be packed is divided into units, each of which becomes one file. A unit that is done leaves a record, and a run that was
killed goes on behind the last one; only when all are done is the index written, which makes the folder a pack.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from .._version import __version__
from ..runtime.errors import ArgumentError, DataError, RunFolderError
from ..runtime.files import file_sha256, is_temporary, read_json, remove_temporaries, write_atomically, write_json
from ..runtime.sealed import json_sha256
from .duplicates import repeated
from .folders import read_whole
from .images import RESIZE_RULE, check_extra_formats
from .pack_index import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    PLAN,
    PackIndex,
    Shard,
    SplitIndex,
    is_pack,
    labels_file,
    read_index,
    write_index,
)
from .pack_plan import PackPlan, plan_pack
from .pack_units import PARTS, Done, FileUnit, Job, count, digests, done_before, pack
from .packs import MappedShards
from .reading import check_max_broken, stop_if_too_broken
from .tensors import content_fingerprints
from .workers import FEWEST_FILES, in_processes, usable_cores

# Up to this size a pack has the fingerprint of the same pictures in memory, so that cached features are found; to read more again
# would take too long, and nobody has it in memory.
_MOST_HASHED = 4 * 2**30
_FEWEST = 1000  # pictures; fewer are decoded before another process has started
_EXPANDED = ".expanded.tar"
_SPARE = 1.01

Progress = Callable[[str, int, int], object]


@dataclass
class _Work:
    """What a run of the packer knows and has done.

    Attributes:
        jobs: by the name of the file each becomes, split by split and in order.
        broken: what was not read so far, by split: members of archives that are refused, then files that can't be decoded.
        duplicates: how many files were dropped, by split.
        files: how many files each split has, refused ones too and duplicates not, by split.
        done: by the name of the file.
    """

    plan: PackPlan
    folder: Path
    image_size: int
    max_broken: float
    jobs: dict[str, Job]
    broken: dict[str, list[str]]
    duplicates: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)

    def jobs_of(self, split: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.split == split]

    def done_of(self, split: str) -> list[Done]:
        return [self.done[job.file] for job in self.jobs_of(split) if job.file in self.done]

    def record(self, done: Done) -> None:
        """Takes note of a job that is done.

        Raises:
            DataError: by now too many files of its split are broken.
        """
        name = Path(done.file).stem
        self.done[name] = done
        split = self.jobs[name].split
        self.broken[split] += done.broken
        stop_if_too_broken(self.broken[split], self.files[split], self.plan.where, self.max_broken)


def make_pack(
    spec: str | Path,
    folder: Path,
    *,
    image_size: int,
    root: Path | None = None,
    unlabelled: bool = False,
    deduplicate: bool = False,
    max_broken: float = 0.01,
    extra_formats: Collection[str] = (),
    workers: int | None = None,
    shard_bytes: int = 64 * 2**20,
    progress: Progress = lambda what, done, total: None,
) -> PackIndex:
    """Decodes all splits of a data set once and writes them as a pack.

    Args:
        spec: a name or path as :func:`open_source` takes it; a folder of tar shards too, compressed or not.
        folder: the pack; what a stopped run left in it is not decoded again.
        image_size: side that pictures are resized and cropped to, in pixels.
        root: the cache folder of named data sets.
        unlabelled: leave labels out; a folder may then have any shape.
        deduplicate: of files with equal content keep one, in the test split if one is there.
        max_broken: the share of broken files, in 0…1, at which packing goes on.
        extra_formats: "gif" or "tiff": read such pictures too, which are else counted as broken.
        workers: processes; None: one for each core, if there is enough to do. Data that is decoded already is written by this one.
        shard_bytes: about how large a file of pictures becomes; a tar shard becomes one file whatever its size.
        progress: called with what is being done, and how many pictures of how many have been.

    Returns:
        The index; of a pack that was complete already, as it is.

    Raises:
        DataError: bad data as in :func:`open_source`, no room for the pack, or the folder holds something else.
        ArgumentError: an argument is out of range.
        UnknownNameError: an extra format of another name.
    """
    check_max_broken(max_broken)
    check_extra_formats(extra_formats)
    if image_size < 1 or shard_bytes < 1 or (workers is not None and workers < 1):
        raise ArgumentError("image_size, shard_bytes and workers: each must be at least 1.")
    pictures_each = max(shard_bytes // (3 * image_size**2), 1)
    plan = plan_pack(spec, image_size, root, unlabelled, deduplicate, extra_formats, pictures_each)
    if (folder / INDEX).is_file():
        return _already(folder, plan)
    _check_folder(folder, plan)
    workers = 1 if plan.in_memory else workers
    jobs = {
        f"{split}-{number:05d}": Job(unit, split, f"{split}-{number:05d}", folder, image_size, tuple(extra_formats))
        for split, units in plan.units.items()
        for number, unit in enumerate(units)
    }
    refused = {split: list(lines) for split, lines in plan.refused.items()}
    work = _Work(plan, folder, image_size, max_broken, jobs, broken=refused)
    _look_ahead(work, deduplicate, workers or (usable_cores() if len(jobs) >= FEWEST_FILES else 1), progress)
    for job in jobs.values():
        if (done := done_before(job)) is not None:
            work.record(done)
    _check_room(work)
    with _cleaned(folder, plan):
        _expand(work)
        _decode(work, workers or (usable_cores() if sum(work.files.values()) >= _FEWEST else 1), progress)
        return _finished(work, progress)


def _already(folder: Path, plan: PackPlan) -> PackIndex:
    index = read_index(folder)
    if index.plan != plan.digest:
        raise DataError(
            f"{str(folder)!r} is a pack of other data, or made with other settings; choose another folder, or delete it."
        )
    _remove_leftovers(folder)  # of a run that was killed between writing the index and this
    return index


def _check_folder(folder: Path, plan: PackPlan) -> None:
    """Raises DataError unless the folder is free, or is what a stopped run of the same command left."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{str(folder)!r} is a file; give a folder for the pack.")
    if not folder.is_dir() or all(is_temporary(path.name) for path in folder.iterdir()):
        return
    if not is_pack(folder):
        raise DataError(f"{str(folder)!r} holds other files; give an empty or a new folder for the pack.")
    try:
        begun = read_json(folder / PLAN)
    except RunFolderError:
        begun = {}
    if not isinstance(begun, dict) or begun.get("plan") != plan.digest:
        raise DataError(
            f"{str(folder)!r} was begun with other data or settings, or the data has changed since; choose another folder, or "
            "delete it."
        )


def _look_ahead(work: _Work, deduplicate: bool, workers: int, progress: Progress) -> None:
    """Counts what is to be packed and, where wanted, finds the files that others are equal to."""
    for split in work.plan.units:
        work.duplicates[split] = 0
    if deduplicate:
        _drop_duplicates(work, workers, progress)
    for split in work.plan.units:
        work.files[split] = len(work.broken[split])
    for name, pictures, refused in in_processes(count, work.jobs.values(), workers if work.plan.slow_to_count else 1):
        split = work.jobs[name].split
        work.files[split] += pictures + len(refused)
        work.broken[split] += refused
    for split, files in work.files.items():
        if not files and work.duplicates[split]:
            raise DataError(
                f"data: all {work.duplicates[split]} pictures of {work.plan.where} ({split}) are copies of test pictures; give "
                "other pictures to test on, or leave --deduplicate out."
            )
        if not files:
            raise DataError(f"data: {work.plan.where} holds no picture ({split}); needed is at least one.")
        stop_if_too_broken(work.broken[split], files, work.plan.where, work.max_broken)


def _drop_duplicates(work: _Work, workers: int, progress: Progress) -> None:
    """Leaves every content once: a test picture before its copy in the train split, else the first one in order."""
    names = [job.file for split in ("test", "train") if split in work.plan.units for job in work.jobs_of(split)]
    found: dict[str, np.ndarray] = {}
    for name, part in in_processes(digests, [work.jobs[name] for name in names], workers):
        found[name] = part
        progress("looking for duplicates", len(found), len(names))
    for name, dropped in zip(names, repeated([found[name] for name in names]), strict=True):
        job = work.jobs[name]
        work.jobs[name] = replace(job, unit=job.unit.without(dropped))
        work.duplicates[job.split] += len(dropped)


def _check_room(work: _Work) -> None:
    """Raises DataError where what is still to be written is more than the disk has free."""
    bytes_each = 3 * work.image_size**2 + 8
    written = sum(done.pictures + len(done.broken) for done in work.done.values())
    needed = _SPARE * (sum(work.files.values()) - written) * bytes_each
    if work.plan.expands is not None and not (work.folder / _EXPANDED).is_file():
        needed += work.plan.expands.bytes
    place = next(path for path in (work.folder, *work.folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"no room for the pack: it takes {needed / 1e9:.2f} GB more, and {str(place)!r} has {free / 1e9:.2f} GB free; make "
            "room, choose a folder on another disk, or use a smaller --image-size."
        )


@contextmanager
def _cleaned(folder: Path, plan: PackPlan) -> Iterator[None]:
    """Half-written files never stay, nor does the folder of a run without a picture; what is done does, to go on from."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _remove_partial(folder)  # of a run that was killed
        # first of all, since by it the folder is known for one that is being packed
        write_json(folder / PLAN, {"format": FORMAT, "format_version": FORMAT_VERSION, "plan": plan.digest})
        (folder / PARTS).mkdir(exist_ok=True)
        yield
    except BaseException:
        _remove_partial(folder)
        if not any(folder.glob("*.u8")):
            _remove_leftovers(folder)
            if made:
                folder.rmdir()
        raise


def _remove_partial(folder: Path) -> None:
    for place in (folder, folder / PARTS):
        remove_temporaries(place)


def _remove_leftovers(folder: Path) -> None:
    """Removes what only a run that goes on would need."""
    if (folder / PARTS).is_dir():
        shutil.rmtree(folder / PARTS)
    (folder / _EXPANDED).unlink(missing_ok=True)
    (folder / PLAN).unlink(missing_ok=True)


def _expand(work: _Work) -> None:
    """A compressed archive is decompressed first, so that several processes can read at different places of it."""
    if work.plan.expands is None or len(work.done) == len(work.jobs):
        return
    source, target = work.plan.expands.archive, work.folder / _EXPANDED
    if not target.is_file():

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.writelines(read_whole(source))

        write_atomically(target, write)
    for name, job in work.jobs.items():
        assert isinstance(job.unit, FileUnit)
        work.jobs[name] = replace(job, unit=replace(job.unit, archive=target))


def _decode(work: _Work, workers: int, progress: Progress) -> None:
    todo = [job for name, job in work.jobs.items() if name not in work.done]
    results = in_processes(pack, todo, min(workers, len(todo)))
    total = sum(work.files.values())
    ready = sum(done.pictures + len(done.broken) for done in work.done.values())
    progress("packing", ready, total)
    with closing(results):  # so that an error here stops the workers at once
        for done in results:
            work.record(done)
            ready += done.pictures + len(done.broken)
            progress("packing", ready, total)


def _finished(work: _Work, progress: Progress) -> PackIndex:
    """Writes labels and index, which ends the work."""
    splits = {split: _split_index(work, split, progress) for split in work.plan.units}
    index = PackIndex(
        work.plan.name, work.image_size, RESIZE_RULE, work.plan.class_names, splits, work.plan.digest, __version__
    )
    write_index(work.folder, index)
    _remove_leftovers(work.folder)
    return index


def _split_index(work: _Work, split: str, progress: Progress) -> SplitIndex:
    done = [part for part in work.done_of(split) if part.pictures]
    broken = sorted(work.broken[split])
    if not done:
        raise DataError(f"data: no picture in {work.plan.where} ({split}) can be read; the first is {broken[0]}.")
    labels, labels_sha256 = _labels(work, done), None
    if labels is not None:
        path = labels_file(work.folder, split)
        write_atomically(path, np.array(labels, "<i8").tobytes())
        labels_sha256 = file_sha256(path)
    shards = tuple(Shard(part.file, part.pictures, part.pictures_sha256) for part in done)
    files = work.files[split] + work.duplicates[split]
    index = SplitIndex(shards, labels_sha256, files, work.duplicates[split], tuple(broken), "", "")
    progress("fingerprint", 0, 0)
    fingerprints = _fingerprints(work, index, labels)
    return replace(index, fingerprint=fingerprints[0], fingerprint_unlabelled=fingerprints[1])


def _labels(work: _Work, done: Sequence[Done]) -> list[int] | None:
    """The labels of a split; all of its files have some, or none."""
    if all(part.labels is None for part in done):
        return None
    if any(part.labels is None for part in done):
        raise DataError(f"data: some shards of {work.plan.where} have labels and others have none; use --unlabelled.")
    return [label for part in done for label in part.labels or ()]


def _fingerprints(work: _Work, index: SplitIndex, labels: list[int] | None) -> tuple[str, str]:
    numbers = None if labels is None else torch.tensor(labels)
    if index.pictures * 3 * work.image_size**2 <= _MOST_HASHED:
        files = MappedShards(work.folder, [index], work.image_size).files()
        return content_fingerprints(files, index.pictures, numbers)
    pixels = [work.image_size, *(shard.sha256 for shard in index.shards)]
    return json_sha256([*pixels, index.labels_sha256])[:16], json_sha256(pixels)[:16]
