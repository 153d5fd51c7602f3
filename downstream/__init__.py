"""What can a classifier make of an encoder? Pooled features, probes, fine-tuning, a transformer for scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .features import Features, extract_features
from .fewshot import FewShotResult, few_shot
from .finetune import FineTuneResult, fine_tune
from .health import FeatureHealth, alignment, feature_health
from .linear import SOLVERS, linear_probe
from .neighbours import KS, NeighboursResult, knn
from .protocol import HYPERCOLUMN, ProbeResult
from .ridge import ridge_probe

if TYPE_CHECKING:
    from .transformer import PretintFeatures

__all__ = [
    "HYPERCOLUMN",
    "KS",
    "SOLVERS",
    "FeatureHealth",
    "Features",
    "FewShotResult",
    "FineTuneResult",
    "NeighboursResult",
    "PretintFeatures",
    "ProbeResult",
    "alignment",
    "extract_features",
    "feature_health",
    "few_shot",
    "fine_tune",
    "knn",
    "linear_probe",
    "ridge_probe",
]


def __getattr__(name: str) -> Any:
    """PretintFeatures on demand: scikit-learn takes a second to import, and most who import this package never ask for it."""
    if name == "PretintFeatures":
        from .transformer import PretintFeatures

        return PretintFeatures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
