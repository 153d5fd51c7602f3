"""Folded batch normalisation computes the same, and what can't be folded is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretint.backbones import create_backbone, fold_batch_norm


def lived(encoder: nn.Module) -> nn.Module:
    """With statistics and weights as after some training, and not those that change nothing."""
    generator = torch.Generator().manual_seed(3)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0), (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):  # fmt: skip
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return encoder


def norms(encoder: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


def pictures(channels: int = 1) -> torch.Tensor:
    return torch.randn(3, channels, 32, 32, generator=torch.Generator().manual_seed(0))


NAMES = {
    "pretint_unet": 0, "pretint_cnn": 0, "pretint_resunet": None, "pair/pretint_cnn": 0, "pretint_toronto_strided": None,
    "timm/resnet10t": 0, "timm/efficientnet_b0": 0, "timm/regnetx_002": 0, "timm/densenet121": None, "timm/vgg11_bn": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_are_the_encoders_own(name: str):
    channels = 3 if name.startswith("pair/") else 1
    torch.manual_seed(0)
    encoder = lived(create_backbone(name, channels)).eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    folded = fold_batch_norm(encoder, pictures(channels)[:2])
    assert norms(folded) < norms(encoder)
    if NAMES[name] is not None:
        assert norms(folded) == NAMES[name]
    with torch.no_grad():
        wanted, found = (
            one.forward_intermediates(pictures(channels), intermediates_only=True) for one in (encoder, folded)
        )
    for was, now in zip(wanted, found, strict=True):
        torch.testing.assert_close(now, was, rtol=1e-3, atol=1e-4 * float(was.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_without_batch_normalisation_the_encoder_itself_comes_back():
    encoder = create_backbone("timm/convnext_atto")
    assert fold_batch_norm(encoder, pictures()) is encoder


class Tangled(nn.Module):
    """A convolution whose map goes two ways, a convolution that is used twice, and a normalisation without statistics."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1, track_running_stats=kind != "no statistics")

    def forward_intermediates(self, x: torch.Tensor, intermediates_only: bool) -> list[torch.Tensor]:
        made = self.conv(x)
        if self.kind == "two ways":
            return [self.norm(made) + made]
        if self.kind == "twice":
            return [self.norm(self.conv(made))]
        return [self.norm(made)]


@pytest.mark.parametrize("kind", ["two ways", "twice", "no statistics"])
def test_what_cannot_be_folded_comes_back_as_it_is(kind: str):
    torch.manual_seed(0)
    encoder = Tangled(kind)
    if kind != "no statistics":
        lived(encoder)
    assert fold_batch_norm(encoder, pictures()) is encoder


def test_weights_that_are_not_finite_are_left_for_whoever_reports_them():
    encoder = create_backbone("pretint_cnn", width=8)
    next(encoder.parameters()).data.fill_(float("nan"))
    assert fold_batch_norm(encoder, pictures()) is encoder
