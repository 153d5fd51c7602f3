"""Which pictures does a run paint worst, and which best? A sample is measured, and both ends are kept for the report."""

from __future__ import annotations

import torch

from ..colour import to_uint8
from ..data import ImageSource
from ..evaluation import grey_picture, picture_delta_e2000, worst_and_best
from ..pretext import Painter
from ..runtime.files import write_atomically
from ..runtime.runfolder import RunFolder
from .colour_results import how_sure, save_arrays

MOST_PICTURES = 2000


def save_extremes(folder: RunFolder, source: ImageSource, painter: Painter) -> None:
    """Paints at most 2,000 pictures spread over a source and writes the six worst and the six best by their mean ΔE2000.

    `figures/extremes.npz`: `grey`, `painted`, `true` (and `confidence` where the task has one) of the worst, worst first,
    then of the best; `delta_e2000` of the whole sample.
    """
    ids = torch.linspace(0, len(source) - 1, min(MOST_PICTURES, len(source)), dtype=torch.float64).round().long()
    errors = [picture_delta_e2000(painted, true).cpu() for true, painted, _ in painter.predictions(source, ids)]
    if not errors:
        return
    sample = torch.cat(errors)
    worst, best = worst_and_best(sample)
    if not len(worst):
        return
    true = source.gather(ids[torch.cat((worst, best))]).to(painter.compute.device)
    rows = {
        "grey": to_uint8(grey_picture(true, painter.task.grey)),
        "painted": painter.paint(true),
        "true": true,
        **how_sure(painter, true),
        "delta_e2000": sample,
    }
    arrays = {key: value.cpu().numpy() for key, value in rows.items()}
    write_atomically(folder.figures / "extremes.npz", lambda path: save_arrays(path, arrays))
