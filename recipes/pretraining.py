"""`pretint pretrain`: an encoder learns to paint, and its folder holds all that later verbs need."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import timm
import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import param_groups_weight_decay

from .._version import __version__
from ..backbones import save_backbone
from ..colour import Palette, bin_prior, build_palette
from ..data import Batch, Batches, Ids, ImageSource
from ..evaluation import colour_table
from ..pretext import TASKS, Painter, PaintingTask, Task, leaked_labels, task_names
from ..runtime.checkpoints import Checkpoints
from ..runtime.determinism import determinism
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError
from ..runtime.loop import LoopSettings, Loss, Training
from ..runtime.processes import barrier, from_main, is_main, parallel, share, sum_over_processes, world_size
from ..runtime.results import add_results
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import RunLog, note
from ..runtime.sealed import write_sealed
from .beginning import begin_with
from .budget import MOST_EPOCHS, epochs_within, seconds_per_step
from .colour_results import measure_colour, read_bin_prior, save_pictures, spread_ids, write_bin_prior
from .compiling import training_network
from .extremes import save_extremes
from .opening import make_model, needs_palette, read_palette
from .options import Outcome
from .painting import trained_decoding
from .published import typed_command, usual_config
from .resuming import folder_settings, go_on, saved_settings, whose
from .settings import PretrainConfig
from .together import check_same_data, in_all_processes
from .training_data import (
    class_count,
    counted_ids,
    data_name,
    held_out_ids,
    judged_source,
    open_training_source,
    report_met_broken,
)

_BATCH_OF_PASSES = 4096
_SECONDS_OF_STEPS = 1.0  # timed to say how long all are going to take
_MOMENTUM = 0.9
_RMSPROP_DECAY = 0.9  # as the systems that use it had it; with torch's 0.99 their tanh saturates at once


@in_all_processes
def pretrain(config: PretrainConfig, typed: Collection[str] | None = None) -> Outcome:
    """Pretrains an encoder; the run's folder is `config.folder`. Of several processes the main one alone writes to it.

    Args:
        config: the settings.
        typed: with `resume`, which of them were chosen and must be those of the run, or count from now on; by default those that
            are not as usual.

    Returns:
        The colour part of the results, measured on the test split (held-out images where there is none).

    Raises:
        PretintError: a bad argument, unreadable data, a folder that must not be written, a loss that is not finite.
    """
    if is_main():
        RunFolder.check_free(config.folder, resume=config.resume, overwrite=config.overwrite)
    if config.resume and config.init_from is not None:
        raise ArgumentError("--resume goes on with a run and --init-from begins one; give one of them.")
    if config.resume:
        config = saved_settings(config, typed)
    with determinism(config.deterministic):
        return _pretrain(config)


def _pretrain(config: PretrainConfig) -> Outcome:
    compute = Compute.choose(config.device, config.precision, config.layout)
    _check_sync(config, compute)
    source = open_training_source(config, compute)
    check_same_data(source)
    kept, held = held_out_ids(config, source)
    torch.manual_seed(config.seed)
    palette = training_palette(config, source, kept)
    model, task = make_model(config, palette, class_count(source))
    if model.classifier is not None and not config.resume:  # a run that goes on has its weights in the checkpoint
        model.classifier.load(config.fusion_weights)
    begun = None if config.init_from is None or config.resume else begin_with(config.init_from, model)
    if config.sync_batch_norm:
        convert_sync_batchnorm(model)  # in place, since the model itself is no normalisation
    check_batch_size(config, model)
    batches = Batches(
        source.subset(kept), config.batch_size, seed=config.seed, augment=config.augment, views=task.views, device=compute.device
    )  # fmt: skip
    painter = Painter(model, task, compute, trained_decoding(config))
    network, compilation = training_network(config, painter, batches, lambda: _seconds(config, painter, batches))
    network = parallel(network, compute.device, accumulates=config.accumulate > 1)
    judged = judged_source(config, lambda: source.subset(held if len(held) else kept), compute)
    shown = judged.gather(spread_ids(len(judged)))
    _check_shares(task, held, judged)
    if config.minutes is not None and not config.resume:
        config = _within_minutes(config, config.minutes, painter, network, batches)
    prior = None if config.resume else _bin_prior(config, source, kept, task)
    if config.resume:
        folder = go_on(config, source, compilation.to_dict(compute))
    else:
        folder = _start_folder(config, source, palette, prior, begun, compilation.to_dict(compute))
    barrier()  # what is in the folder can be read from here on
    epochs = 0
    if getattr(task, "trains", True):
        try:
            epochs = _train(config, painter, network, batches, source.subset(held), kept, shown, folder)
        except BaseException:
            checkpoints = Checkpoints(folder.checkpoints)
            if is_main() and not (config.resume or checkpoints or folder.nonfinite.is_file()):
                folder.remove()  # nothing in it could be gone on with, or be learnt from
            raise
        Checkpoints(folder.checkpoints).load_best(model)
        report_met_broken(source, folder)
    if is_main():
        _save_encoder(config, painter, source, folder, epochs)
    return _finish(config, painter, judged, shown, folder)


def check_batch_size(config: PretrainConfig, model: torch.nn.Module) -> None:
    """Raises ArgumentError if a batch is too small for the network's batch normalisation."""
    normalises = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())
    needed = 2 if config.sync_batch_norm else 2 * world_size()
    if config.batch_size < needed and normalises:
        each = "" if needed == 2 else f" in each of {world_size()} processes"
        raise ArgumentError(
            f"--batch-size: {config.batch_size} must be at least {needed}; this network's batch normalisation needs two "
            f"images{each}."
        )


def _check_shares(task: Task, held: Ids, judged: ImageSource) -> None:
    """Raises DataError if validation or colour measurement would have no image for one of the processes."""
    if len(held):
        share(len(held), what="held-out images")
    if isinstance(task, PaintingTask):
        share(len(judged), what=f"{judged.split} images")


def _check_sync(config: PretrainConfig, compute: Compute) -> None:
    if config.sync_batch_norm and compute.device.type != "cuda":
        raise ArgumentError(
            f"--sync-batch-norm: torch has it for CUDA alone, and this is {compute.device.type}; leave it out (each process "
            "normalises by its own images then), or use an encoder with another normalisation."
        )


def training_palette(config: PretrainConfig, source: ImageSource, kept: Ids) -> Palette | None:
    """The palette of the training images, fitted anew or, on resume, read back."""
    if not needs_palette(config.task):
        return None
    if config.resume:
        return Palette.from_dict(from_main(lambda: read_palette(RunFolder(config.folder)).to_dict()))
    fits = (getattr(TASKS[name], "fit_palette", None) for name in task_names(config.task))
    fit = next((fit for fit in fits if fit is not None), build_palette)
    counted = counted_ids(config, kept)
    return fit(
        lambda: (source.gather(ids) for ids in counted.split(_BATCH_OF_PASSES)),
        config.colours,
        config.label_space,
        config.grey,
        config.seed,
    )


def _bin_prior(config: PretrainConfig, source: ImageSource, kept: Ids, task: Task) -> torch.Tensor | None:
    """How frequent each ab bin is among the training pixels, which the colour metrics ask for; None if nothing is painted."""
    if not isinstance(task, PaintingTask):
        return None
    counted = counted_ids(config, kept)
    if len(counted) < len(kept):
        note(f"pretrain: colours are counted in {len(counted):,} of {len(kept):,} images, spread evenly")
    return bin_prior(lambda: (source.gather(ids) for ids in counted.split(_BATCH_OF_PASSES)))


def _start_folder(
    config: PretrainConfig,
    source: ImageSource,
    palette: Palette | None,
    prior: torch.Tensor | None,
    begun: dict[str, Any] | None,
    compilation: dict[str, Any],
) -> RunFolder:
    """A fresh folder; made last of all, so that whatever was wrong before leaves nothing behind."""
    if not is_main():
        return RunFolder(config.folder)
    folder = RunFolder.create(
        config.folder,
        {
            "verb": "pretrain",
            "command": typed_command(config),
            "settings": folder_settings(config),
            "data": {"name": source.name, "fingerprint": source.fingerprint, "images": len(source), "broken": len(source.broken),
                     "classes": class_count(source)},
            "init_from": begun,
            "compilation": compilation,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "pretint": __version__, "torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version(),
            },
        },
    )  # fmt: skip
    if palette is not None:
        write_sealed(folder.palette, palette.to_dict())
    if prior is not None:
        write_bin_prior(folder, prior)
    return folder


def loss_function(network: torch.nn.Module, task: Task, compute: Compute) -> Callable[[Batch], Loss]:
    """From a batch to its loss; the network's forward pass, and only that, runs under autocast."""

    def loss_of(batch: Batch) -> Loss:
        inputs, targets = task.split(batch)
        with compute.autocast():
            predictions = network(compute.layout(inputs))
        return task.loss(predictions, targets)

    return loss_of


def _seconds(config: PretrainConfig, painter: Painter, batches: Batches) -> float:
    """How long training is going to take, by the speed of the first steps; what it is given, where that is minutes."""
    if config.minutes is not None and not config.resume:
        return 60 * config.minutes
    optimizer = make_optimizer(config, painter.model, painter.compute)
    loss_of = loss_function(painter.model, painter.task, painter.compute)
    each = seconds_per_step(painter.model, optimizer, batches, loss_of, painter.compute, _SECONDS_OF_STEPS)
    return each * len(batches) * config.epochs


def _within_minutes(
    config: PretrainConfig, minutes: float, painter: Painter, network: torch.nn.Module, batches: Batches
) -> PretrainConfig:
    """The settings with as many epochs as fit into the time; what the run's folder says from then on."""
    if not getattr(painter.task, "trains", True):
        return config
    optimizer = make_optimizer(config, painter.model, painter.compute)
    loss_of = loss_function(network, painter.task, painter.compute)
    epochs = epochs_within(minutes, painter.model, optimizer, batches, loss_of, painter.compute)
    most = ", the most that --minutes gives" if epochs == MOST_EPOCHS else ""
    typed = config.epochs != usual_config(config.preset).epochs
    decides = f"; these count, not --epochs {config.epochs}" if typed else ""
    note(f"pretrain: {epochs} epochs fit into {minutes:g} minutes{most}{decides}")
    return replace(config, epochs=epochs)


def _train(
    config: PretrainConfig,
    painter: Painter,
    network: torch.nn.Module,
    batches: Batches,
    held: ImageSource,
    kept: Ids,
    shown: torch.Tensor,
    folder: RunFolder,
) -> int:
    """Runs the loop; returns the number of epochs behind the best weights. `kept` are the images' numbers in the data."""
    model, task, compute = painter.model, painter.task, painter.compute
    optimizer, loss_of = make_optimizer(config, model, compute), loss_function(network, task, compute)
    judge = loss_function(model, task, compute)

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        if not len(held):
            return {}
        sums = torch.zeros(2, device=compute.device)
        for batch in Batches(held, 256, seed=0, augment="none", shuffle=False, drop_last=False, views=task.views).epoch(
            0
        ):
            loss = judge(batch)
            sums += torch.stack([loss.numerator, loss.denominator])
        numerator, denominator = sum_over_processes(sums).tolist()
        # all held-out pictures may be masked, or the only one have no other to be told from: that is as good as none held out
        return {"validation_loss": numerator / denominator} if denominator else {}

    settings = LoopSettings(
        config.epochs, config.warmup_epochs, config.accumulate, config.clip, config.patience, config.seed,
        config.schedule, config.save_every, config.save_minutes, config.on_nonfinite,
    )  # fmt: skip
    checkpoints = Checkpoints(folder.checkpoints, config.keep, whose(config, folder))
    training = Training(
        model, optimizer, batches, loss_of, validate, compute, settings, checkpoints, network, lambda ids: kept.to(ids.device)[ids]
    )  # fmt: skip
    done = training.resume() if config.resume else 0

    def paint(epoch: int) -> None:
        due = epoch == 1 or epoch % config.paint_every == 0 or epoch == config.epochs
        if isinstance(task, PaintingTask) and due and is_main():
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
    begun = folder.config.get("init_from") or {}
    if begun:
        card["init_from"] = (
            f"{begun.get('task')} on {begun.get('data')}, encoder {str(begun.get('weights_sha256'))[:16]}"
        )
    leaks = leaked_labels(config.fusion) or begun.get("leaks")
    if leaks is not None:
        card["leaks"] = leaks
    save_backbone(painter.model.encoder, folder.encoder, card, config.image_size)


def make_optimizer(config: PretrainConfig, model: torch.nn.Module, compute: Compute) -> torch.optim.Optimizer:
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
        results = add_results(folder.path, "colour", []) if is_main() else {}
        return Outcome({"run": str(folder.path), **results}, [], lines)
    prior = from_main(lambda: read_bin_prior(folder))
    entry = measure_colour(painter, judged, "test" if judged.split == "test" else "held-out", prior)
    if not is_main():
        return Outcome({"run": str(folder.path)})
    entry["data"] = data_name(judged, config.classes)
    save_pictures(folder, "pictures", shown, painter)
    save_extremes(folder, judged, painter)
    results = add_results(folder.path, "colour", [entry])
    return Outcome(
        {"run": str(folder.path), **results},
        [colour_table(entry)],
        [f"Run folder: {folder.path}", f"Next: pretint probe {folder.path}"],
    )
