"""What does a frozen encoder say about each image? Every stage, pooled in one pass, and cached."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32, Int64, UInt8
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from .._version import __version__
from ..backbones import fold_batch_norm
from ..data import ImageSource
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError, NotFiniteError, RunFolderError, UnknownNameError
from ..runtime.files import write_atomically
from ..runtime.processes import any_process, is_main, rows_to_main, share
from ..runtime.tensors import read_metadata, read_tensors, tensors_checksum

# Part of every cache key: a change of the pooling or of the file's form makes old files unreachable rather than wrong.
_CACHE_FORMAT = 3
# A stage's grid is made coarser until it has no more numbers than this (Zhang et al. 2016, section 3.2, pool to about 9000).
MOST_NUMBERS = 9000


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set.

    Attributes:
        arrays: for each layer the float32 features (n, d) on the CPU: `"stage0"` (finest) to `"stageN"` (coarsest) are global
            averages, `"stage0/2x2"` the averages of 2 × 2 cells, channel by channel, and so on.
        labels: class of each image, int64 (n,) on the CPU, or None for an unlabelled source.
    """

    arrays: dict[str, Float32[Tensor, "n _"]]
    labels: Int64[Tensor, " n"] | None


def extract_features(
    encoder: nn.Module,
    source: ImageSource,
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    autocast: bool = False,
    grids: Sequence[int] = (1,),
    layers: Sequence[str] | None = None,
    cache: Path | None = None,
) -> Features:
    """Every stage of an encoder, pooled to its global average or to a grid, for every image, in one pass.

    Several processes each look at their share of the images, and all of them must call this; the main one gets all features, the
    others no rows.

    The encoder runs in evaluation mode and inference mode, with its batch normalisation folded into its convolutions
    (:func:`pretint.backbones.fold_batch_norm`); each module's training flag is put back afterwards. Nothing but the pooled
    vectors (float32, allocated once) and one batch is held in memory.

    Args:
        encoder: keeps timm's contract (`forward_intermediates(x, intermediates_only=True)`: a list of (b, c, h, w)) and
            has `.preprocess`, which makes its input from uint8 RGB (b, 3, h, w). It is moved to `device`.
        source: the images.
        batch_size: images per forward pass; with batch norm in evaluation mode it does not change the features.
        device: where to compute; None: where the encoder's weights are.
        autocast: run the forward pass under bf16 autocast; the average is taken in float32 all the same.
        grids: cells a side of each pooling; 1 is the global average, 2 the averages of 2 × 2 cells. A map with fewer pixels is
            taken as it is, and one that would give more than 9000 numbers is pooled more coarsely.
        layers: names of the layers to keep, such as `"stage2"` and `"stage2/2x2"`; None keeps them all.
        cache: a folder for the features; None: nothing is written. The file's name is a hash of the weights, the
            architecture, what `.preprocess` makes of a fixed picture, the source's fingerprint, the grids, the layers and
            the precision. A damaged file is computed anew with a warning. The folder may be deleted at any time.

    Raises:
        ArgumentError: `encoder` has no `.preprocess`, or `batch_size` or a grid is not positive.
        UnknownNameError: `layers` names a layer that the encoder or the grids do not have.
        DataError: the source holds no image.
        NotFiniteError: a layer holds NaN or infinity.
    """
    if not callable(getattr(encoder, "preprocess", None)):
        raise ArgumentError(
            f"encoder: {type(encoder).__name__} has no .preprocess; make it with create_backbone or load_backbone, "
            "or set one that turns uint8 RGB (b, 3, h, w) into the encoder's input."
        )
    if batch_size < 1:
        raise ArgumentError(f"batch_size: got {batch_size}; use 1 or more.")
    if not grids or min(grids) < 1:
        raise ArgumentError(f"grids: got {tuple(grids)}; use cells a side, such as 1 and 2.")
    if len(source) == 0:
        raise DataError(f"source: {source.name!r} holds no image; features need at least one.")
    compute = Compute(_device(encoder, device), bf16=autocast)
    compute.place(encoder)
    with _frozen(encoder):
        arrays = _cached(encoder, source, compute, batch_size, _Pooling(tuple(grids), layers), cache)
    return Features(arrays, None if source.labels is None else source.labels.to("cpu", torch.int64))


def _device(encoder: nn.Module, device: torch.device | str | None) -> torch.device:
    """The device asked for, or the one where the encoder is."""
    if device is not None:
        return torch.device(device)
    return next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))


@contextmanager
def _frozen(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module has its own flag again, which may differ inside one encoder."""
    flags = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _cached(
    encoder: nn.Module,
    source: ImageSource,
    compute: Compute,
    batch_size: int,
    pooling: _Pooling,
    folder: Path | None,
) -> dict[str, Tensor]:
    """The features, from the cache folder where it has them."""
    if folder is None:
        return _pooled_stages(encoder, source, compute, batch_size, pooling)
    key = _key(encoder, source, compute, pooling)
    path = Path(folder) / f"{key}.safetensors"
    arrays = _read(path) if is_main() else {}
    if any_process(arrays is None):
        arrays = _pooled_stages(encoder, source, compute, batch_size, pooling)
        if is_main():
            _write(path, arrays)
    return arrays or {}


def _pooled_stages(
    encoder: nn.Module, source: ImageSource, compute: Compute, batch_size: int, pooling: _Pooling
) -> dict[str, Tensor]:
    """One pass over the source: layer name -> float32 (n, d) on the CPU of the main process, checked to be finite."""
    encoder = compute.place(fold_batch_norm(encoder, encoder.preprocess(_noise(source, compute))))  # pyright: ignore[reportCallIssue]
    own, arrays = torch.arange(len(source))[share(len(source))], {}
    on_gpu = compute.device.type == "cuda"
    for start, ids in zip(range(0, len(own), batch_size), own.split(batch_size), strict=True):
        rgb = source.gather(ids, device=compute.device)  # (b, 3, h, w)
        pooled = _pool(encoder, rgb, compute, pooling)
        if not arrays:
            # Page-locked memory lets the copies below run behind the computation instead of stopping it at each batch.
            arrays = {name: torch.empty(len(own), x.shape[1], pin_memory=on_gpu) for name, x in pooled.items()}
        for name, x in pooled.items():
            arrays[name][start : start + len(x)].copy_(x, non_blocking=on_gpu)
    if on_gpu:
        torch.cuda.synchronize(compute.device)
    arrays = {name: rows_to_main(array, len(source)) for name, array in arrays.items()}
    for name, array in arrays.items():
        if is_main() and not is_finite(array):
            raise NotFiniteError(
                f"The features of layer {name!r} hold NaN or infinity; check the encoder's weights, or use fp32 "
                "instead of bf16."
            )
    return arrays


@torch.inference_mode()  # only here: what is allocated under it, such as the result, could not be trained on later
def _pool(encoder: nn.Module, rgb: Tensor, compute: Compute, pooling: _Pooling) -> dict[str, Tensor]:
    """The layers of a batch, float32 (b, d) each."""
    with compute.autocast():
        # nn.Module's attribute lookup is typed as Tensor | Module; timm's contract promises these two to be callable.
        x = encoder.preprocess(rgb)  # pyright: ignore[reportCallIssue]  # (b, in_chans, h, w)
        maps = encoder.forward_intermediates(compute.layout(x), intermediates_only=True)  # pyright: ignore[reportCallIssue]
    return pooling(maps)


@dataclass(frozen=True)
class _Pooling:
    """How feature maps become layers of features."""

    grids: tuple[int, ...]
    layers: Sequence[str] | None

    def __call__(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps (b, c, h, w), fine to coarse -> the wanted layers, float32 (b, c · cells), grid by grid."""
        names = {_layer_name(depth, grid): (depth, grid) for grid in self.grids for depth in range(len(maps))}
        for name in self.layers or ():
            if name not in names:
                raise UnknownNameError("layers", name, names)
        wanted = {name: place for name, place in names.items() if self.layers is None or name in self.layers}
        return {name: _pooled(maps[depth].float(), grid) for name, (depth, grid) in wanted.items()}


def _layer_name(depth: int, grid: int) -> str:
    return f"stage{depth}" if grid == 1 else f"stage{depth}/{grid}x{grid}"


def _pooled(stage: Float32[Tensor, "b c h w"], grid: int) -> Float32[Tensor, "b d"]:
    """The averages of grid × grid cells, or of as many as there are pixels or as `MOST_NUMBERS` allows."""
    if grid == 1:
        return stage.mean((2, 3))
    most = max(1, math.isqrt(MOST_NUMBERS // stage.shape[1]))
    height, width = (min(grid, most, side) for side in stage.shape[2:])
    return functional.adaptive_avg_pool2d(stage, (height, width)).flatten(1)


def _key(encoder: nn.Module, source: ImageSource, compute: Compute, pooling: _Pooling) -> str:
    """A hash of everything that the features depend on."""
    weights = {name: value for name, value in encoder.state_dict().items() if isinstance(value, Tensor)}
    # Strides and activations are no weights but stand in the module's text; memory addresses in it mean nothing.
    architecture = re.sub(r"0x[0-9a-fA-F]+", "", repr(encoder))
    # A callable has no reliable text of its own, so preprocessing is known by what it makes of a fixed noisy picture.
    seen = encoder.preprocess(_noise(source, compute))  # pyright: ignore[reportCallIssue]
    parts = {
        "format": _CACHE_FORMAT,
        "version": __version__,
        "weights": tensors_checksum(weights),
        "architecture": architecture,
        "preprocessing": tensors_checksum({"input": seen}),
        "data": [source.fingerprint, len(source), source.image_size],
        "grids": list(pooling.grids),
        "layers": None if pooling.layers is None else sorted(set(pooling.layers)),
        "precision": [compute.precision, compute.device.type, torch.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _noise(source: ImageSource, compute: Compute) -> UInt8[Tensor, "2 3 side side"]:
    """Two pictures of noise, as large as the source's, always the same."""
    side = source.image_size
    steps = torch.arange(2 * 3 * side * side, device=compute.device)
    return ((steps * 2654435761) >> 13).remainder(256).to(torch.uint8).view(2, 3, side, side)


def _place(name: str) -> tuple[int, int]:
    """Where a layer stands among the others: by grid, then by depth; safetensors sorts by name."""
    depth, _, grid = name.removeprefix("stage").partition("/")
    return int(grid.partition("x")[0] or 1), int(depth)


def _read(path: Path) -> dict[str, Tensor] | None:
    """The arrays of a cache file; None where there is none, or (with a warning) where it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays, metadata = read_tensors(path), read_metadata(path)
        if metadata.get("checksum") == tensors_checksum(arrays) and metadata.get("key") == path.stem:
            return dict(sorted(arrays.items(), key=lambda item: _place(item[0])))
        reason = "its checksum is wrong"
    except RunFolderError as error:
        reason = str(error)
    warnings.warn(f"cached features {path} are damaged ({reason}); computing them anew.", stacklevel=4)
    return None


def _write(path: Path, arrays: dict[str, Tensor]) -> None:
    """Writes a cache file; a full or read-only disk costs a warning, never the features."""
    metadata = {"checksum": tensors_checksum(arrays), "key": path.stem}
    try:
        write_atomically(path, lambda temporary: save_file(arrays, temporary, metadata=metadata))
    except (OSError, SafetensorError) as error:
        warnings.warn(f"cache: could not write {path} ({error}); the features are not cached.", stacklevel=4)


def is_finite(array: Tensor) -> bool:
    """Whether no number is NaN or infinite; aminmax carries both along and, unlike isfinite, needs no memory of its size."""
    return bool(torch.isfinite(torch.stack(array.aminmax())).all())
