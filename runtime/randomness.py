"""How is randomness a function of (seed, epoch, image id), so that resume is exact and any batch size sees the same pictures?

An integer hash in int64 tensor code (wrap-around multiplication), equal to the bit on every device. The mixing steps are the
finalizer of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", section 4).
"""

from __future__ import annotations

import functools
import math

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


# From so many images on, an order is computed piece by piece instead of being sorted and kept: about 1 MB of ids.
MANY = 1 << 17
_ROUNDS = 8
_FIRST_ROUND = 0x4F00  # stream number of the first round
_BLOCK = 1 << 16


def step_seed(seed: int, step: int) -> int:
    """The seed of the generator that dropout and its kin use in a step, so that a resumed run draws the same masks."""
    return _mix_int(_mix_int(seed) ^ step) >> 1


def hash_permutation(seed: int, epoch: int, n: int, device: torch.device | str = "cpu") -> Int64[Tensor, " n"]:
    """The order in which `n` images are seen in an epoch, a pure function of (seed, epoch).

    Sorted by a 64-bit hash; two equal hashes keep the order of their ids (stable sort).
    """
    keys = hash_bits(seed, epoch, torch.arange(n, device=device), stream=0)
    return torch.argsort(keys, stable=True)


class KeyedPermutation:
    """The order in which very many images are seen in an epoch: a bijection of 0 … n − 1 that is computed where it is asked for.

    A Feistel network over pairs (l, r) of Z_a × Z_b with a·b just above n; what falls outside is sent through again until it
    falls inside, which ends because a bijection of a finite set comes back (Black & Rogaway 2002, "Ciphers with arbitrary finite
    domains", section 5 for the network and section 4 for walking the cycle). Each round's function is a table of hashes, so
    that what is kept grows with the square root of n: 640 kB at 10⁸ images, whose ids alone would be 800 MB. Integer
    arithmetic alone, so equal on every device.

    Args:
        seed, epoch: any integers; of these the order is a pure function.
        n: how many images, 1 or more.
        device: where positions and ids live.

    >>> order = KeyedPermutation(0, 3, 10)
    >>> sorted(order[:].tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> torch.equal(order[4:7], order.at(torch.arange(4, 7)))
    True
    """

    def __init__(self, seed: int, epoch: int, n: int, device: torch.device | str = "cpu"):
        self._n, self._device = n, torch.device(device)
        self._left = math.isqrt(n - 1) + 1  # a, the square root rounded up
        self._right = -(-n // self._left)  # b: a·b ≥ n, and a·b − n < a
        self._tables = [self._table(seed, epoch, number) for number in range(_ROUNDS)]
        self._block: tuple[int, Tensor] | None = None

    def _table(self, seed: int, epoch: int, number: int) -> Int64[Tensor, " half"]:
        """A round's function: what is added to l for each r in even rounds, and to r for each l in odd ones."""
        inputs, outputs = (self._right, self._left) if number % 2 == 0 else (self._left, self._right)
        bits = hash_bits(seed, epoch, torch.arange(inputs, device=self._device), _FIRST_ROUND + number)
        return _shift_right(bits, 1) % outputs

    def __len__(self) -> int:
        return self._n

    def at(self, positions: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """The ids at these positions, 0 … n − 1 each."""
        ids = self._once(positions.to(self._device))
        # a·b − n < a, so that about one position in √n walks a second step
        outside = torch.nonzero(ids >= self._n).flatten()
        while len(outside):
            ids[outside] = self._once(ids[outside])
            outside = outside[ids[outside] >= self._n]
        return ids

    def _once(self, x: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """The network itself, a bijection of 0 … a·b − 1."""
        left, right = x // self._right, x % self._right
        for number, table in enumerate(self._tables):
            if number % 2 == 0:
                left = left + table[right]
                left = torch.where(left >= self._left, left - self._left, left)
            else:
                right = right + table[left]
                right = torch.where(right >= self._right, right - self._right, right)
        return left * self._right + right

    def __getitem__(self, part: slice) -> Int64[Tensor, " m"]:
        """The ids of some positions in a row; they are computed some ten thousand at a time, so that on a GPU not every step
        waits to learn whether a cycle is to be walked."""
        start, stop, step = part.indices(self._n)
        first, last = start // _BLOCK, max(stop - 1, start) // _BLOCK
        blocks = [self._ids_of_block(number) for number in range(first, last + 1)]
        ids = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        return ids[start - first * _BLOCK : max(stop, start) - first * _BLOCK : step]

    def _ids_of_block(self, number: int) -> Int64[Tensor, " block"]:
        if self._block is None or self._block[0] != number:
            start = number * _BLOCK
            positions = torch.arange(start, max(min(start + _BLOCK, self._n), start), device=self._device)
            self._block = (number, self.at(positions))
        return self._block[1]


def epoch_order(
    seed: int, epoch: int, n: int, device: torch.device | str = "cpu"
) -> Int64[Tensor, " n"] | KeyedPermutation:
    """The order of an epoch, to be asked for by slices: sorted for up to `MANY` images, else a :class:`KeyedPermutation`."""
    return hash_permutation(seed, epoch, n, device) if n <= MANY else KeyedPermutation(seed, epoch, n, device)
