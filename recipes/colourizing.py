"""`pretint colourize`: paints photographs of any size with a run's network."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from tyro.conf import Positional

from ..data import BrokenImageError, decode_image, list_files
from ..data.workers import usable_cores
from ..pretext import ANNEALED, Decoding
from ..runtime.determinism import repeatable
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError
from ..runtime.files import write_atomically
from ..runtime.runlog import note
from .opening import open_run
from .options import MachineOptions, Outcome, positive
from .painting import PaintingOptions, paint_as_asked

# A map whose lightness grows evenly, and which looks the same to the colour-blind.
_CONFIDENCE_MAP = "cividis"
_CONFIDENCE_ENDING = ".confidence.png"


@dataclass(frozen=True, kw_only=True)
class ColourizeConfig(PaintingOptions, MachineOptions):
    """Paint photographs.

    Attributes:
        run: the run's folder.
        pictures: files and folders (searched through) of pictures, grey or not.
        out: folder for the painted PNG files; names and sub-folders stay.
        size: shorter side of what the network sees, in pixels; the size it was trained on by default. A network that takes no
            other size sees pictures squeezed into a square.
        temperatures: paint each picture once at each of these, annealed or sampled, into NAME.t0.38.png and so on instead of
            NAME.png.
        confidence: write NAME.confidence.png beside each picture: how sure the network is of each pixel's colour, from
            dark blue (all colours alike) to yellow (one alone).
        extra_formats: gif or tiff: read such pictures too.
    """

    run: Positional[Path]
    pictures: Positional[tuple[Path, ...]]
    out: Path = Path("painted")
    size: int | None = None
    temperatures: tuple[float, ...] | None = None
    confidence: bool = False
    extra_formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "size")
        if not self.pictures:
            raise ArgumentError("pictures: none were named; name files or folders to paint.")
        if self.temperatures is None:
            return
        if self.temperature is not None:
            raise ArgumentError("--temperature and --temperatures can't both be meant; give one of them.")
        if self.decode is not None and self.decode not in ANNEALED:
            raise ArgumentError(
                f"--temperatures: --decode {self.decode} has none; use {' or '.join(ANNEALED)}, or leave one out."
            )
        self.ways(Decoding())

    def ways(self, usual: Decoding) -> dict[str, Decoding]:
        """The endings of the files that become of a picture, and how each is painted.

        Raises:
            ArgumentError: a temperature is out of range.
        """
        if self.temperatures is None:
            return {".png": usual}
        mode = self.decode or "annealed"
        return {f".t{t}.png": replace(usual, mode=mode, temperature=t) for t in self.temperatures}


@repeatable
def colourize(config: ColourizeConfig) -> Outcome:
    """Paints each picture at its own size: chroma from the network, luma from the picture.

    Raises:
        DataError: a path is missing, or no picture could be read. Unreadable pictures among others are skipped and listed.
    """
    maps = [_CONFIDENCE_ENDING] if config.confidence else []
    found = [pair for path in config.pictures for pair in _found(path)]
    targets = _with_targets(found, config.out, [*config.ways(Decoding()), *maps])
    compute = Compute.choose(config.device, config.precision)
    run = open_run(config.run, compute)
    painter = run.painter
    # all that does not fit the run is refused before pictures are read
    paint_as_asked(run, config)
    size = config.size or run.config.image_size
    painter.check_colourizes(size)
    if config.temperatures is not None:
        painter.check_told()
    if config.confidence:
        painter.check_distribution()
    ways = config.ways(painter.decoding or Decoding())
    painted, sure, broken = [], [], []
    with _Saving() as saving:
        for path, target in targets.items():
            try:
                rgb = torch.from_numpy(decode_image(path, None, extra_formats=config.extra_formats))
            except BrokenImageError as error:
                broken.append(f"{path}: {error}")
                continue
            photograph = painter.look_at(rgb, size)
            for ending, way in ways.items():
                pixels = photograph.painted(way).permute(1, 2, 0).numpy()
                painted.append(saving.save(pixels, target.with_suffix(ending)))
            for ending in maps:
                sure.append(saving.save(_confidence_picture(photograph.confidence()), target.with_suffix(ending)))
    for line in broken:
        note(f"skipped {line}")
    if not painted:
        raise DataError(f"None of the {len(targets)} pictures could be read; the first is {broken[0]}.")
    results = {"painted": painted, "confidence": sure, "skipped": broken}
    done = len(targets) - len(broken)
    return Outcome(results, [], [f"Painted {done} picture{'s' if done != 1 else ''} into {config.out}."])


class _Saving:
    """Writes PNG files on all cores while the next picture is painted, since packing one takes longer than painting it."""

    def __enter__(self) -> _Saving:
        self._cores = usable_cores()
        self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="save")
        self._under_way: deque[Future[None]] = deque()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._under_way and kind is None:
                self._under_way.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def save(self, pixels: UInt8[np.ndarray, "h w 3"], target: Path) -> str:
        """Returns the path; waits while as many pictures as there are cores wait already, so that memory does not fill up."""
        while len(self._under_way) > self._cores:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(_write, pixels, target))
        return str(target)


def _write(pixels: UInt8[np.ndarray, "h w 3"], target: Path) -> None:
    picture = Image.fromarray(pixels)
    write_atomically(target, lambda path: picture.save(path, format="PNG"))


def _confidence_picture(confidence: Float[Tensor, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A map of confidence (0…1) as a picture."""
    return colormaps[_CONFIDENCE_MAP](confidence.numpy(), bytes=True)[..., :3]


def _with_targets(found: list[tuple[Path, Path]], out: Path, endings: list[str]) -> dict[Path, Path]:
    """Where each picture goes, still without ending; nothing that was named is written over, and no two go to one file."""
    inputs, taken, targets = {path.resolve() for path, _ in found}, {}, {}
    for path, relative in found:
        targets[path] = out / relative
        for target in (targets[path].with_suffix(ending) for ending in endings):
            if target.resolve() in inputs:
                raise ArgumentError(f"--out: {target} is one of the pictures to paint; name another folder.")
            if taken.setdefault(target, path) != path:
                raise ArgumentError(
                    f"pictures: {taken[target]} and {path} would both become {target}; paint them apart."
                )
    return targets


def _found(path: Path) -> list[tuple[Path, Path]]:
    """Files with the name each gets below `out`."""
    if path.is_file():
        return [(path, Path(path.name))]
    if not path.is_dir():
        raise DataError(f"pictures: {path} does not exist; name files or folders to paint.")
    entries = list_files(path).entries
    if not entries:
        raise DataError(f"pictures: {path} holds no picture; JPEG, PNG, WebP and BMP are read.")
    return [(path / entry.name, Path(entry.name)) for entry in entries]
