"""What can a classifier make of an encoder? Pooled features, linear probes, fine-tuning."""

from .features import Features, extract_features
from .finetune import FineTuneResult, fine_tune
from .linear import ProbeResult, linear_probe

__all__ = ["Features", "FineTuneResult", "ProbeResult", "extract_features", "fine_tune", "linear_probe"]
