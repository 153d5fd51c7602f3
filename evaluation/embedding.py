"""Which pictures are alike for the encoder? A map of their features in two dimensions, for the report page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from ..runtime.errors import ArgumentError
from .figures import SERIES_COLOURS
from .report_run import ReportRun
from .sheet import as_pictures

# t-SNE looks at neighbours only, and 50 principal components keep them;
# more make it slow (van der Maaten and Hinton 2008).
_COMPONENTS = 50
_PERPLEXITY = 30.0
_FEWEST = 8  # pictures that t-SNE makes sense of
_WIDTH, _HEIGHT, _EDGE = 1000, 700, 14
_QUALITY = 80


def project(features: Float[np.ndarray, "n d"], seed: int = 0) -> Float32[np.ndarray, "n 2"]:
    """Features as places on a map: what lies close together has similar features; distances and axes mean nothing.

    Standardised, reduced to 50 principal components, then t-SNE. Fewer than 8 pictures, and features that are all the
    same, give their principal components.

    Args:
        features: a row a picture, finite.
        seed: of t-SNE; the same seed gives the same map.

    Raises:
        ArgumentError: no pictures, or features that are not finite.

    Source:
        van der Maaten and Hinton 2008, "Visualizing data using t-SNE"; scikit-learn's implementation.
    """
    from sklearn.manifold import TSNE  # a second to import, and most pages have no map

    values = principal_components(features)
    if len(values) < _FEWEST or not values.any():
        return np.pad(values[:, :2], ((0, 0), (0, max(0, 2 - values.shape[1])))).astype(np.float32)
    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    init = "pca" if values.shape[1] > 1 else "random"
    return TSNE(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(values).astype(np.float32)


def principal_components(features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n k"]:
    """Standardised features along their first principal axes, at most 50.

    Args:
        features: a row a picture, finite.

    Raises:
        ArgumentError: no pictures, or features that are not finite.
    """
    from sklearn.decomposition import PCA

    if not features.size or not np.isfinite(features).all():
        raise ArgumentError(
            f"features: got shape {features.shape}; a map needs pictures, and features that are finite."
        )
    values = features.astype(np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    kept = min(_COMPONENTS, *values.shape)
    if not values.any():  # one picture, or all the same: nothing to tell them apart by
        return np.zeros((len(values), kept), np.float32)
    return PCA(kept, svd_solver="full").fit_transform(values).astype(np.float32)


def maps(runs: Sequence[ReportRun]) -> dict[str, Any]:
    """The maps of the runs that have one, and the sprites they show: runs that looked at the same pictures share one."""
    drawn: list[dict[str, Any]] = []
    sprites: list[tuple[np.ndarray, dict[str, Any]]] = []
    for run in runs:
        if not run.embedding:
            continue
        thumbnails = as_pictures(run.embedding["thumbnails"], "thumbnails")
        known = [index for index, (seen, _) in enumerate(sprites) if np.array_equal(seen, thumbnails)]
        if not known:
            sprites.append((thumbnails, _sprite(thumbnails)))
        sprite = known[0] if known else len(sprites) - 1
        classes = _classes(run.embedding)
        layer = str(run.embedding.get("layer") or "")
        drawn.append(
            {
                "name": run.name, "layer": layer, "sprite": sprite, "count": len(thumbnails), "classes": classes,
                "width": _WIDTH, "height": _HEIGHT, **{key: sprites[sprite][1][key] for key in ("columns", "side")},
            }
        )  # fmt: skip
    return {"drawn": drawn, "sprites": [sprite["source"] for _, sprite in sprites]}


def _classes(embedding: Any) -> list[dict[str, Any]]:
    """The points of each class: (x, y, number of the picture), in the drawing's units."""
    points = np.asarray(embedding["points"], dtype=np.float64)
    spread = np.maximum(np.ptp(points, axis=0), 1e-9)
    places = (points - points.min(0)) / spread * (_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE) + _EDGE
    labels = np.asarray(embedding["labels"])
    names = [str(name) for name in embedding.get("class_names") or ()]
    found = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label).tolist()
        name = "" if label < 0 else names[label] if label < len(names) else str(label)
        at = [(round(float(places[i, 0]), 1), round(float(places[i, 1]), 1), i) for i in members]
        found.append({"name": name, "colour": _colour(max(label, 0)), "points": at})
    return found


def _colour(label: int) -> str:
    """A class's colour: the charts' own for the first twelve, further ones by the golden angle."""
    if label < len(SERIES_COLOURS):
        return SERIES_COLOURS[label]
    return f"hsl({label * 137.508 % 360:.0f} 60% {45 + 10 * (label % 3)}%)"


def _sprite(thumbnails: UInt8[np.ndarray, "n 3 side _w"]) -> dict[str, Any]:
    """All thumbnails in one image, row by row: one file part for two thousand pictures."""
    count, _, side, _ = thumbnails.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, 3, side, side), np.uint8)
    cells[:count] = thumbnails[..., :side]
    sheet = cells.reshape(rows, columns, 3, side, side).transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"source": source, "columns": columns, "side": side}
