"""Colourfulness and ΔE2000 against slow versions, published data and scikit-image."""

import inspect

import numpy as np
import pytest
import torch
from skimage import color

from pretint.colour import colourfulness, delta_e2000, rgb_to_lab, to_float
from pretint.runtime.errors import ArgumentError

# Sharma, Wu & Dalal 2005, table 1: L, a, b of one colour, of the other, and ΔE00.
SHARMA = """
50.0000   2.6772 -79.7751  50.0000   0.0000 -82.7485  2.0425
50.0000   3.1571 -77.2803  50.0000   0.0000 -82.7485  2.8615
50.0000   2.8361 -74.0200  50.0000   0.0000 -82.7485  3.4412
50.0000  -1.3802 -84.2814  50.0000   0.0000 -82.7485  1.0000
50.0000  -1.1848 -84.8006  50.0000   0.0000 -82.7485  1.0000
50.0000  -0.9009 -85.5211  50.0000   0.0000 -82.7485  1.0000
50.0000   0.0000   0.0000  50.0000  -1.0000   2.0000  2.3669
50.0000  -1.0000   2.0000  50.0000   0.0000   0.0000  2.3669
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0009  7.1792
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0010  7.1792
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0011  7.2195
50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0012  7.2195
50.0000  -0.0010   2.4900  50.0000   0.0009  -2.4900  4.8045
50.0000  -0.0010   2.4900  50.0000   0.0010  -2.4900  4.8045
50.0000  -0.0010   2.4900  50.0000   0.0011  -2.4900  4.7461
50.0000   2.5000   0.0000  50.0000   0.0000  -2.5000  4.3065
50.0000   2.5000   0.0000  73.0000  25.0000 -18.0000  27.1492
50.0000   2.5000   0.0000  61.0000  -5.0000  29.0000  22.8977
50.0000   2.5000   0.0000  56.0000 -27.0000  -3.0000  31.9030
50.0000   2.5000   0.0000  58.0000  24.0000  15.0000  19.4535
50.0000   2.5000   0.0000  50.0000   3.1736   0.5854  1.0000
50.0000   2.5000   0.0000  50.0000   3.2972   0.0000  1.0000
50.0000   2.5000   0.0000  50.0000   1.8634   0.5757  1.0000
50.0000   2.5000   0.0000  50.0000   3.2592   0.3350  1.0000
60.2574 -34.0099  36.2677  60.4626 -34.1751  39.4387  1.2644
63.0109 -31.0961  -5.8663  62.8187 -29.7946  -4.0864  1.2630
61.2901   3.7196  -5.3901  61.4292   2.2480  -4.9620  1.8731
35.0831 -44.1164   3.7933  35.0232 -40.0716   1.5901  1.8645
22.7233  20.0904 -46.6940  23.0331  14.9730 -42.5619  2.0373
36.4612  47.8580  18.3852  36.2715  50.5065  21.2231  1.4146
90.8027  -2.0831   1.4410  91.1528  -1.6435   0.0447  1.4441
90.9257  -0.5406  -0.9208  88.6381  -0.8985  -0.7239  1.5381
 6.7747  -0.2908  -2.4247   5.8714  -0.0985  -2.2286  0.6377
 2.0776   0.0795  -1.1350   0.9033  -0.0636  -0.5514  0.9082
"""


def _last(picture: torch.Tensor) -> np.ndarray:
    return picture.double().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("swapped", [False, True])
def test_delta_e2000_gives_the_34_published_differences(swapped):
    table = torch.tensor([[float(number) for number in line.split()] for line in SHARMA.strip().splitlines()])
    assert table.shape == (34, 7)
    first, second = table[:, :3].view(34, 3, 1, 1), table[:, 3:6].view(34, 3, 1, 1)
    ours = delta_e2000(second, first) if swapped else delta_e2000(first, second)
    assert (ours.flatten() - table[:, 6]).abs().max() < 1e-4


def test_delta_e2000_matches_scikit_image_between_random_colours():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        rgb_to_lab(torch.randint(0, 256, (2, 3, 100, 100), generator=generator, dtype=torch.uint8)) for _ in "12"
    )
    expected = color.deltaE_ciede2000(_last(first), _last(second))
    assert np.abs(delta_e2000(first, second).numpy() - expected).max() < 1e-3


def test_delta_e2000_matches_scikit_image_between_near_colours():
    generator = torch.Generator().manual_seed(0)
    first = rgb_to_lab(torch.randint(0, 256, (2, 3, 100, 100), generator=generator, dtype=torch.uint8))
    second = first + torch.randn(first.shape, generator=generator)
    expected = color.deltaE_ciede2000(_last(first), _last(second))
    assert np.abs(delta_e2000(first, second).numpy() - expected).max() < 1e-4


def test_delta_e2000_of_greys_and_of_equal_colours():
    lightness = torch.linspace(0, 100, 32).view(1, 1, 1, 32)
    greys = torch.cat((lightness, torch.zeros(1, 2, 1, 32)), 1)
    assert torch.count_nonzero(delta_e2000(greys, greys)) == 0
    colour = torch.tensor([50.0, 40, -30]).view(1, 3, 1, 1).expand(1, 3, 1, 32)
    expected = color.deltaE_ciede2000(_last(greys), _last(colour))
    assert np.abs(delta_e2000(greys, colour).numpy() - expected).max() < 1e-4


def test_delta_e2000_refuses_pictures_of_different_shapes():
    with pytest.raises(ArgumentError, match=r"got \(1, 3, 4, 4\) and \(1, 3, 4, 5\)"):
        inspect.unwrap(delta_e2000)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5))


def _slow_colourfulness(rgb: np.ndarray) -> float:
    """M3 of one picture (3, h, w) in 0…255, written down from the paper."""
    red, green, blue = rgb.astype(np.float64)
    rg, yb = red - green, 0.5 * (red + green) - blue
    return np.sqrt(rg.std() ** 2 + yb.std() ** 2) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_colourfulness_matches_a_slow_version(kind):
    generator = torch.Generator().manual_seed(3)
    rgb = torch.randint(0, 256, (5, 3, 12, 9), generator=generator, dtype=torch.uint8)
    rgb[1] //= 4
    rgb[2, 0] = 200
    expected = [_slow_colourfulness(picture.numpy()) for picture in rgb]
    ours = colourfulness(rgb if kind == "uint8" else to_float(rgb))
    assert ours.tolist() == pytest.approx(expected, rel=1e-5)


def test_colourfulness_of_one_flat_colour_is_its_distance_from_grey():
    # No spread; rg = 100 - 60 = 40 and yb = 80 - 50 = 30, so M3 = 0.3 · 50.
    flat = torch.tensor([100, 60, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert colourfulness(flat).item() == pytest.approx(15, rel=1e-5)


def test_a_grey_picture_has_no_colourfulness():
    grey = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    assert colourfulness(grey.expand(3, 3, 8, 8)).tolist() == [0, 0, 0]
