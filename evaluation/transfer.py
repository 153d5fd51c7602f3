"""What is a row of the transfer table, and what is in it called?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime.errors import ArgumentError, UnknownNameError

PROTOCOLS = ("linear", "ridge", "knn", "finetune", "probe-finetune", "fewshot")
INITS = ("pretrained", "supervised-grey", "supervised-rgb", "random")
INPUTS = ("grey", "chroma", "luma and chroma", "rgb")

# Protocols that change the whole network; with random weights they are training from scratch.
TUNING = ("finetune", "probe-finetune")

Row = Mapping[str, Any]

_PROTOCOL_NAMES = {
    "linear": "linear probe",
    "ridge": "ridge probe",
    "knn": "kNN",
    "finetune": "fine-tune",
    "probe-finetune": "linear probe, then fine-tune",
    "fewshot": "few-shot",
}
_INIT_NAMES = {
    "pretrained": "pretrained",
    "random": "random weights",
    "supervised-grey": "supervised",
    "supervised-rgb": "supervised",
}


def transfer_row(
    *,
    data: str,
    protocol: str,
    init: str,
    top1: float | int,
    top5: float | int | None = None,
    labels: float | int = 1.0,
    layer: str | None = None,
    seed: int = 0,
    pretrained_on: str | None = None,
    seconds: float | int | None = None,
    sees: str = "grey",
    leaks: str | None = None,
    fingerprint: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """One entry of `results.json`, list `"transfer"`.

    `protocol` is one of `PROTOCOLS`, `init` one of `INITS`. `top1` and `top5` are fractions of 1; `top5` is None when
    there are fewer than six classes. `labels` is the share of the training labels in (0, 1]; for `fewshot` it is the
    number of images a class. `layer` names the depth a probe chose (None for fine-tuning), `seconds` is what the
    protocol took, `sees` one of `INPUTS`: what the encoder's input is made of, `leaks` says whose labels helped a
    pretext that should need none. `fingerprint` are those of the judged images (train, test) and `settings` what the
    protocol was told, such as the grid or the epochs: results with others are no controls of each other. `extra` is
    kept as it is (JSON-able); the report page reads from it `confusion` (c lists of c counts, rows = true classes),
    `class_names` (c strings), `per_layer` ({layer: {"test_top1": fraction}} or {layer: fraction}) and `command`; tables
    read `ece` (expected calibration error, 0…1) and `run`, the name of the run where several stand in one table.

    Raises UnknownNameError for a protocol or init that is not listed, ArgumentError for a number out of range.

    >>> row = transfer_row(data="toy", protocol="linear", init="random", top1=0.48, layer="stage2")
    >>> row["init"], row["top1"], row["labels"], row["top5"]
    ('random', 0.48, 1.0, None)
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if init not in INITS:
        raise UnknownNameError("init", init, INITS)
    if sees not in INPUTS:
        raise UnknownNameError("sees", sees, INPUTS)
    for name, value in (("top1", top1), ("top5", top5)):
        if value is not None and not 0 <= value <= 1:
            raise ArgumentError(f"{name}: got {value}; an accuracy is a fraction between 0 and 1.")
    if not (0 < labels < math.inf if protocol == "fewshot" else 0 < labels <= 1):
        needed = "a positive number of images a class" if protocol == "fewshot" else "a share in (0, 1]"
        raise ArgumentError(f"labels: got {labels}; {protocol} needs {needed}.")
    row = {
        "data": data,
        "pretrained_on": pretrained_on,
        "protocol": protocol,
        "init": init,
        "labels": float(labels),
        "layer": layer,
        "seed": int(seed),
        "top1": float(top1),
        "top5": None if top5 is None else float(top5),
        "seconds": None if seconds is None else float(seconds),
        "sees": sees,
        "leaks": leaks,
        "fingerprint": None if fingerprint is None else list(fingerprint),
        "settings": None if settings is None else dict(settings),
    }
    return {**row, **extra}


def protocol_name(protocol: str) -> str:
    """The protocol's name in tables: `linear` → `linear probe`."""
    return _PROTOCOL_NAMES.get(protocol, protocol)


def init_name(
    init: str, protocol: str, sees: str = "grey", leaks: str | None = None, learnt_on: str | None = None
) -> str:
    """What an init is called in tables; fine-tuning random weights is supervised training from scratch, and called so.

    Encoders that see colour are marked, since grey and colour input are not to be compared; so are those whose pretext
    labels helped. `learnt_on` names the data that the weights come from, where that is worth saying.

    >>> init_name("random", "linear"), init_name("random", "finetune"), init_name("pretrained", "linear", "rgb")
    ('random weights', 'from scratch, grey input', 'pretrained, rgb input')
    >>> init_name("supervised-grey", "linear"), init_name("pretrained", "linear", leaks="labels of timm/resnet18")
    ('supervised, grey input', 'pretrained, leaks labels of timm/resnet18')
    """
    name = "from scratch" if init == "random" and protocol in TUNING else _INIT_NAMES.get(init, init)
    learns_from_labels = name in ("from scratch", "supervised")
    if init == "supervised-rgb" and sees == "grey":
        sees = "rgb"
    marks = [name if learnt_on is None else f"{name} on {learnt_on}"]
    if sees != "grey" or learns_from_labels:
        marks.append(f"{sees} input")
    if leaks:
        marks.append(f"leaks {leaks}")
    return ", ".join(marks)
