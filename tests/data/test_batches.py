"""Order and augmentation are functions of (seed, epoch, id): any batch can be had alone."""

import numpy as np
import pytest
import torch

from pretint.data import AUGMENTATIONS, Batches, TensorSource, augment
from pretint.runtime.errors import ArgumentError, UnknownNameError


def _source(n: int, size: int = 16) -> TensorSource:
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return TensorSource(images, torch.arange(n) % 4)


def _all_outcomes(picture: np.ndarray) -> dict[bytes, tuple[bool, int, int]]:
    """Every picture that flip and shift can give, by the textbook way: pad by 4 with the edge, crop, mirror."""
    _, h, w = picture.shape
    padded = np.pad(picture, ((0, 0), (4, 4), (4, 4)), mode="edge")
    crops = {(dy, dx): padded[:, dy : dy + h, dx : dx + w] for dy in range(9) for dx in range(9)}
    return {
        np.ascontiguousarray(crop[:, :, ::-1] if flip else crop).tobytes(): (flip, dy, dx)
        for (dy, dx), crop in crops.items()
        for flip in (False, True)
    }


def test_every_outcome_is_a_padded_crop_or_its_mirror_image_and_all_are_equally_likely():
    picture = _source(1).images[0]
    outcomes = _all_outcomes(picture.numpy())
    assert len(outcomes) == 162
    n = 16_200
    pictures = augment(picture.expand(n, -1, -1, -1), torch.arange(n), seed=5, epoch=2, mode="flip-crop")
    found = [outcomes[row.numpy().tobytes()] for row in pictures]
    counts = np.bincount([int(flip) * 81 + dy * 9 + dx for flip, dy, dx in found], minlength=162)
    # chi-square with 161 degrees of freedom: mean 161, standard deviation 18
    assert ((counts - 100) ** 2 / 100).sum() < 161 + 5 * 18


def test_flip_alone_mirrors_about_half_and_moves_nothing():
    source = _source(400)
    flipped = augment(source.images, torch.arange(400), seed=0, epoch=0, mode="flip")
    same, mirrored = (flipped == source.images).flatten(1).all(1), (flipped == source.images.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


def test_no_augmentation_changes_nothing():
    source = _source(10)
    assert torch.equal(augment(source.images, torch.arange(10), seed=0, epoch=0, mode="none"), source.images)


@pytest.mark.parametrize("mode", AUGMENTATIONS)
def test_a_picture_is_augmented_the_same_in_any_company(mode):
    source = _source(50)
    ids = torch.randperm(50)
    together = augment(source.images, torch.arange(50), seed=1, epoch=7, mode=mode)
    shuffled = augment(source.images[ids], ids, seed=1, epoch=7, mode=mode)
    assert torch.equal(shuffled, together[ids])
    alone = augment(source.images[31:32], torch.tensor([31]), seed=1, epoch=7, mode=mode)
    assert torch.equal(alone[0], together[31])


def test_seed_epoch_and_view_each_change_the_outcome():
    source = _source(64)
    ids = torch.arange(64)
    base = {"seed": 0, "epoch": 0, "view": 0}
    outcomes = [augment(source.images, ids, **base)]
    outcomes += [augment(source.images, ids, **{**base, key: 1}) for key in base]
    for i, first in enumerate(outcomes):
        for second in outcomes[i + 1 :]:
            equal = (first == second).flatten(1).all(1).sum()
            assert int(equal) < 8  # by chance 64 / 162


def test_pictures_need_not_be_square():
    assert augment(torch.zeros(2, 3, 5, 9, dtype=torch.uint8), torch.arange(2), seed=0, epoch=0).shape == (2, 3, 5, 9)


def test_an_epoch_shows_every_picture_once_in_a_new_order_each_time():
    batches = Batches(_source(50), 8, seed=0, drop_last=False)
    orders = [torch.cat([batch.ids for batch in batches.epoch(epoch)]).tolist() for epoch in range(3)]
    assert len(batches) == 7
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_an_interrupted_epoch_goes_on_with_equal_batches():
    batches = Batches(_source(50), 8, seed=3)
    whole = list(batches.epoch(4))
    assert len(whole) == len(batches) == 6
    for start in range(7):
        rest = list(Batches(_source(50), 8, seed=3).epoch(4, start))
        assert len(rest) == 6 - start
        for left, right in zip(rest, whole[start:], strict=True):
            assert torch.equal(left.rgb, right.rgb)
            assert torch.equal(left.ids, right.ids)
            assert torch.equal(left.labels, right.labels)


def test_batches_hold_the_pictures_and_labels_of_their_ids():
    source = _source(30)
    for batch in Batches(source, 7, seed=0, augment="none").epoch(0):
        assert torch.equal(batch.rgb, source.images[batch.ids])
        assert torch.equal(batch.labels, source.labels[batch.ids])
    assert all(batch.labels is None for batch in Batches(source.unlabelled(), 7, seed=0).epoch(0))


def test_without_shuffling_the_order_is_that_of_the_source():
    batches = Batches(_source(10), 4, seed=0, shuffle=False, drop_last=False, augment="none")
    assert [batch.ids.tolist() for batch in batches.epoch(5)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_impossible_batches_are_refused():
    with pytest.raises(ArgumentError, match="at most 5"):
        Batches(_source(5), 6, seed=0)
    assert len(Batches(_source(5), 6, seed=0, drop_last=False)) == 1
    with pytest.raises(ArgumentError, match="batch_size"):
        Batches(_source(5), 0, seed=0)
    with pytest.raises(UnknownNameError, match="did you mean 'flip'"):
        Batches(_source(5), 2, seed=0, augment="flipp")
    with pytest.raises(UnknownNameError, match="flip-crop"):
        augment(_source(1).images, torch.arange(1), seed=0, epoch=0, mode="crop")
    with pytest.raises(ArgumentError, match="no pictures"):
        Batches(_source(5).subset(torch.empty(0, dtype=torch.int64)), 1, seed=0)
    for step in (-1, 3):
        with pytest.raises(ArgumentError, match="start_step"):
            Batches(_source(5), 2, seed=0).epoch(0, step)


def _disc(n: int = 400, size: int = 32) -> torch.Tensor:
    """White discs of radius 8 in the middle of black."""
    y, x = torch.meshgrid(torch.arange(size) - 15.5, torch.arange(size) - 15.5, indexing="ij")
    return (255 * ((x**2 + y**2) < 64)).to(torch.uint8).expand(n, 3, -1, -1)


def test_a_resized_crop_shows_twenty_to_a_hundred_per_cent_of_the_area():
    ramp = torch.arange(64, dtype=torch.float32).mul(4).expand(64, 64).to(torch.uint8).expand(2000, 3, -1, -1)
    shown = augment(ramp, torch.arange(2000), seed=0, epoch=0, mode="flip-resized-crop")[:, 0, 0].float()
    width = (shown[:, -1] - shown[:, 0]).abs() / 252  # the share of the ramp that is seen
    assert 0.35 < float(width.min()) < 0.45  # √(0.2 · 3/4)
    assert float(width.max()) > 0.95
    mirrored = (shown[:, -1] < shown[:, 0]).float().mean()
    assert 0.45 < float(mirrored) < 0.55


def test_an_affine_map_keeps_the_middle_and_zooms_by_up_to_a_fifth():
    discs = augment(_disc(), torch.arange(400), seed=0, epoch=0, mode="flip-affine")
    assert (discs[:, 0, 14:18, 14:18] > 250).all()
    area = (discs[:, 0].float() / 255).sum((1, 2)) / (_disc(1)[0, 0].float() / 255).sum()
    assert 1 / 1.2**2 - 0.05 < float(area.min()) < 0.8
    assert 1.3 < float(area.max()) < 1 / 0.8**2 + 0.05


@pytest.mark.parametrize("mode", [mode for mode in AUGMENTATIONS if mode != "none"])
def test_views_of_a_batch_are_the_same_pictures_augmented_apart(mode):
    source = _source(40)
    batch = next(Batches(source, 40, seed=3, augment=mode, views=2).epoch(1))
    (other,) = batch.others
    pictures = source.images[batch.ids]
    for view, shown in enumerate((batch.rgb, other)):
        assert torch.equal(shown, augment(pictures, batch.ids, seed=3, epoch=1, mode=mode, view=view))
    assert not torch.equal(batch.rgb, other)
    assert next(Batches(source, 40, seed=3).epoch(0)).others == ()


@pytest.mark.parametrize("mode", AUGMENTATIONS)
def test_the_pictures_of_an_epoch_are_the_same_for_any_batch_size(mode):
    """Order, crop, flip and every other augmentation are functions of (seed, epoch, image id), whatever the batch size."""
    source, seen = _source(60), []
    for batch_size in (1, 7, 60):
        batches = list(Batches(source, batch_size, seed=5, augment=mode, drop_last=False, views=2).epoch(3))
        ids = torch.cat([batch.ids for batch in batches])
        views = [torch.cat([batch.rgb for batch in batches]), torch.cat([batch.others[0] for batch in batches])]
        seen.append((ids, *views))
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", AUGMENTATIONS)
def test_augmentation_on_cuda_is_that_of_the_cpu(mode):
    source, ids = _source(200), torch.arange(200)
    on_cpu = augment(source.images, ids, seed=1, epoch=2, mode=mode)
    on_cuda = augment(source.images.cuda(), ids.cuda(), seed=1, epoch=2, mode=mode).cpu()
    if mode in ("none", "flip", "flip-crop"):
        assert torch.equal(on_cpu, on_cuda)
    else:  # what is interpolated may be rounded to the level beside it
        difference = (on_cpu.int() - on_cuda.int()).abs()
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) < 0.01
