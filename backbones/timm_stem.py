"""How does a timm model take small images? A 3 × 3 first convolution of stride 1, no pooling behind it, honest `feature_info`."""

from __future__ import annotations

import contextlib
import difflib
from functools import partial
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..runtime.errors import ArgumentError
from .contract import SMALLEST_SIZE, PyramidEncoder

_PROBE_SIZE = 64
_SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 336, 384, 448, 512)


def shrink_stem(model: nn.Module) -> nn.Module:
    """Gives a timm model the small-image stem of the CIFAR ResNets (He et al. 2016, section 4.2), in place.

    The first convolution becomes 3 × 3 with stride 1 (fresh weights; a bias only if it had one), and a max-pooling named
    `maxpool`, which ResNets have right behind it, goes. Later reductions stay, so all of them shrink by the same factor.

    Raises:
        ArgumentError: the model names no first convolution, or has other than one.
    """
    name = getattr(model, "pretrained_cfg", {}).get("first_conv")
    if not isinstance(name, str) or not isinstance(_submodule(model, name), nn.Conv2d):
        kind = type(model).__name__
        raise ArgumentError(f"stem: {kind} has no single first convolution to make small; use --stem stock.")
    first = _submodule(model, name)
    assert isinstance(first, nn.Conv2d)
    if first.kernel_size != (3, 3) or first.stride != (1, 1):
        small = type(first)(first.in_channels, first.out_channels, 3, 1, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        if small.bias is not None:
            nn.init.zeros_(small.bias)
        _replace(model, name, small)
    if hasattr(model, "maxpool"):
        model.maxpool = nn.Identity()
    return model


def measure_features(model: Any, in_chans: int, size: int = _PROBE_SIZE) -> None:
    """Rewrites `feature_info` with the channels and reductions that the model really has, by one forward pass.

    Raises:
        ArgumentError: the model gives no feature maps (n, c, h, w), or can't take images of this size.
    """
    kind = type(model).__name__
    if not hasattr(model, "forward_intermediates"):
        near = difflib.get_close_matches(kind.lower(), timm.list_models(), 3, 0) or ["resnet18"]
        raise ArgumentError(
            f"backbone: {kind} has neither features_only nor forward_intermediates, so it gives no feature maps; "
            f"models that have them: {', '.join(near)}."
        )
    training = model.training
    try:
        with torch.no_grad():
            maps = model.eval().forward_intermediates(torch.zeros(1, in_chans, size, size), intermediates_only=True)
    except Exception as error:  # a foreign model may raise anything here: whatever it is, it does not fit
        raise ArgumentError(f"backbone: {kind} can't take {size} × {size} images with this stem ({error}).") from error
    finally:
        model.train(training)
    known = getattr(model, "feature_info", [{}] * len(maps))
    modules = [known[i].get("module", "") if i < len(known) else "" for i in range(len(maps))]
    model.feature_info = [
        {"num_chs": m.shape[1], "reduction": round(size / m.shape[-1]), "module": name}
        for m, name in zip(maps, modules, strict=True)
    ]


def smallest_size(model: Any, in_chans: int) -> int:
    """The smallest square images that an encoder takes, in pixels: 8 for ours, tried out for others (a batch of one, evaluating).

    Raises:
        ArgumentError: none of the usual sizes up to 512 is taken.
    """
    if isinstance(model, PyramidEncoder):
        return SMALLEST_SIZE
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for size in _SIZES:
                with contextlib.suppress(Exception):  # a foreign model may raise anything for a size it can't take
                    maps = model.forward_intermediates(torch.zeros(1, in_chans, size, size), intermediates_only=True)
                    if all(m.numel() for m in maps):
                        return size
    finally:
        model.train(training)
    raise ArgumentError(f"backbone: {type(model).__name__} takes none of the sizes {_SIZES}; choose another.")


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _build_small(base: str, **kwargs: Any) -> nn.Module:
    """The timm model `base` with the small stem and measured `feature_info`."""
    model = timm.create_model(base, pretrained=False, **kwargs)
    measure_features(shrink_stem(model), kwargs.get("in_chans", 3))
    _drop_layers_behind_the_maps(model, kwargs.get("num_classes", 1000), kwargs.get("global_pool"))
    return model


def _drop_layers_behind_the_maps(model: Any, num_classes: int, global_pool: str | None) -> None:
    """Removes what VGG and EfficientNet have between the deepest map and the classifier: no pretext trains it, so features behind
    it would be random, and a VGG's are 100 million weights."""
    if model.head_hidden_size == model.feature_info[-1]["num_chs"]:
        return
    model.prune_intermediate_layers(list(range(len(model.feature_info))))
    model.reset_classifier(num_classes, global_pool or "avg")


def _default_cfg() -> dict[str, Any]:
    return {"url": "", "num_classes": 1000, "input_size": (3, 32, 32), "first_conv": None, "classifier": None}


default_cfgs = generate_default_cfgs({"pretint_small_stem.untrained": _default_cfg()})


@register_model
def pretint_small_stem(pretrained: bool = False, base: str = "resnet18", **kwargs: Any) -> nn.Module:
    """Any timm model with the small-image stem, as one registered entry point, so that timm can load it from a folder.

    Args:
        pretrained: load the weights that `pretrained_cfg` names (a folder that :func:`save_backbone` wrote).
        base: the timm model.
        **kwargs: what timm's factory passes on.
    """
    known = timm.get_pretrained_cfg(base)
    names = {} if known is None else {"first_conv": known.first_conv, "classifier": known.classifier}
    kwargs["pretrained_cfg_overlay"] = names | (kwargs.get("pretrained_cfg_overlay") or {})
    return build_model_with_cfg(partial(_build_small, base), "pretint_small_stem", pretrained, **kwargs)
