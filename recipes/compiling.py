"""Does a run compile its network? Chosen before the first step, said in a line, kept in the run's `config.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..data import Batches
from ..pretext import Painter
from ..runtime.compilation import Compilation, choose_compilation, compiled
from ..runtime.device import Compute
from ..runtime.processes import from_main
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import note
from .opening import read_settings
from .settings import PretrainConfig


def training_network(
    config: PretrainConfig, painter: Painter, batches: Batches, seconds: Callable[[], float]
) -> tuple[nn.Module, Compilation]:
    """The network as training calls it, and whether it is compiled.

    A run that goes on has it as before, so that its bits do not change on the way, unless another `--compile` is typed, or it has
    come to another kind of device.

    Args:
        config: the run's settings; of a run that goes on those that it goes on with.
        painter: its model, on its device, and its task.
        batches: of training.
        seconds: how long training is going to take if it is not compiled.
    """
    compute, task = painter.compute, painter.task
    if not getattr(task, "trains", True):
        return painter.model, Compilation(None, "nothing is trained")
    if config.sync_batch_norm:
        chosen = Compilation(None, "--sync-batch-norm asks the other processes in the middle of it")
    else:
        chosen = _before(config, compute) or choose_compilation(
            config.compile, compute, seconds, steady=batches.drop_last, accumulates=config.accumulate > 1
        )
    network: nn.Module = painter.model
    if chosen.mode is not None:
        inputs, _ = task.split(next(batches.epoch(0)))
        network, chosen = compiled(network, inputs, compute, chosen)
    note(f"pretrain: {chosen.sentence}")
    return network, chosen


def _before(config: PretrainConfig, compute: Compute) -> Compilation | None:
    """What the run that goes on had; None if it is a new one, or is told otherwise."""
    if not config.resume:
        return None

    def kept() -> tuple[str, Any]:
        folder = RunFolder.open(config.folder)
        return read_settings(folder).compile, folder.config.get("compilation")

    was, chosen = from_main(kept)
    return Compilation.before(chosen, compute) if config.compile == was else None
