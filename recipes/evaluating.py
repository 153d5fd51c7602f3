"""`pretint evaluate`: how well a run paints a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tyro.conf import Positional

from ..data import ImageSource, available_splits, open_source
from ..evaluation import colour_table
from ..runtime.device import Compute
from ..runtime.errors import DataError
from ..runtime.results import add_results
from .colour_results import measure_colour, read_bin_prior, save_pictures, spread_ids
from .extremes import save_extremes
from .opening import Run, open_run
from .options import DataOptions, MachineOptions, Outcome
from .painting import PaintingOptions, paint_as_asked
from .training_data import data_name, held_out_ids, judged_source, of_classes, open_training_source, report_broken


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(PaintingOptions, MachineOptions, DataOptions):
    """Measure how well a run paints.

    Attributes:
        run: the run's folder.
        data: what to paint: the test split where there is one, else all images; by default the run's own test split, or
            the images it held out.
        unlabelled: take a folder's images as they are, without classes.
        classes: names of the classes to paint; by default all, and of the run's own images those that it was trained on.
    """

    run: Positional[Path]
    data: str | None = None
    unlabelled: bool = False
    classes: tuple[str, ...] | None = None


def _own_images(run: Run, config: EvaluateConfig, compute: Compute) -> tuple[ImageSource, str]:
    """The run's test split, or the images that it held out from training."""
    settings = replace(run.config, root=config.root or run.config.root, max_broken=config.max_broken)

    def held_out() -> ImageSource:
        source = open_training_source(settings, compute)
        kept, held = held_out_ids(settings, source)
        return of_classes(source.subset((held if len(held) else kept).to(compute.device)), config.classes)

    source = judged_source(replace(settings, classes=config.classes or settings.classes), held_out, compute)
    return source, "test" if source.split == "test" else "held-out"


def _other_images(data: str, run: Run, config: EvaluateConfig, compute: Compute) -> tuple[ImageSource, str]:
    """The test split of other data, or all of it."""
    split = "test" if "test" in available_splits(data, config.root) else "train"
    source = open_source(
        data,
        split,
        config.root,
        image_size=run.config.image_size,
        unlabelled=config.unlabelled,
        max_broken=config.max_broken,
    )
    report_broken(source)
    return of_classes(source, config.classes).to(compute.device), split


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measures colour quality on a data set and adds it to `results.json`.

    Raises:
        PretintError: the run or the data can't be used.
    """
    compute = Compute.choose(config.device, config.precision)
    run = open_run(config.run, compute)
    paint_as_asked(run, config)
    if config.data is None:
        source, split = _own_images(run, config, compute)
        classes = config.classes or run.config.classes
    else:
        source, split = _other_images(config.data, run, config, compute)
        classes = config.classes
    if not len(source):
        raise DataError(
            f"--classes: there is no image of {data_name(source, classes)} to paint; name others, or other --data."
        )
    entry = measure_colour(run.painter, source, split, read_bin_prior(run.folder))
    entry["data"] = data_name(source, classes)
    name = f"evaluate-{'-'.join((source.name, *(config.classes or ()), split))}{config.named()}"
    save_pictures(run.folder, name, source.gather(spread_ids(len(source))), run.painter)
    if config.data is None and config.classes is None and not config.named():  # what the run's own end would have kept
        save_pictures(run.folder, "pictures", source.gather(spread_ids(len(source))), run.painter)
        save_extremes(run.folder, source, run.painter)
    results = add_results(run.folder.path, "colour", [entry])
    return Outcome({"run": str(config.run), **results}, [colour_table(entry)])
