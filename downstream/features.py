"""What does a frozen encoder say about each image? Pooled once, cached, and turned to axes that suit a probe."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data import ImageSource
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, DataError, NotFiniteError, RunFolderError, UnknownNameError
from ..runtime.files import write_atomically
from ..runtime.tensors import read_metadata, read_tensors, tensors_checksum

# Part of every cache key: a change of the pooling or of the file's form makes old files unreachable rather than wrong.
_CACHE_FORMAT = 1
_CHUNK = 4096  # rows of statistics at a time


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set.

    Attributes:
        arrays: for each layer, `"stage0"` (finest) to `"stageN"` (coarsest), the float32 features (n, d) on the CPU.
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
    layers: Sequence[str] | None = None,
    cache: Path | None = None,
) -> Features:
    """The global average of every stage of an encoder, for every image, in one pass.

    The encoder runs in evaluation mode and inference mode; each module's training flag is put back afterwards. Nothing
    but the pooled vectors (float32, allocated once) and one batch is held in memory.

    Args:
        encoder: keeps timm's contract (`forward_intermediates(x, intermediates_only=True)`: a list of (b, c, h, w)) and
            has `.preprocess`, which makes its input from uint8 RGB (b, 3, h, w). It is moved to `device`.
        source: the images.
        batch_size: images per forward pass; with batch norm in evaluation mode it does not change the features.
        device: where to compute; None: where the encoder's weights are.
        autocast: run the forward pass under bf16 autocast; the average is taken in float32 all the same.
        layers: names of the stages to keep; None keeps them all.
        cache: a folder for the features; None: nothing is written. The file's name is a hash of the weights, the
            architecture, what `.preprocess` makes of a fixed picture, the source's fingerprint, the layers and the
            precision. A damaged file is computed anew with a warning. The folder may be deleted at any time.

    Raises:
        ArgumentError: `encoder` has no `.preprocess`, or `batch_size` is not positive.
        UnknownNameError: `layers` names a stage that the encoder does not have.
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
    if len(source) == 0:
        raise DataError(f"source: {source.name!r} holds no image; features need at least one.")
    compute = Compute(_device(encoder, device), bf16=autocast)
    compute.place(encoder)
    with _frozen(encoder):
        arrays = _cached(encoder, source, compute, batch_size, layers, cache)
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
    layers: Sequence[str] | None,
    folder: Path | None,
) -> dict[str, Tensor]:
    """The features, from the cache folder where it has them."""
    if folder is None:
        return _pooled_stages(encoder, source, compute, batch_size, layers)
    key = _key(encoder, source, compute, layers)
    path = Path(folder) / f"{key}.safetensors"
    arrays = _read(path)
    if arrays is None:
        arrays = _pooled_stages(encoder, source, compute, batch_size, layers)
        _write(path, arrays)
    return arrays


def _pooled_stages(
    encoder: nn.Module, source: ImageSource, compute: Compute, batch_size: int, layers: Sequence[str] | None
) -> dict[str, Tensor]:
    """One pass over the source: layer name -> float32 (n, d) on the CPU, checked to be finite."""
    n, arrays = len(source), {}
    on_gpu = compute.device.type == "cuda"
    for start in range(0, n, batch_size):
        ids = torch.arange(start, min(start + batch_size, n))
        rgb = source.gather(ids, device=compute.device)  # (b, 3, h, w)
        pooled = _select(_pool(encoder, rgb, compute), layers)
        if not arrays:
            # Page-locked memory lets the copies below run behind the computation instead of stopping it at each batch.
            arrays = {name: torch.empty(n, x.shape[1], pin_memory=on_gpu) for name, x in pooled.items()}
        for name, x in pooled.items():
            arrays[name][start : start + len(x)].copy_(x, non_blocking=on_gpu)
    if on_gpu:
        torch.cuda.synchronize(compute.device)
    for name, array in arrays.items():
        if not _is_finite(array):
            raise NotFiniteError(
                f"The features of layer {name!r} hold NaN or infinity; check the encoder's weights, or use fp32 "
                "instead of bf16."
            )
    return arrays


@torch.inference_mode()  # only here: what is allocated under it, such as the result, could not be trained on later
def _pool(encoder: nn.Module, rgb: Tensor, compute: Compute) -> dict[str, Tensor]:
    """Global average of every stage, float32 (b, d) each."""
    with compute.autocast():
        # nn.Module's attribute lookup is typed as Tensor | Module; timm's contract promises these two to be callable.
        x = encoder.preprocess(rgb)  # pyright: ignore[reportCallIssue]  # (b, in_chans, h, w)
        maps = encoder.forward_intermediates(compute.layout(x), intermediates_only=True)  # pyright: ignore[reportCallIssue]
    return {f"stage{depth}": stage.float().mean((2, 3)) for depth, stage in enumerate(maps)}


def _select(pooled: dict[str, Tensor], layers: Sequence[str] | None) -> dict[str, Tensor]:
    """The layers that were asked for, in the encoder's order."""
    for name in layers or ():
        if name not in pooled:
            raise UnknownNameError("layers", name, pooled)
    return pooled if layers is None else {name: x for name, x in pooled.items() if name in layers}


def _key(encoder: nn.Module, source: ImageSource, compute: Compute, layers: Sequence[str] | None) -> str:
    """A hash of everything that the features depend on."""
    weights = {name: value for name, value in encoder.state_dict().items() if isinstance(value, Tensor)}
    # Strides and activations are no weights but stand in the module's text; memory addresses in it mean nothing.
    architecture = re.sub(r"0x[0-9a-fA-F]+", "", repr(encoder))
    # A callable has no reliable text of its own, so preprocessing is known by what it makes of a fixed noisy picture.
    side = source.image_size
    steps = torch.arange(2 * 3 * side * side, device=compute.device)
    picture = ((steps * 2654435761) >> 13).remainder(256).to(torch.uint8).view(2, 3, side, side)
    seen = encoder.preprocess(picture)  # pyright: ignore[reportCallIssue]
    parts = {
        "format": _CACHE_FORMAT,
        "weights": tensors_checksum(weights),
        "architecture": architecture,
        "preprocessing": tensors_checksum({"input": seen}),
        "data": [source.fingerprint, len(source), side],
        "layers": None if layers is None else sorted(set(layers)),
        "precision": [compute.precision, compute.device.type, torch.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Tensor] | None:
    """The arrays of a cache file; None where there is none, or (with a warning) where it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays, metadata = read_tensors(path), read_metadata(path)
        if metadata.get("checksum") == tensors_checksum(arrays) and metadata.get("key") == path.stem:
            return dict(sorted(arrays.items(), key=lambda item: int(item[0].removeprefix("stage"))))
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


@dataclass(frozen=True)
class PrincipalAxes:
    """A layer's features, standardised and rotated so that its columns are uncorrelated.

    Attributes:
        mean: (d,) of the raw features.
        rotation: (d, d), from centred raw features to the axes; a constant channel's row is zero.
        variances: (d,) of the standardised features along the axes; their mean is 1 when no channel is constant.
    """

    mean: Float32[Tensor, " d"]
    rotation: Float32[Tensor, "d d"]
    variances: Float32[Tensor, " d"]

    @classmethod
    def fit(cls, parts: tuple[Float32[Tensor, "n _"], ...]) -> PrincipalAxes:
        """The axes of a layer given as column blocks, which are never joined as a whole; finite values are assumed.

        Products are float32 over centred columns scaled to at most 1, so that no scale overflows; sums are float64.
        """
        n, mean = len(parts[0]), torch.cat([part.mean(0).cpu() for part in parts])
        lowest, highest = (torch.cat(ends).cpu() for ends in zip(*(part.aminmax(dim=0) for part in parts), strict=True))
        peak = torch.maximum(highest, -lowest).clamp_min(1e-30)  # (d,) largest magnitude
        products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for chunk in zip(*(part.split(_CHUNK) for part in parts), strict=True):
            x = torch.cat(chunk, 1)
            x = (x - mean.to(x)) / peak.to(x)  # (b, d)
            products += (x.T @ x).cpu().double()
        deviation = (products.diagonal() / n).sqrt()
        # Channels that vary by less than float32's rounding are dead: they carry noise, and dividing would blow it up.
        scale = torch.where(deviation > 1e-6, 1 / deviation, 0.0)
        variances, rotation = torch.linalg.eigh(products / n * scale * scale[:, None])
        return cls(mean.float(), (rotation * (scale / peak)[:, None]).float(), variances.clamp_min(0).float())

    def project(self, parts: tuple[Tensor, ...], device: torch.device) -> Float32[Tensor, "n d"]:
        """Features along the axes, computed in chunks, on `device`."""
        mean, rotation = self.mean.to(device), self.rotation.to(device)
        z = torch.empty(len(parts[0]), rotation.shape[1], device=device)
        for i, chunk in enumerate(zip(*(part.split(_CHUNK) for part in parts), strict=True)):
            x = torch.cat(chunk, 1).to(device) - mean
            torch.mm(x, rotation, out=z[i * _CHUNK : i * _CHUNK + len(x)])
        return z


Layers = dict[str, tuple[Tensor, ...]]


def paired_layers(train: Tensor | Mapping[str, Tensor], test: Tensor | Mapping[str, Tensor]) -> tuple[Layers, Layers]:
    """Layer name -> float32 column blocks of two splits; "all" lists the blocks of every layer instead of copying them.

    A bare tensor is the one layer "features". Raises ArgumentError when a layer is no float (n, d) with n, d > 0 or the
    splits differ in layers or widths, NotFiniteError when a layer holds NaN or infinity.
    """
    both: list[Layers] = []
    for name, given in (("train_features", train), ("test_features", test)):
        features = dict(given) if isinstance(given, Mapping) else {"features": given}
        if not features or "all" in features:
            raise ArgumentError(f"{name}: got layers {list(features)}; give one or more, none of them called 'all'.")
        for layer, x in features.items():
            if x.ndim != 2 or not x.is_floating_point() or not x.numel():
                raise ArgumentError(
                    f"{name}: layer {layer!r} is {x.dtype} {tuple(x.shape)}; use floats (images, width)."
                )
            features[layer] = x.detach().float()
            if not _is_finite(features[layer]):
                raise NotFiniteError(f"{name}: layer {layer!r} holds NaN or infinity; check the encoder that made it.")
        layers: Layers = {layer: (x,) for layer, x in features.items()}
        both.append(layers | ({"all": tuple(features.values())} if len(layers) > 1 else {}))
    widths, test_widths = ({layer: sum(x.shape[1] for x in parts) for layer, parts in side.items()} for side in both)
    if widths != test_widths:
        raise ArgumentError(f"test_features: layers and widths {test_widths} differ from those of training, {widths}.")
    return both[0], both[1]


def _is_finite(array: Tensor) -> bool:
    """aminmax carries NaN and infinity along and, unlike isfinite, allocates nothing of the array's size."""
    return bool(torch.isfinite(torch.stack(array.aminmax())).all())
