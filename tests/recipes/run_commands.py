"""Runs commands of `pretint` one after another; one of the processes that the fixture `several` starts, and no test itself.

It is run by path, with ENVIRONMENT, FOLDER, COMMANDS and STOPS as globals; {rank} in a command is the process's number. In FOLDER
it leaves what it printed (`printed-RANK.txt`) and, as `told-RANK.json`, each command's exit code and the image ids of each of its
training batches.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

ENVIRONMENT: dict[str, str]
FOLDER: str
COMMANDS: list[list[str]]
STOPS: dict[
    int, tuple[int, int, int]
]  # command: the rank that gets a signal, before which of its batches, and which signal

os.environ.update(ENVIRONMENT)
rank = os.environ.get("RANK", "0")
printed = os.open(f"{FOLDER}/printed-{rank}.txt", os.O_WRONLY | os.O_CREAT)
os.dup2(printed, 1)
os.dup2(printed, 2)

import timm  # noqa: E402, F401 - it derives layers from those that are replaced below
from torch import nn, set_num_threads  # noqa: E402

set_num_threads(1)
# Batch norm would make a picture's gradient depend on its neighbours, and shares of a batch differ from the whole.
nn.BatchNorm2d = functools.partial(nn.GroupNorm, 1)
nn.BatchNorm1d = nn.LayerNorm

from pretint.cli import main  # noqa: E402
from pretint.data.batches import Batches  # noqa: E402
from pretint.recipes import tuning  # noqa: E402

tuning.fine_tune = functools.partial(tuning.fine_tune, min_steps=1)
told: list[dict[str, Any]] = []
steps = Batches._steps


def recorded_steps(self: Batches, epoch: int, start: int):
    for batch in steps(self, epoch, start):
        if self.drop_last:  # a training batch
            seen = told[-1]["seen"]
            seen.append((epoch, batch.ids.tolist()))
            who, number, signal_number = STOPS.get(len(told) - 1, (-1, 0, 0))
            if (who, number) == (int(rank), len(seen)):
                os.kill(os.getpid(), signal_number)
        yield batch


Batches._steps = recorded_steps
for words in COMMANDS:
    told.append({"seen": []})
    told[-1]["code"] = main([word.replace("{rank}", rank) for word in words])
    Path(FOLDER, f"told-{rank}.json").write_text(json.dumps(told))
raise SystemExit(max(one["code"] for one in told))
