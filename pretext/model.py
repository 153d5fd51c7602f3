"""What is trained? An encoder, and a head on its feature maps; afterwards only the encoder is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..backbones import PairEncoder
from ..runtime.errors import ArgumentError
from .contract import Task
from .fusion import FrozenClassifier
from .operations import Fusion, SceneLayer
from .seed_decoders import make_decoder


@dataclass(frozen=True)
class HeadSettings:
    """How a prediction is made of feature maps; what a task's head does not need it leaves alone.

    Attributes:
        skips: how many encoder levels above the deepest the U-Net decoder sees; None for all.
        decoder: its name in :data:`pretint.pretext.DECODERS`.
        width: for unet, most channels at full resolution; else what the decoder's channels are multiples of; None for its own.
            A run's `--width` is the encoder's, and only a published system's decoder on a published system's encoder follows it
            (:func:`pretint.pretext.decoder_width`).
        image_size: side of the training pictures; cs520, with its dense layers, takes no other.
        fusion_features: length of a vector from outside that the decoder fuses into the deepest map, 0 for that map's own average;
            None: what the decoder does of itself.
    """

    skips: int | None = None
    decoder: str = "unet"
    width: int | None = None
    image_size: int = 32
    fusion_features: int | None = None


class PretextModel(nn.Module):
    """Encoder and head: input (b, in_chans, h, w) -> the task's prediction.

    Args:
        encoder: any module with `feature_info` and `forward_intermediates`, as :func:`pretint.backbones.create_backbone` makes.
        head: called as head(maps, inputs): the encoder's feature maps, shallow to deep, and its input.
        classifier: sees the input too; what it gives is the head's third argument.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, classifier: FrozenClassifier | None = None):
        super().__init__()
        self.encoder, self.head, self.classifier = encoder, head, classifier

    def forward(self, x: Tensor) -> Any:
        maps = self.encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        return self.head(maps, x) if self.classifier is None else self.head(maps, x, self.classifier(x))

    @property
    def fixed_size(self) -> int | None:
        """Side of the only pictures that encoder and head take, which are square then; None if they take any."""
        options: dict[str, int] = getattr(getattr(self.encoder, "spec", None), "options", {})
        if "img_size" in options:
            return options["img_size"]
        layers = (m for m in self.head.modules() if isinstance(m, SceneLayer))
        return next((layer.fixed_size for layer in layers if layer.fixed_size is not None), None)


def build_model(
    task: Task,
    encoder: nn.Module,
    settings: HeadSettings | None = None,
    classifier: FrozenClassifier | None = None,
) -> PretextModel:
    """The network that a task trains: a task's own head (`make_head(encoder, settings)`), else the decoder of the
    settings, which predicts `out_chans` channels for each pixel, and fuses the classifier's logits if there is one.

    Raises:
        UnknownNameError: no such decoder.
        ArgumentError: the decoder or the task does not fit the encoder, a classifier does not fit the task or the decoder, or
            nothing in the task's head would fuse what the settings have fused.
    """
    settings = settings or HeadSettings()
    if isinstance(encoder, PairEncoder):
        check_takes_pair(task)
    if classifier is not None:
        _check_takes_classifier(task)
        settings = replace(settings, fusion_features=classifier.features)
    head = make_head(task, encoder, settings)
    if settings.fusion_features is not None and not any(isinstance(module, Fusion) for module in head.modules()):
        raise ArgumentError(f"--fusion: {task.name} has no decoder that would fuse anything; leave it out.")
    return PretextModel(encoder, head, classifier)


def check_takes_pair(task: Task) -> None:
    """Raises ArgumentError for a task that is not shown luma and chroma, as a pair of encoders must be."""
    if not getattr(task, "pair", False) and (getattr(task, "sees", None) is not None or task.in_chans != 3):
        raise ArgumentError(
            f"--backbone: pair/ is one encoder for luma and one for chroma, and {task.name} does not see both; leave pair/ out, or "
            "take a task of pairs, such as split-brain."
        )


def _check_takes_classifier(task: Task) -> None:
    if hasattr(task, "make_head") or task.in_chans != 1:
        raise ArgumentError(
            f"--fusion: a classifier helps one task that predicts pixels from grey input, which {task.name} is not; use palette, "
            "bins, rgb-regression or lab-regression, or leave the classifier out."
        )


def make_head(task: Task, encoder: nn.Module, settings: HeadSettings) -> nn.Module:
    """The head that a task wants on an encoder's maps."""
    own = getattr(task, "make_head", None)
    return own(encoder, settings) if own else pixel_head(encoder, task.out_chans, task.predict_at, settings)


def pixel_head(encoder: nn.Module, out_chans: int, predict_at: int, settings: HeadSettings) -> nn.Module:
    """A decoder built from the encoder's `feature_info`: maps -> (b, out_chans, ⌈h / predict_at⌉, ⌈w / predict_at⌉).

    Raises:
        UnknownNameError: no such decoder.
        ArgumentError: the decoder does not fit the encoder; the message names one that fits.
    """
    levels: list[dict[str, Any]] = encoder.feature_info  # type: ignore[assignment]
    return make_decoder(
        settings.decoder, levels, _input_channels(encoder), out_chans, predict_at,
        skips=settings.skips, width=settings.width, image_size=settings.image_size, fusion_features=settings.fusion_features,
    )  # fmt: skip


def _input_channels(encoder: nn.Module) -> int | None:
    """Channels of an encoder's input; None for half of a pair, whose head is given the input of both halves."""
    channels = getattr(getattr(encoder, "preprocess", encoder), "in_chans", None)
    return channels if isinstance(channels, int) else None
