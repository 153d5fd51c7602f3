"""`pretint evaluate`: how well a run paints a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..data import available_splits, open_source
from ..evaluation import colour_table
from ..runtime.device import Compute
from ..runtime.results import add_results
from .colour_results import measure_colour, save_pictures, spread_ids
from .opening import open_run
from .options import DataOptions, MachineOptions, Outcome
from .pretraining import report_broken


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(MachineOptions, DataOptions):
    """Measure how well a run paints.

    Attributes:
        run: the run's folder.
        data: what to paint: the test split where there is one, else all images; the run's own data by default.
        unlabelled: take a folder's images as they are, without classes.
    """

    run: Positional[Path]
    data: str | None = None
    unlabelled: bool = False


def evaluate(config: EvaluateConfig) -> Outcome:
    """Measures colour quality on a data set and adds it to `results.json`.

    Raises:
        PretintError: the run or the data can't be used.
    """
    compute = Compute.choose(config.device, config.precision)
    run = open_run(config.run, compute)
    data = config.data or run.config.data
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
    source = source.to(compute.device)
    entry = measure_colour(run.painter, source, split)
    save_pictures(run.folder, f"{source.name}-{split}", source.gather(spread_ids(len(source))), run.painter)
    results = add_results(run.folder.path, "colour", [entry])
    return Outcome({"run": str(config.run), **results}, [colour_table(entry)])
