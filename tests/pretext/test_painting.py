"""Painting: batches of small pictures, and one picture of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import Palette, ab_bins, luma, rgb_to_ycbcr
from pretint.data import Batch, TensorSource
from pretint.pretext import (
    ABBins,
    Autoencoder,
    Decoding,
    HeadSettings,
    LabRegression,
    Painter,
    PaletteTask,
    RGBRegression,
    SplitBrain,
    SuperResolution,
    Task,
    build_model,
)
from pretint.pretext.contract import network_input
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError

CPU = Compute(torch.device("cpu"), bf16=False)
GREY = Preprocess()
# cb, cr of a warm and a cold tint
TINTS = torch.tensor([[-0.1, 0.08], [0.1, -0.06]])


@pytest.fixture(scope="module")
def tints() -> Palette:
    return Palette("cbcr", TINTS, torch.full((2,), 0.5, dtype=torch.float64), torch.ones(256, 2, dtype=torch.float64))


def _pictures(n: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Noise of middle brightness, so that little is clipped."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(70, 186, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def _recoloured(rgb: torch.Tensor) -> torch.Tensor:
    """Other colours of the same luma, where there is room: 299 · 38 + 587 · 2 − 114 · 110 = −4 of 255,000."""
    other = rgb.int() + torch.tensor([38, 2, -110]).view(1, 3, 1, 1)
    fits = ((other >= 0) & (other <= 255)).all(1, keepdim=True)
    return torch.where(fits, other, rgb.int()).to(torch.uint8)


def _painter(task: Task, compute: Compute = CPU) -> Painter:
    """A painter whose network has random weights and normalisations that have seen data, and paints mild colours."""
    torch.manual_seed(0)
    model = build_model(task, create_backbone("pretint_unet", width=4, depth=3)).train()
    for seed in range(20):
        model(torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(seed)))
    with torch.no_grad():
        if task.palette is None:
            model.head.head.weight.mul_(0.05)
            model.head.head.bias.fill_(0.5 if isinstance(task, RGBRegression) else 0.0)
    return Painter(model, task, compute)


def _constant_painter(task: Task, answer: list[float]) -> Painter:
    """A painter whose network gives the same answer for each pixel of any picture."""
    painter = _painter(task)
    head = painter.model.head.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(answer))
    return painter


def _tasks(tints: Palette) -> list[Task]:
    return [
        RGBRegression(GREY),
        RGBRegression(GREY, keep_luma=True),
        LabRegression(GREY),
        LabRegression(GREY, predict_at=2),
        PaletteTask(GREY, tints),
        PaletteTask(GREY, tints, predict_at=4),
    ]


def test_pictures_of_equal_luma_are_painted_alike(tints):
    first = _pictures()
    second = _recoloured(first)
    assert (first != second).any(1).float().mean() > 0.2
    assert (luma(first) - luma(second)).abs().max() < 2e-5
    for task in [t for t in _tasks(tints) if t.predict_at == 1]:
        painter = _painter(task)
        one, other, third = (painter.paint(x).int() for x in (first, second, _pictures(seed=5)))
        assert (one - other).abs().max() <= 1
        assert (one - third).abs().max() > 2


def test_painting_is_the_tasks_painting_of_the_prediction(tints):
    rgb = _pictures()
    for task in _tasks(tints):
        painter = _painter(task)
        predictions = painter.predict(rgb)
        with torch.no_grad():
            wanted = painter.model.eval()(GREY(rgb))
        torch.testing.assert_close(predictions, wanted)
        painted = task.paint(predictions, rgb)
        assert (painter.paint(rgb).float() / 255 - painted).abs().max() <= 0.5 / 255 + 1e-6


def test_painting_changes_nothing_of_the_model_and_needs_no_batch(tints):
    painter = _painter(PaletteTask(GREY, tints))
    before = {k: v.clone() for k, v in painter.model.state_dict().items()}
    painter.model.train()
    together = painter.predict(_pictures(4))
    alone = torch.cat([painter.predict(one[None]) for one in _pictures(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(before[k], v) for k, v in painter.model.state_dict().items())
    assert all(p.grad is None for p in painter.model.parameters())


def test_predictions_go_through_the_wanted_images_in_order(tints):
    images = _pictures(7)
    painter = _painter(PaletteTask(GREY, tints))
    ids = torch.tensor([5, 0, 3, 6, 1])
    rgb, painted, predictions = (
        torch.cat(parts)
        for parts in zip(*painter.predictions(TensorSource(images, name="x", split="test"), ids, 2), strict=True)
    )
    assert torch.equal(rgb, images[ids])
    torch.testing.assert_close(predictions, painter.predict(images[ids]), atol=1e-5, rtol=1e-4)
    assert (painted.int() - painter.paint(images[ids]).int()).abs().max() <= 1


def test_bf16_predictions_come_back_in_float32_and_near(tints):
    task, rgb = PaletteTask(GREY, tints), _pictures()
    full = _painter(task).predict(rgb)
    half = _painter(task, Compute(torch.device("cpu"), bf16=True)).predict(rgb)
    assert half.dtype == torch.float32
    assert 0 < float((half - full).norm() / full.norm()) < 0.05


def _full_palette() -> Palette:
    colours = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.2, 0.2]])
    return Palette("rgb", colours, torch.full((2,), 0.5, dtype=torch.float64), torch.ones(256, 2, dtype=torch.float64))


def test_painting_makes_no_targets(tints, monkeypatch):
    rgb, batch = _pictures(), Batch(_pictures(), torch.arange(2))
    pair = Preprocess(3, chroma="cbcr")
    tasks = [
        *_tasks(tints),
        Autoencoder(GREY),
        SplitBrain(pair, tints),
        SuperResolution(Preprocess(3), _full_palette()),
    ]
    for task in tasks:
        wanted = task.split(batch)[0]
        monkeypatch.setattr(task, "split", lambda _: pytest.fail("targets were made"))
        assert torch.equal(network_input(task, rgb), wanted), task.name
    assert torch.isfinite(_painter(tasks[4]).predict(rgb)).all()


class _Plain:
    """A task of one's own that has no more than it must."""

    name, views, in_chans, out_chans, predict_at, grey, palette = "plain", 1, 1, 3, 1, "rec601", None

    def split(self, batch: Batch):
        return GREY(batch.rgb), batch.rgb.float()

    def loss(self, predictions, targets):
        raise NotImplementedError

    def paint(self, predictions, rgb):
        return predictions.sigmoid()


def test_a_task_that_only_splits_is_painted_as_well():
    rgb, task = _pictures(), _Plain()
    painter = _painter(task)
    torch.testing.assert_close(painter.predict(rgb), painter.model(GREY(rgb)))
    assert painter.paint(rgb).shape == rgb.shape


# Pictures of any size

SIZES = [(8, 8), (16, 16), (50, 7), (33, 64), (200, 120), (1, 1), (3, 40), (1, 300)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_colourize_keeps_any_size_and_the_pictures_own_luma(tints, height, width):
    picture = _pictures(1, height, width)[0]
    for task in _tasks(tints):
        painted = _painter(task).colourize(picture, 16)
        assert painted.dtype == torch.uint8
        assert painted.shape == picture.shape
        inside = ((painted > 0) & (painted < 255)).all(0)
        assert inside.float().mean() > 0.5
        error = (luma(painted[None]) - luma(picture[None]))[0, 0][inside].abs().max()
        # rounding each channel to a whole level moves the luma by at most half a level
        assert error <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("grey", ["rec709", "mean", "lstar"])
def test_colourize_keeps_the_luma_of_the_tasks_own_formula(tints, grey):
    palette = Palette("cbcr", TINTS, tints.prior, tints.grey_lookup, grey)
    picture = _pictures(1, 40, 30)[0]
    painted = _painter(PaletteTask(Preprocess(grey=grey), palette)).colourize(picture, 16)
    inside = ((painted > 0) & (painted < 255)).all(0)
    error = (luma(painted[None], grey) - luma(picture[None], grey))[0, 0][inside].abs().max()
    assert inside.float().mean() > 0.5
    assert error <= 1 / 255


def test_a_network_that_predicts_no_chroma_leaves_the_picture_grey():
    picture = _pictures(1, 40, 30)[0]
    painted = _constant_painter(LabRegression(GREY), [0.0, 0.0]).colourize(picture, 16)
    wanted = (255 * luma(picture[None])[0]).round().expand(3, -1, -1)
    assert (painted - wanted).abs().max() <= 1


@pytest.mark.parametrize("predict_at", [1, 2, 4])
def test_a_network_that_is_sure_of_one_tint_paints_it_at_every_size(tints, predict_at):
    painter = _constant_painter(PaletteTask(GREY, tints, predict_at=predict_at), [50.0, -50.0])
    for height, width in ((16, 16), (50, 35)):
        picture = _pictures(1, height, width)[0]
        painted = painter.colourize(picture, 16)
        chroma = rgb_to_ycbcr(painted[None])[0, 1:].flatten(1).T
        torch.testing.assert_close(chroma, TINTS[0].expand_as(chroma), atol=1 / 255, rtol=0)


def test_colourize_shows_the_network_the_wanted_size(tints):
    painter = _painter(PaletteTask(GREY, tints))
    seen: list[tuple[int, ...]] = []
    painter.model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    for (height, width), size in (
        ((60, 30), 16),
        ((30, 60), 16),
        ((64, 64), 32),
        ((10, 10), 32),
        ((64, 64), 1),
        ((1, 900), 8),
    ):
        painter.colourize(_pictures(1, height, width)[0], size)
    # the last: a picture of one row is shown to the network at most 16 times as long as high
    assert seen == [(1, 1, 32, 16), (1, 1, 16, 32), (1, 1, 32, 32), (1, 1, 32, 32), (1, 1, 8, 8), (1, 1, 8, 128)]


def test_colourize_at_the_trained_size_is_painting(tints):
    painter = _painter(PaletteTask(GREY, tints))
    picture = _pictures(1)
    difference = painter.colourize(picture[0], 16).int() - painter.paint(picture)[0].int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(
    ("backbone", "options", "settings"),
    [
        ("pretint_cs520", {"width": 4}, HeadSettings(decoder="cs520", width=4)),
        ("timm/vit_tiny_patch16_224", {"depth": 1, "patch_size": 4}, HeadSettings(decoder="hypercolumn", width=4)),
    ],
)
def test_a_network_of_one_size_sees_the_whole_picture_in_that_square(tints, backbone, options, settings):
    torch.manual_seed(0)
    task = PaletteTask(GREY, tints, "mode")
    model = build_model(task, create_backbone(backbone, **options), settings)
    painter = Painter(model, task, CPU)
    assert painter.model.fixed_size == 32
    picture = _pictures(1, 20, 90)[0]
    squeezed = F.interpolate(picture[None] / 255, size=(32, 32), mode="bilinear", antialias=True)
    seen: list[torch.Tensor] = []
    painter.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    painted = painter.colourize(picture, 32)
    assert painted.shape == picture.shape
    torch.testing.assert_close(seen[0], GREY(squeezed), atol=0.02, rtol=0)  # rounded to 8 bits in between
    with pytest.raises(ArgumentError, match="--size: this network sees pictures of 32 × 32 pixels alone, not of 64"):
        painter.look_at(picture, 64)


def test_networks_of_any_size_say_so(tints):
    assert _painter(PaletteTask(GREY, tints)).model.fixed_size is None


def test_what_gives_no_colours_to_grey_pictures_paints_no_photograph():
    for task, preprocess in (
        (SuperResolution(Preprocess(3), _full_palette()), Preprocess(3)),
        (Autoencoder(GREY), GREY),
    ):
        encoder = create_backbone("pretint_unet", preprocess.in_chans, width=4, depth=3)
        painter = Painter(build_model(task, encoder), task, CPU)
        with pytest.raises(
            ArgumentError, match=f"task: {task.name} gives no colours to grey pictures; take a run of palette"
        ):
            painter.colourize(_pictures(1)[0], 16)
        assert painter.paint(_pictures()).shape == (2, 3, 16, 16)


def test_a_picture_is_predicted_once_and_painted_in_many_ways(tints):
    painter = _painter(PaletteTask(GREY, tints, predict_at=2))
    picture = _pictures(1, 50, 35)[0]
    seen: list[int] = []
    painter.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    photograph = painter.look_at(picture, 16)
    ways = [None, Decoding("mode"), Decoding("sample", 1.0), Decoding("annealed", 0.1, saturation=0.5)]
    painted = [photograph.painted(way) for way in ways]
    sure = photograph.confidence()
    assert seen == [1]
    for way, picture_painted in zip(ways, painted, strict=True):
        painter.decoding = way
        assert torch.equal(picture_painted, painter.colourize(picture, 16))
    assert len({picture_painted.numpy().tobytes() for picture_painted in painted}) == 4
    assert sure.shape == (50, 35)
    # at the size that the network sees, both ways to ask for confidence are one
    small = _pictures(1)
    torch.testing.assert_close(painter.look_at(small[0], 16).confidence(), painter.confidence(small)[0, 0])


def test_grey_pictures_and_colour_pictures_of_the_same_grey_come_out_alike(tints):
    grey = _pictures(1, 40, 30)[:, :1].expand(-1, 3, -1, -1).contiguous()
    tinted = _recoloured(grey)
    assert (tinted != grey).any(1).float().mean() > 0.2
    painter = _painter(PaletteTask(GREY, tints))
    # the network's smaller picture is rounded channel by channel, which moves its luma by at most half a level
    assert (painter.colourize(tinted[0], 16).int() - painter.colourize(grey[0], 16).int()).abs().max() <= 3


def test_the_model_is_placed_as_the_machine_wants_it(tints):
    painter = _painter(PaletteTask(GREY, tints))
    weights = [m.weight for m in painter.model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[2:] == (3, 3)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


# Ways of painting, chosen after training


def test_a_trained_network_can_be_painted_in_any_way(tints):
    rgb = _pictures()
    painter = _painter(PaletteTask(GREY, tints))
    asked = {}
    for mode in ("mode", "mean", "annealed", "sample"):
        painter.decoding = Decoding(mode)
        asked[mode] = painter.paint(rgb)
        other = PaletteTask(GREY, tints, decode=mode)
        made_so = Painter(painter.model, other, CPU)
        assert torch.equal(asked[mode], made_so.paint(rgb))
        assert torch.equal(Painter(painter.model, painter.task, CPU, Decoding(mode)).paint(rgb), asked[mode])
        pairs = painter.predictions(TensorSource(rgb, name="x", split="test"), torch.arange(2))
        assert torch.equal(next(pairs)[1], asked[mode])
    assert len({picture.numpy().tobytes() for picture in asked.values()}) == 4
    painter.decoding = None
    assert torch.equal(painter.paint(rgb), asked["annealed"])


def test_sampled_pictures_are_the_same_alone_and_among_others(tints):
    rgb = _pictures(4)
    painter = _painter(PaletteTask(GREY, tints))
    painter.decoding = Decoding("sample", 1.0, seed=5)
    together = painter.paint(rgb)
    alone = torch.cat([painter.paint(one[None]) for one in rgb])
    assert (together != alone).any(1).float().mean() < 0.01
    assert torch.equal(together, painter.paint(rgb))
    painter.decoding = Decoding("sample", 1.0, seed=6)
    assert (painter.paint(rgb) != together).any(1).float().mean() > 0.1
    picture = _pictures(1, 40, 30)[0]
    assert torch.equal(painter.colourize(picture, 16), painter.colourize(picture, 16))


def test_saturation_is_a_gain_on_the_chroma(tints):
    rgb = _pictures()
    chromas = {}
    for gain in (0.0, 0.5, 1.0, 1.5):
        painter = _constant_painter(PaletteTask(GREY, tints), [50.0, -50.0])
        painter.decoding = Decoding("mode", saturation=gain)
        painted = painter.paint(rgb)
        chromas[gain] = rgb_to_ycbcr(painted)[:, 1:].mean((0, 2, 3))
        assert (luma(painted) - luma(rgb)).abs().max() < 0.02
        torch.testing.assert_close(chromas[gain], gain * TINTS[0], atol=1 / 255, rtol=0)


def test_saturation_works_for_tasks_that_predict_colours():
    rgb = _pictures()
    for task in (LabRegression(GREY), RGBRegression(GREY)):
        painter = _painter(task)
        plain = painter.paint(rgb)
        for gain in (0.0, 0.5, 1.0):
            painter.decoding = Decoding(saturation=gain)
            painted = painter.paint(rgb)
            wanted = gain * rgb_to_ycbcr(plain)[:, 1:]
            assert (rgb_to_ycbcr(painted)[:, 1:] - wanted).abs().max() < 1.5 / 255
            assert (luma(painted) - luma(plain)).abs().max() < 1.5 / 255
        assert torch.equal(painted, plain)


def test_no_saturation_leaves_a_picture_of_any_size_grey(tints):
    picture = _pictures(1, 40, 30)[0]
    painter = _painter(PaletteTask(GREY, tints, predict_at=2))
    painter.decoding = Decoding(saturation=0.0)
    wanted = (255 * luma(picture[None])[0]).round().expand(3, -1, -1)
    assert (painter.colourize(picture, 16) - wanted).abs().max() <= 1


@pytest.mark.parametrize("predict_at", [1, 2, 4])
def test_confidence_has_the_pictures_size(tints, predict_at):
    painter = _painter(PaletteTask(GREY, tints, predict_at=predict_at))
    rgb = _pictures(2, 18, 11)
    sure = painter.confidence(rgb)
    assert sure.shape == (2, 1, 18, 11)
    assert sure.min() >= 0
    assert sure.max() <= 1
    p = painter.predict(rgb).double().softmax(1)
    at_prediction = 1 + (p * p.log()).sum(1, keepdim=True) / torch.tensor(2.0).log()
    if predict_at == 1:
        torch.testing.assert_close(sure.double(), at_prediction, atol=1e-5, rtol=0)
    else:
        assert at_prediction.min() - 1e-6 <= sure.min() <= sure.max() <= at_prediction.max() + 1e-6


def test_a_sure_network_is_confident_and_an_undecided_one_is_not(tints):
    rgb = _pictures()
    for answer, wanted in (([50.0, -50.0], 1.0), ([3.0, 3.0], 0.0)):
        sure = _constant_painter(PaletteTask(GREY, tints, predict_at=2), answer).confidence(rgb)
        torch.testing.assert_close(sure, torch.full_like(sure, wanted), atol=1e-5, rtol=0)


def test_what_needs_a_distribution_is_refused_for_other_tasks():
    painter = _painter(LabRegression(GREY))
    with pytest.raises(ArgumentError, match="lab-regression predicts no distribution over colours"):
        painter.confidence(_pictures())
    with pytest.raises(ArgumentError, match="lab-regression paints in its own way alone; leave them out"):
        painter.check_told()


def test_bins_are_painted_at_a_quarter_of_the_size_with_the_pictures_luma():
    prior = torch.full((313,), 1 / 313, dtype=torch.float64)
    palette = Palette("ab", ab_bins(), prior, torch.ones(256, 313, dtype=torch.float64))
    painter = _painter(ABBins(GREY, palette, predict_at=4))
    rgb = _pictures()
    assert painter.predict(rgb).shape == (2, 313, 4, 4)
    painted = painter.paint(rgb)
    inside = ((painted > 0) & (painted < 255)).all(1)
    assert inside.float().mean() > 0.8
    assert (luma(painted) - luma(rgb))[:, 0][inside].abs().max() <= 0.5 / 255 + 1e-5
    assert painter.confidence(rgb).shape == (2, 1, 16, 16)
