"""What is fused changes what is painted; the classifier behind it sees what timm would show it, and is never trained."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import build_palette
from pretint.pretext import (
    Contrast,
    FrozenClassifier,
    HeadSettings,
    LabRegression,
    PyramidDecoder,
    RGBRegression,
    Rotation,
    Task,
    build_model,
    check_fuses,
    create_task,
    full_fusion_name,
    leaked_labels,
    make_decoder,
)
from pretint.runtime.errors import ArgumentError, UnknownNameError

SMALL = "timm/test_resnet"
CHANNELS, REDUCTIONS = [4, 8, 16], [1, 2, 4]
_PICTURES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _maps(side: int, batch: int = 2) -> list[Tensor]:
    return [_noise(batch, c, side // r, side // r) for c, r in zip(CHANNELS, REDUCTIONS, strict=True)]


def _classifier(seed: int = 0, mean: float = 0.5, std: float = 0.25) -> FrozenClassifier:
    torch.manual_seed(seed)
    return FrozenClassifier(SMALL, mean, std)


def _weights(folder: Path, name: str = "test_resnet", seed: int = 7) -> Path:
    torch.manual_seed(seed)
    path = folder / "model.safetensors"
    save_file(timm.create_model(name).state_dict(), path)
    return path


# Names


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("average", "average"),
        ("timm/test_resnet", "timm/test_resnet.r160_in1k"),
        ("timm/test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"),
    ],
)
def test_a_name_is_told_in_full_and_stays_so(given, full):
    assert full_fusion_name(given) == full
    assert full_fusion_name(full) == full


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("resnet18", "timm/resnet18"), ("averages", "average"), ("timm/resnet18.a1_in1", "timm/resnet18.a1_in1k")],
)
def test_a_name_that_is_not_known_comes_with_the_closest(wrong, meant):
    with pytest.raises(UnknownNameError, match=f"--fusion: '{wrong}' is not known; did you mean .*'{meant}'"):
        full_fusion_name(wrong)


def test_a_model_without_classes_is_no_classifier():
    with pytest.raises(ArgumentError, match="tells no classes"):
        full_fusion_name("timm/vit_small_patch14_dinov2")


def test_only_a_classifier_leaks_labels():
    assert leaked_labels(None) is None
    assert leaked_labels("average") is None
    assert leaked_labels("timm/test_resnet.r160_in1k") == "labels of timm/test_resnet.r160_in1k"


# The classifier


@pytest.mark.parametrize(("side", "tolerance"), [(160, 1e-5), (32, 0.02), (300, 0.02)])
def test_the_classifier_sees_what_timms_own_transform_makes_of_the_grey_picture(side, tolerance):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 4, side // 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    preprocess = Preprocess(1, mean=0.4, std=0.3)
    classifier = _classifier(mean=0.4, std=0.3)
    wanted = resolve_model_data_config(classifier.network) | {"crop_pct": 1.0}
    transform: Any = create_transform(**wanted)
    expected = transform(picture.convert("RGB"))[None]
    seen = []
    classifier.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    logits = classifier(preprocess(picture))
    # PIL rounds to whole numbers where it resizes: 1/255 is 0.008 behind this normalisation
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=tolerance)
    assert logits.shape == (1, classifier.features)
    assert logits.std() > 0


def test_training_leaves_the_classifier_as_it_was():
    encoder = create_backbone("pretint_unet", width=4, depth=3)
    classifier = _classifier()
    model = build_model(RGBRegression(encoder.preprocess), encoder, HeadSettings(), classifier).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.5), lr=0.1)
    assert not {id(p) for g in optimizer.param_groups for p in g["params"]} & {id(p) for p in classifier.parameters()}
    for seed in range(2):
        model(_noise(4, 1, 16, 16, seed=seed)).square().mean().backward()
        optimizer.step()
    assert not any(module.training for module in classifier.modules())
    assert not any(p.requires_grad for p in classifier.parameters())
    after = model.state_dict()
    ours = [name for name in before if name.startswith("classifier.")]
    assert len(ours) == len(classifier.network.state_dict())
    assert all(torch.equal(before[name], after[name]) for name in ours)
    assert not torch.equal(before["head.fusion.conv.weight"], after["head.fusion.conv.weight"])


@pytest.mark.parametrize(("decoder", "backbone"), [("unet", "pretint_unet"), ("wallner-full", "pretint_wallner_full")])
def test_what_the_classifier_says_changes_what_is_painted(decoder, backbone):
    encoder = create_backbone(backbone, width=4)
    task = LabRegression(encoder.preprocess)
    settings = HeadSettings(decoder=decoder, width=4)
    model = build_model(task, encoder, settings, _classifier(0)).eval()
    x = _noise(2, 1, 32, 32)
    with torch.no_grad():
        one, again = model(x), model(x)
        model.classifier = _classifier(1)
        other = model(x)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, rtol=1e-4)


# The U-Net decoder


@pytest.mark.parametrize("features", [0, 10])
def test_the_u_net_decoder_fuses_by_a_1_by_1_convolution_in_front_of_all_else(features):
    torch.manual_seed(0)
    decoder = PyramidDecoder(CHANNELS, REDUCTIONS, 3, fusion_features=features).eval()
    plain = PyramidDecoder(CHANNELS, REDUCTIONS, 3).eval()
    plain.load_state_dict({k: v for k, v in decoder.state_dict().items() if "fusion" not in k})
    conv, norm = (next(m for m in decoder.modules() if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    with torch.no_grad():
        norm.running_mean.copy_(_noise(16))  # type: ignore[union-attr]
        maps, x = _maps(16), torch.zeros(2, 1, 16, 16)
        vector = _noise(2, features, seed=3) if features else None
        summary = maps[-1].mean((2, 3)) if vector is None else vector
        tiled = summary[:, :, None, None].repeat(1, 1, *maps[-1].shape[-2:])
        mixed = norm(torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], torch.cat([maps[-1], tiled], 1))
                     + conv.bias[:, None, None]).relu()  # type: ignore[index]  # fmt: skip
        wanted = plain([*maps[:-1], mixed], x)
        torch.testing.assert_close(decoder(maps, x, vector), wanted, rtol=1e-4, atol=1e-5)


def test_the_average_tells_every_pixel_of_the_whole_picture():
    for fusion, told in ((0, True), (None, False)):
        torch.manual_seed(0)
        decoder = PyramidDecoder(CHANNELS, REDUCTIONS, 3, skips=0, fusion_features=fusion).eval()
        maps, x = _maps(256, batch=1), torch.zeros(1, 1, 256, 256)
        with torch.no_grad():
            before = decoder(maps, x)[..., -1, -1]
            maps[-1][..., 0, 0] += 50.0
            assert torch.equal(decoder(maps, x)[..., -1, -1], before) != told


@pytest.mark.parametrize("vector", [None, torch.zeros(2, 9)])
def test_a_vector_that_is_missing_or_of_another_length_is_refused(vector):
    decoder = make_decoder("unet", [{"num_chs": 4, "reduction": 2}], 1, 3, fusion_features=10)
    with pytest.raises(ArgumentError, match=r"vector: this decoder fuses one of shape \(b, 10\)"):
        decoder([torch.zeros(2, 4, 8, 8)], torch.zeros(2, 1, 16, 16), vector)


@pytest.mark.parametrize("name", ["toronto-unet", "hypercolumn", "cs520", "wallner-beta"])
def test_a_decoder_that_fuses_nothing_names_those_that_do(name):
    with pytest.raises(ArgumentError, match=f"decoder {name} fuses nothing; use --decoder unet or wallner-full"):
        check_fuses(name)
    with pytest.raises(ArgumentError, match="fuses nothing"):
        make_decoder(name, [{"num_chs": 4, "reduction": 2}], 1, 3, fusion_features=0)


# What does not go together


def _task(name: str) -> tuple[Task, nn.Module]:
    pair = name in ("contrast", "rgb-regression+contrast")
    preprocess = Preprocess(3, chroma="cbcr") if pair else Preprocess(3 if name == "superres" else 1)
    backbone = "pair/pretint_unet" if pair else "pretint_unet"
    encoder = create_backbone(backbone, preprocess.in_chans, preprocess=preprocess, width=4, depth=3)
    options: dict[str, Any] = {"palette": build_palette(lambda: [_PICTURES], 4)} if name == "superres" else {}
    return create_task(name, preprocess, **options), encoder


@pytest.mark.parametrize(
    "name", ["rotation", "contrast", "rgb-regression+autoencoder", "rgb-regression+contrast", "superres"]
)
def test_a_classifier_helps_no_task_of_other_heads_or_other_input(name):
    task, encoder = _task(name)
    assert isinstance(task, (Rotation, Contrast)) or "+" in task.name or task.in_chans == 3
    with pytest.raises(ArgumentError, match=r"--fusion: a classifier helps one task .* is not; use palette"):
        build_model(task, encoder, HeadSettings(), _classifier())


@pytest.mark.parametrize("name", ["rotation", "contrast", "random"])
def test_its_own_average_is_refused_where_no_decoder_would_fuse_it(name):
    task, encoder = _task(name)
    with pytest.raises(ArgumentError, match=f"--fusion: {name} has no decoder that would fuse anything; leave it out"):
        build_model(task, encoder, HeadSettings(fusion_features=0))


def test_its_own_average_goes_with_several_tasks():
    task, encoder = _task("rgb-regression+contrast")
    model = build_model(task, encoder, HeadSettings(fusion_features=0)).eval()
    painted, _ = model(_noise(2, 3, 16, 16))
    assert painted.shape == (2, 3, 16, 16)


# Weights


def test_weights_come_from_a_file_a_folder_or_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = _weights(tmp_path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names) or str(file))
    torch.manual_seed(7)
    wanted = timm.create_model("test_resnet").state_dict()
    for source in (file, tmp_path, None):
        classifier = _classifier(seed=1)
        classifier.load(source)
        got = classifier.network.state_dict()
        assert all(torch.equal(got[name], value) for name, value in wanted.items())
        assert not any(p.requires_grad for p in classifier.parameters())
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]


def test_weights_that_are_none_of_this_model_say_how_to_get_them(tmp_path: Path):
    classifier = _classifier()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    (tmp_path / "other").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    save_file({}, tmp_path / "empty.safetensors")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Evil()))
    for path, words in {
        _weights(tmp_path / "other", "test_convnext"): "does not fit timm/test_resnet.r160_in1k",
        tmp_path / "nowhere.safetensors": "does not exist",
        tmp_path: "model.safetensors does not exist",
        tmp_path / "damaged.safetensors": "damaged",
        tmp_path / "pickle.safetensors": "damaged",
        tmp_path / "pickle.pth": "no .safetensors file, and no other is read",
        tmp_path / "empty.safetensors": "holds no weights",
    }.items():
        with pytest.raises(ArgumentError, match=f"{words}.*download model.safetensors from .* --fusion-weights FILE"):
            classifier.load(path)
    assert not (tmp_path / "executed").exists()
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())


def test_without_a_network_the_page_to_download_from_is_named(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_names: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    page = "timm/test_resnet.r160_in1k on the Hugging Face hub"
    with pytest.raises(ArgumentError, match=rf"no route to host.*{page} once and give --fusion-weights FILE"):
        _classifier().load()
