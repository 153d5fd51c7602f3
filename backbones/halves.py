"""How is one half of a trained pair used alone, and how do two trained halves become a pair?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ..runtime.errors import ArgumentError
from .pair import PairEncoder
from .preprocess import Preprocess
from .registry import BackboneSpec, create_backbone

PARTS = ("luma", "chroma")
_PAIR = "pair/"


def split_pair(pair: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The luma and the chroma encoder of a pair, each with its own `preprocess` and `spec`, and without classifier.

    They are encoders like any other, which can be judged, saved and exported; weights are copied.

    Args:
        pair: made by `create_backbone("pair/NAME")` or loaded; it carries `preprocess` and `spec`.

    Raises:
        ArgumentError: it is no such pair.

    >>> luma, chroma = split_pair(create_backbone("pair/pretint_cnn", width=8))
    >>> luma.preprocess.in_chans, chroma.preprocess.in_chans
    (1, 2)
    """
    spec, preprocess = getattr(pair, "spec", None), getattr(pair, "preprocess", None)
    if not (isinstance(pair, PairEncoder) and isinstance(spec, BackboneSpec) and isinstance(preprocess, Preprocess)):
        raise ArgumentError("pair: only encoders made as pair/NAME have a luma and a chroma half.")
    means, deviations = zip(*preprocess.normalisation, strict=True)
    views = (
        replace(preprocess, in_chans=1, chroma=None, mean=means[:1], std=deviations[:1]),
        replace(preprocess, in_chans=2, mean=means[1:], std=deviations[1:]),
    )
    weights = pair.state_dict()
    luma, chroma = (_half(pair, part, spec, view, weights) for part, view in zip(PARTS, views, strict=True))
    return luma, chroma


def _half(pair: Any, part: str, spec: BackboneSpec, preprocess: Preprocess, weights: dict[str, Any]) -> nn.Module:
    sizes: dict[str, Any] = spec.options
    half = create_backbone(
        spec.name.removeprefix(_PAIR), preprocess.in_chans, image_size=pair.image_size, preprocess=preprocess, **sizes
    )  # fmt: skip
    own = {name.replace(f".{part}.", ".", 1): value for name, value in weights.items() if f".{part}." in name}
    half.load_state_dict(own)
    first = next(pair.parameters())
    return half.to(first.device, first.dtype).train(pair.training)


def join_pair(luma: nn.Module, chroma: nn.Module) -> nn.Module:
    """Two trained encoders of one kind as a pair that sees luma and chroma; weights are copied.

    Args:
        luma: with one input channel, made by :func:`create_backbone` or loaded.
        chroma: of the same name and sizes, with two input channels.

    Raises:
        ArgumentError: they are not of one kind, or see luma by different formulas.

    >>> halves = (create_backbone("pretint_cnn", channels, width=8) for channels in (1, 2))
    >>> join_pair(*halves).preprocess.in_chans
    3
    """
    (spec, first), (other_spec, second) = _made_of(luma), _made_of(chroma)
    if (spec.name, spec.options) != (other_spec.name, other_spec.options):
        raise ArgumentError("pair: the halves must be encoders of one name and of the same sizes.")
    if (first.in_chans, second.in_chans) != (1, 2) or first.grey != second.grey:
        raise ArgumentError("pair: the halves must take grey and chroma, with one and the same grey formula.")
    means, deviations = zip(*first.normalisation, *second.normalisation, strict=True)
    together = Preprocess(3, first.grey, means, deviations, second.chroma)
    pair = create_backbone(_PAIR + spec.name, 3, image_size=luma.image_size, preprocess=together, **spec.options)  # type: ignore[arg-type]
    pair.stages.load_state_dict(PairEncoder(luma, chroma).stages.state_dict())  # type: ignore[union-attr,arg-type]
    return pair.train(luma.training)


def _made_of(half: nn.Module) -> tuple[BackboneSpec, Preprocess]:
    spec, preprocess = getattr(half, "spec", None), getattr(half, "preprocess", None)
    if not (isinstance(spec, BackboneSpec) and isinstance(preprocess, Preprocess)):
        raise ArgumentError("pair: the halves must be encoders that create_backbone made or load_backbone read.")
    return spec, preprocess
