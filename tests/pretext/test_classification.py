"""Soft targets, label smoothing, rebalancing and masks in the classification tasks, against torch's own loss and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab

import pretint.colour.palette as palette_module
from pretint.backbones import Preprocess
from pretint.colour import Palette, ab_bins, class_weights, smoothed_prior
from pretint.data import Batch
from pretint.pretext import ABBins, PaletteTask, Task, create_task, list_tasks
from pretint.pretext.cross_entropy import PixelTargets, soft_cross_entropy
from pretint.runtime.errors import ArgumentError
from pretint.runtime.loop import Loss

GREY = Preprocess()
COLOURS = (
    torch.tensor([(220, 30, 40), (40, 160, 60), (50, 60, 200), (240, 220, 60), (60, 60, 60), (210, 210, 210)]) / 255
)


def _prior(k: int) -> torch.Tensor:
    prior = torch.rand(k, generator=torch.Generator().manual_seed(7), dtype=torch.float64) ** 3
    return prior / prior.sum()


def _palette(space: str, centres: torch.Tensor) -> Palette:
    return Palette(space, centres, _prior(len(centres)), torch.ones(256, len(centres), dtype=torch.float64))


@pytest.fixture(scope="module")
def bins() -> Palette:
    return _palette("ab", ab_bins())


@pytest.fixture(scope="module")
def six() -> Palette:
    return _palette("rgb", COLOURS)


def _pictures(n: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _greys(n: int = 2, size: int = 8) -> torch.Tensor:
    return _pictures(n, size)[:, :1].expand(-1, 3, -1, -1).contiguous()


def _batch(rgb: torch.Tensor) -> Batch:
    return Batch(rgb, torch.arange(len(rgb)))


def _noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


_tables: dict[tuple[int, float], dict] = {}


def _bins_task(palette: Palette, **options) -> ABBins:
    """A task on the bins; those of equal k and σ share their table, whose making takes a second."""
    task = ABBins(GREY, palette, **options)
    soft = task._soft_labels
    assert soft is not None
    soft._tables = _tables.setdefault((soft.k, soft.sigma), {})
    return task


def _value(loss: Loss) -> float:
    return float((loss.numerator / loss.denominator).detach())


def _dense(targets: PixelTargets, k: int) -> torch.Tensor:
    """Targets as probabilities of all k colours, (b, k, h, w) in double precision."""
    b, _, h, w = targets.indices.shape
    return torch.zeros(b, k, h, w, dtype=torch.float64).scatter_(1, targets.indices, targets.shares.double())


# The loss


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_soft_targets_cost_torchs_cross_entropy_with_probabilities(bins, smoothing, layout):
    task = _bins_task(bins, label_smoothing=smoothing, mask_grey=False)
    _, targets = task.split(_batch(_pictures()))
    ours = _noise(3, 313, 8, 8).to(memory_format=layout).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    loss = task.loss(ours, targets)
    wanted = F.cross_entropy(theirs, _dense(targets, 313), label_smoothing=smoothing)
    assert _value(loss) == pytest.approx(float(wanted.detach()), rel=1e-5)
    (loss.numerator / loss.denominator).backward()
    wanted.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_cost_torchs_label_smoothing(six, smoothing):
    task = PaletteTask(GREY, six, label_smoothing=smoothing)
    _, targets = task.split(_batch(_pictures()))
    logits = _noise(3, 6, 8, 8)
    wanted = F.cross_entropy(logits.double(), six.labels(_pictures()), label_smoothing=smoothing)
    assert _value(task.loss(logits, targets)) == pytest.approx(float(wanted), rel=1e-6)


def test_the_best_prediction_of_soft_targets_costs_their_entropy(bins):
    task = _bins_task(bins, mask_grey=False)
    _, targets = task.split(_batch(_pictures()))
    dense = _dense(targets, 313)
    logits = dense.clamp_min(1e-30).log().float().requires_grad_()
    loss = task.loss(logits, targets)
    entropy = -torch.special.xlogy(dense, dense).sum(1).mean()
    assert 0.5 < float(entropy) < math.log(5)
    assert _value(loss) == pytest.approx(float(entropy), rel=1e-5)
    loss.numerator.backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("rebalance", [0.0, 0.5, 1.0])
def test_rebalanced_labels_cost_torchs_weighted_loss_over_the_number_of_pixels(six, rebalance):
    task = PaletteTask(GREY, six, rebalance=rebalance)
    _, targets = task.split(_batch(_pictures()))
    logits, labels = _noise(3, 6, 8, 8), six.labels(_pictures())
    weights = class_weights(six.prior, rebalance)
    wanted = F.cross_entropy(logits.double(), labels, weight=weights, reduction="sum") / labels.numel()
    loss = task.loss(logits, targets)
    assert _value(loss) == pytest.approx(float(wanted), rel=1e-5)
    # and not over the weights of the batch
    assert float(loss.denominator) == 3 * 8 * 8
    if rebalance < 1:
        assert _value(loss) != pytest.approx(float(F.cross_entropy(logits.double(), labels, weight=weights)), rel=1e-2)


def test_zhangs_loss_by_a_slow_loop(bins):
    """Equation 2 with the weights of equation 4, all from the paper's formulas; pixels near the middle of a cell."""
    task = _bins_task(bins, rebalance=0.5)
    rgb = _pictures(1, 4, seed=5)
    _, targets = task.split(_batch(rgb))
    logits, centres = _noise(1, 313, 4, 4), ab_bins().tolist()
    log = logits.double().log_softmax(1)[0]
    ab = rgb2lab(rgb[0].permute(1, 2, 0).numpy())[..., 1:]
    smoothed = smoothed_prior(bins, 5.0).tolist()
    raw = [1 / (0.5 * p + 0.5 / 313) for p in smoothed]
    scale = math.fsum(p * w for p, w in zip(smoothed, raw, strict=True))
    total = 0.0
    for y, x in np.ndindex(4, 4):
        squared = [(ab[y, x, 0] - a) ** 2 + (ab[y, x, 1] - b) ** 2 for a, b in centres]
        order = sorted(range(313), key=squared.__getitem__)[:5]
        z = [math.exp(-squared[q] / 50) for q in order]
        cross_entropy = -sum(share * float(log[q, y, x]) for share, q in zip(z, order, strict=True)) / sum(z)
        total += raw[order[0]] / scale * cross_entropy
    # the table moves a pixel by at most 0.22 units
    assert _value(task.loss(logits, targets)) == pytest.approx(total / 16, rel=0.02)
    unweighted = _bins_task(bins)
    assert _value(unweighted.loss(logits, unweighted.split(_batch(rgb))[1])) != pytest.approx(total / 16, rel=0.05)


def test_the_weight_of_a_pixel_is_that_of_its_nearest_bin(bins):
    rgb = _pictures()
    _, targets = _bins_task(bins, rebalance=0.5).split(_batch(rgb))
    wanted = class_weights(smoothed_prior(bins, 5.0), 0.5)[bins.labels(rgb)]
    assert targets.weights is not None
    torch.testing.assert_close(targets.weights.double(), wanted, rtol=1e-6, atol=0)
    # a palette of k-means is not smoothed
    assert PaletteTask.prior_sigma is None


def test_half_precision_predictions_are_scored_in_full_precision(bins):
    task = _bins_task(bins, label_smoothing=0.1, mask_grey=False)
    _, targets = task.split(_batch(_pictures()))
    logits = _noise(3, 313, 8, 8).bfloat16()
    loss = task.loss(logits, targets)
    assert loss.numerator.dtype == torch.float32
    wanted = F.cross_entropy(logits.double(), _dense(targets, 313), label_smoothing=0.1)
    assert _value(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_targets_hold_a_few_numbers_a_pixel_and_not_one_for_each_bin(bins):
    _, targets = _bins_task(bins, rebalance=0.5).split(_batch(_pictures(4, 32)))
    numbers = sum(part.numel() for part in targets if part is not None)
    assert numbers == 4 * 32 * 32 * (5 + 5 + 1) + 4


def test_all_options_work_together_and_parts_add_up(six):
    task = PaletteTask(GREY, six, label_smoothing=0.1, soft=3, rebalance=0.5, mask_grey=True, predict_at=2)
    rgb = torch.cat((_pictures(4), _greys(2)))
    logits = _noise(6, 6, 4, 4)
    whole = task.loss(logits, task.split(_batch(rgb))[1])
    parts = [task.loss(logits[i], task.split(_batch(rgb[i]))[1]) for i in (slice(0, 1), slice(1, 5), slice(5, 6))]
    assert sum(float(p.denominator) for p in parts) == float(whole.denominator) == 4 * 16
    assert sum(float(p.numerator) for p in parts) == pytest.approx(float(whole.numerator), rel=1e-5)


# Masks


def test_pictures_without_colour_are_left_out_of_the_loss(bins):
    task, colourful = _bins_task(bins), _pictures(3)
    rgb = torch.cat((_greys(2), colourful))
    logits = _noise(5, 313, 8, 8)
    loss = task.loss(logits, task.split(_batch(rgb))[1])
    only = _bins_task(bins, mask_grey=False)
    wanted = only.loss(logits[2:], only.split(_batch(colourful))[1])
    assert float(loss.denominator) == float(wanted.denominator) == 3 * 64
    assert float(loss.numerator) == pytest.approx(float(wanted.numerator), rel=1e-6)


def test_a_batch_without_any_colour_costs_nothing_and_moves_nothing(bins):
    task = _bins_task(bins, rebalance=0.5)
    logits = _noise(2, 313, 8, 8).requires_grad_()
    loss = task.loss(logits, task.split(_batch(_greys()))[1])
    assert (float(loss.numerator.detach()), float(loss.denominator)) == (0, 0)
    # as the training loop divides
    (loss.numerator / loss.denominator.clamp_min(1e-12)).backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_without_the_mask_greys_count(bins):
    task = _bins_task(bins, mask_grey=False)
    loss = task.loss(_noise(2, 313, 8, 8), task.split(_batch(_greys()))[1])
    assert float(loss.denominator) == 2 * 64
    assert float(loss.numerator) > 0


# The tasks


def test_one_hot_labels_stay_labels(six):
    for task in (PaletteTask(GREY, six), PaletteTask(GREY, six, label_smoothing=0.1)):
        _, targets = task.split(_batch(_pictures()))
        assert isinstance(targets, torch.Tensor)
        assert torch.equal(targets, six.labels(_pictures()))


@pytest.mark.parametrize("predict_at", [1, 2, 4])
def test_soft_targets_are_those_of_the_averaged_picture(bins, predict_at):
    blocks = torch.randint(0, 16, (2, 3, 8, 8), generator=torch.Generator().manual_seed(2)).to(torch.uint8) * 16
    rgb = blocks.repeat_interleave(predict_at, 2).repeat_interleave(predict_at, 3)
    _, targets = _bins_task(bins, predict_at=predict_at).split(_batch(rgb))
    indices, shares = _bins_task(bins)._soft_labels(blocks)
    assert torch.equal(targets.indices, indices)
    assert torch.equal(targets.shares, shares)


def test_bins_are_zhangs_by_default(bins):
    task = _bins_task(bins)
    assert isinstance(task, Task)
    assert (task.name, task.out_chans, task.mask_grey) == ("bins", 313, True)
    assert (task._soft_labels.k, task._soft_labels.sigma) == (5, 5.0)
    assert task.decoding.mode == "annealed"
    _, targets = task.split(_batch(_pictures()))
    assert targets.weights is None


def test_bins_are_made_by_name_from_pictures(bins, monkeypatch):
    rgb = _pictures(4, 16)
    bins.labels(rgb)
    table = bins._table(torch.device("cpu"))
    monkeypatch.setattr(palette_module, "label_table", lambda *_: table)  # making it again takes seconds
    palette = ABBins.fit_palette(lambda: [rgb], 24, "rgb", "mean", 3)
    assert (palette.size, palette.space, palette.grey) == (313, "ab", "mean")
    task = create_task("bins", GREY, palette=palette, soft=0, rebalance=0.5, predict_at=4)
    assert isinstance(task, ABBins)
    _, targets = task.split(_batch(rgb))
    assert targets.indices.shape == (4, 1, 4, 4)
    painted = task.paint(_noise(4, 313, 4, 4), rgb)
    assert painted.shape == (4, 3, 16, 16)
    assert "bins" in list_tasks()


def test_palettes_are_fitted_as_asked():
    palette = PaletteTask.fit_palette(lambda: [_pictures(4, 16)], 5, "cbcr", "rec709", 0)
    assert (palette.size, palette.space, palette.grey) == (5, "cbcr", "rec709")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing: 1\.0 must be from 0 to below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing: -0.1"),
        ({"label_smoothing": math.nan}, "label_smoothing: nan"),
        ({"soft": -1}, "soft: -1 must be 0"),
        ({"soft": 7}, "soft: 7 nearest colours of 6"),
        ({"soft": 5, "soft_sigma": 0.0}, r"soft_sigma: 0\.0 must be"),
        ({"rebalance": 1.1}, r"rebalance: 1\.1 must be from 0 to 1"),
        ({"rebalance": -0.5}, "rebalance: -0.5"),
        ({"rebalance": math.nan}, "rebalance: nan"),
    ],
)
def test_options_that_do_not_fit_are_refused(six, options, says):
    with pytest.raises(ArgumentError, match=says):
        PaletteTask(GREY, six, **options)


def test_bins_of_another_space_are_refused(six):
    with pytest.raises(ArgumentError, match="palette: bins are chromas in the space 'ab', not 'rgb'"):
        ABBins(GREY, six)


def test_no_pictures_at_all_cost_nothing():
    none = PixelTargets(torch.zeros(0, 2, 4, 4, dtype=torch.int64), torch.zeros(0, 2, 4, 4), None, torch.zeros(0) > 0)
    loss = soft_cross_entropy(torch.zeros(0, 6, 4, 4), none)
    assert (float(loss.numerator), float(loss.denominator)) == (0, 0)
