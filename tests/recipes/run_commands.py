"""Runs commands of `pretint` one after another; one of the processes that the fixture `several` starts, and no test itself.

It is run by path, with the globals below; {rank} in a command is the process's number, and the command `copy` copies a folder,
where there is one process. In FOLDER it leaves what it printed (`printed-RANK.txt`) and, as `told-RANK.json`, each command's exit
code and the image ids of each of its training batches.
"""

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

ENVIRONMENT: dict[str, str]
FOLDER: str
COMMANDS: list[list[str]]
# command: the rank that gets a signal, before which of its batches, and which signal
STOPS: dict[int, tuple[int, int, int]]
# command: the rank whose loss is not a number, its gradient finite, and in which of its batches
SPOILT: dict[int, tuple[int, int]]
NOISY: bool  # whether networks have batch norm, with dropout and stochastic depth behind it

os.environ.update(ENVIRONMENT)
rank = os.environ.get("RANK", "0")
printed = os.open(f"{FOLDER}/printed-{rank}.txt", os.O_WRONLY | os.O_CREAT)
os.dup2(printed, 1)
os.dup2(printed, 2)

from timm.layers import drop_path  # noqa: E402 - timm derives layers from those that are replaced below
from torch import Tensor, nn, set_num_threads  # noqa: E402
from torch.nn.functional import dropout  # noqa: E402

set_num_threads(1)


class NoisyNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return drop_path(dropout(super().forward(input), 0.2, self.training), 0.1, self.training)


if NOISY:
    nn.BatchNorm2d = NoisyNorm
else:  # batch norm would make a picture's gradient depend on its neighbours, and shares of a batch differ from the whole
    nn.BatchNorm2d = functools.partial(nn.GroupNorm, 1)
    nn.BatchNorm1d = nn.LayerNorm

from pretint.cli import main  # noqa: E402
from pretint.data.batches import Batches  # noqa: E402
from pretint.downstream import linear  # noqa: E402
from pretint.recipes import pretraining, tuning  # noqa: E402

tuning.fine_tune = functools.partial(tuning.fine_tune, min_steps=1)
linear._STEPS = 1
pretraining._BATCH_OF_PASSES = 7  # palette and colour histogram are of several chunks
told: list[dict[str, Any]] = []
steps, loss_function = Batches._steps, pretraining.loss_function


def recorded_steps(self: Batches, epoch: int, start: int):
    for batch in steps(self, epoch, start):
        if self.drop_last:  # a training batch
            seen = told[-1]["seen"]
            seen.append((epoch, batch.ids.tolist()))
            who, number, signal_number = STOPS.get(len(told) - 1, (-1, 0, 0))
            if (who, number) == (int(rank), len(seen)):
                os.kill(os.getpid(), signal_number)
        yield batch


def spoilt_loss_function(network: nn.Module, *others: Any):
    loss_of = loss_function(network, *others)

    def spoilt(batch: Any):
        loss, here = loss_of(batch), (int(rank), len(told[-1]["seen"]))
        now = network.training and SPOILT.get(len(told) - 1) == here
        return loss._replace(numerator=loss.numerator + float("nan")) if now else loss

    return spoilt


Batches._steps = recorded_steps
pretraining.loss_function = spoilt_loss_function
for words in COMMANDS:
    told.append({"seen": [], "code": 0})
    if words[0] == "copy":
        shutil.copytree(*words[1:])
    else:
        told[-1]["code"] = main([word.replace("{rank}", rank) for word in words])
    Path(FOLDER, f"told-{rank}.json").write_text(json.dumps(told))
raise SystemExit(max(one["code"] for one in told))
