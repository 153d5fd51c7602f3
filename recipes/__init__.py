"""The verbs as functions: each takes its config and gives an :class:`Outcome`.

Nothing is imported before it is asked for, so that `pretint --help` and `pretint runs` do without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import BackbonesConfig, TasksConfig, backbones, tasks
    from .colourizing import ColourizeConfig, colourize
    from .demonstration import DemoConfig, demo
    from .evaluating import EvaluateConfig, evaluate
    from .finetuning import FinetuneConfig, finetune
    from .listing import RunsConfig, runs
    from .opening import Run, open_run
    from .options import Outcome
    from .pretraining import pretrain
    from .probing import ProbeConfig, probe
    from .reporting import ReportConfig, report
    from .settings import PretrainConfig

_HOME = {
    "BackbonesConfig": "catalogue", "backbones": "catalogue", "TasksConfig": "catalogue", "tasks": "catalogue",
    "ColourizeConfig": "colourizing", "colourize": "colourizing",
    "DemoConfig": "demonstration", "demo": "demonstration",
    "EvaluateConfig": "evaluating", "evaluate": "evaluating",
    "FinetuneConfig": "finetuning", "finetune": "finetuning",
    "RunsConfig": "listing", "runs": "listing",
    "Outcome": "options",
    "PretrainConfig": "settings", "pretrain": "pretraining",
    "ProbeConfig": "probing", "probe": "probing",
    "ReportConfig": "reporting", "report": "reporting",
    "Run": "opening", "open_run": "opening",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


__all__ = [
    "BackbonesConfig",
    "ColourizeConfig",
    "DemoConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "Outcome",
    "PretrainConfig",
    "ProbeConfig",
    "ReportConfig",
    "Run",
    "RunsConfig",
    "TasksConfig",
    "backbones",
    "colourize",
    "demo",
    "evaluate",
    "finetune",
    "open_run",
    "pretrain",
    "probe",
    "report",
    "runs",
    "tasks",
]
