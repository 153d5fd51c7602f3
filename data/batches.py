"""How do pictures become training batches: in which order, and changed how, as a function of (seed, epoch, id)?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.processes import share, world_size
from ..runtime.randomness import epoch_order, hash_uniforms
from .streams import gathered
from .tensors import ImageSource

AUGMENTATIONS = ("none", "flip", "flip-crop", "flip-resized-crop", "flip-affine")

# Uses of randomness (stream numbers of runtime.randomness; 0 is the order of the epoch). A further view of the same
# pictures adds _STREAMS_PER_VIEW, so that its flips and shifts are independent.
_STREAM_FLIP, _STREAM_SHIFT_X, _STREAM_SHIFT_Y, _STREAM_AREA, _STREAM_ASPECT, _STREAM_ANGLE = 1, 2, 3, 4, 5, 6
_STREAMS_PER_VIEW = 16
# what is drawn beside the flip
_STREAMS = {
    "flip-crop": (_STREAM_SHIFT_X, _STREAM_SHIFT_Y),
    "flip-resized-crop": (_STREAM_AREA, _STREAM_ASPECT, _STREAM_SHIFT_X, _STREAM_SHIFT_Y),
    "flip-affine": (_STREAM_ANGLE, _STREAM_SHIFT_X, _STREAM_AREA),
}
_PADDING = 4
_AREAS, _ASPECTS = (0.2, 1.0), (3 / 4, 4 / 3)
_ANGLE, _SHEAR, _ZOOM = math.radians(20), 0.2, 0.2


@dataclass
class Batch:
    """Pictures of one training step.

    Args:
        rgb: uint8 (b, 3, s, s), augmented.
        ids: int64 (b,), their positions in the source.
        labels: int64 (b,), or None.
        others: further views of the same pictures, each augmented in its own way, like `rgb`.
    """

    rgb: Tensor
    ids: Tensor
    labels: Tensor | None = None
    others: tuple[Tensor, ...] = ()


def augment(
    rgb: UInt8[Tensor, "b 3 h w"],
    ids: Int64[Tensor, " b"],
    *,
    seed: int,
    epoch: int,
    mode: str = "flip-crop",
    view: int = 0,
) -> UInt8[Tensor, "b 3 h w"]:
    """Flip each picture left to right half the time, and shift or crop it.

    A pure function of (seed, epoch, id, view): no picture depends on its neighbours in the batch, nor on the device.
    The shift is the usual crop from a picture padded by 4 (He et al. 2016, "Deep residual learning", section 4.2), with
    the edge repeated instead of black, because a black frame would be a colour to learn. The resized crop (Szegedy et al.
    2015, section 6) takes 20 to 100 % of the area at an aspect of 3/4 to 4/3 and enlarges it bilinearly to the whole; the affine
    map turns by up to 20°, shears by up to 0.2 and zooms by up to 20 %.

    Args:
        rgb: uint8 (b, 3, h, w).
        ids: int64 (b,), the same numbers the source knows them by.
        mode: one of AUGMENTATIONS: "none", "flip", "flip-crop" (flip and shift), "flip-resized-crop", or
            "flip-affine".
        view: 0 for the first view of a picture in this epoch, 1 for a second one, …

    Raises:
        UnknownNameError: `mode` is none of AUGMENTATIONS.
    """
    if mode not in AUGMENTATIONS:
        raise UnknownNameError("augment", mode, AUGMENTATIONS)
    if mode == "none" or not len(rgb):
        return rgb
    streams = (_STREAM_FLIP, *_STREAMS.get(mode, ()))
    numbers = tuple(view * _STREAMS_PER_VIEW + stream for stream in streams)
    # all at once: on a GPU a batch is so little work that what counts is how often something is launched
    drawn = dict(zip(streams, hash_uniforms(seed, epoch, ids.to(rgb.device), numbers), strict=True))  # (b,) each
    flip = drawn[_STREAM_FLIP] < 0.5
    if mode in ("flip-resized-crop", "flip-affine"):
        part = _resized_crop if mode == "flip-resized-crop" else _affine

        def uniform(stream: int, low: float, high: float) -> Float[Tensor, " b"]:
            return low + (high - low) * drawn[stream]

        return _resample(rgb, part(uniform), flip)
    h, w = rgb.shape[-2:]
    columns = torch.arange(w, device=rgb.device).expand(len(rgb), w)  # (b, w) where each output column is read from
    rows = torch.arange(h, device=rgb.device).expand(len(rgb), h)  # (b, h)
    if mode == "flip-crop":
        shift = 2 * _PADDING + 1
        dx, dy = ((drawn[stream] * shift).to(torch.int64) - _PADDING for stream in (_STREAM_SHIFT_X, _STREAM_SHIFT_Y))
        columns = (columns + dx[:, None]).clamp_(0, w - 1)
        rows = (rows + dy[:, None]).clamp_(0, h - 1)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = (rows[:, :, None] * w + columns[:, None, :]).flatten(1)  # (b, h·w)
    return rgb.flatten(2).gather(2, index[:, None].expand(-1, 3, -1)).view_as(rgb)


Uniform = Callable[[int, float, float], Float[Tensor, " b"]]


def _resized_crop(uniform: Uniform) -> Float[Tensor, "b 2 3"]:
    """A random part of each picture, enlarged to the whole: where each output point is read from, in −1…1."""
    area = uniform(_STREAM_AREA, *_AREAS)
    aspect = uniform(_STREAM_ASPECT, math.log(_ASPECTS[0]), math.log(_ASPECTS[1])).exp()  # width over height
    width, height = (area * aspect).sqrt().clamp_max(1), (area / aspect).sqrt().clamp_max(1)  # shares of the sides
    x, y = (
        (1 - width) * uniform(_STREAM_SHIFT_X, -1.0, 1.0),
        (1 - height) * uniform(_STREAM_SHIFT_Y, -1.0, 1.0),
    )  # its centre
    zero = torch.zeros_like(x)
    return torch.stack([width, zero, x, zero, height, y], dim=1).view(-1, 2, 3)


def _affine(uniform: Uniform) -> Float[Tensor, "b 2 3"]:
    """Turned by up to 20°, sheared by up to 0.2 and zoomed by up to 20 %, around the centre."""
    angle, shear = uniform(_STREAM_ANGLE, -_ANGLE, _ANGLE), uniform(_STREAM_SHIFT_X, -_SHEAR, _SHEAR)
    zoom = uniform(_STREAM_AREA, 1 - _ZOOM, 1 + _ZOOM)
    cos, sin, zero = zoom * angle.cos(), zoom * angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos, shear * cos - sin, zero, sin, shear * sin + cos, zero], dim=1).view(-1, 2, 3)


def _resample(
    rgb: UInt8[Tensor, "b 3 h w"], theta: Float[Tensor, "b 2 3"], flip: Bool[Tensor, " b"]
) -> UInt8[Tensor, "b 3 h w"]:
    """Bilinear, repeating the edge; mirrored left to right where `flip` is set."""
    mirror = torch.where(flip, -1.0, 1.0)[:, None]
    theta = torch.cat([theta[:, :, :1] * mirror[:, None], theta[:, :, 1:]], dim=2)
    grid = F.affine_grid(theta, list(rgb.shape), align_corners=False)
    part = F.grid_sample(rgb.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return part.round_().to(torch.uint8)


def check_even_shares(batch_size: int, processes: int) -> None:
    """Raises ArgumentError unless so many processes have equally many images of each training batch."""
    if batch_size % processes:
        raise ArgumentError(
            f"--batch-size: {batch_size} images can't be shared evenly by {processes} processes; use a multiple of {processes}."
        )


class Batches:
    """The batches of a source, epoch by epoch; any step of any epoch can be had without the ones before it.

    Of several processes each is given its share of every batch: neighbours, so that the shares behind each other are the batch of a
    process alone.

    Args:
        source: where the pictures come from; one that does not live on `device` is read from where it is.
        batch_size: pictures per step, of all processes together.
        seed: of order and augmentation.
        augment: one of AUGMENTATIONS.
        shuffle: a new order each epoch; else the order of the source.
        drop_last: leave out the last batch when it is not full. Else a rest of fewer pictures than processes, of which some would
            have none, is part of the batch before it.
        views: how many differently augmented views of each picture a batch holds.
        device: where the batches are wanted; None: where the source lives.

    Raises:
        ArgumentError: batch size below 1, no pictures; while `drop_last`, a batch size that is no multiple of the processes or more
            than the pictures.
        DataError: fewer pictures than processes.
        UnknownNameError: `augment` is none of AUGMENTATIONS.

    >>> from pretint.data import TensorSource
    >>> batches = Batches(TensorSource(torch.zeros(10, 3, 8, 8, dtype=torch.uint8)), 4, seed=0)
    >>> len(batches), [len(batch.ids) for batch in batches.epoch(0)]
    (2, [4, 4])
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        *,
        seed: int,
        augment: str = "flip-crop",
        shuffle: bool = True,
        drop_last: bool = True,
        views: int = 1,
        device: torch.device | str | None = None,
    ):
        if augment not in AUGMENTATIONS:
            raise UnknownNameError("augment", augment, AUGMENTATIONS)
        if batch_size < 1:
            raise ArgumentError(f"batch_size: got {batch_size}; at least 1 picture per step is needed.")
        if drop_last:
            check_even_shares(batch_size, world_size())
        if not len(source):
            raise ArgumentError(f"source: {source.name!r} ({source.split}) has no pictures; at least 1 is needed.")
        if drop_last and len(source) < batch_size:
            raise ArgumentError(
                f"batch_size: got {batch_size}, but {source.name!r} ({source.split}) has {len(source)} pictures; "
                f"use a batch size of at most {len(source)}."
            )
        share(len(source))  # fewer pictures than processes are refused
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.augment, self.shuffle, self.drop_last, self.device = augment, shuffle, drop_last, device
        self.views = views

    def __len__(self) -> int:
        """Steps per epoch."""
        full, rest = divmod(len(self.source), self.batch_size)
        return full if self.drop_last or not rest or (full and rest < world_size()) else full + 1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on, equal to those of a run that was never interrupted.

        Raises:
            ArgumentError: `start_step` is outside 0 … len(self).
        """
        if not 0 <= start_step <= len(self):
            raise ArgumentError(f"start_step: got {start_step}; this epoch has steps 0 to {len(self)}.")
        return self._steps(epoch, start_step)

    def _steps(self, epoch: int, start_step: int) -> Iterator[Batch]:
        n, device = len(self.source), self.device if self.device is not None else getattr(self.source, "device", "cpu")
        # a source that streams wants its ids on the processor, where it reads
        home = "cpu" if getattr(self.source, "streams", False) else device
        order = epoch_order(self.seed, epoch, n, home) if self.shuffle else None

        def ids_of(step: int) -> Tensor:
            last = not self.drop_last and step == len(self) - 1
            start, stop = step * self.batch_size, n if last else (step + 1) * self.batch_size
            ids = torch.arange(start, stop, device=home) if order is None else order[start:stop]
            return ids[share(len(ids))]

        steps = map(ids_of, range(start_step, len(self)))
        for ids, pictures, labels in gathered(self.source, steps, device):
            first, *others = (
                augment(pictures, ids, seed=self.seed, epoch=epoch, mode=self.augment, view=view)
                for view in range(self.views)
            )
            yield Batch(first, ids, labels, tuple(others))
