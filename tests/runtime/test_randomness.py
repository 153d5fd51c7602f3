"""Randomness as a function of (seed, epoch, id)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pretint.runtime.randomness import (
    MANY,
    KeyedPermutation,
    epoch_order,
    hash_bits,
    hash_permutation,
    hash_uniform,
    hash_uniforms,
    step_seed,
)

MASK = (1 << 64) - 1


def splitmix_finalizer(x: int) -> int:
    """The reference, on Python integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_bits_equal_a_plain_integer_computation():
    def key(seed: int, epoch: int, stream: int) -> int:
        golden = 0x9E3779B97F4A7C15
        value = splitmix_finalizer((seed + golden) & MASK)
        value = splitmix_finalizer(((value ^ epoch) + golden) & MASK)
        return splitmix_finalizer(((value ^ stream) + golden) & MASK)

    ids = [0, 1, 2, 50_000, 2**40]
    expected = [splitmix_finalizer(((i + 1) * 0x9E3779B97F4A7C15 + key(7, 3, 2)) & MASK) for i in ids]
    assert [int(x) & MASK for x in hash_bits(7, 3, torch.tensor(ids), stream=2)] == expected


def test_uniform_passes_kolmogorov_smirnov_for_many_keys():
    ids = torch.arange(20_000)
    p = [
        stats.kstest(hash_uniform(seed, epoch, ids, 1).numpy(), "uniform").pvalue
        for seed in range(5)
        for epoch in range(4)
    ]
    assert min(p) > 1e-4
    assert np.mean(p) > 0.2


def test_several_streams_at_once_are_the_streams_one_by_one():
    ids = torch.tensor([0, 3, 2**40])
    for seed, epoch in ((0, 0), (7, 3), (7, 4)):
        together = hash_uniforms(seed, epoch, ids, (1, 17, 5))
        assert torch.equal(together, torch.stack([hash_uniform(seed, epoch, ids, stream) for stream in (1, 17, 5)]))


@pytest.mark.parametrize("other", [(0, 0, 2), (0, 1, 1), (1, 0, 1)])
def test_streams_epochs_and_seeds_are_uncorrelated(other: tuple[int, int, int]):
    ids = torch.arange(100_000)
    seed, epoch, stream = other
    a, b = hash_uniform(0, 0, ids, 1), hash_uniform(seed, epoch, ids, stream)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.02


def test_neighbouring_ids_are_uncorrelated():
    u = hash_uniform(0, 0, torch.arange(100_000), 1)
    assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 0.02


def test_permutation_holds_every_id_once_and_changes_with_the_epoch():
    first, second = hash_permutation(0, 0, 1000), hash_permutation(0, 1, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert int((first == second).sum()) < 20


def test_step_seeds_differ_and_fit_the_generator():
    seeds = {step_seed(0, step) for step in range(1000)} | {step_seed(1, step) for step in range(1000)}
    assert len(seeds) == 2000
    torch.manual_seed(max(seeds))


def test_one_images_numbers_over_the_epochs_are_uniform_and_uncorrelated():
    """Kolmogorov–Smirnov and correlation the other way round: the same image, epoch after epoch."""
    u = torch.stack([hash_uniform(0, epoch, torch.arange(8), 1) for epoch in range(1000)])  # (epochs, images)
    assert min(stats.kstest(column.numpy(), "uniform").pvalue for column in u.T) > 1e-3
    lagged = [
        float(torch.corrcoef(torch.stack([column[lag:], column[:-lag]]))[0, 1]) for column in u.T for lag in (1, 2, 7)
    ]
    assert max(map(abs, lagged)) < 0.16  # five standard deviations of 1 / √1000
    between = torch.corrcoef(u.T) - torch.eye(8)
    assert float(between.abs().max()) < 0.16


def test_pairs_of_numbers_fill_the_square_evenly():
    """Correlation sees lines only: 16 × 16 cells of (flip, shift) and of neighbours pass a chi-square test too."""
    ids = torch.arange(256 * 200)
    a, b = hash_uniform(3, 5, ids, 1), hash_uniform(3, 5, ids, 2)
    for x, y in ((a, b), (a[1:], a[:-1]), (hash_uniform(0, 0, ids, 1), hash_uniform(0, 1, ids, 1))):
        counts = np.histogram2d(x.numpy(), y.numpy(), bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.flatten()).pvalue > 1e-4


def test_each_bit_is_a_fair_coin_and_changes_with_any_bit_of_the_id():
    bits = hash_bits(1, 2, torch.arange(20_000), stream=3)
    ones = torch.stack([(bits >> k) & 1 for k in range(64)]).float().mean(1)
    assert float((ones - 0.5).abs().max()) < 0.5 / 20_000**0.5 * 5
    for k in (0, 1, 17, 40):
        changed = bits ^ hash_bits(1, 2, torch.arange(20_000) ^ (1 << k), stream=3)
        share = torch.stack([(changed >> j) & 1 for j in range(64)]).float().mean(1)
        assert float((share - 0.5).abs().max()) < 0.03


def test_every_place_in_the_order_is_as_likely_for_every_image():
    places = torch.stack([torch.argsort(hash_permutation(0, epoch, 20)) for epoch in range(1000)])  # (epochs, images)
    for image in range(20):
        counts = torch.bincount(places[:, image], minlength=20).numpy()
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_hash_is_equal_to_the_bit_on_cuda():
    ids = torch.cat([torch.arange(10_000), torch.tensor([2**40, 2**62])])
    assert torch.equal(hash_bits(5, 6, ids.cuda(), 7).cpu(), hash_bits(5, 6, ids, 7))
    assert torch.equal(hash_uniform(5, 6, ids.cuda(), 7).cpu(), hash_uniform(5, 6, ids, 7))
    assert torch.equal(hash_permutation(5, 6, 50_000, "cuda").cpu(), hash_permutation(5, 6, 50_000))


def test_dropout_is_a_function_of_the_seed_and_the_step():
    """Dropout is reseeded by step: the mask of a step does not depend on what was drawn before it."""

    def mask(seed: int, step: int, drawn_before: int) -> torch.Tensor:
        torch.rand(drawn_before)
        torch.manual_seed(step_seed(seed, step))
        return torch.nn.functional.dropout(torch.ones(200), 0.5)

    assert torch.equal(mask(0, 7, 3), mask(0, 7, 1000))
    assert not torch.equal(mask(0, 7, 0), mask(0, 8, 0))
    assert not torch.equal(mask(0, 7, 0), mask(1, 7, 0))


def walked(seed: int, epoch: int, n: int, position: int) -> int:
    """The keyed permutation at one position, on Python integers: eight rounds over pairs (l, r), walked until inside."""
    golden = 0x9E3779B97F4A7C15

    def bits(x: int, stream: int) -> int:
        key = splitmix_finalizer((seed + golden) & MASK)
        key = splitmix_finalizer(((key ^ epoch) + golden) & MASK)
        key = splitmix_finalizer(((key ^ stream) + golden) & MASK)
        return splitmix_finalizer(((x + 1) * golden + key) & MASK)

    a = next(a for a in range(1, n + 1) if a * a >= n)
    b = -(-n // a)
    while True:
        left, right = divmod(position, b)
        for number in range(0, 8, 2):
            left = (left + (bits(right, 0x4F00 + number) >> 1) % a) % a
            right = (right + (bits(left, 0x4F00 + number + 1) >> 1) % b) % b
        position = left * b + right
        if position < n:
            return position


@pytest.mark.parametrize("n", [1, 2, 3, 97, 1000])
def test_the_keyed_permutation_is_the_network_of_the_paper_on_plain_integers(n: int):
    assert KeyedPermutation(7, 3, n)[:].tolist() == [walked(7, 3, n, position) for position in range(n)]


def test_the_keyed_permutation_holds_every_id_once_for_every_small_number():
    for n in range(1, 150):
        assert torch.equal(KeyedPermutation(n, 5, n)[:].sort().values, torch.arange(n)), n


def test_the_keyed_permutation_holds_every_id_once_across_its_blocks():
    order = KeyedPermutation(1, 2, 200_001)
    pieces = torch.cat([order[start : start + 1000] for start in range(0, 200_001, 1000)])
    assert torch.equal(pieces.sort().values, torch.arange(200_001))
    assert torch.equal(order[65_000:131_500], pieces[65_000:131_500])
    assert torch.equal(order[70_000:70_100:7], pieces[70_000:70_100:7])
    assert len(order[5:5]) == len(order[300_000:]) == 0


def test_the_keyed_permutation_of_a_hundred_million_is_even_and_keeps_no_order():
    n, m = 10**8, 200_000
    order = KeyedPermutation(0, 0, n)
    for part in (order[:m], order[n - m :], order.at(torch.arange(0, n, n // m))):
        assert len(part.unique()) == len(part)
        assert stats.kstest(part.double().numpy() / n, "uniform").pvalue > 1e-4
        # neighbours' ids are as far apart as independent ones: |u − v| has the distribution 1 − (1 − d)²
        gaps = part.diff().abs().double().numpy() / n
        assert stats.kstest(gaps[::2], lambda d: 1 - (1 - d) ** 2).pvalue > 1e-4
        ranks = torch.stack([torch.arange(len(part)).double(), part.double()])
        assert abs(float(torch.corrcoef(ranks)[0, 1])) < 0.015
    kept = sum(table.numel() for table in order._tables)
    assert kept < 100_000  # an index has 10⁸


def test_each_place_of_the_keyed_permutation_has_each_id_equally_often_over_the_epochs():
    orders = torch.stack([KeyedPermutation(0, epoch, 12)[:] for epoch in range(1000)])
    for place in (0, 5, 11):
        counts = torch.bincount(orders[:, place], minlength=12)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    pairs = torch.bincount(orders[:, 3] * 12 + orders[:, 4], minlength=144).view(12, 12)
    assert stats.chisquare(pairs[~torch.eye(12, dtype=torch.bool)].numpy()).pvalue > 1e-4


def test_seeds_and_epochs_give_keyed_permutations_that_have_nothing_in_common():
    base = KeyedPermutation(0, 0, 50_000)[:]
    for seed, epoch in ((0, 1), (1, 0), (2**31, 7)):
        assert int((KeyedPermutation(seed, epoch, 50_000)[:] == base).sum()) < 8  # one is expected


def test_the_order_of_up_to_a_hundred_and_thirty_thousand_is_what_it_was():
    assert torch.equal(epoch_order(4, 2, MANY), hash_permutation(4, 2, MANY))
    assert isinstance(epoch_order(4, 2, MANY + 1), KeyedPermutation)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_keyed_permutation_is_the_same_on_a_gpu():
    there, here = KeyedPermutation(3, 4, 300_000, "cuda")[:], KeyedPermutation(3, 4, 300_000)[:]
    assert torch.equal(there.cpu(), here)
