"""The verbs as functions: each takes its config and gives an :class:`Outcome`.

Nothing is imported before it is asked for, so that `pretint --help` and `pretint runs` do without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmarking import BenchmarkConfig, benchmark
    from .catalogue import BackbonesConfig, PresetsConfig, TasksConfig, backbones, presets, tasks
    from .checking import DataCheckConfig, check_data
    from .colourizing import ColourizeConfig, colourize
    from .demonstration import DemoConfig, demo
    from .describing import InfoConfig, info
    from .evaluating import EvaluateConfig, evaluate
    from .exporting import ExportConfig, export
    from .finetuning import FinetuneConfig, finetune
    from .listing import RunsConfig, runs
    from .opening import Run, open_run
    from .options import Outcome
    from .packing import PackConfig, pack
    from .pretraining import pretrain
    from .probing import ProbeConfig, probe
    from .published import PRESETS, preset_config, typed_options, typed_preset
    from .pushing import PushConfig, push
    from .reporting import ReportConfig, report
    from .settings import PretrainConfig
    from .together import start_processes
    from .transferring import TransferConfig, transfer

_HOME = {
    "BenchmarkConfig": "benchmarking", "benchmark": "benchmarking",
    "BackbonesConfig": "catalogue", "backbones": "catalogue", "TasksConfig": "catalogue", "tasks": "catalogue",
    "DataCheckConfig": "checking", "check_data": "checking",
    "ColourizeConfig": "colourizing", "colourize": "colourizing",
    "DemoConfig": "demonstration", "demo": "demonstration",
    "EvaluateConfig": "evaluating", "evaluate": "evaluating",
    "ExportConfig": "exporting", "export": "exporting",
    "FinetuneConfig": "finetuning", "finetune": "finetuning",
    "InfoConfig": "describing", "info": "describing",
    "RunsConfig": "listing", "runs": "listing",
    "Outcome": "options",
    "PackConfig": "packing", "pack": "packing",
    "PresetsConfig": "catalogue", "presets": "catalogue",
    "PRESETS": "published", "preset_config": "published", "typed_options": "published", "typed_preset": "published",
    "PretrainConfig": "settings", "pretrain": "pretraining",
    "ProbeConfig": "probing", "probe": "probing",
    "PushConfig": "pushing", "push": "pushing",
    "ReportConfig": "reporting", "report": "reporting",
    "Run": "opening", "open_run": "opening",
    "start_processes": "together",
    "TransferConfig": "transferring", "transfer": "transferring",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


__all__ = [
    "PRESETS",
    "BackbonesConfig",
    "BenchmarkConfig",
    "ColourizeConfig",
    "DataCheckConfig",
    "DemoConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FinetuneConfig",
    "InfoConfig",
    "Outcome",
    "PackConfig",
    "PresetsConfig",
    "PretrainConfig",
    "ProbeConfig",
    "PushConfig",
    "ReportConfig",
    "Run",
    "RunsConfig",
    "TasksConfig",
    "TransferConfig",
    "backbones",
    "benchmark",
    "check_data",
    "colourize",
    "demo",
    "evaluate",
    "export",
    "finetune",
    "info",
    "open_run",
    "pack",
    "preset_config",
    "presets",
    "pretrain",
    "probe",
    "push",
    "report",
    "runs",
    "start_processes",
    "tasks",
    "transfer",
    "typed_options",
    "typed_preset",
]
