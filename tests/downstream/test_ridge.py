"""Does the ridge probe predict what scikit-learn's RidgeClassifier predicts, and choose its penalty off the test images?"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pretint.data import class_balanced_subset
from pretint.downstream import linear_probe, ridge_probe
from pretint.runtime import ArgumentError, NotFiniteError

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(n: int, d: int = 24, classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes whose channels are correlated, far from zero and of very different scales."""
    fixed = torch.Generator().manual_seed(100)
    centres = 0.6 * torch.randn(classes, d, generator=fixed)
    mixing = torch.randn(d, d, generator=fixed) * torch.logspace(0, -2, d)
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return (centres[y] + torch.randn(n, d, generator=generator)) @ mixing + 5, y


def reference(x: torch.Tensor, y: torch.Tensor, alpha: float):
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha)).fit(x.double().numpy(), y.numpy())


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 30.0, 1e3, 1e5])
def test_ridge_probe_predicts_what_scikit_learn_predicts_on_digits(alpha):
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    fit, check = np.split(np.random.default_rng(0).permutation(len(x)), [1000])
    ours = ridge_probe(x[fit].float(), y[fit], x[check].float(), y[check], alphas=[alpha])
    model = reference(x[fit], y[fit], alpha)
    assert np.array_equal(ours.predictions, model.predict(x[check].numpy()))
    assert ours.top1 == pytest.approx(model.score(x[check].numpy(), y[check].numpy()), abs=1e-12)
    places = np.argsort(-model.decision_function(x[check].numpy()), axis=1)[:, :5]
    assert ours.top5 == pytest.approx((places == y[check].numpy()[:, None]).any(1).mean(), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(5000, 24), (60, 24), (60, 200), (24, 24)])
@pytest.mark.parametrize("alpha", [1e-2, 10.0, 1e4])
def test_it_does_so_with_more_images_than_channels_and_with_fewer(n, d, alpha):
    train, test = blobs(n, d, seed=1), blobs(500, d, seed=2)
    ours = ridge_probe(*train, *test, alphas=[alpha])
    assert np.array_equal(ours.predictions, reference(*train, alpha).predict(test[0].double().numpy()))


def test_two_classes_and_classes_left_out_are_those_of_scikit_learn():
    (x, y), (x_test, y_test) = blobs(400, classes=2, seed=1), blobs(300, classes=2, seed=2)
    expected = reference(x, y, 3.0).predict(x_test.double().numpy())
    assert np.array_equal(ridge_probe(x, y, x_test, y_test, alphas=[3.0]).predictions, expected)
    spread = ridge_probe(x, 3 * y + 1, x_test, 3 * y_test + 1, alphas=[3.0], classes=9)
    assert np.array_equal(spread.predictions, 3 * expected + 1)
    assert spread.confusion.shape == (9, 9)


def test_the_penalty_is_the_one_that_is_best_on_held_out_training_images():
    train, test = blobs(150, 60, seed=1), blobs(300, 60, seed=2)
    alphas = (0.1, 10.0, 100.0, 1e3, 1e5)
    result = ridge_probe(*train, *test, alphas=alphas, holdout=0.2, seed=3)
    held = np.isin(np.arange(150), class_balanced_subset(train[1], 0.2, 3).numpy())
    x, y = StandardScaler().fit_transform(train[0].double().numpy()), train[1].numpy()
    scores = {alpha: RidgeClassifier(alpha).fit(x[~held], y[~held]).score(x[held], y[held]) for alpha in alphas}
    assert len(set(scores.values())) > 2
    figures = result.per_layer["features"]
    assert figures["validation_top1"] == pytest.approx(max(scores.values()), abs=1e-12)
    assert scores[result.chosen["alpha"]] == max(scores.values())
    assert figures["alpha"] == result.chosen["alpha"]
    # and it is fitted again on all of them
    assert np.array_equal(result.predictions, reference(*train, figures["alpha"]).predict(test[0].double().numpy()))


def test_the_test_images_choose_nothing():
    train, (x, y) = blobs(500, seed=1), blobs(500, seed=2)
    halves = {"a": train[0][:, :12], "b": train[0][:, 12:]}
    right, wrong = (
        ridge_probe(halves, train[1], {"a": x[:, :12], "b": x[:, 12:]}, labels) for labels in (y, (y + 1) % 7)
    )
    assert (right.layer, right.chosen) == (wrong.layer, wrong.chosen)
    assert np.array_equal(right.predictions, wrong.predictions)
    assert right.top1 > 0.5 > wrong.top1


def test_every_depth_is_told_and_all_together():
    (x, y), (x_test, y_test) = blobs(2000, seed=1), blobs(2000, seed=2)
    noise = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    result = ridge_probe({"stage0": noise[:2000], "stage1": x}, y, {"stage0": noise[2000:], "stage1": x_test}, y_test)
    assert list(result.per_layer) == ["stage0", "stage1", "hypercolumn"]
    assert result.layer in ("stage1", "hypercolumn")
    assert result.top1 == result.per_layer[result.layer]["test_top1"]
    assert result.per_layer["stage0"]["test_top1"] == pytest.approx(1 / 7, abs=0.04)
    # blocks side by side are the same as their concatenation
    joined = ridge_probe(torch.cat([noise[:2000], x], 1), y, torch.cat([noise[2000:], x_test], 1), y_test)
    assert joined.per_layer["features"] == pytest.approx(result.per_layer["hypercolumn"])


def test_scales_dead_and_doubled_channels_change_nothing():
    train, test = blobs(600, seed=1), blobs(600, seed=2)
    scale = torch.logspace(-9, 9, 24)

    def widen(x):
        return torch.cat([x * scale, torch.zeros(len(x), 2), torch.full((len(x), 1), 0.1)], 1)

    plain, widened = ridge_probe(*train, *test), ridge_probe(widen(train[0]), train[1], widen(test[0]), test[1])
    assert plain.chosen == widened.chosen
    assert (plain.predictions == widened.predictions).mean() > 0.998
    doubled = ridge_probe(train[0].repeat(1, 2), train[1], test[0].repeat(1, 2), test[1], alphas=[1e-3])
    assert doubled.top1 == pytest.approx(ridge_probe(*train, *test, alphas=[1e-3]).top1, abs=0.005)


def test_what_a_constant_channel_keeps_of_rounding_is_not_read():
    train, test = blobs(600, seed=1), blobs(600, seed=2)

    def with_rounding(x, y):
        return torch.cat([x, 1 + torch.finfo(torch.float32).eps * (y % 2)[:, None]], 1)

    plain = ridge_probe(*train, *test)
    widened = ridge_probe(with_rounding(*train), train[1], with_rounding(*test), test[1])
    assert np.array_equal(plain.predictions, widened.predictions)


def test_one_image_twice_with_more_channels_than_images_does_no_harm():
    x, y = blobs(28, 50, seed=1)
    result = ridge_probe(x.repeat(2, 1)[:40], y.repeat(2)[:40], *blobs(200, 50, seed=2), alphas=[1.0])
    expected = reference(x.repeat(2, 1)[:40], y.repeat(2)[:40], 1.0).predict(blobs(200, 50, seed=2)[0].double().numpy())
    assert np.array_equal(result.predictions, expected)


def test_it_is_close_to_the_logistic_probe_and_holds_out_the_same_images():
    train, test = blobs(3000, seed=1), blobs(3000, seed=2)
    assert ridge_probe(*train, *test).top1 == pytest.approx(linear_probe(*train, *test).top1, abs=0.02)


def test_results_go_into_json_and_claim_no_probabilities():
    train, test = blobs(300, seed=1), blobs(300, seed=2)
    result = ridge_probe(*train, *test, seed=5)
    told = json.loads(json.dumps(result.to_dict()))
    assert told["seed"] == 5
    assert told["chosen"] == result.chosen
    assert "predictions" not in told
    assert result.probabilities is None


X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "says"),
    [
        ((X, Y, X, Y), {"alphas": []}, ArgumentError, "alphas: got"),
        ((X, Y, X, Y), {"alphas": [1.0, 0.0]}, ArgumentError, "alphas: got"),
        ((X, Y, X, Y), {"alphas": [float("nan")]}, ArgumentError, "alphas: got"),
        ((X, Y, X, Y), {"holdout": 1.0}, ArgumentError, "holdout: got"),
        ((X, Y[:-1], X, Y), {}, ArgumentError, "train_labels: got 39 for 40"),
        ((X, Y * 0, X, Y * 0), {}, ArgumentError, "only class 0"),
        ((X, Y, X, Y * 5), {}, ArgumentError, r"test_labels: classes \[5\]"),
        (({"deep": X}, Y, {"deep": X / 0}, Y), {}, NotFiniteError, "'deep'"),
    ],
)
def test_what_does_not_fit_is_told(arguments, settings, error, says):
    with pytest.raises(error, match=says):
        ridge_probe(*arguments, **settings)
