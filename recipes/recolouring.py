"""Who judges painted pictures by their classes? A small classifier that learned from true colours, trained once a data set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from .._version import __version__
from ..backbones import create_backbone, load_backbone, save_backbone
from ..data import ImageSource
from ..downstream import fine_tune
from ..runtime.device import Compute
from ..runtime.encoderfacts import EncoderFacts
from ..runtime.errors import DataError, RunFolderError
from ..runtime.processes import any_process, is_main, main_first
from ..runtime.runlog import note
from ..runtime.tensors import read_metadata, read_tensors, tensors_checksum, write_tensors
from .training_data import class_count

# Part of every cache key: a change of the training or of the files makes old ones unreachable rather than wrong.
_CACHE_FORMAT = 1
_CLASSIFIER = "classifier.safetensors"


@dataclass(frozen=True)
class Budget:
    """How the classifier is trained: from scratch, by :func:`fine_tune` with one learning rate for all layers.

    Attributes:
        backbone: its encoder, which sees RGB.
        epochs: passes over the images; more on few images, so that there are `min_steps` steps.
        min_steps: fewest steps.
        most_images: of more training images, so many are used, the same share of each class.
        learning_rate: AdamW's, at its peak.
        seed: of weights, order and held-out images.
    """

    backbone: str = "pretint_resunet_tiny"
    epochs: int = 5
    min_steps: int = 400
    most_images: int = 50_000
    learning_rate: float = 4e-3
    seed: int = 0


USUAL = Budget()


@dataclass(frozen=True)
class ColourClassifier:
    """A classifier as `evaluation` takes it: a function from RGB uint8 pictures to logits.

    Attributes:
        model: encoder with classifier, in evaluation mode on the device.
        compute: device and precision.
    """

    model: nn.Module
    compute: Compute

    @torch.inference_mode()
    def __call__(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        inputs = self.model.preprocess(rgb)  # pyright: ignore[reportCallIssue]  # typed as Tensor | Module
        with self.compute.autocast():
            return self.model(self.compute.layout(inputs)).float()


def colour_classifier(
    train: ImageSource, judged: ImageSource, cache: Path, compute: Compute, budget: Budget | None = None
) -> ColourClassifier:
    """The classifier for a data set: from the cache folder, or trained on its true colours and put there.

    It is kept under a hash of the training images with their labels, the budget and the version of Pretint, whatever the
    device: all runs are judged by the same one. A damaged one is trained anew; the folder may be deleted at any time.

    Args:
        train: labelled images that are not judged.
        judged: labelled images of the same classes; they choose nothing.
        cache: holds one folder a classifier: `encoder/` as of :func:`save_backbone`, and `classifier.safetensors`.
        compute: device and precision.
        budget: of the training; None for :data:`USUAL`.

    Raises:
        DataError: there are no labels, or of fewer than two classes, or classes to judge that the training images lack.
    """
    budget = budget or USUAL
    classes = _class_count(train, judged)
    folder = cache / _key(train, budget)
    model = _read(folder, classes)
    if any_process(model is None):
        model = _train(train, judged, folder, compute, budget)
    else:
        note(f"--recolour: the classifier of true {train.name} pictures is at hand ({folder}).")
    assert model is not None
    return ColourClassifier(compute.place(model).eval(), compute)


def _class_count(train: ImageSource, judged: ImageSource) -> int:
    """Classes that the classifier tells apart, checked."""
    if train.labels is None or judged.labels is None:
        raise DataError(
            f"--recolour: {judged.name} has no labels to judge painted pictures by; give data with one sub-folder a class, "
            "or leave the option out."
        )
    if len(train.labels.unique()) < 2:
        raise DataError(
            f"--recolour: the training images of {train.name} are of one class, and at least two are needed; name more "
            "--classes or other --data."
        )
    classes = int(train.labels.max()) + 1
    if train.class_names != judged.class_names or int(judged.labels.max()) >= classes:
        raise DataError(
            f"--recolour: the classes of train and test of {judged.name} differ; give both the same sub-folders."
        )
    return classes


def _key(train: ImageSource, budget: Budget) -> str:
    """A hash of everything that the classifier depends on."""
    parts = {
        "format": _CACHE_FORMAT,
        "version": __version__,
        "data": [train.fingerprint, len(train), train.image_size],
        "budget": asdict(budget),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _train(train: ImageSource, judged: ImageSource, folder: Path, compute: Compute, budget: Budget) -> nn.Module:
    share = min(1.0, budget.most_images / len(train))
    images = round(share * len(train))
    note(
        f"--recolour: training a classifier on {images} true pictures of {train.name} ({budget.backbone}, {budget.epochs} "
        f"epochs, at least {budget.min_steps} steps), once for this data set."
    )
    torch.manual_seed(budget.seed)
    encoder = create_backbone(budget.backbone, 3, image_size=train.image_size)
    result = fine_tune(
        encoder,
        train,
        judged,
        labels=share,
        epochs=budget.epochs,
        min_steps=budget.min_steps,
        learning_rate=budget.learning_rate,
        layer_decay=1.0,
        seed=budget.seed,
        compute=compute,
        title="classifier",
    )
    note(f"--recolour: trained in {result.seconds:.0f} s; it finds {100 * result.top1:.1f} % of the true pictures.")
    with main_first():  # each machine has it in its own cache, unless that is the main process's too
        if is_main() or _read(folder, class_count(train)) is None:
            _write(
                folder, result.model, {"data": train.name, "fingerprint": train.fingerprint, "budget": asdict(budget)}
            )
    return result.model


def _write(folder: Path, model: Any, card: dict[str, Any]) -> None:
    """The classifier goes last and names its encoder, so that half of a pair is never taken for a whole one."""
    try:
        save_backbone(model, folder / "encoder", {"task": "classification of true colours", **card})
        classifier = model.get_classifier().state_dict()
        metadata = {"checksum": tensors_checksum(classifier), "encoder": EncoderFacts.read(folder / "encoder").checksum}
        write_tensors(folder / _CLASSIFIER, classifier, metadata)
    except OSError as error:
        note(f"--recolour: {folder} can't be written ({error}); the classifier is not kept for the next time.")


def _read(folder: Path, classes: int) -> nn.Module | None:
    """The cached classifier on the CPU; None where there is none, or (with a word) where it is damaged."""
    path = folder / _CLASSIFIER
    if not path.is_file():
        return None
    try:
        model: Any = load_backbone(folder / "encoder")
        tensors, metadata = read_tensors(path), read_metadata(path)
        wanted = {"checksum": tensors_checksum(tensors), "encoder": EncoderFacts.read(folder / "encoder").checksum}
        if metadata != wanted:
            raise RunFolderError(f"{path} is not the file that was saved (checksum)")
        model.reset_classifier(classes)
        model.get_classifier().load_state_dict(tensors)
    except (RunFolderError, RuntimeError) as error:
        note(f"--recolour: the classifier in {folder} is damaged ({error}); training it anew.")
        return None
    return model
