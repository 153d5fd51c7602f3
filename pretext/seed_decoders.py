"""How did published colourization systems paint from feature maps? Their decoders as lists of operations, and what runs any.

The sources are those of `pretint.backbones.seeds`, and for the hypercolumn Larsson et al. 2016, "Learning representations for
automatic colorization". Each list begins with the deepest map of the encoder that it was published with; any other encoder whose
levels fit can take its place. Predictions are left as they are: where a source has a tanh at the end, the task applies it
(`lab-regression`), which is the same, also in front of a nearest upsampling.

Choices of this project, where a source is silent or does not fit:

* toronto-convtranspose, toronto-unet: a transposed convolution's n = C_in·k² in U(±1/√n), as for any other layer.
* wallner-full: without a vector from outside it fuses the bottleneck's own global average, which leaks no labels; the mixing
  convolution has a ReLU behind it.
* wallner-alpha, -beta, -full, cs520: weights are drawn as Keras does by default.
* cs520: 256 numbers in the bottleneck; unpooling repeats pixels; each unpooling is followed by a transposed 5 × 5 convolution with
  as many channels as the encoder had there, with ReLU, the last without.
* toronto-*: the layers in front of the last have 24 channels, the course's number of colours, whatever is predicted: regression has
  the same network but for its last convolution.
* hypercolumn: levels are enlarged by repetition, not bilinearly; one hidden layer of 128 channels, narrower than the paper's, and
  batch-normalised; all pixels are predicted, not a sample of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..backbones import SEED_ENCODERS, draw_weights
from ..runtime.errors import ArgumentError, UnknownNameError
from .decoder import PyramidDecoder, check_skips
from .operations import (
    OUT,
    Act,
    Columns,
    Conv,
    Dense,
    Fuse,
    Join,
    Norm,
    Operation,
    Scene,
    SceneLayer,
    Site,
    Transposed,
    Up,
    fit,
)


@dataclass(frozen=True)
class DecoderPlan:
    """A decoder's list of operations.

    Attributes:
        about: one sentence.
        encoder: the backbone that it was published with, or one that fits.
        width: what the operations' channels are multiples of, as published.
        operations: from the encoder's deepest map to the prediction.
        weights: what :func:`pretint.backbones.draw_weights` is told.
    """

    about: str
    encoder: str
    width: int
    operations: tuple[Operation, ...]
    weights: str = "uniform"

    @property
    def enlargement(self) -> int | None:
        """The prediction's side over the deepest map's; None if it is whatever the encoder needs."""
        if any(isinstance(o, Columns) for o in self.operations):
            return None
        return 2 ** sum(isinstance(o, Up) or (isinstance(o, Transposed) and o.stride == 2) for o in self.operations)


_UP, _NORM, _ACT = Up(), Norm(), Act()
_COLOURS = 24 / 32  # of the width: the 24 colours of the Toronto course, beside its 32 filters
_PLANS: dict[str, DecoderPlan] = {
    "toronto-cnn": DecoderPlan(
        "Toronto course: convolutions and nearest upsampling, no skips",
        "pretint_toronto_cnn",
        32,
        (Conv(1), _UP, _NORM, _ACT, Conv(_COLOURS), _UP, _NORM, _ACT, Conv(OUT)),
    ),
    "toronto-convtranspose": DecoderPlan(
        "Toronto course: transposed convolutions, no skips",
        "pretint_toronto_strided",
        32,
        (Transposed(1), _NORM, _ACT, Transposed(_COLOURS), _NORM, _ACT, Conv(OUT)),
    ),
    "toronto-unet": DecoderPlan(
        "Toronto course: transposed convolutions, joined with two levels and the input",
        "pretint_toronto_strided",
        32,
        (Join(1), Transposed(1), _NORM, _ACT, Join(0), Transposed(_COLOURS), _NORM, _ACT, Join(), Conv(OUT)),
    ),
    "toronto-unet-pool": DecoderPlan(
        "Toronto course: convolutions and nearest upsampling, joined with two levels and the input",
        "pretint_toronto_cnn",
        32,
        (Join(1), Conv(1), _UP, _NORM, _ACT, Join(0), Conv(_COLOURS), _UP, _NORM, _ACT, Join(), Conv(OUT)),
    ),
    "wallner-alpha": DecoderPlan(
        "Wallner: the smallest, to see that a network can memorise a picture",
        "pretint_wallner_alpha",
        8,
        (_UP, Conv(4), _ACT, _UP, Conv(2), _ACT, _UP, Conv(OUT)),
        "glorot",
    ),
    "wallner-beta": DecoderPlan(
        "Wallner: convolutions and upsampling, the last behind the prediction",
        "pretint_wallner_beta",
        64,
        (Conv(2), _ACT, _UP, Conv(1), _ACT, _UP, Conv(1 / 2), _ACT, Conv(OUT), _UP),
        "glorot",
    ),
    "wallner-full": DecoderPlan(
        "Wallner, Baldassarre: fuses a summary of the whole picture into the deepest map",
        "pretint_wallner_full",
        64,
        (Fuse(4), _ACT, Conv(2), _ACT, _UP, Conv(1), _ACT, _UP, Conv(1 / 2), _ACT, Conv(1 / 4), _ACT, Conv(OUT), _UP),
        "glorot",
    ),
    "cs520": DecoderPlan(
        "CS520 autoencoder: a dense bottleneck with dropout, for pictures of one size",
        "pretint_cs520",
        32,
        (Dense(8, dropout=0.3), _UP, Transposed(2, 5, 1), _ACT, _UP, Transposed(1, 5, 1), _ACT, _UP, Transposed(OUT, 5, 1)),
        "glorot",
    ),
    "hypercolumn": DecoderPlan(
        "Larsson: every pixel sees all levels above it, by 1 × 1 convolutions",
        "pretint_unet",
        32,
        (Columns(4), _NORM, _ACT, Conv(OUT, kernel=1)),
    ),
}  # fmt: skip
DECODERS: dict[str, str] = {
    "unet": "a U-Net's expanding path, which fits every encoder",
    **{name: plan.about for name, plan in _PLANS.items()},
}


class SeedDecoder(nn.Module):
    """The decoder of a published system, for an encoder whose levels fit.

    Args:
        name: one of `DECODERS`, but not `unet`.
        levels: the encoder's `feature_info`.
        in_chans: channels of the encoder's input; None if they are not known or not to be looked at.
        out_chans: channels of the prediction.
        predict_at: input side over prediction side.
        width: what inner channels are multiples of; as published by default.
        image_size: side of the pictures; matters to cs520 only.
        fusion_features: length of a vector from outside that wallner-full fuses; 0: the deepest map's own average.
        skips: how many levels above the deepest hypercolumn sees; None for all. The others have their own.

    Raises:
        UnknownNameError: no such decoder.
        ArgumentError: the encoder's levels do not fit, or a size is out of range.

    >>> levels = [{"num_chs": c, "reduction": r} for c, r in ((32, 2), (64, 4), (64, 4))]
    >>> sum(p.numel() for p in SeedDecoder("toronto-unet", levels, in_chans=1, out_chans=24).parameters())
    56280
    """

    def __init__(
        self,
        name: str,
        levels: list[dict[str, Any]],
        in_chans: int | None,
        out_chans: int,
        predict_at: int = 1,
        width: int | None = None,
        image_size: int = 32,
        fusion_features: int = 0,
        skips: int | None = None,
    ):
        super().__init__()
        if name not in _PLANS:
            raise UnknownNameError("decoder", name, _PLANS)
        plan = _PLANS[name]
        width = plan.width if width is None else width
        check_skips(skips)
        if width < 1 or image_size < 1 or fusion_features < 0:
            raise ArgumentError(
                f"decoder: width {width} and image_size {image_size} must be 1 or more, fusion_features {fusion_features} "
                "0 or more."
            )
        deepest = levels[-1]
        site = Site(
            deepest["num_chs"], deepest["reduction"], levels, in_chans, out_chans, predict_at, width, image_size,
            fusion_features, skips,
        )  # fmt: skip
        _check_enlargement(name, plan, site)
        self.reduction = site.reduction
        self.layers = nn.ModuleList()
        for operation in plan.operations:
            _check_join(name, plan, operation, site)
            self.layers.extend(operation.layers(site))
        draw_weights(self, plan.weights)

    def forward(
        self,
        maps: list[Float[Tensor, "b _ _ _"]],
        inputs: Float[Tensor, "b _ h w"],
        vector: Float[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, "b c h2 w2"]:
        """The prediction.

        Args:
            maps: the encoder's feature maps, shallow to deep.
            inputs: the encoder's input.
            vector: what a decoder with `fusion_features` fuses.

        Returns:
            (b, out_chans, ⌈h / predict_at⌉, ⌈w / predict_at⌉).

        Raises:
            ArgumentError: pictures of another size than cs520 was made for, or a vector that is missing or of another length.
        """
        scene = Scene(maps, inputs, vector)
        x = fit(maps[-1], inputs, self.reduction)
        for layer in self.layers:
            x = layer(x, scene) if isinstance(layer, SceneLayer) else layer(x)
        return x


def _check_enlargement(name: str, plan: DecoderPlan, site: Site) -> None:
    if plan.enlargement is None:
        return
    wanted = plan.enlargement * site.predict_at
    if site.reduction != wanted:
        raise ArgumentError(
            f"decoder: {name} predicts at 1/{site.predict_at} of the picture's side from an encoder whose deepest level has "
            f"reduction {wanted}, this one has {site.reduction}; use --backbone {plan.encoder} and --predict-at 1, or decoder unet."
        )


def _check_join(name: str, plan: DecoderPlan, operation: Operation, site: Site) -> None:
    if not isinstance(operation, Join):
        return
    if operation.level is None:
        if site.in_chans is None:
            raise ArgumentError(
                f"decoder: {name} joins the input, which the half of a pair and an encoder without preprocess do not show; "
                "use decoder unet."
            )
        what, reduction = "the input", 1
    else:
        reductions = [level["reduction"] for level in site.levels]
        what = f"level {operation.level}"
        reduction = reductions[operation.level] if operation.level < len(reductions) else None
    if reduction != site.reduction:
        has = "is not there" if reduction is None else f"has reduction {reduction}"
        raise ArgumentError(
            f"decoder: {name} joins {what} at reduction {site.reduction}, but with this encoder it {has}; use --backbone "
            f"{plan.encoder} and --predict-at 1, or decoder unet."
        )


def decoder_width(decoder: str, backbone: str, width: int | None) -> int | None:
    """What a decoder's channels are multiples of, beside an encoder that was given a width; None for its own.

    All layers of a published system are multiples of one width, so its decoder becomes wider or narrower by the same factor as its
    encoder. Other decoders (unet, hypercolumn) keep their own width, as all do on other encoders, whose width says nothing of them.

    Args:
        decoder: one of `DECODERS`.
        backbone: the encoder's name.
        width: what the encoder was given; None for nothing.

    >>> decoder_width("toronto-unet", "pretint_toronto_strided", 8), decoder_width("toronto-cnn", "pretint_unet", 8)
    (8, None)
    """
    encoder, plan = SEED_ENCODERS.get(backbone.removeprefix("pair/")), _PLANS.get(decoder)
    if width is None or encoder is None or plan is None or plan.encoder not in SEED_ENCODERS:
        return None
    return max(1, round(plan.width * width / encoder.width))


def check_fuses(name: str) -> None:
    """Raises ArgumentError, with those that can, unless the decoder of that name can fuse a vector into the deepest map."""
    fusing = ["unet", *(n for n, plan in _PLANS.items() if any(isinstance(o, Fuse) for o in plan.operations))]
    if name not in fusing:
        raise ArgumentError(f"--fusion: decoder {name} fuses nothing; use --decoder {' or '.join(fusing)}.")


def check_decoder_name(name: str) -> None:
    """Raises UnknownNameError, with the closest names, unless a decoder of that name is known."""
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)


def make_decoder(
    name: str,
    levels: list[dict[str, Any]],
    in_chans: int | None,
    out_chans: int,
    predict_at: int = 1,
    *,
    skips: int | None = None,
    width: int | None = None,
    image_size: int = 32,
    fusion_features: int | None = None,
) -> nn.Module:
    """A decoder by name, called as decoder(maps, inputs): the encoder's maps, shallow to deep, and its input; one that fuses a
    vector from outside takes that as its third argument.

    Args:
        name: one of `DECODERS`.
        levels: the encoder's `feature_info`.
        in_chans: channels of its input; None if they are not known or not to be looked at.
        out_chans, predict_at: channels of the prediction; input side over prediction side.
        skips: for unet and hypercolumn: how many levels above the deepest are joined.
        width: for unet, most channels at full resolution; else what inner channels are multiples of. By default its own.
        image_size: side of the pictures; matters to cs520 only.
        fusion_features: length of a vector from outside that is fused into the deepest map; 0: that map's own average; None:
            what the decoder does of itself.

    Raises:
        UnknownNameError: no such decoder.
        ArgumentError: it does not fit the encoder, or fuses nothing; the message names one that does.
    """
    check_decoder_name(name)
    if fusion_features is not None:
        check_fuses(name)
    if name != "unet":
        vector = fusion_features or 0
        return SeedDecoder(name, levels, in_chans, out_chans, predict_at, width, image_size, vector, skips)
    channels, reductions = [level["num_chs"] for level in levels], [level["reduction"] for level in levels]
    sizes = {} if width is None else {"width": width}
    return PyramidDecoder(channels, reductions, out_chans, predict_at, skips, **sizes, fusion_features=fusion_features)
