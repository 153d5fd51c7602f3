"""How is an .npz of pictures read?

`images` (N, H, W, 3) uint8 and, if there, `labels` (N,) are the train split; `test_images` and `test_labels` the test
split; `class_names` may name the classes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runtime.errors import DataError
from ..runtime.npz import NPZ_DAMAGE, open_npz
from ..runtime.words import legible
from .images import fit_pictures
from .tensors import TensorSource

_PREFIX = {"train": "", "test": "test_"}
_CHUNK = 1024


def array_splits(path: Path) -> tuple[str, ...]:
    """The splits that an .npz holds, by the names of its arrays.

    Raises:
        DataError: it is no .npz, or holds neither `images` nor `test_images`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except NPZ_DAMAGE as error:
        raise _damaged(path, error) from error
    splits = tuple(split for split, prefix in _PREFIX.items() if f"{prefix}images.npy" in names)
    if not splits:
        raise DataError(f"data: {str(path)!r} holds no array called 'images'; needed is uint8 of shape (N, H, W, 3).")
    return splits


def read_arrays(path: Path, split: str, size: int, *, unlabelled: bool) -> TensorSource:
    """One split of an .npz, resized and cropped to `size`. Object arrays (pickles) are refused.

    Raises:
        DataError: no such split, a damaged file, or arrays of another kind than uint8 (N, H, W, 3) and integers (N,).
    """
    splits = array_splits(path)
    if split not in splits:
        raise DataError(
            f"split: {str(path)!r} has no {split!r} pictures (found: {', '.join(splits)}); "
            f"add an array {_PREFIX[split]}images, or use split={splits[0]!r}."
        )
    try:
        with open_npz(path) as arrays:
            images = arrays[f"{_PREFIX[split]}images"]
            key = f"{_PREFIX[split]}labels"
            labels = arrays[key] if key in arrays and not unlabelled else None
            names = arrays["class_names"] if "class_names" in arrays and labels is not None else None
    except NPZ_DAMAGE as error:
        raise _damaged(path, error) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise DataError(
            f"data: 'images' in {str(path)!r} is {images.dtype} of shape {images.shape}; "
            "needed is uint8 of shape (N, H, W, 3)."
        )
    class_names = None if names is None else tuple(legible(str(name)) for name in names.flatten())
    numbers = None if labels is None else _labels(path, labels, len(images), class_names)
    return TensorSource(_fit(images, size), numbers, class_names, name=path.absolute().name, split=split)


def _fit(images: np.ndarray, size: int) -> Tensor:
    """(n, h, w, 3) to uint8 (n, 3, size, size), some at a time so that memory holds only the result twice over."""
    out = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        part = torch.from_numpy(images[start : start + _CHUNK]).permute(0, 3, 1, 2).contiguous()
        out[start : start + _CHUNK] = fit_pictures(part, size)
    return out


def _labels(path: Path, labels: np.ndarray, n: int, class_names: tuple[str, ...] | None) -> Tensor:
    highest = len(class_names) if class_names is not None else np.iinfo(np.int64).max
    if labels.shape != (n,) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= highest:
        raise DataError(
            f"data: 'labels' in {str(path)!r} is {labels.dtype} of shape {labels.shape}; "
            f"needed is one class number from 0{f' to {highest - 1}' if class_names is not None else ''} "
            f"for each of {n} pictures."
        )
    return torch.from_numpy(labels.astype(np.int64))


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"data: the file {str(path)!r} cannot be read as .npz ({error}); save it anew with numpy.savez.")
