"""How is a trained run asked to paint? The options that evaluate and colourize share."""

from __future__ import annotations

from dataclasses import dataclass

from ..pretext import Decoding
from .opening import Run
from .settings import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class PaintingOptions:
    """How to paint.

    Attributes:
        decode: mode, mean, annealed or sample: how a distribution over colours is painted; as the run was set by default.
        temperature: of annealed and sample, above 0 and at most 1; as the run was set by default.
        saturation: what the painted chroma is multiplied with; 0 paints grey.
    """

    decode: str | None = None
    temperature: float | None = None
    saturation: float = 1.0

    def __post_init__(self) -> None:
        self.decoding(Decoding())  # what is out of range is refused before anything is read

    def decoding(self, usual: Decoding) -> Decoding:
        """The way of painting; where the options say nothing, the usual one.

        Raises:
            UnknownNameError, ArgumentError: as of :class:`Decoding`.
        """
        temperature = usual.temperature if self.temperature is None else self.temperature
        return Decoding(self.decode or usual.mode, temperature, self.saturation)

    def named(self) -> str:
        """What differs from the run's own way, as part of a file's name: "" or, for one, "-annealed-t0.5"."""
        parts = [
            self.decode,
            self.temperature and f"t{self.temperature}",
            self.saturation != 1 and f"s{self.saturation}",
        ]
        return "".join(f"-{part}" for part in parts if part)


def trained_decoding(config: PretrainConfig) -> Decoding:
    """The way of painting that a run was set to."""
    return Decoding(config.decode, config.temperature)


def paint_as_asked(run: Run, options: PaintingOptions) -> None:
    """Has a run's painter paint as the options say.

    Raises:
        ArgumentError: the run paints nothing, or its task can't be told what the options say.
    """
    if options.decode is not None or options.temperature is not None:
        run.painter.check_told()
    run.painter.decoding = options.decoding(trained_decoding(run.config))
