"""What can be set about pretraining? One dataclass, checked when made, saved in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backbones import CHROMA_SPACES, SMALLEST_SIZE, STEMS, check_backbone_name
from ..colour import GREY_FORMULAS, PALETTE_SPACES
from ..data import AUGMENTATIONS
from ..pretext import (
    DECODERS,
    DECODES,
    LOSSES,
    PREDICT_AT,
    check_fuses,
    check_weights,
    full_fusion_name,
    leaked_labels,
    task_names,
    task_options,
    wants_pair,
)
from ..runtime.checkpoints import KEPT
from ..runtime.compilation import COMPILE
from ..runtime.device import LAYOUTS
from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.loop import SCHEDULES
from ..runtime.numbers import POLICIES
from .options import DataOptions, ProcessOptions, check_seed, not_negative, positive
from .systems import PRESETS

_LARGEST_SIZE = 4096
OPTIMIZERS = ("adamw", "adam", "rmsprop", "sgd")
_CHOICES = {
    "decode": DECODES,
    "augment": AUGMENTATIONS,
    "stem": STEMS,
    "grey": GREY_FORMULAS,
    "loss": LOSSES,
    "chroma": CHROMA_SPACES,
    "decoder": tuple(DECODERS),
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "compile": COMPILE,
    "layout": LAYOUTS,
    "on_nonfinite": POLICIES,
}
# settings that would do nothing with a task that does not take them, and are refused there
_OF_TASKS = (
    "loss", "keep_luma", "bounded", "label_smoothing", "soft", "soft_sigma", "rebalance", "mask_grey", "contrast_temperature",
)  # fmt: skip
# tasks that not every palette suits, the usual space first: split-brain predicts chroma alone, superres luma too
_TASK_SPACES = {"split-brain": ("ab", "cbcr"), "superres": ("rgb", "lab")}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ProcessOptions, DataOptions):
    """Pretrain an encoder by colourization.

    Attributes:
        preset: start from the settings of a published system (see pretint presets); options typed beside it go before. In Python
            this is the name alone: preset_config(NAME, ...) gives the settings.
        data: toy, cifar10, cifar100, stl10, a folder, a .tar(.gz, .xz) of a folder, an .npz file, a pack (see pretint data pack),
            or a folder of tar shards.
        task: what is learnt (see pretint tasks), or several joined by +, such as palette+contrast.
        task_weights: of the losses of several tasks, one each; all alike by default.
        backbone: an encoder's name (see pretint backbones).
        out: the run's folder; runs/DATA-PRESET by default, without preset runs/DATA-TASK.
        epochs: passes over the training images.
        minutes: train as many epochs as fit into this time instead, by the speed of the first steps; from 1 to 1000.
        width: channels of the first stage, for our own encoders.
        depth: number of stages, for our own encoders.
        blocks: residual blocks a stage, for pretint_resunet.
        stem: auto, small or stock, for timm encoders; auto is small below 64 px.
        image_size: side in pixels that images are resized and cropped to.
        unlabelled: take a folder's images as they are, without classes; for stl10 its 100,000 unlabelled images.
        classes: names of the classes to train and paint; all by default.
        limit: train on the first so many images only.
        grey: rec601, rec709, mean or lstar: how grey is made of RGB.
        chroma: cbcr or ab: what the second encoder of pairs sees.
        input_mean: subtracted from the input, in units of 0…1; 0.5 by default.
        input_std: then divided by; 0.25 by default.
        colours: K, the number of palette colours.
        palette_space: rgb, lab, ab or cbcr: where the palette's k-means runs and labels are nearest; rgb by default, ab for
            split-brain.
        decode: mode, mean, annealed or sample: how a distribution over colours is painted.
        temperature: of annealed and sample, above 0 and at most 1.
        loss: mse, l1 or huber, for regression.
        keep_luma: paint with the input's own luma, for rgb-regression.
        bounded: bound ab by tanh, for lab-regression; --no-bounded leaves it free.
        label_smoothing: share of each pixel's label that is spread over all colours, from 0 to below 1.
        soft: how many nearest colours share a pixel's label; 0 is one colour. By default 0, and 5 for bins.
        soft_sigma: of the soft labels' Gaussian, in units of the palette's space; 5 in ab.
        rebalance: λ of Zhang et al. 2016, in 0…1: rare colours weigh more; none by default.
        mask_grey: leave images without any colour out of the loss; by default for bins only.
        contrast_temperature: τ of the contrast, above 0.
        predict_at: 1, 2 or 4: predict at full, half or quarter resolution.
        decoder: unet, or that of a published system (see pretint presets).
        fusion: what is fused into the deepest feature map: average (its own, over the whole picture), or timm/NAME: what that
            frozen classifier, trained on labels, makes of the grey picture. By default nothing; for decoder wallner-full average.
        fusion_weights: the classifier's weights, a .safetensors file or a folder with model.safetensors; by default timm's own.
        skips: encoder levels above the deepest that the decoder sees; all by default.
        batch_size: images a step, of all processes together.
        compile: auto, on or off: whether torch compiles the network, which takes a minute or two; auto does it on CUDA, where
            training is so long that it pays.
        layout: auto, channels-last or channels-first: how feature maps lie in memory while the network learns; auto is
            channels-last (pretint benchmark says what is faster).
        sync_batch_norm: batch normalisation by the pictures of all processes, on GPUs; else each normalises by its own.
        accumulate: batches whose gradients are added up before a step.
        optimizer: adamw, adam, rmsprop or sgd (with Nesterov momentum 0.9).
        schedule: cosine or constant, after the warm-up.
        learning_rate: peak of the learning rate.
        weight_decay: of weights; not of biases and normalisations.
        warmup_epochs: epochs of linear warm-up before the cosine.
        clip: largest gradient norm; None for no bound.
        augment: none, flip, flip-crop, flip-resized-crop or flip-affine.
        holdout: share of the training images held out for the validation loss; 0 holds none out and keeps the last weights.
        patience: stop after so many epochs without a better validation loss; never by default.
        paint_every: epochs between painted pictures of held-out images.
        seed: of everything random.
        on_nonfinite: stop or skip: what to do when a loss or a gradient is NaN or infinite; skip leaves such steps out, but not
            more than ten in a row.
        save_every: optimiser steps between two checkpoints, besides those at the end of each epoch.
        save_minutes: minutes between two checkpoints; None for no such time.
        keep: how many of the newest checkpoints are kept, besides the best.
        init_from: a run or an encoder folder whose weights this run begins with; of a run with the same network all, else the
            encoder's.
        resume: go on with the run in --out, with its optimiser, its counters and its settings.
        overwrite: replace the run in --out.
    """

    preset: str | None = None
    data: str = "toy"
    task: str = "palette"
    task_weights: tuple[float, ...] | None = None
    backbone: str = "pretint_unet"
    out: Path | None = None
    epochs: int = 30
    minutes: float | None = None
    width: int | None = None
    depth: int | None = None
    blocks: int | None = None
    stem: str = "auto"
    image_size: int = 32
    unlabelled: bool = False
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    grey: str = "rec601"
    chroma: str = "cbcr"
    input_mean: float | None = None
    input_std: float | None = None
    colours: int = 24
    palette_space: str | None = None
    decode: str = "annealed"
    temperature: float = 0.38
    loss: str = "mse"
    keep_luma: bool = False
    bounded: bool = True
    label_smoothing: float = 0.0
    soft: int | None = None
    soft_sigma: float | None = None
    rebalance: float | None = None
    mask_grey: bool | None = None
    contrast_temperature: float = 0.1
    predict_at: int = 1
    decoder: str = "unet"
    fusion: str | None = None
    fusion_weights: Path | None = None
    skips: int | None = None
    batch_size: int = 256
    compile: str = "auto"
    layout: str = "auto"
    sync_batch_norm: bool = False
    accumulate: int = 1
    optimizer: str = "adamw"
    schedule: str = "cosine"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    clip: float | None = 1.0
    augment: str = "flip-crop"
    holdout: float = 0.02
    patience: int | None = None
    paint_every: int = 5
    seed: int = 0
    on_nonfinite: str = "stop"
    save_every: int | None = None
    save_minutes: float | None = 5.0
    keep: int = KEPT
    init_from: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise UnknownNameError("--preset", self.preset, PRESETS)
        names = task_names(self.task)
        check_backbone_name(self.backbone)
        positive(
            self, "epochs", "minutes", "width", "depth", "blocks", "batch_size", "accumulate", "learning_rate", "clip", "patience",
            "paint_every", "limit", "save_every", "save_minutes", "input_std", "contrast_temperature", "soft_sigma", "processes",
        )  # fmt: skip
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(f"--{name.replace('_', '-')}", getattr(self, name), known)
        if self.label_space not in PALETTE_SPACES:
            raise UnknownNameError("--palette-space", self.label_space, PALETTE_SPACES)
        if not SMALLEST_SIZE <= self.image_size <= _LARGEST_SIZE:
            raise ArgumentError(f"--image-size: {self.image_size} must be from {SMALLEST_SIZE} to {_LARGEST_SIZE}.")
        if not 2 <= self.colours <= 4096:
            raise ArgumentError(f"--colours: {self.colours} must be from 2 to 4096.")
        if self.rebalance is not None and not 0 <= self.rebalance <= 1:
            raise ArgumentError(f"--rebalance: λ = {self.rebalance} must be from 0 to 1; 0.5 is usual.")
        if not 0 <= self.label_smoothing < 1:
            raise ArgumentError(f"--label-smoothing: {self.label_smoothing} must be from 0 to below 1.")
        if not 0 < self.temperature <= 1:
            raise ArgumentError(f"--temperature: {self.temperature} must be above 0 and at most 1.")
        if self.predict_at not in PREDICT_AT:
            raise ArgumentError(f"--predict-at: {self.predict_at} must be 1, 2 or 4.")
        if not 0 <= self.holdout < 1:
            raise ArgumentError(f"--holdout: {self.holdout} must be 0, or lie between 0 and 1.")
        if self.holdout == 0 and self.patience is not None:
            raise ArgumentError("--patience: without held-out images nothing says when to stop; give --holdout too.")
        not_negative(self, "weight_decay", "warmup_epochs", "skips")
        check_seed(self.seed)
        if "contrast" in names and self.batch_size < 2:
            raise ArgumentError(f"--batch-size: {self.batch_size} must be at least 2; contrast compares pictures.")
        if self.fusion is not None:
            check_fuses(self.decoder)
            object.__setattr__(self, "fusion", full_fusion_name(self.fusion))
        if self.fusion_weights is not None and leaked_labels(self.fusion) is None:
            raise ArgumentError("--fusion-weights: there is no classifier to load; name it by --fusion timm/NAME.")
        if self.keep < KEPT:
            raise ArgumentError(
                f"--keep: {self.keep} must be at least {KEPT}, so that there is one left if the newest is damaged."
            )
        if self.init_from is not None and "random" in names:
            raise ArgumentError("--init-from: task random is the control of random weights; choose another task.")
        if self.resume and self.overwrite:
            raise ArgumentError("--resume and --overwrite can't both be meant; give one of them.")
        self._check_task(names)

    def _check_task(self, names: list[str]) -> None:
        """Raises ArgumentError for settings that the tasks do not take, or not in this way."""
        taken, pair = task_options(self.task), wants_pair(self.task)
        for name in _OF_TASKS:
            if name not in taken:
                self._refuse(name, f"{self.task} does not take it")
        for name in ("input_mean", "input_std") if pair else ():
            self._refuse(name, f"{self.task} sees luma and chroma, which have means and spreads of their own")
        for name in names:
            spaces = _TASK_SPACES.get(name, PALETTE_SPACES)
            if self.label_space not in spaces:
                raise ArgumentError(
                    f"--palette-space: {self.label_space} does not suit {name}; use {' or '.join(spaces)}."
                )
        check_weights(names, self.task_weights)

    def _refuse(self, name: str, reason: str) -> None:
        """Raises ArgumentError unless a setting is what it is by default."""
        usual = getattr(type(self), name)
        if getattr(self, name) == usual:
            return
        option = f"--{'no-' if usual is True else ''}{name.replace('_', '-')}"
        preset = self.preset if self.preset and name in PRESETS[self.preset].settings else None
        mend = f"preset {preset} sets it, so give {option} {usual}" if preset else "leave it out"
        raise ArgumentError(f"{option}: {reason}; {mend}.")

    @property
    def label_space(self) -> str:
        """`palette_space`, or the one that suits the task."""
        if self.palette_space is not None:
            return self.palette_space
        return next((_TASK_SPACES[name][0] for name in task_names(self.task) if name in _TASK_SPACES), "rgb")

    @property
    def folder(self) -> Path:
        """`out`, or the default made from the data and what is done with it."""
        return self.out or Path("runs") / f"{Path(self.data).name.split('.')[0]}-{self.preset or self.task}"
