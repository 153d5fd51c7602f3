"""What does a classifier that was trained on labels make of the grey picture? Its logits, for a decoder to fuse.

The classifier stays as it is. It brings what labels taught it, so what is trained beside it is marked in transfer tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from ..runtime.errors import ArgumentError, RunFolderError, UnknownNameError
from ..runtime.tensors import read_tensors

OWN_AVERAGE = "average"
_TIMM, _WEIGHTS = "timm/", "model.safetensors"
_INTERPOLATIONS = ("bilinear", "bicubic")  # what torch has an antialiased kernel of


def full_fusion_name(fusion: str) -> str:
    """The name of what is fused; a classifier's says which of its weights, so that a later timm takes the same.

    Raises:
        UnknownNameError: neither "average" nor "timm/" and a model that timm knows, or weights that it does not know.
        ArgumentError: the model does not classify.

    >>> full_fusion_name("timm/resnet18")
    'timm/resnet18.a1_in1k'
    """
    if fusion == OWN_AVERAGE:
        return fusion
    plain = fusion.removeprefix(_TIMM)
    if plain == fusion or not timm.is_model(plain):
        raise UnknownNameError("--fusion", fusion, [OWN_AVERAGE, *(_TIMM + name for name in timm.list_models())])
    base, _, tag = plain.partition(".")
    tagged = timm.list_models(f"{base}.*", include_tags=True)
    if tag and plain not in tagged:
        raise UnknownNameError("--fusion", fusion, [_TIMM + name for name in tagged])
    known = timm.get_pretrained_cfg(plain)
    if known is None:
        return fusion
    if not known.num_classes:
        raise ArgumentError(f"--fusion: {fusion} tells no classes; take a classifier, such as timm/resnet18.")
    return f"{_TIMM}{base}.{known.tag}" if known.tag else fusion


def leaked_labels(fusion: str | None) -> str | None:
    """Whose labels help a network that fuses this, in the words of transfer tables; None where none do.

    >>> leaked_labels("timm/resnet18.a1_in1k"), leaked_labels("average")
    ('labels of timm/resnet18.a1_in1k', None)
    """
    return f"labels of {fusion}" if fusion is not None and fusion != OWN_AVERAGE else None


class FrozenClassifier(nn.Module):
    """A timm classifier on a network's grey input: (b, 1, h, w) -> logits (b, features), without gradient.

    The normalisation is undone, grey is repeated for each of the classifier's channels, stretched to the size that it was trained
    at and normalised as it wants. It is never trained: it stays in evaluation mode, and its weights are no optimiser's. They are
    fresh until :meth:`load`, or until a run's checkpoint fills them.

    Args:
        name: "timm/" and a model's name, as :func:`full_fusion_name` takes it.
        mean, std: what the grey input, in 0…1, was normalised with.

    Attributes:
        features: how many logits.

    Raises:
        UnknownNameError: no such model.
        ArgumentError: it does not classify.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, mean: float, std: float):
        super().__init__()
        self.name = full_fusion_name(name)
        self.network: Any = timm.create_model(self.name.removeprefix(_TIMM), pretrained=False)
        self.network.requires_grad_(False)
        self.features = int(getattr(self.network, "num_classes", 0))
        if not self.features:
            raise ArgumentError(f"--fusion: {name} tells no classes; take a classifier, such as timm/resnet18.")
        wanted = resolve_model_data_config(self.network)
        channels, *size = wanted["input_size"]
        self.size = tuple(size)
        self.interpolation = wanted["interpolation"] if wanted["interpolation"] in _INTERPOLATIONS else "bicubic"
        self.input_mean, self.input_std = mean, std
        for statistic in ("mean", "std"):  # a tensor of each on the device, since a step must copy nothing there
            values = torch.tensor(wanted[statistic]).expand(channels).reshape(1, channels, 1, 1)
            self.register_buffer(statistic, values.contiguous(), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenClassifier:
        """Stays in evaluation mode, whatever the network around it is put in, so that running statistics stay what they are."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b n"]:
        grey = x * self.input_std + self.input_mean
        if tuple(grey.shape[-2:]) != self.size:
            grey = F.interpolate(grey, self.size, mode=self.interpolation, align_corners=False, antialias=True)
            grey = grey.clamp(0, 1)  # bicubic overshoots
        return self.network((grey - self.mean) / self.std)  # (b, 1, h, w) becomes (b, channels, h, w) by broadcasting

    def load(self, weights: Path | None = None) -> None:
        """Puts pretrained weights in place; only safetensors are read, never a pickle.

        Args:
            weights: a .safetensors file, or a folder with model.safetensors, of this very model; None for timm's own, from the
                hub or its cache.

        Raises:
            ArgumentError: they can't be had, or are another model's.
        """
        path = self._download() if weights is None else weights
        tensors = _read(path, self._help())
        overlay = {"state_dict": tensors, "custom_load": False}
        try:  # timm's factory knows how each model's published weights become its own
            filled = timm.create_model(self.name.removeprefix(_TIMM), pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # a foreign model's conversion may raise anything for weights that are not its own
            reason = " ".join(str(error).split())[:200]
            raise ArgumentError(
                f"--fusion-weights: {path} does not fit {self.name} ({reason}); {self._help()}"
            ) from error
        self.network.load_state_dict(filled.state_dict())

    def _download(self) -> Path:
        import huggingface_hub

        known = self.network.pretrained_cfg
        repository, file = known.get("hf_hub_id"), known.get("hf_hub_filename") or _WEIGHTS
        if not repository or not file.endswith(".safetensors"):
            raise ArgumentError(f"--fusion: timm has no weights of {self.name} as safetensors; {self._help()}")
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except Exception as error:  # each release of the client has another network library, with errors of its own
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ArgumentError(
                f"--fusion: the weights of {self.name} can't be had ({reason}); {self._help()}"
            ) from error

    def _help(self) -> str:
        """How to get weights where there is no network."""
        repository = self.network.pretrained_cfg.get("hf_hub_id")
        page = f" from {repository} on the Hugging Face hub" if repository else " of this model"
        return f"download {_WEIGHTS}{page} once and give --fusion-weights FILE."


def _read(path: Path, help_: str) -> dict[str, Tensor]:
    file = path / _WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ArgumentError(f"--fusion-weights: {file} does not exist; {help_}")
    if file.suffix != ".safetensors":
        raise ArgumentError(f"--fusion-weights: {file} is no .safetensors file, and no other is read; {help_}")
    try:
        tensors = read_tensors(file)
    except RunFolderError as error:
        raise ArgumentError(f"--fusion-weights: {error} Or {help_}") from error
    if not tensors:  # timm would take none given for none wanted
        raise ArgumentError(f"--fusion-weights: {file} holds no weights; {help_}")
    return tensors
