"""What does an encoder folder say of itself? Read from its JSON and its weights' header, without torch, so it is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import RunFolderError
from .files import read_json

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

# Batch normalisation keeps these beside its parameters; nothing learns them by gradient.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_FLOATING = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder's `config.json` tells people.

    Attributes:
        architecture: timm's name for it.
        backbone, stem, options: what it was made of, in Pretint's words.
        num_features: pooled features of a picture.
        in_chans, grey, chroma, mean, std: how a picture becomes its input.
        image_size: side of the images it was trained on, in pixels.
        fixed_size: it takes images of that size only.
        card: what its maker wrote about it.
        checksum: SHA-256 of the weights, as stored.
        version: of the Pretint that saved it.
    """

    architecture: str
    backbone: str
    stem: str
    options: dict[str, Any]
    num_features: int
    in_chans: int
    grey: str
    chroma: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    fixed_size: bool
    card: dict[str, Any]
    checksum: str
    version: str

    @classmethod
    def from_config(cls, config: Any, where: Path | str = "config") -> EncoderFacts:
        """The facts in the dictionary that `save_backbone` writes as `config.json`; `where` it lies is for the error.

        Raises:
            RunFolderError: it is no such dictionary.
        """
        try:
            about = config["pretint"]
            made, preprocess = about["backbone"], about["preprocess"]
            mean, std = (tuple(float(x) for x in preprocess[key]) for key in ("mean", "std"))
            if not mean or len(mean) != len(std) or not all(map(math.isfinite, mean + std)):
                raise ValueError("mean and std are not one finite number a channel")
            chroma = preprocess.get("chroma")
            return cls(
                architecture=str(config["architecture"]),
                backbone=str(made["name"]),
                stem=str(made["stem"]),
                options={str(key): value for key, value in made["options"].items()},
                num_features=int(config["num_features"]),
                in_chans=int(preprocess["in_chans"]),
                grey=str(preprocess["grey"]),
                chroma=None if chroma is None else str(chroma),
                mean=mean,
                std=std,
                image_size=int(about["image_size"]),
                fixed_size=bool(config["pretrained_cfg"].get("fixed_input_size", False)),
                card={str(key): value for key, value in about["card"].items()},
                checksum=str(about["weights_sha256"]),
                version=str(about["pretint_version"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RunFolderError(f"{where} is no encoder of Pretint ({error!r}); save it again.") from None

    @classmethod
    def read(cls, folder: Path) -> EncoderFacts:
        """The facts of an encoder folder (see :func:`find_encoder`).

        Raises:
            RunFolderError: its `config.json` is missing or damaged.
        """
        return cls.from_config(read_json(folder / CONFIG), folder / CONFIG)


def find_encoder(path: Path) -> Path:
    """The encoder folder that a path means: itself, or the one in a run's folder.

    Raises:
        RunFolderError: it is neither, or the run has not finished.
    """
    if not (path / WEIGHTS).exists() and (path / "encoder" / CONFIG).is_file():
        return path / "encoder"
    if not (path / CONFIG).is_file():
        what = (
            "does not exist"
            if not path.exists()
            else "is neither a run folder nor an encoder folder (no config.json in it)"
        )
        raise RunFolderError(f"{path} {what}; name the --out folder of a pretint pretrain, or the encoder/ in it.")
    config = read_json(path / CONFIG)
    if isinstance(config, dict) and "settings" in config and "pretint" not in config:
        raise RunFolderError(f"{path} is not finished; go on with pretint pretrain --resume --out {path}.")
    return path


def count_parameters(weights: Path) -> int:
    """How many numbers of a safetensors file are learned: all floating ones but batch normalisation's running statistics.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    if not weights.is_file():
        raise RunFolderError(f"{weights} is missing; is {weights.parent} a folder that Pretint wrote?")
    total = 0
    try:
        with safe_open(weights, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is a file, not a dictionary
                entry = file.get_slice(name)
                if entry.get_dtype() in _FLOATING and not name.endswith(_STATISTICS):
                    total += math.prod(entry.get_shape())
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"{weights} is damaged ({error}); restore the file or run again.") from None
    return total
