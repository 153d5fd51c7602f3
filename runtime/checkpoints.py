"""Which states of a run are kept, and how does one go back into a model? `last` to go on from, `best` to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import RunFolderError
from .processes import is_main
from .tensors import optimizer_tensors, read_metadata, read_tensors, restore_optimizer, write_tensors


class Checkpoints:
    """A run's `checkpoints/` folder.

    `last.safetensors` holds weights, buffers and the optimiser's state, with the loop's state as JSON in its header, so that one
    rename replaces all of it; `best.safetensors` holds the weights of the epoch with the lowest validation loss.
    """

    def __init__(self, folder: Path):
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, best: bool) -> None:
        """Writes `last`, and `best` too if asked; only the main process writes."""
        if not is_main():
            return
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        header = {"state": json.dumps(state)}
        if best:
            write_tensors(self.best, weights, header)
        moments = {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(optimizer).items()}
        write_tensors(self.last, weights | moments, header)

    def load_last(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Puts `last` into model and optimiser and returns the loop's state.

        Raises:
            RunFolderError: the file is missing, damaged, or does not fit the model.
        """
        if not self.last.is_file():
            raise RunFolderError(f"{self.last.parent} holds no checkpoint to go on from; start again with --overwrite.")
        state = self._load(self.last, model)
        tensors = read_tensors(self.last)
        prefix = "optimizer."
        restore_optimizer(optimizer, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return state

    def load_best(self, model: nn.Module) -> dict[str, Any]:
        """Puts the best weights into the model and returns the loop's state of that epoch.

        Raises:
            RunFolderError: the file is missing, damaged, or does not fit the model.
        """
        if not self.best.is_file():
            raise RunFolderError(
                f"{self.best.parent} holds no finished epoch; train on with pretint pretrain --resume."
            )
        return self._load(self.best, model)

    @staticmethod
    def _load(path: Path, model: nn.Module) -> dict[str, Any]:
        tensors = read_tensors(path)
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise RunFolderError(f"{path} does not fit the model: {' '.join(str(error).split())[:400]}") from None
        try:
            return json.loads(read_metadata(path)["state"])
        except (KeyError, ValueError):
            raise RunFolderError(f"{path} holds no state of a run; restore it or run again.") from None
