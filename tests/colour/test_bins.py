"""The ab bins: which they are, and that they are a palette like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull
from skimage.color import rgb2lab

import pretint.colour.bins as bins_module
import pretint.colour.palette as palette_module
from pretint.colour import (
    Palette,
    ab_bins,
    bin_palette,
    bin_prior,
    build_palette,
    grey_levels,
    nearest_bin,
    rgb_to_lab,
    to_uint8,
)
from pretint.data import make_toy
from pretint.runtime.errors import ArgumentError, UnknownNameError


@pytest.fixture(scope="module")
def toy() -> torch.Tensor:
    return make_toy(n=48).images


@pytest.fixture(scope="module")
def bins(toy) -> Palette:
    return bin_palette(lambda: toy.split(10))


def _ab(rgb: np.ndarray) -> np.ndarray:
    """uint8 (…, 3) to a*, b* by scikit-image."""
    return rgb2lab(rgb)[..., 1:]


def _squares_of_the_hull(points: np.ndarray) -> set[tuple[int, int]]:
    """Squares of the 10 × 10 grid, by their lowest corner over 10, that the points' convex hull touches: those that its
    outline passes through, walked in small steps, and those with all corners inside."""
    hull = ConvexHull(points)
    corners = points[hull.vertices]
    squares = set()
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        steps = np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / 0.005)))[:, None]
        squares |= {(int(i), int(j)) for i, j in np.unique(np.floor((start + (end - start) * steps) / 10), axis=0)}
    for i, j in np.ndindex(30, 30):
        square = 10 * np.array([(i - 15 + x, j - 15 + y) for x in (0, 1) for y in (0, 1)])
        if (hull.equations[:, :2] @ square.T + hull.equations[:, 2:] <= 0).all():
            squares.add((i - 15, j - 15))
    return squares


def test_the_bins_are_the_corners_of_the_squares_that_the_hull_of_srgb_touches():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    squares = _squares_of_the_hull(_ab(colours))
    wanted = {(10.0 * (i + x), 10.0 * (j + y)) for i, j in squares for x in (0, 1) for y in (0, 1)}
    bins = [tuple(row) for row in ab_bins().tolist()]
    assert set(bins) == wanted
    assert len(bins) == 313
    assert bins == sorted(bins)


def test_every_colour_lies_among_four_bins():
    colours = np.random.default_rng(0).integers(0, 256, (200_000, 3)).astype(np.uint8)
    squares = np.unique(np.floor(_ab(colours) / 10), axis=0)
    bins = {tuple(row) for row in (ab_bins() / 10).tolist()}
    assert len(squares) > 200
    assert all((i + x, j + y) in bins for i, j in squares for x in (0, 1) for y in (0, 1))


def test_261_of_them_are_nearest_to_some_colour(bins):
    bins.labels(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    assert bins._tables[torch.device("cpu")].unique().numel() == 261


def test_labels_are_the_nearest_bins(bins):
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ab = _ab(pictures.permute(0, 2, 3, 1).numpy())
    distances = np.linalg.norm(ab[..., None, :] - ab_bins().numpy(), axis=-1)
    own = np.take_along_axis(distances, bins.labels(pictures).numpy()[..., None], -1)[..., 0]
    # scikit-image's Lab is within 0.01 of ours
    assert (own - distances.min(-1)).max() < 0.03
    # the grid is regular, so the nearest bin of most pixels is their ab rounded to tens
    rounded = bins.centres[bins.labels(pictures)].numpy() == 10 * np.round(ab / 10)
    assert rounded.all(-1).mean() > 0.9


def test_the_nearest_bin_of_a_chroma_is_its_colours_label(bins):
    pictures = torch.randint(0, 256, (4, 3, 200, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(nearest_bin(rgb_to_lab(pictures)[:, 1:]), bins.labels(pictures))


def test_chromas_that_no_display_shows_have_a_bin_too():
    ab = torch.tensor([[-300.0, 300.0], [0.0, 130.0], [100.0, -108.0], [0.0, 0.0]])
    found = ab_bins()[nearest_bin(ab.t().reshape(1, 2, 2, 2)).flatten()]
    distances = (ab_bins() - (ab.clamp(-130, 130) / 10).round()[:, None] * 10).norm(dim=-1)
    torch.testing.assert_close((found - (ab.clamp(-130, 130) / 10).round() * 10).norm(dim=-1), distances.amin(1))
    assert found[3].tolist() == [0, 0]


def test_the_prior_alone_is_that_of_the_palette(bins, toy, monkeypatch):
    prior = bin_prior(lambda: toy.split(7))
    assert torch.equal(prior, bins.prior)
    # other processes receive the counts
    sent = []
    monkeypatch.setattr(bins_module, "broadcast_from_main", lambda tensor: sent.append(tensor) or tensor)
    bin_prior(lambda: [toy])
    monkeypatch.setattr(bins_module, "is_main", lambda: False)
    monkeypatch.setattr(bins_module, "broadcast_from_main", lambda _: sent.pop(0))
    assert torch.equal(bin_prior(pytest.fail), prior)


def test_prior_and_grey_lookup_are_counted_in_the_pictures(bins, toy):
    labels, levels = bins.labels(toy).flatten(), grey_levels(toy).flatten()
    assert torch.equal(bins.prior, labels.bincount(minlength=313).double() / labels.numel())
    expected = (levels.long() * 313 + labels).bincount(minlength=256 * 313).view(256, 313)
    assert torch.equal(bins.grey_lookup, expected.double())
    assert (bins.space, bins.grey) == ("ab", "rec601")


def test_bins_are_saved_painted_and_shown_like_other_palettes(bins):
    again = Palette.from_dict(json.loads(json.dumps(bins.to_dict())))
    assert torch.equal(again.centres, ab_bins())
    assert torch.equal(again.grey_lookup, bins.grey_lookup)
    assert bins.colours().shape == (313, 3)
    # a middle grey with the chroma of a bin that it can have
    index = ab_bins().tolist().index([20.0, -30.0])
    painted = bins.decode(bins.centres[index].view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 0.5))
    assert (rgb_to_lab(painted)[0, 1:, 0, 0] - bins.centres[index]).abs().max() < 1e-3
    assert to_uint8(painted).shape == (1, 3, 1, 1)


def test_other_processes_receive_the_counts(monkeypatch, toy, bins):
    sent = []
    table = bins._table(torch.device("cpu"))
    monkeypatch.setattr(palette_module, "label_table", lambda *_: table)  # making it again takes seconds
    monkeypatch.setattr(palette_module, "broadcast_from_main", lambda tensor: sent.append(tensor) or tensor)
    bin_palette(lambda: [toy])

    def never():
        raise AssertionError("only the main process looks at the pictures")

    monkeypatch.setattr(palette_module, "is_main", lambda: False)
    monkeypatch.setattr(palette_module, "broadcast_from_main", lambda _: sent.pop(0))
    assert bin_palette(never).to_dict() == bins.to_dict()


def test_who_changes_a_palette_does_not_change_the_bins(bins):
    assert bins.centres.data_ptr() != ab_bins().data_ptr()
    assert torch.equal(bins.centres, ab_bins())


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(ArgumentError, match="no picture to count colours in"):
        bin_palette(list)
    with pytest.raises(UnknownNameError, match="grey formula"):
        bin_palette(list, "rec602")
    with pytest.raises(ArgumentError, match="no picture"):
        build_palette(list, 4)
    with pytest.raises(ArgumentError, match="no picture to count colours in"):
        bin_prior(list)
