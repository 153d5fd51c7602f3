"""What can be set about pretraining? One dataclass, checked when made, saved in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backbones import SMALLEST_SIZE, STEMS, check_backbone_name
from ..colour import GREY_FORMULAS, PALETTE_SPACES
from ..data import AUGMENTATIONS
from ..pretext import DECODES, LOSSES, PREDICT_AT, check_task_name
from ..runtime.errors import ArgumentError, UnknownNameError
from .options import DataOptions, MachineOptions, check_seed, not_negative, positive

_LARGEST_SIZE = 4096
_CHOICES = {
    "palette_space": PALETTE_SPACES,
    "decode": DECODES,
    "augment": AUGMENTATIONS,
    "stem": STEMS,
    "grey": GREY_FORMULAS,
    "loss": LOSSES,
}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(MachineOptions, DataOptions):
    """Pretrain an encoder by colourization.

    Attributes:
        data: toy, cifar10, cifar100, stl10, a folder, a .tar(.gz, .xz) of a folder, or an .npz file.
        task: rgb-regression, lab-regression or palette (see pretint tasks).
        backbone: an encoder's name (see pretint backbones).
        out: the run's folder; runs/DATA-TASK by default.
        epochs: passes over the training images.
        width: channels of the first stage, for our own encoders.
        depth: number of stages, for our own encoders.
        stem: auto, small or stock, for timm encoders; auto is small below 64 px.
        image_size: side in pixels that images are resized and cropped to.
        unlabelled: take a folder's images as they are, without classes; for stl10 its 100,000 unlabelled images.
        grey: rec601, rec709, mean or lstar: how grey is made of RGB.
        colours: K, the number of palette colours.
        palette_space: rgb, lab, ab or cbcr: where the palette's k-means runs and labels are nearest.
        decode: mode, mean or annealed: how a distribution over colours is painted.
        temperature: of the annealed mean, above 0 and at most 1.
        loss: mse, l1 or huber, for regression.
        keep_luma: paint with the input's own luma, for rgb-regression.
        bounded: bound ab by tanh, for lab-regression; --no-bounded leaves it free.
        predict_at: 1, 2 or 4: predict at full, half or quarter resolution.
        skips: encoder levels above the deepest that the decoder sees; all by default.
        batch_size: images a step.
        accumulate: batches whose gradients are added up before a step.
        learning_rate: peak of AdamW's learning rate.
        weight_decay: of weights; not of biases and normalisations.
        warmup_epochs: epochs of linear warm-up before the cosine.
        clip: largest gradient norm.
        augment: none, flip or flip-crop.
        holdout: share of the training images held out for the validation loss.
        patience: stop after so many epochs without a better validation loss; never by default.
        paint_every: epochs between painted pictures of held-out images.
        seed: of everything random.
        resume: go on with the run in --out.
        overwrite: replace the run in --out.
    """

    data: str = "toy"
    task: str = "palette"
    backbone: str = "pretint_unet"
    out: Path | None = None
    epochs: int = 30
    width: int | None = None
    depth: int | None = None
    stem: str = "auto"
    image_size: int = 32
    unlabelled: bool = False
    grey: str = "rec601"
    colours: int = 24
    palette_space: str = "rgb"
    decode: str = "annealed"
    temperature: float = 0.38
    loss: str = "mse"
    keep_luma: bool = False
    bounded: bool = True
    predict_at: int = 1
    skips: int | None = None
    batch_size: int = 256
    accumulate: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    clip: float = 1.0
    augment: str = "flip-crop"
    holdout: float = 0.02
    patience: int | None = None
    paint_every: int = 5
    seed: int = 0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_task_name(self.task)
        check_backbone_name(self.backbone)
        positive(
            self, "epochs", "width", "depth", "batch_size", "accumulate", "learning_rate", "clip", "patience", "paint_every"
        )  # fmt: skip
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(f"--{name.replace('_', '-')}", getattr(self, name), known)
        if not SMALLEST_SIZE <= self.image_size <= _LARGEST_SIZE:
            raise ArgumentError(f"--image-size: {self.image_size} must be from {SMALLEST_SIZE} to {_LARGEST_SIZE}.")
        if not 2 <= self.colours <= 4096:
            raise ArgumentError(f"--colours: {self.colours} must be from 2 to 4096.")
        if not 0 < self.temperature <= 1:
            raise ArgumentError(f"--temperature: {self.temperature} must be above 0 and at most 1.")
        if self.predict_at not in PREDICT_AT:
            raise ArgumentError(f"--predict-at: {self.predict_at} must be 1, 2 or 4.")
        if not 0 < self.holdout < 1:
            raise ArgumentError(f"--holdout: {self.holdout} must lie between 0 and 1.")
        not_negative(self, "weight_decay", "warmup_epochs", "skips")
        check_seed(self.seed)
        if self.batch_size < 2:
            raise ArgumentError(
                f"--batch-size: {self.batch_size} must be at least 2; batch normalisation needs two images."
            )
        if self.resume and self.overwrite:
            raise ArgumentError("--resume and --overwrite can't both be meant; give one of them.")

    @property
    def folder(self) -> Path:
        """`out`, or the default made from data and task."""
        return self.out or Path("runs") / f"{Path(self.data).name.split('.')[0]}-{self.task}"
