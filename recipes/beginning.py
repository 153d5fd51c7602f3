"""With which weights does a run begin, if not with random ones? Those of another run or of an encoder, and nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..backbones import load_backbone
from ..pretext import PretextModel
from ..runtime.checkpoints import Checkpoints
from ..runtime.errors import ArgumentError, RunFolderError
from ..runtime.runfolder import RunFolder
from ..runtime.runlog import note
from ..runtime.tensors import tensors_checksum


def begin_with(path: Path, model: PretextModel) -> dict[str, Any]:
    """Puts the weights of a finished run or an encoder folder into a fresh network; optimiser, counters and settings stay behind.

    Of a run whose network has the same tensors as this one all are taken (but for a classifier that helps, which has its own),
    else the encoder's.

    Args:
        path: the run's or the encoder's folder.
        model: the network with random weights.

    Returns:
        Where the weights are from, for `config.json` and the model card: `path`, `task`, `data`, `weights_sha256` of the encoder,
        and `leaks`: whose labels helped to make them, or None.

    Raises:
        RunFolderError: the folder is none of both, or is damaged.
        ArgumentError: the encoder is another than this run's.
    """
    encoder: Any = load_backbone(path)
    weights = encoder.state_dict()
    whole = _whole_network(path, model)
    if whole is not None:
        model.load_state_dict(whole, strict=False)
    else:
        _check_fits(path, weights, model.encoder)
        model.encoder.load_state_dict(weights, strict=True)
    note(f"pretrain: begins with {'the network' if whole is not None else 'the encoder alone'} of {path}")
    if encoder.preprocess != model.encoder.preprocess:
        note(f"pretrain: but the encoder of {path} saw another input: {encoder.preprocess.to_dict()}")
    task, data, leaks = (encoder.card.get(name) for name in ("task", "data", "leaks"))
    if leaks is None and "supervised" in str(task).split("+"):
        leaks = f"labels of {data}"
    return {"path": str(path), "task": task, "data": data, "weights_sha256": tensors_checksum(weights), "leaks": leaks}


def _whole_network(path: Path, model: PretextModel) -> dict[str, Tensor] | None:
    """A run's best weights, if they are those of this network; None if not, or if the folder is an encoder's."""
    try:
        folder = RunFolder.open(path)
    except RunFolderError:
        return None
    found = _without_classifier(Checkpoints(folder.checkpoints).best_weights())
    own = _without_classifier(model.state_dict())
    same = found.keys() == own.keys() and all(found[name].shape == own[name].shape for name in own)
    return found if same else None


def _without_classifier(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}


def _check_fits(path: Path, weights: dict[str, Tensor], encoder: nn.Module) -> None:
    own = encoder.state_dict()
    differing = sorted(own.keys() ^ weights.keys())
    differing += [
        f"{name}: {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ArgumentError(
            f"--init-from: the encoder in {path} is another than this run's ({', '.join(differing[:3])}{more}); give it the same "
            "--backbone, --width, --depth and --stem."
        )
