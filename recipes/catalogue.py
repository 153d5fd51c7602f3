"""`pretint backbones`, `pretint presets` and `pretint tasks`: what there is to choose from."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from tyro.conf import Positional

from ..backbones import OUR_BACKBONES, create_backbone, list_backbones
from ..pretext import list_tasks
from .options import Outcome
from .published import PRESETS


@dataclass(frozen=True, kw_only=True)
class BackbonesConfig:
    """List encoders.

    Attributes:
        pattern: names to list, such as "timm/resnet*"; our own by default.
        json: print as JSON for programs.
    """

    pattern: Positional[str] = "pretint_*"
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class TasksConfig:
    """List colour tasks.

    Attributes:
        json: print as JSON for programs.
    """

    json: bool = False


@dataclass(frozen=True, kw_only=True)
class PresetsConfig:
    """List presets.

    Attributes:
        json: print as JSON for programs.
    """

    json: bool = False


def backbones(config: BackbonesConfig) -> Outcome:
    """Encoders whose names fit the pattern; ours with their size."""
    names = fnmatch.filter(list_backbones(timm_models=True), config.pattern)
    table = Table("backbone", "what", "parameters", "channels", "reductions")
    rows = []
    for name in names:
        row: dict[str, Any] = {"name": name, "what": OUR_BACKBONES.get(name, "from timm")}
        if name in OUR_BACKBONES:
            encoder = create_backbone(name)
            row |= {
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "channels": [level["num_chs"] for level in encoder.feature_info],  # type: ignore[union-attr]
                "reductions": [level["reduction"] for level in encoder.feature_info],  # type: ignore[union-attr]
            }
        rows.append(row)
        sizes = (row.get("parameters"), row.get("channels"), row.get("reductions"))
        table.add_row(row["name"], row["what"], *("–" if size is None else f"{size}" for size in sizes))
    lines = [f'{len(rows)} encoders; every timm model with feature maps works too: pretint backbones "timm/*".']
    return Outcome({"backbones": rows}, [table] if rows else [], lines)


def tasks(config: TasksConfig) -> Outcome:
    """Colour tasks, each with a sentence."""
    table = Table("task", "what it asks of an encoder")
    for name, description in list_tasks().items():
        table.add_row(name, description)
    return Outcome({"tasks": list_tasks()}, [table])


def presets(config: PresetsConfig) -> Outcome:
    """Presets, each with a sentence and the figure to expect."""
    table = Table("preset", "what it is", "expected")
    for name, preset in PRESETS.items():
        table.add_row(name, preset.about, preset.expected)
    listed = {
        name: {"about": preset.about, "expected": preset.expected, "settings": preset.settings}
        for name, preset in PRESETS.items()
    }
    return Outcome({"presets": listed}, [table])
