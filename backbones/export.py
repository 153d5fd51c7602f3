"""How does an encoder leave Pretint? As ONNX, as a torch.export program, as timm's folder, or as bare weights; each is checked."""

from __future__ import annotations

import copy
import importlib.util
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from ..runtime.encoderfacts import CARD, CONFIG, WEIGHTS
from ..runtime.errors import ArgumentError, ExportError, UnknownNameError
from ..runtime.files import write_atomically
from ..runtime.tensors import tensors_checksum, write_tensors
from .contract import unwrapped
from .features import pooled
from .folder import save_backbone
from .preprocess import Preprocess
from .program import WRITERS, Computed, about, sides, trace
from .registry import BackboneSpec, build_from_spec

# format: what is put behind a file's or folder's name
FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "timm": "-timm", "safetensors": ".safetensors"}
_PROGRAMS = ("onnx", "torch-export")
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Export:
    """What :func:`export_backbone` made.

    Attributes:
        path: the file, or timm's folder.
        format: one of :data:`FORMATS`.
        error: largest relative error of what it computes, measured after it was written.
        smallest, largest: sides that a program takes, in pixels; without `largest` there is no limit. None for the other formats.
    """

    path: Path
    format: str
    error: float
    smallest: int | None = None
    largest: int | None = None


def export_backbone(
    encoder: nn.Module,
    path: Path | str,
    format: str,
    *,
    maps: bool = False,
    image_size: int = 32,
    overwrite: bool = False,
) -> Export:
    """Writes an encoder in a format that others read, and checks what was written against the encoder itself.

    `onnx` and `torch-export` are programs: RGB float images (n, 3, h, w) in 0…1 go in as `images`, pooled features
    (n, num_features) come out as `features`, for any n and, unless the encoder wants one size, any h and w. They need nothing of
    Pretint. `timm` is the folder that :func:`save_backbone` writes. `safetensors` are the bare weights, with what they belong to in
    the file's header.

    Args:
        encoder: from :func:`create_backbone` or :func:`load_backbone`; it is left as it is, a classifier is left out.
        path: the file, or for `timm` the folder. It is complete or not there: written under another name, checked, renamed.
        format: onnx, torch-export, timm or safetensors.
        maps: programs also give the feature maps (n, c_i, h_i, w_i) of each level, as `map_0`, `map_1`, …
        image_size: side of the images it was trained on; the only one that a program takes if the encoder's size is fixed.
        overwrite: replace what is there.

    Raises:
        UnknownNameError: no such format.
        ArgumentError: `path` exists, packages for ONNX are missing, or the encoder or an option does not fit the format.
        ExportError: the encoder can't be exported, or the export computes something else (a relative error above 1e-4).

    >>> import tempfile
    >>> from pretint.backbones import create_backbone
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_backbone(create_backbone("pretint_cnn", width=4), f"{folder}/weights.safetensors", "safetensors").error
    0.0
    """
    path = Path(path) if Path(path).name else Path(path).resolve()  # "." has no name that could be renamed
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if maps and format not in _PROGRAMS:
        raise ArgumentError(f"maps: {format} holds the whole encoder, which gives its maps anyway; leave maps out.")
    _check_target(path, format, overwrite)
    encoder = unwrapped(encoder)
    _check_encoder(encoder, format)
    plain, size = _plain(encoder), _trained_size(encoder, image_size)
    if format in _PROGRAMS:
        return _export_program(plain, path, format, size, maps)
    if format == "timm":
        return Export(path, format, _export_folder(plain, path, size))
    return Export(path, format, _export_weights(plain, path, size))


def _check_target(path: Path, format: str, overwrite: bool) -> None:
    """Nothing is replaced that was not meant: no other file, no folder that holds more than an encoder."""
    if path.is_dir() and format != "timm":
        raise ArgumentError(
            f"path: {path} is a folder; name a file in it, such as {path / f'encoder{FORMATS[format]}'}."
        )
    if format == "timm" and path.exists():
        if not path.is_dir():
            raise ArgumentError(f"path: {path} is a file; timm's form is a folder, name one that does not exist yet.")
        strangers = sorted({p.name for p in path.iterdir()} - {WEIGHTS, CONFIG, CARD})
        if strangers:
            raise ArgumentError(
                f"path: {path} holds other files ({', '.join(strangers[:3])}); name a folder of its own."
            )
        if not any(path.iterdir()):
            return
    if path.exists() and not overwrite:
        raise ArgumentError(f"path: {path} exists already; add --overwrite (in Python overwrite=True) or name another.")


def _check_encoder(encoder: nn.Module, format: str) -> None:
    preprocess, spec = getattr(encoder, "preprocess", None), getattr(encoder, "spec", None)
    if not isinstance(preprocess, Preprocess) or not isinstance(spec, BackboneSpec):
        raise ArgumentError(
            "encoder: only what create_backbone or load_backbone gave can be exported; give that, without a wrapper around it."
        )
    missing = [name for name in _ONNX_PACKAGES if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(f"format: onnx needs {' and '.join(missing)} beside Pretint; pip install pretint[onnx].")


def _plain(encoder: nn.Module) -> Any:
    """A copy on the CPU in float32, in evaluation mode, without classifier, gradients and checkpointing."""
    plain: Any = copy.deepcopy(encoder)
    if getattr(plain, "num_classes", 0):
        plain.reset_classifier(0)
    if hasattr(plain, "set_grad_checkpointing"):
        plain.set_grad_checkpointing(False)
    return plain.to("cpu", torch.float32, memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _has_fixed_size(encoder: Any) -> bool:
    known = getattr(encoder, "pretrained_cfg", None) or {}  # an encoder of one's own need not have one
    return "img_size" in encoder.spec.options or bool(known.get("fixed_input_size"))


def _trained_size(encoder: Any, image_size: int) -> int:
    return encoder.spec.options.get("img_size", max(image_size, encoder.smallest_size))


# The check


def _worst_error(computed: Computed, encoder: Any, shapes: list[Shape], maps: bool, format: str) -> float:
    """The largest relative error over batches of several shapes (n, h, w), against the encoder itself.

    Raises:
        ExportError: it is above the tolerance, not finite, or shapes differ.
    """
    worst = 0.0
    for seed, (n, h, w) in enumerate(shapes):
        rgb = torch.rand((n, 3, h, w), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            x = encoder.preprocess(rgb)
            # programs give what features() gives; weights are checked by the encoder's own output
            wanted = [pooled(encoder, x) if format in _PROGRAMS else encoder(x)]
            wanted += encoder.forward_intermediates(x, intermediates_only=True) if maps else []
            found = computed(rgb)
        if [t.shape for t in found] != [t.shape for t in wanted]:
            raise ExportError(
                f"format: what {format} computes has other shapes than the encoder's features; report this."
            )
        for a, b in zip(found, wanted, strict=True):
            error = float((a - b).norm() / b.norm().clamp_min(1e-12))
            if not error <= _TOLERANCE:
                raise ExportError(
                    f"format: {n} images of {h} × {w} as {format} give features that differ by {error:.1e} from the encoder's, "
                    "so nothing was kept; use another format."
                )
            worst = max(worst, error)
    return worst


def _shapes(encoder: Any, size: int) -> list[Shape]:
    """Two batch sizes and, if the encoder takes several image sizes, a second one that is neither square nor even."""
    return [(1, size, size), (3, size, size), *([] if _has_fixed_size(encoder) else [(2, size + 9, size + 25)])]


# Programs


def _export_program(encoder: Any, path: Path, format: str, size: int, maps: bool) -> Export:
    """With free height and width if that can be, else for the one size."""
    failure: Exception | None = None
    for free in (False,) if _has_fixed_size(encoder) else (True, False):
        try:
            return _try_program(encoder, path, format, size, maps, free)
        except OSError:
            raise
        except (
            Exception
        ) as error:  # a foreign model, a tracer and a converter may raise anything: then it is not exported
            failure = error
    if isinstance(failure, ExportError):
        raise failure
    reason = " ".join(str(failure).split())[:300]
    raise ExportError(
        f"encoder: {encoder.spec.name} can't be exported to {format} ({reason}); use timm or safetensors."
    ) from failure


def _try_program(encoder: Any, path: Path, format: str, size: int, maps: bool, free: bool) -> Export:
    program = trace(encoder, maps, size, encoder.smallest_size if free else None)
    smallest, largest = sides(program)
    if free and smallest == largest:
        # assertions about a free size would be in the way, and stay out when it is traced as a fixed one
        raise ExportError(f"encoder: {encoder.spec.name} could be traced for one image size only.")
    shapes = _shapes_within(smallest, largest, size)
    errors = []

    def write(temporary: Path) -> None:
        computed = WRITERS[format](program, encoder, temporary)
        errors.append(_worst_error(computed, encoder, shapes, maps, format))

    write_atomically(path, write)
    return Export(path, format, errors[0], smallest, largest)


def _shapes_within(smallest: int, largest: int | None, size: int) -> list[Shape]:
    """Two batch sizes at the trained size (the nearest possible one), a third one at another, and the smallest."""

    def fit(side: int) -> int:
        return min(max(side, smallest), side if largest is None else largest)

    shapes = [(1, fit(size), fit(size)), (3, fit(size), fit(size))]
    if smallest != largest:
        shapes += [(2, fit(size + 9), fit(size + 25)), (2, smallest, smallest)]
    return shapes


# Weights


def _export_folder(encoder: Any, path: Path, size: int) -> float:
    """timm's folder, checked by timm, then put in place of what is there."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_backbone(encoder, temporary, getattr(encoder, "card", None), size)
        theirs = timm.create_model(f"local-dir:{temporary}", pretrained=True).eval()
        error = _worst_error(
            lambda rgb: [theirs(encoder.preprocess(rgb))], encoder, _shapes(encoder, size), False, "timm"
        )
        _put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return error


def _put_in_place(temporary: Path, path: Path) -> None:
    """Renames a folder; what was there is removed only after the new one is in its place."""
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _export_weights(encoder: Any, path: Path, size: int) -> float:
    """Bare safetensors, checked in a fresh encoder of the same kind."""
    weights = encoder.state_dict()
    header = {"format": "pt", "pretint": about(encoder), "weights_sha256": tensors_checksum(weights)}
    errors = []

    def write(temporary: Path) -> None:
        write_tensors(temporary, weights, header)
        fresh: Any = build_from_spec(encoder.spec, encoder.preprocess.in_chans, size).eval()
        try:
            fresh.load_state_dict(load_file(temporary), strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ExportError(
                f"encoder: its layers are not those it was made with ({reason}); export it before it is changed."
            ) from None
        shapes = _shapes(encoder, size)
        errors.append(_worst_error(lambda rgb: [fresh(encoder.preprocess(rgb))], encoder, shapes, False, "safetensors"))

    write_atomically(path, write)
    return errors[0]
