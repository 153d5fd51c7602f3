"""Held-out and labelled subsets are fixed by the seed, disjoint, and fair to every class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretint.data import TensorSource, class_balanced_subset, few_shot_subset, hold_out
from pretint.runtime.errors import ArgumentError, DataError


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


@pytest.mark.parametrize("per_class", [1, 5, 25])
def test_few_shot_subsets_hold_exactly_so_many_of_every_class(per_class):
    labels = torch.tensor([3] * 25 + [0] * 400 + [7] * 60)[
        torch.randperm(485, generator=torch.Generator().manual_seed(0))
    ]
    ids = few_shot_subset(labels, per_class, seed=0)
    assert labels[ids].bincount().tolist() == [per_class, 0, 0, per_class, 0, 0, 0, per_class]
    assert ids.tolist() == sorted(set(ids.tolist()))


def test_few_shots_are_fixed_by_the_seed_and_a_part_of_more_shots():
    labels = torch.arange(1000) % 10
    few, again, more, other = (
        set(few_shot_subset(labels, count, seed).tolist()) for count, seed in ((5, 1), (5, 1), (25, 1), (5, 2))
    )
    assert few == again < more
    assert len(few & other) < 10  # by chance 2 or 3 of 50
    assert few == set(class_balanced_subset(labels, 0.05, seed=1).tolist())


def test_a_class_with_too_few_pictures_is_named():
    labels = torch.tensor([0] * 30 + [4] * 9)
    with pytest.raises(DataError, match="10 pictures of each class are asked for, but class 4 has 9"):
        few_shot_subset(labels, 10, seed=0)
    with pytest.raises(ArgumentError, match="per_class: got 0"):
        few_shot_subset(labels, 0, seed=0)
    with pytest.raises(ArgumentError, match="there are none"):
        few_shot_subset(labels[:0], 5, seed=0)
