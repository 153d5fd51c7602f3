"""How close are painted pictures to the true ones, and to what can be had without any network?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..colour import Palette, ab_bins, colourfulness, delta_e2000, nearest_bin, rgb_to_lab, to_float
from ..runtime.errors import ArgumentError
from .auc import areas, cell_count, error_cells
from .baselines import Picture, grey_lookup_picture, grey_picture, prior_chroma, prior_picture
from .label_quality import LabelQuality, no_labels
from .sums import Sums, total_of

# The mean squared error that rounding to 8 bits alone makes, on a scale of 1. Pictures that agree better than this
# count as 58.9 dB: an exact copy would be infinite, and one such picture (a grey one in the data, under "all grey")
# the whole mean.
_ROUNDING_ERROR = (1 / 255) ** 2 / 12
MOST_PSNR = -10 * math.log10(_ROUNDING_ERROR)
_SSIM_SMALLEST = 6  # its window reflects five pixels at the edge
_PICTURE_METRICS = ("ab_rmse", "auc", "auc_rebalanced", "delta_e2000", "delta_m3", "psnr", "ssim")
_BASELINES = ("grey_", "prior_", "grey_lookup_")
_BY_CLASS = ("", "grey_")


class ColourQuality:
    """A streaming accumulator of colour metrics: `update` with batches, `compute` once at the end.

    Sums are float64 on the pictures' device (on the CPU where the device has no float64), so that any batching gives
    the same numbers; `update` does not wait for the device. Each picture counts once: of several processes each has an
    accumulator for its share, and `reduce` adds them up.

    Args:
        palette: the palette that `logits` refer to; None when the task predicts colours and not labels.
        bin_prior: (q,) how frequent each of the ab bins is among the training pixels (:func:`colour.bin_prior`); None
            where that is not known.
        class_count: how many classes the pictures have, if `update` is told them.

    Raises:
        ArgumentError: a `bin_prior` of another kind.

    >>> quality = ColourQuality()
    >>> true = torch.arange(192).reshape(1, 3, 8, 8).to(torch.uint8)
    >>> quality.update(true, true)
    >>> quality.compute()["ab_rmse"]
    0.0
    """

    def __init__(
        self,
        palette: Palette | None = None,
        bin_prior: Float64[Tensor, " _q"] | None = None,
        class_count: int | None = None,
    ):
        if bin_prior is not None and not _is_prior(bin_prior):
            raise ArgumentError(
                f"bin_prior: {len(ab_bins())} shares that sum to 1 are needed, one an ab bin, got "
                f"{tuple(bin_prior.shape)}."
            )
        self.palette, self.bin_prior, self.class_count = palette, bin_prior, class_count
        self._labels = None if palette is None else LabelQuality(palette)
        self._sums = Sums()
        self._images = 0
        self._pixels = 0
        self._classified = False
        self._too_small_for_ssim = False
        self._resolution: tuple[int, int] | None = None
        self._prior_chroma: dict[torch.device, Tensor] = {}

    @torch.no_grad()
    def update(
        self,
        # underscores: sizes that do not agree are the user's mistake, and get a sentence
        painted: UInt8[Tensor, "_b 3 _h _w"] | Float[Tensor, "_b 3 _h _w"],
        true: UInt8[Tensor, "_b 3 _h _w"],
        logits: Float[Tensor, "_b _k _h2 _w2"] | None = None,
        grey: str = "rec601",
        classes: Int64[Tensor, " _b"] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            painted: what the network painted, RGB uint8 in 0…255 or floating in 0…1.
            true: the true pictures.
            logits: unnormalised log-probabilities of the palette's labels, at the pictures' resolution or a lower
                one; the labels are then those of the average-pooled true picture, rounded to uint8.
            grey: the grey formula of the all-grey baseline, one of `colour.GREY_FORMULAS`.
            classes: which class each picture is of, from 0 to below `class_count`.

        Raises ArgumentError for shapes that do not fit, for logits without a palette, for classes without their
        number, and for batches with and without logits or classes.
        """
        self._check(painted, true, logits, classes)
        self._images += len(true)
        self._pixels += true[:, 0].numel()
        true_lab, true_colourfulness = rgb_to_lab(true), colourfulness(true)
        bins = nearest_bin(true_lab[:, 1:])
        self._sums.add("colourfulness_true", true_colourfulness)
        self._sums.add("colourfulness", colourfulness(painted))
        for prefix, picture in (("", painted), *self._baselines(true, grey)):
            delta_m3 = (colourfulness(picture) - true_colourfulness).abs()
            self._sums.add(f"{prefix}delta_m3", delta_m3)
            lab = rgb_to_lab(picture)
            # of the prior its chroma counts as it is, without the clipping of a picture
            ab = self._constant_chroma(true.device) if prefix == "prior_" else lab[:, 1:]
            self._add_chroma(prefix, ab, true_lab[:, 1:], bins)
            self._sums.add(f"{prefix}delta_e2000", delta_e2000(lab, true_lab))
            self._add_similarity(prefix, picture, true)
            if classes is not None and prefix in _BY_CLASS:
                self._add_classes(prefix, delta_m3, classes)
        if logits is not None:
            assert self._labels is not None
            self._labels.update(logits, true)
        height, width = (true if logits is None else logits).shape[-2:]
        self._resolution = (height, width)

    def _baselines(self, true: UInt8[Tensor, "b 3 h w"], grey: str) -> Iterator[tuple[str, Picture]]:
        """What can be painted without a network, by the prefix of its metrics."""
        yield "grey_", grey_picture(true, grey)
        if self.bin_prior is not None:
            yield "prior_", prior_picture(true, self._constant_chroma(true.device).flatten(), grey)
        if self.palette is not None:
            yield "grey_lookup_", grey_lookup_picture(true, self.palette)

    def merge(self, other: ColourQuality) -> None:
        """Add what another accumulator counted (another process, another part of the data)."""
        for what in ("logits", "classes"):
            if self._images and other._images and self._has(what) != other._has(what):
                raise ArgumentError(
                    f"other: one accumulator counted {what} and the other none; give {what} to both or to neither."
                )
        self._sums.merge(other._sums)
        if self._labels is not None and other._labels is not None:
            self._labels.merge(other._labels)
        self._images += other._images
        self._pixels += other._pixels
        self._classified |= other._classified
        self._too_small_for_ssim |= other._too_small_for_ssim
        self._resolution = self._resolution or other._resolution

    def reduce(self) -> None:
        """Add up what all processes counted, each of different pictures and at least one; called once, before `compute`, by all."""
        self._sums.reduce()
        if self._labels is not None:
            self._labels.reduce()
        self._images, self._pixels = total_of(self._images), total_of(self._pixels)

    def compute(self) -> dict[str, Any]:
        """The metrics as `results.json` "colour" has them; None where one does not apply.

        Of the labels, from the logits: cross_entropy_nats, bits_per_pixel, top1, top5 (None below six colours),
        class_balanced_top1 (the mean over the labels that occur of each one's top-1); with the prefix `prior_` of
        P(label), with `grey_lookup_` of P(label | grey level), both from the palette's training counts. confusion
        counts pixels by true label (row) and most probable label (column), for palettes of at most 64 colours.

        Of the chroma: ab_rmse = √mean |âb - ab|² over pixels (Lab units), auc and auc_rebalanced in per cent
        (:mod:`evaluation.auc`; auc_prior says whether the frequencies of the ab bins are those of the "training" or of
        the "judged" pictures).

        Of the pictures: delta_e2000 = mean ΔE2000 over pixels, colourfulness and colourfulness_true = mean
        Hasler–Süsstrunk M3, delta_m3 = mean |M3(painted) - M3(true)|, delta_m3_per_class (a list, None for a class
        that does not occur), psnr (dB, at most `MOST_PSNR` a picture) and ssim, both per picture and averaged.

        Metrics of chroma and pictures also with the prefix `grey_` of the all-grey picture; with `prior_` of the training
        pixels' mean chroma everywhere (None without a `bin_prior`; its ab metrics before the clipping of a picture); with
        `grey_lookup_` of the picture in which each pixel has the palette's colour that its grey level had most often
        (None without a palette). Per class of the all-grey picture only. Also images (how many were counted) and
        resolution (height x width of the labels).

        Raises ArgumentError when nothing was counted, NotFiniteError when a picture or the logits held a value that
        is not finite.
        """
        if not self._images or self._resolution is None:
            raise ArgumentError(
                "ColourQuality: no picture was counted; call update with at least one batch before compute."
            )
        totals = self._sums.totals()
        height, width = self._resolution
        results: dict[str, Any] = {"images": self._images, "resolution": f"{height}x{width}"}
        results |= no_labels() if self._labels is None else self._labels.compute()
        for prefix in ("", *_BASELINES):
            results |= {f"{prefix}{metric}": None for metric in _PICTURE_METRICS}
            if f"{prefix}delta_e2000" in totals:
                results |= self._chroma_results(prefix, totals) | self._picture_results(prefix, totals)
        results["auc_prior"] = "judged" if self.bin_prior is None else "training"
        for name in ("colourfulness", "colourfulness_true"):
            results[name] = float(totals[name]) / self._images
        for prefix in _BY_CLASS:
            results[f"{prefix}delta_m3_per_class"] = _class_means(prefix, totals) if self._classified else None
        return results

    def _has(self, what: str) -> bool:
        """Whether logits, or classes, were counted."""
        return self._classified if what == "classes" else self._labels is not None and self._labels.pixels > 0

    def _check(self, painted: Tensor, true: Tensor, logits: Tensor | None, classes: Tensor | None) -> None:
        if true.dtype != torch.uint8 or true.ndim != 4 or true.shape[1] != 3:
            raise ArgumentError(f"true: got {true.dtype} {tuple(true.shape)}; true pictures are uint8 (b, 3, h, w).")
        if painted.shape != true.shape:
            raise ArgumentError(
                f"painted: got {tuple(painted.shape)}, the true pictures are {tuple(true.shape)}; they must agree."
            )
        for what, given in (("logits", logits), ("classes", classes)):
            if self._images and (given is not None) != self._has(what):
                raise ArgumentError(
                    f"{what}: some batches came with and some without; give them for every batch or for none."
                )
        if classes is not None and self.class_count is None:
            raise ArgumentError("classes: given without their number; make ColourQuality(class_count=…) with it.")
        if classes is not None and len(classes) != len(true):
            raise ArgumentError(f"classes: got {len(classes)} for {len(true)} pictures; each has one.")
        if logits is not None:
            self._check_logits(logits, true)

    def _check_logits(self, logits: Tensor, true: Tensor) -> None:
        if self.palette is None:
            raise ArgumentError(
                "logits: given without a palette; make ColourQuality(palette) with the palette they refer to."
            )
        wanted = (len(true), self.palette.size)
        fits = logits.ndim == 4 and logits.shape[2] <= true.shape[2] and logits.shape[3] <= true.shape[3]
        if not fits or tuple(logits.shape[:2]) != wanted:
            got = tuple(logits.shape)
            raise ArgumentError(
                f"logits: got {got}; they are (b, k, h', w') with b, k = {wanted} and no larger than the pictures."
            )

    def _constant_chroma(self, device: torch.device) -> Float[Tensor, "1 2 1 1"]:
        """The training pixels' mean chroma, copied once to each device."""
        if device not in self._prior_chroma:
            assert self.bin_prior is not None
            self._prior_chroma[device] = prior_chroma(self.bin_prior.cpu()).view(1, 2, 1, 1).to(device)
        return self._prior_chroma[device]

    def _add_chroma(self, prefix: str, ab: Tensor, true_ab: Tensor, bins: Tensor) -> None:
        squared = (ab - true_ab).square().sum(1)  # (b, h, w): squared length of the 2-vector
        self._sums.add(f"{prefix}ab_rmse", squared)
        self._sums.count(f"{prefix}auc", error_cells(squared.sqrt(), bins), cell_count())

    def _add_similarity(self, prefix: str, painted: Picture, true: UInt8[Tensor, "b 3 h w"]) -> None:
        painted, truth = _unit_range(painted), _unit_range(true)
        psnr = peak_signal_noise_ratio(painted, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
        self._sums.add(f"{prefix}psnr", psnr.clamp_max(MOST_PSNR))
        if min(true.shape[-2:]) < _SSIM_SMALLEST:
            self._too_small_for_ssim = True
            return
        ssim = structural_similarity_index_measure(painted, truth, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        self._sums.add(f"{prefix}ssim", ssim)

    def _add_classes(self, prefix: str, delta_m3: Float[Tensor, " b"], classes: Int64[Tensor, " b"]) -> None:
        assert self.class_count is not None
        self._classified = True
        member = classes[:, None] == torch.arange(self.class_count, device=classes.device)  # (b, classes)
        self._sums.add(f"{prefix}class_images", member, dim=0)
        self._sums.add(f"{prefix}class_delta_m3", torch.where(member, delta_m3[:, None], 0.0), dim=0)

    def _chroma_results(self, prefix: str, totals: dict[str, Tensor]) -> dict[str, float]:
        auc, rebalanced = areas(totals[f"{prefix}auc"], None if self.bin_prior is None else self.bin_prior.cpu())
        rmse = math.sqrt(float(totals[f"{prefix}ab_rmse"]) / self._pixels)
        return {f"{prefix}ab_rmse": rmse, f"{prefix}auc": auc, f"{prefix}auc_rebalanced": rebalanced}

    def _picture_results(self, prefix: str, totals: dict[str, Tensor]) -> dict[str, float | None]:
        return {
            f"{prefix}delta_e2000": float(totals[f"{prefix}delta_e2000"]) / self._pixels,
            f"{prefix}delta_m3": float(totals[f"{prefix}delta_m3"]) / self._images,
            f"{prefix}psnr": float(totals[f"{prefix}psnr"]) / self._images,
            f"{prefix}ssim": None if self._too_small_for_ssim else float(totals[f"{prefix}ssim"]) / self._images,
        }


def _is_prior(shares: Tensor) -> bool:
    return (
        tuple(shares.shape) == (len(ab_bins()),) and bool((shares >= 0).all()) and abs(float(shares.sum()) - 1) < 1e-6
    )


def _class_means(prefix: str, totals: dict[str, Tensor]) -> list[float | None]:
    """The mean ΔM3 of each class; None for one without pictures."""
    pairs = zip(totals[f"{prefix}class_delta_m3"].tolist(), totals[f"{prefix}class_images"].tolist(), strict=True)
    return [delta / images if images else None for delta, images in pairs]


def _unit_range(rgb: Picture) -> Float[Tensor, "b 3 h w"]:
    return to_float(rgb) if rgb.dtype == torch.uint8 else rgb.float()
