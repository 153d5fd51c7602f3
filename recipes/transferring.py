"""`pretint transfer`: runs judged by every protocol and several seeds, beside random weights and supervised training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from tyro.conf import Positional

from ..backbones import BackboneSpec, Preprocess
from ..data import cache_root
from ..evaluation import (
    features_table,
    grey_note,
    transfer_table,
)
from ..runtime.determinism import repeatable
from ..runtime.errors import ArgumentError, DataError, UnknownNameError
from ..runtime.processes import is_main
from ..runtime.results import add_results
from ..runtime.runlog import note
from .options import Outcome, command_line, positive
from .protocols import features_of, health_entries, probe_rows
from .together import in_all_processes
from .transfer_data import Judged, check_enough_labels, open_judged, untrained
from .transfer_sentences import Headline, headlines_of, mistakes, ranking
from .tuning import TuningOptions, supervised_encoder, tuned_row

PROBES = ("linear", "ridge", "knn", "fewshot")
SHARES = (0.01, 0.1, 1.0)


@dataclass(frozen=True, kw_only=True)
class TransferConfig(TuningOptions):
    """Judge runs by the full protocol, beside their controls.

    Attributes:
        runs: the runs' folders.
        seeds: how many, counted from --seed: of labelled subsets, held-out images, few-shot draws, random weights and training.
        protocols: linear, ridge, knn, fewshot, finetune; the last one takes far longer than the others together.
        shots: labelled images a class for few-shot.
        finetune: shares of the labels to fine-tune with.
        grid: pool every stage to so many cells a side too, besides its global average; 1 for the average alone.
        supervised: judge the same network trained with all labels on the same input too; the ceiling of such an encoder.
        ceiling: judge the same network trained with all labels on RGB too, where the runs see grey.
        cache: keep features and supervised controls in the cache folder, so that a second call starts at once.
    """

    runs: Positional[tuple[Path, ...]]
    seeds: int = 3
    protocols: tuple[str, ...] = (*PROBES, "finetune")
    shots: tuple[int, ...] = (5, 10, 25)
    finetune: tuple[float, ...] = SHARES
    grid: int = 2
    supervised: bool = True
    ceiling: bool = True
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise ArgumentError("runs: none were named; name the folders of one or more runs.")
        if len({path.resolve() for path in self.runs}) < len(self.runs):
            raise ArgumentError("runs: a folder is named twice; name each once.")
        positive(self, "seeds", "grid")
        if not self.protocols:
            raise ArgumentError(f"--protocols: none were named; name some of {', '.join((*PROBES, 'finetune'))}.")
        for name in self.protocols:
            if name not in (*PROBES, "finetune"):
                raise UnknownNameError("--protocols", name, (*PROBES, "finetune"))
        if not self.shots or min(self.shots) < 2:
            raise ArgumentError(f"--shots: {self.shots} must be numbers of 2 or more, one image of them to choose on.")
        if not self.finetune or not all(0 < share <= 1 for share in self.finetune):
            raise ArgumentError(f"--finetune: {self.finetune} must be shares of the labels, above 0 and at most 1.")

    @property
    def every_seed(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.seeds))

    @property
    def probes(self) -> tuple[str, ...]:
        """The protocols that read frozen features."""
        return tuple(name for name in self.protocols if name in PROBES)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the labels to fine-tune with."""
        return self.finetune if "finetune" in self.protocols else ()


@dataclass(frozen=True)
class _Subject:
    """An encoder to judge.

    Attributes:
        encoder: itself.
        marks: what rows say of it.
        seeds: to judge it with; random and supervised weights are of one seed.
        run: its name in a table of several runs; None for controls.
        folders: the run folders that keep what is found.
        tuned: whether it is fine-tuned too.
    """

    encoder: nn.Module
    marks: dict[str, Any]
    seeds: tuple[int, ...]
    run: str | None
    folders: tuple[Path, ...]
    tuned: bool = True


@in_all_processes
@repeatable
def transfer(config: TransferConfig) -> Outcome:
    """Judges runs and their controls and adds all to each run's `results.json`; runs of one architecture share controls.

    What is found of an encoder is kept at once, so that a call that is stopped loses little.

    Raises:
        PretintError: a run or the data can't be used.
    """
    opened = {}
    runs = [open_judged(path, replace(config, control=False), opened) for path in config.runs]
    for judged in runs:
        _check_data(judged, config)
    tables, lines, results = [], _notes(runs), {}
    headlines: list[Headline] = []
    command = command_line("transfer", config, TransferConfig(runs=config.runs), always=("runs",))
    for members in _groups(runs):
        rows, entries = [], []
        for subject in _subjects(members, runs, config):
            found, health = _judge(members[0], subject, config, command)
            for folder in subject.folders if is_main() else ():
                add_results(folder, "features", health)
                results[str(folder)] = add_results(folder, "transfer", found)
            rows += [row | {"run": subject.run} for row in found]
            entries += [entry | {"run": subject.run} for entry in health]
        if not is_main():
            continue
        tables.append(transfer_table(rows, _title(members[0])))
        if entries:
            tables.append(features_table(entries))
        lines += mistakes(rows)
        headlines += headlines_of(rows)
    lines += ranking(headlines)
    return Outcome({"runs": results, "notes": lines}, tables, lines)


def _check_data(judged: Judged, config: TransferConfig) -> None:
    """Raises DataError where a protocol would lack labelled images."""
    labels = judged.train.labels
    assert labels is not None
    check_enough_labels(labels, config.labels)
    for share in config.shares:
        check_enough_labels(labels, share, "--finetune")
    counts = labels.unique(return_counts=True)[1]
    if "fewshot" in config.protocols and int(counts.min()) < max(config.shots):
        raise DataError(
            f"--shots {max(config.shots)}: {len(counts)} classes need {max(config.shots) * len(counts)} labelled images, as many "
            f"of each, and one has only {int(counts.min())}; give smaller --shots."
        )


def _notes(runs: Sequence[Judged]) -> list[str]:
    """What must be said before runs are compared."""
    formulas = {}
    for judged, name in zip(runs, _run_names(runs), strict=True):
        preprocess = judged.encoder.preprocess
        assert isinstance(preprocess, Preprocess)
        if judged.sees != "rgb":
            formulas[name] = preprocess.grey
    differing = grey_note(formulas)
    return [f"Note: {differing}"] if differing else []


def _run_names(runs: Sequence[Judged]) -> list[str]:
    """Runs by the names of their folders, or by their paths where two folders have the same name."""
    names = [judged.folder.name for judged in runs]
    return [name if names.count(name) == 1 else str(run.folder.path) for name, run in zip(names, runs, strict=True)]


def _architecture(judged: Judged) -> str:
    """What runs must have in common to share controls: network, input and data."""
    spec, preprocess = judged.encoder.spec, judged.encoder.preprocess
    assert isinstance(spec, BackboneSpec)
    assert isinstance(preprocess, Preprocess)
    data = [judged.train.fingerprint, judged.train.image_size]
    return json.dumps([spec.to_dict(), preprocess.to_dict(), data], sort_keys=True)


def _groups(runs: Sequence[Judged]) -> Iterable[list[Judged]]:
    groups: dict[str, list[Judged]] = {}
    for judged in runs:
        groups.setdefault(_architecture(judged), []).append(judged)
    return groups.values()


def _title(judged: Judged) -> str:
    spec, preprocess = judged.encoder.spec, judged.encoder.preprocess
    assert isinstance(spec, BackboneSpec)
    assert isinstance(preprocess, Preprocess)
    grey = "" if judged.sees == "rgb" else f", grey {preprocess.grey}"
    return f"Transfer to {judged.train.name}: {spec.name}{grey}"


def _subjects(members: Sequence[Judged], runs: Sequence[Judged], config: TransferConfig) -> Iterator[_Subject]:
    """The runs' encoders, then their controls, each made when its turn comes."""
    names = dict(zip(map(id, runs), _run_names(runs), strict=True))
    for judged in members:
        run = names[id(judged)] if len(runs) > 1 else None
        yield _Subject(
            judged.encoder, judged.marks(judged.init), config.every_seed, run, (judged.folder.path,)
        )  # fmt: skip
    first, size = members[0], members[0].train.image_size

    def keepers(init: str, data: str | None) -> tuple[Path, ...]:
        # a control must not take the place of a run's own row that would be called the same
        return tuple(
            m.folder.path for m in members if (m.init, m.marks(m.init)["pretrained_on"]) != (init, data)
        )  # fmt: skip

    for seed in config.every_seed:
        if config.control and (folders := keepers("random", None)):
            encoder = first.compute.place(untrained(first.encoder, size, seed))
            yield _Subject(encoder, first.marks("random"), (seed,), None, folders)
    if not config.probes:
        return
    inputs: dict[str, Preprocess | None] = {first.sees: None} if config.supervised else {}
    if config.ceiling and first.sees == "grey":
        inputs["rgb"] = Preprocess(3)
    cache = cache_root(config.root) / "supervised" if config.cache else None
    data = first.train.name
    for sees, preprocess in inputs.items():
        init = "supervised-grey" if sees == "grey" else "supervised-rgb"
        marks = {"init": init, "pretrained_on": data, "sees": sees, "leaks": None}
        for seed in config.every_seed:
            if folders := keepers(init, data):
                fresh = untrained(first.encoder, size, seed, preprocess)
                encoder = first.compute.place(supervised_encoder(first, fresh, config, seed, cache))
                yield _Subject(encoder, marks, (seed,), None, folders, tuned=False)


def _judge(
    judged: Judged, subject: _Subject, config: TransferConfig, command: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of all protocols and seeds, and the health of the features; of the probes and of health in the main process alone."""
    cache = cache_root(config.root) / "features" if config.cache else None
    rows, entries = [], []
    if config.probes:
        note(f"transfer: {subject.run or subject.marks['init']}, features and probes")
        features = features_of(judged, subject.encoder, config.grid, cache)
        for seed in subject.seeds:
            if is_main():
                rows += probe_rows(
                    judged, features, subject.marks, config.probes, labels=config.labels, grid=config.grid, seed=seed,
                    shots=config.shots, command=command,
                )  # fmt: skip
            entries += health_entries(judged, subject.encoder, features[1], subject.marks, seed)
    for share in config.shares if subject.tuned else ():
        rows += [
            tuned_row(judged, subject.encoder, subject.marks, config, share, seed, command) for seed in subject.seeds
        ]
    return rows, entries
