"""The toy's pictures follow the distribution that it states, and are the same however many are drawn."""

import math
import time

import pytest
import torch

from pretint.data import TOY_CLASSES, draw_toy, make_toy, toy_colours
from pretint.runtime.errors import ArgumentError, UnknownNameError

LUMA = torch.tensor([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def scenes():
    return draw_toy(torch.arange(6000))


def _luma(images: torch.Tensor) -> torch.Tensor:
    """Grey levels 0 … 255 (n, h, w)."""
    return (images.float() * LUMA[:, None, None]).sum(1)


def test_there_are_ten_classes_of_three_kinds():
    kinds = [toy_colours()[name].kind for name in TOY_CLASSES]
    assert len(TOY_CLASSES) == 10
    assert [kinds.count(kind) for kind in ("fixed", "two-way", "free")] == [3, 3, 4]
    assert [len(toy_colours()[name].colours) for name in TOY_CLASSES[:6]] == [1, 1, 1, 2, 2, 2]


def test_both_colours_of_a_two_way_class_and_all_of_a_free_one_have_equal_luma():
    for truth in toy_colours().values():
        lumas = truth.colours @ LUMA
        assert float(lumas.max() - lumas.min()) < 1e-5
        assert float(truth.colours.min()) >= 0
        assert float(truth.colours.max()) <= 0.95


def test_the_same_scene_in_the_other_colour_looks_the_same_in_grey():
    ids = torch.arange(2000)
    first, second = draw_toy(ids, choice=0), draw_toy(ids, choice=1)
    two_way = (first.labels >= 3) & (first.labels <= 5)
    assert torch.equal(first.images[~two_way], second.images[~two_way])
    # Three channels are rounded by up to half a level each, so their luma differs by at most one level.
    assert float((_luma(first.images) - _luma(second.images)).abs().max()) <= 1.0
    red_to_green = (first.images.float() - second.images.float())[two_way].abs().amax((1, 2, 3))
    assert float(red_to_green.min()) > 30


def test_painted_pixels_are_the_true_colour_times_light(scenes):
    rgb = scenes.images.permute(0, 2, 3, 1)[scenes.masks].float() / 255  # (pixels, 3)
    paint = scenes.paints[:, None, None, :].expand(-1, 32, 32, -1)[scenes.masks]
    light = (rgb @ LUMA) / (paint @ LUMA)
    assert float((rgb - light[:, None] * paint).abs().max()) < 2 / 255
    assert float(light.max()) < 1.03


def test_paints_are_those_of_the_class(scenes):
    truth = [toy_colours()[name] for name in TOY_CLASSES]
    for label, colour in enumerate(truth):
        rows = scenes.labels == label
        if colour.kind == "free":
            assert bool((scenes.choices[rows] == -1).all())
        else:
            assert torch.equal(scenes.paints[rows], colour.colours[scenes.choices[rows]])


def test_two_way_colours_are_half_and_half(scenes):
    for label in (3, 4, 5):
        share = scenes.choices[scenes.labels == label].float().mean()
        assert abs(float(share) - 0.5) < 4 * 0.5 / math.sqrt(600)


def test_free_hues_are_uniform_at_one_luma(scenes):
    paints = scenes.paints[scenes.labels >= 6]
    assert float((paints @ LUMA).std()) < 1e-4
    hue = torch.atan2((paints[:, 0] - 0.5) / 1.402, (paints[:, 2] - 0.5) / 1.772)
    counts = torch.histc(hue, 12, -math.pi, math.pi)  # expected 200 each; chi-square with 11 degrees of freedom
    assert float(((counts - 200) ** 2 / 200).sum()) < 11 + 5 * math.sqrt(22)


def test_grey_does_not_tell_which_of_two_colours_it_is(scenes):
    grey = _luma(scenes.images)
    for label in (3, 4, 5):
        rows = scenes.labels == label
        brightness = (grey[rows] * scenes.masks[rows]).sum((1, 2)) / scenes.masks[rows].sum((1, 2)).clamp(min=1)
        choice = scenes.choices[rows].float()
        correlation = torch.corrcoef(torch.stack([brightness, choice]))[0, 1]
        assert abs(float(correlation)) < 4 / math.sqrt(600)


def test_backgrounds_do_not_tell_the_class(scenes):
    corners = scenes.images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float().flatten(1)  # (n, 12)
    means = torch.stack([corners[scenes.labels == label].mean(0) for label in range(10)])
    noise = corners.std(0) / math.sqrt(600)
    assert float(((means - means.mean(0)) / noise).abs().max()) < 5


def test_every_object_is_seen(scenes):
    painted = scenes.masks.sum((1, 2))
    for label in range(10):
        assert float(painted[scenes.labels == label].float().quantile(0.05)) >= 8


def test_classes_are_balanced_and_labels_follow_the_id(scenes):
    assert torch.equal(scenes.labels, torch.arange(6000) % 10)
    assert make_toy(n=25).labels.bincount().tolist() == [3] * 5 + [2] * 5


def test_a_picture_is_the_same_whatever_else_is_drawn(scenes):
    assert torch.equal(make_toy(n=137).images, scenes.images[:137])
    some = torch.tensor([5999, 4, 3000, 17])
    assert torch.equal(draw_toy(some).images, scenes.images[some])


def test_it_does_not_depend_on_the_number_of_threads(scenes):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(draw_toy(torch.arange(300)).images, scenes.images[:300])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_seeds_and_splits_give_different_pictures():
    pictures = [make_toy(n=50).images, make_toy(n=50, seed=1).images, make_toy("test", n=50).images]
    for i, first in enumerate(pictures):
        for second in pictures[i + 1 :]:
            assert not (first == second).flatten(1).all(1).any()
    assert torch.equal(make_toy(n=50, seed=1).images, pictures[1])


def test_other_sizes_show_the_same_scenes():
    small, large = draw_toy(torch.arange(20)), draw_toy(torch.arange(20), image_size=96)
    shrunk = torch.nn.functional.avg_pool2d(large.images.float(), 3)
    assert large.images.shape == (20, 3, 96, 96)
    assert torch.equal(small.paints, large.paints)
    assert float((shrunk - small.images.float())[:, :, 8:24, 8:24].abs().mean()) < 16


def test_whole_batches_are_drawn_at_once():
    # 0.8 s on one core when it was written (4 s for all 20,000); picture by picture it would take minutes.
    start = time.process_time()
    assert len(make_toy("test")) == 4000
    assert time.process_time() - start < 5


def test_impossible_wishes_are_refused():
    with pytest.raises(UnknownNameError, match="train"):
        make_toy("validation")
    with pytest.raises(ArgumentError, match="at least 1"):
        make_toy(n=0)
    with pytest.raises(ArgumentError, match="image_size"):
        draw_toy(torch.arange(1), image_size=0)
