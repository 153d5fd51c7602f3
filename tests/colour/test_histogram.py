"""The colour histogram against numpy, and palettes whose answer is known by construction."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

import pretint.colour.histogram as histogram_module
from pretint.colour import PALETTE_SPACES, fit_palette, rgb_histogram, rgb_to_lab, to_float, to_palette_space
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _noise(n: int, seed: int = 0, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _same(first, second) -> bool:
    return (
        torch.equal(first.bins, second.bins)
        and torch.equal(first.counts, second.counts)
        and torch.equal(first.sums, second.sums)
    )


@pytest.mark.parametrize("bits", [1, 4, 6])
def test_histogram_matches_numpy(bits):
    pictures = _noise(20)
    pixels = pictures.permute(0, 2, 3, 1).reshape(-1, 3).numpy().astype(np.int64)
    cube = pixels >> (8 - bits)
    number = (cube[:, 0] * 2**bits + cube[:, 1]) * 2**bits + cube[:, 2]
    bins, where, counts = np.unique(number, return_inverse=True, return_counts=True)
    sums = np.zeros((len(bins), 3), dtype=np.int64)
    np.add.at(sums, where, pixels)
    histogram = rgb_histogram([pictures], bits)
    assert np.array_equal(histogram.bins.numpy(), bins)
    assert np.array_equal(histogram.counts.numpy(), counts)
    assert np.array_equal(histogram.sums.numpy(), sums)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_histogram_does_not_depend_on_the_batching_nor_on_merging(sizes):
    pictures = _noise(sum(sizes), seed=len(sizes), size=4)
    whole = rgb_histogram([pictures])
    parts = pictures.split(sizes)
    assert _same(rgb_histogram(parts), whole)
    merged = rgb_histogram([parts[0]])
    for part in parts[1:]:
        merged = merged + rgb_histogram([part])
    assert _same(merged, whole)


def test_a_batch_is_counted_in_parts_whatever_its_size(monkeypatch):
    pictures = _noise(20)
    whole = rgb_histogram([pictures])
    monkeypatch.setattr(histogram_module, "_PIXELS_AT_ONCE", 1000)
    assert [len(part) for part in histogram_module.in_parts(pictures)] == [3] * 6 + [2]
    assert _same(rgb_histogram([pictures]), whole)


def test_histograms_of_different_bits_cannot_be_added():
    with pytest.raises(ArgumentError, match="of 6 and 5 bits"):
        rgb_histogram([_noise(1)]) + rgb_histogram([_noise(1)], bits=5)


def _pictures_of(colours: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """One picture (1, 3, 1, n) holding each colour as often as asked."""
    return colours.repeat_interleave(counts, 0).t().reshape(1, 3, 1, -1)


def _far_colours(k: int, seed: int = 0) -> torch.Tensor:
    """k colours, no two in the same cube of a 6-bit histogram, none two of the same chroma."""
    generator = torch.Generator().manual_seed(seed)
    cubes = torch.randperm(16**3, generator=generator)[:k]
    cubes = torch.stack((cubes // 256, cubes // 16 % 16, cubes % 16), 1)
    return (cubes * 16 + torch.randint(0, 16, (k, 3), generator=generator)).to(torch.uint8)


@pytest.mark.parametrize("space", PALETTE_SPACES)
def test_pictures_of_exactly_24_colours_give_exactly_these(space):
    colours = _far_colours(24)
    histogram = rgb_histogram([_pictures_of(colours, torch.arange(1, 25))])
    expected = to_palette_space(to_float(colours.t()[None, :, None]), space)[0, :, 0].t()
    centres = fit_palette(histogram, 24, space)
    # Every colour is one of the centres, and a different one each time; Lab's powers may differ in the last bit.
    distance, nearest = torch.cdist(expected, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert distance.max() < {"rgb": 1e-12, "cbcr": 1e-7}.get(space, 1e-4)
    assert sorted(nearest.tolist()) == list(range(24))


def test_two_clouds_give_their_weighted_means():
    # Far apart, so the means are known whatever k-means does: (3·10 + 1·30)/4 = 15, and (200 + 3·220)/4 = 215.
    colours = torch.tensor([[10, 0, 0], [30, 0, 0], [0, 0, 200], [0, 0, 220]], dtype=torch.uint8)
    histogram = rgb_histogram([_pictures_of(colours, torch.tensor([3, 1, 1, 3]))])
    assert (fit_palette(histogram, 2) * 255).tolist() == [[15, 0, 0], [0, 0, pytest.approx(215, rel=1e-6)]]


def test_a_bins_colour_is_its_mean_and_not_its_middle():
    # Four levels share a 6-bit bin; the fit must see 201.25, the mean of three 201 and one 202.
    colours = torch.tensor([[201, 0, 0], [202, 0, 0], [0, 0, 99]], dtype=torch.uint8)
    histogram = rgb_histogram([_pictures_of(colours, torch.tensor([3, 1, 1]))])
    assert (fit_palette(histogram, 2)[1] * 255).tolist() == pytest.approx([201.25, 0, 0])


@pytest.mark.parametrize("space", PALETTE_SPACES)
def test_the_fit_is_as_good_as_scikit_learns_on_all_pixels(space):
    # Smooth pictures, so that colours have some structure.
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(16, 3, 4, 4, generator=generator)
    pictures = (torch.nn.functional.interpolate(coarse, size=16, mode="bilinear") * 255).to(torch.uint8)
    centres = fit_palette(rgb_histogram([pictures]), 8, space)
    pixels = to_palette_space(pictures, space).permute(0, 2, 3, 1).flatten(0, 2).double()
    error = torch.cdist(pixels, centres.double()).amin(1).square().sum().item()
    assert error < 1.02 * KMeans(8, n_init=4, random_state=0).fit(pixels.numpy()).inertia_


def test_the_fit_runs_on_one_thread_and_so_does_not_depend_on_their_number(monkeypatch):
    fit, seen = KMeans.fit, []

    def recording_fit(self, *args, **kwargs):
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(KMeans, "fit", recording_fit)
    histogram = rgb_histogram([_noise(100)])
    fits = []
    for threads in (1, 2, 4):
        with threadpool_limits(limits=threads):
            fits.append(fit_palette(histogram, 16))
    assert set(seen) == {1}
    assert torch.equal(fits[0], fits[1])
    assert torch.equal(fits[0], fits[2])


def test_centres_stand_in_the_documented_order():
    histogram = rgb_histogram([_noise(10)])
    rgb = fit_palette(histogram, 12)
    assert (rgb @ torch.tensor([0.299, 0.587, 0.114])).diff().min() > 0
    assert fit_palette(histogram, 12, "lab")[:, 0].diff().min() > 0
    a, b = fit_palette(histogram, 12, "ab").unbind(1)
    assert torch.atan2(b, a).remainder(2 * torch.pi).diff().min() > 0


def test_more_colours_than_there_are_is_an_error_that_says_how_many():
    histogram = rgb_histogram([_pictures_of(_far_colours(5), torch.ones(5, dtype=torch.int64))])
    with pytest.raises(
        ArgumentError, match=r"colours: 6 were asked for.* only 5 distinct colours .* choose from 2 to 5"
    ):
        fit_palette(histogram, 6)
    assert fit_palette(histogram, 5).shape == (5, 3)


def test_chromas_are_counted_without_their_lightness():
    # Three chromas, each at three lightnesses: nine colours.
    chromas = torch.tensor([[0, 0, 0], [60, 0, 0], [0, 0, 60]])
    colours = (chromas[:, None] + torch.tensor([0, 50, 100])[:, None]).reshape(9, 3).to(torch.uint8)
    histogram = rgb_histogram([_pictures_of(colours, torch.ones(9, dtype=torch.int64))])
    assert fit_palette(histogram, 3, "cbcr").shape == (3, 2)
    assert fit_palette(histogram, 9, "rgb").shape == (9, 3)
    with pytest.raises(ArgumentError, match="only 3 distinct chromas"):
        fit_palette(histogram, 4, "cbcr")


@pytest.mark.parametrize("space", ["ab", "cbcr"])
def test_grey_pictures_have_no_chroma_palette(space):
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    histogram = rgb_histogram([greys])
    with pytest.raises(ArgumentError, match="the pictures are all grey; give colour pictures"):
        fit_palette(histogram, 24, space)
    greens = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    greens[:, 1] = 100
    with pytest.raises(ArgumentError, match="one chroma only"):
        fit_palette(rgb_histogram([greens]), 24, space)


def test_grey_pictures_have_an_rgb_palette():
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    centres = fit_palette(rgb_histogram([greys]), 4)
    assert rgb_to_lab(centres.t()[None, :, None])[:, 1:].abs().max() < 1e-2


def test_bad_arguments_are_refused_in_a_sentence():
    histogram = rgb_histogram([_noise(1)])
    with pytest.raises(ArgumentError, match="at least 2 colours, got 1"):
        fit_palette(histogram, 1)
    with pytest.raises(UnknownNameError, match="palette space: 'labb' is not known; did you mean 'lab'"):
        fit_palette(histogram, 2, "labb")
    with pytest.raises(ArgumentError, match="no picture"):
        rgb_histogram([])
    with pytest.raises(ArgumentError, match="no picture"):
        rgb_histogram([torch.zeros(0, 3, 8, 8, dtype=torch.uint8)])
    with pytest.raises(ArgumentError, match="1 to 8 bits a channel, got 9"):
        rgb_histogram([_noise(1)], bits=9)
    with pytest.raises(ArgumentError, match=r"uint8 pictures .* got torch.float32"):
        inspect.unwrap(rgb_histogram)([torch.zeros(1, 3, 4, 4)])
