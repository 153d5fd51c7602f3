"""Which published systems run here under their own name? A preset is settings: what the user types overrides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import UnknownNameError
from .settings import PretrainConfig

DEFAULT_PRESET = "pretint"


@dataclass(frozen=True)
class Preset:
    """Settings of :class:`PretrainConfig` under a name.

    Attributes:
        about: what it is, and the choices that its source left open.
        expected: what its authors report, or what was measured here.
        settings: by name; all others keep their defaults.
    """

    about: str
    expected: str
    settings: dict[str, Any]


_TORONTO: dict[str, Any] = {
    "data": "cifar10", "classes": ("horse",), "task": "palette", "colours": 24, "palette_space": "rgb", "decode": "mode",
    "grey": "mean", "input_mean": 0.0, "input_std": 256 / 255, "optimizer": "adam", "learning_rate": 1e-3, "schedule": "constant",
    "weight_decay": 0.0, "warmup_epochs": 0.0, "clip": None, "batch_size": 100, "epochs": 25, "augment": "none", "holdout": 0.0,
}  # fmt: skip
_STRIDED = {"backbone": "pretint_toronto_strided"}
_POOLED = {"backbone": "pretint_toronto_cnn"}
_WALLNER: dict[str, Any] = {
    "data": "cifar10", "task": "lab-regression", "grey": "lstar", "input_mean": 0.0, "input_std": 0.01, "optimizer": "rmsprop",
    "learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0, "warmup_epochs": 0.0, "clip": None, "augment": "none",
}  # fmt: skip
_PAIRED: dict[str, Any] = {
    "data": "cifar10",
    "backbone": "pretint_resunet",
    "width": 16,
    "depth": 4,
    "epochs": 10,
    "learning_rate": 4e-3,
}

PRESETS: dict[str, Preset] = {
    "pretint": Preset(
        "the best recipe found here: 24 chroma colours at a quarter of the resolution, read off a residual encoder's two deepest "
        "stages by 1 × 1 convolutions",
        "see docs/results.md",
        {
            "task": "palette", "palette_space": "cbcr", "backbone": "pretint_resunet", "width": 32, "depth": 4,
            "decoder": "hypercolumn", "predict_at": 4, "skips": 1, "learning_rate": 4e-3, "batch_size": 128, "epochs": 14,
        },
    ),
    "toronto-cnn": Preset(
        "the pooling network of the Toronto course (CSC321 and its successors), horses only",
        "1.585 nats, 41.4 %",
        {**_TORONTO, **_POOLED, "decoder": "toronto-cnn"},
    ),
    "toronto-convtranspose": Preset(
        "the same course's network with strides and transposed convolutions",
        "1.157 nats, 54.7 %",
        {**_TORONTO, **_STRIDED, "decoder": "toronto-convtranspose"},
    ),
    "toronto-unet": Preset(
        "that network with three skip connections", "1.051 nats, 58.9 %", {**_TORONTO, **_STRIDED, "decoder": "toronto-unet"}
    ),
    "toronto-unet-pool": Preset(
        "the pooling network with three skip connections (2018 and 2019)",
        "1.349 nats, 48 %",
        {**_TORONTO, **_POOLED, "decoder": "toronto-unet-pool"},
    ),
    "toronto-regression": Preset(
        "regression of RGB, five epochs; the U-Net is the choice made here",
        "no figure published",
        {**_TORONTO, **_STRIDED, "decoder": "toronto-unet", "task": "rgb-regression", "epochs": 5},
    ),
    "toronto-superres": Preset(
        "super-resolution from 8 × 8 pixels by the U-Net",
        "1.468 nats, 47 %",
        {**_TORONTO, **_STRIDED, "decoder": "toronto-unet", "task": "superres"},
    ),
    "wallner-alpha": Preset(
        "one image learnt by heart from L*, 1000 epochs; the image is the first of the training split",
        "error near zero on that image",
        {**_WALLNER, "backbone": "pretint_wallner_alpha", "decoder": "wallner-alpha", "limit": 1, "batch_size": 1, "epochs": 1000,
         "holdout": 0.0, "paint_every": 250},
    ),
    "wallner-beta": Preset(
        "more layers, and shear, zoom, rotation and flip; batch 32 and 10 epochs are the choice made here",
        "no figure published",
        {**_WALLNER, "backbone": "pretint_wallner_beta", "decoder": "wallner-beta", "augment": "flip-affine", "batch_size": 32,
         "epochs": 10},
    ),
    "wallner-full": Preset(
        "a global vector fused into the bottleneck; here the network's own average, so that no label leaks in"
        " (--fusion timm/NAME takes a classifier's output instead); batch 32, 10 epochs",
        "no figure published",
        {**_WALLNER, "backbone": "pretint_wallner_full", "decoder": "wallner-full", "augment": "flip-affine", "batch_size": 32,
         "epochs": 10},
    ),
    "cifar100-unet": Preset(
        "a classic U-Net regresses RGB on CIFAR-100, ten epochs; width 32, AdamW and batch 128 are the choice made here",
        "no figure published",
        {"data": "cifar100", "task": "rgb-regression", "backbone": "pretint_unet", "width": 32, "epochs": 10, "batch_size": 128,
         "learning_rate": 1e-3, "augment": "none"},
    ),
    "cs520-autoencoder": Preset(
        "5 × 5 convolutions around a dense bottleneck, squared error, SGD with Nesterov momentum, stopped when the validation loss "
        "rises (watched each epoch here); grey is rec709's (0.2126, 0.7152, 0.0722), the source's rounded",
        "no figure published",
        {"data": "cifar10", "task": "rgb-regression", "backbone": "pretint_cs520", "decoder": "cs520", "grey": "rec709",
         "input_mean": 0.0, "input_std": 1.0, "optimizer": "sgd", "learning_rate": 0.01, "schedule": "constant",
         "weight_decay": 0.0, "warmup_epochs": 0.0, "batch_size": 100, "epochs": 50, "augment": "none", "patience": 10},
    ),
    "zhang16": Preset(
        "313 ab bins, soft targets of the five nearest, class rebalancing; predicted at half resolution from 32 × 32",
        "no figure published at this size",
        {"data": "cifar10", "task": "bins", "grey": "lstar", "rebalance": 0.5, "backbone": "pretint_resunet", "width": 32,
         "depth": 4, "predict_at": 2, "epochs": 10, "learning_rate": 4e-3},
    ),
    "split-brain": Preset(
        "two half-width encoders: 313 ab bins from L*, 50 levels of L* from ab, at half resolution",
        "no figure published at this size",
        {**_PAIRED, "task": "split-brain", "grey": "lstar", "chroma": "ab", "palette_space": "ab", "predict_at": 2},
    ),
    "cmc-lab": Preset(
        "luma ↔ chroma contrast on L* and ab",
        "no figure published at this size",
        {**_PAIRED, "task": "contrast", "grey": "lstar", "chroma": "ab", "augment": "flip-resized-crop"},
    ),
    "cmc-ycbcr": Preset(
        "luma ↔ chroma contrast on Y and CbCr",
        "no figure published at this size",
        {**_PAIRED, "task": "contrast", "chroma": "cbcr", "augment": "flip-resized-crop"},
    ),
}  # fmt: skip


def preset_config(name: str, **changes: Any) -> PretrainConfig:
    """The settings of a preset, some of them changed.

    Raises:
        UnknownNameError: no such preset.
        ArgumentError: a change does not fit.

    >>> preset_config("toronto-unet", epochs=3).decoder
    'toronto-unet'
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PretrainConfig(**{"preset": name, **PRESETS[name].settings, **changes})


def typed_preset(words: Sequence[str]) -> PretrainConfig:
    """What `pretint pretrain` starts from: the preset that is typed; with neither that nor a task nor `--resume`, the best."""
    options = [word.split("=")[0] for word in words]
    for i, option in enumerate(options):
        if option == "--preset":
            _, equals, value = words[i].partition("=")
            return preset_config(value if equals else words[i + 1] if i + 1 < len(words) else "")
    plain = {"--task", "--resume", "--help", "-h"} & set(options)
    return PretrainConfig() if plain else preset_config(DEFAULT_PRESET)
