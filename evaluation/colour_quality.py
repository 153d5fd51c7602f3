"""How close are painted pictures to the true ones, and to what can be had without any network?"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..colour import Palette, colourfulness, delta_e2000, grey_levels, lab_to_rgb, luma, rgb_to_lab, to_float, to_uint8
from ..runtime.errors import ArgumentError, NotFiniteError

Picture: TypeAlias = UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]

_Tables: TypeAlias = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]

LABEL_METRICS = ("cross_entropy_nats", "bits_per_pixel", "top1", "top5")
PICTURE_METRICS = ("ab_rmse", "delta_e2000", "delta_m3", "psnr", "ssim")

# A prior that calls a label impossible would make one such pixel infinitely wrong: probabilities are at least this.
SMALLEST_PROBABILITY = 1e-12
# The mean squared error that rounding to 8 bits alone makes, on a scale of 1. Pictures that agree better than this
# count as 58.9 dB: an exact copy would be infinite, and one such picture (a grey one in the data, under "all grey")
# the whole mean.
_ROUNDING_ERROR = (1 / 255) ** 2 / 12
MOST_PSNR = -10 * math.log10(_ROUNDING_ERROR)
_SSIM_SMALLEST = 6  # its window reflects five pixels at the edge


class ColourQuality:
    """A streaming accumulator of colour metrics: `update` with batches, `compute` once at the end.

    Sums are float64 on the pictures' device (on the CPU where the device has no float64), so that any batching gives
    the same numbers; `update` does not wait for the device. Each picture counts once; use one accumulator per process
    and `merge`, or one process.

    Args:
        palette: the palette that `logits` refer to; None when the task predicts colours and not labels.

    >>> quality = ColourQuality()
    >>> true = torch.arange(192).reshape(1, 3, 8, 8).to(torch.uint8)
    >>> quality.update(true, true)
    >>> quality.compute()["ab_rmse"]
    0.0
    """

    def __init__(self, palette: Palette | None = None):
        self.palette = palette
        self._sums: dict[str, Tensor] = {}
        self._images = 0
        self._pixels = 0
        self._labelled_pixels = 0
        self._too_small_for_ssim = False
        self._resolution: tuple[int, int] | None = None
        self._baselines: dict[torch.device, _Tables] = {}

    @torch.no_grad()
    def update(
        self,
        # underscores: sizes that do not agree are the user's mistake, and get a sentence
        painted: UInt8[Tensor, "_b 3 _h _w"] | Float[Tensor, "_b 3 _h _w"],
        true: UInt8[Tensor, "_b 3 _h _w"],
        logits: Float[Tensor, "_b _k _h2 _w2"] | None = None,
        grey: str = "rec601",
    ) -> None:
        """Count a batch.

        Args:
            painted: what the network painted, RGB uint8 in 0…255 or floating in 0…1.
            true: the true pictures.
            logits: unnormalised log-probabilities of the palette's labels, at the pictures' resolution or a lower
                one; the labels are then those of the average-pooled true picture, rounded to uint8.
            grey: the grey formula of the all-grey baseline, one of `colour.GREY_FORMULAS`.

        Raises ArgumentError for shapes that do not fit, for logits without a palette, and for batches with and
        without logits.
        """
        self._check(painted, true, logits)
        self._images += len(true)
        self._pixels += true[:, 0].numel()
        true_lab, true_colourfulness = rgb_to_lab(true), colourfulness(true)
        self._add("colourfulness_true", true_colourfulness)
        self._add("colourfulness", colourfulness(painted))
        self._add_pictures("", painted, true, true_lab, true_colourfulness)
        self._add_pictures("grey_", grey_picture(true, grey), true, true_lab, true_colourfulness)
        if logits is not None:
            self._add_labels(logits, true)
        height, width = (true if logits is None else logits).shape[-2:]
        self._resolution = (height, width)

    def merge(self, other: ColourQuality) -> None:
        """Add what another accumulator counted (another process, another part of the data)."""
        if bool(self._labelled_pixels) != bool(other._labelled_pixels) and self._images and other._images:
            raise ArgumentError(
                "other: one accumulator counted logits and the other none; give logits to both or to neither."
            )
        for name, value in other._sums.items():
            self._sums[name] = self._sums[name] + value.to(self._sums[name].device) if name in self._sums else value
        self._images += other._images
        self._pixels += other._pixels
        self._labelled_pixels += other._labelled_pixels
        self._too_small_for_ssim |= other._too_small_for_ssim
        self._resolution = self._resolution or other._resolution

    def compute(self) -> dict[str, float | int | str | None]:
        """The metrics as `results.json` "colour" has them; None where one does not apply.

        cross_entropy_nats, bits_per_pixel, top1, top5 (None below six colours): of the labels, from the logits; with
        the prefix `prior_` of P(label), with `grey_lookup_` of P(label | grey level), both from the palette's
        training counts. ab_rmse = √mean |âb - ab|² over pixels (Lab units), delta_e2000 = mean ΔE2000 over pixels,
        colourfulness and colourfulness_true = mean Hasler–Süsstrunk M3, delta_m3 = mean |M3(painted) - M3(true)|,
        psnr (dB, at most `MOST_PSNR` a picture) and ssim, both per picture and averaged; with the prefix `grey_` of
        the all-grey picture. Also images (how many were counted) and resolution (height x width of the labels).

        Raises ArgumentError when nothing was counted, NotFiniteError when a picture or the logits held a value that
        is not finite.
        """
        if not self._images or self._resolution is None:
            raise ArgumentError(
                "ColourQuality: no picture was counted; call update with at least one batch before compute."
            )
        sums = {name: float(value) for name, value in self._sums.items()}
        for name, value in sums.items():
            if not math.isfinite(value):
                raise NotFiniteError(
                    f"{name} is {value}: the painted pictures or the logits hold values that are not finite."
                )
        height, width = self._resolution
        results: dict[str, float | int | str | None] = {"images": self._images, "resolution": f"{height}x{width}"}
        for prefix in ("", "prior_", "grey_lookup_"):
            results |= self._label_results(prefix, sums)
        for prefix in ("", "grey_"):
            results |= self._picture_results(prefix, sums)
        for name in ("colourfulness", "colourfulness_true"):
            results[name] = sums[name] / self._images
        return results

    def _check(self, painted: Tensor, true: Tensor, logits: Tensor | None) -> None:
        if true.dtype != torch.uint8 or true.ndim != 4 or true.shape[1] != 3:
            raise ArgumentError(f"true: got {true.dtype} {tuple(true.shape)}; true pictures are uint8 (b, 3, h, w).")
        if painted.shape != true.shape:
            raise ArgumentError(
                f"painted: got {tuple(painted.shape)}, the true pictures are {tuple(true.shape)}; they must agree."
            )
        if self._images and (logits is not None) != bool(self._labelled_pixels):
            raise ArgumentError(
                "logits: some batches came with and some without; give them for every batch or for none."
            )
        if logits is None:
            return
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

    def _add(self, name: str, values: Tensor) -> None:
        if values.device.type == "mps":  # has no float64
            values = values.cpu()
        total = values.sum(dtype=torch.float64)
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def _add_pictures(self, prefix: str, painted: Tensor, true: Tensor, true_lab: Tensor, true_m3: Tensor) -> None:
        lab = rgb_to_lab(painted)
        self._add(
            f"{prefix}ab_rmse", (lab[:, 1:] - true_lab[:, 1:]).square().sum(1)
        )  # (b, h, w): squared length of the 2-vector
        self._add(f"{prefix}delta_e2000", delta_e2000(lab, true_lab))
        self._add(f"{prefix}delta_m3", (colourfulness(painted) - true_m3).abs())
        painted, true = _unit_range(painted), _unit_range(true)
        psnr = peak_signal_noise_ratio(painted, true, data_range=1.0, reduction="none", dim=(1, 2, 3))
        self._add(f"{prefix}psnr", psnr.clamp_max(MOST_PSNR))
        if min(true.shape[-2:]) < _SSIM_SMALLEST:
            self._too_small_for_ssim = True
            return
        ssim = structural_similarity_index_measure(painted, true, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        self._add(f"{prefix}ssim", ssim)

    def _add_labels(self, logits: Float[Tensor, "b k h2 w2"], true: UInt8[Tensor, "b 3 h w"]) -> None:
        assert self.palette is not None
        pooled = true
        height, width = logits.shape[-2:]
        if (height, width) != true.shape[-2:]:
            pooled = _pooled(true, height, width)
        labels = self.palette.labels(pooled)  # (b, h', w')
        self._labelled_pixels += labels.numel()
        own = logits.float().log_softmax(1).gather(1, labels[:, None])  # (b, 1, h', w')
        own_logit = logits.gather(1, labels[:, None])
        index = torch.arange(self.palette.size, device=logits.device).view(1, -1, 1, 1)
        # the number of labels that stand before the true one; equals go by index, as in the baselines, so that an
        # undecided network is not called right
        before = (logits > own_logit) | ((logits == own_logit) & (index < labels[:, None]))
        self._count_labels("", own[:, 0], before.sum(1))
        if labels.device not in self._baselines:
            self._baselines[labels.device] = _baseline_tables(self.palette, labels.device)
        prior, lookup = self._baselines[labels.device]
        self._count_labels("prior_", *(table[labels] for table in prior))
        levels = grey_levels(pooled, self.palette.grey).long()
        self._count_labels("grey_lookup_", *(table[levels, labels] for table in lookup))

    def _count_labels(self, prefix: str, log_probability: Tensor, rank: Int64[Tensor, ...]) -> None:
        self._add(f"{prefix}cross_entropy_nats", -log_probability)
        self._add(f"{prefix}top1", rank < 1)
        self._add(f"{prefix}top5", rank < 5)

    def _label_results(self, prefix: str, sums: dict[str, float]) -> dict[str, float | None]:
        if not self._labelled_pixels or self.palette is None:
            return {f"{prefix}{name}": None for name in LABEL_METRICS}
        means = {
            name: sums[f"{prefix}{name}"] / self._labelled_pixels for name in ("cross_entropy_nats", "top1", "top5")
        }
        return {
            f"{prefix}cross_entropy_nats": means["cross_entropy_nats"],
            f"{prefix}bits_per_pixel": means["cross_entropy_nats"] / math.log(2),
            f"{prefix}top1": means["top1"],
            f"{prefix}top5": means["top5"] if self.palette.size > 5 else None,
        }

    def _picture_results(self, prefix: str, sums: dict[str, float]) -> dict[str, float | None]:
        return {
            f"{prefix}ab_rmse": math.sqrt(sums[f"{prefix}ab_rmse"] / self._pixels),
            f"{prefix}delta_e2000": sums[f"{prefix}delta_e2000"] / self._pixels,
            f"{prefix}delta_m3": sums[f"{prefix}delta_m3"] / self._images,
            f"{prefix}psnr": sums[f"{prefix}psnr"] / self._images,
            f"{prefix}ssim": None if self._too_small_for_ssim else sums[f"{prefix}ssim"] / self._images,
        }


def grey_picture(rgb: Picture, formula: str = "rec601") -> Float[Tensor, "b 3 h w"]:
    """The all-grey picture, RGB in 0…1: every pixel the grey of the same luma (of the same L* for `lstar`)."""
    grey = luma(rgb, formula)
    if formula == "lstar":
        chroma = torch.zeros_like(grey).expand(-1, 2, -1, -1)
        return lab_to_rgb(torch.cat((grey * 100, chroma), dim=1))
    return grey.expand(-1, 3, -1, -1)


def _pooled(rgb: UInt8[Tensor, "b 3 h w"], height: int, width: int) -> UInt8[Tensor, "b 3 h2 w2"]:
    """The average-pooled picture, rounded; a side that the factor does not divide has a smaller last cell."""
    picture = to_float(rgb)
    factors = (-(-rgb.shape[2] // height), -(-rgb.shape[3] // width))
    pooled = functional.avg_pool2d(picture, factors, ceil_mode=True, count_include_pad=False)
    if pooled.shape[-2:] != (height, width):  # no whole factor leads there
        pooled = functional.adaptive_avg_pool2d(picture, (height, width))
    return to_uint8(pooled)


def _unit_range(rgb: Picture) -> Float[Tensor, "b 3 h w"]:
    return to_float(rgb) if rgb.dtype == torch.uint8 else rgb.float()


def _baseline_tables(palette: Palette, device: torch.device) -> _Tables:
    """(log P(label), rank of the label) as (k,) tables, and the same given the grey level as (256, k) tables.

    The lookup is smoothed by adding one to every count, so that a label never met at a grey level is improbable and
    not impossible.
    """
    prior = palette.prior.to("cpu", torch.float64)
    counts = palette.grey_lookup.to("cpu", torch.float64) + 1
    tables = []
    for probabilities in (prior.clamp_min(SMALLEST_PROBABILITY), counts / counts.sum(1, keepdim=True)):
        # twice argsort: the place of every label among the most probable, equals by index
        ranks = probabilities.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        log = probabilities.log().float() if device.type == "mps" else probabilities.log()
        tables.append((log.to(device), ranks.to(device)))
    return tables[0], tables[1]
