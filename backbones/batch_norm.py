"""How does an encoder run that is not trained any more? With its batch normalisation inside its convolutions, a pass less each."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# by their very type: what is derived from them may compute more than its weights say
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
_TOLERANCE = 1e-4


@torch.no_grad()
def fold_batch_norm(encoder: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy for evaluation, in which batch normalisation that follows a convolution is part of that convolution.

    With running statistics, normalisation is linear: γ·(W·x + b − μ) / √(σ² + ε) + β = W'·x + b', where W' = W·γ / √(σ² + ε)
    (Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", section
    3.2). Which normalisation follows which convolution is seen on the inputs; so is whether the copy does what the encoder does.

    Args:
        encoder: with `forward_intermediates`; it stays as it is.
        inputs: (b, c, h, w), a few pictures as it is given them.

    Returns:
        The copy, in evaluation mode, on the encoder's device; the encoder itself, if it has nothing to fold, or if the copy's maps
        are others by more than rounding.

    >>> from pretint.backbones import create_backbone
    >>> folded = fold_batch_norm(create_backbone("pretint_cnn", width=8), torch.randn(2, 1, 32, 32))
    >>> any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    False
    """
    if not any(type(module) in _NORMS for module in encoder.modules()):
        return encoder
    # on the processor, since a GPU's convolutions round more than the tolerance allows
    weight = next(encoder.parameters())
    folded: Any = copy.deepcopy(encoder).to("cpu").eval()
    inputs = inputs.to("cpu", weight.dtype)
    before, pairs = _maps_and_pairs(folded, inputs)
    for conv_name, norm_name in pairs:
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        behind: Any = norm
        rest = nn.Sequential(behind.drop, behind.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        folded.set_submodule(norm_name, rest)
    after = folded.forward_intermediates(inputs, intermediates_only=True)
    same = (
        torch.allclose(now, was, rtol=0, atol=_TOLERANCE * max(1.0, float(was.abs().max())))
        for was, now in zip(before, after, strict=True)
    )
    return folded.to(weight.device) if pairs and all(same) else encoder


def _maps_and_pairs(encoder: Any, inputs: Tensor) -> tuple[list[Tensor], list[tuple[str, str]]]:
    """The feature maps, and the names of each convolution and the normalisation that is given just what it made."""
    made: list[tuple[str, Tensor]] = []
    follows: dict[str, str] = {}
    calls: Counter[str] = Counter()  # what is called twice is followed by two

    def after_conv(name: str) -> Any:
        def hook(_module: nn.Module, _given: tuple[Tensor, ...], out: Tensor) -> None:
            made.append((name, out))
            calls[name] += 1

        return hook

    def before_norm(name: str) -> Any:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            for conv, out in made:
                if out is given[0]:
                    follows[name] = conv

        return hook

    hooks = []
    for name, module in encoder.named_modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv(name)))
        elif type(module) in _NORMS and module.running_var is not None:
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    maps = encoder.forward_intermediates(inputs, intermediates_only=True)
    for hook in hooks:
        hook.remove()
    return maps, [(conv, norm) for norm, conv in follows.items() if calls[conv] == calls[norm] == 1]
