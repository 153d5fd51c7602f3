"""Tasks that own two encoders, one of luma and one of chroma: predict each from the other, or bring them together."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ..backbones import Preprocess
from ..colour import Palette, bin_palette, build_palette, luma, shrink
from ..data import Batch
from ..runtime.errors import ArgumentError
from ..runtime.loop import Loss
from ..runtime.processes import gather_with_gradient
from .classification import PaletteTask, PictureBatches
from .cross_entropy import pixel_cross_entropy
from .decoding import Decoding
from .heads import Half, HalfHead, Heads, ProjectionHead
from .model import HeadSettings, pixel_head


class SplitBrain:
    """Luma predicts chroma, chroma predicts luma, both by classification (Zhang et al. 2017, "Split-brain autoencoders").

    Args:
        preprocess: luma and chroma, three channels; the paper's are L* and ab.
        palette: the chroma classes; one-hot, not rebalanced. The paper's are the 313 ab bins.
        levels: classes of luma; the paper's 50 bins of L*.
        decode, temperature, predict_at: as in :class:`PaletteTask`.
    """

    name: ClassVar[str] = "split-brain"
    views: ClassVar[int] = 1
    pair: ClassVar[bool] = True

    def __init__(
        self,
        preprocess: Preprocess,
        palette: Palette,
        levels: int = 50,
        decode: str = "annealed",
        temperature: float = 0.38,
        predict_at: int = 1,
    ):
        if palette.space not in ("ab", "cbcr"):
            raise ArgumentError(f"--palette-space: {palette.space} holds luma; split-brain needs ab or cbcr.")
        if not 2 <= levels <= 256:
            raise ArgumentError(f"levels: {levels} must be from 2 to 256.")
        self.chroma = PaletteTask(preprocess, palette, decode=decode, temperature=temperature, predict_at=predict_at)
        self.preprocess, self.palette, self.levels, self.predict_at = preprocess, palette, levels, predict_at
        self.in_chans, self.grey, self.out_chans = preprocess.in_chans, preprocess.grey, palette.size

    @classmethod
    def fit_palette(cls, batches: PictureBatches, colours: int, space: str, grey: str, seed: int) -> Palette:
        """In ab the paper's 313 bins; in cbcr, for which there are none, `colours` classes by k-means."""
        return bin_palette(batches, grey) if space == "ab" else build_palette(batches, colours, space, grey, seed)

    def make_head(self, encoder: nn.Module, settings: HeadSettings) -> nn.Module:
        halves = Half(encoder, "luma"), Half(encoder, "chroma")
        return Heads(*(
            HalfHead(half, pixel_head(half, classes, self.predict_at, settings))
            for half, classes in zip(halves, (self.out_chans, self.levels), strict=True)
        ))  # fmt: skip

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.preprocess(rgb)

    def split(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "b 3 h w"], tuple[Int64[Tensor, "b h2 w2"], Int64[Tensor, "b h2 w2"]]]:
        small = shrink(batch.rgb, self.predict_at)
        level = (luma(small, self.grey)[:, 0] * self.levels).long().clamp_(0, self.levels - 1)
        return self.inputs(batch.rgb), (self.palette.labels(small), level)

    def loss(self, predictions: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Loss:
        each = [pixel_cross_entropy(p, t) for p, t in zip(predictions, targets, strict=True)]
        return Loss.mean_of(each[0] + each[1])

    def colour_prediction(self, predictions: tuple[Tensor, Tensor]) -> Tensor:
        """The part of a prediction that paints: chroma, seen from luma alone."""
        return predictions[0]

    def paint(
        self,
        predictions: Float[Tensor, "b k h2 w2"],
        rgb: UInt8[Tensor, "b 3 h w"],
        decoding: Decoding | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        return self.chroma.paint(predictions, rgb, decoding)


class Contrast:
    """Tell which luma view and which chroma view come from the same picture (Tian et al. 2020, "Contrastive multiview coding").

    InfoNCE (van den Oord et al. 2018, eq. 4) both ways over the batch: the other pictures of the batch are the negatives, those of
    all processes. Each view has an augmentation of its own. Nothing is painted.

    Args:
        preprocess: luma and chroma, three channels.
        contrast_temperature: τ.
        dim: of the unit vectors that are compared.
    """

    name: ClassVar[str] = "contrast"
    views: ClassVar[int] = 2
    pair: ClassVar[bool] = True
    predict_at: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, contrast_temperature: float = 0.1, dim: int = 128):
        if not 0 < contrast_temperature <= 10:
            raise ArgumentError(
                f"--contrast-temperature: {contrast_temperature} must be above 0 and at most 10; 0.07 to 0.1 is usual."
            )
        self.preprocess, self.temperature, self.dim = preprocess, contrast_temperature, dim
        self.in_chans, self.grey, self.out_chans = preprocess.in_chans, preprocess.grey, dim

    def make_head(self, encoder: nn.Module, settings: HeadSettings) -> nn.Module:
        halves = Half(encoder, "luma"), Half(encoder, "chroma")
        return Heads(*(HalfHead(half, ProjectionHead(half, self.dim)) for half in halves))

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.preprocess(rgb)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b 3 h w"], Int64[Tensor, " b"]]:
        first, second = batch.rgb, batch.others[0] if batch.others else batch.rgb
        inputs = self.inputs(first)
        if second is not first:
            inputs = torch.cat([inputs[:, :1], self.inputs(second)[:, 1:]], dim=1)
        return inputs, torch.arange(len(first), device=first.device)

    def loss(self, predictions: tuple[Tensor, Tensor], targets: Int64[Tensor, " b"]) -> Loss:
        """A mean over the pictures; one alone has nothing to be told from, and counts nothing."""
        luma_views, chroma_views = predictions
        (all_luma, first), (all_chroma, _) = gather_with_gradient(luma_views), gather_with_gradient(chroma_views)
        targets = targets + first  # (b,) places of this process's pictures among all n
        ways = (luma_views @ all_chroma.T, chroma_views @ all_luma.T)  # (b, n) each
        each = [F.cross_entropy(way / self.temperature, targets, reduction="none") for way in ways]
        loss = Loss.mean_of((each[0] + each[1]) / 2)
        return loss if len(all_luma) > 1 else Loss(loss.numerator, torch.zeros_like(loss.denominator))
