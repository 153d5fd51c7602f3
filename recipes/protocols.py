"""What does each protocol find in a frozen encoder's features? Rows and entries of `results.json`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data import ImageSource, TensorSource, augment, class_balanced_subset
from ..downstream import (
    KS,
    Features,
    NeighboursResult,
    ProbeResult,
    alignment,
    extract_features,
    feature_health,
    few_shot,
    knn,
    linear_probe,
    ridge_probe,
)
from ..evaluation import expected_calibration_error, transfer_row
from ..runtime.processes import is_main
from ..runtime.randomness import hash_permutation
from .transfer_data import Judged

# Pictures that the alignment of two views is measured on, and how they are augmented: as contrastive learning does it.
_VIEWED, _VIEWS = 2000, "flip-resized-crop"


def features_of(judged: Judged, encoder: nn.Module, grid: int, cache: Path | None) -> tuple[Features, Features]:
    """Features of the train and the test split: global averages, and averages of grid × grid cells."""
    train, test = (
        extract_features(
            encoder, source, device=judged.compute.device, autocast=judged.compute.bf16, grids=sorted({1, grid}), cache=cache
        )
        for source in (judged.train, judged.test)
    )  # fmt: skip
    return train, test


def probe_rows(
    judged: Judged,
    features: tuple[Features, Features],
    marks: Mapping[str, Any],
    protocols: Sequence[str],
    *,
    labels: float,
    grid: int,
    seed: int,
    shots: Sequence[int] = (),
    solver: str = "sgd",
    command: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the probes among `protocols`.

    Args:
        judged: the data.
        features: of its train and test split.
        marks: what the rows say of the encoder.
        protocols: linear, ridge, knn, fewshot; others are passed over.
        labels: share of the training labels; few-shot has its own numbers.
        grid: that the features were pooled to.
        seed: of the labelled images and of those that choices are made on.
        shots: labelled images a class for few-shot, one draw each.
        solver: of the linear probe.
        command: what was typed, for the report.
    """
    train, test = features
    where = judged.compute.device
    assert train.labels is not None
    assert test.labels is not None
    ids = class_balanced_subset(train.labels, labels, seed)
    arrays = train.arrays if labels == 1 else {layer: array[ids] for layer, array in train.arrays.items()}
    # at most half of the images are held out to choose k
    probes = {
        "linear": partial(linear_probe, solver=solver),
        "ridge": ridge_probe,
        "knn": partial(knn, ks=[k for k in KS if 2 * k <= len(ids)]),
    }
    for protocol in protocols:
        told = {"grid": grid, "solver": solver} if protocol == "linear" else {"grid": grid}
        about = {"protocol": protocol, **marks, "settings": told, "command": command}
        if protocol in probes:
            start = time.perf_counter()
            result = probes[protocol](arrays, train.labels[ids], test.arrays, test.labels, seed=seed, device=where)
            yield _row(judged, about, labels, result, test.labels, time.perf_counter() - start)
        for count in shots if protocol == "fewshot" else ():
            start = time.perf_counter()
            found = few_shot(
                train.arrays, train.labels, test.arrays, test.labels, per_class=[count], seeds=[seed], device=where
            )  # fmt: skip
            (draw,) = found[count].draws
            yield _row(judged, about, float(count), draw, test.labels, time.perf_counter() - start)


def _row(
    judged: Judged, about: Mapping[str, Any], labels: float, result: ProbeResult, test_labels: Tensor, seconds: float
) -> dict[str, Any]:
    more: dict[str, Any] = {"per_k": result.per_k[result.layer]} if isinstance(result, NeighboursResult) else {}
    ece = None if result.probabilities is None else expected_calibration_error(result.probabilities, test_labels)
    return transfer_row(
        data=judged.train.name,
        fingerprint=judged.fingerprint,
        **about,
        labels=labels,
        layer=result.layer,
        seed=result.seed,
        top1=result.top1,
        top5=result.top5,
        seconds=seconds,
        per_layer=result.per_layer,
        chosen=result.chosen,
        confusion=result.confusion.tolist(),
        ece=ece,
        class_names=list(judged.train.class_names or ()),
        **more,
    )


def health_entries(
    judged: Judged, encoder: nn.Module, features: Features, marks: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """The health of every stage's global average on the test images: entries of the list `features` of `results.json`. All
    processes must call this, and the main one gets the entries."""
    start = time.perf_counter()
    stages = [layer for layer in features.arrays if "/" not in layer]
    ids = hash_permutation(seed, 0, len(judged.test))[:_VIEWED]
    first, second = (
        extract_features(
            encoder,
            _view(judged.test, ids, seed, number),
            device=judged.compute.device,
            autocast=judged.compute.bf16,
            layers=stages,
        ).arrays
        for number in (0, 1)
    )
    entries = []
    for layer in stages if is_main() else ():
        health = feature_health(features.arrays[layer], seed=seed)
        figures = health.to_dict() | {"alignment": alignment(first[layer], second[layer])}
        entries.append({
            "data": judged.test.name, "fingerprint": judged.test.fingerprint, "split": "test", "images": len(judged.test),
            **marks, "seed": seed, "layer": layer, **figures, "views": _VIEWS,
        })  # fmt: skip
    seconds = time.perf_counter() - start
    return [entry | {"seconds": seconds} for entry in entries]


def _view(source: ImageSource, ids: Tensor, seed: int, number: int) -> TensorSource:
    """Some pictures of a source, augmented in one of several ways."""
    pictures = source.gather(ids)
    return TensorSource(augment(pictures, ids, seed=seed, epoch=0, mode=_VIEWS, view=number), name=source.name)
