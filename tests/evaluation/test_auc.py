"""Area under the curve of chroma errors, against slow references and cases known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from sklearn.metrics import auc

from pretint.colour import ab_bins, bin_prior, rgb_to_lab, to_float, to_uint8
from pretint.evaluation import ColourQuality, grey_picture
from pretint.evaluation.auc import areas, bin_weights, cell_count, error_cells
from pretint.runtime import ArgumentError

BINS = ab_bins().double().numpy()
KEYS = ("ab_rmse", "auc", "auc_rebalanced")


@pytest.fixture(scope="module")
def true() -> torch.Tensor:
    """Smooth pictures, some of them pale, so that some bins are much more frequent than others."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 4, 4, generator=generator)
    pale = coarse.mean(1, keepdim=True) + (coarse - coarse.mean(1, keepdim=True)) * torch.linspace(0.1, 1, 8).view(
        8, 1, 1, 1
    )
    return to_uint8(torch.nn.functional.interpolate(pale, size=(16, 16), mode="bilinear"))


@pytest.fixture(scope="module")
def painted(true: torch.Tensor) -> torch.Tensor:
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(1))
    return (0.5 * to_float(true) + 0.5 * noise).clamp(0, 1)


def measured(painted: torch.Tensor, true: torch.Tensor, prior: torch.Tensor | None = None) -> dict:
    quality = ColourQuality(bin_prior=prior)
    quality.update(painted, true)
    return quality.compute()


def index_of(a: float, b: float) -> int:
    return ab_bins().tolist().index([a, b])


def slow_curve(errors: np.ndarray, weights: np.ndarray) -> float:
    """The weight of the pixels that are at most t away, for each t, and the area below by scikit-learn."""
    shares = [weights[errors <= t].sum() / weights.sum() for t in range(151)]
    return 100 * float(auc(np.arange(151), shares)) / 150


def slow_weights(prior: np.ndarray) -> np.ndarray:
    """Zhang et al., equation 4 with λ = 0, the prior smoothed as in section 2.2: each bin's share spreads over all bins."""
    smooth = np.zeros(len(prior))
    for share, centre in zip(prior, BINS, strict=True):
        kernel = np.exp(-((BINS - centre) ** 2).sum(1) / (2 * 5**2))
        smooth += share * kernel / kernel.sum()
    return 1 / np.maximum(smooth, smooth[prior > 0].min())


def slow_bins(ab: np.ndarray) -> np.ndarray:
    return np.array([((BINS - pixel) ** 2).sum(1).argmin() for pixel in ab])


def test_both_areas_match_a_slow_sweep_over_thresholds(true, painted):
    results = measured(painted, true)
    ab, true_ab = (rgb_to_lab(x)[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2).double().numpy() for x in (painted, true))
    errors, bins = np.linalg.norm(ab - true_ab, axis=1), slow_bins(true_ab)
    judged = np.bincount(bins, minlength=313) / len(bins)
    assert results["auc"] == pytest.approx(slow_curve(errors, np.ones(len(errors))), abs=1e-3)
    assert results["auc_rebalanced"] == pytest.approx(slow_curve(errors, slow_weights(judged)[bins]), abs=1e-3)
    assert results["auc_prior"] == "judged"
    trained = np.random.default_rng(0).dirichlet(np.full(313, 0.3))
    again = measured(painted, true, torch.from_numpy(trained))
    assert again["auc_rebalanced"] == pytest.approx(slow_curve(errors, slow_weights(trained)[bins]), abs=1e-3)
    assert (again["auc"], again["auc_prior"]) == (results["auc"], "training")
    assert len({round(value, 2) for value in (results["auc"], results["auc_rebalanced"], again["auc_rebalanced"])}) == 3


def test_the_grey_baseline_matches_scikit_image(true):
    ab = np.stack([rgb2lab(picture) for picture in true.permute(0, 2, 3, 1).numpy()])[..., 1:].reshape(-1, 2)
    errors = np.linalg.norm(ab, axis=1)
    # scikit-image's Lab is within 0.01 of ours, and few errors are so near a threshold
    assert measured(true, true)["grey_auc"] == pytest.approx(slow_curve(errors, np.ones(len(errors))), abs=0.02)


def test_the_true_picture_has_the_whole_area_and_grey_that_of_its_baseline(true):
    perfect = measured(true, true)
    assert (perfect["auc"], perfect["auc_rebalanced"]) == (100, pytest.approx(100))
    grey = measured(grey_picture(true), true)
    for key in KEYS:
        assert grey[key] == grey[f"grey_{key}"] == perfect[f"grey_{key}"]
    assert grey["auc_rebalanced"] < grey["auc"] < 100  # strong chroma is rare, and grey misses it most


def test_at_most_a_threshold_is_counted_exactly():
    error = torch.tensor([0.0, 1e-4, 1.0, 1.0001, 10.0, 150.0, 150.01, 1e9, float("inf"), float("nan")]).view(1, 1, -1)
    cells = error_cells(error, torch.ones_like(error, dtype=torch.int64)) - 152
    assert cells.flatten().tolist() == [0, 1, 1, 2, 10, 150, 151, 151, 151, 151]


@pytest.mark.parametrize(
    ("error", "area"), [(0.0, 150), (0.5, 149.5), (1.0, 149.5), (100.0, 50.5), (150.0, 0.5), (151.0, 0)]
)
def test_one_error_everywhere_has_a_known_area(error, area):
    cells = error_cells(torch.full((1, 2, 2), error), torch.full((1, 2, 2), index_of(0, 0)))
    counts = cells.flatten().bincount(minlength=cell_count())
    assert areas(counts, None) == pytest.approx((100 * area / 150, 100 * area / 150))


def test_rebalanced_a_rare_colour_counts_as_much_as_a_frequent_one():
    # far apart, so that smoothing the one does not reach the other; both among bins on all sides
    frequent, rare = index_of(0, 0), index_of(60, 50)
    bins = torch.tensor([frequent] * 9 + [rare]).view(1, 1, 10)
    errors = torch.where(bins == rare, 150.0, 0.0)
    counts = error_cells(errors, bins).flatten().bincount(minlength=cell_count())
    raw, rebalanced = areas(counts, None)
    assert raw == pytest.approx(100 * (0.9 + 0.1 * 0.5 / 150))
    assert rebalanced == pytest.approx(100 * (0.5 + 0.5 * 0.5 / 150), abs=1e-3)


def test_a_bin_never_met_in_training_weighs_no_more_than_the_rarest_that_was():
    prior = torch.zeros(313, dtype=torch.float64)
    prior[index_of(0, 0)], prior[index_of(10, 0)] = 0.999, 0.001
    weights = bin_weights(prior)
    assert weights.isfinite().all()
    assert weights.amax() == weights[index_of(-80, 80)] == weights[index_of(10, 0)] > weights[index_of(0, 0)]


def test_the_prior_baseline_paints_the_mean_chroma_of_the_training_bins(true, painted):
    prior = torch.zeros(313, dtype=torch.float64)
    prior[index_of(10, 20)], prior[index_of(-10, 20)] = 0.75, 0.25  # mean (5, 20)
    results = measured(painted, true, prior)
    true_ab = rgb_to_lab(true)[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2).double().numpy()
    errors = np.linalg.norm(true_ab - [5, 20], axis=1)
    assert results["prior_ab_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    assert results["prior_auc"] == pytest.approx(slow_curve(errors, np.ones(len(errors))), abs=1e-3)
    weights = slow_weights(prior.numpy())[slow_bins(true_ab)]
    assert results["prior_auc_rebalanced"] == pytest.approx(slow_curve(errors, weights), abs=1e-3)
    assert all(measured(painted, true)[f"prior_{key}"] is None for key in KEYS)


def test_of_constant_guesses_the_training_pictures_own_mean_is_nearly_the_best(true, painted):
    results = measured(painted, true, bin_prior(lambda: [true]))
    ab = rgb_to_lab(true)[:, 1:].double()
    best = (ab - ab.mean((0, 2, 3), keepdim=True)).square().sum(1).mean().sqrt().item()
    # bins are 10 units wide, and the mean of their centres is a little beside that of the pixels
    assert best <= results["prior_ab_rmse"] <= 1.01 * best


def test_merged_parts_give_the_whole(true, painted):
    prior = bin_prior(lambda: [true])
    whole, first, second = (ColourQuality(bin_prior=prior) for _ in range(3))
    whole.update(painted, true)
    first.update(painted[:3], true[:3])
    second.update(painted[3:], true[3:])
    first.merge(second)
    keys = [f"{prefix}{key}" for prefix in ("", "grey_", "prior_") for key in KEYS]
    results, wanted = first.compute(), whole.compute()
    assert {key: results[key] for key in keys} == pytest.approx({key: wanted[key] for key in keys}, rel=1e-9)


@pytest.mark.parametrize(
    "prior", [torch.full((24,), 1 / 24, dtype=torch.float64), torch.ones(313, dtype=torch.float64)]
)
def test_what_is_no_prior_of_the_bins_is_refused(prior):
    with pytest.raises(ArgumentError, match="bin_prior: 313 shares that sum to 1"):
        ColourQuality(bin_prior=prior)
