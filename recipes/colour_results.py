"""How well does a run paint a data set? One entry for `results.json`, and pictures to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from ..colour import ab_bins, to_uint8
from ..data import ImageSource
from ..evaluation import Classify, ColourQuality, RecolourQuality, contact_sheet, grey_picture, no_recolour
from ..pretext import ANNEALED, Painter
from ..runtime.errors import RunFolderError
from ..runtime.files import write_atomically
from ..runtime.processes import share
from ..runtime.runfolder import RunFolder
from ..runtime.sealed import read_sealed, write_sealed

SHOWN_PICTURES = 12


def measure_colour(
    painter: Painter,
    source: ImageSource,
    split: str,
    bin_prior: Float64[Tensor, " q"] | None = None,
    classify: Classify | None = None,
) -> dict[str, Any]:
    """Colour quality over all images of a source, with baselines; keys as in `results.json`. Several processes each measure their
    share of the images, and all of them must call this.

    Args:
        painter: its `decoding` is set.
        source, split: what is painted, and what the split is called.
        bin_prior: of the training pictures, from :func:`read_bin_prior`.
        classify: judges the painted pictures of a labelled source by their classes; see :class:`RecolourQuality`.
    """
    task, labels = painter.task, source.labels
    recolour = None if classify is None or labels is None else RecolourQuality(classify)
    quality = ColourQuality(task.palette, bin_prior, None if labels is None else int(labels.max()) + 1)
    own = share(len(source))
    done = own.start
    for true, painted, predictions in painter.predictions(source, torch.arange(own.start, own.stop)):
        classes = None if labels is None else labels[done : done + len(true)].to(true.device)
        quality.update(painted, true, predictions if task.palette is not None else None, task.grey, classes)
        if recolour is not None and classes is not None:
            recolour.update(painted, true, classes, task.grey)
        done += len(true)
    quality.reduce()
    if recolour is not None:
        recolour.reduce()
    palette = None if task.palette is None else f"{task.palette.space}-{task.palette.size}"
    about = {
        "data": source.name,
        "fingerprint": source.fingerprint,
        "split": split,
        "task": task.name,
        "palette": palette,
        **_way_of_painting(painter),
    }
    names = {"class_names": list(source.class_names)} if source.class_names else {}
    judged = no_recolour() if recolour is None else recolour.compute()
    return {**about, **names, "images": len(source), **quality.compute(), **judged}


def _way_of_painting(painter: Painter) -> dict[str, Any]:
    """What was chosen about the painting; None for what the task can't be told, or does not look at."""
    decoding = painter.decoding
    assert decoding is not None
    looks = {"decode": decoding.mode, "temperature": decoding.temperature if decoding.mode in ANNEALED else None}
    told = looks if painter.is_told else dict.fromkeys(looks)
    return {**told, "saturation": decoding.saturation}


def write_bin_prior(folder: RunFolder, prior: Float64[Tensor, " q"]) -> None:
    """Keeps how frequent each ab bin is among the training pixels."""
    write_sealed(folder.chroma, {"bin_prior": prior.tolist()})


def read_bin_prior(folder: RunFolder) -> Float64[Tensor, " q"] | None:
    """What :func:`write_bin_prior` kept; None for a run that did not.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not folder.chroma.exists():
        return None
    try:
        prior = torch.tensor(read_sealed(folder.chroma)["bin_prior"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{folder.chroma} can't be used ({error!r}); delete it, or run again.") from error
    if len(prior) != len(ab_bins()):
        raise RunFolderError(f"{folder.chroma} holds {len(prior)} shares, not one an ab bin; delete it, or run again.")
    return prior


def save_pictures(
    folder: RunFolder, name: str, rgb: UInt8[Tensor, "b 3 h w"], painter: Painter
) -> UInt8[np.ndarray, "height width 3"]:
    """Writes grey | painted | true as `figures/<name>.npz` (for reports, with how sure the network is where its task
    predicts a distribution) and `.png` (for people); returns the sheet."""
    rgb = rgb.to(painter.compute.device)
    grey = to_uint8(grey_picture(rgb, painter.task.grey))
    rows = {"grey": grey, "painted": painter.paint(rgb), "true": rgb}
    arrays = {key: value.cpu().numpy() for key, value in rows.items()}
    sure = {key: value.cpu().numpy() for key, value in how_sure(painter, rgb).items()}
    write_atomically(folder.figures / f"{name}.npz", lambda path: save_arrays(path, arrays | sure))
    sheet = contact_sheet(list(arrays.values()), labels=list(arrays))
    write_atomically(folder.figures / f"{name}.png", lambda path: sheet.save(path, format="PNG"))
    return np.asarray(sheet.convert("RGB"))


def how_sure(painter: Painter, rgb: UInt8[Tensor, "b 3 h w"]) -> dict[str, UInt8[Tensor, "b h w"]]:
    """`confidence` of each pixel in 0…255; nothing for a task that predicts no distribution over colours."""
    if painter.painting_task.palette is None:
        return {}
    return {"confidence": to_uint8(painter.confidence(rgb))[:, 0]}


def spread_ids(images: int) -> Int64[Tensor, " n"]:
    """A handful of image ids spread evenly over a source, so that every class shows."""
    return torch.linspace(0, images - 1, min(SHOWN_PICTURES, images), dtype=torch.float64).round().long()


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file under whatever name the path has; numpy alone would add an ending."""
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
