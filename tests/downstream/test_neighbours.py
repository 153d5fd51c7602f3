"""Does kNN vote as scikit-learn's does, for every k at once, and choose k off the test images?"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from pretint.data import class_balanced_subset
from pretint.downstream import knn
from pretint.runtime import ArgumentError, NotFiniteError

pytestmark = pytest.mark.usefixtures("one_thread")


def clouds(n: int, classes: int = 7, d: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping directions, of lengths that say nothing."""
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(100))
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = centres[y] + 1.5 * torch.randn(n, d, generator=generator)
    return x * torch.logspace(-3, 3, n)[torch.randperm(n, generator=generator), None], y


TRAIN, TEST = clouds(350, seed=1), clouds(210, seed=2)


def reference(k: int, weights="uniform") -> KNeighborsClassifier:
    model = KNeighborsClassifier(k, metric="cosine", weights=weights)
    return model.fit(TRAIN[0].double().numpy(), TRAIN[1].numpy())


@pytest.mark.parametrize("k", [1, 2, 6, 20, 100])
def test_plain_votes_are_those_of_scikit_learn_equal_ones_included(k):
    ours = knn(*TRAIN, *TEST, ks=[k], weighted=False)
    shares = reference(k).predict_proba(TEST[0].double().numpy())
    if k == 2:
        assert (np.sort(shares, axis=1)[:, -1] == np.sort(shares, axis=1)[:, -2]).any()  # there are equal votes
    assert np.array_equal(ours.predictions, reference(k).predict(TEST[0].double().numpy()))
    np.testing.assert_allclose(ours.probabilities.numpy(), shares, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("k", [1, 6, 100])
def test_weighted_votes_are_those_of_scikit_learn_with_the_weights_of_the_paper(k, temperature):
    model = reference(k, lambda distances: np.exp((1 - distances) / temperature))
    ours = knn(*TRAIN, *TEST, ks=[k], temperature=temperature)
    assert np.array_equal(ours.predictions, model.predict(TEST[0].double().numpy()))
    np.testing.assert_allclose(ours.probabilities.numpy(), model.predict_proba(TEST[0].double().numpy()), atol=1e-4)


def test_weights_matter():
    plain, weighted = (knn(*TRAIN, *TEST, ks=[100], weighted=flag).predictions for flag in (False, True))
    assert 0.5 < (plain == weighted).mean() < 0.99


def test_all_k_in_one_pass_are_what_each_is_alone():
    ks = (20, 1, 5, 100, 5)
    together = knn(*TRAIN, *TEST, ks=ks)
    assert list(together.per_k["features"]) == [1, 5, 20, 100]
    for k, figures in together.per_k["features"].items():
        alone = knn(*TRAIN, *TEST, ks=[k])
        assert alone.top1 == figures["test_top1"]
        assert alone.per_layer["features"]["validation_top1"] == figures["validation_top1"]
        if k == together.chosen["k"]:
            assert np.array_equal(alone.predictions, together.predictions)
            assert together.top5 == alone.top5


@pytest.mark.parametrize("chunk", [1, 33, 10_000])
def test_the_size_of_chunks_does_not_matter(chunk):
    whole, parts = knn(*TRAIN, *TEST, ks=(1, 10)), knn(*TRAIN, *TEST, ks=(1, 10), chunk=chunk)
    assert whole.per_k == parts.per_k
    assert np.array_equal(whole.predictions, parts.predictions)


def test_k_is_the_one_that_is_best_on_held_out_training_images():
    result = knn(*TRAIN, *TEST, ks=(1, 3, 30, 200), weighted=False, holdout=0.2, seed=4)
    held = np.isin(np.arange(350), class_balanced_subset(TRAIN[1], 0.2, 4).numpy())
    x, y = TRAIN[0].double().numpy(), TRAIN[1].numpy()
    scores = {
        k: KNeighborsClassifier(k, metric="cosine").fit(x[~held], y[~held]).score(x[held], y[held])
        for k in (1, 3, 30, 200)
    }
    told = {k: figures["validation_top1"] for k, figures in result.per_k["features"].items()}
    assert told == pytest.approx(scores, abs=1e-12)
    assert result.chosen["k"] == max(scores, key=lambda k: scores[k])
    assert result.top1 == result.per_k["features"][result.chosen["k"]]["test_top1"]


def test_of_equally_good_k_the_smallest_is_chosen():
    x = torch.eye(2).repeat(30, 1)
    result = knn(x, torch.arange(60) % 2, x[:10], torch.arange(10) % 2, ks=(20, 10, 5))
    assert result.per_k["features"][20]["validation_top1"] == 1
    assert result.chosen["k"] == 5


def test_equal_votes_go_to_the_lower_class():
    # Two images on either side of each test image, just as near; classes 4 and 2 in the first pair, 1 and 3 in the second.
    angles = torch.tensor([0.1, -0.1, 2.1, 1.9] * 5)
    x, y = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([4, 2, 1, 3] * 5)
    test = torch.tensor([0.0, 2.0])
    result = knn(x, y, torch.stack([test.cos(), test.sin()], 1), torch.tensor([2, 1]), ks=[10], weighted=False)
    assert result.predictions.tolist() == [2, 1]


def test_a_class_without_a_vote_is_not_among_the_five_best():
    result = knn(*TRAIN, *TEST, ks=[1])
    assert result.top5 == result.top1 < 0.9
    shares = reference(20).predict_proba(TEST[0].double().numpy())
    voted = knn(*TRAIN, *TEST, ks=[20], weighted=False).top5
    own = shares[np.arange(210), TEST[1].numpy()]
    surely = ((shares >= own[:, None]).sum(1) <= 5) & (own > 0)
    possibly = ((shares > own[:, None]).sum(1) < 5) & (own > 0)
    assert surely.mean() <= voted <= possibly.mean()


def test_every_depth_is_told_and_layers_are_not_joined():
    noise = torch.randn(560, 4, generator=torch.Generator().manual_seed(0))
    train, test = {"stage0": noise[:350], "stage1": TRAIN[0]}, {"stage0": noise[350:], "stage1": TEST[0]}
    right, wrong = (knn(train, TRAIN[1], test, labels, ks=(5, 20)) for labels in (TEST[1], (TEST[1] + 1) % 7))
    assert list(right.per_layer) == list(right.per_k) == ["stage0", "stage1"]
    assert right.layer == wrong.layer == "stage1"
    assert right.chosen == wrong.chosen
    assert np.array_equal(right.predictions, wrong.predictions)
    assert right.top1 > wrong.top1


def test_features_of_zeros_are_as_similar_to_all():
    x, x_test = TRAIN[0].clone(), TEST[0].clone()
    x[3], x_test[5] = 0, 0
    assert np.isfinite(knn(x, TRAIN[1], x_test, TEST[1], ks=(1, 10)).probabilities.numpy()).all()


def test_results_go_into_json():
    result = knn(*TRAIN, *TEST, ks=(1, 10))
    told = json.loads(json.dumps(result.to_dict()))
    assert told["chosen"] == {"k": result.chosen["k"]}
    assert told["per_k"]["features"]["10"] == result.per_k["features"][10]
    assert "probabilities" not in told


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ks": []}, "ks: got"),
        ({"ks": [5, 0]}, "ks: got"),
        ({"ks": [5, 1000]}, "1000 neighbours are more than the 315 training images"),
        ({"ks": [316]}, "use smaller ones"),
        ({"temperature": 0.0}, "temperature: got"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"holdout": 0.0}, "holdout: got"),
        ({"classes": 3}, "from 0 to 6"),
    ],
)
def test_settings_out_of_range_are_told(settings, says):
    with pytest.raises(ArgumentError, match=says):
        knn(*TRAIN, *TEST, **settings)


def test_features_that_are_not_finite_name_their_layer():
    with pytest.raises(NotFiniteError, match=r"test_features.*'stage2'"):
        knn({"stage2": TRAIN[0]}, TRAIN[1], {"stage2": TEST[0] / 0}, TEST[1])
