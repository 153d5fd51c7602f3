"""`pretint pretrain`: an encoder learns to paint, and its folder holds all that later verbs need."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import timm
import torch
from timm.optim import param_groups_weight_decay

from .._version import __version__
from ..backbones import save_backbone
from ..colour import Palette, bin_prior, build_palette
from ..data import Batch, Batches, Ids, ImageSource
from ..evaluation import colour_table
from ..pretext import TASKS, Painter, PaintingTask, Task, leaked_labels, task_names
from ..runtime.checkpoints import Checkpoints
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError
from ..runtime.files import write_json
from ..runtime.loop import LoopSettings, Loss, Training
from ..runtime.results import add_results
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import RunLog, note
from .budget import MOST_EPOCHS, epochs_within
from .colour_results import measure_colour, read_bin_prior, save_pictures, spread_ids, write_bin_prior
from .extremes import save_extremes
from .opening import make_model, needs_palette, read_palette, read_settings
from .options import Outcome, plain
from .painting import trained_decoding
from .published import typed_command, usual_config
from .settings import PretrainConfig
from .training_data import class_count, data_name, held_out_ids, judged_source, open_training_source

_BATCH_OF_PASSES = 4096
_MOMENTUM = 0.9
_RMSPROP_DECAY = 0.9  # as the systems that use it had it; with torch's 0.99 their tanh saturates at once


def pretrain(config: PretrainConfig) -> Outcome:
    """Pretrains an encoder; the run's folder is `config.folder`.

    Returns:
        The colour part of the results, measured on the test split (held-out images where there is none).

    Raises:
        PretintError: a bad argument, unreadable data, a folder that must not be written, a loss that is not finite.
    """
    RunFolder.check_free(config.folder, resume=config.resume, overwrite=config.overwrite)
    if config.resume:
        config = _resumed(config)
    compute = Compute.choose(config.device, config.precision)
    source = open_training_source(config, compute)
    kept, held = held_out_ids(config, source)
    torch.manual_seed(config.seed)
    palette = _palette(config, source, kept)
    model, task = make_model(config, palette, class_count(source))
    if model.classifier is not None and not config.resume:  # a run that goes on has its weights in the checkpoint
        model.classifier.load(config.fusion_weights)
    _check_batch_size(config, model)
    batches = Batches(
        source.subset(kept), config.batch_size, seed=config.seed, augment=config.augment, views=task.views, device=compute.device
    )  # fmt: skip
    painter = Painter(model, task, compute, trained_decoding(config))
    judged = judged_source(config, lambda: source.subset(held if len(held) else kept), compute)
    shown = judged.gather(spread_ids(len(judged)))
    if config.minutes is not None and not config.resume:
        config = _within_minutes(config, config.minutes, painter, batches)
    prior = None if config.resume else _bin_prior(source, kept, task)
    folder = _go_on(config, source) if config.resume else _start_folder(config, source, palette, prior)
    epochs = 0
    if getattr(task, "trains", True):
        try:
            epochs = _train(config, painter, batches, source.subset(held), shown, folder)
        except BaseException:
            if not Checkpoints(folder.checkpoints).last.is_file():
                folder.remove()  # nothing in it could be gone on with
            raise
        Checkpoints(folder.checkpoints).load_best(model)
    _save_encoder(config, painter, source, folder, epochs)
    return _finish(config, painter, judged, shown, folder)


def _check_batch_size(config: PretrainConfig, model: torch.nn.Module) -> None:
    normalises = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())
    if config.batch_size < 2 and normalises:
        raise ArgumentError(
            f"--batch-size: {config.batch_size} must be at least 2; this network's batch normalisation needs two images."
        )


def _resumed(config: PretrainConfig) -> PretrainConfig:
    """The saved settings of the run; what was given must agree with them."""
    folder = RunFolder.open(config.folder)
    saved, free = read_settings(folder), {"out", "resume", "overwrite", "json", "root", "device"}
    if saved.minutes is not None:  # its epochs came out of them, and stay
        free |= {"minutes", "epochs"}
    given, was, usual = plain(config), plain(saved), {**plain(usual_config(config.preset)), "preset": None}
    changed = [k for k, v in given.items() if k not in free and v != usual[k] and v != was[k]]
    if changed:
        listed = ", ".join(f"--{k.replace('_', '-')} {given[k]} (was {was[k]})" for k in changed)
        raise ArgumentError(
            f"--resume: the run in {config.folder} was started with other settings: {listed}; leave them out."
        )
    note(f"pretrain: going on with the saved settings of {config.folder} ({saved.epochs} epochs in all)")
    device = saved.device if config.device == "auto" else config.device
    return replace(
        saved,
        out=config.folder,
        resume=True,
        overwrite=False,
        json=config.json,
        root=config.root or saved.root,
        device=device,
    )


def _palette(config: PretrainConfig, source: ImageSource, kept: Ids) -> Palette | None:
    """The palette of the training images, fitted anew or, on resume, read back."""
    if not needs_palette(config.task):
        return None
    if config.resume:
        return read_palette(RunFolder(config.folder))
    fits = (getattr(TASKS[name], "fit_palette", None) for name in task_names(config.task))
    fit = next((fit for fit in fits if fit is not None), build_palette)
    return fit(
        lambda: (source.gather(ids) for ids in kept.split(_BATCH_OF_PASSES)),
        config.colours,
        config.label_space,
        config.grey,
        config.seed,
    )


def _bin_prior(source: ImageSource, kept: Ids, task: Task) -> torch.Tensor | None:
    """How frequent each ab bin is among the training pixels, which the colour metrics ask for; None if nothing is painted."""
    if not isinstance(task, PaintingTask):
        return None
    return bin_prior(lambda: (source.gather(ids) for ids in kept.split(_BATCH_OF_PASSES)))


def _go_on(config: PretrainConfig, source: ImageSource) -> RunFolder:
    """The folder of the run that is resumed; its data must be what it was."""
    folder = RunFolder.open(config.folder)
    was = folder.config.get("data", {}).get("fingerprint")
    if was != source.fingerprint:
        raise DataError(
            f"--resume: {config.data} has changed since the run was started; start a new run in another --out."
        )
    return folder


def _start_folder(
    config: PretrainConfig, source: ImageSource, palette: Palette | None, prior: torch.Tensor | None
) -> RunFolder:
    """A fresh folder; made last of all, so that whatever was wrong before leaves nothing behind."""
    folder = RunFolder.create(
        config.folder,
        {
            "verb": "pretrain",
            "command": typed_command(config),
            "settings": {**plain(config), "palette_space": config.label_space},
            "data": {"name": source.name, "fingerprint": source.fingerprint, "images": len(source), "broken": len(source.broken),
                     "classes": class_count(source)},
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "pretint": __version__, "torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version(),
            },
        },
    )  # fmt: skip
    if palette is not None:
        write_json(folder.palette, palette.to_dict())
    if prior is not None:
        write_bin_prior(folder, prior)
    return folder


def _loss_function(painter: Painter) -> Callable[[Batch], Loss]:
    """From a batch to its loss; the network's forward pass, and only that, runs under autocast."""
    model, task, compute = painter.model, painter.task, painter.compute

    def loss_of(batch: Batch) -> Loss:
        inputs, targets = task.split(batch)
        with compute.autocast():
            predictions = model(compute.layout(inputs))
        return task.loss(predictions, targets)

    return loss_of


def _within_minutes(config: PretrainConfig, minutes: float, painter: Painter, batches: Batches) -> PretrainConfig:
    """The settings with as many epochs as fit into the time; what the run's folder says from then on."""
    if not getattr(painter.task, "trains", True):
        return config
    optimizer = _optimizer(config, painter.model, painter.compute)
    epochs = epochs_within(minutes, painter.model, optimizer, batches, _loss_function(painter), painter.compute)
    most = ", the most that --minutes gives" if epochs == MOST_EPOCHS else ""
    typed = config.epochs != usual_config(config.preset).epochs
    decides = f"; these count, not --epochs {config.epochs}" if typed else ""
    note(f"pretrain: {epochs} epochs fit into {minutes:g} minutes{most}{decides}")
    return replace(config, epochs=epochs)


def _train(
    config: PretrainConfig,
    painter: Painter,
    batches: Batches,
    held: ImageSource,
    shown: torch.Tensor,
    folder: RunFolder,
) -> int:
    """Runs the loop; returns the number of epochs behind the best weights."""
    model, task, compute = painter.model, painter.task, painter.compute
    optimizer, loss_of = _optimizer(config, model, compute), _loss_function(painter)

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        if not len(held):
            return {}
        sums = torch.zeros(2, device=compute.device)
        for batch in Batches(held, 256, seed=0, augment="none", shuffle=False, drop_last=False, views=task.views).epoch(
            0
        ):
            loss = loss_of(batch)
            sums += torch.stack([loss.numerator, loss.denominator])
        numerator, denominator = sums.tolist()
        # all held-out pictures may be masked, or the only one have no other to be told from: that is as good as none held out
        return {"validation_loss": numerator / denominator} if denominator else {}

    settings = LoopSettings(
        config.epochs, config.warmup_epochs, config.accumulate, config.clip, config.patience, config.seed,
        config.schedule,
    )  # fmt: skip
    checkpoints = Checkpoints(folder.checkpoints)
    training = Training(model, optimizer, batches, loss_of, validate, compute, settings, checkpoints)
    done = training.resume() if config.resume else 0

    def paint(epoch: int) -> None:
        if isinstance(task, PaintingTask) and (epoch == 1 or epoch % config.paint_every == 0 or epoch == config.epochs):
            log.picture("grey, painted, true", save_pictures(folder, f"epoch-{epoch:04d}", shown, painter), epoch)

    with RunLog(folder, "pretrain", training.total_steps, keep_epochs=done) as log:
        return training.run(log, paint).best_epoch


def _save_encoder(
    config: PretrainConfig, painter: Painter, source: ImageSource, folder: RunFolder, epochs: int
) -> None:
    card: dict[str, Any] = {
        "task": config.task, "data": source.name, "data_fingerprint": source.fingerprint, "images": len(source),
        "epochs": epochs, "seed": config.seed,
    }  # fmt: skip
    palette = painter.task.palette
    if palette is not None:
        card |= {"colours": palette.size, "palette_space": palette.space}
    leaks = leaked_labels(config.fusion)
    if leaks is not None:
        card["leaks"] = leaks
    save_backbone(painter.model.encoder, folder.encoder, card, config.image_size)


def _optimizer(config: PretrainConfig, model: torch.nn.Module, compute: Compute) -> torch.optim.Optimizer:
    """The optimiser of the settings; weights decay, biases and normalisations do not."""
    groups = param_groups_weight_decay(model, config.weight_decay)
    rate, fused = config.learning_rate, compute.device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=fused)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, alpha=_RMSPROP_DECAY)
    return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, nesterov=True, fused=fused)


def _finish(
    config: PretrainConfig, painter: Painter, judged: ImageSource, shown: torch.Tensor, folder: RunFolder
) -> Outcome:
    """Measures colour quality and keeps the pictures of the best weights, if the task paints."""
    if not isinstance(painter.task, PaintingTask):
        lines = [f"Run folder: {folder.path}", f"{painter.task.name} paints nothing. Next: pretint probe {folder.path}"]
        return Outcome({"run": str(folder.path), **add_results(folder.path, "colour", [])}, [], lines)
    entry = measure_colour(painter, judged, "test" if judged.split == "test" else "held-out", read_bin_prior(folder))
    entry["data"] = data_name(judged, config.classes)
    save_pictures(folder, "pictures", shown, painter)
    save_extremes(folder, judged, painter)
    results = add_results(folder.path, "colour", [entry])
    return Outcome(
        {"run": str(folder.path), **results},
        [colour_table(entry)],
        [f"Run folder: {folder.path}", f"Next: pretint probe {folder.path}"],
    )
