"""Which images does a run learn from, which are held out, and which is its painting judged on?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..data import (
    Ids,
    ImageSource,
    StreamedSource,
    all_ids,
    available_splits,
    hold_out,
    is_grey,
    only_classes,
    open_source,
    spread_hold_out,
)
from ..pretext import task_names
from ..runtime.device import Compute
from ..runtime.errors import DataError
from ..runtime.processes import is_main
from ..runtime.randomness import MANY
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import note
from .settings import PretrainConfig

_MOST_NAMED = 10_000


def open_training_source(config: PretrainConfig, compute: Compute) -> ImageSource:
    """The training images on the compute device.

    Raises:
        DataError: they can't be read, are all grey, are fewer than a batch, or lack the labels that the task learns from.
    """
    source = open_split(config, "train")
    if config.limit is not None and config.limit < len(source):
        source = source.subset(torch.arange(min(config.limit, len(source))))
    if is_grey(source):
        raise DataError(f"--data {config.data}: all images are grey; colourization needs pictures with colour.")
    if "supervised" in task_names(config.task):
        _check_labels(config, source)
    remaining = len(source) - round(len(source) * config.holdout)
    if remaining < config.batch_size:
        raise DataError(
            f"--data {config.data}: {remaining} training images (besides those held out) are fewer than a batch of "
            f"{config.batch_size}; use a smaller --batch-size or more images."
        )
    return source.to(compute.device)


def open_split(config: PretrainConfig, split: str) -> ImageSource:
    """A split of the run's data, of the run's classes; says which images can't be read."""
    source = open_source(
        config.data,
        split,
        config.root,
        image_size=config.image_size,
        unlabelled=config.unlabelled,
        max_broken=config.max_broken,
        extra_formats=config.extra_formats,
    )
    report_broken(source)
    return of_classes(source, config.classes)


def _check_labels(config: PretrainConfig, source: ImageSource) -> None:
    if source.labels is None:
        raise DataError(f"--data {config.data}: task supervised needs labels; give a data set with class folders.")
    if len(source.labels.unique()) < 2:
        raise DataError(
            f"--data {config.data}: task supervised needs images of at least two classes, and these are of one; name more "
            "--classes or use more images."
        )


def of_classes(source: ImageSource, classes: Sequence[str] | None) -> ImageSource:
    """The images of some classes; None leaves all.

    Raises:
        UnknownNameError, DataError: there are no such classes.
    """
    return source if classes is None else only_classes(source, classes)


def held_out_ids(config: PretrainConfig, source: ImageSource) -> tuple[Ids, Ids]:
    """Ids of the training images to learn from, and of those held out (none with `holdout` 0); of very many, none is stored."""
    many = len(source) > MANY
    if config.holdout == 0:
        return all_ids(len(source)) if many else torch.arange(len(source)), torch.arange(0)
    if many:
        return spread_hold_out(len(source), config.holdout, config.seed)
    return hold_out(source, config.holdout, config.seed)


def counted_ids(config: PretrainConfig, kept: Ids) -> Ids:
    """The training images that colours are counted in: of very many a part, spread evenly and chosen by the seed, since to count
    all of them would take as long as epochs do, while an image more changes no colour."""
    if len(kept) <= MANY:
        return kept
    _, chosen = spread_hold_out(len(kept), MANY / len(kept), config.seed)
    return kept[chosen[:]]


def class_count(source: ImageSource) -> int:
    """Classes that a source's labels number, whether all occur or not; 0 without labels."""
    return 0 if source.labels is None else int(source.labels.max()) + 1


def judged_source(config: PretrainConfig, held_out: Callable[[], ImageSource], compute: Compute) -> ImageSource:
    """What a run's painting is shown and measured on: the test split, or the held-out images where there is none."""
    if "test" not in available_splits(config.data, config.root):
        return held_out()
    return open_split(config, "test").to(compute.device)


def reopen_judged_source(config: PretrainConfig, compute: Compute, classes: Sequence[str] | None = None) -> ImageSource:
    """The same of a run that is over: its test split, or the images that it held out (all, where it held out none).

    Args:
        config: the run's settings.
        compute: where the images go.
        classes: only these; None for the classes that the run learned from.
    """

    def held_out() -> ImageSource:
        source = open_training_source(config, compute)
        kept, held = held_out_ids(config, source)
        return of_classes(source.subset((held if len(held) else kept).to(compute.device)), classes)

    return judged_source(replace(config, classes=classes or config.classes), held_out, compute)


def report_broken(source: ImageSource) -> None:
    """Says which images could not be read."""
    if source.broken:
        note(f"{len(source.broken)} unreadable images were skipped in {source.name} ({source.split}):")
        for line in source.broken[:10]:
            note(f"  {line}")


def report_met_broken(source: ImageSource, folder: RunFolder) -> None:
    """Says which images turned out unreadable while a run read them, and adds their names to its `config.json`.

    Those are images that are decoded when they are read, of tar shards; what else is broken was told on opening.
    """
    if not is_main() or not isinstance(source, StreamedSource) or source.decoded or not source.broken:
        return
    report_broken(source)
    data = folder.config["data"]
    names = sorted({*data.get("unreadable", ()), *source.broken})  # those of a run that goes on too
    folder.bring_up_to_date(data={**data, "broken": len(names), "unreadable": names[:_MOST_NAMED]})


def data_name(source: ImageSource, classes: Sequence[str] | None) -> str:
    """What results call the images that were judged, such as "cifar10" or, of two of its classes, "cifar10 (horse, ship)"."""
    return source.name if classes is None else f"{source.name} ({', '.join(sorted(set(classes)))})"
