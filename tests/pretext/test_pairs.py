"""Tasks of two encoders: each half sees its own channels only, and the losses are the published ones."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import Palette, build_palette, luma, rgb_to_lab
from pretint.data import Batch, make_toy
from pretint.pretext import (
    CombinedTask,
    Contrast,
    Painter,
    PaintingTask,
    PaletteTask,
    Rotation,
    SplitBrain,
    Task,
    build_model,
    create_task,
    task_names,
)
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, UnknownNameError

LAB = Preprocess(3, "lstar", chroma="ab")
YCC = Preprocess(3, chroma="cbcr")
CPU = Compute(torch.device("cpu"), bf16=False)


def _pictures(n: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@cache
def _palette(space: str = "ab", k: int = 6) -> Palette:
    return build_palette(lambda: [_pictures(20)], k, space)


def _model(task: Task):
    torch.manual_seed(0)
    return build_model(task, create_backbone("pair/pretint_unet", 3, width=4, depth=3, preprocess=task.preprocess))


def _batch(rgb: torch.Tensor, *others: torch.Tensor) -> Batch:
    return Batch(rgb, torch.arange(len(rgb)), None, others)


def test_split_brain_predicts_chroma_bins_and_fifty_levels_of_lightness():
    task = SplitBrain(LAB, _palette(), predict_at=2)
    rgb = _pictures()
    inputs, (colours, levels) = task.split(_batch(rgb))
    small = (F.avg_pool2d(rgb / 255, 2) * 255).round().to(torch.uint8)
    assert inputs.shape == (6, 3, 16, 16)
    assert torch.equal(colours, task.palette.labels(small))
    wanted = (rgb_to_lab(small)[:, 0] / 2).floor().clamp(0, 49).long()  # 50 bins of 2 units of L*
    assert float((levels == wanted).float().mean()) > 0.999  # an L* on the edge of a bin may round either way
    predictions = _model(task)(inputs)
    assert [p.shape for p in predictions] == [(6, 6, 8, 8), (6, 50, 8, 8)]
    loss = task.loss(predictions, (colours, levels))
    wanted_loss = F.cross_entropy(predictions[0], colours) + F.cross_entropy(predictions[1], levels)
    torch.testing.assert_close(loss.numerator / loss.denominator, wanted_loss)


@pytest.mark.parametrize("which", [0, 1])
def test_neither_half_sees_what_it_must_predict(which):
    task = SplitBrain(LAB, _palette())
    model = _model(task).eval()
    inputs, _ = task.split(_batch(_pictures()))
    changed = inputs.clone()
    hidden = slice(1, 3) if which == 0 else slice(0, 1)
    changed[:, hidden] += torch.randn(6, hidden.stop - hidden.start, 16, 16)
    with torch.no_grad():
        before, after = model(inputs), model(changed)
    assert torch.equal(before[which], after[which])
    assert not torch.allclose(before[1 - which], after[1 - which])


def test_split_brain_paints_from_luma_alone():
    task = SplitBrain(YCC, _palette("cbcr"))
    painter = Painter(_model(task), task, CPU)
    rgb = _pictures()
    grey = (luma(rgb) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    difference = painter.paint(rgb).int() - painter.paint(grey).int()
    assert difference.abs().max() <= 2  # the grey picture's luma is rounded


def test_the_contrast_is_infonce_both_ways():
    task = Contrast(YCC, contrast_temperature=0.2)
    a, b = (F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(s)), dim=1) for s in (1, 2))
    loss = task.loss((a, b), torch.arange(5))
    slow = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(5):
            scores = torch.stack([(x[i] * y[j]).sum() / 0.2 for j in range(5)])
            slow += float(-scores[i] + scores.logsumexp(0)) / 2
    assert float(loss.numerator) == pytest.approx(slow, rel=1e-5)
    assert float(loss.denominator) == 5


def test_a_picture_without_others_to_be_told_from_counts_nothing():
    task = Contrast(YCC)
    model = _model(task).eval()
    inputs, targets = task.split(_batch(_pictures(1)))
    loss = task.loss(model(inputs), targets)
    assert (float(loss.numerator.detach()), float(loss.denominator)) == (0, 0)


def test_each_view_has_its_own_crop():
    task = Contrast(YCC)
    first, second = _pictures(), _pictures().flip(3)
    inputs, _ = task.split(_batch(first, second))
    assert torch.equal(inputs[:, :1], YCC(first)[:, :1])
    assert torch.equal(inputs[:, 1:], YCC(second)[:, 1:])
    assert torch.equal(task.split(_batch(first))[0], YCC(first))


def test_vectors_that_are_compared_have_length_one():
    a, b = _model(Contrast(YCC, dim=16))(YCC(_pictures()))
    assert a.shape == b.shape == (6, 16)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(b.norm(dim=1), torch.ones(6))


def test_contrast_learns_to_match_views():
    torch.manual_seed(0)
    task, rgb = Contrast(YCC), make_toy("train", n=64).images
    model = _model(task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs, targets = task.split(_batch(rgb))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        numerator, denominator = task.loss(model(inputs), targets)
        (numerator / denominator).backward()
        optimizer.step()
        losses.append(float(numerator.detach() / denominator))
    assert losses[-1] < 0.5 * losses[0]


def test_combined_tasks_add_their_losses_by_weight_on_one_encoder():
    palette = _palette("cbcr")
    task = create_task("palette+contrast", YCC, (2.0, 0.5), palette=palette, predict_at=2)
    assert isinstance(task, CombinedTask)
    assert (task.name, task.views, task.in_chans, task.predict_at) == ("palette+contrast", 2, 3, 2)
    rgb, other = _pictures(), _pictures().flip(3)
    inputs, targets = task.split(_batch(rgb, other))
    model = _model_of(task)
    predictions = model(inputs)
    loss = task.loss(predictions, targets)
    paletted = PaletteTask(Preprocess(), palette, predict_at=2).loss(predictions[0], targets[0])
    contrasted = Contrast(YCC).loss(predictions[1], targets[1])
    wanted = 2 * paletted.numerator / paletted.denominator + 0.5 * contrasted.numerator / contrasted.denominator
    torch.testing.assert_close(loss.numerator / loss.denominator, wanted)


def _model_of(task: Task):
    torch.manual_seed(0)
    return build_model(task, create_backbone("pair/pretint_unet", 3, width=4, depth=3, preprocess=YCC))


def test_a_grey_task_beside_a_pair_sees_luma_alone_and_paints():
    task = create_task("palette+contrast", YCC, palette=_palette("cbcr"))
    assert isinstance(task, PaintingTask)
    model = _model_of(task).eval()
    inputs = YCC(_pictures())
    changed = inputs.clone()
    changed[:, 1:] = 0
    with torch.no_grad():
        assert torch.equal(model(inputs)[0], model(changed)[0])
    assert Painter(model, task, CPU).paint(_pictures()).shape == (6, 3, 16, 16)


def test_two_grey_tasks_share_a_grey_encoder():
    task = create_task("palette+autoencoder", Preprocess(), palette=_palette("cbcr"))
    torch.manual_seed(0)
    model = build_model(task, create_backbone("pretint_unet", width=4, depth=3))
    inputs, targets = task.split(_batch(_pictures()))
    assert inputs.shape[1] == 1
    predictions = model(inputs)
    assert [p.shape[1] for p in predictions] == [6, 1]
    (task.loss(predictions, targets).numerator).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "why"),
    [("palette+palette", "twice"), ("palette+rotation", "use it alone"), ("random+palette", "use it alone"),
     ("superres+palette", "use it alone"), ("bins+palette", "palette of their own"),
     ("palette+split-brain", "palette and split-brain each need a palette of their own"),
     ("split-brain+palette", "palette of their own"), ("bins+split-brain", "palette of their own"),
     ("split-brain+contrast", "split-brain and contrast each make both encoders' input"),
     ("contrast+split-brain", "take one of them"), ("palette+contrast+split-brain", "take one of them")],
)  # fmt: skip
def test_combinations_that_make_no_sense_are_refused(name, why):
    with pytest.raises(ArgumentError, match=f"--task: .*{why}"):
        task_names(name)


def test_tasks_that_do_not_go_together_are_refused_however_they_were_made():
    palette = _palette("cbcr")
    for tasks in (
        [SplitBrain(YCC, palette), Contrast(YCC)],
        [PaletteTask(Preprocess(), palette), SplitBrain(YCC, palette)],
    ):
        with pytest.raises(ArgumentError, match="take one of them"):
            CombinedTask(tasks)


@pytest.mark.parametrize("name", ["autoencoder+rgb-regression", "rgb-regression+autoencoder"])
def test_colours_are_painted_whichever_name_comes_first(name):
    task = create_task(name, Preprocess())
    assert task.out_chans == 3
    predictions = {"rgb-regression": torch.rand(2, 3, 8, 8), "autoencoder": torch.rand(2, 1, 8, 8)}
    shown = task.colour_prediction(tuple(predictions[one] for one in name.split("+")))
    assert shown is predictions["rgb-regression"]


def test_one_encoder_of_each_kind_is_for_tasks_that_see_both():
    pair = create_backbone("pair/pretint_unet", 3, width=4, depth=3)
    for task in (
        create_task("superres", Preprocess(3), palette=_palette("rgb")),
        create_task("palette", Preprocess(), palette=_palette("rgb")),
        create_task("palette+autoencoder", Preprocess(), palette=_palette("rgb")),
        create_task("rotation", Preprocess()),
    ):
        with pytest.raises(
            ArgumentError, match=f"--backbone: pair/ .*{re.escape(task.name)} does not see both; leave pair/ out"
        ):
            build_model(task, pair)
    build_model(create_task("supervised", YCC, classes=3), pair)  # labels may be learnt from any input


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(3), Preprocess(2, chroma="ab")])
@pytest.mark.parametrize("name", ["split-brain", "contrast", "palette+contrast"])
def test_tasks_of_pairs_want_luma_and_chroma(name, preprocess):
    options = {} if name == "contrast" else {"palette": _palette("cbcr")}
    with pytest.raises(
        ArgumentError, match=r"sees luma and chroma and nothing else, got (grey|RGB|chroma); give Preprocess"
    ):
        create_task(name, preprocess, **options)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (1.0, 0.0), (1.0, float("nan")), (1.0, 2.0, 3.0)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ArgumentError, match="task-weights"):
        create_task("palette+autoencoder", Preprocess(), weights, palette=_palette())


def test_a_mistyped_part_gives_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean 'contrast'"):
        create_task("palette+contrst", YCC, palette=_palette())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="holds luma"):
        SplitBrain(LAB, _palette("lab"))
    with pytest.raises(ArgumentError, match="levels: 1"):
        SplitBrain(LAB, _palette(), levels=1)
    for temperature in (0.0, -1.0, 10.1, float("nan")):
        with pytest.raises(ArgumentError, match=f"contrast-temperature: {temperature} must be above 0 and at most 10"):
            Contrast(YCC, contrast_temperature=temperature)
    with pytest.raises(ArgumentError, match="use pair/NAME"):
        build_model(Contrast(YCC), create_backbone("pretint_unet", 3, width=4))
    with pytest.raises(ArgumentError, match="paints nothing"):
        Painter(_model(Contrast(YCC)), Contrast(YCC), CPU).paint(_pictures())
    with pytest.raises(ArgumentError, match="one task only"):
        create_task("rotation", Preprocess(), (1.0,))
    assert not isinstance(Rotation(Preprocess()), PaintingTask)
