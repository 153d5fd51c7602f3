"""How does a grey encoder become a drop-in for RGB pipelines? Luma and normalisation are folded into its first convolution."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..colour import LUMA_WEIGHTS
from ..runtime.errors import ArgumentError
from .preprocess import Preprocess

_TOLERANCE = 1e-4


class ShiftedConv2d(nn.Module):
    """A convolution of (x − shift): its zero padding then stands for the colour `shift` in the input's own normalisation.

    Args:
        conv: the convolution, zero padded.
        shift: one number per input channel.
    """

    shift: Tensor

    def __init__(self, conv: nn.Module, shift: Tensor):
        super().__init__()
        self.conv = conv
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x - self.shift)


def fold_rgb(encoder: nn.Module, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25) -> nn.Module:
    """A copy of a grey encoder that takes RGB images, normalised as (rgb − mean) / std, and computes the same.

    With luma Σ w_c·rgb_c and grey input g = (luma − m) / s, and rgb_c = std_c·x_c + mean_c, the input is linear in x:
    g = Σ a_c·(x_c − p_c), where a_c = w_c·std_c / s and p_c = (m − mean_c) / std_c is the grey that g = 0 stands for. So the first
    convolution's kernel is multiplied by a_c, and acts on x − p, whose zero padding is that same grey. With mean m (0.5 by
    default) p is zero, and the folded convolution is a plain one: such an encoder can be saved.

    Args:
        encoder: from :func:`load_backbone` or :func:`create_backbone`, with grey input.
        mean, std: of the RGB pipeline, one number or one per channel, in units of 0…1; ImageNet's are (0.485, 0.456, 0.406) and
            (0.229, 0.224, 0.225).

    Raises:
        ArgumentError: the input is not grey, is L* (which is not linear in RGB), or the encoder has no single first
            convolution that this is exact for.

    >>> from pretint.backbones import create_backbone
    >>> rgb_encoder = fold_rgb(create_backbone("pretint_cnn", width=8))
    >>> rgb_encoder(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 64])
    """
    before: Preprocess | None = getattr(encoder, "preprocess", None)
    if not isinstance(before, Preprocess) or before.in_chans != 1:
        has = "no preprocess" if before is None else f"{before.in_chans} input channels"
        raise ArgumentError(
            f"encoder: only grey encoders can be folded, this one has {has}; load one with one channel."
        )
    if before.grey == "lstar":
        raise ArgumentError("encoder: its input is L*, which is not linear in RGB, so no convolution can fold it.")
    after = Preprocess(3, before.grey, mean, std)
    if not all(0 <= m <= 1 for m, _ in after.normalisation):
        raise ArgumentError(
            f"mean: {mean} must lie in 0…1, the units of the normalisation; divide mean and std by 255."
        )
    folded: Any = copy.deepcopy(encoder)
    name = (getattr(folded, "pretrained_cfg", None) or {}).get("first_conv")
    conv = _module(folded, name)
    if not isinstance(conv, nn.Conv2d):
        raise ArgumentError(
            f"encoder: its first convolution is not known (pretrained_cfg['first_conv'] is {name!r}); name it there."
        )
    new = _fold(conv, before, after)
    rgb = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(conv.weight.device)
    with torch.inference_mode():
        was, now = conv(before(rgb).to(conv.weight.dtype)), new(after(rgb).to(conv.weight.dtype))
    if not torch.allclose(was, now, rtol=0, atol=_TOLERANCE * max(1.0, float(was.abs().max()))):
        kind = type(conv).__name__
        raise ArgumentError(
            f"encoder: its first convolution, a {kind}, is not linear in its weights; it can't be folded."
        )
    parent, _, leaf = str(name).rpartition(".")
    setattr(folded.get_submodule(parent), leaf, new)
    folded.preprocess, folded.in_chans = after, 3
    cfg = dict(folded.pretrained_cfg)
    cfg |= {"mean": after.mean, "std": after.std, "input_size": (3, *cfg["input_size"][1:])}
    cfg |= {"first_conv": f"{name}.conv" if isinstance(new, ShiftedConv2d) else name}
    folded.pretrained_cfg = folded.default_cfg = cfg
    return folded


def _module(model: nn.Module, name: Any) -> nn.Module | None:
    try:
        return model.get_submodule(name) if isinstance(name, str) else None
    except AttributeError:
        return None


def _fold(conv: nn.Conv2d, before: Preprocess, after: Preprocess) -> nn.Module:
    like = {"dtype": torch.float64, "device": conv.weight.device}
    weights, means, deviations = (torch.tensor(v, **like) for v in (LUMA_WEIGHTS[before.grey], after.mean, after.std))
    m, s = before.normalisation[0]
    new = copy.deepcopy(conv)
    scale = (weights * deviations / s).view(1, 3, 1, 1)
    new.weight = nn.Parameter((conv.weight.detach().double() * scale).to(conv.weight.dtype), conv.weight.requires_grad)
    new.in_channels = 3
    shift = (m - means) / deviations
    return ShiftedConv2d(new, shift.to(conv.weight.dtype)) if bool(shift.any()) else new
