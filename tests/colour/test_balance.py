"""Class rebalancing against Zhang's formulas in slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from pretint.colour import (
    Palette,
    PixelWeights,
    ab_bins,
    build_palette,
    class_weights,
    has_colour,
    smoothed_prior,
)
from pretint.data import make_toy
from pretint.runtime.errors import ArgumentError


def _prior(k: int, seed: int = 0) -> torch.Tensor:
    prior = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4
    return prior / prior.sum()


def _bins(prior: torch.Tensor) -> Palette:
    return Palette("ab", ab_bins(), prior, torch.ones(256, 313, dtype=torch.float64))


@pytest.mark.parametrize("rebalance", [0.0, 0.25, 0.5, 1.0])
def test_weights_are_zhangs_by_a_slow_loop(rebalance):
    prior = _prior(313)
    raw = [1 / ((1 - rebalance) * p + rebalance / 313) for p in prior.tolist()]
    mean = math.fsum(p * w for p, w in zip(prior.tolist(), raw, strict=True))
    np.testing.assert_allclose(class_weights(prior, rebalance).numpy(), [w / mean for w in raw], rtol=1e-12)


@pytest.mark.parametrize("rebalance", [0.0, 0.5, 0.999, 1.0])
def test_the_mean_weight_over_the_prior_is_one(rebalance):
    prior = _prior(24)
    prior[3:9] = 0
    prior /= prior.sum()
    weights = class_weights(prior, rebalance)
    assert float(prior @ weights) == pytest.approx(1, abs=1e-12)
    assert weights.isfinite().all()
    # a colour never seen weighs as much as the rarest, or more
    assert (weights[3:9] >= weights[prior > 0].amax() - 1e-12).all()


def test_a_rarer_colour_weighs_more_and_lambda_one_weighs_all_alike():
    prior = _prior(24)
    order = prior.argsort(descending=True)
    for rebalance in (0.0, 0.5):
        assert (class_weights(prior, rebalance)[order].diff() > 0).all()
    assert (class_weights(prior, 1.0) - 1).abs().max() < 1e-12
    assert (class_weights(prior, 0.0) * prior - 1 / 24).abs().max() < 1e-12


def test_the_prior_is_smoothed_by_a_gaussian_kernel():
    prior, centres = _prior(313), ab_bins().tolist()
    wanted = [0.0] * 313
    for (a, b), share in zip(centres, prior.tolist(), strict=True):
        kernel = [math.exp(-((a - x) ** 2 + (b - y) ** 2) / (2 * 5**2)) for x, y in centres]
        total = math.fsum(kernel)
        wanted = [w + share * value / total for w, value in zip(wanted, kernel, strict=True)]
    smoothed = smoothed_prior(_bins(prior), 5.0)
    np.testing.assert_allclose(smoothed.numpy(), wanted, rtol=1e-10)
    assert float(smoothed.sum()) == pytest.approx(1, abs=1e-12)


def test_a_single_share_spreads_over_its_neighbours():
    prior = torch.zeros(313, dtype=torch.float64)
    middle = ab_bins().tolist().index([10.0, 10.0])
    prior[middle] = 1
    smoothed = smoothed_prior(_bins(prior), 5.0)
    right = ab_bins().tolist().index([20.0, 10.0])
    assert float(smoothed[right] / smoothed[middle]) == pytest.approx(math.exp(-2))
    assert int(smoothed.argmax()) == middle


def test_training_pixels_weigh_one_on_average():
    rgb = make_toy(n=32).images
    palette = build_palette(lambda: [rgb], 12, "cbcr")
    weights = PixelWeights(palette, 0.5)(palette.labels(rgb))
    assert weights.dtype == torch.float32
    assert weights.shape == (32, 32, 32)
    assert float(weights.double().mean()) == pytest.approx(1, abs=1e-5)
    # with bins it is the smoothed prior over which the mean is 1
    bins = _bins(_prior(313))
    smoothed = PixelWeights(bins, 0.5, 5.0).weights.double()
    assert float(smoothed_prior(bins, 5.0) @ smoothed) == pytest.approx(1, abs=1e-6)
    assert not torch.allclose(smoothed, PixelWeights(bins, 0.5).weights.double(), rtol=0.1)


def test_a_picture_has_colour_where_a_or_b_is_farther_than_5_from_grey():
    # around the threshold: greys with more and more of a tint
    tint = torch.arange(0, 32)
    pictures = torch.full((32, 3, 4, 4), 120, dtype=torch.uint8)
    pictures[:, 0, 2, 1] = (120 + tint).to(torch.uint8)  # one pixel of 16 is enough
    ab = rgb2lab(pictures.permute(0, 2, 3, 1).numpy())[..., 1:]
    wanted = (np.abs(ab) > 5).any((1, 2, 3))
    assert has_colour(pictures).tolist() == wanted.tolist()
    assert 2 < wanted.sum() < 30


def test_what_does_not_fit_is_refused_in_a_sentence():
    for rebalance in (-0.1, 1.5, math.nan):
        with pytest.raises(ArgumentError, match=r"rebalance: .* must be from 0 to 1"):
            class_weights(_prior(5), rebalance)
    with pytest.raises(ArgumentError, match=r"sigma: 0\.0 must be above 0"):
        smoothed_prior(_bins(_prior(313)), 0.0)
