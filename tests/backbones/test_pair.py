"""Two encoders side by side: each half sees its own channels and nothing else, and both travel as one."""

from __future__ import annotations

import pytest
import timm
import torch

from pretint.backbones import PairEncoder, Preprocess, create_backbone, features, load_backbone, save_backbone
from pretint.runtime.errors import ArgumentError

FAMILIES = ["pretint_unet", "pretint_cnn", "pretint_resunet_tiny"]


def _halves(name: str):
    torch.manual_seed(0)
    options = {} if name.endswith("tiny") else {"width": 4}
    return [create_backbone(name, channels, **options).eval() for channels in (1, 2)]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_level_is_lumas_map_then_chromas(name):
    luma, chroma = _halves(name)
    pair = PairEncoder(luma, chroma).eval()
    x = torch.randn(2, 3, 24, 17)
    with torch.no_grad():
        maps = pair.forward_intermediates(x, intermediates_only=True)
        wanted = [half.forward_intermediates(x[:, c], intermediates_only=True)
                  for half, c in ((luma, slice(0, 1)), (chroma, slice(1, 3)))]  # fmt: skip
    for level, joined, *parts in zip(pair.feature_info, maps, *wanted, strict=True):
        assert torch.equal(joined, torch.cat(parts, 1))
        assert joined.shape[1] == level["num_chs"]
    assert pair.luma_channels == [level["num_chs"] for level in luma.feature_info]
    assert pair.num_features == luma.num_features + chroma.num_features


def test_the_halves_are_copied():
    luma, chroma = _halves("pretint_cnn")
    pair = PairEncoder(luma, chroma)
    with torch.no_grad():
        next(pair.parameters()).zero_()
    assert next(luma.parameters()).any()


@pytest.mark.parametrize("chroma", ["cbcr", "ab"])
def test_a_pair_travels_as_one_encoder(tmp_path, chroma):
    torch.manual_seed(0)
    preprocess = Preprocess(3, "lstar" if chroma == "ab" else "rec601", chroma=chroma)
    pair = create_backbone("pair/pretint_resunet", 3, preprocess=preprocess, width=4, depth=3)
    save_backbone(pair, tmp_path)
    loaded = load_backbone(tmp_path)
    rgb = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert loaded.preprocess == preprocess
    assert torch.equal(features(loaded, rgb), features(pair, rgb))
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=4).eval()
    with torch.no_grad():
        assert model(preprocess(rgb)).shape == (3, 4)
        torch.testing.assert_close(model.forward_features(preprocess(rgb)).mean((2, 3)), features(pair, rgb))


def test_halves_that_do_not_fit_are_refused():
    luma, chroma = _halves("pretint_cnn")
    with pytest.raises(ArgumentError, match="1 and 2 input channels"):
        PairEncoder(chroma, luma)
    with pytest.raises(ArgumentError, match="same reductions"):
        PairEncoder(luma, create_backbone("pretint_cnn", 2, width=4, depth=3))
    with pytest.raises(ArgumentError, match="encoders of this library"):
        PairEncoder(luma, create_backbone("timm/resnet18", 2))
