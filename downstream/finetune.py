"""How good does the whole network become when it may change? Fine-tuning with few or all labels."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from ..data import Batch, Batches, ImageSource, class_balanced_subset
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError
from ..runtime.loop import LoopSettings, Loss, Training
from ..runtime.processes import gather_rows, is_main, parallel, share, world_size
from ..runtime.runlog import RunLog
from .linear import linear_classifier
from .protocol import held_out
from .scores import confusion_counts, top_k_accuracy

_BATCHES_AT_LEAST = 16


@dataclass(frozen=True)
class FineTuneResult:
    """What fine-tuning reached.

    Attributes:
        top1, top5: test accuracy, fractions of 1; top5 is None with fewer than six classes.
        confusion: (classes, classes) int64, rows are true classes.
        best_epoch: the epoch (from 1) with the lowest loss on held-out training images, whose weights were tested.
        epochs: epochs trained.
        label_ids: the training images whose labels were used.
        seconds: wall clock of training and test.
        model: the tested classifier, in evaluation mode on the device it was trained on.
        probabilities: float32 (m, classes) on the CPU, of the classes of each test image: softmax of the logits, for calibration.
    """

    top1: float
    top5: float | None
    confusion: np.ndarray
    best_epoch: int
    epochs: int
    label_ids: np.ndarray
    seconds: float
    model: nn.Module = field(repr=False, compare=False)
    probabilities: Float32[Tensor, "m c"] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, without ids, model and probabilities."""
        long = ("confusion", "label_ids", "model", "probabilities")
        fields = {k: v for k, v in vars(self).items() if k not in long}
        return fields | {"confusion": self.confusion.tolist(), "label_count": len(self.label_ids)}


def fine_tune(
    encoder: nn.Module,
    train: ImageSource,
    test: ImageSource,
    *,
    labels: float = 1.0,
    epochs: int = 10,
    min_steps: int = 400,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.05,
    layer_decay: float = 0.95,
    probe_first: bool = False,
    augment: str = "flip-crop",
    holdout: float = 0.1,
    patience: int | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    title: str = "finetune",
    quiet: bool = False,
) -> FineTuneResult:
    """Trains a copy of the encoder with a fresh classifier on labelled images and tests it once.

    Several processes share each batch, and the images to test; all of them must call this, and get the same result.

    The epoch is chosen by the loss on held-out training images. A layer's learning rate is `learning_rate` times `layer_decay` to
    the power of its distance from the classifier (Howard & Ruder 2018, section 3.2, through timm's `group_matcher`).

    Args:
        encoder: timm's contract, with `preprocess`; it is not changed.
        train, test: labelled sources with the same classes.
        labels: share of the training labels, in (0, 1]; the subset is fixed by the seed and class-balanced.
        epochs: passes over the labelled images; more if needed for `min_steps` optimiser steps.
        min_steps: fewest optimiser steps, so that few labels do not mean hardly any training.
        batch_size: images a step, of all processes together; less if there would be under 16 steps an epoch.
        learning_rate: of the classifier (AdamW, warm-up and cosine).
        weight_decay: not on biases and normalisations.
        layer_decay: in (0, 1]; 1 gives all layers the same rate, which is what training from scratch wants.
        probe_first: the classifier begins as the linear probe of the frozen encoder on the labelled images that are trained on, so
            that its first, large errors do not tear up the features (Kumar et al. 2022, "Fine-tuning can distort pretrained
            features and underperform out-of-distribution", section 3); fresh by default.
        augment: none, flip or flip-crop.
        holdout: share of the labelled images of each class that chooses the epoch; of all labels those that the probes hold out,
            for the same seed.
        patience: stop after so many epochs without a better held-out loss.
        seed: of subset, classifier and order.
        compute: device and precision; chosen if left out.
        title, quiet: of the progress bar.

    Raises:
        ArgumentError: labels or layer_decay out of range; `probe_first` with a network whose classifier is not one linear layer,
            or with a class of which no image can be held out.
        DataError: a source has no labels, only one class, or test classes that training lacks, or a class has fewer than two
            labelled images.
    """
    compute = compute or Compute.choose()
    ids, classes = _labelled_ids(train, test, labels, layer_decay, seed)
    start = time.perf_counter()
    assert train.labels is not None
    apart = held_out(train.labels.cpu()[ids], holdout, seed)
    kept, held = (~apart).nonzero().flatten(), apart.nonzero().flatten()
    torch.manual_seed(seed)
    model = copy.deepcopy(encoder)
    model.reset_classifier(classes)  # type: ignore[operator]
    model = compute.place(model)
    chosen = train.subset(ids)
    # as many in each process, and two of them, which batch norm needs
    batch_size = max(2, min(batch_size, len(kept) // _BATCHES_AT_LEAST) // world_size()) * world_size()
    batches = Batches(chosen.subset(kept), batch_size, seed=seed, augment=augment, device=compute.device)
    epochs = max(epochs, math.ceil(min_steps / len(batches)))
    if probe_first:
        _begin_as_probe(model, chosen.subset(kept), classes, compute, seed)
    groups = param_groups_layer_decay(model, weight_decay, layer_decay=layer_decay)
    for group in groups:
        group["lr"] = learning_rate * group.pop("lr_scale")
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=compute.device.type in ("cpu", "cuda"))
    network = parallel(model, compute.device)
    best = _BestWeights(model, chosen.subset(held), compute)
    settings = LoopSettings(epochs, warmup_epochs=min(1.0, epochs / 10), patience=patience, seed=seed)

    def loss_of(batch: Batch) -> Loss:
        inputs = compute.layout(model.preprocess(batch.rgb))  # type: ignore[operator]
        with compute.autocast():
            logits = network(inputs)
        return _classification_loss(logits, batch.labels)

    with RunLog(None, title, epochs * len(batches), quiet=quiet) as log:
        training = Training(model, optimizer, batches, loss_of, best.validate, compute, settings, network=network)
        state = training.run(log)
    model.load_state_dict(best.weights)
    logits = predict_logits(model, test, compute)
    assert test.labels is not None
    return FineTuneResult(
        top1=top_k_accuracy(logits, test.labels, 1),
        top5=top_k_accuracy(logits, test.labels, 5) if classes > 5 else None,
        confusion=confusion_counts(logits.argmax(1), test.labels, classes),
        best_epoch=state.best_epoch,
        epochs=state.step // len(batches),
        label_ids=ids.cpu().numpy(),
        seconds=time.perf_counter() - start,
        model=model,
        probabilities=logits.softmax(1).cpu(),
    )


def _begin_as_probe(model: nn.Module, source: ImageSource, classes: int, compute: Compute, seed: int) -> None:
    """Gives the classifier the weights of the linear probe on the features that it reads."""
    head = model.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise ArgumentError(
            f"probe_first: the classifier is a {type(head).__name__}, not one linear layer; leave the option out."
        )
    assert source.labels is not None
    features = _predict(model, source, compute, features=True)
    if not is_main():  # whose weights all are given before the first step
        return
    weight, bias = linear_classifier(features, source.labels, classes, seed=seed)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def _labelled_ids(
    train: ImageSource, test: ImageSource, labels: float, layer_decay: float, seed: int
) -> tuple[Int64[Tensor, " n"], int]:
    if not 0 < labels <= 1:
        raise ArgumentError(f"labels: {labels} must be above 0 and at most 1, the share of training labels to use.")
    if not 0 < layer_decay <= 1:
        raise ArgumentError(f"layer_decay: {layer_decay} must be above 0 and at most 1.")
    if train.labels is None or test.labels is None:
        raise DataError("Fine-tuning needs labels in the train and the test split; give a data set with class folders.")
    if len(train.labels.unique()) < 2:
        raise DataError("Fine-tuning needs training images of two or more classes, and these are of one.")
    if unseen := sorted(set(test.labels.unique().tolist()) - set(train.labels.unique().tolist())):
        raise DataError(
            f"Classes {unseen} of the test images occur in no training image; use the same classes in both."
        )
    ids = class_balanced_subset(train.labels, labels, seed)
    counts = train.labels.cpu()[ids].unique(return_counts=True)[1]
    if int(counts.min()) < 2:
        raise DataError(
            f"labels: {len(ids)} labelled images of {len(counts)} classes; each class needs 2, one to train and one to choose "
            f"on, so {2 * len(counts)} or more in all: use a larger share, or more images."
        )
    return ids, int(train.labels.max()) + 1


def _classification_loss(logits: Float[Tensor, "b c"], labels: Int64[Tensor, " b"] | None) -> Loss:
    assert labels is not None
    return Loss.mean_of(F.cross_entropy(logits.float(), labels, reduction="none"))


def predict_logits(
    model: nn.Module, source: ImageSource, compute: Compute, batch_size: int = 512
) -> Float[Tensor, "n c"]:
    """Logits of a classifier with `preprocess` for all images of a source, in evaluation mode, float32; of several processes each
    looks at its share, and all of them get, and must ask for, the whole."""
    return _predict(model, source, compute, batch_size)


@torch.inference_mode()
def _predict(
    model: nn.Module, source: ImageSource, compute: Compute, batch_size: int = 512, *, features: bool = False
) -> Float[Tensor, "n c"]:
    """Logits, or the pooled features that they are made of."""
    model.eval()
    parts = []
    for ids in torch.arange(len(source))[share(len(source))].split(batch_size):
        rgb = source.gather(ids, compute.device)
        with compute.autocast():
            inputs = compute.layout(model.preprocess(rgb))  # type: ignore[operator]
            last = model.forward_features(inputs)  # type: ignore[operator]
            parts.append(model.forward_head(last, pre_logits=features).float())  # type: ignore[operator]
    return gather_rows(torch.cat(parts), len(source))


class _BestWeights:
    """Validates on held-out images and remembers the weights with the lowest loss."""

    def __init__(self, model: nn.Module, held: ImageSource, compute: Compute):
        self.model, self.held, self.compute = model, held, compute
        self.lowest, self.weights = math.inf, copy.deepcopy(model.state_dict())

    def validate(self) -> dict[str, float]:
        logits = predict_logits(self.model, self.held, self.compute)
        assert self.held.labels is not None
        labels = self.held.labels.to(logits.device)
        loss = float(F.cross_entropy(logits, labels))
        if loss < self.lowest:
            self.lowest, self.weights = loss, copy.deepcopy(self.model.state_dict())
        return {"validation_loss": loss, "validation_top1": float((logits.argmax(1) == labels).float().mean())}
