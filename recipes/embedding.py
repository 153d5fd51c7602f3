"""Which of a run's test pictures are alike for its encoder? The map for the report page, and TensorBoard's projector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from ..backbones import load_backbone
from ..colour import to_float, to_uint8
from ..data import ImageSource
from ..downstream import extract_features
from ..evaluation import principal_components, project
from ..runtime.device import Compute
from ..runtime.errors import RunFolderError
from ..runtime.files import write_atomically
from ..runtime.npz import NPZ_DAMAGE, open_npz
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import note, write_projector
from .colour_results import save_arrays
from .opening import read_settings
from .training_data import reopen_judged_source

MOST_PICTURES = 2000
_THUMBNAIL = 32


def embed(folder: RunFolder, compute: Compute, root: Path | None = None) -> None:
    """Maps at most 2,000 of a run's test pictures (else of those it held out) by the global averages of all stages together.

    No stage is chosen, since the test pictures' classes would choose it. Writes `figures/embedding.npz` for the report, and the
    features' principal components, thumbnails and classes for TensorBoard's projector.

    Raises:
        RunFolderError: the run is not finished.
        PretintError: its data or its encoder can't be read.
    """
    if not folder.encoder.is_dir():
        raise RunFolderError(
            f"{folder.path} is not finished; go on with pretint pretrain --resume --out {folder.path}."
        )
    settings = read_settings(folder)
    source = reopen_judged_source(replace(settings, root=root or settings.root), compute)
    ids = torch.linspace(0, len(source) - 1, min(MOST_PICTURES, len(source)), dtype=torch.float64).round().long()
    source = source.subset(ids.to(compute.device))
    note(f"report: a map of {len(source)} pictures of {source.name}, by the features of {folder.path}")
    features = extract_features(
        load_backbone(folder.encoder), source, device=compute.device, autocast=compute.bf16, grids=(1,)
    )
    array = torch.cat(list(features.arrays.values()), dim=1).numpy()
    thumbnails = _thumbnails(source)
    labels = np.full(len(source), -1) if features.labels is None else features.labels.numpy()
    names = [str(name) for name in source.class_names or ()]
    arrays = {
        "points": project(array), "labels": labels, "class_names": np.array(names, dtype=np.str_),
        "thumbnails": thumbnails, "layer": np.array("all stages"),
    }  # fmt: skip
    write_atomically(folder.figures / "embedding.npz", lambda path: save_arrays(path, arrays))
    words = ["–" if label < 0 else names[label] if label < len(names) else str(label) for label in labels.tolist()]
    write_projector(folder, principal_components(array), thumbnails, words)


def read_embedding(folder: RunFolder) -> dict[str, Any] | None:
    """What :func:`embed` wrote for the report; None for a run that was not mapped.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder.figures / "embedding.npz"
    if not path.is_file():
        return None
    try:
        with open_npz(path) as file:
            arrays = {name: file[name] for name in ("points", "labels", "class_names", "thumbnails", "layer")}
    except NPZ_DAMAGE as error:
        raise RunFolderError(f"{path} can't be read ({error}); run pretint report --embedding, or delete it.") from None
    return arrays | {"class_names": arrays["class_names"].tolist(), "layer": str(arrays["layer"])}


def _thumbnails(source: ImageSource) -> UInt8[np.ndarray, "n 3 side side"]:
    """The pictures as small squares, at most 32 pixels a side."""
    found: list[Tensor] = []
    for ids in torch.arange(len(source)).split(256):
        rgb = source.gather(ids)
        side = min(_THUMBNAIL, *rgb.shape[-2:])
        if rgb.shape[-2:] != (side, side):
            rgb = to_uint8(F.interpolate(to_float(rgb), size=(side, side), mode="bilinear", antialias=True).clamp(0, 1))
        found.append(rgb.cpu())
    return torch.cat(found).numpy()
