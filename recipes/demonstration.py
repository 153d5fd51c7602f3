"""`pretint demo`: pretrain on generated scenes, probe, and show that painting taught the encoder something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ArgumentError
from ..runtime.runfolder import RunFolder
from .options import MachineOptions, Outcome, check_seed, positive
from .pretraining import pretrain
from .probing import ProbeConfig, probe
from .reporting import ReportConfig, report
from .settings import PretrainConfig

_DEFAULT_OUT = Path("runs/demo")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(MachineOptions):
    """Pretrain a small encoder on generated scenes, probe it beside an untrained one, and write a report page.

    Attributes:
        out: the run's folder; in the default one an earlier demo is replaced.
        overwrite: replace the run in another --out.
        epochs: passes over the 20,000 generated training images.
        labels: share of the training labels that the probe sees.
        seed: of everything random.
    """

    out: Path = _DEFAULT_OUT
    epochs: int = 6
    labels: float = 0.1
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        positive(self, "epochs")
        check_seed(self.seed)
        if not 0 < self.labels <= 1:
            raise ArgumentError(f"--labels: {self.labels} must be above 0 and at most 1.")


def demo(config: DemoConfig) -> Outcome:
    """Runs pretrain, probe and report on the toy data; under three minutes on two processor cores."""
    overwrite = config.overwrite or config.out == _DEFAULT_OUT
    common = {
        "device": config.device,
        "precision": config.precision,
        "seed": config.seed,
        "deterministic": config.deterministic,
    }
    pretraining = PretrainConfig(
        data="toy", task="palette", backbone="pretint_unet", width=16, epochs=config.epochs, palette_space="cbcr",
        paint_every=1, out=config.out, overwrite=overwrite, **common,
    )  # fmt: skip
    painted = pretrain(pretraining)
    probed = probe(ProbeConfig(run=config.out, labels=config.labels, **common))
    page = report(ReportConfig(runs=(config.out,)))
    pictures = RunFolder(config.out).figures / "pictures.png"
    lines = [
        f"The pictures it painted: {pictures}",
        *page.lines,
        f"The encoder, for your own project: {RunFolder(config.out).encoder}",
    ]
    return Outcome(probed.results, [*painted.tables, *probed.tables], lines)
