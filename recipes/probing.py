"""`pretint probe`: a linear classifier on the frozen encoder's features, beside the same on random weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ..data import cache_root, class_balanced_subset
from ..downstream import SOLVERS, linear_probe
from ..evaluation import transfer_row, transfer_table
from ..runtime.determinism import repeatable
from ..runtime.errors import UnknownNameError
from ..runtime.results import add_results
from ..runtime.runlog import note
from .options import Outcome, positive
from .protocols import features_of
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


@repeatable
def probe(config: ProbeConfig) -> Outcome:
    """Probes a run's encoder and, as control, the same network with random weights; adds both to `results.json`.

    Raises:
        PretintError: the run or the data can't be used.
    """
    judged = open_judged(config.run, config)
    assert judged.train.labels is not None
    check_enough_labels(judged.train.labels, config.labels)
    rows = [_probe_one(judged, init, config) for init in judged.encoders]
    results = add_results(judged.folder.path, "transfer", rows)
    return Outcome({"run": str(config.run), **results}, [transfer_table(rows)])


def _probe_one(judged: Judged, init: str, config: ProbeConfig) -> dict[str, Any]:
    start = time.perf_counter()
    cache = cache_root(config.root) / "features" if config.cache else None
    note(f"probe: features of {len(judged.train) + len(judged.test)} images, {init} weights")
    train, test = features_of(judged, judged.encoders[init], config.grid, cache)
    assert train.labels is not None
    assert test.labels is not None
    ids = class_balanced_subset(train.labels, config.labels, config.seed)
    arrays = {layer: array[ids] for layer, array in train.arrays.items()} if config.labels < 1 else train.arrays
    result = linear_probe(arrays, train.labels[ids], test.arrays, test.labels, solver=config.solver, seed=config.seed)
    return transfer_row(
        data=judged.train.name,
        protocol="linear",
        **judged.marks(init),
        labels=config.labels,
        layer=result.layer,
        seed=config.seed,
        top1=result.top1,
        top5=result.top5,
        seconds=time.perf_counter() - start,
        solver=config.solver,
        per_layer=result.per_layer,
        confusion=result.confusion.tolist(),
        class_names=list(judged.train.class_names or ()),
    )
