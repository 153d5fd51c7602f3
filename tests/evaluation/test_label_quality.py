"""Accuracy by label, the confusion of labels, and colourfulness by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretint.colour import Palette, build_palette, colourfulness, grey_levels, to_float, to_uint8
from pretint.evaluation import ColourQuality
from pretint.runtime import ArgumentError


@pytest.fixture(scope="module")
def true() -> torch.Tensor:
    coarse = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return to_uint8(torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear"))


@pytest.fixture(scope="module")
def painted(true: torch.Tensor) -> torch.Tensor:
    return (to_float(true) * 0.6 + 0.2).clamp(0, 1)


@pytest.fixture(scope="module")
def palette(true: torch.Tensor) -> Palette:
    return build_palette(lambda: [true], 7, "rgb")


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    """Whole numbers, so that there are ties."""
    return torch.randint(0, 4, (10, 7, 8, 8), generator=torch.Generator().manual_seed(1)).float()


def measured(palette: Palette, *batch: torch.Tensor) -> dict:
    quality = ColourQuality(palette)
    quality.update(*batch)
    return quality.compute()


def slow_confusion(predicted: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    counts = np.zeros((size, size), dtype=int)
    for label, prediction in zip(labels, predicted, strict=True):
        counts[label, prediction] += 1
    return counts


def slow_balanced(counts: np.ndarray) -> float:
    return float(np.mean([row[label] / row.sum() for label, row in enumerate(counts) if row.sum()]))


def test_confusion_and_class_balanced_accuracy_match_slow_counts(true, palette, logits):
    results = measured(palette, true, true, logits)
    labels = palette.labels(true).flatten().numpy()
    guesses = logits.permute(0, 2, 3, 1).reshape(-1, 7).numpy().argmax(1)  # numpy takes the first of equals
    counts = slow_confusion(guesses, labels, 7)
    assert results["confusion"] == counts.tolist()
    assert results["top1"] == np.trace(counts) / counts.sum()
    assert results["class_balanced_top1"] == pytest.approx(slow_balanced(counts), rel=1e-12)
    levels = grey_levels(true, palette.grey).long().flatten()
    by_level = (palette.grey_lookup[levels] + 1).argmax(1).numpy()
    for prefix, guess in (("prior", np.full(len(labels), palette.prior.argmax())), ("grey_lookup", by_level)):
        expected = slow_balanced(slow_confusion(guess, labels, 7))
        assert results[f"{prefix}_class_balanced_top1"] == pytest.approx(expected, rel=1e-12)
    assert results["prior_class_balanced_top1"] == pytest.approx(1 / 7)  # right for one label, never for the others


def test_labels_that_do_not_occur_are_not_averaged_over(true, palette):
    labels = palette.labels(true)
    # one picture of one label, repeated: perfect logits are perfect, and the six others have no part in it
    row, column = (labels[0] == labels[0, 0, 0]).nonzero()[0].tolist()
    flat = true[:1, :, row, column].view(1, 3, 1, 1).expand(1, 3, 8, 8).contiguous()
    certain = 9 * torch.nn.functional.one_hot(palette.labels(flat), 7).permute(0, 3, 1, 2).float()
    assert measured(palette, flat, flat, certain)["class_balanced_top1"] == 1
    assert measured(palette, flat, flat, -certain)["class_balanced_top1"] == 0


def test_a_guess_that_is_always_the_commonest_label_is_exposed(true, palette):
    always = torch.zeros(10, 7, 8, 8)
    always[:, palette.prior.argmax()] = 1
    results = measured(palette, true, true, always)
    assert results["top1"] == results["prior_top1"] > 1 / 7
    assert results["class_balanced_top1"] == pytest.approx(1 / 7)


def test_large_palettes_have_no_confusion_matrix(true):
    ramp = torch.linspace(0, 1, 65)[:, None].expand(-1, 3).contiguous()
    palette = Palette("rgb", ramp, torch.full((65,), 1 / 65, dtype=torch.float64), torch.ones(256, 65).double())
    results = measured(palette, true, true, torch.zeros(10, 65, 8, 8))
    assert results["confusion"] is None
    assert results["class_balanced_top1"] is not None


def test_without_labels_there_is_neither(true):
    quality = ColourQuality()
    quality.update(true, true)
    results = quality.compute()
    assert results["confusion"] is results["class_balanced_top1"] is results["delta_m3_per_class"] is None


def test_confusions_of_merged_parts_add_up(true, palette, logits):
    first, second = ColourQuality(palette), ColourQuality(palette)
    first.update(true[:4], true[:4], logits[:4])
    second.update(true[4:], true[4:], logits[4:])
    first.merge(second)
    results, whole = first.compute(), measured(palette, true, true, logits)
    assert results["confusion"] == whole["confusion"]
    assert results["class_balanced_top1"] == whole["class_balanced_top1"]


def test_delta_m3_by_class_is_the_mean_over_that_classs_pictures(true, painted):
    classes = torch.tensor([0, 2, 2, 0, 2, 0, 0, 2, 2, 4])
    delta = (colourfulness(painted) - colourfulness(true)).abs().double()
    expected = [delta[classes == c].mean().item() if (classes == c).any() else None for c in range(5)]
    parts = ColourQuality(class_count=5), ColourQuality(class_count=5)
    parts[0].update(painted[:3], true[:3], classes=classes[:3])
    parts[1].update(painted[3:], true[3:], classes=classes[3:])
    parts[0].merge(parts[1])
    results = parts[0].compute()
    assert results["delta_m3_per_class"][1] is results["delta_m3_per_class"][3] is None
    for c in (0, 2, 4):
        assert results["delta_m3_per_class"][c] == pytest.approx(expected[c], rel=1e-6)
    assert results["delta_m3"] == pytest.approx(delta.mean().item(), rel=1e-6)


def test_classes_that_do_not_fit_are_refused_with_a_sentence(true):
    classes = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ArgumentError, match=r"classes: given without their number"):
        ColourQuality().update(true, true, classes=classes)
    with pytest.raises(ArgumentError, match="got 3 for 10 pictures"):
        ColourQuality(class_count=1).update(true, true, classes=classes[:3])
    with_classes, without = ColourQuality(class_count=1), ColourQuality(class_count=1)
    with_classes.update(true, true, classes=classes)
    without.update(true, true)
    with pytest.raises(ArgumentError, match="classes: some batches came with and some without"):
        with_classes.update(true, true)
    with pytest.raises(ArgumentError, match="one accumulator counted classes and the other none"):
        with_classes.merge(without)


def test_all_grey_stands_beside_delta_m3_by_class(true, painted):
    classes = torch.arange(10) % 2
    quality = ColourQuality(class_count=2)
    quality.update(painted, true, classes=classes)
    expected = [colourfulness(true[classes == c]).mean().item() for c in range(2)]  # a grey picture has none
    assert quality.compute()["grey_delta_m3_per_class"] == pytest.approx(expected, abs=0.05)
