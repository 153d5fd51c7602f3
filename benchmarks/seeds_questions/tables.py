"""How are measures written as Markdown tables?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pretint.evaluation.tables import COLOUR_BASELINES, COLOUR_METRICS, baseline_value

_METRICS = {metric.key: metric for metric in COLOUR_METRICS}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table.

    >>> table(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    head, *body = (f"| {' | '.join(cells)} |" for cells in (header, *rows))
    return [head, "|" + "---|" * len(header), *body]


def colour_comparison(
    entries: Mapping[str, Mapping[str, Any]], baselines: Sequence[str] = ("grey", "true")
) -> list[str]:
    """Colour qualities of the same pictures side by side: a line a metric that all of them have, the baselines last."""
    first = next(iter(entries.values()))
    metrics = [m for m in COLOUR_METRICS if all(entry.get(m.key) is not None for entry in entries.values())]
    rows = [
        [
            metric.title,
            *(metric.text(entry[metric.key]) for entry in entries.values()),
            *(metric.text(baseline_value(first, metric, baseline)) for baseline in baselines),
        ]
        for metric in metrics
    ]
    return table(["", *entries, *(COLOUR_BASELINES[baseline] for baseline in baselines)], rows)


def measure(entry: Mapping[str, Any], key: str) -> str:
    """A measure of colour quality as the library's own tables show it; `–` for what does not apply."""
    return _METRICS[key].text(entry.get(key))


def beside(entry: Mapping[str, Any], key: str, baseline: str) -> str:
    """A measure with its baseline in brackets."""
    metric = _METRICS[key]
    return f"{metric.text(entry.get(key))} ({metric.text(baseline_value(entry, metric, baseline))})"
