"""Regression tasks against torch's losses and scikit-image's colours, and pictures whose painting is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab

from pretint.backbones import Preprocess
from pretint.colour import lab_to_rgb, luma, to_uint8
from pretint.pretext import LOSSES, PREDICT_AT, LabRegression, RGBRegression

from .conftest import batch, noise, pictures, value

GREY = Preprocess()
TORCH_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}
BROWN = (120, 80, 40)


@pytest.mark.parametrize("kind", LOSSES)
def test_rgb_regression_is_torchs_loss_over_colours_in_0_to_1(kind):
    task, rgb = RGBRegression(GREY, kind), pictures()
    inputs, targets = task.split(batch(rgb))
    predictions = 3 * noise(3, 3, 8, 8)
    torch.testing.assert_close(inputs, GREY(rgb))
    wanted = TORCH_LOSSES[kind](predictions, rgb.float() / 255)
    assert value(task.loss(predictions, targets)) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("bounded", [False, True])
def test_lab_regression_is_torchs_loss_over_scikit_images_ab_over_128(kind, bounded):
    task, rgb = LabRegression(GREY, kind, bounded), pictures()
    _, targets = task.split(batch(rgb))
    ab = rgb2lab(rgb.permute(0, 2, 3, 1).numpy())[..., 1:]
    wanted = torch.tensor(ab).permute(0, 3, 1, 2) / 128
    np.testing.assert_allclose(targets.numpy(), wanted.numpy(), atol=1e-4)
    predictions = noise(3, 2, 8, 8)
    shown = predictions.tanh() if bounded else predictions
    reference = TORCH_LOSSES[kind](shown.double(), wanted)
    assert value(task.loss(predictions, targets)) == pytest.approx(float(reference), rel=1e-4)


def test_perfect_rgb_predictions_cost_nothing_and_paint_the_picture():
    task, rgb = RGBRegression(GREY), pictures()
    _, targets = task.split(batch(rgb))
    assert value(task.loss(targets, targets)) == 0
    assert torch.equal(to_uint8(task.paint(targets, rgb)), rgb)
    # whatever the pictures, beyond the range of colours it is clipped
    assert task.paint(targets * 0 + 7, rgb).max() == 1


def test_perfect_ab_predictions_paint_the_picture_when_the_grey_is_its_lightness():
    rgb = pictures()
    for bounded in (False, True):
        task = LabRegression(Preprocess(grey="lstar"), bounded=bounded)
        _, targets = task.split(batch(rgb))
        painted = to_uint8(task.paint(targets.atanh() if bounded else targets, rgb))
        assert (painted.int() - rgb.int()).abs().max() <= 1


def test_keep_luma_replaces_the_luma_and_nothing_else():
    rgb = pictures(1)
    predictions = 0.4 + 0.2 * noise(1, 3, 8, 8).sigmoid()
    free, kept = (
        RGBRegression(GREY).paint(predictions, rgb),
        RGBRegression(GREY, keep_luma=True).paint(predictions, rgb),
    )
    assert torch.equal(free, predictions)
    inside = ((kept > 0) & (kept < 1)).all(1)
    assert inside.any()
    torch.testing.assert_close(luma(kept)[:, 0][inside], luma(rgb)[:, 0][inside], atol=1e-5, rtol=0)
    # the differences between channels are the chroma, and they stay
    torch.testing.assert_close(
        (kept[:, 0] - kept[:, 2])[inside], (predictions[:, 0] - predictions[:, 2])[inside], atol=1e-5, rtol=0
    )


def test_lab_painting_takes_its_lightness_from_the_grey_picture():
    # ab = 0 is the grey picture itself
    rgb = pictures(2)
    painted = LabRegression(GREY).paint(torch.zeros(2, 2, 8, 8), rgb)
    torch.testing.assert_close(painted, luma(rgb).expand(-1, 3, -1, -1), atol=2e-3, rtol=0)
    # and a known chroma is where Lab says
    grey = torch.full((1, 3, 1, 1), 119, dtype=torch.uint8)  # L* = 50.03
    task = LabRegression(Preprocess(grey="lstar"), bounded=False)
    painted = task.paint(torch.tensor([20.0, -30.0]).view(1, 2, 1, 1) / 128, grey)
    wanted = lab_to_rgb(torch.tensor([50.03, 20.0, -30.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(painted, wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("predict_at", PREDICT_AT)
def test_the_border_of_an_odd_side_is_averaged_over_what_is_there(predict_at):
    flat = torch.tensor(BROWN, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 9, 11).contiguous()
    _, targets = RGBRegression(GREY, predict_at=predict_at).split(batch(flat))
    assert torch.equal(to_uint8(targets), flat[..., : targets.shape[-2], : targets.shape[-1]])
