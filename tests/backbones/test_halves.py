"""Halves of a pair work alone as they did together, and two halves work together as they did alone."""

from __future__ import annotations

import pytest
import torch

from pretint.backbones import (
    PairEncoder,
    Preprocess,
    create_backbone,
    features,
    join_pair,
    load_backbone,
    save_backbone,
    split_pair,
)
from pretint.runtime.errors import ArgumentError


@pytest.fixture
def pair():
    torch.manual_seed(0)
    made = create_backbone(
        "pair/pretint_resunet", preprocess=Preprocess(3, "lstar", chroma="ab"), in_chans=3, width=4, depth=3
    )
    return made.eval()


@pytest.fixture
def rgb():
    return torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_halves_give_the_features_that_they_give_in_the_pair(pair, rgb):
    luma, chroma = split_pair(pair)
    with torch.no_grad():
        together = features(pair, rgb)
        apart = torch.cat([features(luma, rgb), features(chroma, rgb)], dim=1)
    torch.testing.assert_close(apart, together)
    assert (luma.preprocess.grey, luma.preprocess.chroma, chroma.preprocess.chroma) == ("lstar", None, "ab")


def test_a_half_is_an_encoder_that_can_be_saved(pair, rgb, tmp_path):
    luma, _ = split_pair(pair)
    save_backbone(luma, tmp_path / "luma")
    with torch.no_grad():
        assert torch.equal(features(load_backbone(tmp_path / "luma"), rgb), features(luma, rgb))


def test_a_half_shares_no_weights_with_the_pair(pair, rgb):
    luma, _ = split_pair(pair)
    before = features(pair, rgb)
    with torch.no_grad():
        for parameter in luma.parameters():
            parameter.zero_()
    assert torch.equal(features(pair, rgb), before)


def test_halves_joined_are_the_pair_again(pair, rgb, tmp_path):
    joined = join_pair(*split_pair(pair)).eval()
    assert isinstance(joined, PairEncoder)
    assert joined.preprocess == pair.preprocess
    save_backbone(joined, tmp_path / "pair")
    with torch.no_grad():
        assert torch.equal(features(load_backbone(tmp_path / "pair"), rgb), features(pair, rgb))


def test_only_pairs_are_split():
    with pytest.raises(ArgumentError, match="pair/NAME"):
        split_pair(create_backbone("pretint_cnn", width=4))


@pytest.mark.parametrize(
    "halves",
    [
        (create_backbone("pretint_cnn", 1, width=4), create_backbone("pretint_cnn", 2, width=8)),
        (create_backbone("pretint_cnn", 1, width=4), create_backbone("pretint_unet", 2, width=4)),
        (create_backbone("pretint_cnn", 1, width=4), create_backbone("pretint_cnn", 1, width=4)),
        (
            create_backbone("pretint_cnn", preprocess=Preprocess(grey="mean"), width=4),
            create_backbone("pretint_cnn", 2, width=4),
        ),
        (torch.nn.Identity(), torch.nn.Identity()),
    ],
    ids=["sizes", "families", "no chroma", "grey formulas", "no encoders"],
)
def test_halves_that_do_not_fit_are_refused(halves):
    with pytest.raises(ArgumentError, match="halves must"):
        join_pair(*halves)
