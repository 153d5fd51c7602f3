"""A narrow network learns each task on a few pictures, and learns what the task's definition says it must."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import Palette, build_palette
from pretint.data import Batch, make_toy
from pretint.pretext import LabRegression, PaletteTask, PretextModel, RGBRegression, Task, build_model

GREY = Preprocess()


def _fit(task: Task, rgb: torch.Tensor, steps: int, rate: float = 1e-2) -> tuple[PretextModel, list[float]]:
    torch.manual_seed(0)
    model = build_model(task, create_backbone("pretint_unet", width=8, depth=4)).train()
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    inputs, targets = task.split(Batch(rgb, torch.arange(len(rgb))))
    losses = []
    for _ in range(steps):
        loss = task.loss(model(inputs), targets)
        mean = loss.numerator / loss.denominator
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        losses.append(float(mean.detach()))
    return model, losses


def test_a_palette_is_learned_below_the_entropy_of_its_prior():
    rgb = make_toy(n=64).images
    palette = build_palette(lambda: [rgb], 8, "cbcr")
    entropy = -float(torch.special.xlogy(palette.prior, palette.prior).sum())
    _, losses = _fit(PaletteTask(GREY, palette, predict_at=2), rgb, 30)
    assert losses[0] > entropy
    assert losses[-1] < 0.7 * entropy


def test_regressions_learn_better_than_the_best_constant():
    rgb = make_toy(n=64).images
    for task in (RGBRegression(GREY, predict_at=2), LabRegression(GREY, predict_at=2)):
        _, targets = task.split(Batch(rgb, torch.arange(64)))
        constant = float(F.mse_loss(targets.mean((0, 2, 3), keepdim=True).expand_as(targets), targets))
        _, losses = _fit(task, rgb, 45, rate=3e-3)
        assert losses[-1] < 0.7 * constant


# A red and a green of the same mean: their grey pictures do not tell which it was
MEAN = Preprocess(grey="mean")
RED, GREEN = (200, 50, 50), (50, 200, 50)


def _two_way() -> torch.Tensor:
    """Two red pictures and two green ones."""
    colours = torch.tensor([RED, GREEN, RED, GREEN], dtype=torch.uint8)
    return colours.view(4, 3, 1, 1).expand(4, 3, 8, 8).contiguous()


def test_regression_answers_the_mean_of_a_two_way_colour():
    rgb = _two_way()
    assert float(MEAN(rgb).amax() - MEAN(rgb).amin()) < 1e-6
    task = RGBRegression(MEAN)
    model, _ = _fit(task, rgb, 150)
    painted = 255 * task.paint(model(MEAN(rgb)).detach(), rgb)
    mean = torch.tensor([(r + g) / 2 for r, g in zip(RED, GREEN, strict=True)])
    assert (painted.mean((0, 2, 3)) - mean).abs().max() < 8


def test_classification_answers_one_of_the_two():
    rgb = torch.cat([_two_way(), _two_way()[:1]])  # three red ones, two green ones
    centres = torch.tensor([RED, GREEN]) / 255
    palette = Palette(
        "rgb", centres, torch.tensor([0.6, 0.4], dtype=torch.float64), torch.ones(256, 2, dtype=torch.float64), "mean"
    )
    task = PaletteTask(MEAN, palette, "mode")
    model, losses = _fit(task, rgb, 150)
    share = model(MEAN(rgb)).detach().softmax(1)[:, 0].mean()
    painted = (255 * task.paint(model(MEAN(rgb)).detach(), rgb)).round()
    assert abs(float(share) - 0.6) < 0.05
    assert (painted == torch.tensor(RED).view(1, 3, 1, 1)).all()
    # it can't do better than the entropy of three in five
    assert abs(losses[-1] - 0.6730) < 0.01
