"""Within a step the processor never waits for the device: gather, augmentation, targets, loss, clipping and finite check queue up.

The meta device stands in for a GPU. It has no numbers: whoever wants to read one, or to choose by one, asks for what a GPU would
have to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretint.data import AUGMENTATIONS, Batch, Batches, TensorSource
from pretint.pretext import TASKS
from pretint.recipes import PretrainConfig, preset_config, pretraining
from pretint.recipes.opening import make_model
from pretint.recipes.systems import PRESETS
from pretint.runtime.device import Compute
from pretint.runtime.loop import LoopSettings, Loss, Training

PLAIN: dict[str, Any] = {"backbone": "pretint_unet", "width": 4, "depth": 2, "image_size": 16, "colours": 6}
CASES: dict[str, Callable[[], PretrainConfig]] = {
    **{
        name: lambda name=name: PretrainConfig(task=name, **PLAIN)
        for name in TASKS
        if getattr(TASKS[name], "trains", True)
    },
    **{f"augment {name}": lambda name=name: PretrainConfig(augment=name, **PLAIN) for name in AUGMENTATIONS},
    **{f"preset {name}": lambda name=name: preset_config(name, colours=6) for name in PRESETS},
    "sum": lambda: PretrainConfig(task="palette+contrast", **PLAIN),
    "soft": lambda: PretrainConfig(soft=3, rebalance=0.5, mask_grey=True, label_smoothing=0.1, **PLAIN),
    "lightness": lambda: PretrainConfig(task="lab-regression", grey="lstar", predict_at=2, loss="huber", **PLAIN),
    "momentum": lambda: PretrainConfig(optimizer="sgd", on_nonfinite="skip", **PLAIN),
    "classifier": lambda: PretrainConfig(fusion="timm/resnet10t", **PLAIN),
    "timm": lambda: PretrainConfig(backbone="timm/convnext_atto", image_size=32, colours=6),
}
# they ask a tensor for its numbers, or for how many of them are so and so
READING = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "equal",
    "masked_select",
    "unique2",
    "unique_dim",
    "bincount",
}


class MetaCompute(Compute):
    """In float32 on the meta device, which not every torch has an autocast for."""

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()


class Watched(TorchDispatchMode):
    """Operations that make the processor wait for the device are errors."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(tensor.is_meta for tensor in given)
        assert not (name in READING and on_device), f"{name} reads numbers from the device"
        assert not (name == "lift_fresh" and on_device), "torch.tensor copies from the processor to the device"
        made = operation(*args, **(kwargs or {}))
        tensors = given + [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        kinds = {tensor.is_meta for tensor in tensors if tensor.ndim or "copy" in name}
        assert len(kinds) < 2, f"{name} copies between processor and device"
        return made


def pictures(size: int) -> TensorSource:
    levels = torch.randint(0, 4, (16, 3, size, size), generator=torch.Generator().manual_seed(5))
    return TensorSource((levels * 80).to(torch.uint8), torch.arange(16) % 3)


def make_training(config: PretrainConfig) -> tuple[Training, Iterator[Batch]]:
    """What `pretint pretrain` trains, with pictures and network on the device, and the first epoch's batches."""
    source = pictures(config.image_size)
    palette = pretraining.training_palette(config, source, torch.arange(len(source)))
    model, task = make_model(config, palette, 3)
    compute = MetaCompute(torch.device("meta"), bf16=False)
    model = compute.place(model).train()
    batches = Batches(source.to("meta"), 4, seed=0, augment=config.augment, views=task.views, device="meta")
    loss_of = pretraining.loss_function(model, task, compute)
    optimizer = pretraining.make_optimizer(config, model, compute)
    optimizer.step = lambda: None  # on CUDA it is a fused kernel, which reads nothing; the meta device has none
    settings = LoopSettings(1, clip=config.clip, on_nonfinite=config.on_nonfinite)
    training = Training(model, optimizer, batches, loss_of, dict, compute, settings)
    training._guard.deferred = True  # as on CUDA
    return training, batches.epoch(0)


def step(training: Training, batches: Iterator[Batch], size: int) -> None:
    training._set_learning_rates(training.state.step)
    training._guard.remember()
    training._step([next(batches) for _ in range(size)])
    training.state.step += 1


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(case: str):
    training, batches = make_training(CASES[case]())
    step(training, batches, 1)  # look-up tables are copied to the device once
    with Watched():
        step(training, batches, 1)
        step(training, batches, 2)
    assert len(training._guard._unread) == 3


@pytest.mark.parametrize(
    "wait",
    [
        lambda loss: float(loss),
        lambda loss: bool(loss > 0),
        lambda loss: torch.zeros(3, device=loss.device)[loss > 0],
        lambda loss: loss + torch.tensor([1.0], device=loss.device),
        lambda loss: loss.cpu(),
        lambda loss: torch.ones(2).to(loss.device),
    ],
    ids=["number", "choice", "mask", "constant", "to the processor", "to the device"],
)
def test_a_step_that_waits_is_noticed(wait: Callable[[Tensor], Any]):
    training, batches = make_training(PretrainConfig(**PLAIN))
    step(training, batches, 1)
    loss_of = training.loss_of

    def waiting(batch: Batch) -> Loss:
        loss = loss_of(batch)
        wait(loss.numerator)
        return loss

    training.loss_of = waiting
    with Watched(), pytest.raises((AssertionError, NotImplementedError, RuntimeError)):
        step(training, batches, 1)
