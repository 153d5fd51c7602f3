"""From a distribution over colours to one colour a pixel: sampling, confidence, saturation."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from pretint.colour import luma, rgb_to_lab
from pretint.pretext import DECODES, Decoding
from pretint.pretext.decoding import confidence, decode, sample, saturated, with_more_chroma
from pretint.runtime.errors import ArgumentError, UnknownNameError

CENTRES = torch.tensor([[-20.0, 10.0], [0.0, 0.0], [35.0, 5.0], [10.0, -40.0], [-5.0, 60.0]])
LOGITS = torch.tensor([0.3, 1.7, -0.5, 1.2, -9.0])


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _everywhere(logits: torch.Tensor, size: int) -> torch.Tensor:
    return logits.view(1, -1, 1, 1).expand(1, -1, size, size)


def _ab(rgb: torch.Tensor) -> torch.Tensor:
    return rgb_to_lab(rgb)[:, 1:]


def _differences(rgb: torch.Tensor) -> torch.Tensor:
    return rgb[:, :2] - rgb[:, 1:]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 12345678901])
def test_colours_are_drawn_as_often_as_they_are_probable(temperature, seed):
    labels = sample(_everywhere(LOGITS, 200), temperature, seed).flatten()
    expected = 40_000 * (LOGITS.double() / temperature).softmax(0)
    counts = labels.bincount(minlength=5).double()
    # the last is too improbable for the test's approximation, so it joins the third
    observed, wanted = (torch.cat((x[:2], x[2:3] + x[4:], x[3:4])) for x in (counts, expected))
    assert chisquare(observed.numpy(), wanted.numpy()).pvalue > 0.001


def test_neighbouring_pixels_are_drawn_independently():
    labels = sample(_everywhere(torch.zeros(2), 200), 1.0, seed=3)[0]
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        pairs = (2 * one + other).flatten().bincount(minlength=4)
        assert chisquare(pairs.numpy()).pvalue > 0.001


def test_a_draw_depends_on_seed_and_place_alone():
    logits = _noise(3, 5, 16, 16)
    first = sample(logits, 0.7, seed=1)
    assert torch.equal(first, sample(logits, 0.7, seed=1))
    assert torch.equal(first, torch.cat([sample(one[None], 0.7, seed=1) for one in logits]))
    other = sample(logits, 0.7, seed=2)
    assert 0.1 < (first != other).float().mean() < 0.9
    cold = sample(logits, 1e-6, seed=1)
    assert torch.equal(cold, logits.argmax(1))


def test_impossible_colours_are_never_drawn():
    sure = torch.tensor([-200.0, 0.0, -200.0, 0.0, -200.0])
    labels = sample(_everywhere(sure, 200), 1.0, seed=0)
    assert labels.unique().tolist() == [1, 3]


def test_sampling_paints_colours_of_the_palette():
    painted = decode(_noise(1, 5, 8, 8), CENTRES, Decoding("sample", 1.0))
    distance = torch.cdist(painted[0].flatten(1).T, CENTRES).amin(1)
    assert (distance == 0).all()


def test_annealing_goes_from_the_mode_to_the_mean():
    logits = _noise(2, 5, 8, 8)
    mode, mean = (decode(logits, CENTRES, Decoding(name)) for name in ("mode", "mean"))
    wanted = torch.einsum("bkhw,kc->bchw", logits.double().softmax(1), CENTRES.double())
    torch.testing.assert_close(mean.double(), wanted, atol=1e-4, rtol=1e-5)
    # even a temperature whose quotients overflow is the mode
    for temperature in (1e-4, 1e-30):
        cold = decode(logits, CENTRES, Decoding("annealed", temperature))
        assert (cold - mode).abs().amax(1).median() == 0
        assert cold.isfinite().all()
    torch.testing.assert_close(decode(logits, CENTRES, Decoding("annealed", 1.0)), mean)
    # equation 5 divides the logarithms of probabilities; logits differ from them by a constant
    annealed = decode(logits, CENTRES, Decoding("annealed", 0.38))
    powers = logits.double().softmax(1) ** (1 / 0.38)
    by_paper = torch.einsum("bkhw,kc->bchw", powers / powers.sum(1, keepdim=True), CENTRES.double())
    torch.testing.assert_close(annealed.double(), by_paper, atol=1e-4, rtol=1e-5)


def test_confidence_is_one_minus_the_entropy_over_its_largest():
    logits = _noise(2, 5, 4, 4)
    p = logits.double().softmax(1)
    wanted = 1 + torch.special.xlogy(p, p).sum(1, keepdim=True) / math.log(5)
    torch.testing.assert_close(confidence(logits).double(), wanted, atol=1e-6, rtol=0)
    assert confidence(torch.full((1, 5, 1, 1), 3.0)).item() == pytest.approx(0, abs=1e-6)
    assert confidence(_everywhere(torch.tensor([0.0, 0, 1e4, 0, 0]), 1)).item() == 1
    # two of four colours alike: half of the largest entropy
    half = torch.tensor([50.0, 50.0, -50.0, -50.0])
    assert confidence(_everywhere(half, 1)).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("grey", ["rec601", "rec709", "mean", "lstar"])
def test_saturation_multiplies_the_chroma_and_keeps_the_luma(grey):
    rgb = 0.5 + 0.1 * _noise(1, 3, 8, 8).tanh()
    for gain in (0.0, 0.5, 1.5):
        more = saturated(rgb, gain, grey)
        torch.testing.assert_close(luma(more, grey), luma(rgb, grey), atol=2e-4, rtol=0)
        # differences between channels are chroma too
        chroma, tolerance = (_ab, 0.02) if grey == "lstar" else (_differences, 1e-6)
        torch.testing.assert_close(chroma(more), gain * chroma(rgb), atol=tolerance, rtol=0)
    assert torch.equal(saturated(rgb, 1.0, grey), rgb)
    assert saturated(rgb, 1000.0, grey).amax() <= 1


def test_chroma_of_palette_spaces_is_multiplied():
    values = _noise(1, 2, 4, 4)
    for space in ("ab", "cbcr"):
        assert torch.equal(with_more_chroma(values, space, 2.0, "rec601"), 2 * values)
    lab = 50 + 10 * _noise(1, 3, 4, 4)
    more = with_more_chroma(lab, "lab", 0.5, "rec601")
    assert torch.equal(more[:, :1], lab[:, :1])
    assert torch.equal(more[:, 1:], 0.5 * lab[:, 1:])
    rgb = 0.5 + 0.1 * _noise(1, 3, 4, 4).tanh()
    grey = with_more_chroma(rgb, "rgb", 0.0, "rec601")
    torch.testing.assert_close(grey, luma(rgb).expand(-1, 3, -1, -1))
    assert torch.equal(with_more_chroma(lab, "lab", 1.0, "rec601"), lab)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0}, "temperature: 0.0 must be above 0 and at most 1"),
        ({"temperature": 1.01}, "temperature: 1.01"),
        ({"temperature": math.nan}, "temperature: nan"),
        ({"saturation": -0.1}, "saturation: -0.1 must be 0 .grey. or more"),
        ({"saturation": math.inf}, "saturation: inf"),
        ({"saturation": math.nan}, "saturation: nan"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ArgumentError, match=says):
        Decoding(**options)


def test_an_unknown_mode_is_refused_with_the_known_ones():
    assert DECODES == ("mode", "mean", "annealed", "sample")
    with pytest.raises(UnknownNameError, match="did you mean 'sample'"):
        Decoding("smaple")
