"""`pretint probe`: a linear classifier on the frozen encoder's features, beside the same on random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..data import cache_root
from ..downstream import SOLVERS
from ..evaluation import transfer_table
from ..runtime.determinism import repeatable
from ..runtime.errors import UnknownNameError
from ..runtime.processes import is_main
from ..runtime.results import add_results
from ..runtime.runlog import note
from .options import Outcome, command_line, positive
from .protocols import features_of, probe_rows
from .together import in_all_processes
from .transfer_data import Judged, TransferOptions, check_enough_labels, open_judged


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(TransferOptions):
    """Judge a run's frozen encoder by a linear probe.

    Attributes:
        run: the run's folder.
        grid: pool every stage to so many cells a side too, besides its global average; 1 for the average alone.
        solver: sgd (all heads at once), or lbfgs (the optimum of each weight decay, slower).
        cache: keep features in the cache folder, so that a second probe starts at once.
    """

    run: Positional[Path]
    grid: int = 2
    solver: str = "sgd"
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "grid")
        if self.solver not in SOLVERS:
            raise UnknownNameError("--solver", self.solver, SOLVERS)


@in_all_processes
@repeatable
def probe(config: ProbeConfig) -> Outcome:
    """Probes a run's encoder and, as control, the same network with random weights; adds both to `results.json`. Several processes
    share the work of the encoder; the classifiers are the main one's.

    Raises:
        PretintError: the run or the data can't be used.
    """
    judged = open_judged(config.run, config)
    assert judged.train.labels is not None
    check_enough_labels(judged.train.labels, config.labels)
    command = command_line("probe", config, ProbeConfig(run=config.run), always=("run",))
    rows = [row for init in judged.encoders for row in _probe_one(judged, init, config, command)]
    if not is_main():
        return Outcome({"run": str(config.run)})
    results = add_results(judged.folder.path, "transfer", rows)
    return Outcome({"run": str(config.run), **results}, [transfer_table(rows)])


def _probe_one(judged: Judged, init: str, config: ProbeConfig, command: str) -> Iterable[dict[str, Any]]:
    """The row of one encoder; none in other processes than the main one."""
    cache = cache_root(config.root) / "features" if config.cache else None
    note(f"probe: features of {len(judged.train) + len(judged.test)} images, {init} weights")
    features = features_of(judged, judged.encoders[init], config.grid, cache)
    if not is_main():
        return ()
    return probe_rows(
        judged,
        features,
        judged.marks(init),
        ("linear",),
        labels=config.labels,
        grid=config.grid,
        seed=config.seed,
        solver=config.solver,
        command=command,
    )
