"""Fine-tuning: learns what can be learnt, keeps the given encoder as it was, uses just the labels it was allowed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from pretint.backbones import create_backbone
from pretint.data import TensorSource
from pretint.downstream import fine_tune
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, DataError

CPU = Compute(torch.device("cpu"), bf16=False)


def stripes(n: int, seed: int, labelled: bool = True) -> TensorSource:
    """Three classes that grey shows and any convolution sees: horizontal stripes, vertical stripes, none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    wave = 60.0 * (torch.arange(16) % 4 < 2) - 30.0
    patterns = torch.stack([wave.view(16, 1).expand(16, 16), wave.view(1, 16).expand(16, 16), torch.zeros(16, 16)])
    base = torch.randint(60, 190, (n, 3, 1, 1), generator=generator)
    noise = torch.randint(-20, 20, (n, 3, 16, 16), generator=generator)
    images = (base + patterns[labels][:, None] + noise).clamp(0, 255).to(torch.uint8)
    names = ("horizontal", "vertical", "plain")
    return TensorSource(images, labels if labelled else None, names if labelled else None, name="stripes", split="x")


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_backbone("pretint_cnn", width=8, depth=3)


def tune(encoder: torch.nn.Module, **options):
    defaults = {"epochs": 4, "min_steps": 60, "batch_size": 32, "compute": CPU, "quiet": True, "learning_rate": 5e-3}
    return fine_tune(encoder, stripes(240, 1), stripes(90, 2), **(defaults | options))


def test_separable_classes_are_learnt_and_the_given_encoder_stays_as_it_was(encoder: torch.nn.Module):
    before = copy.deepcopy(encoder.state_dict())
    result = tune(encoder)
    assert result.top1 > 0.9
    assert result.top5 is None
    assert result.top1 == pytest.approx(np.trace(result.confusion) / 90)
    assert result.confusion.sum(1).tolist() == [30, 30, 30]
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert encoder.num_classes == 0


def test_only_the_share_of_labels_is_used_balanced_and_fixed_by_the_seed(encoder: torch.nn.Module):
    first, again, other = (tune(encoder, labels=0.2, epochs=1, min_steps=1, seed=seed) for seed in (3, 3, 4))
    labels = stripes(240, 1).labels[torch.from_numpy(first.label_ids)]
    assert torch.bincount(labels).tolist() == [16, 16, 16]
    assert np.array_equal(first.label_ids, again.label_ids)
    assert not np.array_equal(first.label_ids, other.label_ids)
    assert first.top1 == again.top1


def test_few_labels_are_given_enough_steps(encoder: torch.nn.Module):
    result = tune(encoder, labels=0.2, epochs=1, min_steps=50)
    # 48 labelled images, 42 trained on, batches of 2: 21 steps an epoch, so 3 epochs make 50 steps
    assert result.epochs == 3


def test_patience_ends_before_the_last_epoch(encoder: torch.nn.Module):
    result = tune(
        encoder, epochs=40, learning_rate=1.0, patience=1, min_steps=1
    )  # too fast for the loss to fall for long
    assert result.epochs < 40
    assert result.epochs - result.best_epoch == 1


def test_discriminative_rates_move_early_layers_less(encoder: torch.nn.Module, monkeypatch: pytest.MonkeyPatch):
    from pretint.downstream import finetune

    seen: list[dict[int, float]] = []
    original = torch.optim.AdamW

    def spy(groups, **options):
        seen.append({id(p): group["lr"] for group in groups for p in group["params"]})
        return original(groups, **options)

    monkeypatch.setattr(finetune.torch.optim, "AdamW", spy)
    model = tune(encoder, epochs=1, min_steps=1, layer_decay=0.5).model
    rates = [
        seen[0][id(p)]
        for p in (next(model.stages[0].parameters()), next(model.stages[2].parameters()), model.head.fc.weight)
    ]
    assert rates[0] < rates[1] < rates[2] == 5e-3


def test_probe_first_begins_where_the_linear_probe_ended(encoder: torch.nn.Module):
    train, test = stripes(240, 1), stripes(90, 2)
    encoder = copy.deepcopy(encoder).train()
    with torch.no_grad():
        for _ in range(
            60
        ):  # settled statistics of batch norm, which hardly move while the classifier stays as it began
            encoder(encoder.preprocess(train.images))
    options = {"epochs": 1, "min_steps": 1, "learning_rate": 1e-9, "augment": "none", "compute": CPU, "quiet": True}
    fresh, probed = (fine_tune(encoder, train, test, probe_first=first, **options) for first in (False, True))
    with torch.no_grad():
        features = [encoder.eval()(encoder.preprocess(source.images)) for source in (train, test)]
    scaler = StandardScaler().fit(features[0].numpy())
    model = LogisticRegression(C=1.0, max_iter=5000).fit(scaler.transform(features[0].numpy()), train.labels.numpy())
    reference = model.score(scaler.transform(features[1].numpy()), test.labels.numpy())
    assert probed.top1 >= reference - 0.08  # of 90 images: at most 7 judged in another way
    assert fresh.top1 < reference - 0.15  # hardly trained: a fresh classifier still guesses


def test_probabilities_are_those_of_the_tested_classifier(encoder: torch.nn.Module):
    result = tune(encoder, epochs=1, min_steps=1)
    assert result.probabilities.shape == (90, 3)
    assert torch.allclose(result.probabilities.sum(1), torch.ones(90))
    right = (result.probabilities.argmax(1) == stripes(90, 2).labels).double().mean()
    assert result.top1 == pytest.approx(float(right))
    assert "probabilities" not in result.to_dict()


def test_one_class_alone_is_refused(encoder: torch.nn.Module):
    source = stripes(90, 1)
    alone = source.subset(torch.nonzero(source.labels == 0).flatten())
    with pytest.raises(DataError, match="two or more classes"):
        fine_tune(encoder, alone, alone, compute=CPU, quiet=True)


@pytest.mark.parametrize("labels", [0.0, -0.1, 1.5])
def test_a_share_of_labels_out_of_range_is_refused(encoder: torch.nn.Module, labels: float):
    with pytest.raises(ArgumentError, match="labels"):
        tune(encoder, labels=labels)


def test_data_without_labels_is_refused(encoder: torch.nn.Module):
    with pytest.raises(DataError, match="labels"):
        fine_tune(encoder, stripes(60, 1, labelled=False), stripes(30, 2), compute=CPU, quiet=True)


def test_the_confusion_counts_are_scikit_learns():
    from pretint.downstream.scores import confusion_counts

    generator = torch.Generator().manual_seed(0)
    true, predicted = (torch.randint(0, 7, (500,), generator=generator) for _ in range(2))
    assert np.array_equal(confusion_counts(predicted, true, 7), confusion_matrix(true, predicted, labels=range(7)))
