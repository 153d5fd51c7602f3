"""Are the axes of a layer a rotation of its standardised features, at any scale and with dead channels?"""

from __future__ import annotations

import pytest
import torch

from pretint.downstream.axes import PrincipalAxes, channel_moments


def correlated(n: int = 500, d: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + 3


@pytest.mark.parametrize("scale", [1.0, 1e18, 1e-18])
def test_principal_axes_are_a_rotation_of_the_standardised_features(scale):
    x = correlated()
    standard = ((x - x.mean(0)) / x.std(0, correction=0)).double()
    axes = PrincipalAxes.fit((x[:, :2] * scale, x[:, 2:] * scale))
    z = axes.project((x[:, :2] * scale, x[:, 2:] * scale), torch.device("cpu")).double()
    torch.testing.assert_close(z @ z.T, standard @ standard.T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(z.T @ z / len(z), torch.diag(axes.variances.double()), rtol=1e-3, atol=1e-4)
    assert float(axes.variances.mean()) == pytest.approx(1, abs=1e-4)


def test_dead_channels_become_zero_rather_than_noise():
    x = correlated()
    dead = torch.cat([x, torch.zeros(len(x), 1), torch.full((len(x), 1), 0.1)], 1)
    axes = PrincipalAxes.fit((dead,))
    z = axes.project((dead,), torch.device("cpu"))
    alive = PrincipalAxes.fit((x,)).project((x,), torch.device("cpu"))
    torch.testing.assert_close(z @ z.T, alive @ alive.T, rtol=1e-3, atol=1e-3)
    assert bool((axes.rotation[-2:] == 0).all())


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_moments_of_channels_match_those_of_the_whole_in_float64(scale):
    x = torch.cat([correlated(9000), torch.full((9000, 1), -4.0)], 1) * scale
    mean, deviation, peak = channel_moments((x[:, :2], x[:, 2:]), torch.device("cpu"))
    torch.testing.assert_close(mean, x.double().mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(deviation, x.double().std(0, correction=0), rtol=1e-9, atol=1e-12 * scale)
    assert torch.equal(peak, x.double().abs().amax(0))
