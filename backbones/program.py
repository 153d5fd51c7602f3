"""How does an encoder become a program that needs nothing of Pretint? Traced with its preprocessing, written as ONNX or .pt2."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_config

from .._version import __version__
from .features import pooled

INPUT, FEATURES = "images", "features"
_DIMENSIONS = ("batch", "channels", "height", "width")

Computed = Callable[[Tensor], list[Tensor]]


class _FromRGB(nn.Module):
    """RGB in 0…1 (n, 3, h, w) -> by name: features (n, channels of the deepest map) and, if asked for, each level's map."""

    def __init__(self, encoder: nn.Module, maps: bool):
        super().__init__()
        self.encoder, self.maps = encoder, maps

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        encoder: Any = self.encoder
        x = encoder.preprocess(images)
        if not self.maps:
            return {FEATURES: pooled(encoder, x)}
        maps = encoder.forward_intermediates(x, intermediates_only=True)
        return {FEATURES: maps[-1].mean((2, 3))} | {f"map_{i}": m for i, m in enumerate(maps)}


def trace(encoder: Any, maps: bool, size: int, smallest: int | None) -> ExportedProgram:
    """The program of an encoder that is evaluating, for images of one size or, if `smallest` is named, for all from there on."""
    model = _FromRGB(encoder, maps)
    if smallest is None:
        return torch.export.export(model, (torch.rand(2, 3, size, size),), dynamic_shapes={INPUT: {0: Dim.AUTO}})
    # With a deepest map of 1 × 1 a tracer can't tell memory layouts apart, and would refuse images as small as that; this switch,
    # which has no public name, leaves layouts open. What it can't prove, such as that ⌈h/2⌉ fits a pooling, becomes an assertion.
    free_side = Dim.AUTO(min=smallest)
    deepest = max(level["reduction"] for level in encoder.feature_info)
    size = max(size, 2 * smallest, 2 * deepest)  # a level of a single pixel would be taken for one that always is
    with shape_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            model,
            (torch.rand(2, 3, size, size),),
            dynamic_shapes={INPUT: {0: Dim.AUTO, 2: free_side, 3: free_side}},
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _images_shape(program: ExportedProgram) -> list[Any]:
    """The shape of a program's input: numbers where it is fixed, symbols where it is free."""
    return list([node for node in program.graph.nodes if node.op == "placeholder"][-1].meta["val"].shape)


def sides(program: ExportedProgram) -> tuple[int, int | None]:
    """Smallest and largest side of the images that a program takes; no largest if there is no limit."""
    bounds: list[tuple[Any, Any]] = []
    for side in _images_shape(program)[2:]:
        found = None if isinstance(side, int) else program.range_constraints[side.node.expr]
        bounds.append((side, side) if found is None else (found.lower, found.upper))
    limits = [int(high) for _, high in bounds if isinstance(high, int) or high.is_Integer]
    return max(int(low) for low, _ in bounds), min(limits, default=None)


def write_onnx(program: ExportedProgram, encoder: Any, path: Path) -> Computed:
    """Writes ONNX and gives what onnxruntime computes from the file."""
    import onnxruntime

    levels = len(program.graph_signature.user_outputs) - 1
    outputs = [FEATURES, *(f"map_{i}" for i in range(levels))]
    free = [n for n, side in enumerate(_images_shape(program)) if not isinstance(side, int)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own, which nobody here can mend
        made: Any = torch.onnx.export(
            program, input_names=[INPUT], output_names=outputs, dynamic_shapes={INPUT: {n: _DIMENSIONS[n] for n in free}},
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    made.model.metadata_props["pretint"] = about(encoder)
    made.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised, that is enough
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda rgb: [torch.from_numpy(array) for array in session.run(outputs, {INPUT: rgb.numpy()})]


def write_torch_export(program: ExportedProgram, encoder: Any, path: Path) -> Computed:
    """Writes a .pt2 archive and gives what the program computes that is loaded from it."""
    with path.open("wb") as file:  # by name it would have to end in .pt2, which a temporary one does not
        torch.export.save(program, file, extra_files={"pretint.json": about(encoder)})
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    return lambda rgb: list(loaded(rgb).values())


def about(encoder: Any) -> str:
    """What a bare file would not tell otherwise, as JSON."""
    known = {
        "pretint_version": __version__,
        "backbone": encoder.spec.to_dict(),
        "preprocess": encoder.preprocess.to_dict(),
    }
    return json.dumps(known | {"card": getattr(encoder, "card", None) or {}})


WRITERS = {"onnx": write_onnx, "torch-export": write_torch_export}
