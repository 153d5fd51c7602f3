"""What do more epochs do? The same pictures painted by a network before its first step and after 1, 5, 10 and 25 epochs."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from pretint.data import Batch, ImageSource
from pretint.evaluation import ColourQuality, contact_sheet
from pretint.pretext import Painter
from pretint.recipes import Run
from pretint.recipes.opening import make_model
from pretint.recipes.training_data import held_out_ids, open_training_source

from .bench import Answer, Bench, Picture
from .drawing import chart_style, rendered
from .tables import table

_EPOCHS = (1, 5, 10, 25)
_BATCH = 250


def more_epochs(bench: Bench) -> Answer:
    # Held out pictures give a validation loss, which the preset by itself has not.
    run = bench.preset("toronto-unet", "toronto-unet-epochs", holdout=0.1, paint_every=5)
    figures = {epoch: run.folder.figures / f"epoch-{epoch:04d}.npz" for epoch in _EPOCHS}
    saved = {epoch: np.load(path, allow_pickle=False) for epoch, path in figures.items() if path.is_file()}
    true, grey = (torch.from_numpy(next(iter(saved.values()))[row]) for row in ("true", "grey"))
    before = untrained(run, bench)
    painted = {0: before.paint(true.to(bench.compute.device)).cpu()}
    painted |= {epoch: torch.from_numpy(arrays["painted"]) for epoch, arrays in saved.items()}

    source = open_training_source(run.config, bench.compute)
    held = source.subset(held_out_ids(run.config, source)[1])
    start = mean_loss(before, held)
    log = {int(row["epoch"]): row for row in run.folder.read_metrics()}
    rows = []
    for epoch, pictures in painted.items():
        quality = ColourQuality()
        quality.update(pictures, true)
        measured = quality.compute()
        losses = ["–", f"{start:.3f}"] if epoch == 0 else [
            f"{log[epoch][name]:.3f}" for name in ("train_loss", "validation_loss")
        ]  # fmt: skip
        rows.append([str(epoch), *losses, f"{measured['ab_rmse']:.1f}", f"{measured['colourfulness']:.1f}"])
    header = ["epochs", "training loss", "validation loss", "ab-RMSE of the pictures below", "their colourfulness"]
    lines = [
        *table(header, rows),
        "",
        f"The true pictures have a colourfulness of {measured['colourfulness_true']:.1f}.",
    ]

    sheet_rows = {"grey": grey, **{f"epoch {epoch}": pictures for epoch, pictures in painted.items()}, "true": true}
    sheet = contact_sheet(list(sheet_rows.values()), list(sheet_rows), scale=2)
    caption = f"Test horses grey, painted after {', '.join(map(str, painted))} epochs, and true"
    curve = _curve(log, start, len(held))
    return Answer(lines, [
        Picture("epochs", caption, sheet),
        Picture("epochs-loss", "Training and validation loss by epoch", curve),
    ])  # fmt: skip


def untrained(run: Run, bench: Bench) -> Painter:
    """The run's network as it was before the first step: the same seed draws the same weights."""
    torch.manual_seed(run.config.seed)
    model, task = make_model(run.config, run.painter.task.palette)
    return Painter(model, task, bench.compute)


def mean_loss(painter: Painter, source: ImageSource) -> float:
    """The task's loss over all pictures of a source, in evaluation mode."""
    sums = torch.zeros(2, device=painter.compute.device)
    for ids in torch.arange(len(source)).split(_BATCH):
        rgb = source.gather(ids)
        targets = painter.task.split(Batch(rgb, ids))[1]
        loss = painter.task.loss(painter.predict(rgb), targets)
        sums += torch.stack([loss.numerator, loss.denominator])
    return float(sums[0] / sums[1])


def _curve(log: dict[int, dict[str, float]], start: float, held: int) -> Image.Image:
    with chart_style():
        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        axis = figure.subplots()
        axis.plot(
            [0, *log], [start, *(row["validation_loss"] for row in log.values())], "o-", label=f"{held} held-out horses"
        )
        axis.plot(list(log), [row["train_loss"] for row in log.values()], "--", label="training (mean over the epoch)")
        axis.set_xlabel("epoch")
        axis.set_ylabel("nats per pixel")
        axis.grid(visible=True)
        axis.legend()
        return rendered(figure)
