"""How is randomness a function of (seed, epoch, image id), so that resume is exact and any batch size sees the same pictures?

An integer hash in int64 tensor code (wrap-around multiplication), equal to the bit on every device. The mixing steps are the
finalizer of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", section 4).
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as an unsigned value."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLY_1, _MULTIPLY_2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix_int(value: int) -> int:
    """SplitMix64's finalizer on one Python integer: the key of (seed, epoch, stream) is made on the host."""
    value = (value + _GOLDEN) & ((1 << 64) - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & ((1 << 64) - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & ((1 << 64) - 1)
    return value ^ (value >> 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: int64's own shift copies the sign, which the mask removes again."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def hash_bits(seed: int, epoch: int, ids: Int64[Tensor, " n"], stream: int) -> Int64[Tensor, " n"]:
    """64 well-mixed bits per image, a pure function of its arguments.

    Args:
        seed, epoch: any integers.
        ids: image ids (n,), int64.
        stream: which use of randomness this is (order, flip, crop …): different streams are independent.
    """
    return _mixed((ids + 1) * _signed(_GOLDEN) + _key(seed, epoch, stream))


def _key(seed: int, epoch: int, stream: int) -> int:
    return _signed(_mix_int(_mix_int(_mix_int(seed) ^ epoch) ^ stream))


def _mixed(x: Int64[Tensor, ...]) -> Int64[Tensor, ...]:
    """SplitMix64's finalizer."""
    x = (x ^ _shift_right(x, 30)) * _MULTIPLY_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLY_2
    return x ^ _shift_right(x, 31)


def hash_uniform(seed: int, epoch: int, ids: Int64[Tensor, " n"], stream: int) -> Float[Tensor, " n"]:
    """A float32 in [0, 1) per image, from the top 24 bits of :func:`hash_bits`.

    >>> u = hash_uniform(0, 3, torch.arange(4), stream=1)
    >>> bool(((u >= 0) & (u < 1)).all())
    True
    """
    return _top_bits(hash_bits(seed, epoch, ids, stream))


def hash_uniforms(seed: int, epoch: int, ids: Int64[Tensor, " n"], streams: tuple[int, ...]) -> Float[Tensor, "s n"]:
    """:func:`hash_uniform` of several streams, to the bit, a row each; on a GPU with the launches of one stream alone."""
    keys = _keys(seed, epoch, streams, ids.device)
    return _top_bits(_mixed((ids + 1) * _signed(_GOLDEN) + keys[:, None]))


@functools.lru_cache(maxsize=64)
def _keys(seed: int, epoch: int, streams: tuple[int, ...], device: torch.device) -> Int64[Tensor, " s"]:
    """Kept for the next batch of the epoch: copying them to a GPU anew in each step would make each step wait for it."""
    return torch.tensor([_key(seed, epoch, stream) for stream in streams], device=device)


def _top_bits(x: Int64[Tensor, ...]) -> Float[Tensor, ...]:
    """The top 24 bits of each number, in [0, 1)."""
    return _shift_right(x, 40).to(torch.float32) / (1 << 24)


def step_seed(seed: int, step: int) -> int:
    """The seed of the generator that dropout and its kin use in a step, so that a resumed run draws the same masks."""
    return _mix_int(_mix_int(seed) ^ step) >> 1


def hash_permutation(seed: int, epoch: int, n: int, device: torch.device | str = "cpu") -> Int64[Tensor, " n"]:
    """The order in which `n` images are seen in an epoch, a pure function of (seed, epoch).

    Sorted by a 64-bit hash; two equal hashes keep the order of their ids (stable sort).
    """
    keys = hash_bits(seed, epoch, torch.arange(n, device=device), stream=0)
    return torch.argsort(keys, stable=True)
