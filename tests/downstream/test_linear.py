"""Does the linear probe find what logistic regression finds, and does it keep away from the test images?"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from pretint.downstream import linear_probe
from pretint.downstream.linear import linear_classifier
from pretint.runtime import ArgumentError, NotFiniteError, UnknownNameError


def overlapping(n: int, classes: int = 8, d: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian classes that overlap, seen through a strongly correlating map, as channels of an encoder are."""
    fixed = torch.Generator().manual_seed(100)
    centres = 0.6 * torch.randn(classes, d, generator=fixed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=fixed)).Q
    mixing = rotation * torch.logspace(0, -2.5, d) @ torch.linalg.qr(torch.randn(d, d, generator=fixed)).Q
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    x = (centres[y] + torch.randn(n, d, generator=generator)) @ mixing + 5
    return x, y


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def train():
    return overlapping(4000, seed=1)


@pytest.fixture(scope="module")
def test():
    return overlapping(4000, seed=2)


def reference(train, test, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=10_000, tol=1e-6).fit(train, test)


def test_linear_probe_matches_scikit_learn_on_overlapping_classes(train, test):
    scaler = StandardScaler().fit(train[0].numpy())
    model = reference(scaler.transform(train[0].numpy()), train[1].numpy(), 1e3)
    theirs = model.score(scaler.transform(test[0].numpy()), test[1].numpy())
    ours = linear_probe(*train, *test)
    assert 0.5 < theirs < 0.95
    assert ours.top1 == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
@pytest.mark.parametrize("decay", [1e-1, 1e-2, 1e-3])
def test_linear_probe_matches_scikit_learn_on_digits_for_the_same_penalty(decay, solver):
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    fit, check = order[:1000], order[1000:]
    scaler = StandardScaler().fit(x[fit])
    model = reference(scaler.transform(x[fit]), y[fit], 1 / (decay * len(fit)))
    features, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    ours = linear_probe(
        features[fit], labels[fit], features[check], labels[check], weight_decays=[decay], solver=solver
    )
    assert ours.top1 == pytest.approx(model.score(scaler.transform(x[check]), y[check]), abs=0.005)
    assert (ours.predictions == model.predict(scaler.transform(x[check]))).mean() > 0.99
    expected = top_k_accuracy_score(y[check], model.predict_proba(scaler.transform(x[check])), k=5)
    assert ours.top5 == pytest.approx(expected, abs=0.004)
    assert np.abs(ours.probabilities.numpy() - model.predict_proba(scaler.transform(x[check]))).mean() < 0.002


def test_linear_probe_matches_scikit_learn_on_digits_with_the_default_grid():
    x, y = load_digits(return_X_y=True)
    fit, check = np.arange(1000), np.arange(1000, len(x))
    scaler = StandardScaler().fit(x[fit])
    scores = [
        reference(scaler.transform(x[fit]), y[fit], c).score(scaler.transform(x[check]), y[check])
        for c in (0.01, 0.1, 1, 10)
    ]
    ours = linear_probe(torch.tensor(x[fit]).float(), y[fit], torch.tensor(x[check]).float(), y[check])
    assert min(scores) - 0.005 <= ours.top1 <= max(scores) + 0.005


def test_a_class_hidden_along_a_faint_axis_is_found():
    """Two nearly equal channels, and only their small difference tells the class: plain descent does not get there."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3000) % 2
    common = torch.randn(3000, 1, generator=generator)
    faint = 0.01 * ((2.0 * y[:, None] - 1) + 0.5 * torch.randn(3000, 1, generator=generator))
    x = torch.cat([common + faint, common - faint], 1)
    assert linear_probe(x[:2000], y[:2000], x[2000:], y[2000:]).top1 > 0.96


def test_the_grid_finds_the_best_of_its_heads_trained_alone(train, test):
    rates, decays = (0.01, 0.3), (1e-4, 3.0)
    alone = {
        (rate, decay): linear_probe(*train, *test, learning_rates=[rate], weight_decays=[decay], epochs=3)
        for rate in rates
        for decay in decays
    }
    together = linear_probe(*train, *test, learning_rates=rates, weight_decays=decays, epochs=3)
    validation = {setting: result.per_layer["features"]["validation_top1"] for setting, result in alone.items()}
    assert together.per_layer["features"]["validation_top1"] == max(validation.values())
    assert max(validation.values()) > min(validation.values()) + 0.02
    chosen = (together.chosen["learning_rate"], together.chosen["weight_decay"])
    assert validation[chosen] == max(validation.values())
    assert np.array_equal(together.predictions, alone[chosen].predictions)


def test_every_depth_is_told_and_the_informative_one_wins(train, test):
    noise = torch.randn(8000, 5, generator=torch.Generator().manual_seed(0))
    result = linear_probe(
        {"stage0": noise[:4000], "stage1": train[0]}, train[1], {"stage0": noise[4000:], "stage1": test[0]}, test[1]
    )
    assert list(result.per_layer) == ["stage0", "stage1", "hypercolumn"]
    assert result.layer in ("stage1", "hypercolumn")
    assert result.top1 == result.per_layer[result.layer]["test_top1"]
    assert result.per_layer["stage0"]["test_top1"] == pytest.approx(1 / 8, abs=0.03)
    assert result.per_layer["hypercolumn"]["test_top1"] == pytest.approx(
        result.per_layer["stage1"]["test_top1"], abs=0.02
    )


def test_layers_of_one_pooling_are_joined_with_each_other_only(train, test):
    names = ("stage0", "stage1", "stage0/2x2", "stage1/2x2", "stage0/4x4")
    sides = [{name: x[:, i : i + 2] for i, name in enumerate(names)} for x in (train[0], test[0])]
    result = linear_probe(sides[0], train[1], sides[1], test[1], learning_rates=[0.3], weight_decays=[1e-3], epochs=1)
    assert list(result.per_layer) == [*names, "hypercolumn", "hypercolumn/2x2"]
    apart = linear_probe(
        {name: sides[0][name] for name in names[2:4]}, train[1], {name: sides[1][name] for name in names[2:4]}, test[1],
        learning_rates=[0.3], weight_decays=[1e-3], epochs=1,
    )  # fmt: skip
    assert result.per_layer["hypercolumn/2x2"] == apart.per_layer["hypercolumn/2x2"]


def test_all_layers_together_use_what_no_single_one_holds():
    bits = torch.randint(0, 2, (4000, 2), generator=torch.Generator().manual_seed(0))
    y = bits[:, 0] + 2 * bits[:, 1]
    x = {f"stage{i}": bits[:, i : i + 1] + 0.1 * torch.randn(4000, 3) for i in range(2)}
    result = linear_probe(
        {name: part[:2000] for name, part in x.items()},
        y[:2000],
        {name: part[2000:] for name, part in x.items()},
        y[2000:],
    )
    assert result.layer == "hypercolumn"
    assert result.top1 > 0.99
    assert result.per_layer["stage0"]["test_top1"] < 0.6


def test_the_test_images_choose_nothing(train, test):
    layers, wrong = {"a": train[0][:, :12], "b": train[0][:, 12:]}, (test[1] + 1) % 8
    results = [
        linear_probe(layers, train[1], {"a": test[0][:, :12], "b": test[0][:, 12:]}, labels)
        for labels in (test[1], wrong)
    ]
    assert results[0].layer == results[1].layer
    assert np.array_equal(results[0].predictions, results[1].predictions)
    for layer, figures in results[0].per_layer.items():
        other = results[1].per_layer[layer]
        assert {k: v for k, v in figures.items() if k != "test_top1"} == {
            k: v for k, v in other.items() if k != "test_top1"
        }
        assert figures["test_top1"] > other["test_top1"]


def test_the_winner_is_trained_on_the_held_out_images_too():
    x, y = load_digits(return_X_y=True)
    scaler = StandardScaler().fit(x[:100])
    model = reference(scaler.transform(x[:100]), y[:100], 1.0)
    ours = linear_probe(
        torch.tensor(x[:100]).float(),
        y[:100],
        torch.tensor(x[100:]).float(),
        y[100:],
        weight_decays=[0.01],
        holdout=0.5,
    )
    # A model fitted on only the 50 that were not held out predicts the same for 87 %.
    assert (ours.predictions == model.predict(scaler.transform(x[100:]))).mean() > 0.98


def test_confusion_and_predictions_agree_with_scikit_learn(train, test):
    result = linear_probe(*train, *test, epochs=2)
    assert np.array_equal(result.confusion, confusion_matrix(test[1].numpy(), result.predictions, labels=range(8)))
    assert result.confusion.dtype == result.predictions.dtype == np.int64
    assert result.top1 == pytest.approx(np.trace(result.confusion) / 4000)


@pytest.mark.parametrize(("classes", "given"), [(5, False), (6, True)])
def test_top5_needs_more_than_five_classes(classes, given):
    x, y = overlapping(600, classes)
    result = linear_probe(x[:400], y[:400], x[400:], y[400:], epochs=2)
    assert (result.top5 is not None) == given


def test_results_are_fixed_by_the_seed_and_go_into_json(train, test):
    first, again, other = (linear_probe(*train, *test, epochs=2, seed=seed) for seed in (3, 3, 4))
    assert first.to_dict() == again.to_dict()
    assert np.array_equal(first.predictions, again.predictions)
    assert not np.array_equal(first.predictions, other.predictions)
    told = json.loads(json.dumps(first.to_dict()))
    assert told["top1"] == first.top1
    assert told["seed"] == 3
    assert told["confusion"] == first.confusion.tolist()
    assert told["chosen"] == {k: told["per_layer"]["features"][k] for k in ("learning_rate", "weight_decay")}


def test_the_scale_of_channels_does_not_matter(train, test):
    scale = torch.logspace(-9, 9, 24)
    plain, scaled = linear_probe(*train, *test), linear_probe(train[0] * scale, train[1], test[0] * scale, test[1])
    assert (plain.predictions == scaled.predictions).mean() > 0.99


def test_dead_and_doubled_channels_do_no_harm(train, test):
    def widen(x):
        return torch.cat([x, x, torch.zeros(len(x), 2), torch.full((len(x), 1), 0.1)], 1)

    plain, widened = linear_probe(*train, *test), linear_probe(widen(train[0]), train[1], widen(test[0]), test[1])
    assert widened.top1 == pytest.approx(plain.top1, abs=0.005)


def test_few_labels_are_enough_to_probe():
    x, y = overlapping(2000, 4)
    few = torch.cat([torch.nonzero(y[:500] == label)[:5, 0] for label in range(4)])
    result = linear_probe(x[few], y[few], x[500:], y[500:])
    assert result.top1 > 0.4


def test_labels_may_be_arrays_of_any_integer_type_and_leave_classes_out(train, test):
    keep, keep_test = train[1] != 2, test[1] != 2
    a = linear_probe(
        train[0][keep],
        train[1][keep].numpy().astype(np.uint8),
        test[0][keep_test],
        test[1][keep_test].numpy(),
        epochs=2,
    )
    b = linear_probe(train[0][keep], train[1][keep], test[0][keep_test], test[1][keep_test], epochs=2)
    assert a.top1 == b.top1
    assert a.confusion[:, 2].sum() == 0
    wider = linear_probe(train[0][keep], train[1][keep], test[0][keep_test], test[1][keep_test], epochs=2, classes=11)
    assert wider.confusion.shape == (11, 11)


X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
BAD = torch.where(torch.arange(40)[:, None] == 7, float("nan"), X)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((X, Y[:-1], X, Y), ArgumentError, "train_labels: got 39 for 40"),
        ((X, Y, X, Y[:-1]), ArgumentError, "test_labels: got 39 for 40"),
        ((X, Y * 0 + 3, X, Y), ArgumentError, "only class 3"),
        ((X, Y, X, Y * 5), ArgumentError, r"test_labels: classes \[5\]"),
        ((X, Y - 1, X, Y - 1), ArgumentError, "from -1 to 0"),
        ((X, Y.float(), X, Y), ArgumentError, "one integer per image"),
        (({"a": X}, Y, {"a": X[:, :2]}, Y), ArgumentError, "widths"),
        (({"a": X}, Y, {"b": X}, Y), ArgumentError, "layers"),
        (({"hypercolumn": X}, Y, {"hypercolumn": X}, Y), ArgumentError, "'hypercolumn'"),
        (({}, Y, {}, Y), ArgumentError, "one or more"),
        (({"stage0": X, "stage1": BAD}, Y, {"stage0": X, "stage1": X}, Y), NotFiniteError, "train_features.*'stage1'"),
        (({"stage0": X, "stage1": X}, Y, {"stage0": X, "stage1": BAD}, Y), NotFiniteError, "test_features.*'stage1'"),
        ((X[:3], torch.tensor([0, 0, 1]), X, Y), ArgumentError, "class 1 has 1 image"),
    ],
)
def test_input_that_does_not_fit_is_told(arguments, error, says):
    with pytest.raises(error, match=says):
        linear_probe(*arguments)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": [0.1, -1.0]}, "learning_rates"),
        ({"weight_decays": [-1e-3]}, "weight_decays"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"holdout": 1.0}, "holdout: got 1.0"),
        ({"classes": 1}, "from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_told(setting, says):
    with pytest.raises(ArgumentError, match=says):
        linear_probe(X, Y, X, Y, **setting)


def test_heads_that_all_diverge_are_an_error_and_one_sound_head_is_enough(train, test):
    with pytest.raises(NotFiniteError, match="'features'"):
        linear_probe(*train, *test, learning_rates=[1e30], epochs=2)
    assert linear_probe(*train, *test, learning_rates=[1e30, 0.3], epochs=2).chosen["learning_rate"] == 0.3


def test_lbfgs_chooses_a_weight_decay_and_finds_scikit_learns_probabilities_for_it():
    train, test = overlapping(600, seed=1), overlapping(300, seed=2)
    ours = linear_probe(*train, *test, solver="lbfgs", weight_decays=[1e-1, 1e-2, 1e-3])
    assert set(ours.chosen) == {"weight_decay"}
    scaler = StandardScaler().fit(train[0].numpy())
    c = 1 / (ours.chosen["weight_decay"] * 600)
    theirs = reference(scaler.transform(train[0].numpy()), train[1].numpy(), c)
    wanted = theirs.predict_proba(scaler.transform(test[0].numpy()))
    assert np.abs(ours.probabilities.numpy() - wanted).max() < 2e-3


def test_an_unknown_solver_comes_with_the_known_ones(train, test):
    with pytest.raises(UnknownNameError, match="lbfgs"):
        linear_probe(*train, *test, solver="lbgfs")


def test_the_classifier_of_raw_features_says_what_the_probe_says():
    train, test = overlapping(600, seed=1), overlapping(300, seed=2)
    weight, bias = linear_classifier(*train, 8, seed=3)
    assert (weight.shape, bias.shape) == ((8, 24), (8,))
    probed = linear_probe(*train, *test, seed=3)
    ours = torch.softmax(test[0] @ weight.T + bias, 1)
    assert torch.allclose(ours, probed.probabilities, atol=5e-3)
