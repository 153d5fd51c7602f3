"""Feature health against cases known by construction, and against slow versions of the papers' formulas."""

from __future__ import annotations

import json
import math

import pytest
import torch

from pretint.downstream import feature_health
from pretint.downstream.health import alignment, dead_channels, effective_rank, uniformity
from pretint.runtime import ArgumentError, NotFiniteError

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "d"), [(50, 8), (8, 50), (9000, 5)])
def test_orthogonal_features_have_full_rank(n, d):
    orthogonal = torch.linalg.qr(noise(max(n, d), min(n, d))).Q
    assert effective_rank(orthogonal if n > d else orthogonal.T) == pytest.approx(min(n, d), rel=1e-4)


def test_features_along_one_direction_have_rank_one_and_zeros_none():
    assert effective_rank(noise(100, 1) @ noise(1, 30)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.full((20, 6), 3.0)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(20, 6)) == 0


def test_two_directions_of_strengths_three_to_one_count_as_their_entropy_says():
    directions = torch.linalg.qr(noise(40, 2)).Q * torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(directions @ torch.linalg.qr(noise(9, 2, 1)).Q.T) == pytest.approx(
        math.exp(entropy), rel=1e-4
    )


@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
def test_effective_rank_is_that_of_a_singular_value_decomposition(shape):
    x = noise(*shape) * torch.logspace(0, -4, shape[1]) + 0.3
    p = torch.linalg.svdvals(x.double())
    p = p / p.sum()
    assert effective_rank(x) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-20])
def test_dead_channels_are_those_without_variance(scale):
    x = noise(10_000, 8) * scale
    x[:, 1], x[:, 4] = 0, 0.1 * scale
    x[:, 6] = 0
    x[7, 6] = scale  # one image is enough to be alive
    assert dead_channels(x) == 2 / 8


def slow_uniformity(x: torch.Tensor, t: float) -> float:
    values = []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            u, v = x[i].double() / x[i].double().norm(), x[j].double() / x[j].double().norm()
            values.append(math.exp(-t * float((u - v).square().sum())))
    return math.log(sum(values) / len(values))


@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_the_papers_formula_over_all_pairs(t):
    x = noise(40, 3) * torch.logspace(-3, 3, 40)[:, None]
    assert uniformity(x, t=t) == pytest.approx(slow_uniformity(x, t), rel=1e-6)


def test_uniformity_of_known_arrangements():
    assert uniformity(torch.ones(30, 4) * torch.arange(1, 31)[:, None]) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.eye(20)) == pytest.approx(-4, rel=1e-9)  # every pair at right angles
    assert uniformity(torch.tensor([[1.0, 0], [-2, 0]])) == pytest.approx(-8, rel=1e-9)
    crowded = noise(500, 16) + 3
    assert uniformity(noise(500, 16)) < uniformity(crowded) - 1


def test_uniformity_of_many_images_is_that_of_a_seeded_part_of_them():
    x = noise(3000, 8)
    first, again, other = (uniformity(x, most=200, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(uniformity(x, most=3000), abs=0.1)


def test_identical_views_are_aligned_and_others_by_their_angle():
    x = noise(50, 6)
    assert alignment(x, 5 * x) == pytest.approx(0, abs=1e-9)
    assert alignment(x, -x) == pytest.approx(4, rel=1e-6)
    assert alignment(torch.eye(6), torch.eye(6).roll(1, 0)) == pytest.approx(2, rel=1e-6)
    half = torch.cat([torch.eye(6)[:3], torch.eye(6).roll(1, 0)[3:]])
    assert alignment(torch.eye(6), half) == pytest.approx(1, rel=1e-6)


def test_all_figures_together_go_into_json():
    x = noise(60, 6)
    health = feature_health(x, x + 0.1 * noise(60, 6, 1), seed=2)
    assert json.loads(json.dumps(health.to_dict())) == {
        "effective_rank": effective_rank(x),
        "dead_channels": 0.0,
        "uniformity": uniformity(x, seed=2),
        "alignment": alignment(x, x + 0.1 * noise(60, 6, 1)),
    }
    assert feature_health(x).alignment is None


@pytest.mark.parametrize("figure", [effective_rank, dead_channels, uniformity, lambda x: alignment(x, x)])
def test_features_that_are_none_or_not_finite_are_refused(figure):
    with pytest.raises(NotFiniteError):
        figure(torch.tensor([[1.0, float("inf")], [0.0, 1.0]]))
    with pytest.raises(ArgumentError):
        figure(torch.zeros(0, 3))


def test_numbers_out_of_range_are_told():
    with pytest.raises(ArgumentError, match="2 or more"):
        uniformity(noise(1, 3))
    with pytest.raises(ArgumentError, match="t: got"):
        uniformity(noise(9, 3), t=0.0)
