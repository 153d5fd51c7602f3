"""`pretint finetune`: the whole encoder trained on labels, beside the same network trained from scratch on the same grey input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..evaluation import transfer_table
from ..runtime.determinism import repeatable
from ..runtime.processes import is_main
from ..runtime.results import add_results
from .options import Outcome, command_line
from .together import in_all_processes
from .transfer_data import check_enough_labels, open_judged
from .tuning import TuningOptions, tuned_row


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TuningOptions):
    """Judge a run's encoder by fine-tuning all of it.

    Attributes:
        run: the run's folder.
    """

    run: Positional[Path]


@in_all_processes
@repeatable
def finetune(config: FinetuneConfig) -> Outcome:
    """Fine-tunes a run's encoder and, as control, trains the same network from scratch; adds both to `results.json`.

    Raises:
        PretintError: the run or the data can't be used, or the loss is not finite.
    """
    judged = open_judged(config.run, config)
    assert judged.train.labels is not None
    check_enough_labels(judged.train.labels, config.labels)
    command = command_line("finetune", config, FinetuneConfig(run=config.run), always=("run",))
    rows = [
        tuned_row(judged, encoder, judged.marks(init), config, config.labels, config.seed, command)
        for init, encoder in judged.encoders.items()
    ]
    results = add_results(judged.folder.path, "transfer", rows) if is_main() else {}
    return Outcome({"run": str(config.run), **results}, [transfer_table(rows)])
