"""`pretint export`: an encoder in a format that other programs read, checked against the encoder itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..backbones import FORMATS, Export, export_backbone, load_backbone
from ..runtime.encoderfacts import CONFIG, EncoderFacts, find_encoder
from ..runtime.errors import UnknownNameError
from .options import Outcome


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export an encoder.

    Attributes:
        run: the run's folder, or an encoder folder.
        format: onnx, torch-export (programs that take RGB images in 0…1), timm (a folder) or safetensors (bare weights).
        out: the file, or for timm the folder; beside the run by default, under its name.
        maps: programs give each level's feature maps too.
        overwrite: replace what is there.
        json: print as JSON for programs.
    """

    run: Positional[Path]
    format: str
    out: Path | None = None
    maps: bool = False
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UnknownNameError("--format", self.format, FORMATS)


def export(config: ExportConfig) -> Outcome:
    """Exports a run's encoder and checks what was written.

    Raises:
        RunFolderError: the folder is no run or encoder, or is damaged.
        ArgumentError: the target exists, or packages are missing.
        ExportError: the encoder can't be exported to this format.
    """
    folder = find_encoder(config.run)
    facts = EncoderFacts.read(folder)
    encoder = load_backbone(folder)
    out = config.out or _beside(folder, config.format)
    made = export_backbone(
        encoder, out, config.format, maps=config.maps, image_size=facts.image_size, overwrite=config.overwrite
    )
    results = {
        "exported": str(made.path), "format": made.format, "relative_error": made.error,
        "smallest_image": made.smallest, "largest_image": made.largest,
    }  # fmt: skip
    return Outcome(
        results, [], [f"Exported {made.path}{_takes(made)}; its features differ by {made.error:.1e} at most."]
    )


def _beside(folder: Path, format: str) -> Path:
    """Next to the run, not in it: a run's folder holds nothing but what the run left."""
    named = folder.parent if folder.name == "encoder" and (folder.parent / CONFIG).is_file() else folder
    if named.name in ("", ".."):
        named = named.resolve()
    return named.with_name(named.name + FORMATS[format])


def _takes(made: Export) -> str:
    if made.smallest is None:
        return ""
    if made.smallest == made.largest:
        return f" for images of {made.smallest} × {made.smallest} pixels"
    limit = "" if made.largest is None else f" up to {made.largest} × {made.largest}"
    return f" for images from {made.smallest} × {made.smallest} pixels{limit}"
