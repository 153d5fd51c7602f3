"""Which runs and pictures do the questions work with, and what is an answer?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pretint.data import ImageSource, only_classes, open_source
from pretint.recipes import PretrainConfig, Run, open_run, preset_config, pretrain
from pretint.recipes.colour_results import measure_colour, read_bin_prior, spread_ids
from pretint.recipes.painting import trained_decoding
from pretint.runtime.device import Compute
from pretint.runtime.runfolder import RunFolder

MEASURED = 1000
"""Pictures that a measure is taken on, where a data set has more."""


@dataclass(frozen=True)
class Options:
    """Answers to the seed systems' questions.

    Attributes:
        data: CIFAR-10, by name or as a path.
        only: numbers of the questions to answer; all by default.
        out: folder of the run folders, the same as that of benchmarks/presets.py.
        pictures: folder that the pictures are written to.
        write: a document whose marked places are filled with the answers.
        seed: of everything random.
    """

    data: str = "cifar10"
    only: tuple[int, ...] = ()
    out: Path = Path("runs/presets")
    pictures: Path = Path("docs/pictures/seeds")
    write: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Picture:
    """A picture of an answer.

    Attributes:
        name: of its file, without the ending.
        caption: what it shows, for those who can't see it too.
        image: RGB.
    """

    name: str
    caption: str
    image: Image.Image


@dataclass(frozen=True)
class Answer:
    """What a question's script found: lines of Markdown, and pictures."""

    lines: list[str]
    pictures: list[Picture]


@dataclass
class Bench:
    """Runs and pictures, each made or read once."""

    options: Options
    compute: Compute = field(default_factory=Compute.choose)
    _sources: dict[str, ImageSource] = field(default_factory=dict)

    def finished(self, config: PretrainConfig) -> Run:
        """The run of these settings; one that lies in their folder already is taken as it is."""
        if not (config.folder / "results.json").exists():
            pretrain(config)
        run = open_run(config.folder, self.compute)
        run.painter.decoding = trained_decoding(run.config)
        return run

    def preset(self, preset: str, folder: str | None = None, **changes: Any) -> Run:
        """The run of a preset, some of its settings changed; changed ones need a folder of their own."""
        settings = {"paint_every": 1000, **changes}
        return self.finished(
            preset_config(
                preset,
                data=self.options.data,
                out=self.options.out / (folder or preset),
                seed=self.options.seed,
                overwrite=True,
                **settings,
            )
        )

    def test_pictures(self, *classes: str, data: str | None = None) -> ImageSource:
        """At most `MEASURED` pictures, evenly spread over the test split, or over some classes of it."""
        spec = data or self.options.data
        if spec not in self._sources:
            self._sources[spec] = open_source(spec, "test").to(self.compute.device)
        source = self._sources[spec]
        return spread(only_classes(source, classes) if classes else source, MEASURED)


def measured(run: Run, source: ImageSource) -> dict[str, Any]:
    """How well a run paints a source, as in `results.json`."""
    return measure_colour(run.painter, source, source.split, read_bin_prior(run.folder))


def spread(source: ImageSource, count: int) -> ImageSource:
    """So many of a source's pictures, evenly spread; all if it has no more."""
    return source.subset(torch.linspace(0, len(source) - 1, min(count, len(source))).round().long())


def shown(source: ImageSource) -> torch.Tensor:
    """The pictures of a source that a run's own figures show too."""
    return source.gather(spread_ids(len(source)))


def training_seconds(run: Run) -> float:
    """Seconds of all epochs, from the run's own log."""
    return sum(row["seconds"] for row in RunFolder.open(run.folder.path).read_metrics())
