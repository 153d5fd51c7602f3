"""`pretint evaluate`: how well a run paints a data set, or several side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..data import ImageSource, available_splits, cache_root
from ..evaluation import class_table, colour_table, no_recolour, side_by_side
from ..runtime.determinism import repeatable
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError
from ..runtime.processes import is_main
from ..runtime.results import IDENTITY, add_results, read_results
from .colour_results import measure_colour, read_bin_prior, save_pictures, spread_ids
from .extremes import save_extremes
from .opening import Run, open_run
from .options import DataOptions, Outcome, ProcessOptions, command_line, positive
from .painting import PaintingOptions, paint_as_asked
from .recolouring import colour_classifier
from .together import in_all_processes
from .training_data import data_name, held_out_ids, of_classes, open_split, open_training_source, reopen_judged_source


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(PaintingOptions, ProcessOptions, DataOptions):
    """Measure how well a run paints.

    Attributes:
        run: the run's folder.
        data: what to paint: the test split where there is one, else all images; by default the run's own test split, or
            the images it held out.
        also: further data, measured alike and shown side by side.
        unlabelled: take a folder's images as they are, without classes.
        classes: names of the classes to paint; by default all, and of the run's own images those that it was trained on.
        recolour: have a classifier of true colours judge the painted pictures; it is trained once for each data set, on its train
            split, and kept in the cache folder.
    """

    run: Positional[Path]
    data: str | None = None
    also: tuple[str, ...] = ()
    unlabelled: bool = False
    classes: tuple[str, ...] | None = None
    recolour: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "processes")
        named = (self.data, *self.also)
        twice = next((data for data in self.also if named.count(data) > 1), None)
        if twice is not None:
            raise ArgumentError(f"--also: {twice} is named twice; name each data set once.")
        if self.recolour and self.unlabelled:
            raise ArgumentError("--recolour: it needs the labels that --unlabelled leaves out; give one of the two.")


@dataclass(frozen=True)
class _Judged:
    """What is painted.

    Attributes:
        source, split: the images, and what their split is called.
        classes: the names they were chosen by; None for all.
        train: opens images of the same data that are not among them.
        own: whether the run itself was trained on this data.
    """

    source: ImageSource
    split: str
    classes: tuple[str, ...] | None
    train: Callable[[], ImageSource]
    own: bool


def _own_images(run: Run, config: EvaluateConfig, compute: Compute) -> _Judged:
    """The run's test split, or the images that it held out from training."""
    settings = replace(
        run.config,
        root=config.root or run.config.root,
        max_broken=config.max_broken,
        extra_formats=config.extra_formats or run.config.extra_formats,
    )

    def not_held_out() -> ImageSource:
        source = open_training_source(settings, compute)
        kept, held = held_out_ids(settings, source)
        if not len(held):
            raise _none_left(settings.data)
        return source.subset(kept.to(compute.device))

    classes = config.classes or settings.classes
    source = reopen_judged_source(settings, compute, config.classes)
    if source.split != "test":
        return _Judged(source, "held-out", classes, not_held_out, own=True)
    every_class = replace(settings, classes=None)
    return _Judged(source, "test", classes, lambda: open_split(every_class, "train").to(compute.device), own=True)


def _other_images(data: str, splits: tuple[str, ...], run: Run, config: EvaluateConfig, compute: Compute) -> _Judged:
    """The test split of other data, or all of it."""
    settings = replace(
        run.config,
        data=data,
        root=config.root,
        unlabelled=config.unlabelled,
        max_broken=config.max_broken,
        extra_formats=config.extra_formats,
        classes=None,
    )

    def train() -> ImageSource:
        if not {"train", "test"} <= set(splits):
            raise _none_left(data)
        return open_split(settings, "train").to(compute.device)

    split = "test" if "test" in splits else "train"
    source = of_classes(open_split(settings, split).to(compute.device), config.classes)
    return _Judged(source, split, config.classes, train, own=False)


def _none_left(data: str) -> DataError:
    return DataError(
        f"--recolour: {data} has no images besides those to judge; give a folder with train/ and test/ inside, or leave the "
        "option out."
    )


@in_all_processes
@repeatable
def evaluate(config: EvaluateConfig) -> Outcome:
    """Measures colour quality on one data set or several, and adds it to `results.json`.

    What was measured is kept even if a later data set can't be used.

    Raises:
        PretintError: the run or the data can't be used.
    """
    compute = Compute.choose(config.device, config.precision)
    run = open_run(config.run, compute)
    paint_as_asked(run, config)
    # before anything is measured, so that a mistyped name costs no time
    named = [data for data in (config.data, *config.also) if data is not None]
    splits = {data: available_splits(data, config.root) for data in named}
    command = command_line("evaluate", config, EvaluateConfig(run=config.run), always=("run",))
    entries: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for data in (config.data, *config.also):
        judged = (
            _own_images(run, config, compute)
            if data is None
            else _other_images(data, splits[data], run, config, compute)
        )
        known = [(entry["data"], entry["split"]) for entry in entries]
        entry = _measure(run, judged, config, compute, known, command)
        entries.append(entry)
        results = add_results(run.folder.path, "colour", [entry]) if is_main() else {}
    tables = [colour_table(entries[0]) if len(entries) == 1 else side_by_side(entries)]
    by_class = (class_table(entry) for entry in entries)
    return Outcome({"run": str(config.run), **results}, [*tables, *(table for table in by_class if table is not None)])


def _recoloured_before(run: Run, entry: dict[str, Any]) -> dict[str, Any]:
    """What a classifier found earlier of the very same painting; nothing where there is no such entry."""
    same = (*IDENTITY["colour"], "delta_e2000")
    for known in read_results(run.folder.path)["colour"]:
        if all(known.get(key) == entry.get(key) for key in same):
            return {key: known.get(key) for key in no_recolour()}
    return {}


def _measure(
    run: Run, judged: _Judged, config: EvaluateConfig, compute: Compute, known: list[tuple[str, str]], command: str
) -> dict[str, Any]:
    """The entry of one data set; its pictures are kept beside it."""
    source, split, name = judged.source, judged.split, data_name(judged.source, judged.classes)
    if not len(source):
        raise DataError(f"--classes: there is no image of {name} to paint; name others, or other --data.")
    if (name, split) in known:
        raise ArgumentError(f"--also: two of the data sets are called {name} ({split}); name one alone, or rename it.")
    classify = None
    if config.recolour:
        run.painter.painting_task  # noqa: B018 - a run that paints nothing is refused before a classifier is trained
        classify = colour_classifier(judged.train(), source, cache_root(config.root) / "recolour", compute)
    entry = measure_colour(run.painter, source, split, read_bin_prior(run.folder), classify)
    entry["data"] = name
    if not is_main():
        return entry
    entry["command"] = command
    if classify is None:
        entry |= _recoloured_before(run, entry)
    pictures = f"evaluate-{'-'.join((source.name, *(config.classes or ()), split))}{config.named()}"
    save_pictures(run.folder, pictures, source.gather(spread_ids(len(source))), run.painter)
    if judged.own and config.classes is None and not config.named():  # what the run's own end would have kept
        save_pictures(run.folder, "pictures", source.gather(spread_ids(len(source))), run.painter)
        save_extremes(run.folder, source, run.painter)
    return entry
