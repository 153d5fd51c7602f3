"""How does the health of several encoders' features look as a table in the terminal?"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, stdev

from rich import box
from rich.table import Table
from rich.text import Text

from .transfer import Row, init_name

# key of results.json "features" -> heading and format of its numbers
_FIGURES = {
    "effective_rank": ("effective rank", "{:.1f}"),
    "dead_channels": ("dead channels", "{:.1%}"),
    "uniformity": ("uniformity ↓", "{:.2f}"),
    "alignment": ("alignment ↓", "{:.3f}"),
}
FEATURE_FIGURES = tuple(name for name, _ in _FIGURES.values())


def features_table(entries: Iterable[Row], title: str = "Feature health") -> Table:
    """Entries of `results.json` "features" as a table: a line for each encoder and layer, mean ± sd over seeds."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("encoder")
    table.add_column("layer", no_wrap=True)
    for name in FEATURE_FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for encoder, layer, *cells in feature_lines(entries):
        table.add_row(Text(encoder if encoder != previous else ""), Text(layer), *map(Text, cells))
        previous = encoder
    return table


def feature_lines(entries: Iterable[Row]) -> list[tuple[str, ...]]:
    """Encoder, layer and each of `FEATURE_FIGURES` as text, for each encoder and layer: mean ± sd over seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for entry in entries:
        name = init_name(entry["init"], "linear", entry.get("sees") or "grey", entry.get("leaks"))
        encoder = f"{entry['run']}: {name}" if entry.get("run") else name
        groups.setdefault((encoder, str(entry["layer"])), []).append(entry)
    return [
        (encoder, layer, *(_spread([entry.get(key) for entry in members], form) for key, (_, form) in _FIGURES.items()))
        for (encoder, layer), members in groups.items()
    ]


def _spread(values: list[float | None], form: str) -> str:
    """Mean ± standard deviation of the numbers that are known; `–` for none."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {form.format(stdev(known))}" if len(known) > 1 else ""
    return form.format(fmean(known)) + spread
