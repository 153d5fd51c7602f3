"""Colour conversions against scikit-image, and against what the definitions demand."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color

from pretint.colour import (
    GREY_FORMULAS,
    grey_levels,
    lab_to_rgb,
    luma,
    rgb_to_lab,
    rgb_to_ycbcr,
    to_float,
    to_uint8,
    with_luma,
    ycbcr_to_rgb,
)
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _grid() -> torch.Tensor:
    """The 33³ grid over the RGB cube, 0, 8, … 248, 255, as a picture (1, 3, 33, 1089)."""
    levels = torch.arange(33).mul(8).clamp(max=255).to(torch.uint8)
    return torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(1, 3, 33, 33 * 33)


def _last(picture: torch.Tensor) -> np.ndarray:
    """(b, 3, h, w) as scikit-image wants it: channels last, double precision."""
    return picture.double().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_rgb_to_lab_matches_scikit_image(kind):
    picture = _grid() if kind == "uint8" else to_float(_grid())
    expected = color.rgb2lab(_last(_grid()) / 255)
    assert np.abs(_last(rgb_to_lab(picture)) - expected).max() < 0.01


def test_lab_to_rgb_matches_scikit_image():
    lab = color.rgb2lab(_last(_grid()) / 255)
    ours = lab_to_rgb(torch.from_numpy(lab).permute(0, 3, 1, 2))
    assert np.abs(_last(ours) - color.lab2rgb(lab)).max() < 5e-4


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_lab_to_rgb_clips_colours_that_no_display_has_as_scikit_image_does():
    generator = torch.Generator().manual_seed(0)
    lab = torch.rand(1, 3, 40, 50, generator=generator) * torch.tensor([100, 255, 255]).view(1, 3, 1, 1)
    lab[:, 1:] -= 128
    ours = lab_to_rgb(lab)
    assert ours.min() == 0
    assert ours.max() == 1
    assert np.abs(_last(ours) - color.lab2rgb(_last(lab))).max() < 2e-3


@pytest.mark.parametrize(("there", "back"), [(rgb_to_lab, lab_to_rgb), (rgb_to_ycbcr, ycbcr_to_rgb)])
def test_uint8_pictures_come_back_as_they_were(there, back):
    assert torch.equal(to_uint8(back(there(_grid()))), _grid())
    assert torch.equal(to_uint8(to_float(_grid())), _grid())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=3, max_size=3))
def test_any_colour_survives_lab_and_ycbcr(colour):
    pixel = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.equal(to_uint8(lab_to_rgb(rgb_to_lab(pixel))), pixel)
    assert torch.equal(to_uint8(ycbcr_to_rgb(rgb_to_ycbcr(pixel))), pixel)


def test_uint8_and_float_pictures_give_the_same_lab():
    assert (rgb_to_lab(_grid()) - rgb_to_lab(to_float(_grid()))).abs().max() < 1e-4


def test_every_grey_is_without_chroma():
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert rgb_to_lab(greys)[:, 1:].abs().max() < 1e-3
    assert torch.count_nonzero(rgb_to_ycbcr(greys)[:, 1:]) == 0


def test_ycbcr_matches_the_jpeg_matrix():
    # ITU-T T.871 as printed there, four decimals and more.
    matrix = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    expected = torch.einsum("oi,bihw->bohw", matrix, to_float(_grid()))
    assert (rgb_to_ycbcr(_grid()) - expected).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("formula", "weights"),
    [("rec601", (0.299, 0.587, 0.114)), ("rec709", (0.2126, 0.7152, 0.0722)), ("mean", (1 / 3, 1 / 3, 1 / 3))],
)
@pytest.mark.parametrize("kind", ["uint8", "float", "double"])
def test_luma_is_the_weighted_sum_of_its_formula(formula, weights, kind):
    picture = {"uint8": _grid(), "float": to_float(_grid()), "double": to_float(_grid()).double()}[kind]
    expected = (_last(_grid()) / 255) @ np.array(weights)
    ours = luma(picture, formula)
    assert ours.dtype == torch.float32
    assert ours.shape == (1, 1, 33, 1089)
    assert np.abs(ours[:, 0].numpy() - expected).max() < 1e-6


def test_lstar_luma_is_scikit_images_lightness():
    expected = color.rgb2lab(_last(_grid()) / 255)[..., 0] / 100
    for picture in (_grid(), to_float(_grid())):
        assert np.abs(luma(picture, "lstar")[:, 0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("formula", ["rec601", "rec709", "mean"])
def test_grey_levels_of_a_grey_picture_are_its_own(formula):
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(grey_levels(greys.expand(1, 3, 16, 16), formula), greys[0])


@pytest.mark.parametrize("formula", GREY_FORMULAS)
def test_with_luma_gives_the_wanted_grey_and_keeps_the_chroma(formula):
    generator = torch.Generator().manual_seed(1)
    # Dull colours and middle greys: nothing is clipped.
    rgb = 0.5 + 0.1 * (torch.rand(2, 3, 16, 16, generator=generator) - 0.5)
    grey = 0.35 + 0.3 * torch.rand(2, 1, 16, 16, generator=generator)
    joined = with_luma(rgb, grey, formula)
    assert (luma(joined, formula) - grey).abs().max() < 1e-5
    chroma = rgb_to_lab if formula == "lstar" else rgb_to_ycbcr
    assert (chroma(joined) - chroma(rgb))[:, 1:].abs().max() < (1e-3 if formula == "lstar" else 1e-6)


@pytest.mark.parametrize("formula", GREY_FORMULAS)
def test_with_luma_of_a_pictures_own_luma_changes_nothing(formula):
    rgb = to_float(_grid())
    assert torch.equal(to_uint8(with_luma(rgb, luma(rgb, formula), formula)), _grid())


def test_with_luma_stays_a_picture_where_it_must_clip():
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    joined = with_luma(red, torch.full((1, 1, 1, 1), 0.9))
    assert joined.flatten().tolist() == pytest.approx([1, 0.601, 0.601], abs=1e-6)


def test_autocast_does_not_touch_the_precision():
    plain = rgb_to_lab(_grid()), lab_to_rgb(rgb_to_lab(_grid())), luma(_grid())
    with torch.autocast("cpu", torch.bfloat16):
        cast = rgb_to_lab(_grid()), lab_to_rgb(rgb_to_lab(_grid())), luma(_grid())
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize(
    "function", [rgb_to_lab, lab_to_rgb, rgb_to_ycbcr, ycbcr_to_rgb, lambda rgb: with_luma(rgb, luma(rgb), "lstar")]
)
def test_the_argument_is_left_alone_and_memory_order_does_not_matter(function):
    rgb = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    before = rgb.clone()
    result = function(rgb)
    assert torch.equal(rgb, before)
    # Not to the bit: the processor's vector and scalar powers differ in the last one.
    assert (function(rgb.to(memory_format=torch.channels_last)) - result).abs().max() < 1e-4


def test_an_unknown_formula_is_named_with_the_closest_one():
    with pytest.raises(UnknownNameError, match=r"rec610.*did you mean 'rec601'"):
        luma(_grid(), "rec610")
    with pytest.raises(UnknownNameError, match="grey formula"):
        with_luma(to_float(_grid()), luma(_grid()), "nope")


@pytest.mark.parametrize("function", [luma, rgb_to_lab, rgb_to_ycbcr, to_float])
@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"\(batch, 3, height, width\), got \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"got \(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(function, picture, sentence):
    # Without the shape checks that the tests may put around it: users have none.
    with pytest.raises(ArgumentError, match=sentence):
        inspect.unwrap(function)(picture)


def test_to_float_refuses_what_is_float_already():
    with pytest.raises(ArgumentError, match="takes uint8"):
        inspect.unwrap(to_float)(torch.zeros(1, 3, 2, 2))
