"""How are pictures usually fed to a training loop? Worker processes open, change and stack them, one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

# what comes nearest to each of Pretint's augmentations in torchvision's words; pictures of `size` pixels a side
_AUGMENTATIONS: dict[str, Callable[[int], list[Any]]] = {
    "none": lambda size: [],
    "flip": lambda size: [v2.RandomHorizontalFlip()],
    "flip-crop": lambda size: [v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip()],
    "flip-resized-crop": lambda size: [v2.RandomResizedCrop(size, scale=(0.2, 1.0)), v2.RandomHorizontalFlip()],
    "flip-affine": lambda size: [v2.RandomAffine(20, scale=(0.8, 1.2), shear=11), v2.RandomHorizontalFlip()],
}


class Pictures(Dataset):
    """Pictures in memory with their classes, as torchvision's CIFAR10 has them: each becomes a PIL image when it is asked for.

    Args:
        images: uint8 (n, 3, s, s).
        labels: int64 (n,), or None for a single class.
        transform: from a PIL image to a tensor.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, transform: Callable[[Any], Any] | None = None):
        self.data = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = [0] * len(images) if labels is None else labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.data[index])
        return picture if self.transform is None else self.transform(picture), self.targets[index]


def usual_transform(augment: str, size: int, *, scaled: bool = True) -> v2.Compose:
    """torchvision's transforms (version 2): the augmentation, then a tensor: float in 0…1, or uint8."""
    last = [v2.ToDtype(torch.float32, scale=True)] if scaled else []
    return v2.Compose([*_AUGMENTATIONS[augment](size), v2.ToImage(), *last])


class Fed:
    """A loop that a loader of worker processes feeds, timed while it runs steadily.

    Starting the workers and their first batches are not timed; what they have made ready when the clock starts is as much as they
    have made ready when it stops.

    Args:
        dataset: of pictures.
        batch_size, workers: of the loader.
        take: what the loop does with a batch as the loader gives it.
    """

    def __init__(self, dataset: Any, batch_size: int, workers: int, take: Callable[[Any], object]):
        self.dataset, self.batch_size, self.workers, self.take, self.steps = dataset, batch_size, workers, take, 2

    def settle(self, seconds: float) -> None:
        """Sets how many steps a round takes, so that one lasts about so long."""
        self.steps = 2
        self.steps = max(2, min(500, round(seconds * self.rate() / self.batch_size)))

    def rate(self) -> float:
        """Images per second of a round."""
        ahead = self.workers * 2  # torch's prefetch_factor
        sampler = RandomSampler(self.dataset, num_samples=(1 + self.steps + ahead) * self.batch_size)
        batches: Iterator[Any] = iter(
            DataLoader(self.dataset, self.batch_size, sampler=sampler, num_workers=self.workers)
        )
        self.take(next(batches))
        start = time.perf_counter()
        for _ in range(self.steps):
            self.take(next(batches))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        for _ in batches:
            pass
        return self.steps * self.batch_size / seconds
