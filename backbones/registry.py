"""Which encoders are there, and how is one made by name?"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from ..runtime.errors import ArgumentError, UnknownNameError
from .cnn import CNNEncoder
from .contract import SMALLEST_SIZE
from .preprocess import Preprocess
from .timm_stem import measure_features
from .unet import UNetEncoder

STEMS = ("auto", "small", "stock")
_TIMM = "timm/"
_SMALL_IMAGE = 64
# Only plain sizes may be given to an encoder, so that a saved folder can't name anything else.
_LARGEST_ARGUMENT = 4096
# What timm's factory and this library decide, and no option may.
RESERVED_OPTIONS = frozenset(inspect.signature(timm.create_model).parameters) | {
    "base", "features_only", "feature_cls", "in_chans", "num_classes", "out_indices",
}  # fmt: skip


@dataclass(frozen=True)
class BackboneSpec:
    """What an encoder was made of; enough to make it again.

    Attributes:
        name: as in :func:`create_backbone`.
        stem: `native` (our own encoders), `small` or `stock` (timm models).
        options: further sizes, such as width and depth.
    """

    name: str
    stem: str
    options: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _default_cfg() -> dict[str, Any]:
    return {
        "url": "", "num_classes": 1000, "input_size": (3, 32, 32), "min_input_size": (3, SMALLEST_SIZE, SMALLEST_SIZE),
        "pool_size": None, "crop_pct": 1.0, "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
        "first_conv": "stages.0.convs.0.0", "classifier": "head.fc", "license": "apache-2.0",
    }  # fmt: skip


default_cfgs = generate_default_cfgs(
    {"pretint_unet.untrained": _default_cfg(), "pretint_cnn.untrained": _default_cfg()}
)


def _build(model_cls: type[nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    depth = kwargs.get("depth", 5)
    features = {"out_indices": tuple(range(depth)), "feature_cls": "getter"}
    return build_model_with_cfg(model_cls, variant, pretrained, feature_cfg=features, **kwargs)


@register_model
def pretint_unet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The encoder of a U-Net; `width` (32) and `depth` (5) are free."""
    return _build(UNetEncoder, "pretint_unet", pretrained, **kwargs)


@register_model
def pretint_cnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A plain convolutional encoder; `width` (32), `depth` (5) and `convs` (2) a stage are free."""
    return _build(CNNEncoder, "pretint_cnn", pretrained, **kwargs)


OUR_BACKBONES: dict[str, str] = {"pretint_unet": "encoder of a U-Net", "pretint_cnn": "plain convolutional net"}


def list_backbones(timm_models: bool = False) -> list[str]:
    """Names that :func:`create_backbone` takes: our encoders, and what else is registered with timm on demand.

    Args:
        timm_models: also every model that timm knows, those that users registered too, as `timm/<name>`.

    >>> list_backbones()
    ['pretint_cnn', 'pretint_unet']
    """
    ours = sorted(OUR_BACKBONES)
    hidden = {*ours, "pretint_small_stem"}
    return ours + [_TIMM + name for name in timm.list_models() if name not in hidden] if timm_models else ours


def create_backbone(
    name: str,
    in_chans: int = 1,
    stem: str = "auto",
    *,
    image_size: int = 32,
    preprocess: Preprocess | None = None,
    **options: int,
) -> nn.Module:
    """An encoder with fresh weights and no classifier: `encoder(x)` gives pooled features (n, num_features).

    It follows timm's contract (`feature_info`, `forward_features`, `forward_intermediates`, …) and carries `preprocess`, which
    makes its input from RGB pictures, and `spec`, which says how it was made.

    Args:
        name: `pretint_unet`, `pretint_cnn`, an encoder of one's own that was registered with timm, or `timm/<model>` (timm's
            own models also without the prefix).
        in_chans: 1 for grey, 3 for RGB.
        stem: for timm models: `small` (3 × 3, stride 1, no pooling), `stock` (as timm has it), or `auto`: small below 64 px,
            but stock for models whose size is fixed, such as vision transformers.
        image_size: side of the training images; decides `auto`, and is the size of models whose size is fixed.
        preprocess: how pictures become input; by default rec601 luma (or RGB), normalised with mean 0.5, deviation 0.25.
        **options: sizes that the encoder takes, such as `width` and `depth`.

    Raises:
        UnknownNameError: no such backbone or stem; the message names the closest.
        ArgumentError: an option does not fit.

    >>> encoder = create_backbone("pretint_unet", width=8)
    >>> [level["reduction"] for level in encoder.feature_info]
    [1, 2, 4, 8, 16]
    """
    if stem not in STEMS:
        raise UnknownNameError("stem", stem, STEMS)
    preprocess = preprocess or Preprocess(in_chans)
    if preprocess.in_chans != in_chans:
        raise ArgumentError(f"in_chans: {in_chans} does not fit a preprocessing that gives {preprocess.in_chans}.")
    spec = _resolve(name, stem, image_size, options)
    encoder: Any = build_from_spec(spec, in_chans, image_size)
    encoder.preprocess, encoder.spec = preprocess, spec
    return encoder


def check_backbone_name(name: str) -> None:
    """Raises UnknownNameError, with the closest names, unless an encoder of that name is known."""
    if not timm.is_model(name.removeprefix(_TIMM)):
        raise UnknownNameError("backbone", name, list_backbones(timm_models=True))


def _resolve(name: str, stem: str, image_size: int, options: dict[str, int]) -> BackboneSpec:
    for key, value in options.items():
        if key in RESERVED_OPTIONS:
            raise ArgumentError(f"{key}: not an option of an encoder; give sizes that {name} takes, such as width.")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_ARGUMENT:
            raise ArgumentError(f"{key}: {value!r} must be a whole number from 1 to {_LARGEST_ARGUMENT}.")
    check_backbone_name(name)
    base = name.removeprefix(_TIMM)
    if not name.startswith(_TIMM) and not timm.model_entrypoint(base).__module__.startswith("timm."):
        return BackboneSpec(name, "native", options)
    known = timm.get_pretrained_cfg(base)
    fixed_size = known is not None and known.fixed_input_size
    if stem == "auto":
        stem = "stock" if fixed_size or image_size >= _SMALL_IMAGE else "small"
    if fixed_size and stem == "stock":
        options = {"img_size": image_size, **options}
    return BackboneSpec(_TIMM + base, stem, options)


def architecture(spec: BackboneSpec) -> tuple[str, dict[str, Any]]:
    """timm's name for the encoder of a spec, and the arguments its factory needs beside the usual ones."""
    if spec.stem == "small":
        return "pretint_small_stem", {"base": spec.name.removeprefix(_TIMM), **spec.options}
    return spec.name.removeprefix(_TIMM), dict(spec.options)


def build_from_spec(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """The bare encoder of a spec, fresh weights, no classifier."""
    entry, arguments = architecture(spec)
    try:
        encoder = timm.create_model(entry, pretrained=False, num_classes=0, in_chans=in_chans, **arguments)
    except ArgumentError:
        raise
    except Exception as error:  # a foreign model may raise anything for a size that it can't be made with
        raise ArgumentError(f"backbone: {spec.name} does not take these options ({error}).") from error
    if spec.stem == "stock":
        measure_features(encoder, in_chans, spec.options.get("img_size", max(image_size, _SMALL_IMAGE)))
    return encoder
