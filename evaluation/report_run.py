"""What does the report know of one run?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReportRun:
    """One run as the report sees it.

    `name` is what the page calls it (the run folder); `config` is its config.json (`command`, a string or a list of
    words, is shown as the exact command; `task` and the palette's settings decide whose losses may share a panel);
    `results` is results.json; `metrics` are the rows of metrics.csv (epoch, train_loss, validation_loss,
    images_per_second, …; numbers or their text). `pictures` are uint8 arrays or tensors (n, 3, h, w) under `grey`,
    `painted` and `true`, and optionally `history`, a mapping from epoch to what was painted then; None where there
    are none. `folder` is the run folder as commands name it, where that is not `name`.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, Any] | None = None
    folder: str | None = None

    @property
    def transfer(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("transfer") or [])

    @property
    def colour(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("colour") or [])

    def command(self, verb: str) -> str:
        """The command that adds what is missing: `pretint probe runs/a --data cifar10`."""
        data = str(self.config.get("data") or "cifar10")
        return shlex.join(["pretint", verb, self.folder or self.name, "--data", data])
