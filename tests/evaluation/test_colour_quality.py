import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pretint.colour import Palette, ab_bins, bin_prior, build_palette, luma, to_float, to_uint8
from pretint.evaluation import ColourQuality, grey_picture
from pretint.runtime import ArgumentError, NotFiniteError

LABEL_KEYS = ("cross_entropy_nats", "bits_per_pixel", "top1", "top5", "class_balanced_top1")
PICTURE_KEYS = ("ab_rmse", "auc", "auc_rebalanced", "delta_e2000", "delta_m3", "psnr", "ssim")


@pytest.fixture(scope="module")
def true() -> torch.Tensor:
    """Smooth colourful pictures: low-frequency noise, different in each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 5, 5, generator=generator)
    return to_uint8(torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear"))


@pytest.fixture(scope="module")
def painted(true: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (to_float(true) * 0.7 + 0.3 * torch.rand(true.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def palette(true: torch.Tensor) -> Palette:
    return build_palette(lambda: [true], 8, "rgb")


@pytest.fixture(scope="module")
def logits(true: torch.Tensor) -> torch.Tensor:
    return 2 * torch.randn(len(true), 8, 16, 16, generator=torch.Generator().manual_seed(2))


def measured(palette: Palette | None, *batch: object) -> dict:
    quality = ColourQuality(palette)
    quality.update(*batch)  # pyright: ignore[reportArgumentType]
    return quality.compute()


def hwc(pictures: torch.Tensor) -> np.ndarray:
    return pictures.permute(0, 2, 3, 1).double().numpy()


def slow_label_metrics(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """(nats, top-1, top-5) of (n, k) probabilities for (n,) labels, pixel by pixel; equals go to the lower index."""
    nats, top1, top5 = [], 0, 0
    for row, label in zip(probabilities, labels, strict=True):
        nats.append(-math.log(row[label]))
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))
        top1 += label == order[0]
        top5 += label in order[:5]
    return float(np.mean(nats)), top1 / len(labels), top5 / len(labels)


def test_the_true_picture_is_perfect(true):
    results = measured(None, true, true)
    assert results["ab_rmse"] == 0
    assert results["delta_e2000"] == 0
    assert results["delta_m3"] == 0
    assert results["ssim"] == pytest.approx(1, abs=1e-6)
    assert results["psnr"] == pytest.approx(10 * math.log10(12 * 255**2), abs=1e-4)  # 8-bit rounding is the floor
    assert results["colourfulness"] == results["colourfulness_true"] > 5


@pytest.mark.parametrize("formula", ["rec601", "rec709", "mean", "lstar"])
def test_painting_grey_is_the_grey_baseline(true, formula):
    results = measured(None, grey_picture(true, formula), true, None, formula)
    for key in PICTURE_KEYS:
        assert results[key] == results[f"grey_{key}"], key
    assert results["colourfulness"] == pytest.approx(0, abs=0.05)
    assert results["grey_delta_m3"] == pytest.approx(results["colourfulness_true"], abs=0.05)


@pytest.mark.parametrize("formula", ["rec601", "rec709", "mean", "lstar"])
def test_the_grey_picture_keeps_its_luma_and_has_no_chroma(true, formula):
    grey = grey_picture(true, formula)
    torch.testing.assert_close(luma(grey, formula), luma(true, formula), atol=2e-5, rtol=0)
    assert (grey.amax(1) - grey.amin(1)).max() < 1e-3


def test_picture_metrics_match_scikit_image(true, painted):
    results = measured(None, painted, true)
    references = {key: [] for key in ("ab", "delta_e", "psnr", "ssim")}
    for paint, truth in zip(hwc(painted), hwc(to_float(true)), strict=True):
        lab_paint, lab_truth = rgb2lab(paint), rgb2lab(truth)
        references["ab"].append(((lab_paint - lab_truth)[..., 1:] ** 2).sum(-1).mean())
        references["delta_e"].append(deltaE_ciede2000(lab_paint, lab_truth).mean())
        references["psnr"].append(peak_signal_noise_ratio(truth, paint, data_range=1))
        # torchmetrics reflects the edge as numpy's "reflect" does, scikit-image does not: pad, then cut
        frame = ((5, 5), (5, 5), (0, 0))
        _, similarity = structural_similarity(
            *(np.pad(each, frame, mode="reflect") for each in (truth, paint)),
            data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
        )  # fmt: skip
        references["ssim"].append(similarity[5:-5, 5:-5].mean())
    assert results["ab_rmse"] == pytest.approx(np.sqrt(np.mean(references["ab"])), abs=0.01)
    assert results["delta_e2000"] == pytest.approx(np.mean(references["delta_e"]), abs=0.01)
    assert results["psnr"] == pytest.approx(np.mean(references["psnr"]), abs=1e-3)
    assert results["ssim"] == pytest.approx(np.mean(references["ssim"]), abs=1e-4)


def test_the_grey_ab_rmse_is_the_size_of_the_true_chroma(true):
    chroma = np.stack([rgb2lab(picture)[..., 1:] for picture in hwc(to_float(true))])
    expected = np.sqrt((chroma**2).sum(-1).mean())
    assert measured(None, true, true)["grey_ab_rmse"] == pytest.approx(expected, abs=0.02)


def test_colourfulness_matches_hasler_and_suesstrunk_written_out(true, painted):
    def m3(picture: np.ndarray) -> float:
        r, g, b = np.moveaxis(255 * picture, -1, 0)
        rg, yb = r - g, (r + g) / 2 - b
        return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())

    results = measured(None, painted, true)
    paints, truths = [m3(p) for p in hwc(painted)], [m3(p) for p in hwc(to_float(true))]
    assert results["colourfulness"] == pytest.approx(np.mean(paints), rel=1e-4)
    assert results["colourfulness_true"] == pytest.approx(np.mean(truths), rel=1e-4)
    assert results["delta_m3"] == pytest.approx(np.abs(np.subtract(paints, truths)).mean(), rel=1e-3)


def test_label_metrics_match_a_slow_cross_entropy(true, palette, logits):
    results = measured(palette, true, true, logits)
    flat = logits.permute(0, 2, 3, 1).reshape(-1, 8).double().numpy()
    labels = palette.labels(true).flatten().numpy()
    probabilities = np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    nats, top1, top5 = slow_label_metrics(probabilities, labels)
    assert results["cross_entropy_nats"] == pytest.approx(nats, rel=1e-6)
    assert results["bits_per_pixel"] == pytest.approx(nats / math.log(2), rel=1e-6)
    assert (results["top1"], results["top5"]) == (top1, top5)


def test_baselines_match_slow_tables(true, palette, logits):
    results = measured(palette, true, true, logits)
    labels = palette.labels(true).flatten().numpy()
    levels = (luma(true, palette.grey) * 255).round().long().flatten().numpy()
    prior = np.tile(palette.prior.numpy(), (len(labels), 1))
    counts = palette.grey_lookup.numpy()[levels] + 1
    lookup = counts / counts.sum(1, keepdims=True)
    for prefix, table in (("prior", prior), ("grey_lookup", lookup)):
        nats, top1, top5 = slow_label_metrics(table, labels)
        assert results[f"{prefix}_cross_entropy_nats"] == pytest.approx(nats, rel=1e-9)
        assert results[f"{prefix}_bits_per_pixel"] == pytest.approx(nats / math.log(2), rel=1e-9)
        assert (results[f"{prefix}_top1"], results[f"{prefix}_top5"]) == (top1, top5)
    assert results["grey_lookup_top1"] > results["prior_top1"]  # grey tells something about an RGB palette


def test_the_baselines_are_measured_as_the_pictures_they_paint(true, palette, logits):
    prior = torch.zeros(313, dtype=torch.float64)
    prior[ab_bins().square().sum(1).argmin()] = 1  # bin (0, 0): the prior paints grey
    quality = ColourQuality(palette, prior)
    quality.update(true, true, logits)
    results = quality.compute()
    levels = np.rint(hwc(true) @ (0.299, 0.587, 0.114)).astype(int)
    colours = palette.centres.numpy()[palette.grey_lookup.numpy().argmax(1)]  # of the 256 levels
    lookup = torch.from_numpy(colours[levels]).permute(0, 3, 1, 2).contiguous()
    for prefix, picture in (("grey_lookup_", lookup), ("prior_", grey_picture(true)), ("grey_", grey_picture(true))):
        wanted = ColourQuality(palette, prior)
        wanted.update(picture, true, logits)
        painted = wanted.compute()
        assert {key: results[f"{prefix}{key}"] for key in PICTURE_KEYS} == pytest.approx(
            {key: painted[key] for key in PICTURE_KEYS}, rel=1e-3
        )


def test_the_prior_on_its_own_training_pictures_costs_its_entropy(true, palette, logits):
    results = measured(palette, true, true, logits)
    entropy = -(palette.prior * palette.prior.log()).sum().item()
    assert results["prior_cross_entropy_nats"] == pytest.approx(entropy, rel=1e-9)
    assert results["prior_top1"] == pytest.approx(palette.prior.max().item(), abs=1e-12)


def test_logits_that_are_the_log_prior_give_the_priors_values(true, palette):
    constant = palette.prior.log().float().view(1, -1, 1, 1).expand(len(true), -1, 16, 16)
    results = measured(palette, true, true, constant)
    assert results["cross_entropy_nats"] == pytest.approx(results["prior_cross_entropy_nats"], rel=1e-6)
    assert results["top1"] == results["prior_top1"]
    assert results["top5"] == results["prior_top5"]


def test_an_undecided_network_is_not_called_right(true, palette):
    results = measured(palette, true, true, torch.zeros(len(true), 8, 16, 16))
    assert results["cross_entropy_nats"] == pytest.approx(math.log(8), rel=1e-6)
    assert results["top1"] == pytest.approx((palette.labels(true) == 0).double().mean().item())


def test_certain_and_right_logits_are_perfect(true, palette):
    certain = 100 * torch.nn.functional.one_hot(palette.labels(true), 8).permute(0, 3, 1, 2).float()
    results = measured(palette, true, true, certain)
    assert (results["cross_entropy_nats"], results["top1"], results["top5"]) == (0, 1, 1)


def test_coarse_logits_are_compared_with_labels_of_the_pooled_picture(true, palette, logits):
    blocks = true[..., ::2, ::2].clamp(10, 245)  # each becomes four pixels whose mean it is
    scatter = torch.tensor([[3, -3], [5, -5]]).repeat(8, 8)
    fine = (blocks.repeat_interleave(2, 2).repeat_interleave(2, 3).int() + scatter).to(torch.uint8)
    results = measured(palette, fine, fine, logits[..., ::2, ::2])
    own = logits[..., ::2, ::2].log_softmax(1).gather(1, palette.labels(blocks)[:, None])
    assert results["cross_entropy_nats"] == pytest.approx(-own.double().mean().item(), rel=1e-6)
    assert results["resolution"] == "8x8"


def test_a_side_that_does_not_divide_has_a_smaller_last_cell(true, palette):
    odd = true[..., :15, :15].contiguous()
    results = measured(palette, odd, odd, torch.zeros(len(odd), 8, 8, 8))
    assert results["resolution"] == "8x8"
    assert results["cross_entropy_nats"] == pytest.approx(math.log(8), rel=1e-6)


@pytest.mark.parametrize("size", [1, 5, 7])
def test_any_batching_and_merging_gives_the_same_numbers(true, painted, palette, logits, size):
    whole = measured(palette, painted, true, logits)
    parts, first, second = (ColourQuality(palette) for _ in range(3))
    for start in range(0, len(true), size):
        batch = [each[start : start + size] for each in (painted, true, logits)]
        parts.update(*batch)
        (first if start % 2 else second).update(*batch)
    first.merge(second)
    for results in (parts.compute(), first.compute()):
        assert results.keys() == whole.keys()
        for key, value in whole.items():
            assert results[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


def test_counting_never_waits_for_the_device(true, painted, palette, logits):
    # a meta tensor has a shape and no values: to look at one is an error, as it would be a wait on a GPU
    quality = ColourQuality(palette, bin_prior(lambda: [true]), class_count=2)
    classes = torch.zeros(len(true), dtype=torch.int64)
    for fine in (logits, logits[..., ::2, ::2]):
        quality.update(*(x.to("meta") for x in (painted, true, fine)), classes=classes.to("meta"))
    with pytest.raises(NotImplementedError, match="meta"):
        quality.compute()


def test_what_does_not_apply_is_none(true):
    results = measured(None, true, true)
    for prefix in ("", "prior_", "grey_lookup_"):
        assert all(results[f"{prefix}{key}"] is None for key in LABEL_KEYS)
    few = build_palette(lambda: [true], 5, "rgb")
    results = measured(few, true, true, torch.zeros(len(true), 5, 16, 16))
    assert results["top5"] is results["prior_top5"] is results["grey_lookup_top5"] is None
    assert results["top1"] is not None


def test_a_grey_picture_in_the_data_does_not_make_the_mean_infinite(true):
    with_grey = torch.cat((true, torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)))
    results = measured(None, with_grey, with_grey)
    assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))


def test_pictures_too_small_for_ssim_have_none(true):
    results = measured(None, true[..., :4, :4].contiguous(), true[..., :4, :4].contiguous())
    assert results["ssim"] is results["grey_ssim"] is None
    assert results["ab_rmse"] == 0


def test_mistakes_are_refused_with_a_sentence(true, palette, logits):
    with pytest.raises(ArgumentError, match="no picture was counted"):
        ColourQuality().compute()
    with pytest.raises(ArgumentError, match="without a palette"):
        ColourQuality().update(true, true, logits)
    with pytest.raises(ArgumentError, match=r"painted: .* must agree"):
        ColourQuality().update(true[:3], true)
    with pytest.raises(ArgumentError, match="no larger than the pictures"):
        ColourQuality(palette).update(true, true, logits[:, :5])
    quality = ColourQuality(palette)
    quality.update(true, true, logits)
    with pytest.raises(ArgumentError, match="every batch or for none"):
        quality.update(true, true)


def test_values_that_are_not_finite_are_an_error_and_not_a_number(true, painted):
    broken = painted.clone()
    broken[3, 0, 2, 2] = float("nan")
    quality = ColourQuality()
    quality.update(broken, true)
    with pytest.raises(NotFiniteError, match="not finite"):
        quality.compute()
