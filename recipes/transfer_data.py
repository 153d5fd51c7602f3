"""Which labelled images is an encoder judged on, and which untrained encoder stands beside it?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import PARTS, BackboneSpec, Preprocess, create_backbone, load_backbone, split_pair
from ..data import ImageSource, available_splits, class_balanced_subset, open_source
from ..pretext import TASKS, leaked_labels, task_names, task_options
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError, RunFolderError, UnknownNameError
from ..runtime.runfolder import RunFolder
from .opening import read_settings
from .options import DataOptions, ProcessOptions, check_seed, positive
from .settings import PretrainConfig
from .training_data import report_broken


@dataclass(frozen=True, kw_only=True)
class TransferOptions(ProcessOptions, DataOptions):
    """What probing and fine-tuning ask alike.

    Attributes:
        data: labelled data with a train and a test split; what the run was pretrained on by default.
        labels: share of the training labels to use, above 0 and at most 1; a fixed, class-balanced subset.
        seed: of the subset and everything random.
        control: measure the same network with random weights too.
        part: luma or chroma: judge that half alone of an encoder that is a pair.
    """

    data: str | None = None
    labels: float = 1.0
    seed: int = 0
    control: bool = True
    part: str | None = None

    def __post_init__(self) -> None:
        if self.part is not None and self.part not in PARTS:
            raise UnknownNameError("--part", self.part, PARTS)
        if not 0 < self.labels <= 1:
            raise ArgumentError(
                f"--labels: {self.labels} must be above 0 and at most 1, the share of training labels to use."
            )
        check_seed(self.seed)
        positive(
            self,
            "processes",
            *(name for name in ("epochs", "batch_size", "learning_rate", "patience") if hasattr(self, name)),
        )


@dataclass(frozen=True)
class Judged:
    """All that a transfer verb works on.

    Attributes:
        folder: the run.
        compute: device and precision.
        train, test: labelled images on the device.
        encoders: the run's, by what made its weights (`pretrained`, `supervised-grey` or `supervised-rgb`), and, if asked for,
            `random`; of a run that trained nothing `random` alone, since that is its own control.
        pretrained_on: the name of the pretraining data.
        sees: what the encoders' input is made of.
        leaks: whose labels helped the pretext, if any did.
    """

    folder: RunFolder
    compute: Compute
    train: ImageSource
    test: ImageSource
    encoders: dict[str, nn.Module]
    pretrained_on: str
    sees: str
    leaks: str | None

    @property
    def fingerprint(self) -> tuple[str, str]:
        """Of the train and the test images."""
        return self.train.fingerprint, self.test.fingerprint

    @property
    def init(self) -> str:
        """What made the weights of the run's encoder."""
        return next(iter(self.encoders))

    @property
    def encoder(self) -> nn.Module:
        """The run's encoder."""
        return self.encoders[self.init]

    def marks(self, init: str) -> dict[str, Any]:
        """What a row of the transfer table says of one of the encoders: where its weights come from, and what it sees."""
        trained = init != "random"
        return {
            "init": init,
            "pretrained_on": self.pretrained_on if trained else None,
            "sees": self.sees,
            "leaks": self.leaks if trained else None,
        }


Splits = tuple[ImageSource, ImageSource]


def open_judged(run: Path, options: TransferOptions, opened: dict[tuple[str, int], Splits] | None = None) -> Judged:
    """Opens a run's encoder, its control, and labelled data at the size the encoder was trained on.

    Args:
        run: its folder.
        options: what is asked.
        opened: train and test splits that were opened before, by data and size; what is opened now is added.

    Raises:
        RunFolderError: the run can't be read.
        DataError: the data has no labels or no test split, only one class, or the splits' classes differ.
    """
    folder = RunFolder.open(run)
    config = read_settings(folder)
    compute = Compute.choose(options.device, options.precision)
    if not folder.encoder.is_dir():
        raise RunFolderError(f"{run} is not finished; go on with pretint pretrain --resume --out {run}.")
    encoder = load_backbone(folder.encoder)
    if options.part is not None:
        encoder = split_pair(encoder)[PARTS.index(options.part)]
    data = options.data or config.data
    if options.data is None:
        options = replace(options, extra_formats=options.extra_formats or config.extra_formats)
    opened = {} if opened is None else opened
    if (data, config.image_size) not in opened:
        opened[data, config.image_size] = _open_splits(data, config.image_size, options, compute)
    train, test = opened[data, config.image_size]
    sees = _sees(encoder)
    encoders = {_init(config.task, sees): compute.place(encoder)}
    if options.control and "random" not in encoders:
        encoders["random"] = compute.place(untrained(encoder, config.image_size, options.seed))
    pretrained_on: dict[str, Any] = folder.config.get("data", {})
    name = str(pretrained_on.get("name", config.data))
    return Judged(folder, compute, train, test, encoders, name, sees, _leaks(config, encoder))


def _leaks(config: PretrainConfig, encoder: nn.Module) -> str | None:
    """Whose labels helped a run: those of a fused classifier, or those that made the weights it began with."""
    card: Any = getattr(encoder, "card", {})
    return leaked_labels(config.fusion) or (str(card["leaks"]) if card.get("leaks") else None)


def _init(task: str, sees: str) -> str:
    """Where the weights of a run's encoder come from, in the words of transfer tables."""
    if not any(getattr(TASKS[name], "trains", True) for name in task_names(task)):
        return "random"
    if "classes" in task_options(task):  # what tasks that learn from labels are told
        return "supervised-grey" if sees == "grey" else "supervised-rgb"
    return "pretrained"


def _sees(encoder: nn.Module) -> str:
    """What the encoder's input is made of, in the words of transfer tables."""
    preprocess = encoder.preprocess
    assert isinstance(preprocess, Preprocess)
    if preprocess.chroma is None:
        return "grey" if preprocess.in_chans == 1 else "rgb"
    return "chroma" if preprocess.in_chans == 2 else "luma and chroma"


def untrained(encoder: nn.Module, image_size: int, seed: int, preprocess: Preprocess | None = None) -> nn.Module:
    """The same network with random weights and the same preprocessing, or another one."""
    spec, own = encoder.spec, encoder.preprocess
    assert isinstance(spec, BackboneSpec)
    assert isinstance(own, Preprocess)
    preprocess = preprocess or own
    torch.manual_seed(seed)
    stem = "auto" if spec.stem == "native" else spec.stem
    return create_backbone(
        spec.name, preprocess.in_chans, stem, image_size=image_size, preprocess=preprocess, **spec.options
    ).eval()  # fmt: skip


def check_enough_labels(labels: Tensor, share: float, option: str = "--labels") -> None:
    """Raises DataError unless every class keeps two labelled images, one to train and one to choose on, at this share."""
    kept = labels[class_balanced_subset(labels, share, 0).to(labels.device)].unique(return_counts=True)[1]
    if int(kept.min()) < 2:
        raise DataError(
            f"{option} {share:g}: {int(kept.sum())} labelled images for {len(kept)} classes; each class needs 2, one to "
            f"train and one to choose on, so {2 * len(kept)} or more in all: use a larger share, or more images."
        )


def _open_splits(data: str, size: int, options: TransferOptions, compute: Compute) -> Splits:
    train, test = (_open_labelled(data, split, size, options, compute) for split in ("train", "test"))
    if train.class_names != test.class_names:
        raise DataError(f"--data {data}: the classes of train and test differ; give both the same sub-folders.")
    assert train.labels is not None
    assert test.labels is not None
    seen = set(train.labels.unique().tolist())
    if len(seen) < 2:
        raise DataError(f"--data {data}: all training images are of one class; give two or more.")
    if unseen := sorted(set(test.labels.unique().tolist()) - seen):
        raise DataError(f"--data {data}: classes {unseen} of the test images occur in no training image.")
    return train, test


def _open_labelled(data: str, split: str, size: int, options: TransferOptions, compute: Compute) -> ImageSource:
    if split not in available_splits(data, options.root):
        raise DataError(f"--data {data}: there is no {split} split; give a folder with train/ and test/ inside.")
    source = open_source(
        data, split, options.root, image_size=size, max_broken=options.max_broken, extra_formats=options.extra_formats
    )
    if source.labels is None:
        raise DataError(f"--data {data}: the {split} split has no labels; give a folder with one sub-folder a class.")
    report_broken(source)
    return source.to(compute.device)
