"""`pretint colourize`: paints photographs of any size with a run's network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tyro.conf import Positional

from ..data import BrokenImageError, decode_image, list_files
from ..pretext import Decoding
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError
from ..runtime.files import write_atomically
from ..runtime.runlog import note
from .opening import open_run
from .options import MachineOptions, Outcome, positive


@dataclass(frozen=True, kw_only=True)
class ColourizeConfig(MachineOptions):
    """Paint photographs.

    Attributes:
        run: the run's folder.
        pictures: files and folders (searched through) of pictures, grey or not.
        out: folder for the painted PNG files; names and sub-folders stay.
        size: shorter side of what the network sees, in pixels; the size it was trained on by default.
        decode: mode, mean, annealed or sample: how a distribution over colours is painted; as the run was set by default.
        temperature: of annealed and sample, above 0 and at most 1.
        saturation: what the painted chroma is multiplied with; 0 paints grey.
    """

    run: Positional[Path]
    pictures: Positional[tuple[Path, ...]]
    out: Path = Path("painted")
    size: int | None = None
    decode: str | None = None
    temperature: float | None = None
    saturation: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "size", "temperature")
        if not self.pictures:
            raise ArgumentError("pictures: none were named; name files or folders to paint.")


def colourize(config: ColourizeConfig) -> Outcome:
    """Paints each picture at its own size: chroma from the network, luma from the picture.

    Raises:
        DataError: a path is missing, or no picture could be read. Unreadable pictures among others are skipped and listed.
    """
    found = _with_targets([pair for path in config.pictures for pair in _found(path)], config.out)
    compute = Compute.choose(config.device, config.precision)
    run = open_run(config.run, compute)
    if config.decode or config.temperature or config.saturation != 1:
        was = run.config
        mode, temperature = config.decode or was.decode, config.temperature or was.temperature
        run.painter.decoding = Decoding(mode, temperature, config.saturation)
    _ = run.painter.painting_task  # before pictures are read: it says so if the run paints nothing
    painted, broken = [], []
    for path, target in found.items():
        try:
            rgb = torch.from_numpy(decode_image(path, None))
        except BrokenImageError as error:
            broken.append(f"{path}: {error}")
            continue
        result = run.painter.colourize(rgb, config.size or run.config.image_size)
        picture = Image.fromarray(result.permute(1, 2, 0).numpy())
        write_atomically(target, lambda p, picture=picture: picture.save(p, format="PNG"))
        painted.append(str(target))
    for line in broken:
        note(f"skipped {line}")
    if not painted:
        raise DataError(f"None of the {len(found)} pictures could be read; JPEG, PNG, WebP, BMP and GIF are.")
    return Outcome({"painted": painted, "skipped": broken}, [], [f"Painted {len(painted)} pictures into {config.out}."])


def _with_targets(found: list[tuple[Path, Path]], out: Path) -> dict[Path, Path]:
    """Where each picture goes; nothing that was named is written over, and no two go to one file."""
    inputs, taken, targets = {path.resolve() for path, _ in found}, {}, {}
    for path, relative in found:
        target = out / relative.with_suffix(".png")
        if target.resolve() in inputs:
            raise ArgumentError(f"--out: {target} is one of the pictures to paint; name another folder.")
        if taken.setdefault(target, path) != path:
            raise ArgumentError(f"pictures: {taken[target]} and {path} would both become {target}; paint them apart.")
        targets[path] = target
    return targets


def _found(path: Path) -> list[tuple[Path, Path]]:
    """Files with the name each gets below `out`."""
    if path.is_file():
        return [(path, Path(path.name))]
    if not path.is_dir():
        raise DataError(f"pictures: {path} does not exist; name files or folders to paint.")
    entries = list_files(path).entries
    if not entries:
        raise DataError(f"pictures: {path} holds no picture; JPEG, PNG, WebP, BMP and GIF are read.")
    return [(path / entry.name, Path(entry.name)) for entry in entries]
