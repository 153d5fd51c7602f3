"""What do rows of the transfer table say beside each other, and which differences are more than noise?"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from .transfer import INITS, PROTOCOLS, TUNING, Row, init_name, protocol_name

# Below this many points a difference is called unclear when neither seeds nor the size of the test set tell its noise.
UNCLEAR_POINTS = 1.0


@dataclass(frozen=True)
class Comparison:
    """One line of a transfer table: the mean over seeds of one init, and its distance from the control.

    Accuracies are fractions of 1; `points`, `points_sd` and `margin` are percentage points. `points` is None for the
    controls themselves and where no control was measured. `points_sd` is the standard deviation over the `pairs` of seeds
    that both have (two or more). `margin` is the half-width of the 95 % interval of the difference that the size of the
    test set alone gives (two independent proportions, normal approximation, one seed), known where the rows carry a
    confusion matrix. `ece` is the mean of the expected calibration error, where all rows tell it. `run` names the run in
    a table of several.
    """

    data: str
    protocol: str
    labels: float
    init: str
    pretrained_on: str | None
    layer: str | None
    seeds: tuple[int, ...]
    top1: float
    top1_sd: float | None
    top5: float | None
    control_top1: float | None
    points: float | None
    points_sd: float | None
    pairs: int
    margin: float | None
    sees: str = "grey"
    leaks: str | None = None
    ece: float | None = None
    run: str | None = None

    @property
    def protocol_name(self) -> str:
        return protocol_name(self.protocol)

    @property
    def init_name(self) -> str:
        return init_name(self.init, self.protocol, self.sees, self.leaks)

    @property
    def noise(self) -> float:
        """How many points the difference must exceed to count as one.

        The half-width of the 95 % interval over the paired seeds (Student's t: three seeds are few, so 2.48 standard
        deviations), or the one that the size of the test set gives: the larger of what is known; else `UNCLEAR_POINTS`.
        """
        return _noise(self.points_sd, self.pairs, self.margin)

    @property
    def tone(self) -> str:
        """`helped`, `hurt`, `unclear` (within the noise), or nothing where there is no control."""
        if self.points is None:
            return ""
        if abs(self.points) <= self.noise:
            return "unclear"
        return "helped" if self.points > 0 else "hurt"

    @property
    def labels_name(self) -> str:
        """The labels that were used, in words: `all labels`, `10 % of labels`, for few-shot `5 a class`."""
        if self.protocol == "fewshot":
            return f"{self.labels:g} a class"
        return "all labels" if self.labels == 1 else f"{100 * self.labels:g} % of labels"


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Put every result of a trained encoder beside its control.

    Rows that differ only in their seed become one line; runs named by `run` have lines of their own, and share controls
    that name none. The control of a line is the result from random weights on
    the same data, protocol, labels and seed: at the same layer where there is one, else the only one there is (each
    probe chooses its own depth). For fine-tuning a `supervised-grey` row of training from scratch (`pretrained_on` None)
    serves pretrained encoders when there is no `random` one. Lines come ordered by data, protocol, labels (all labels
    first), then pretrained before supervised before random.
    """
    rows = list(rows)
    lines = sorted(_lines(rows), key=lambda members: _order(members[0]))
    return [_comparison(members, rows) for members in lines]


def grey_note(formulas: Mapping[str, str]) -> str | None:
    """A sentence for runs whose grey is made by different formulas; None where all make it alike.

    >>> grey_note({"runs/a": "rec601", "runs/b": "rec601"})
    >>> grey_note({"a": "rec601", "b": "mean"})
    'These runs make grey by different formulas (rec601: a; mean: b), so they differ by more than their pretext.'
    """
    names: dict[str, list[str]] = {}
    for name, formula in formulas.items():
        names.setdefault(formula, []).append(name)
    if len(names) < 2:
        return None
    told = "; ".join(f"{formula}: {', '.join(of)}" for formula, of in names.items())
    return f"These runs make grey by different formulas ({told}), so they differ by more than their pretext."


def input_seen(row: Row | Comparison) -> str:
    """What the encoder's input is made of, one of `INPUTS`."""
    init, sees = (row.init, row.sees) if isinstance(row, Comparison) else (row["init"], row.get("sees"))
    return "rgb" if init == "supervised-rgb" and sees in (None, "grey") else sees or "grey"


def own_rows(rows: Iterable[Row]) -> list[Row]:
    """A run's rows without those of its control; all of them for a run that trained nothing, which is its own control."""
    rows = list(rows)
    return [row for row in rows if row["init"] != "random"] or rows


def headline(rows: Iterable[Row]) -> Comparison | None:
    """The line that answers "did the pretext help": pretrained against random weights, linear probe, most labels.

    Falls back to ridge, kNN, few-shot and fine-tune in that order. None where no pretrained result has a control;
    an encoder that was trained with labels answers another question.

    >>> from pretint.evaluation import transfer_row
    >>> rows = [transfer_row(data="toy", protocol="linear", init=init, top1=top1)
    ...         for init, top1 in (("pretrained", 0.60), ("random", 0.45))]
    >>> round(headline(rows).points, 1)
    15.0
    """
    answers = [line for line in compare(rows) if line.init == "pretrained" and line.points is not None]
    ranking = ("linear", "ridge", "knn", "fewshot", "finetune", "probe-finetune")
    return min(answers, key=lambda line: (_rank(line.protocol, ranking), -line.labels), default=None)


@dataclass(frozen=True)
class Difference:
    """How far one line lies above another, seed by seed, in percentage points; `noise` as in :class:`Comparison`."""

    points: float
    points_sd: float | None
    noise: float


def difference(first: Iterable[Row], second: Iterable[Row]) -> Difference | None:
    """The difference of the accuracies of two encoders, judged alike; None where they share no seed.

    >>> from pretint.evaluation import transfer_row
    >>> a, b = ([transfer_row(data="toy", protocol="knn", init="pretrained", top1=top1, seed=seed)
    ...          for seed, top1 in enumerate(accuracies)] for accuracies in ((0.7, 0.8), (0.6, 0.69)))
    >>> difference(a, b).points
    10.5
    """
    others = {row.get("seed"): row for row in second}
    pairs = [(row, others[row.get("seed")]) for row in first if row.get("seed") in others]
    if not pairs:
        return None
    points = [100 * (row["top1"] - other["top1"]) for row, other in pairs]
    sd = statistics.stdev(points) if len(points) > 1 else None
    return Difference(round(statistics.fmean(points), 9), sd, _noise(sd, len(pairs), _margin(*pairs[0])))


def _noise(points_sd: float | None, pairs: int, margin: float | None) -> float:
    known = [] if margin is None else [margin]
    if points_sd is not None:
        known.append(float(stdtrit(pairs - 1, 0.975)) * points_sd / math.sqrt(pairs))
    return max(known, default=UNCLEAR_POINTS)


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows grouped into lines.

    Seeds of one probe may choose different depths and still belong together; a seed that occurs at several depths means
    that the rows list the depths, and then each depth is a line.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        names = (
            "data",
            "fingerprint",
            "protocol",
            "settings",
            "labels",
            "init",
            "pretrained_on",
            "sees",
            "leaks",
            "run",
        )
        key = tuple(json.dumps(row.get(name), sort_keys=True) for name in names)
        groups.setdefault(key, []).append(row)
    lines = []
    for members in groups.values():
        seeds = [row.get("seed") for row in members]
        if len(set(seeds)) == len(seeds):
            lines.append(members)
            continue
        layers: dict[str | None, list[Row]] = {}
        for row in members:
            layers.setdefault(row.get("layer"), []).append(row)
        lines.extend(layers.values())
    return lines


def _rank(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _order(row: Row) -> tuple:
    return (
        str(row["data"]),
        _rank(row["protocol"], PROTOCOLS),
        -float(row.get("labels") or 1),
        _rank(row["init"], INITS),
        str(row.get("pretrained_on") or ""),
        str(row.get("run") or ""),
        str(row.get("layer") or ""),
    )


def _control(row: Row, rows: Sequence[Row]) -> Row | None:
    if row["init"] == "random":
        return None
    wanted = {key: row.get(key) for key in ("data", "protocol", "labels", "seed", "sees", "fingerprint", "settings")}
    controls: list[dict[str, str | None]] = [{"init": "random"}]
    if row["init"] == "pretrained" and row["protocol"] in TUNING:
        controls.append({"init": "supervised-grey", "pretrained_on": None})
    for control in controls:
        found = [r for r in rows if all(r.get(key) == value for key, value in (wanted | control).items())]
        found = [r for r in found if r.get("run") in (None, row.get("run"))]
        same_layer = [r for r in found if r.get("layer") == row.get("layer")]
        if same_layer:
            return same_layer[-1]
        if len(found) == 1:
            return found[0]
    return None


def _comparison(members: Sequence[Row], rows: Sequence[Row]) -> Comparison:
    first = members[0]
    pairs = [(row, control) for row in members if (control := _control(row, rows)) is not None]
    differences = [100 * (row["top1"] - control["top1"]) for row, control in pairs]
    top5 = [row["top5"] for row in members if row.get("top5") is not None]
    layers = {row.get("layer") for row in members}
    errors = [row["ece"] for row in members if row.get("ece") is not None]
    top1 = [row["top1"] for row in members]
    return Comparison(
        data=first["data"],
        protocol=first["protocol"],
        labels=float(first.get("labels") or 1),
        init=first["init"],
        pretrained_on=first.get("pretrained_on"),
        layer=layers.pop() if len(layers) == 1 else "varies",
        seeds=tuple(sorted(row.get("seed") or 0 for row in members)),
        top1=statistics.fmean(top1),
        top1_sd=statistics.stdev(top1) if len(top1) > 1 else None,
        top5=statistics.fmean(top5) if len(top5) == len(members) else None,
        control_top1=statistics.fmean(control["top1"] for _, control in pairs) if pairs else None,
        points=statistics.fmean(differences) if pairs else None,
        points_sd=statistics.stdev(differences) if len(pairs) > 1 else None,
        pairs=len(pairs),
        margin=_margin(*pairs[0]) if pairs else None,
        sees=first.get("sees") or "grey",
        leaks=first.get("leaks"),
        ece=statistics.fmean(errors) if len(errors) == len(members) else None,
        run=first.get("run"),
    )


def _margin(row: Row, control: Row) -> float | None:
    variance = 0.0
    for each in (row, control):
        images = sum(map(sum, each.get("confusion") or []))
        if not images:
            return None
        variance += each["top1"] * (1 - each["top1"]) / images
    return 100 * 1.96 * math.sqrt(variance)
