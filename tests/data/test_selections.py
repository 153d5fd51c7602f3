"""Ids that are computed are those that a stored tensor would hold."""

import pytest
import torch

from pretint.data import LazyIds, TensorSource, all_ids, spread_hold_out
from pretint.runtime.errors import ArgumentError


@pytest.mark.parametrize("fraction", [0.001, 0.02, 0.3, 0.5, 0.77, 0.999])
def test_kept_and_held_out_are_all_pictures_once_and_in_order(fraction):
    for n in (2, 3, 10, 97, 1000):
        kept, held = (ids[:] for ids in spread_hold_out(n, fraction, seed=n))
        assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(n))
        assert bool((kept.diff() > 0).all())
        assert bool((held.diff() > 0).all())
        assert len(held) == min(max(round(n * fraction), 1), n - 1)


def test_of_every_run_one_is_held_out_and_the_seed_chooses_which():
    held = torch.stack([spread_hold_out(1000, 0.02, seed)[1][:] for seed in range(200)])
    assert torch.equal(held // 50, torch.arange(20).expand(200, 20))
    counts = torch.bincount((held % 50).flatten(), minlength=50)
    # chi-square with 49 degrees of freedom: mean 49, standard deviation 10
    assert float(((counts - 80.0) ** 2 / 80).sum()) < 49 + 5 * 10


def test_a_hundred_million_are_divided_without_being_listed():
    n = 10**8
    kept, held = spread_hold_out(n, 0.02, seed=1)
    assert (len(kept), len(held)) == (98_000_000, 2_000_000)
    part = kept[50_000_000:50_000_980]
    assert bool((part.diff() > 0).all())
    near = held[(int(part[0]) // 50) : (int(part[-1]) // 50 + 1)]
    between = torch.arange(int(part[0]), int(part[-1]) + 1)
    assert torch.equal(torch.cat([part, near[(near > part[0]) & (near < part[-1])]]).sort().values, between)
    assert int(kept[torch.tensor([len(kept) - 1])]) >= n - 2


def test_impossible_shares_are_refused():
    for n, fraction in ((10, 0.0), (10, 1.0), (1, 0.5)):
        with pytest.raises(ArgumentError, match="fraction"):
            spread_hold_out(n, fraction, 0)


def test_computed_ids_are_sliced_split_and_counted_as_stored_ones():
    stored = torch.arange(0, 30, 3)
    lazy = LazyIds(10, lambda positions: 3 * positions)
    assert len(lazy) == 10
    assert torch.equal(lazy[2:7], stored[2:7])
    assert torch.equal(lazy[torch.tensor([9, 0])], stored[torch.tensor([9, 0])])
    assert [part.tolist() for part in lazy.split(4)] == [part.tolist() for part in stored.split(4)]
    assert torch.equal(all_ids(5)[:], torch.arange(5))


def test_a_source_in_memory_takes_computed_ids_too():
    source = TensorSource(torch.arange(10).view(-1, 1, 1, 1).expand(10, 3, 2, 2).to(torch.uint8), torch.arange(10))
    assert source.subset(LazyIds(3, lambda positions: 4 * positions)).labels.tolist() == [0, 4, 8]
