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
    `painted` and `true`, and optionally `history`, a mapping from epoch to what was painted then, and `confidence`,
    uint8 (n, h, w), 255 for sure; None where there are none. `extremes` are the worst and the best pictures of a
    sample: the same keys for half of each, worst first, and `delta_e2000`, the mean difference of every picture of the
    sample. `palette` holds the colours (k, 3), uint8, behind the confusion of labels. `embedding` is a map of the test
    pictures: `points` (n, 2), `labels` (n,) with -1 for none, `class_names`, `thumbnails` uint8 (n, 3, s, s) and
    `layer`. `folder` is the run folder as commands name it, where that is not `name`; `paints` is false where the task paints
    nothing.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, Any] | None = None
    extremes: Mapping[str, Any] | None = None
    palette: Any = None
    embedding: Mapping[str, Any] | None = None
    folder: str | None = None
    paints: bool = True

    @property
    def transfer(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("transfer") or [])

    @property
    def colour(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("colour") or [])

    @property
    def features(self) -> list[Mapping[str, Any]]:
        return list(self.results.get("features") or [])

    def command(self, verb: str) -> str:
        """The command that adds what is missing: `pretint probe runs/a --data cifar10`."""
        data = str(self.config.get("data") or "cifar10")
        return shlex.join(["pretint", verb, self.folder or self.name, "--data", data])

    @property
    def report_command(self) -> str:
        """The command that adds the map of the test pictures."""
        return shlex.join(["pretint", "report", self.folder or self.name, "--embedding"])
