"""`pretint info`: what an encoder is, and what was measured of it. Does without torch, so it answers at once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from ..runtime.encoderfacts import WEIGHTS, EncoderFacts, count_parameters, find_encoder
from ..runtime.results import read_results
from .options import Outcome

_ACCURACY = ("protocol", "data", "labels", "init", "layer", "top1", "top5")
_COLOUR = ("data", "split", "decode", "temperature", "saturation", "bits_per_pixel", "ab_rmse", "delta_e2000")


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Describe an encoder.

    Attributes:
        folder: the run's folder, or an encoder folder.
        json: print as JSON for programs.
    """

    folder: Positional[Path]
    json: bool = False


def info(config: InfoConfig) -> Outcome:
    """What an encoder's folder and, of a run, its results tell; the weights are neither loaded nor verified.

    Raises:
        RunFolderError: the folder is no run or encoder, or is damaged.
    """
    folder = find_encoder(config.folder)
    facts = EncoderFacts.read(folder)
    parameters = count_parameters(folder / WEIGHTS)
    measured = read_results(config.folder) if folder != config.folder else {"transfer": [], "colour": []}
    accuracies, colours = (
        [{key: row.get(key) for key in keys} for row in measured[part] if isinstance(row, dict)]
        for part, keys in (("transfer", _ACCURACY), ("colour", _COLOUR))
    )
    results = {
        "encoder": str(folder), **asdict(facts), "parameters": parameters, "accuracies": accuracies, "colour": colours,
    }  # fmt: skip
    tables = [_about(facts, parameters)]
    tables += [_rows("accuracy", _ACCURACY, accuracies)] if accuracies else []
    tables += [_rows("colour", _COLOUR, colours)] if colours else []
    return Outcome(results, tables)


def _about(facts: EncoderFacts, parameters: int) -> Table:
    card = dict(facts.card)
    options = ", ".join(f"{key} {value}" for key, value in facts.options.items())
    rows = [
        ("architecture", facts.architecture),
        ("made of", f"{facts.backbone} ({options})" if options else facts.backbone),
        ("stem", facts.stem),
        ("parameters", f"{parameters:,}"),
        ("features", facts.num_features),
        *((name, card.pop(name, None)) for name in ("task", "data", "epochs")),
        ("input channels", facts.in_chans),
        ("grey formula", facts.grey if facts.chroma is None else f"{facts.grey}, chroma {facts.chroma}"),
        ("mean, std", f"{', '.join(map(_text, facts.mean))}; {', '.join(map(_text, facts.std))}"),
        ("image size", f"{facts.image_size} × {facts.image_size}{' only' if facts.fixed_size else ''}"),
        *((name.replace("_", " "), value) for name, value in card.items()),
        ("weights, SHA-256", facts.checksum),
        ("saved by", f"Pretint {facts.version}"),
    ]
    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(Text(_text(name)), Text(_text(value)))  # as text: square brackets in a card are no markup
    return table


def _rows(title: str, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> Table:
    table = Table(*(key.replace("_", " ") for key in keys), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(_text(row[key], share=key in ("top1", "top5", "labels"))) for key in keys))
    return table


def _text(value: Any, share: bool = False) -> str:
    """A value on one line; what a card holds must not steer a terminal."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if share and value <= 1 else f"{value:.4g}"
    words = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())
