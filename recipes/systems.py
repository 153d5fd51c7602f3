"""Which published systems run here under their own name? Their settings as data; docs/presets.md says what was chosen, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings of :class:`pretint.recipes.PretrainConfig` under a name.

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
# two halvings from 32 × 32, and half the width where there are two encoders
_RESIDUAL: dict[str, Any] = {
    "data": "cifar10",
    "backbone": "pretint_resunet",
    "depth": 3,
    "epochs": 10,
    "learning_rate": 4e-3,
}
_SINGLE: dict[str, Any] = {**_RESIDUAL, "width": 32}
_PAIRED: dict[str, Any] = {**_RESIDUAL, "width": 16}

PRESETS: dict[str, Preset] = {
    "pretint": Preset(
        "the best recipe found here: 24 chroma colours at a quarter of the resolution, read off a residual encoder's two deepest "
        "stages by 1 × 1 convolutions",
        "73.8 % by a linear probe after 13 epochs",
        {
            "task": "palette", "palette_space": "cbcr", "backbone": "pretint_resunet", "width": 32, "depth": 4,
            "decoder": "hypercolumn", "predict_at": 4, "skips": 1, "learning_rate": 4e-3, "batch_size": 128, "epochs": 13,
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
        "one image learnt by heart from L*, 1000 epochs; chosen here: the first training image, rate 0.001, RMSprop's α = 0.9",
        "error near zero on that image",
        {**_WALLNER, "backbone": "pretint_wallner_alpha", "decoder": "wallner-alpha", "limit": 1, "batch_size": 1, "epochs": 1000,
         "holdout": 0.0, "paint_every": 250},
    ),
    "wallner-beta": Preset(
        "more layers, and shear, zoom, rotation and flip; chosen here: CIFAR-10, batch 32, 10 epochs, rate 0.001, α = 0.9",
        "no figure published",
        {**_WALLNER, "backbone": "pretint_wallner_beta", "decoder": "wallner-beta", "augment": "flip-affine", "batch_size": 32,
         "epochs": 10},
    ),
    "wallner-full": Preset(
        "a summary of the whole picture fused into the bottleneck: here the network's own average, so that no label leaks in"
        " (--fusion timm/NAME takes a classifier's output); chosen here as for wallner-beta",
        "no figure published",
        {**_WALLNER, "backbone": "pretint_wallner_full", "decoder": "wallner-full", "augment": "flip-affine", "batch_size": 32,
         "epochs": 10},
    ),
    "cifar100-unet": Preset(
        "a classic U-Net regresses RGB on CIFAR-100, ten epochs; chosen here: width 32, batch 128, AdamW at 0.001 with warm-up, "
        "cosine, weight decay 0.05 and clipped gradients",
        "no figure published",
        {"data": "cifar100", "task": "rgb-regression", "backbone": "pretint_unet", "width": 32, "epochs": 10, "batch_size": 128,
         "learning_rate": 1e-3, "augment": "none"},
    ),
    "cs520-autoencoder": Preset(
        "5 × 5 convolutions around a dense bottleneck, squared error, SGD with Nesterov momentum; chosen here: 32, 64 and 128 "
        "channels, 256 numbers in the bottleneck, rate 0.01, batch 100, at most 50 epochs, and stopping after ten epochs without a "
        "better validation loss (the source looks every ten epochs and stops when it rose)",
        "no figure published",
        {"data": "cifar10", "task": "rgb-regression", "backbone": "pretint_cs520", "decoder": "cs520", "grey": "rec709",
         "input_mean": 0.0, "input_std": 1.0, "optimizer": "sgd", "learning_rate": 0.01, "schedule": "constant",
         "weight_decay": 0.0, "warmup_epochs": 0.0, "clip": None, "batch_size": 100, "epochs": 50, "augment": "none",
         "patience": 10},
    ),
    "zhang16": Preset(
        "313 ab bins, soft targets of the five nearest, class rebalancing, at 16 × 16; chosen here: a residual encoder of width 32 "
        "with two halvings, AdamW at 0.004, batch 256, 10 epochs",
        "no figure published at this size",
        {**_SINGLE, "task": "bins", "grey": "lstar", "rebalance": 0.5, "predict_at": 2},
    ),
    "split-brain": Preset(
        "two half-width encoders: 313 ab bins from L*, 50 levels of L* from ab, at 16 × 16; chosen here as for zhang16, width 16",
        "no figure published at this size",
        {**_PAIRED, "task": "split-brain", "grey": "lstar", "chroma": "ab", "palette_space": "ab", "predict_at": 2},
    ),
    "cmc-lab": Preset(
        "luma ↔ chroma contrast on L* and ab, τ = 0.1; chosen here as for split-brain, and the batch's other pictures as negatives",
        "no figure published at this size",
        {**_PAIRED, "task": "contrast", "grey": "lstar", "chroma": "ab", "augment": "flip-resized-crop"},
    ),
    "cmc-ycbcr": Preset(
        "luma ↔ chroma contrast on Y and CbCr; all else as in cmc-lab",
        "no figure published at this size",
        {**_PAIRED, "task": "contrast", "chroma": "cbcr", "augment": "flip-resized-crop"},
    ),
}  # fmt: skip
