"""`pretint finetune`: the whole encoder trained on labels, beside the same network trained from scratch on the same grey input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..data import AUGMENTATIONS
from ..downstream import fine_tune
from ..evaluation import transfer_row, transfer_table
from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.results import add_results
from .options import Outcome, not_negative
from .transfer_data import Judged, TransferOptions, open_judged


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TransferOptions):
    """Judge a run's encoder by fine-tuning all of it.

    Attributes:
        run: the run's folder.
        epochs: passes over the labelled images; more with few labels, so that there are 400 steps.
        batch_size: images a step.
        learning_rate: peak of AdamW's learning rate, for the classifier.
        layer_decay: factor of the learning rate from each layer to the one before; from scratch all layers learn alike.
        weight_decay: of weights.
        augment: none, flip or flip-crop.
        patience: stop after so many epochs without a better held-out loss; never by default.
    """

    run: Positional[Path]
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 4e-3
    layer_decay: float = 0.95
    weight_decay: float = 0.05
    augment: str = "flip-crop"
    patience: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "weight_decay")
        if self.augment not in AUGMENTATIONS:
            raise UnknownNameError("--augment", self.augment, AUGMENTATIONS)
        if not 0 < self.layer_decay <= 1:
            raise ArgumentError(f"--layer-decay: {self.layer_decay} must be above 0 and at most 1.")


def finetune(config: FinetuneConfig) -> Outcome:
    """Fine-tunes a run's encoder and, as control, trains the same network from scratch; adds both to `results.json`.

    Raises:
        PretintError: the run or the data can't be used, or the loss is not finite.
    """
    judged = open_judged(config.run, config)
    rows = [_finetune_one(judged, init, config) for init in judged.encoders]
    results = add_results(judged.folder.path, "transfer", rows)
    return Outcome({"run": str(config.run), **results}, [transfer_table(rows)])


def _finetune_one(judged: Judged, init: str, config: FinetuneConfig) -> dict[str, Any]:
    result = fine_tune(
        judged.encoders[init],
        judged.train,
        judged.test,
        labels=config.labels,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        layer_decay=1.0 if init == "random" else config.layer_decay,
        augment=config.augment,
        patience=config.patience,
        seed=config.seed,
        compute=judged.compute,
        title="from scratch" if init == "random" else "finetune",
    )
    return transfer_row(
        data=judged.train.name,
        protocol="finetune",
        **judged.marks(init),
        labels=config.labels,
        seed=config.seed,
        top1=result.top1,
        top5=result.top5,
        seconds=result.seconds,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        label_count=len(result.label_ids),
        confusion=result.confusion.tolist(),
        class_names=list(judged.train.class_names or ()),
    )
