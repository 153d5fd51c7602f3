"""How fast does a network learn in given settings: in the loop of `pretint pretrain`, and in a bare loop?"""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from ..colour import Palette
from ..data import Batches, ImageSource, TensorSource, make_toy
from ..runtime.device import Compute
from ..runtime.loop import LoopSettings, Training
from ..runtime.runlog import RunLog
from .opening import make_model
from .pretraining import check_batch_size, loss_function, make_optimizer, training_palette
from .settings import PretrainConfig
from .training_data import class_count

_SCENES, _SCENE_SIZE, _MOST_BYTES = 512, 32, 1 << 26
_LEAST_STEPS, _MOST_STEPS = 2, 500


def example_pictures(image_size: int) -> TensorSource:
    """Generated scenes of that size, enlarged where it is a large one: what a picture shows makes no difference to the speed."""
    count = max(16, min(_SCENES, _MOST_BYTES // (3 * image_size**2)))
    scenes = make_toy("train", count, image_size=min(image_size, _SCENE_SIZE))
    if image_size <= _SCENE_SIZE:
        return scenes
    enlarged = F.interpolate(scenes.images, size=(image_size, image_size), mode="nearest")
    return TensorSource(enlarged, scenes.labels, scenes.class_names, name="toy")


def example_palette(config: PretrainConfig, pictures: ImageSource) -> Palette | None:
    """The palette that the settings' task has for these pictures, or None if it has none."""
    return training_palette(config, pictures, torch.arange(len(pictures)))


class Contender:
    """A network in given settings, precision and layout, ready to be timed; both of its loops train the same weights.

    Args:
        config: settings of `pretint pretrain`; how long to train, and where the run goes, have no part in it.
        pictures: what it learns from, on the device; gone over as often as a round asks for.
        palette: of the task, or None.
        compute: device, precision and layout.

    Attributes:
        steps: of a round.

    Raises:
        PretintError: the settings do not fit each other.
    """

    def __init__(self, config: PretrainConfig, pictures: ImageSource, palette: Palette | None, compute: Compute):
        torch.manual_seed(config.seed)
        model, self.task = make_model(config, palette, class_count(pictures))
        check_batch_size(config, model)
        self.config, self.pictures, self.compute, self.steps = config, pictures, compute, 1
        self.model: nn.Module = compute.place(model)
        self.optimizer = make_optimizer(config, self.model, compute)
        inputs, self._targets = self.task.split(next(self._batches().epoch(0)))
        self._inputs = compute.layout(inputs)

    def settle(self, seconds: float) -> None:
        """Sets how many steps a round takes, so that one of the bare loop lasts about so long."""
        self.steps = 1
        self.bare()  # the first step takes memory and chooses kernels
        wanted = seconds * self.bare() / self.config.batch_size
        self.steps = max(_LEAST_STEPS, min(_MOST_STEPS, round(wanted)))

    def ours(self) -> float:
        """Images per second of a round in the loop of `pretint pretrain`, as its log tells them.

        Gather, augmentation, targets, forward and backward pass, clipping, finite check, optimiser and log.
        """
        settings = LoopSettings(1, warmup_epochs=0.0, clip=self.config.clip, schedule="constant")
        loss_of = loss_function(self.model, self.task, self.compute)
        training = Training(self.model, self.optimizer, self._batches(), loss_of, dict, self.compute, settings)
        with _Rate(training.total_steps) as log:
            training.run(log)
        return log.images_per_second

    def bare(self) -> float:
        """Images per second of a round of forward and backward pass, clipping and optimiser alone, on one fixed batch."""
        self.model.train()
        start = time.perf_counter()
        for _ in range(self.steps):
            self.optimizer.zero_grad(set_to_none=True)
            with self.compute.autocast():
                predictions = self.model(self._inputs)
            numerator, denominator = self.task.loss(predictions, self._targets)
            (numerator / denominator).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
            self.optimizer.step()
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)
        return self.steps * self.config.batch_size / (time.perf_counter() - start)

    def _batches(self) -> Batches:
        """Of one round."""
        ids = torch.arange(self.steps * self.config.batch_size, device=self.compute.device) % len(self.pictures)
        return Batches(
            self.pictures.subset(ids), self.config.batch_size, seed=self.config.seed, augment=self.config.augment,
            views=self.task.views, device=self.compute.device,
        )  # fmt: skip


class _Rate(RunLog):
    """A silent log that keeps the last epoch's images per second."""

    images_per_second: float

    def __init__(self, total_steps: int):
        super().__init__(None, "benchmark", total_steps, quiet=True)

    def __enter__(self) -> _Rate:
        super().__enter__()
        return self

    def epoch(self, row: dict[str, float | int]) -> None:
        self.images_per_second = float(row["images_per_second"])
