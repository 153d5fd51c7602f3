"""Calibration error against torchmetrics and the paper's formula; accuracies and confusions against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score
from torchmetrics.functional.classification import multiclass_calibration_error

from pretint.evaluation import expected_calibration_error, most_confused, per_class_accuracy
from pretint.runtime import ArgumentError


def guesses(n: int = 3000, classes: int = 6, sharpness: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    return (sharpness * logits).softmax(1), labels


def slow_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    """Guo et al., equation 3: bins (m - 1)/M < confidence <= m/M."""
    confidence, predicted = probabilities.double().max(1)
    error = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gap = (predicted[inside] == labels[inside]).double().mean() - confidence[inside].mean()
            error += float(inside.sum()) / len(labels) * abs(float(gap))
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_calibration_error_is_the_papers_and_that_of_torchmetrics(bins, sharpness):
    probabilities, labels = guesses(sharpness=sharpness)
    ours = expected_calibration_error(probabilities, labels, bins=bins)
    assert ours == pytest.approx(slow_error(probabilities, labels, bins), abs=1e-9)
    theirs = multiclass_calibration_error(probabilities, labels, num_classes=6, n_bins=bins, norm="l1")
    assert ours == pytest.approx(float(theirs), abs=1e-4)


def test_a_classifier_as_sure_as_it_is_right_is_calibrated_and_an_overconfident_one_is_not():
    honest = expected_calibration_error(*guesses(20_000, sharpness=1.0))
    boastful = expected_calibration_error(*guesses(20_000, sharpness=5.0))
    assert honest < 0.02
    assert boastful > 0.3


def test_full_confidence_belongs_to_the_last_bin_even_if_rounding_leaves_more_than_one():
    # 0.95 and 1.0 share the bin (14/15, 1]: of these four one is wrong, the mean confidence is 0.975.
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.95, 0.05], [0.95, 0.05]])
    labels = torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.225, abs=1e-6)
    above = probabilities + torch.tensor([1.2e-7, 0.0])
    assert float(above.max()) > 1
    assert expected_calibration_error(above, labels) == pytest.approx(0.225, abs=1e-6)


def test_always_right_with_certainty_is_zero_and_always_wrong_is_one():
    certain = torch.eye(3).repeat(5, 1)
    assert expected_calibration_error(certain, torch.arange(15) % 3) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(certain, (torch.arange(15) + 1) % 3) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "says"),
    [
        (torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), 15, "softmax"),
        (torch.full((4, 3), float("nan")), torch.zeros(4, dtype=torch.int64), 15, "softmax"),
        (torch.full((4, 2), 0.5), torch.zeros(3, dtype=torch.int64), 15, "4 and 3"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 15, "0 and 0"),
        (torch.full((4, 2), 0.5), torch.zeros(4, dtype=torch.int64), 0, "bins"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities, labels, bins, says):
    with pytest.raises(ArgumentError, match=says):
        expected_calibration_error(probabilities, labels, bins=bins)


def test_accuracy_by_class_is_scikit_learns_recall():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    predictions = np.where(rng.random(400) < 0.6, labels, rng.integers(0, 5, 400))
    counts = confusion_matrix(labels, predictions, labels=range(5))
    assert per_class_accuracy(counts) == pytest.approx(recall_score(labels, predictions, average=None).tolist())


def test_a_class_without_images_has_no_accuracy():
    assert per_class_accuracy([[3, 1, 0], [0, 0, 0], [0, 2, 2]]) == [0.75, None, 0.5]


def test_the_most_confused_pairs_come_by_their_share_of_the_true_class():
    counts = np.array([[90, 8, 2], [30, 70, 0], [1, 1, 8]])
    names = ["cat", "dog", "ship"]
    pairs = most_confused(counts, names, top=4)
    assert [(pair.true, pair.predicted, pair.images) for pair in pairs] == [
        ("dog", "cat", 30),
        ("ship", "cat", 1),
        ("ship", "dog", 1),
        ("cat", "dog", 8),
    ]
    assert [pair.share for pair in pairs] == pytest.approx([0.3, 0.1, 0.1, 0.08])
    assert len(most_confused(counts, names)) == 5  # the pair that never occurs is left out
    assert most_confused([[4, 0], [0, 4]]) == []
    assert most_confused(counts, top=1)[0][:2] == ("1", "0")


@pytest.mark.parametrize("counts", [np.zeros((2, 3), dtype=int), [[1, 2]], np.zeros((0, 0), dtype=int)])
def test_a_confusion_matrix_is_square(counts):
    for judge in (per_class_accuracy, most_confused):
        with pytest.raises(ArgumentError, match="square"):
            judge(counts)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="class_names: got 1 for 2"):
        most_confused([[1, 2], [3, 4]], ["cat"])
