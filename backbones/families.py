"""Which encoders of ours does timm know, and in which sizes?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..runtime.errors import ArgumentError, UnknownNameError
from .cnn import CNNEncoder
from .contract import SMALLEST_SIZE, PyramidEncoder
from .pair import PairEncoder
from .resunet import ResUNetEncoder
from .seeds import SEED_ENCODERS, SeedEncoder
from .unet import UNetEncoder

_INPUT_SIZE, _DEPTH = 32, 5
_FAMILIES: dict[str, tuple[Callable[..., PyramidEncoder], str, str]] = {
    "pretint_unet": (UNetEncoder, "stages.0.convs.0.0", "encoder of a U-Net"),
    "pretint_cnn": (CNNEncoder, "stages.0.convs.0.0", "plain convolutional net"),
    "pretint_resunet": (ResUNetEncoder, "stages.0.convs.0.0", "encoder of a residual U-Net"),
    **{name: (partial(SeedEncoder, name), "stages.0.convs.0.0", plan.about) for name, plan in SEED_ENCODERS.items()},
}
_SIZES: dict[str, dict[str, dict[str, int]]] = {
    "pretint_unet": {"tiny": {"width": 16}, "small": {"width": 32}, "base": {"width": 64}},
    "pretint_cnn": {"tiny": {"width": 16}, "small": {"width": 32}, "base": {"width": 64}},
    "pretint_resunet": {
        "tiny": {"width": 16},
        "small": {"width": 32},
        "base": {"width": 48, "blocks": 2},
    },
}
OUR_BACKBONES: dict[str, str] = {
    name: about
    for family, (_, _, sentence) in _FAMILIES.items()
    for name, about in [
        (family, f"{sentence}, {'width' if family in SEED_ENCODERS else 'sizes'} free"),
        *(
            (f"{family}_{size}", f"{sentence}, {', '.join(f'{k} {v}' for k, v in sizes.items())}")
            for size, sizes in _SIZES.get(family, {}).items()
        ),
    ]
}


def _levels(name: str) -> int:
    """How many levels an encoder of ours has unless it is given another depth."""
    return len(SEED_ENCODERS[name].stages) if name in SEED_ENCODERS else _DEPTH


def _deepest_side(name: str) -> int:
    """Side of its deepest map."""
    return -(-_INPUT_SIZE // 2 ** (SEED_ENCODERS[name].halvings if name in SEED_ENCODERS else _DEPTH - 1))


def _default_cfg(first_conv: Any, deepest: int) -> dict[str, Any]:
    return {
        "url": "", "num_classes": 1000, "input_size": (3, _INPUT_SIZE, _INPUT_SIZE),
        "min_input_size": (3, SMALLEST_SIZE, SMALLEST_SIZE), "pool_size": (deepest, deepest), "crop_pct": 1.0,
        "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "first_conv": first_conv,
        "classifier": "head.fc", "license": "apache-2.0",
    }  # fmt: skip


_cfgs: dict[str, Any] = {
    f"{name}.untrained": _default_cfg(conv, _deepest_side(name))
    for family, (_, conv, _) in _FAMILIES.items()
    for name in OUR_BACKBONES
    if name.startswith(family)
}
_cfgs["pretint_pair.untrained"] = _default_cfg(
    ("stages.0.luma.convs.0.0", "stages.0.chroma.convs.0.0"), _deepest_side("pretint_unet")
)
default_cfgs = generate_default_cfgs(_cfgs)


def _placed(make: Callable[..., nn.Module], *, device: Any = None, dtype: Any = None, **arguments: Any) -> nn.Module:
    """timm's `device` and `dtype`: weights are made where they will live."""
    with torch.device(device) if device is not None else nullcontext():
        model = make(**arguments)
    return model if dtype is None else model.to(dtype=dtype)


def _build(make: Callable[..., nn.Module], variant: str, levels: int, pretrained: bool, **kwargs: Any) -> nn.Module:
    features = {"out_indices": tuple(range(kwargs.get("depth", levels))), "feature_cls": "getter"}
    return build_model_with_cfg(partial(_placed, make), variant, pretrained, feature_cfg=features, **kwargs)  # type: ignore[arg-type]


def _register(name: str, make: Callable[..., PyramidEncoder], sizes: dict[str, int], about: str) -> None:
    """An entry point of timm's by that name."""

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _build(make, name, _levels(name), pretrained, **{**sizes, **kwargs})

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{about[0].upper()}{about[1:]}; further arguments: see {getattr(make, 'func', make).__name__}."
    register_model(entry)


for _family, (_cls, _, _) in _FAMILIES.items():
    for _name, _about in OUR_BACKBONES.items():
        if _name.startswith(_family):
            _register(_name, _cls, _SIZES.get(_family, {}).get(_name.removeprefix(f"{_family}_"), {}), _about)


@register_model
def pretint_pair(pretrained: bool = False, base: str = "pretint_unet", **kwargs: Any) -> nn.Module:
    """Two encoders side by side, one for luma and one for chroma, as one encoder of three channels.

    Args:
        pretrained: load the weights that `pretrained_cfg` names.
        base: what each half is: one of this library's encoders.
        **kwargs: sizes of the halves, and what timm's factory passes on.

    Raises:
        UnknownNameError: `base` is none of ours.
    """
    first = _first_conv(base)
    names = {
        "first_conv": (first.replace("stages.0", "stages.0.luma"), first.replace("stages.0", "stages.0.chroma")),
        "pool_size": (_deepest_side(base), _deepest_side(base)),
    }
    kwargs["pretrained_cfg_overlay"] = names | (kwargs.get("pretrained_cfg_overlay") or {})
    return _build(partial(_make_pair, base), "pretint_pair", _levels(base), pretrained, **kwargs)


def _first_conv(base: str) -> str:
    if base not in OUR_BACKBONES:
        raise UnknownNameError("base", base, OUR_BACKBONES)
    return next(conv for family, (_, conv, _) in _FAMILIES.items() if base.startswith(family))


def _make_pair(base: str, in_chans: int = 3, num_classes: int = 1000, **options: Any) -> PairEncoder:
    if in_chans != 3:
        raise ArgumentError(f"in_chans: {in_chans} does not fit a pair; it takes 3 channels, luma and two of chroma.")
    head = {key: options.pop(key) for key in ("global_pool", "drop_rate") if key in options}
    family = next(f for f in _FAMILIES if base.startswith(f))
    sizes = _SIZES.get(family, {}).get(base.removeprefix(f"{family}_"), {}) | options
    halves = [_FAMILIES[family][0](num_classes=0, in_chans=channels, **sizes) for channels in (1, 2)]
    return PairEncoder(*halves, num_classes=num_classes, **head)
