"""Soft labels from the table against the exact ones, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from pretint.colour import PALETTE_SPACES, Palette, SoftLabels, ab_bins, fit_palette, rgb_histogram, to_palette_space
from pretint.data import make_toy
from pretint.runtime.errors import ArgumentError


def _palette(space: str, centres: torch.Tensor) -> Palette:
    k = len(centres)
    return Palette(space, centres, torch.full((k,), 1 / k).double(), torch.ones(256, k, dtype=torch.float64))


@pytest.fixture(scope="module")
def bins() -> Palette:
    return _palette("ab", ab_bins())


@pytest.fixture(scope="module")
def five(bins) -> SoftLabels:
    return SoftLabels(bins, 5, 5.0)


def _noise(n: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _dense(indices: torch.Tensor, shares: torch.Tensor, size: int) -> torch.Tensor:
    """(b, k, h, w) indices and shares as one distribution a pixel, (b·h·w, size)."""
    k = indices.shape[1]
    flat = [x.permute(0, 2, 3, 1).reshape(-1, k) for x in (indices, shares.double())]
    return torch.zeros(len(flat[0]), size, dtype=torch.float64).scatter_(1, *flat)


def _exact(rgb: torch.Tensor, palette: Palette, k: int, sigma: float) -> torch.Tensor:
    """All distances of all pixels, in double precision."""
    points = to_palette_space(rgb, palette.space).permute(0, 2, 3, 1).flatten(0, 2).double()
    squared = (points[:, None] - palette.centres.double()).square().sum(-1)
    near, index = squared.topk(k, largest=False)
    weights = torch.exp(-near / (2 * sigma**2))
    weights /= weights.sum(1, keepdim=True)
    return torch.zeros(len(points), palette.size, dtype=torch.float64).scatter_(1, index, weights)


def _misplaced(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How much of each pixel's distribution would have to move to make it the other."""
    return (one - other).abs().sum(1) / 2


@pytest.mark.parametrize(("k", "mean", "worst"), [(5, 0.013, 0.08), (10, 0.013, 0.03)])
def test_soft_labels_of_bins_are_zhangs_up_to_the_stated_error(bins, k, mean, worst):
    rgb = torch.cat((_noise(6), make_toy(n=6).images))
    soft = _dense(*SoftLabels(bins, k, 5.0)(rgb), 313)
    error = _misplaced(soft, _exact(rgb, bins, k, 5.0))
    assert error.mean() < mean
    assert error.max() < worst
    # what is asserted can tell other widths and numbers apart
    for other in (_exact(rgb, bins, k, 4.0), _exact(rgb, bins, k, 6.0)):
        assert _misplaced(soft, other).mean() > 2 * mean
    assert ((soft > 0).sum(1) == k).all()


@pytest.mark.parametrize("space", PALETTE_SPACES)
def test_soft_labels_of_24_colours_are_right_up_to_the_stated_error(space):
    rgb = make_toy(n=48).images
    palette = _palette(space, fit_palette(rgb_histogram([rgb]), 24, space))
    labels = SoftLabels(palette, 5)
    error = _misplaced(_dense(*labels(rgb[:12]), 24), _exact(rgb[:12], palette, 5, labels.sigma))
    assert error.mean() < (0.03 if space in ("rgb", "lab") else 0.01)
    assert error.max() < (0.25 if space in ("rgb", "lab") else 0.1)


def test_zhangs_formula_by_a_slow_loop_on_scikit_images_lab(five):
    rgb, centres = _noise(1, seed=3, size=4), ab_bins().tolist()
    dense = _dense(*five(rgb), 313).view(4, 4, 313)
    ab = rgb2lab(rgb[0].permute(1, 2, 0).numpy())[..., 1:]
    for y, x in np.ndindex(4, 4):
        squared = [(ab[y, x, 0] - a) ** 2 + (ab[y, x, 1] - b) ** 2 for a, b in centres]
        nearest = sorted(range(313), key=squared.__getitem__)[:5]
        weights = {q: math.exp(-squared[q] / (2 * 5**2)) for q in nearest}
        total = sum(weights.values())
        moved = sum(abs(weights.get(q, 0) / total - float(dense[y, x, q])) for q in range(313)) / 2
        assert moved < 0.08


def test_shares_sum_to_one_and_come_nearest_first(five):
    indices, shares = five(_noise(4))
    assert indices.shape == shares.shape == (4, 5, 32, 32)
    assert (indices.dtype, shares.dtype) == (torch.int64, torch.float32)
    assert (shares.sum(1) - 1).abs().max() < 1e-6
    assert (shares[:, :-1] >= shares[:, 1:]).all()
    assert shares.min() > 0
    assert (indices.sort(1).values.diff(dim=1) > 0).all()


def test_greys_have_exact_shares(five):
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()
    dense = _dense(*five(greys), 313)
    around = [[0.0, 0.0], [10.0, 0.0], [-10.0, 0.0], [0.0, 10.0], [0.0, -10.0]]
    # e^(-10² / 50) = e^-2 beside the 1 of the bin itself
    wanted = torch.zeros(313, dtype=torch.float64)
    for place, weight in zip(around, (1, *[math.exp(-2)] * 4), strict=True):
        wanted[ab_bins().tolist().index(place)] = weight / (1 + 4 * math.exp(-2))
    assert (dense - wanted).abs().max() < 1e-6


def test_one_colour_alone_is_the_label_but_at_the_border_between_two(bins):
    rgb = _noise(4)
    indices, shares = SoftLabels(bins, 1, 5.0)(rgb)
    assert (shares == 1).all()
    assert (indices.flatten() == _exact(rgb, bins, 1, 5.0).argmax(1)).float().mean() > 0.95


def test_a_narrow_width_gives_all_to_the_nearest(bins):
    rgb = _noise(2)
    indices, shares = SoftLabels(bins, 5, 0.5)(rgb)
    assert (indices[:, 0].flatten() == _exact(rgb, bins, 1, 5.0).argmax(1)).float().mean() > 0.95
    assert shares[:, 0].mean() > 0.95


def test_the_default_width_is_half_the_spacing(bins):
    assert SoftLabels(bins, 5).sigma == 5
    square = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [0.2, 0.2, 0]])
    assert SoftLabels(_palette("rgb", square), 2).sigma == pytest.approx(0.1)
    # colours that are all one have no spacing; the table's own fineness is taken
    assert 0 < SoftLabels(_palette("rgb", torch.zeros(3, 3)), 2).sigma < 0.02


def test_the_layout_is_that_of_channels_last_predictions(five):
    for part in five(_noise(2)):
        assert part.is_contiguous(memory_format=torch.channels_last)
    other = five(_noise(2).to(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(other, five(_noise(2)), strict=True))


def test_the_table_is_made_once_and_small(five):
    five(_noise(1))
    table = five._table(torch.device("cpu"))
    five(_noise(1))
    assert five._table(torch.device("cpu")) is table
    assert sum(part.nbytes for part in table) < 15e6


@pytest.mark.parametrize("space", PALETTE_SPACES)
def test_no_colour_falls_outside_the_table(space):
    ends = torch.tensor([0, 255], dtype=torch.uint8)
    colours = torch.cartesian_prod(ends, ends, ends).t()[None, :, None].contiguous()
    centres = to_palette_space(colours, space)[0, :, 0].t().contiguous()
    palette = _palette(space, centres)
    indices, _ = SoftLabels(palette, 1)(colours)
    # every colour is a centre itself; the greys are one chroma
    near = palette.centres[indices[0, 0, 0]]
    assert (near - centres).abs().max() < (1e-3 if space in ("ab", "lab") else 1e-6)


@pytest.mark.parametrize(
    ("k", "sigma", "says"),
    [
        (0, 5.0, "soft: 0 nearest colours of 313"),
        (314, 5.0, "soft: 314 nearest colours of 313 can't share a pixel"),
        (5, 0.0, "soft_sigma: 0.0 must be a number of at least 0.27 in the space 'ab'"),
        (5, -1.0, "soft_sigma: -1.0"),
        (5, 0.1, "soft_sigma: 0.1"),
        (5, math.nan, "soft_sigma: nan"),
        (5, math.inf, "soft_sigma: inf"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(bins, k, sigma, says):
    with pytest.raises(ArgumentError, match=says):
        SoftLabels(bins, k, sigma)
