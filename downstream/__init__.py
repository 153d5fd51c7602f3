"""What can a classifier make of an encoder? Pooled features, linear probes, fine-tuning, a transformer for scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .features import Features, extract_features
from .finetune import FineTuneResult, fine_tune
from .linear import ProbeResult, linear_probe

if TYPE_CHECKING:
    from .transformer import PretintFeatures

__all__ = [
    "Features",
    "FineTuneResult",
    "PretintFeatures",
    "ProbeResult",
    "extract_features",
    "fine_tune",
    "linear_probe",
]


def __getattr__(name: str) -> Any:
    """PretintFeatures on demand: scikit-learn takes a second to import, and most who import this package never ask for it."""
    if name == "PretintFeatures":
        from .transformer import PretintFeatures

        return PretintFeatures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
