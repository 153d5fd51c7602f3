"""`pretint demo`: pretrain on generated scenes, probe, and show that painting taught the encoder something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.runfolder import RunFolder
from .options import MachineOptions, Outcome, positive
from .pretraining import pretrain
from .probing import ProbeConfig, probe
from .reporting import ReportConfig, report
from .settings import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class DemoConfig(MachineOptions):
    """Pretrain a small encoder on generated scenes, probe it beside an untrained one, and write a report page.

    Attributes:
        out: the run's folder; what an earlier demo left there is replaced.
        epochs: passes over the 20,000 generated training images.
        seed: of everything random.
    """

    out: Path = Path("runs/demo")
    epochs: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "epochs")


def demo(config: DemoConfig) -> Outcome:
    """Runs pretrain, probe and report on the toy data; under three minutes on two processor cores."""
    common = {"device": config.device, "precision": config.precision, "seed": config.seed}
    pretraining = PretrainConfig(
        data="toy", task="palette", backbone="pretint_unet", width=16, epochs=config.epochs, palette_space="cbcr",
        paint_every=1, out=config.out, overwrite=True, **common,
    )  # fmt: skip
    painted = pretrain(pretraining)
    probed = probe(ProbeConfig(run=config.out, **common))
    page = report(ReportConfig(runs=(config.out,)))
    pictures = RunFolder(config.out).figures / "pictures.png"
    lines = [
        f"The pictures it painted: {pictures}",
        *page.lines,
        f"The encoder, for your own project: {RunFolder(config.out).encoder}",
    ]
    return Outcome(probed.results, [*painted.tables, *probed.tables], lines)
