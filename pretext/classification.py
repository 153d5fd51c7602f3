"""Classification tasks: predict a distribution over colours for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..backbones import Preprocess
from ..colour import Palette, PixelWeights, SoftLabels, bin_palette, build_palette, has_colour, luma, shrink
from ..data import Batch
from ..runtime.errors import ArgumentError
from ..runtime.loop import Loss
from .cross_entropy import PixelTargets, pixel_cross_entropy, soft_cross_entropy
from .decoding import Decoding, decode, with_more_chroma
from .resolution import check_predict_at, enlarge_chroma

PictureBatches = Callable[[], Iterable[UInt8[Tensor, "_ 3 _ _"]]]


class PaletteTask:
    """Predict which palette colour each pixel has: a classification with mean cross-entropy over pixels.

    Args:
        preprocess: how pictures become input.
        palette: the colours.
        decode, temperature: how a distribution is painted, as in :class:`Decoding`; `decoding` can be set anew at any time.
        predict_at: 1, 2 or 4: full, half or quarter resolution.
        label_smoothing: this part of each target is spread evenly over all colours; from 0 to below 1.
        soft: how many nearest colours share a pixel (:class:`SoftLabels`); 0 gives it to the nearest alone.
        soft_sigma: the width of their weights in the units of the palette's space; None for a value that suits the palette.
        rebalance: weigh pixels by the rarity of their colour (λ of :func:`class_weights`); None weighs all alike.
        mask_grey: leave pictures without any colour (:func:`has_colour`, at the predicted resolution) out of the loss.

    Raises:
        UnknownNameError, ArgumentError: an option is out of its range or does not fit the palette.
    """

    name: ClassVar[str] = "palette"
    sees: ClassVar[str] = "grey"
    views: ClassVar[int] = 1
    # Width of the kernel that smooths the prior for rebalancing; k-means colours are where the pixels are, and need none.
    prior_sigma: ClassVar[float | None] = None

    def __init__(
        self,
        preprocess: Preprocess,
        palette: Palette,
        decode: str = "annealed",
        temperature: float = 0.38,
        predict_at: int = 1,
        *,
        label_smoothing: float = 0.0,
        soft: int = 0,
        soft_sigma: float | None = None,
        rebalance: float | None = None,
        mask_grey: bool = False,
    ):
        check_predict_at(predict_at)
        if not 0 <= label_smoothing < 1:
            raise ArgumentError(f"label_smoothing: {label_smoothing} must be from 0 to below 1; 0.1 is usual.")
        if soft < 0:
            raise ArgumentError(f"soft: {soft} must be 0 (one colour a pixel) or the number of colours that share one.")
        self.decoding = Decoding(decode, temperature)
        self.preprocess, self.palette = preprocess, palette
        self.predict_at, self.out_chans = predict_at, palette.size
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey
        self.label_smoothing, self.mask_grey = label_smoothing, mask_grey
        self._soft_labels = SoftLabels(palette, soft, soft_sigma) if soft else None
        self._pixel_weights = None if rebalance is None else PixelWeights(palette, rebalance, self.prior_sigma)

    @classmethod
    def fit_palette(cls, batches: PictureBatches, colours: int, space: str, grey: str, seed: int) -> Palette:
        """The palette of this task for some training pictures; arguments as of :func:`build_palette`."""
        return build_palette(batches, colours, space, grey, seed)

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(rgb)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b h2 w2"] | PixelTargets]:
        """Inputs, and the label of each pixel or, with soft labels, weights or masks, all that the loss asks of it."""
        return self.inputs(batch.rgb), self._targets(shrink(batch.rgb, self.predict_at))

    def _targets(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"] | PixelTargets:
        if self._soft_labels is None and self._pixel_weights is None and not self.mask_grey:
            return self.palette.labels(rgb)
        labels = self.palette.labels(rgb) if self._soft_labels is None or self._pixel_weights is not None else None
        if self._soft_labels is not None:
            indices, shares = self._soft_labels(rgb)
        else:
            assert labels is not None
            indices = labels[:, None]
            shares = torch.ones_like(indices, dtype=torch.float32)
        weights = None if self._pixel_weights is None or labels is None else self._pixel_weights(labels)
        return PixelTargets(indices, shares, weights, has_colour(rgb) if self.mask_grey else None)

    def loss(self, predictions: Float[Tensor, "b k h w"], targets: Int64[Tensor, "b h w"] | PixelTargets) -> Loss:
        """Cross-entropy in nats, a mean over the pixels that count."""
        if isinstance(targets, PixelTargets):
            return soft_cross_entropy(predictions, targets, self.label_smoothing)
        return Loss.mean_of(pixel_cross_entropy(predictions, targets, self.label_smoothing))

    def expected_colour(
        self, logits: Float[Tensor, "b k h w"], decoding: Decoding | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The decoded colour in the palette's own space, before any saturation."""
        return decode(logits, self.palette.centres.to(logits.device), decoding or self.decoding)

    def paint(
        self,
        predictions: Float[Tensor, "b k h2 w2"],
        rgb: UInt8[Tensor, "b 3 h w"],
        decoding: Decoding | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """RGB in 0…1 from predictions and the pictures' grey; another `decoding` than the task's own can be given."""
        decoding = decoding or self.decoding
        values = self.expected_colour(predictions, decoding)
        values = with_more_chroma(values, self.palette.space, decoding.saturation, self.grey)
        painted = self.palette.decode(values, luma(shrink(rgb, self.predict_at), self.grey))
        # colours of an rgb or lab palette bring their own lightness; chroma palettes take the picture's
        if self.predict_at == 1 and self.palette.space in ("rgb", "lab"):
            return painted
        return self._enlarged(painted, rgb)

    def _enlarged(self, painted: Float[Tensor, "b 3 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """A painting at the pictures' size, with the luma that the network was shown."""
        return enlarge_chroma(painted, rgb, self.grey)


class ABBins(PaletteTask):
    """Predict which of 313 ab bins each pixel has, with soft targets (Zhang, Isola & Efros 2016, "Colorful image colorization").

    The paper rebalances as well (`rebalance=0.5`): that makes colours vivid, but no evidence is known that it helps transfer, so
    it is off by default. It predicts at a quarter of the resolution (`predict_at=4`) and paints the annealed mean.

    Args:
        palette: of :func:`bin_palette`, or another one in the space "ab".
        soft_sigma: in Lab's units.
        others: as of :class:`PaletteTask`.
    """

    name: ClassVar[str] = "bins"
    prior_sigma: ClassVar[float | None] = 5.0

    def __init__(
        self,
        preprocess: Preprocess,
        palette: Palette,
        decode: str = "annealed",
        temperature: float = 0.38,
        predict_at: int = 1,
        *,
        label_smoothing: float = 0.0,
        soft: int = 5,
        soft_sigma: float | None = 5.0,
        rebalance: float | None = None,
        mask_grey: bool = True,
    ):
        if palette.space != "ab":
            raise ArgumentError(
                f"palette: bins are chromas in the space 'ab', not {palette.space!r}; use the task palette."
            )
        super().__init__(
            preprocess,
            palette,
            decode,
            temperature,
            predict_at,
            label_smoothing=label_smoothing,
            soft=soft,
            soft_sigma=soft_sigma,
            rebalance=rebalance,
            mask_grey=mask_grey,
        )

    @classmethod
    def fit_palette(cls, batches: PictureBatches, colours: int, space: str, grey: str, seed: int) -> Palette:
        """The 313 bins, counted in the training pictures; `colours`, `space` and `seed` have no part in it."""
        return bin_palette(batches, grey)
