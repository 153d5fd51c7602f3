"""The colour tasks against slow references and against torch's and scikit-image's own functions."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab

from pretint.backbones import Preprocess
from pretint.colour import PALETTE_SPACES, Palette, luma, to_uint8
from pretint.pretext import (
    PREDICT_AT,
    TASKS,
    LabRegression,
    PaletteTask,
    RGBRegression,
    Task,
    create_task,
    list_tasks,
    register_task,
    task_names,
)
from pretint.runtime.errors import ArgumentError, UnknownNameError
from pretint.runtime.loop import Loss

from .conftest import batch, noise, pictures, value

GREY = Preprocess()
# red, green, blue, yellow, dark and light grey, brown
COLOURS = [(220, 30, 40), (40, 160, 60), (50, 60, 200), (240, 220, 60), (60, 60, 60), (210, 210, 210), (120, 80, 40)]


def _to_space(rgb: np.ndarray, space: str) -> np.ndarray:
    """uint8 (…, 3) to a palette space by scikit-image and the JPEG standard's formulas."""
    if space == "rgb":
        return rgb / 255
    if space in ("lab", "ab"):
        return rgb2lab(rgb)[..., (0 if space == "lab" else 1) :]
    r, g, b = (rgb[..., i] / 255 for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([0.5 * (b - y) / (1 - 0.114), 0.5 * (r - y) / (1 - 0.299)], axis=-1)


@cache
def _palette(space: str, grey: str = "rec601") -> Palette:
    colours = np.array(COLOURS, np.uint8)[None]
    centres = torch.tensor(_to_space(colours, space)[0], dtype=torch.float32)
    k = len(centres)
    return Palette(
        space, centres, torch.full((k,), 1 / k, dtype=torch.float64), torch.ones(256, k, dtype=torch.float64), grey
    )


@pytest.fixture(scope="module", params=PALETTE_SPACES)
def palette(request) -> Palette:
    return _palette(request.param)


@pytest.fixture(scope="module")
def rgb_palette() -> Palette:
    return _palette("rgb")


def _even_blocks(factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose blocks of factor × factor pixels have whole-numbered averages, and those averages."""
    steps = torch.randint(0, 256 // factor**2, (2, 3, 8, 8), generator=torch.Generator().manual_seed(2)) * factor**2
    means = steps.view(2, 3, 8 // factor, factor, 8 // factor, factor).sum((3, 5)) // factor**2
    return steps.to(torch.uint8), means.to(torch.uint8)


# Targets


@pytest.mark.parametrize("factor", [2, 4])
def test_smaller_targets_are_those_of_the_averaged_picture(factor, rgb_palette):
    rgb, averaged = _even_blocks(factor)
    for make in (
        lambda at: RGBRegression(GREY, predict_at=at),
        lambda at: LabRegression(GREY, predict_at=at),
        lambda at: PaletteTask(GREY, rgb_palette, predict_at=at),
    ):
        inputs, targets = make(factor).split(batch(rgb))
        assert inputs.shape[-2:] == (8, 8)
        torch.testing.assert_close(targets, make(1).split(batch(averaged))[1])


@pytest.mark.parametrize("predict_at", PREDICT_AT)
def test_an_odd_side_is_rounded_up_in_targets(predict_at, rgb_palette):
    rgb = pictures(1, 9, 11)
    size = (-(-9 // predict_at), -(-11 // predict_at))
    for task in (
        RGBRegression(GREY, predict_at=predict_at),
        LabRegression(GREY, predict_at=predict_at),
        PaletteTask(GREY, rgb_palette, predict_at=predict_at),
    ):
        _, targets = task.split(batch(rgb))
        assert targets.shape[-2:] == size
        assert task.paint(noise(1, task.out_chans, *size), rgb).shape == (1, 3, 9, 11)


def test_parts_of_a_batch_add_up_to_the_whole(rgb_palette):
    rgb = pictures(5)
    for task in (RGBRegression(GREY), LabRegression(GREY), PaletteTask(GREY, rgb_palette)):
        predictions = noise(5, task.out_chans, 8, 8)
        _, targets = task.split(batch(rgb))
        whole = task.loss(predictions, targets)
        parts = [task.loss(predictions[i], targets[i]) for i in (slice(0, 1), slice(1, 5))]
        together = sum(float(p.numerator) for p in parts) / sum(float(p.denominator) for p in parts)
        assert together == pytest.approx(value(whole), rel=1e-5)


# Palette


def test_palette_loss_is_cross_entropy_with_the_nearest_colour(palette):
    task, rgb = PaletteTask(GREY, palette), pictures(2)
    _, targets = task.split(batch(rgb))
    logits = 3 * noise(2, palette.size, 8, 8)
    points = _to_space(rgb.permute(0, 2, 3, 1).numpy(), palette.space)
    centres = palette.centres.double().numpy()
    nearest = torch.empty(2, 8, 8, dtype=torch.int64)
    for index in np.ndindex(2, 8, 8):
        nearest[index] = min(range(len(centres)), key=lambda k: float(((points[index] - centres[k]) ** 2).sum()))
    assert torch.equal(targets, nearest)
    wanted = F.cross_entropy(logits.double(), nearest)
    assert value(task.loss(logits, targets)) == pytest.approx(float(wanted), rel=1e-6)


def test_uniform_logits_cost_the_logarithm_of_the_number_of_colours(palette):
    task = PaletteTask(GREY, palette)
    _, targets = task.split(batch(pictures()))
    uniform = torch.full((3, palette.size, 8, 8), 2.5)
    assert value(task.loss(uniform, targets)) == pytest.approx(math.log(len(COLOURS)), rel=1e-6)


def test_half_precision_predictions_are_scored_in_full_precision(rgb_palette):
    task = PaletteTask(GREY, rgb_palette)
    _, targets = task.split(batch(pictures()))
    logits = (5 * noise(3, 7, 8, 8)).bfloat16()
    loss = task.loss(logits, targets)
    assert loss.numerator.dtype == torch.float32
    assert value(loss) == pytest.approx(float(F.cross_entropy(logits.double(), targets)), rel=1e-5)


def _decode_slowly(task: PaletteTask, logits: torch.Tensor) -> np.ndarray:
    """Pixel by pixel, in double precision."""
    centres = task.palette.centres.double().numpy()
    b, k, h, w = logits.shape
    out = np.empty((b, centres.shape[1], h, w))
    for i, y, x in np.ndindex(b, h, w):
        z = logits[i, :, y, x].double().tolist()
        if task.decoding.mode == "mode":
            out[i, :, y, x] = centres[max(range(k), key=z.__getitem__)]
            continue
        t = task.decoding.temperature if task.decoding.mode == "annealed" else 1.0
        weights = [math.exp((value - max(z)) / t) for value in z]
        out[i, :, y, x] = sum(weight * centres[j] for j, weight in enumerate(weights)) / sum(weights)
    return out


@pytest.mark.parametrize("decode", ["mode", "mean", "annealed"])
def test_decoding_matches_a_slow_one(palette, decode):
    task = PaletteTask(GREY, palette, decode, temperature=0.38)
    logits = 2 * noise(2, palette.size, 3, 4)
    np.testing.assert_allclose(task.expected_colour(logits).numpy(), _decode_slowly(task, logits), rtol=1e-4, atol=1e-4)


def test_annealing_goes_from_the_mean_to_the_mode(palette):
    logits = 2 * noise(2, palette.size, 8, 8)
    # no ties: the limit needs the best logit to stand clear of the second
    best = logits.topk(2, dim=1).values
    clear = (best[:, :1] - best[:, 1:] > 0.05).expand(-1, palette.centres.shape[1], -1, -1)
    assert clear.float().mean() > 0.8
    mode = PaletteTask(GREY, palette, "mode").expected_colour(logits)
    mean = PaletteTask(GREY, palette, "mean").expected_colour(logits)
    cold = PaletteTask(GREY, palette, "annealed", temperature=1e-3).expected_colour(logits)
    warm = PaletteTask(GREY, palette, "annealed", temperature=1.0).expected_colour(logits)
    torch.testing.assert_close(cold[clear], mode[clear])
    torch.testing.assert_close(warm, mean)
    distances = [
        float((PaletteTask(GREY, palette, "annealed", temperature=t).expected_colour(logits) - mode).norm())
        for t in (0.1, 0.38, 0.7, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1]


@pytest.mark.parametrize("decode", ["mode", "mean", "annealed"])
def test_perfect_logits_paint_the_nearest_palette_colour(rgb_palette, decode):
    task, rgb = PaletteTask(GREY, rgb_palette, decode), pictures(2)
    points = rgb.permute(0, 2, 3, 1).double()[..., None, :]  # (2, 8, 8, 1, 3)
    colours = torch.tensor(COLOURS, dtype=torch.float64)  # (7, 3)
    nearest = (points - colours).norm(dim=-1).argmin(-1)  # (2, 8, 8)
    logits = 1e4 * F.one_hot(nearest, len(COLOURS)).permute(0, 3, 1, 2).float()
    painted = to_uint8(task.paint(logits, rgb))
    assert torch.equal(painted, colours[nearest].permute(0, 3, 1, 2).to(torch.uint8))


@pytest.mark.parametrize("predict_at", PREDICT_AT)
@pytest.mark.parametrize("grey", ["rec601", "rec709", "mean", "lstar"])
@pytest.mark.parametrize("space", ["ab", "cbcr"])
def test_chroma_palettes_keep_the_pictures_luma(space, grey, predict_at):
    task = PaletteTask(Preprocess(grey=grey), _palette(space, grey), predict_at=predict_at)
    rgb = pictures(2, 8, 8) // 2 + 64
    painted = task.paint(noise(2, len(COLOURS), 8 // predict_at, 8 // predict_at), rgb)
    inside = ((painted > 0.001) & (painted < 0.999)).all(1)
    assert inside.float().mean() > 0.5
    error = (luma(painted, grey) - luma(rgb, grey))[:, 0][inside].abs().max()
    assert error < 1e-4


def test_a_sure_chroma_prediction_gives_every_pixel_that_chroma():
    palette = _palette("cbcr")
    task, rgb = PaletteTask(GREY, palette), torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    logits = torch.zeros(1, len(COLOURS), 8, 8)
    logits[:, 6] = 1e4  # brown
    painted = task.paint(logits, rgb)
    chroma = _to_space(255 * painted.permute(0, 2, 3, 1).double().numpy(), "cbcr")
    np.testing.assert_allclose(chroma, np.broadcast_to(palette.centres[6].numpy(), chroma.shape), atol=1e-5)
    torch.testing.assert_close(luma(painted), luma(rgb))


# What a task is told


def _all_tasks(preprocess: Preprocess, palettes: dict[str, Palette], predict_at: int) -> list[Task]:
    regressions = [
        RGBRegression(preprocess, predict_at=predict_at),
        RGBRegression(preprocess, keep_luma=True, predict_at=predict_at),
        LabRegression(preprocess, predict_at=predict_at),
    ]
    return [*regressions, *(PaletteTask(preprocess, p, predict_at=predict_at) for p in palettes.values())]


@pytest.fixture(scope="module")
def palettes() -> dict[str, Palette]:
    return {space: _palette(space) for space in PALETTE_SPACES}


def _equal_luma_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of clearly different colours and the same rec601 luma: 299 · 38 + 587 · 2 − 114 · 110 = −4 of 255,000."""
    first = pictures(2) // 2 + 20
    first[:, 2] += 100
    second = first + torch.tensor([38, 2, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    second[:, 2] -= 110
    return first, second


@pytest.mark.parametrize("predict_at", PREDICT_AT)
def test_painting_depends_on_nothing_but_the_grey(palettes, predict_at):
    first, second = _equal_luma_pair()
    assert (luma(first) - luma(second)).abs().max() < 2e-5
    assert (first.int() - second.int()).abs().max() >= 100
    for task in _all_tasks(GREY, palettes, predict_at):
        torch.testing.assert_close(task.split(batch(first))[0], task.split(batch(second))[0], atol=1e-4, rtol=0)
        predictions = noise(2, task.out_chans, 8 // predict_at, 8 // predict_at)
        painted = [task.paint(predictions, rgb) for rgb in (first, second)]
        # a grey of an averaged picture is rounded to 1/255 per channel
        tolerance = 5e-4 if predict_at == 1 else 0.01
        torch.testing.assert_close(*painted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("predict_at", PREDICT_AT)
def test_every_painting_lies_within_0_and_1(palettes, predict_at):
    for task in _all_tasks(GREY, palettes, predict_at):
        predictions = 20 * noise(2, task.out_chans, 8 // predict_at, 8 // predict_at)
        painted = task.paint(predictions, pictures(2))
        assert painted.shape == (2, 3, 8, 8)
        assert painted.dtype == torch.float32
        assert painted.min() >= 0
        assert painted.max() <= 1


def test_tasks_follow_the_protocol(palettes):
    for task in _all_tasks(GREY, palettes, 2):
        assert isinstance(task, Task)
        assert TASKS[task.name] is type(task)
        assert (task.views, task.in_chans, task.predict_at, task.grey) == (1, 1, 2, "rec601")
        classes = task.palette.size if task.palette else {"rgb-regression": 3, "lab-regression": 2}[task.name]
        assert task.out_chans == classes


# By name


def test_tasks_are_made_by_name(rgb_palette):
    assert isinstance(create_task("rgb-regression", GREY, loss="l1"), RGBRegression)
    assert isinstance(create_task("lab-regression", GREY, bounded=False), LabRegression)
    assert isinstance(create_task("palette", GREY, palette=rgb_palette, decode="mode"), PaletteTask)
    assert list(list_tasks()) == list(TASKS)


@pytest.mark.parametrize(("got", "meant"), [("pallete", "palette"), ("rgb-regresion", "rgb-regression"), ("lab", None)])
def test_a_mistyped_task_gives_the_closest_names(got, meant):
    hint = f"did you mean '{meant}'" if meant else "Known: autoencoder"
    for ask in (task_names, lambda name: create_task(name, GREY)):
        with pytest.raises(UnknownNameError, match=f"task: '{got}' is not known.*{hint}"):
            ask(got)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("rgb-regression", {"loss": "mes"}, "loss: 'mes' .*did you mean 'mse'"),
        ("lab-regression", {"loss": "l2"}, "loss: 'l2' .*did you mean 'l1'"),
        ("palette", {"decode": "men"}, "decode: 'men' .*did you mean 'mean'"),
        ("palette", {"temperature": 0.0}, "temperature: 0.0 must be above 0"),
        ("palette", {"temperature": 1.5}, "temperature: 1.5 must be above 0 and at most 1"),
        ("palette", {"temperature": float("nan")}, "temperature: nan"),
        ("rgb-regression", {"predict_at": 3}, "predict_at: 3 must be 1 .*2 .*or 4"),
        ("lab-regression", {"predict_at": 0}, "predict_at: 0"),
        ("palette", {"predict_at": 8}, "predict_at: 8"),
        ("palette", {"decod": "mode"}, "task: palette does not take decod; leave that out"),
        ("lab-regression", {"palette": 1}, "task: lab-regression does not take palette"),
    ],
)
def test_options_that_do_not_fit_are_refused(rgb_palette, name, options, says):
    if name == "palette":
        options = {"palette": rgb_palette, **options}
    with pytest.raises((ArgumentError, UnknownNameError), match=says):
        create_task(name, GREY, **options)


def test_a_palette_task_without_a_palette_is_refused():
    with pytest.raises(ArgumentError, match=r"task: palette .*'palette'"):
        create_task("palette", GREY)


class SaturationTask:
    """A task of one's own: predict how far a pixel is from grey."""

    name, views, in_chans, out_chans, predict_at, palette = "saturation", 1, 1, 1, 1, None

    def __init__(self, preprocess: Preprocess, scale: float = 1.0):
        self.preprocess, self.scale, self.grey = preprocess, scale, preprocess.grey

    def split(self, batch):
        rgb = batch.rgb.float() / 255
        return self.preprocess(batch.rgb), self.scale * (rgb.amax(1, keepdim=True) - rgb.amin(1, keepdim=True))

    def loss(self, predictions, targets):
        each = (predictions.float() - targets).square()
        return Loss(each.sum(), torch.tensor(float(each.numel())))

    def paint(self, predictions, rgb):
        return luma(rgb, self.grey).expand(-1, 3, -1, -1)


@pytest.mark.usefixtures("forget_registrations")
def test_a_task_of_ones_own_is_made_by_its_name():
    register_task("saturation", SaturationTask, "predict how far a pixel is from grey")
    assert task_names("saturation") == ["saturation"]
    task = create_task("saturation", GREY, scale=2.0)
    assert isinstance(task, Task)
    assert task.scale == 2.0
    assert list_tasks()["saturation"] == "predict how far a pixel is from grey"
    with pytest.raises(UnknownNameError, match="did you mean 'saturation'"):
        create_task("saturaton", GREY)
    with pytest.raises(ArgumentError, match="saturation does not take sacle"):
        create_task("saturation", GREY, sacle=2.0)


GREY_TASKS = ("rgb-regression", "lab-regression", "palette", "bins", "autoencoder", "rotation")


@pytest.mark.parametrize("name", [*GREY_TASKS, "palette+autoencoder"])
def test_a_grey_task_is_not_shown_the_answer(name):
    for preprocess, given in (
        (Preprocess(3), "RGB"),
        (Preprocess(2, chroma="ab"), "chroma"),
        (Preprocess(3, chroma="ab"), "luma"),
    ):
        with pytest.raises(ArgumentError, match=rf"sees grey and nothing else, got {given}.*; give Preprocess\(1\)"):
            create_task(name, preprocess)


@pytest.mark.usefixtures("forget_registrations")
def test_a_task_of_ones_own_sees_what_it_likes():
    register_task("saturation", SaturationTask)
    for preprocess in (Preprocess(3), Preprocess(3, chroma="ab")):
        assert create_task("saturation", preprocess).preprocess == preprocess


@pytest.mark.usefixtures("forget_registrations")
def test_two_tasks_with_a_palette_each_do_not_share_a_run():
    register_task("saturation", SaturationTask)
    register_task("hues", lambda preprocess, palette: PaletteTask(preprocess, palette))
    assert task_names("saturation+hues") == ["saturation", "hues"]
    with pytest.raises(ArgumentError, match="hues and palette each need a palette of their own"):
        task_names("hues+palette")


@pytest.mark.usefixtures("forget_registrations")
def test_a_taken_name_is_refused_and_stays_what_it_was():
    with pytest.raises(ArgumentError, match="task: the name 'palette' is taken"):
        register_task("palette", SaturationTask)
    assert TASKS["palette"] is PaletteTask
    register_task("saturation", SaturationTask)
    with pytest.raises(ArgumentError, match="'saturation' is taken"):
        register_task("saturation", SaturationTask)
