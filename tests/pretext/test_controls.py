"""Controls and super-resolution: inputs and targets known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import build_palette, luma
from pretint.data import Batch
from pretint.pretext import (
    Autoencoder,
    Decoding,
    Rotation,
    SuperResolution,
    Supervised,
    Untrained,
    build_model,
    create_task,
)
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


@pytest.mark.parametrize("predict_at", [1, 2, 4])
def test_the_autoencoder_paints_what_it_predicts_and_nothing_of_the_picture(predict_at):
    predictions = torch.rand(8, 1, 16 // predict_at, 16 // predict_at, generator=torch.Generator().manual_seed(1))
    painted = Autoencoder(GREY, predict_at).paint(predictions, _batch().rgb)
    grey = F.interpolate(predictions, size=(16, 16), mode="bilinear").expand(-1, 3, -1, -1)
    torch.testing.assert_close(painted, grey, atol=1e-6, rtol=0)


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


@pytest.mark.parametrize("predict_at", [1, 2])
@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_super_resolution_paints_nothing_of_the_luma_that_it_must_find(space, predict_at):
    rgb = _batch(2).rgb
    task = SuperResolution(Preprocess(3), build_palette(lambda: [rgb], 5, space), predict_at=predict_at)
    predictions = torch.randn(2, 5, 16 // predict_at, 16 // predict_at, generator=torch.Generator().manual_seed(1))
    for way in (None, Decoding("mode", saturation=0.5)):
        painted = task.paint(predictions, rgb, way)
        assert painted.shape == (2, 3, 16, 16)
        assert torch.equal(painted, task.paint(predictions, 255 - rgb, way))


def test_super_resolution_needs_colour_in_luma_out_and_something_to_find():
    rgb = _batch().rgb
    palette = build_palette(lambda: [rgb], 4, "rgb")
    for preprocess, given in ((GREY, "grey"), (Preprocess(3, chroma="ab"), "luma and chroma")):
        with pytest.raises(
            ArgumentError, match=rf"superres sees RGB and nothing else, got {given}; give Preprocess\(3\)"
        ):
            create_task("superres", preprocess, palette=palette)
    with pytest.raises(ArgumentError, match="no luma"):
        SuperResolution(Preprocess(3), build_palette(lambda: [rgb], 4, "cbcr"))
    with pytest.raises(ArgumentError, match=r"--predict-at: at 4 .* use 1 or 2"):
        SuperResolution(Preprocess(3), palette, predict_at=4)


def test_labels_are_learnt_from_colour_pictures_too():
    task = create_task("supervised", Preprocess(3), classes=3)
    assert task.split(_batch(labels=True))[0].shape == (8, 3, 16, 16)
