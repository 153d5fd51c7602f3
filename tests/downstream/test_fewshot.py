"""Do few-shot figures come from exactly so many labels a class, several draws of them, and all test images?"""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch

from pretint.data import few_shot_subset
from pretint.downstream import few_shot, linear_probe, ridge_probe
from pretint.runtime import ArgumentError, DataError

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.randn(4, 12, generator=torch.Generator().manual_seed(100))
    y = torch.arange(n) % 4
    return centres[y] + 2 * torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)), y


TRAIN, TEST = blobs(400, 1), blobs(300, 2)


def test_the_probe_sees_exactly_so_many_images_of_each_class_and_all_test_images():
    seen = []

    def spy(x, y, x_test, y_test, **settings):
        seen.append((settings["seed"], y.bincount().tolist(), len(y_test), settings["holdout"]))
        return ridge_probe(x, y, x_test, y_test, **settings)

    results = few_shot(*TRAIN, *TEST, per_class=(5, 25), seeds=(7, 8), probe=spy)
    assert list(results) == [5, 25]
    assert seen == [(seed, [count] * 4, 300, 0.2) for count in (5, 25) for seed in (7, 8)]


def test_mean_and_spread_are_those_of_the_draws_made_by_hand():
    result = few_shot(*TRAIN, *TEST, per_class=[5], seeds=range(3))[5]
    by_hand = []
    for seed in range(3):
        ids = few_shot_subset(TRAIN[1], 5, seed)
        by_hand.append(ridge_probe(TRAIN[0][ids], TRAIN[1][ids], *TEST, holdout=0.2, seed=seed))
    accuracies = [probe.top1 for probe in by_hand]
    assert len(set(accuracies)) > 1
    assert result.top1 == pytest.approx(np.mean(accuracies))
    assert result.top1_sd == pytest.approx(np.std(accuracies, ddof=1))
    assert [draw.seed for draw in result.draws] == [0, 1, 2]
    assert all(np.array_equal(a.predictions, b.predictions) for a, b in zip(result.draws, by_hand, strict=True))


def test_more_labels_and_the_informative_layer_are_better():
    noise = torch.randn(700, 6, generator=torch.Generator().manual_seed(0)).split([400, 300])
    layers = [{"noise": z, "stage1": x} for z, x in zip(noise, (TRAIN[0], TEST[0]), strict=True)]
    results = few_shot(layers[0], TRAIN[1], layers[1], TEST[1], per_class=(5, 50), seeds=range(4))
    assert results[50].top1 > results[5].top1 + 0.02
    told = results[50].per_layer
    assert list(told) == ["noise", "stage1", "hypercolumn"]
    assert told["stage1"]["test_top1"] > told["noise"]["test_top1"] + 0.2
    found = [draw.per_layer["stage1"]["test_top1"] for draw in results[50].draws]
    assert told["stage1"]["test_top1_sd"] == pytest.approx(np.std(found, ddof=1))


def test_the_logistic_probe_serves_too_and_results_go_into_json():
    probe = functools.partial(linear_probe, weight_decays=[1e-2], epochs=20)
    result = few_shot(*TRAIN, *TEST, per_class=[10], seeds=[0], probe=probe)[10]
    assert result.top1 > 0.4
    assert result.top1_sd is None
    assert result.top5 is None
    told = json.loads(json.dumps(result.to_dict()))
    assert told["per_class"] == 10
    assert told["top1"] == result.top1 == told["draws"][0]["top1"]


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"per_class": [101]}, DataError, "class 0 has 100"),
        ({"per_class": [1]}, ArgumentError, "per_class: got"),
        ({"per_class": []}, ArgumentError, "per_class: got"),
        ({"seeds": []}, ArgumentError, "seeds: there are none"),
    ],
)
def test_what_can_not_be_drawn_is_told(settings, error, says):
    with pytest.raises(error, match=says):
        few_shot(*TRAIN, *TEST, **settings)
