"""Held-out and labelled subsets are fixed by the seed, disjoint, and fair to every class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretint.data import TensorSource, class_balanced_subset, hold_out
from pretint.runtime.errors import ArgumentError


def _source(labels: torch.Tensor | None, n: int) -> TensorSource:
    return TensorSource(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), labels)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.01, 0.99), st.integers(0, 5), st.booleans())
def test_hold_out_divides_all_ids_into_two_parts_that_are_never_empty(labels, fraction, seed, labelled):
    train, held = hold_out(_source(torch.tensor(labels) if labelled else None, len(labels)), fraction, seed)
    assert len(train) >= 1
    assert len(held) >= 1
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert train.tolist() == sorted(train.tolist())


def test_hold_out_takes_the_same_share_of_every_class():
    labels = torch.tensor([0] * 100 + [1] * 300 + [2] * 20)[torch.randperm(420)]
    _, held = hold_out(_source(labels, 420), 0.1, seed=3)
    assert labels[held].bincount().tolist() == [10, 30, 2]


def test_another_seed_holds_out_others_and_the_same_seed_the_same():
    source = _source(None, 1000)
    first, again, other = (hold_out(source, 0.1, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert len(set(first.tolist()) & set(other.tolist())) < 30  # by chance 10 of 100


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_zero_to_one_cannot_be_held_out(fraction):
    with pytest.raises(ArgumentError, match="fraction"):
        hold_out(_source(None, 10), fraction, 0)


def test_one_picture_cannot_be_divided():
    with pytest.raises(ArgumentError, match="at least 2"):
        hold_out(_source(None, 1), 0.5, 0)


@pytest.mark.parametrize(("fraction", "each"), [(0.01, 5), (0.1, 50), (1.0, 500)])
def test_labels_are_kept_equally_in_every_class(fraction, each):
    labels = torch.arange(5000) % 10
    ids = class_balanced_subset(labels, fraction, seed=0)
    assert labels[ids].bincount().tolist() == [each] * 10
    assert len(set(ids.tolist())) == len(ids)


def test_fewer_labels_are_a_part_of_more_labels():
    labels = torch.randint(0, 7, (3000,))
    few, more = (set(class_balanced_subset(labels, share, seed=2).tolist()) for share in (0.02, 0.3))
    assert few < more


def test_a_rare_class_keeps_at_least_one_label():
    labels = torch.tensor([0] * 1000 + [1])
    assert 1000 in class_balanced_subset(labels, 0.01, seed=0).tolist()


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, float("nan")])
def test_label_shares_outside_zero_to_one_are_refused(fraction):
    with pytest.raises(ArgumentError, match=r"\(0, 1\]"):
        class_balanced_subset(torch.zeros(5, dtype=torch.int64), fraction, 0)
