"""How does an encoder travel? A folder of `model.safetensors` and `config.json` that timm loads too, checked on the way in.

`config.json` has timm's `local-dir:` form with one more key, `pretint`: what the encoder was made of, its preprocessing, the run's
card, a checksum of the weights, and the features of a fixed picture. Loading makes sure that the weights are the ones that were
saved and that the code still computes the same features from them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._version import __version__
from ..runtime.encoderfacts import CARD, CONFIG, WEIGHTS, find_encoder
from ..runtime.errors import ArgumentError, NotFiniteError, PretintError, RunFolderError, UnknownNameError
from ..runtime.files import read_json, write_atomically, write_json
from ..runtime.tensors import read_tensors, tensors_checksum, write_tensors
from .card import model_card
from .contract import unwrapped
from .fold import fold_rgb
from .preprocess import Preprocess
from .registry import STEMS, BackboneSpec, architecture, build_from_spec, check_backbone_name, check_options
from .timm_stem import smallest_size

FOLDER_VERSION = 1
_TOLERANCE = 1e-4
_LARGEST_IMAGE = 4096


def fixed_picture(size: int) -> Tensor:
    """The picture whose features are stored with the weights: uint8 (1, 3, size, size) from an integer formula."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    channels = [(x * (7 + 4 * c) + y * (13 + 6 * c) + (x * y) // (3 + c)) % 256 for c in range(3)]
    return torch.stack(channels).to(torch.uint8)[None]


def _fixed_features(encoder: Any, size: int) -> Tensor:
    """Global averages of all stages for the fixed picture, float32 on the CPU, without autocast: (Σ channels,)."""
    training = encoder.training
    encoder.eval()
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        maps = encoder.forward_intermediates(encoder.preprocess(fixed_picture(size)), intermediates_only=True)
    encoder.train(training)
    return torch.cat([m.float().mean((2, 3))[0] for m in maps])


def save_backbone(
    encoder: nn.Module, folder: Path | str, card: dict[str, Any] | None = None, image_size: int | None = None
) -> None:
    """Writes the encoder's folder.

    Args:
        encoder: from :func:`create_backbone` or :func:`load_backbone`, also wrapped by DistributedDataParallel or torch.compile;
            a classifier is left out.
        folder: where to; made if need be, files of an earlier save are replaced.
        card: what people should know of it: task, data, epochs, measured accuracies … (JSON); by default what it came with.
        image_size: side of the images it was trained on, in pixels; by default what it was made or loaded with.

    Raises:
        ArgumentError: the encoder was not made by this library or was changed since, the card is no JSON, or the size is out of
            range.
        NotFiniteError: the encoder's features are not finite. Nothing is written in any of these cases.
    """
    folder = Path(folder)
    encoder = unwrapped(encoder)
    spec, preprocess = getattr(encoder, "spec", None), getattr(encoder, "preprocess", None)
    if not isinstance(spec, BackboneSpec) or not isinstance(preprocess, Preprocess):
        raise ArgumentError(
            "encoder: only what create_backbone or load_backbone gave can be saved; make it with these."
        )
    card = getattr(encoder, "card", None) if card is None else card
    image_size = int(getattr(encoder, "image_size", 32)) if image_size is None else image_size
    if not 1 <= image_size <= _LARGEST_IMAGE:
        raise ArgumentError(f"image_size: {image_size} must be from 1 to {_LARGEST_IMAGE} pixels.")
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"card: it must be JSON with finite numbers ({error}).") from error
    plain: Any = build_from_spec(spec, preprocess.in_chans, image_size).to("cpu")
    classifier = tuple(_classifier_prefixes(encoder))
    weights = {
        k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items() if not k.startswith(classifier)
    }
    try:
        plain.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ArgumentError(
            f"encoder: its layers are not those it was made with ({' '.join(str(error).split())[:300]}); save it before it is "
            "changed, such as by fold_rgb for another mean."
        ) from None
    plain.preprocess = preprocess
    features = _fixed_features(plain, image_size)
    if not bool(features.isfinite().all()):
        raise NotFiniteError(
            "encoder: its features of a fixed picture are not finite, so it was not saved; train it again."
        )
    entry, arguments = architecture(spec)
    config = {
        "architecture": entry,
        "num_classes": 0,
        "num_features": plain.num_features,
        "pretrained_cfg": _pretrained_cfg(plain, preprocess, image_size),
        "model_args": {"in_chans": preprocess.in_chans, "num_classes": 0, **arguments},
        "pretint": {
            "folder_version": FOLDER_VERSION, "pretint_version": __version__, "backbone": spec.to_dict(),
            "preprocess": preprocess.to_dict(), "image_size": image_size, "card": card or {},
            "weights_sha256": tensors_checksum(weights), "fixed_features": features.tolist(),
        },
    }  # fmt: skip
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})
    write_json(folder / CONFIG, config)
    write_atomically(folder / CARD, model_card(config).encode())


def _classifier_prefixes(encoder: Any) -> list[str]:
    """Names of the classifier's weights begin with these."""
    classifier = encoder.get_classifier() if hasattr(encoder, "get_classifier") else ()
    parts = classifier if isinstance(classifier, (tuple, list)) else (classifier,)
    return [f"{name}." for name, module in encoder.named_modules() if any(module is p for p in parts)]


def _pretrained_cfg(encoder: Any, preprocess: Preprocess, image_size: int) -> dict[str, Any]:
    known = getattr(encoder, "pretrained_cfg", None) or {}  # an encoder of one's own need not have one
    channels = preprocess.in_chans
    return {
        "input_size": [channels, image_size, image_size],
        "fixed_input_size": bool(known.get("fixed_input_size", False)),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": preprocess.to_dict()["mean"],
        "std": preprocess.to_dict()["std"],
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
        "num_classes": 0,
    }


def load_backbone(
    folder: Path | str, *, in_chans: int | None = None, device: torch.device | str | None = None
) -> nn.Module:
    """Loads an encoder, strictly, in evaluation mode.

    Args:
        folder: an encoder folder, or a run folder with one in it.
        in_chans: 3 folds a grey encoder, exactly, for RGB input normalised with the encoder's own mean (0.5 unless it was trained
            with another) and deviation 0.25; `encoder.preprocess` tells and does it, :func:`fold_rgb` takes any other. Left out,
            the encoder is as it was saved.
        device: where to put it; the CPU by default.

    Returns:
        The encoder: `encoder(encoder.preprocess(rgb))` gives pooled features (n, num_features); `encoder.card` is what was
        written about it.

    Raises:
        RunFolderError: files are missing or damaged, keys are missing or unexpected (they are listed), the checksum is wrong, or
            the features of the fixed picture are not those stored.
        ArgumentError: the encoder can't be given that number of channels.

    Only sizes and names of known encoders are read from the folder: nothing named in it is imported or called.
    """
    try:
        where = torch.device(device or "cpu")
    except RuntimeError as error:
        raise ArgumentError(f"device: {device!r} is none that torch knows; use cpu, cuda or mps.") from error
    folder = find_encoder(Path(folder))
    config = read_json(folder / CONFIG)
    try:
        about = config["pretint"]
        made_of = about["backbone"]
        spec = BackboneSpec(str(made_of["name"]), str(made_of["stem"]), check_options(made_of["options"]))
        preprocess = Preprocess(**about["preprocess"])
        size, version = int(about["image_size"]), int(about["folder_version"])
        stored = torch.tensor([float(x) for x in about["fixed_features"]])
        checksum, card = str(about["weights_sha256"]), dict(about["card"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, PretintError) as error:
        raise RunFolderError(f"{folder / CONFIG} is no encoder of Pretint ({error!r}); save it again.") from None
    if version > FOLDER_VERSION:
        raise RunFolderError(
            f"{folder} has encoder format {version}, this Pretint reads {FOLDER_VERSION}; upgrade Pretint."
        )
    try:
        check_backbone_name(spec.name)
    except UnknownNameError as error:
        raise RunFolderError(
            f"{folder} names an unknown encoder ({error}); upgrade Pretint or save it again."
        ) from None
    if spec.stem not in ("native", *STEMS):
        raise RunFolderError(f"{folder} names the unknown stem {spec.stem!r}; upgrade Pretint or save it again.")
    if not 1 <= size <= _LARGEST_IMAGE:
        raise RunFolderError(f"{folder}: images of {size} pixels are out of range; save it again.")
    weights = read_tensors(folder / WEIGHTS)
    try:
        # first without memory: sizes that someone made up must not fill the machine
        with torch.device("meta"):
            _check_keys(build_from_spec(spec, preprocess.in_chans, size), weights, folder)
        encoder: Any = build_from_spec(spec, preprocess.in_chans, size)
    except ArgumentError as error:
        raise RunFolderError(f"{folder} describes an encoder that can't be made ({error}); save it again.") from None
    _load_strictly(encoder, weights, checksum, folder)
    encoder.preprocess, encoder.spec, encoder.card, encoder.image_size = preprocess, spec, card, size
    encoder.smallest_size = smallest_size(encoder, preprocess.in_chans) if "img_size" not in spec.options else size
    _verify_features(_fixed_features(encoder, size), stored, folder)
    encoder = encoder.eval()
    if in_chans not in (None, preprocess.in_chans):
        if (preprocess.in_chans, in_chans) != (1, 3):
            raise ArgumentError(
                f"in_chans: {in_chans} does not fit {folder}, whose input has {preprocess.in_chans}; leave it out, and give RGB "
                "pictures to its preprocess (only grey can be folded, to in_chans=3)."
            )
        encoder = fold_rgb(encoder, [preprocess.normalisation[0][0]] * 3)
    return encoder.to(where)


def _check_keys(encoder: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = encoder.state_dict()
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unexpected:
        raise RunFolderError(
            f"{folder}: the weights lack {missing[:8]} and have {unexpected[:8]} too many; save it again."
        )
    wrong = [k for k in wanted if wanted[k].shape != weights[k].shape]
    if wrong:
        raise RunFolderError(f"{folder}: the shapes of {wrong[:8]} do not fit the encoder; save it again.")


def _load_strictly(encoder: nn.Module, weights: dict[str, Tensor], checksum: str, folder: Path) -> None:
    _check_keys(encoder, weights, folder)
    if tensors_checksum(weights) != checksum:
        raise RunFolderError(f"{folder}: model.safetensors is not the file that was saved (checksum); restore it.")
    encoder.load_state_dict(weights, strict=True)


def _verify_features(computed: Tensor, stored: Tensor, folder: Path) -> None:
    if computed.shape != stored.shape:
        raise RunFolderError(f"{folder}: stored features do not fit the encoder; save it again.")
    error = float((computed - stored).norm() / stored.norm().clamp_min(1e-12))
    if not error <= _TOLERANCE:
        raise RunFolderError(
            f"{folder}: features of the fixed picture differ by {error:.1e} from those stored; the weights or the code changed."
        )
