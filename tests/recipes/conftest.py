"""A small pretrained run that the verbs' tests share."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from pretint.data import make_toy
from pretint.downstream import linear
from pretint.recipes import PretrainConfig, pretrain, tuning


def save_npz(path: Path, train: int = 400, test: int = 100) -> Path:
    """Toy scenes of two classes as an .npz file with a train and a test split."""
    arrays = {}
    for split, n in (("train", train), ("test", test)):
        source = make_toy(split, n=5 * n)
        keep = torch.nonzero(source.labels < 2).flatten()[:n]
        prefix = "" if split == "train" else "test_"
        arrays[f"{prefix}images"] = source.images[keep].permute(0, 2, 3, 1).numpy()
        arrays[f"{prefix}labels"] = source.labels[keep].numpy()
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_npz(tmp_path_factory.mktemp("data") / "scenes.npz")


def small_config(data: Path, out: Path, **settings) -> PretrainConfig:
    defaults = {"epochs": 2, "batch_size": 64, "width": 8, "depth": 3, "holdout": 0.1, "colours": 8}
    return PretrainConfig(data=str(data), out=out, **(defaults | settings))


@pytest.fixture(scope="module")
def few_steps():
    """Networks that are trained on labels have as few steps as their epochs have, not 400 at least, and linear probes 10 epochs,
    not 600 steps: for tests of what is judged and where the figures go, not of how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "fine_tune", functools.partial(tuning.fine_tune, min_steps=1))
        patch.setattr(linear, "_STEPS", 1)
        yield


@pytest.fixture(scope="session")
def small_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    pretrain(small_config(small_data, out))
    return out
