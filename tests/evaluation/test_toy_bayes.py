"""The toy's two-way objects: half and half of one of two colours whose grey is the same, so that the best possible is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from pretint.colour import Palette, build_palette, luma, to_float
from pretint.data import TOY_CLASSES, draw_toy, toy_colours
from pretint.evaluation import ColourQuality

TWO_WAY = [name for name, colour in toy_colours().items() if colour.kind == "two-way"]


def painted_pixels(name: str, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of twelve objects of a class as pictures, all in its first colour and all in its second: uint8 (n, 3, 8, 8) each."""
    ids = torch.arange(first, first + 12) * len(TOY_CLASSES) + TOY_CLASSES.index(name)
    pictures = []
    for choice in (0, 1):
        scenes = draw_toy(ids, choice=choice)
        pixels = scenes.images.movedim(1, -1)[scenes.masks]  # (pixels, 3)
        pictures.append(pixels[: len(pixels) // 64 * 64].view(-1, 8, 8, 3).permute(0, 3, 1, 2).contiguous())
    return pictures[0], pictures[1]


@pytest.fixture(scope="module", params=TWO_WAY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return painted_pixels(name, 0)


@pytest.fixture
def true(both: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return torch.cat(both)


@pytest.fixture
def palette(both: tuple[torch.Tensor, torch.Tensor], true: torch.Tensor) -> Palette:
    """Two colours found among the pixels; each pixel's label is which of the two its object has."""
    found = build_palette(lambda: [true], 2, "cbcr")
    labels = found.labels(true)
    assert (labels[: len(both[0])] == labels[0, 0, 0]).all()
    assert (labels[len(both[0]) :] == 1 - labels[0, 0, 0]).all()
    return found


def measured(palette: Palette, true: torch.Tensor, logits: torch.Tensor) -> dict:
    quality = ColourQuality(palette)
    quality.update(true, true, logits)
    return quality.compute()


def test_the_perfect_predictor_of_two_way_objects_has_ln_2_nats(palette, true):
    results = measured(palette, true, torch.zeros(len(true), 2, 8, 8))
    assert results["cross_entropy_nats"] == pytest.approx(math.log(2), rel=1e-6)
    assert results["bits_per_pixel"] == pytest.approx(1, rel=1e-6)
    assert results["top1"] == results["class_balanced_top1"] == 0.5


@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_whoever_sees_only_grey_does_no_better(palette, true, strength):
    opinion = strength * torch.sin(20 * luma(true))  # some function of what is seen
    results = measured(palette, true, torch.cat((opinion, -opinion), 1))
    assert results["cross_entropy_nats"] > math.log(2)
    assert results["top1"] == pytest.approx(0.5, abs=0.02)


def test_the_grey_lookup_learns_nothing_of_two_way_objects(palette, name):
    others = torch.cat(painted_pixels(name, 12))  # what it learned by heart of its own pixels does not help it here
    results = measured(palette, others, torch.zeros(len(others), 2, 8, 8))
    assert results["prior_cross_entropy_nats"] == pytest.approx(math.log(2), rel=1e-6)
    # 8 bits betray a little (0.018 nats at most): at which light red, green and blue are rounded up differs between the two,
    # so some grey levels are met more often in one of them
    assert results["grey_lookup_cross_entropy_nats"] == pytest.approx(math.log(2), abs=0.03)


def test_the_best_painting_of_two_way_objects_lies_half_way_and_a_guess_costs_root_two_of_it(both, true):
    first, second = (rgb2lab(to_float(part).permute(0, 2, 3, 1).double().numpy()) for part in both)
    apart = np.sqrt(((first - second)[..., 1:] ** 2).sum(-1).mean())
    middle = (first + second) / 2
    painted = torch.from_numpy(lab2rgb(middle)).float().permute(0, 3, 1, 2)
    quality = ColourQuality()
    quality.update(torch.cat((painted, painted)), true)
    assert quality.compute()["ab_rmse"] == pytest.approx(apart / 2, rel=0.01)
    guess = ColourQuality()
    guess.update(torch.cat((both[0], both[0])), true)
    assert guess.compute()["ab_rmse"] == pytest.approx(apart / math.sqrt(2), rel=1e-3)
