"""Randomness as a function of (seed, epoch, id)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pretint.runtime.randomness import hash_bits, hash_permutation, hash_uniform, step_seed

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
