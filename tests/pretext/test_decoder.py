"""The decoder fits every encoder from `feature_info` alone, at any size, resolution and number of skips."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from pretint.backbones import create_backbone
from pretint.pretext import PREDICT_AT, HeadSettings, PretextModel, PyramidDecoder, pixel_head
from pretint.runtime.errors import ArgumentError

ENCODERS = {"pretint_unet": {"width": 4}, "pretint_cnn": {"width": 4}}
TIMM = ("timm/resnet18", "timm/convnext_atto", "timm/efficientnet_b0", "timm/regnety_002")
CHANNELS, REDUCTIONS = [4, 8, 16, 32, 32], [1, 2, 4, 8, 16]


@cache
def _encoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(name, **ENCODERS.get(name, {})).eval()


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _maps(height: int, width: int, batch: int = 2) -> list[torch.Tensor]:
    """Maps of random numbers, of the shapes that an encoder with CHANNELS and REDUCTIONS gives."""
    return [_noise(batch, c, -(-height // r), -(-width // r)) for c, r in zip(CHANNELS, REDUCTIONS, strict=True)]


def _model(encoder: nn.Module, out_chans: int, predict_at: int = 1, skips: int | None = None) -> PretextModel:
    return PretextModel(encoder, pixel_head(encoder, out_chans, predict_at, HeadSettings(skips)))


@pytest.mark.parametrize("skips", [None, 0, 1, 9])
@pytest.mark.parametrize("predict_at", PREDICT_AT)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8), (9, 64)])
def test_the_prediction_has_the_wanted_size(size, predict_at, skips):
    decoder = PyramidDecoder(CHANNELS, REDUCTIONS, 5, predict_at, skips).eval()
    height, width = size
    with torch.no_grad():
        prediction = decoder(_maps(height, width), torch.zeros(2, 1, *size))
    assert prediction.shape == (2, 5, -(-height // predict_at), -(-width // predict_at))


@pytest.mark.parametrize("skips", [None, 0, 1])
@pytest.mark.parametrize("predict_at", PREDICT_AT)
@pytest.mark.parametrize("name", [*ENCODERS, *TIMM])
def test_every_encoder_has_a_decoder(name, predict_at, skips):
    model = _model(_encoder(name), 7, predict_at, skips).eval()
    with torch.no_grad():
        for height, width in ((16, 16), (17, 23)):
            prediction = model(_noise(1, 1, height, width))
            assert prediction.shape == (1, 7, -(-height // predict_at), -(-width // predict_at))
            assert prediction.isfinite().all()


@pytest.mark.parametrize(
    ("predict_at", "skips", "levels"),
    [
        (1, None, {0, 1, 2, 3, 4}),
        (1, 0, {4}),
        (1, 1, {3, 4}),
        (1, 2, {2, 3, 4}),
        (1, 9, {0, 1, 2, 3, 4}),
        (2, None, {1, 2, 3, 4}),
        (2, 2, {2, 3, 4}),
        (4, None, {2, 3, 4}),
        (4, 0, {4}),
    ],
)
def test_only_the_joined_levels_are_looked_at(predict_at, skips, levels):
    torch.manual_seed(0)
    decoder = PyramidDecoder(CHANNELS, REDUCTIONS, 3, predict_at, skips).eval()
    maps = [m.requires_grad_() for m in _maps(32, 32)]
    decoder(maps, _noise(2, 1, 32, 32)).square().sum().backward()
    assert {i for i, m in enumerate(maps) if m.grad is not None and m.grad.any()} == levels


@pytest.mark.parametrize("skips", [None, 0, 1])
@pytest.mark.parametrize("predict_at", PREDICT_AT)
def test_the_gradient_reaches_every_parameter(predict_at, skips):
    torch.manual_seed(0)
    model = _model(create_backbone("pretint_unet", width=4), 3, predict_at, skips).train()
    model(_noise(4, 1, 32, 32)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_no_map_is_wider_than_the_shallow_levels_allow():
    decoder = PyramidDecoder([64, 512, 1024, 2048], [1, 2, 4, 8], 3, width=16).eval()
    sizes = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda _, args, out: sizes.append((out.shape[1], out.shape[-1])))
    maps = [torch.zeros(1, c, 32 // r, 32 // r) for c, r in ((64, 1), (512, 2), (1024, 4), (2048, 8))]
    with torch.no_grad():
        decoder(maps, _noise(1, 1, 32, 32))
    assert sizes == [(64, 8), (32, 16), (16, 32)]


def test_a_prediction_depends_on_its_neighbourhood_and_not_on_other_pictures():
    torch.manual_seed(0)
    decoder = PyramidDecoder(CHANNELS, REDUCTIONS, 3).eval()
    maps = _maps(32, 32)
    other = [m.clone() for m in maps]
    for m in other:
        m[1] = 0
    with torch.no_grad():
        torch.testing.assert_close(decoder(other, _noise(2, 1, 32, 32))[0], decoder(maps, _noise(2, 1, 32, 32))[0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deterministic_algorithms_suffice_and_repeat_to_the_bit(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            torch.manual_seed(0)
            model = _model(create_backbone("pretint_unet", width=4), 3).train().to(device)
            model(_noise(2, 1, 33, 33).to(device)).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_negative_number_of_skips_is_refused():
    with pytest.raises(ArgumentError, match="skips: -1 must be 0 or more"):
        PyramidDecoder(CHANNELS, REDUCTIONS, 3, skips=-1)
