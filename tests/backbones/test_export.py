"""Exported encoders compute what the encoder computes, in the runtimes that others use, and nothing half-made is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from pretint.backbones import FORMATS, Preprocess, create_backbone, export, export_backbone, fold_rgb, load_backbone
from pretint.runtime.errors import ArgumentError, ExportError, UnknownNameError

TOLERANCE = 1e-5
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("pretint_unet", {"width": 4}),
    "cnn of RGB": ("pretint_cnn", {"width": 4, "in_chans": 3}),
    "pair": ("pair/pretint_cnn", {"width": 4, "depth": 3}),
    "resunet of L*": ("pretint_resunet", {"width": 4, "depth": 4, "preprocess": Preprocess(1, "lstar", 0.4, 0.3)}),
    "pooled seed": ("pretint_toronto_cnn", {"width": 4}),
    "strided seed": ("pretint_wallner_alpha", {"width": 4}),
}
VIT = ("timm/vit_tiny_patch16_224", {"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2})
every_encoder = pytest.mark.parametrize("case", ENCODERS)


def trained(name: str, **options: Any) -> nn.Module:
    """An encoder whose weights and running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    encoder = create_backbone(name, **options).train()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for _ in range(2):
            encoder(encoder.preprocess(torch.rand(4, 3, 32, 32)))
    return encoder.eval()


def pictures(n: int, height: int, width: int) -> Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def eager(encoder: nn.Module, rgb: Tensor, maps: bool = False) -> list[Tensor]:
    x = encoder.preprocess(rgb)
    levels = encoder.forward_intermediates(x, intermediates_only=True)
    return [levels[-1].mean((2, 3)), *(levels if maps else [])]


def assert_close(found: list[Any], wanted: list[Tensor]) -> None:
    assert [tuple(t.shape) for t in found] == [tuple(t.shape) for t in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert np.linalg.norm(np.asarray(a) - b.numpy()) <= TOLERANCE * float(b.norm())


@every_encoder
def test_onnxruntime_computes_the_same_from_the_file_at_any_batch_and_image_size(tmp_path: Path, case: str):
    encoder = trained(ENCODERS[case][0], **ENCODERS[case][1])
    made = export_backbone(encoder, tmp_path / "encoder.onnx", "onnx", maps=True)
    assert (made.smallest, made.largest) == (8, None)
    assert made.error < TOLERANCE
    onnx.checker.check_model(str(made.path), full_check=True)
    session = onnxruntime.InferenceSession(made.path.read_bytes(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, "height", "width"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["features", *(f"map_{i}" for i in range(len(encoder.feature_info)))]
    for shape in ((1, 32, 32), (4, 33, 61), (2, 8, 11)):
        rgb = pictures(*shape)
        assert_close(session.run(None, {"images": rgb.numpy()}), eager(encoder, rgb, maps=True))


@pytest.mark.parametrize("case", ["unet", "pair", "pooled seed", "strided seed"])
def test_the_saved_program_computes_the_same_at_any_batch_and_image_size(tmp_path: Path, case: str):
    encoder = trained(ENCODERS[case][0], **ENCODERS[case][1])
    made = export_backbone(encoder, tmp_path / "encoder.pt2", "torch-export", maps=True)
    assert (made.smallest, made.largest) == (8, None)
    program = torch.export.load(made.path).module()
    for shape in ((1, 32, 32), (4, 33, 61), (2, 8, 11)):
        rgb = pictures(*shape)
        found = program(rgb)
        assert list(found) == ["features", *(f"map_{i}" for i in range(len(encoder.feature_info)))]
        assert_close(list(found.values()), eager(encoder, rgb, maps=True))
    with pytest.raises(Exception, match="8"):
        program(pictures(1, 7, 32))


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_model_of_fixed_size_keeps_it_and_has_free_batches(tmp_path: Path, format: str):
    encoder = trained(VIT[0], **VIT[1])
    made = export_backbone(encoder, tmp_path / "encoder", format)
    assert (made.smallest, made.largest) == (32, 32)
    for n in (1, 5):
        rgb = pictures(n, 32, 32)
        if format == "onnx":
            session = onnxruntime.InferenceSession(made.path.read_bytes(), providers=["CPUExecutionProvider"])
            assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
            found = session.run(["features"], {"images": rgb.numpy()})
        else:
            found = [torch.export.load(made.path.open("rb")).module()(rgb)["features"]]
        assert_close(found, eager(encoder, rgb))


def test_timm_loads_the_exported_folder(tmp_path: Path):
    encoder = trained("pretint_unet", width=4)
    encoder.card = {"task": "palette"}
    folder = tmp_path / "a folder, ü #1"
    assert export_backbone(encoder, folder, "timm", image_size=48).error == 0
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    rgb = pictures(3, 20, 30)
    with torch.no_grad():
        assert torch.equal(theirs(encoder.preprocess(rgb)), eager(encoder, rgb)[0])
    assert load_backbone(folder).card == {"task": "palette"}
    assert json.loads((folder / "config.json").read_text())["pretint"]["image_size"] == 48


def test_bare_weights_load_strictly_into_a_fresh_encoder_and_say_what_they_are(tmp_path: Path):
    encoder = trained("pretint_cnn", width=4, depth=3)
    made = export_backbone(encoder, tmp_path / "w.safetensors", "safetensors")
    with safe_open(made.path, framework="pt") as file:
        header = file.metadata()
    about = json.loads(header["pretint"])
    fresh = create_backbone(about["backbone"]["name"], **about["backbone"]["options"]).eval()
    fresh.load_state_dict(load_file(made.path), strict=True)
    rgb = pictures(2, 32, 32)
    assert torch.equal(eager(fresh, rgb)[0], eager(encoder, rgb)[0])
    assert Preprocess(**about["preprocess"]) == encoder.preprocess
    assert len(header["weights_sha256"]) == 64


def test_a_classifier_is_left_out_and_the_encoder_stays_as_it_was(tmp_path: Path):
    encoder = trained("pretint_cnn", width=4, depth=2).to(memory_format=torch.channels_last)
    wanted = eager(encoder, pictures(2, 32, 32))
    encoder.reset_classifier(10)
    encoder.set_grad_checkpointing(True)
    encoder.train()
    made = export_backbone(encoder, tmp_path / "x.pt2", "torch-export")
    program = torch.export.load(made.path).module()
    assert_close([program(pictures(2, 32, 32))["features"]], wanted)
    assert encoder.training
    assert encoder.grad_checkpointing
    assert encoder.get_classifier().out_features == 10
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_an_encoder_folded_for_another_normalisation_is_exported_as_a_program(tmp_path: Path):
    folded = fold_rgb(trained("pretint_cnn", width=4, depth=2), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    made = export_backbone(folded, tmp_path / "x.pt2", "torch-export")
    rgb = pictures(2, 20, 24)
    assert_close([torch.export.load(made.path).module()(rgb)["features"]], eager(folded, rgb))
    with pytest.raises(ExportError, match="layers"):
        export_backbone(folded, tmp_path / "x.safetensors", "safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt2"]


def test_a_model_that_can_only_be_traced_for_one_size_is_exported_for_that(tmp_path: Path, monkeypatch):
    encoder = trained("pretint_cnn", width=4, depth=2)

    def trace(encoder, maps, size, smallest, _trace=export.trace):
        if smallest is not None:
            raise NotImplementedError("a shape that can't be solved")
        return _trace(encoder, maps, size, smallest)

    monkeypatch.setattr(export, "trace", trace)
    made = export_backbone(encoder, tmp_path / "x.pt2", "torch-export", image_size=24)
    assert (made.smallest, made.largest) == (24, 24)
    rgb = pictures(5, 24, 24)
    assert_close([torch.export.load(made.path).module()(rgb)["features"]], eager(encoder, rgb))


# What is refused


def _spoil(tensor: Tensor) -> Tensor:
    return tensor * 1.001


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_computes_something_else_is_removed_and_what_was_there_stays(
    tmp_path: Path, monkeypatch, format: str
):
    encoder = trained("pretint_cnn", width=4, depth=2)
    path = tmp_path / "x"
    export_backbone(encoder, path, format)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if format in ("onnx", "torch-export"):
        original = export.WRITERS[format]

        def writer(*arguments):
            computed = original(*arguments)
            return lambda rgb: [_spoil(t) for t in computed(rgb)]

        monkeypatch.setitem(export.WRITERS, format, writer)
    elif format == "timm":
        original_create = timm.create_model

        def create(*arguments, **options):
            model = original_create(*arguments, **options)
            if options.get("pretrained"):
                model.stages[1].convs[0][0].weight.data.mul_(1.01)
            return model

        monkeypatch.setattr(timm, "create_model", create)
    else:
        monkeypatch.setattr(
            export, "load_file", lambda p: {k: v.add(0.01) if v.ndim == 4 else v for k, v in load_file(p).items()}
        )
    with pytest.raises(ExportError, match=rf"as {format} give features that differ by"):
        export_backbone(encoder, path, format, overwrite=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("format", ["torch-export", "timm", "safetensors"])
def test_what_exists_is_only_replaced_on_request(tmp_path: Path, format: str):
    small, large = (trained("pretint_cnn", width=width, depth=2) for width in (2, 4))
    path = tmp_path / "x"
    export_backbone(small, path, format)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ArgumentError, match="--overwrite"):
        export_backbone(large, path, format)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    export_backbone(large, path, format, overwrite=True)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after.keys() == before.keys()
    assert after != before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path: Path, overwrite: bool):
    (tmp_path / "thesis.tex").write_text("years of work")
    encoder = trained("pretint_cnn", width=2, depth=2)
    for format in FORMATS:
        with pytest.raises(ArgumentError, match="path: "):
            export_backbone(encoder, tmp_path, format, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unknown_format_is_answered_with_the_closest(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export_backbone(nn.Identity(), tmp_path / "x", "onxx")


@pytest.mark.parametrize("format", FORMATS)
def test_an_encoder_made_elsewhere_is_refused(tmp_path: Path, format: str):
    with pytest.raises(ArgumentError, match="create_backbone or load_backbone"):
        export_backbone(timm.create_model("pretint_unet", width=2), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["timm", "safetensors"])
def test_maps_are_for_programs(tmp_path: Path, format: str):
    with pytest.raises(ArgumentError, match="maps"):
        export_backbone(trained("pretint_cnn", width=2, depth=2), tmp_path / "x", format, maps=True)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named_with_what_to_install(tmp_path: Path, monkeypatch, missing: str):
    find = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ArgumentError, match=rf"needs {missing} .*pip install pretint\[onnx\]") as caught:
        export_backbone(trained("pretint_cnn", width=2, depth=2), tmp_path / "x.onnx", "onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_the_tracer_can_not_follow_is_one_sentence(tmp_path: Path, monkeypatch):
    def trace(*_arguments):
        raise RuntimeError("data-dependent\nbranch")

    monkeypatch.setattr(export, "trace", trace)
    with pytest.raises(ExportError, match=r"can't be exported to onnx \(data-dependent branch\)") as caught:
        export_backbone(trained("pretint_cnn", width=2, depth=2), tmp_path / "x.onnx", "onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
