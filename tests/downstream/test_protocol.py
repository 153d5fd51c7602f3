"""Which layers are joined, and which training images are held out?"""

from __future__ import annotations

import pytest
import torch

from pretint.downstream.protocol import held_out, paired_layers
from pretint.runtime import ArgumentError


def test_grids_too_wide_to_be_joined_stay_apart():
    joined = paired_layers(*2 * [{f"{stage}{grid}": torch.zeros(1, 4501) for stage in "ab" for grid in ("", "/8x8")}])[
        0
    ]
    assert list(joined) == ["a", "a/8x8", "b", "b/8x8", "hypercolumn"]


def test_layers_are_joined_only_if_asked_to():
    features = {"stage0": torch.zeros(2, 3), "stage1": torch.zeros(2, 4)}
    assert list(paired_layers(features, features)[0]) == ["stage0", "stage1", "hypercolumn"]
    assert list(paired_layers(features, features, join=False)[1]) == ["stage0", "stage1"]


def test_the_same_share_of_every_class_is_held_out():
    labels = torch.tensor([0] * 40 + [1] * 200 + [3] * 10)
    held = held_out(labels, 0.1, seed=1)
    assert labels[held].bincount().tolist() == [4, 20, 0, 1]
    assert torch.equal(held, held_out(labels, 0.1, seed=1))
    assert not torch.equal(held, held_out(labels, 0.1, seed=2))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_leaves_one_side_empty_is_refused(share):
    with pytest.raises(ArgumentError, match="holdout: got"):
        held_out(torch.arange(20) % 2, share, seed=0)
