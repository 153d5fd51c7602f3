"""How is a whole network trained on labels, be it pretrained, from scratch, or as the supervised control?"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._version import __version__
from ..backbones import BackboneSpec, Preprocess, load_backbone, save_backbone
from ..data import AUGMENTATIONS
from ..downstream import FineTuneResult, fine_tune
from ..evaluation import expected_calibration_error, transfer_row
from ..runtime.errors import ArgumentError, RunFolderError, UnknownNameError
from ..runtime.processes import any_process, is_main, main_first
from ..runtime.runlog import note
from .options import not_negative
from .transfer_data import Judged, TransferOptions

# Lists of more ids than this would be most of a results file; seed and share give them again, the checksum proves it.
_MOST_IDS = 5000


@dataclass(frozen=True, kw_only=True)
class TuningOptions(TransferOptions):
    """How a whole network is trained on labels.

    Attributes:
        epochs: passes over the labelled images; more with few labels, so that there are 400 steps.
        batch_size: images a step, of all processes together.
        learning_rate: peak of AdamW's learning rate, for the classifier.
        layer_decay: factor of the learning rate from each layer to the one before; from scratch all layers learn alike.
        weight_decay: of weights.
        augment: none, flip or flip-crop.
        patience: stop after so many epochs without a better held-out loss; never by default.
        probe_first: fine-tuning begins with the linear probe's classifier instead of a fresh one.
    """

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 4e-3
    layer_decay: float = 0.95
    weight_decay: float = 0.05
    augment: str = "flip-crop"
    patience: int | None = None
    probe_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "weight_decay")
        if self.augment not in AUGMENTATIONS:
            raise UnknownNameError("--augment", self.augment, AUGMENTATIONS)
        if not 0 < self.layer_decay <= 1:
            raise ArgumentError(f"--layer-decay: {self.layer_decay} must be above 0 and at most 1.")


def tuned_row(
    judged: Judged,
    encoder: nn.Module,
    marks: dict[str, Any],
    options: TuningOptions,
    labels: float,
    seed: int,
    command: str | None = None,
) -> dict[str, Any]:
    """Fine-tunes an encoder on a share of the labels; random weights are trained from scratch. One row of `results.json`."""
    scratch = marks["init"] == "random"
    result = _tune(judged, encoder, options, labels, seed, scratch=scratch, probe_first=options.probe_first)
    assert judged.test.labels is not None
    ids = result.label_ids.astype("<i8")
    return transfer_row(
        data=judged.train.name,
        fingerprint=judged.fingerprint,
        settings={name: getattr(options, name) for name in _schedule()},
        command=command,
        protocol="probe-finetune" if options.probe_first else "finetune",
        **marks,
        labels=labels,
        seed=seed,
        top1=result.top1,
        top5=result.top5,
        seconds=result.seconds,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        label_count=len(ids),
        label_ids=ids.tolist() if len(ids) <= _MOST_IDS else None,
        label_ids_sha256=hashlib.sha256(np.ascontiguousarray(ids).tobytes()).hexdigest(),
        ece=expected_calibration_error(result.probabilities, judged.test.labels.cpu()),
        confusion=result.confusion.tolist(),
        class_names=list(judged.train.class_names or ()),
    )


def _tune(
    judged: Judged,
    encoder: nn.Module,
    options: TuningOptions,
    labels: float,
    seed: int,
    *,
    scratch: bool,
    probe_first: bool = False,
) -> FineTuneResult:
    return fine_tune(
        encoder,
        judged.train,
        judged.test,
        labels=labels,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        layer_decay=1.0 if scratch else options.layer_decay,
        augment=options.augment,
        patience=options.patience,
        probe_first=probe_first,
        seed=seed,
        compute=judged.compute,
        title="from scratch" if scratch else "finetune",
    )


def supervised_encoder(
    judged: Judged, untrained: nn.Module, options: TuningOptions, seed: int, cache: Path | None
) -> nn.Module:
    """The encoder of a network that all labels trained from scratch, by the schedule of `pretint finetune`.

    Args:
        judged: the labelled images, and where to compute.
        untrained: the network with random weights.
        options: the schedule.
        seed: of training.
        cache: a folder for trained encoders, by a fingerprint of network, data, schedule and seed; it may be deleted at any
            time. None: nothing is kept.
    """
    if cache is None:
        return _tune(judged, untrained, options, 1.0, seed, scratch=True).model
    folder = cache / _fingerprint(judged, untrained, options, seed)
    encoder = _cached_encoder(folder)
    if any_process(encoder is None):
        note(f"transfer: training the supervised control, seed {seed}")
        trained = _tune(judged, untrained, options, 1.0, seed, scratch=True).model
        card = {"task": "supervised", "data": judged.train.name, "epochs": options.epochs, "seed": seed}
        kept = True
        with main_first():  # each machine has it in its own cache, unless that is the main process's too
            if is_main() or _cached_encoder(folder) is None:
                try:
                    save_backbone(trained, folder, card, judged.train.image_size)
                except OSError as error:
                    note(
                        f"transfer: {folder} can't be written ({error}); the supervised control is not kept for the next "
                        "time."
                    )
                    kept = False
        if any_process(not kept):
            return trained
        # not the trained one: it has a classifier, and its features would be cached under another name than those of the next call
        encoder = load_backbone(folder)
    assert encoder is not None
    return judged.compute.place(encoder)


def _cached_encoder(folder: Path) -> nn.Module | None:
    """What was kept there; None where there is nothing, or (with a warning) where it is damaged."""
    if not folder.is_dir():
        return None
    try:
        return load_backbone(folder)
    except RunFolderError as error:
        warnings.warn(f"the cached encoder {folder} can't be used ({error}); training it anew.", stacklevel=2)
        return None


def _schedule() -> list[str]:
    """Names of the settings of training."""
    other = {setting.name for setting in fields(TransferOptions)}
    return sorted(setting.name for setting in fields(TuningOptions) if setting.name not in other)


def _fingerprint(judged: Judged, untrained: nn.Module, options: TuningOptions, seed: int) -> str:
    """A hash of everything that the trained weights depend on."""
    spec, preprocess = untrained.spec, untrained.preprocess
    assert isinstance(spec, BackboneSpec)
    assert isinstance(preprocess, Preprocess)
    # probing first and the decay of layers' rates are for fine-tuning alone
    schedule = [name for name in _schedule() if name not in ("layer_decay", "probe_first")]
    parts = {
        "version": __version__,
        "network": [spec.to_dict(), preprocess.to_dict()],
        "data": [judged.train.fingerprint, judged.train.image_size],
        "schedule": {name: getattr(options, name) for name in schedule},
        "seed": seed,
        "precision": [judged.compute.precision, judged.compute.device.type, torch.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
