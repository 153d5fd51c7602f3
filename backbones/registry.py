"""Which encoders are there, and how is one made by name?"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
import torch
from torch import nn

from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.words import shortened
from .families import OUR_BACKBONES
from .preprocess import Preprocess
from .timm_stem import measure_features, smallest_size

STEMS = ("auto", "small", "stock")
_TIMM, _PAIR = "timm/", "pair/"
_NOT_LISTED = ("pretint_pair", "pretint_small_stem")  # asked for as pair/<name> and timm/<name>
_SMALL_IMAGE = 64
# Only plain sizes may be given to an encoder, so that a saved folder can't name anything else.
_LARGEST_ARGUMENT, _MOST_OPTIONS = 4096, 16
_LARGEST_OF = {"depth": 64, "blocks": 64}  # so many layers that making them without memory takes seconds
# What timm's factory and this library decide, and no option may.
_RESERVED_OPTIONS = frozenset(inspect.signature(timm.create_model).parameters) | {
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


def list_backbones(timm_models: bool = False) -> list[str]:
    """Names that :func:`create_backbone` takes: our encoders, and what else is registered with timm on demand.

    Args:
        timm_models: also every model that timm knows, those that users registered too, as `timm/<name>`.

    >>> list_backbones()[:4]
    ['pretint_cnn', 'pretint_cnn_base', 'pretint_cnn_small', 'pretint_cnn_tiny']
    """
    ours = sorted(OUR_BACKBONES)
    hidden = {*ours, *_NOT_LISTED}
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
    makes its input from RGB pictures, `spec`, which says how it was made, and `smallest_size`, in pixels.

    Args:
        name: one of ours, such as `pretint_unet` (sizes free) or `pretint_unet_small`; an encoder of one's own that was
            registered with timm; `timm/<model>` (timm's own models also without the prefix); or `pair/<one of ours>`: one for
            luma and one for chroma, side by side (:class:`PairEncoder`).
        in_chans: 1 for grey, 2 for chroma, 3 for RGB, or luma and chroma; a pair has 3.
        stem: for timm models: `small` (3 × 3, stride 1, no pooling), `stock` (as timm has it), or `auto`: small below 64 px,
            but stock for models whose size is fixed, such as vision transformers.
        image_size: side of the training images; decides `auto`, and is the size of models whose size is fixed.
        preprocess: how pictures become input; by default rec601 luma (or RGB), normalised with mean 0.5, deviation 0.25, and
            YCbCr for pairs.
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
    if name.startswith(_PAIR) and in_chans == 1 and preprocess is None:
        in_chans = 3
    if preprocess is None:
        preprocess = Preprocess(in_chans, chroma="cbcr" if in_chans == 2 or name.startswith(_PAIR) else None)
    if preprocess.in_chans != in_chans:
        raise ArgumentError(f"in_chans: {in_chans} does not fit a preprocessing that gives {preprocess.in_chans}.")
    spec = _resolve(name, stem, image_size, options)
    encoder: Any = build_from_spec(spec, in_chans, image_size)
    encoder.preprocess, encoder.spec, encoder.image_size = preprocess, spec, image_size
    encoder.smallest_size = smallest_size(encoder, in_chans) if "img_size" not in spec.options else image_size
    if image_size < encoder.smallest_size:
        raise ArgumentError(
            f"image_size: {image_size} is too small for {name} with this stem; it takes {encoder.smallest_size} and more."
        )
    return encoder


def check_backbone_name(name: str) -> None:
    """Raises UnknownNameError, with the closest names, unless an encoder of that name is known."""
    if name.startswith(_PAIR):
        if name.removeprefix(_PAIR) not in OUR_BACKBONES:
            raise UnknownNameError("backbone of a pair", name.removeprefix(_PAIR), OUR_BACKBONES)
    elif not timm.is_model(name.removeprefix(_TIMM)) or _is_second_name(name):
        raise UnknownNameError("backbone", name, list_backbones(timm_models=True))


def _is_second_name(name: str) -> bool:
    """Whether something of ours is asked for in another way than its own."""
    plain = name.removeprefix(_TIMM)
    return plain in _NOT_LISTED or (name.startswith(_TIMM) and plain in OUR_BACKBONES)


def check_options(options: dict[str, Any]) -> dict[str, int]:
    """The options of an encoder, unchanged.

    Raises:
        ArgumentError: they are not a few plain sizes; nothing else may reach an encoder's constructor.
    """
    if len(options) > _MOST_OPTIONS:
        raise ArgumentError(f"options: {len(options)} are too many; an encoder takes at most {_MOST_OPTIONS} sizes.")
    for key, value in options.items():
        if not isinstance(key, str) or key in _RESERVED_OPTIONS:
            raise ArgumentError(
                f"{shortened(str(key))}: not an option of an encoder; give sizes that it takes, such as width."
            )
        most = _LARGEST_OF.get(key, _LARGEST_ARGUMENT)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise ArgumentError(f"{key}: {shortened(repr(value))} must be a whole number from 1 to {most}.")
    return options


def _resolve(name: str, stem: str, image_size: int, options: dict[str, int]) -> BackboneSpec:
    check_options(options)
    check_backbone_name(name)
    if name.startswith(_PAIR):
        return BackboneSpec(name, "native", options)
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


def backbone_bytes(name: str, in_chans: int, stem: str, image_size: int, options: dict[str, int]) -> int:
    """How much memory the weights of :func:`create_backbone` take, without setting it aside.

    Raises:
        UnknownNameError, ArgumentError: as there.
    """
    if stem not in STEMS:
        raise UnknownNameError("stem", stem, STEMS)
    with torch.device("meta"):
        return module_bytes(build_from_spec(_resolve(name, stem, image_size, options), in_chans, image_size))


def module_bytes(module: nn.Module) -> int:
    """How much memory a module's parameters and saved buffers take, or would take."""
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def architecture(spec: BackboneSpec) -> tuple[str, dict[str, Any]]:
    """timm's name for the encoder of a spec, and the arguments its factory needs beside the usual ones."""
    if spec.stem == "small":
        return "pretint_small_stem", {"base": spec.name.removeprefix(_TIMM), **spec.options}
    if spec.name.startswith(_PAIR):
        return "pretint_pair", {"base": spec.name.removeprefix(_PAIR), **spec.options}
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
