"""Recolour-then-classify on cases whose answer is known by construction, and against a slow count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray

from pretint.colour import to_float
from pretint.evaluation import RecolourQuality, grey_picture, no_recolour
from pretint.runtime import ArgumentError, NotFiniteError

LABELS = torch.tensor([0, 1] * 6)


@pytest.fixture(scope="module")
def true() -> torch.Tensor:
    """Noisy pictures, red (class 0) and blue (class 1) by turns: colour tells the class, grey does not."""
    noise = torch.randint(0, 60, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    noise[::2, 0] += 150
    noise[1::2, 2] += 150
    return noise.to(torch.uint8)


def by_colour(rgb: torch.Tensor) -> torch.Tensor:
    """More red is class 0, more blue is class 1; a grey picture is undecided, which argmax calls 0."""
    return rgb[:, [0, 2]].float().mean((2, 3))


def measured(painted: torch.Tensor, true: torch.Tensor, classify=by_colour) -> dict[str, float | None]:
    quality = RecolourQuality(classify)
    quality.update(painted, true, LABELS)
    return quality.compute()


def test_the_true_pictures_score_one(true):
    assert measured(true, true) == {
        "recolour_top1_painted": 1.0,
        "recolour_top1_grey": 0.5,
        "recolour_top1_colour": 1.0,
        "recolour_score": 1.0,
    }


def test_grey_pictures_score_zero(true):
    results = measured(grey_picture(true), true)
    assert results["recolour_score"] == 0.0
    assert results["recolour_top1_painted"] == results["recolour_top1_grey"] == 0.5


def test_the_score_is_the_share_of_the_way_from_grey_to_colour(true):
    painted = grey_picture(true).clone()
    painted[[1, 3]] = to_float(true[[1, 3]])  # two of the six that grey does not find
    assert measured(painted, true)["recolour_score"] == pytest.approx(1 / 3)
    wrong = true.flip(1)  # red for blue: worse than grey
    assert measured(wrong, true)["recolour_score"] == -1.0


def test_where_colour_does_not_help_there_is_no_score(true):
    results = measured(true, true, lambda rgb: torch.ones(len(rgb), 2))
    assert results["recolour_top1_colour"] == results["recolour_top1_grey"] == 0.5
    assert results["recolour_score"] is None
    assert no_recolour() == dict.fromkeys(results)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_any_batching_and_merging_matches_a_slow_count(true, size):
    weights = torch.randn(3 * 64, 2, generator=torch.Generator().manual_seed(1))
    painted = (to_float(true) + 0.4 * torch.rand(true.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    first, second = (RecolourQuality(lambda rgb: to_float(rgb).flatten(1) @ weights) for _ in range(2))
    for start in range(0, 12, size):
        part = slice(start, start + size)
        (first if start % 2 else second).update(painted[part], true[part], LABELS[part], "rec709")
    first.merge(second)
    results = first.compute()
    hits = np.zeros(3)
    for paint, truth, label in zip(painted.numpy(), to_float(true).numpy(), LABELS.numpy(), strict=True):
        grey = np.broadcast_to(rgb2gray(truth, channel_axis=0), truth.shape)  # scikit-image's grey is rec709's
        for row, picture in enumerate((paint, grey, truth)):
            rounded = np.round(picture * 255) / 255
            hits[row] += (rounded.reshape(-1) @ weights.double().numpy()).argmax() == label
    found = [results[f"recolour_top1_{name}"] for name in ("painted", "grey", "colour")]
    assert found == pytest.approx(list(hits / 12))


def test_mistakes_are_refused_with_a_sentence(true):
    with pytest.raises(ArgumentError, match="no picture was counted"):
        RecolourQuality(by_colour).compute()
    with pytest.raises(ArgumentError, match="they must agree"):
        RecolourQuality(by_colour).update(true, true, LABELS[:3])
    with pytest.raises(ArgumentError, match=r"classify: gave \(12, 2, 1\)"):
        measured(true, true, lambda rgb: by_colour(rgb)[..., None])
    with pytest.raises(NotFiniteError, match="logits"):
        measured(true, true, lambda rgb: by_colour(rgb) / 0)
