"""The real CIFAR-10 archive opens whole. Found through PRETINT_TEST_DATA; skipped without it."""

import os
from pathlib import Path

import pytest
import torch

from pretint.data import available_splits, hold_out, is_grey, open_source

ARCHIVE = Path(os.environ.get("PRETINT_TEST_DATA", "")) / "cifar10-jpeg.tar.xz"
pytestmark = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="set PRETINT_TEST_DATA to a folder that holds cifar10-jpeg.tar.xz"
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def train():
    return open_source(ARCHIVE, "train")


def test_all_fifty_thousand_training_pictures_are_read(train):
    assert len(train) == 50_000
    assert train.class_names == CLASSES
    assert train.labels.bincount().tolist() == [5000] * 10
    assert train.broken == ()
    assert not is_grey(train)


def test_the_mean_colour_is_the_published_one_of_cifar10(train):
    # The means that everyone normalises CIFAR-10 with: 0.4914, 0.4822, 0.4465; JPEG moves them by less than a level.
    means = train.images.float().mean((0, 2, 3)) / 255
    assert torch.allclose(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1 / 255)


def test_the_test_split_is_a_different_ten_thousand(train):
    assert available_splits(ARCHIVE) == ("train", "test")
    test = open_source(ARCHIVE, "test")
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.class_names == CLASSES
    assert test.fingerprint != train.fingerprint


def test_holding_out_a_tenth_takes_five_hundred_of_each_class(train):
    _, held = hold_out(train, 0.1, seed=0)
    assert train.labels[held].bincount().tolist() == [500] * 10
