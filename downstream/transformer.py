"""How does an encoder stand in a scikit-learn pipeline? As a transformer: arrays of images in, pooled features out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from safetensors.torch import save as safetensors_bytes
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor, nn

from ..backbones import features, load_backbone
from ..data.images import fit_pictures
from ..runtime.device import resolve_device
from ..runtime.encoderfacts import CONFIG, WEIGHTS, find_encoder
from ..runtime.errors import ArgumentError
from ..runtime.files import read_json, write_json

# Resampled floating images overshoot black and white a little, and encoders take them; a wrong range is off by far more.
_OVERSHOOT = 0.5


class PretintFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Pooled features of a frozen encoder, as a scikit-learn transformer.

    Takes images (n, H, W, 3), or grey ones (n, H, W, 1), or, with `image_shape`, flat rows (n, H·W·3). The features are
    those of :func:`pretint.backbones.features`. `fit` learns nothing from the images but their shape and, if asked to, the
    range of their values; it reads the encoder's folder, so cross-validation and clones read it again. A fitted
    transformer keeps the encoder, and its pickle does too (as the folder's two files, which are checked when it is loaded):
    it needs the folder no more.

    Args:
        folder: an encoder folder, or a run folder with one in it.
        size: side in pixels: images are cropped to a centred square and resized, as pretraining does it; or (height,
            width): they are stretched to it; None leaves them as they are.
        image_shape: how flat rows are folded: (H, W, 3), (H, W, 1) or, for grey rows, (H, W); one of H and W may be −1, and
            then follows from the length of the rows, as in `numpy.reshape`. Images have their shape already.
        pixel_range: the values that stand for black and white. None: 0 and 255 for whole numbers, 0 and 1 for floating
            ones; a pair of numbers, such as (0, 16); or "minmax": the lowest and the highest value that `fit` sees, as
            in `MinMaxScaler(clip=True)`, so values beyond them later are taken as black and white. Otherwise values beyond the
            range are an error (floating ones half a range beyond it): an image taken at the wrong scale gives
            features without meaning, and nobody would notice.
        batch_size: images at a time.
        device: where to compute: auto, cpu, cuda, cuda:N or mps. It may be set anew after fitting or unpickling.

    Attributes:
        encoder_: the encoder.
        image_shape_: (H, W, C) of the images in `fit`; `transform` takes the same.
        pixel_range_: the range in use, None where it follows from the type of the numbers.
        n_features_in_: H·W·C.
        feature_names_in_: the columns' names, if `fit` was given a data frame of flat rows.

    Raises (from `fit` and `transform`):
        ValueError: the array is not one of images: its shape, its type, its values, or they differ from those of `fit`.
        ArgumentError, UnknownNameError: a parameter is out of range.
        RunFolderError: the folder is missing or damaged, as :func:`pretint.backbones.load_backbone` says.

    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from pretint.backbones import create_backbone, save_backbone
    >>> images = np.concatenate([np.full((5, 16, 16, 3), level, np.uint8) for level in (10, 200)])
    >>> with TemporaryDirectory() as folder:
    ...     save_backbone(create_backbone("pretint_cnn", width=4), folder)
    ...     pipeline = make_pipeline(PretintFeatures(folder), LogisticRegression(C=1e6)).fit(images, [0] * 5 + [1] * 5)
    >>> pipeline.predict(images).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """

    # scikit-learn's constructors take anything and `fit` checks it, so no checker may look at these while tests run.
    @no_type_check
    def __init__(
        self,
        folder: Path | str,
        *,
        size: int | tuple[int, int] | None = None,
        image_shape: tuple[int, ...] | None = None,
        pixel_range: tuple[float, float] | str | None = None,
        batch_size: int = 256,
        device: str = "cpu",
    ):
        self.folder = folder
        self.size = size
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> PretintFeatures:
        """Loads the encoder and takes down the shape of the images; `y` is not used."""
        self._check_parameters()
        images = self._images(X, reset=True)
        self.image_shape_ = images.shape[1:]
        self.pixel_range_: tuple[float, float] | None = None
        if self.pixel_range is not None:
            low, high = (images.min(), images.max()) if self.pixel_range == "minmax" else self.pixel_range
            self.pixel_range_ = (float(low), float(high))
        self._check_range(images)
        self.encoder_, self._config = _load(Path(self.folder))
        self._n_features_out = self._first_features(images).shape[1]
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "n d"]:
        """The features of each image."""
        check_is_fitted(self, "encoder_")
        self._check_parameters()
        images = self._images(X, reset=False)
        if images.shape[1:] != self.image_shape_:
            raise ValueError(
                f"X: images of shape {images.shape[1:]} differ from those of fit, {self.image_shape_}; "
                "resize them, or fit again."
            )
        self._check_range(images)
        # Batch by batch: the arrays may be large, and memory-mapped.
        starts = range(0, len(images), self.batch_size)
        return np.concatenate([self._features(images[i : i + self.batch_size]) for i in starts])

    def _first_features(self, images: Shaped[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "1 d"]:
        """Features of one image: how many there are, and whether the encoder takes images of this size."""
        try:
            return self._features(images[:1])
        except (ArgumentError, AssertionError, RuntimeError) as error:  # the last two are timm's and torch's
            side, reason = self._config["pretint"]["image_size"], str(error).removesuffix(".")
            raise ValueError(
                f"X: images of shape {images.shape[1:]} and size={self.size} do not suit the encoder ({reason}); "
                f"give size={side}, the side of the images it was trained on."
            ) from error

    def _features(self, images: Shaped[np.ndarray, "b h w c"]) -> Float32[np.ndarray, "b d"]:
        encoder = self.encoder_.to(resolve_device(str(self.device)))
        return features(encoder, self._rgb(images), batch_size=self.batch_size).cpu().numpy()

    def _rgb(self, images: Shaped[np.ndarray, "b h w c"]) -> Float32[Tensor, "b 3 _ _"] | UInt8[Tensor, "b 3 _ _"]:
        """The encoder's kind of pictures: uint8 stays so, other numbers become floats in 0…1."""
        if self.pixel_range_ is None and _are_whole(images):
            images = images.astype(np.uint8)
        else:
            low, high = self._range(images)
            images = ((images - low) / ((high - low) or 1.0)).astype(np.float32)
            if self.pixel_range == "minmax":
                images = images.clip(0, 1)
        rgb = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C")).expand(-1, 3, -1, -1).contiguous()
        if self.size is None:
            return rgb
        if isinstance(self.size, Sequence):
            return torch.nn.functional.interpolate(rgb, size=tuple(self.size), mode="bicubic", antialias=True)
        return fit_pictures(rgb, self.size)

    def _images(self, X: Any, reset: bool) -> Shaped[np.ndarray, "n h w c"]:
        """X as an array of images, its number of columns (and their names) compared with those of `fit`."""
        array = check_array(X, dtype="numeric", allow_nd=True, estimator=self, input_name="X")
        if array.ndim == 4 and array.shape[-1] not in (1, 3):
            raise ValueError(
                f"X: shape {array.shape} is not (n, height, width, 3); put the channels last, such as with "
                "X.transpose(0, 2, 3, 1), and leave out a fourth one."
            )
        if array.ndim not in (2, 4):
            raise ValueError(
                f"X: shape {array.shape} is not (n, height, width, 3); stack images, a single one as X[None], "
                "grey ones as X[..., None]."
            )
        # A data frame is handed over itself, for the names of its columns; images count as rows of H·W·C numbers.
        validate_data(self, X if array.ndim == 2 else array.reshape(len(array), -1), reset=reset, skip_check_array=True)
        return array if array.ndim == 4 else self._fold(array)

    def _fold(self, rows: Shaped[np.ndarray, "n k"]) -> Shaped[np.ndarray, "n h w c"]:
        if self.image_shape is None:
            raise ValueError(
                f"X: rows of {rows.shape[1]} numbers are no images; give image_shape=(height, width, 3), or (height, width) "
                "for grey rows."
            )
        try:
            return rows.reshape(len(rows), *(*self.image_shape, 1)[:3])
        except ValueError:
            raise ValueError(
                f"X: rows of {rows.shape[1]} numbers do not fold into image_shape={self.image_shape}; mend one of them."
            ) from None

    def _range(self, images: np.ndarray) -> tuple[float, float]:
        if self.pixel_range_ is not None:
            return self.pixel_range_
        return (0.0, 255.0) if _are_whole(images) else (0.0, 1.0)

    def _check_range(self, images: np.ndarray) -> None:
        """Raises ValueError for values that can't be pixels of the range; those beyond a learned one are clipped."""
        if self.pixel_range == "minmax" or (self.pixel_range is None and images.dtype == np.uint8):
            return
        low, high = self._range(images)
        slack = 0.0 if _are_whole(images) else _OVERSHOOT * (high - low)
        lowest, highest = float(images.min()), float(images.max())
        if lowest < low - slack or highest > high + slack:
            raise ValueError(
                f"X: {images.dtype} values from {lowest:g} to {highest:g} do not lie in {low:g}…{high:g}; give the values of "
                'black and white, such as pixel_range=(0, 255), or pixel_range="minmax".'
            )

    def _check_parameters(self) -> None:
        resolve_device(str(self.device))
        if not _is_whole(self.batch_size) or self.batch_size < 1:
            raise ArgumentError(f"batch_size: got {self.batch_size!r}; use a whole number from 1.")
        if self.size is not None and not _is_size(self.size):
            raise ArgumentError(f"size: got {self.size!r}; use a side in pixels, (height, width), or None.")
        if self.image_shape is not None and not _is_shape(self.image_shape):
            raise ArgumentError(
                f"image_shape: got {self.image_shape!r}; use (height, width, 3), or (height, width) for grey rows, with at "
                "most one -1."
            )
        if self.pixel_range is not None and self.pixel_range != "minmax" and not _is_range(self.pixel_range):
            raise ArgumentError(
                f'pixel_range: got {self.pixel_range!r}; use None, "minmax", or the values of black and white, such as (0, 255).'
            )

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {**super().__getstate__()}  # pyright: ignore[reportGeneralTypeIssues]
        encoder = state.pop("encoder_", None)
        if encoder is not None:
            weights = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
            state["_weights"] = safetensors_bytes(weights, {"format": "pt"})
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        weights = state.pop("_weights", None)
        super().__setstate__(state)
        if weights is not None:
            with TemporaryDirectory() as folder:
                (Path(folder) / WEIGHTS).write_bytes(weights)
                write_json(Path(folder) / CONFIG, self._config)
                self.encoder_ = load_backbone(folder)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.transformer_tags.preserves_dtype = ["float32"]  # whatever the input is
        return tags


def _load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder, and its folder's `config.json`."""
    encoder = load_backbone(folder)
    return encoder, read_json(find_encoder(folder) / CONFIG)


def _are_whole(images: np.ndarray) -> bool:
    return images.dtype.kind in "iu"


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_size(size: Any) -> bool:
    """Whether it is a side in pixels, or two."""
    sides: list[Any] = list(size) if isinstance(size, Sequence) and len(size) == 2 else [size]
    return all(_is_whole(side) and side >= 1 for side in sides)


def _is_shape(shape: Any) -> bool:
    """Whether numpy.reshape could make images of it: (H, W), (H, W, 1) or (H, W, 3), one of H and W maybe −1."""
    if not isinstance(shape, Sequence) or len(shape) not in (2, 3) or not all(_is_whole(side) for side in shape):
        return False
    sides = [side for side in shape[:2] if side != -1]
    return bool(sides) and min(sides) > 0 and (*shape, 1)[2] in (1, 3)


def _is_range(pair: Any) -> bool:
    """Whether it is two finite numbers, the lower one first."""
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        return False
    numbers = all(isinstance(end, (int, float, np.number)) and np.isfinite(end) for end in pair)
    return numbers and bool(pair[0] < pair[1])
