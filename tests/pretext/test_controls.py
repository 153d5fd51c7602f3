"""Controls and super-resolution: inputs and targets known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import build_palette, luma
from pretint.data import Batch
from pretint.pretext import Autoencoder, Rotation, SuperResolution, Supervised, Untrained, build_model
from pretint.runtime.errors import ArgumentError, DataError

GREY = Preprocess()


def _batch(n: int = 8, size: int = 16, labels: bool = False) -> Batch:
    rgb = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(rgb, torch.arange(n), torch.arange(n) % 3 if labels else None)


@pytest.mark.parametrize("predict_at", [1, 2])
def test_the_autoencoder_predicts_the_grey_it_sees(predict_at):
    task, batch = Autoencoder(GREY, predict_at), _batch()
    inputs, targets = task.split(batch)
    assert torch.equal(inputs, GREY(batch.rgb))
    wanted = luma(batch.rgb) if predict_at == 1 else F.avg_pool2d(luma(batch.rgb), 2)
    torch.testing.assert_close(targets, wanted, atol=0.5 / 255 + 1e-6, rtol=0)
    loss = task.loss(torch.full_like(targets, 0.5), targets)
    assert float(loss.numerator / loss.denominator) == pytest.approx(float(((targets - 0.5) ** 2).mean()), rel=1e-5)
    painted = task.paint(targets, batch.rgb)
    grey = luma(batch.rgb).expand(-1, 3, -1, -1)
    torch.testing.assert_close(painted, grey, atol=1e-2 if predict_at > 1 else 1e-6, rtol=0)


def test_a_quarter_of_the_batch_gets_each_turn():
    batch = _batch(9)
    inputs, targets = Rotation(GREY).split(batch)
    assert torch.bincount(targets).tolist() == [3, 2, 2, 2]
    plain = GREY(batch.rgb)
    order = [i for turn in range(4) for i in range(turn, 9, 4)]
    for x, turn, i in zip(inputs, targets, order, strict=True):
        np.testing.assert_array_equal(x[0].numpy(), np.rot90(plain[i, 0].numpy(), int(turn)))


def test_a_picture_that_is_not_square_can_not_be_turned():
    rgb = torch.zeros(4, 3, 8, 12, dtype=torch.uint8)
    with pytest.raises(ArgumentError, match="square"):
        Rotation(GREY).split(Batch(rgb, torch.arange(4)))


@pytest.mark.parametrize("task", [Rotation(GREY), Supervised(GREY, 3), Untrained(GREY)], ids=lambda t: t.name)
def test_classification_of_pictures_is_a_linear_head_on_the_deepest_maps_average(task):
    torch.manual_seed(0)
    encoder = create_backbone("pretint_cnn", width=4, depth=3)
    model = build_model(task, encoder).eval()
    inputs, targets = task.split(_batch(labels=True))
    with torch.no_grad():
        predictions = model(inputs)
        torch.testing.assert_close(predictions, model.head.linear(encoder(inputs)))
    assert predictions.shape == (8, task.out_chans)
    loss = task.loss(predictions, targets)
    torch.testing.assert_close(loss.numerator / loss.denominator, F.cross_entropy(predictions, targets))


@pytest.mark.parametrize("classes", [0, 1])
def test_learning_from_labels_needs_classes(classes):
    with pytest.raises(DataError, match="at least two classes"):
        Supervised(GREY, classes)


def test_super_resolution_sees_four_by_four_averages_and_predicts_every_pixel():
    batch = _batch(4, 16)
    palette = build_palette(lambda: [batch.rgb], 5, "rgb")
    task = SuperResolution(Preprocess(3, mean=0.0, std=1.0), palette)
    inputs, targets = task.split(batch)
    twice = F.avg_pool2d(F.avg_pool2d(batch.rgb / 255, 2), 2)  # the seed's own way: averaged twice
    wanted = twice.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(inputs, wanted, atol=0.51 / 255, rtol=0)
    assert torch.equal(targets, palette.labels(batch.rgb))


def test_super_resolution_needs_colour_in_and_luma_out():
    rgb = _batch().rgb
    with pytest.raises(ArgumentError, match="three RGB channels"):
        SuperResolution(GREY, build_palette(lambda: [rgb], 4, "rgb"))
    with pytest.raises(ArgumentError, match="no luma"):
        SuperResolution(Preprocess(3), build_palette(lambda: [rgb], 4, "cbcr"))
