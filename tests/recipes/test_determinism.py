"""`--deterministic`: the same seed gives the same bits, and all that is shipped runs under torch's deterministic algorithms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pretint.backbones import OUR_BACKBONES
from pretint.colour import Palette, build_palette
from pretint.colour import palette as palette_module
from pretint.data import AUGMENTATIONS, Batch, augment, make_toy
from pretint.pretext import LOSSES, TASKS, list_tasks, task_names, task_options, wants_pair
from pretint.recipes import PRESETS, PretrainConfig, preset_config, pretrain
from pretint.recipes.opening import make_model, needs_palette
from pretint.runtime.determinism import determinism
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError
from pretint.runtime.files import read_json
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config

TOY = make_toy("train", 4)
FAMILIES = [name for name in OUR_BACKBONES if not name.endswith(("_tiny", "_small", "_base"))]
# every task, and of those that have a choice of losses each of them
LEARNT: list[dict[str, Any]] = [{"task": task} for task in list_tasks() if task != "random"]
LEARNT += [
    {"task": task, "loss": loss}
    for task in list_tasks()
    if "loss" in task_options(task)
    for loss in LOSSES
    if loss != "mse"
]
LEARNT += [
    {"task": "palette", "soft": 3, "rebalance": 0.5},
    {"task": "palette", "predict_at": 4},
    {"task": "palette+autoencoder"},
]
FURTHER: dict[str, PretrainConfig] = {
    **{f"preset {name}": preset_config(name, width=4, colours=4) for name in PRESETS},
    "a timm model": PretrainConfig(task="palette", backbone="timm/resnet10t", colours=4),
    "a vision transformer": PretrainConfig(task="palette", backbone="timm/vit_tiny_patch16_224", colours=4),
    "fusion of its own average": PretrainConfig(
        task="palette", backbone="pretint_cnn", width=4, colours=4, fusion="average"
    ),
}


@pytest.fixture(autouse=True)
def _any_table(monkeypatch: pytest.MonkeyPatch):
    """Which colour has which label does not matter here, and the exact table takes a second for each palette."""

    def table(centres: torch.Tensor, _space: str) -> torch.Tensor:
        dtype = torch.uint8 if len(centres) <= 256 else torch.int16
        return torch.arange(2**24).remainder_(len(centres)).to(dtype)

    monkeypatch.setattr(palette_module, "label_table", table)


@pytest.fixture(scope="module")
def palettes() -> dict[tuple[str, int, str], Palette]:
    """By task, number of colours and space."""
    return {}


def _palette(config: PretrainConfig, palettes: dict[tuple[str, int, str], Palette]) -> Palette | None:
    if not needs_palette(config.task):
        return None
    fits = [fit for name in task_names(config.task) if (fit := getattr(TASKS[name], "fit_palette", None)) is not None]
    key = (config.task if fits else "", config.colours, config.label_space)
    if key not in palettes:
        fit = fits[0] if fits else build_palette
        palettes[key] = fit(lambda: [TOY.images], config.colours, config.label_space, config.grey, 0)
    return palettes[key]


def gradients(config: PretrainConfig, palette: Palette | None, device: str, bf16: bool) -> list[torch.Tensor]:
    """The gradients of one step from fresh weights, dropout and batch norm in training mode."""
    compute = Compute(torch.device(device), bf16)
    torch.manual_seed(0)
    model, task = make_model(config, palette, 10)
    model = compute.place(model).train()
    rgb, labels = TOY.images.to(device), TOY.labels.to(device)
    if config.image_size != TOY.image_size:
        rgb = rgb[:, :, : config.image_size, : config.image_size].contiguous()
    ids = torch.arange(len(rgb), device=device)
    views = [augment(rgb, ids, seed=0, epoch=0, view=view) for view in range(task.views)]
    inputs, targets = task.split(Batch(views[0], ids, labels, tuple(views[1:])))
    with compute.autocast():
        predictions = model(compute.layout(inputs))
    loss = task.loss(predictions, targets)
    (loss.numerator / loss.denominator).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def repeats(
    config: PretrainConfig, palettes: dict[tuple[str, int, str], Palette], device: str, bf16: bool = False
) -> bool:
    palette = _palette(config, palettes)
    with determinism():
        first, second = (gradients(config, palette, device, bf16) for _ in range(2))
    return len(first) > 0 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def skip_without(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_encoder_learns_every_task_and_loss_under_deterministic_algorithms(backbone: str, device: str, palettes):
    """Every shipped encoder and loss runs forward and backward under torch.use_deterministic_algorithms(True), which raises where
    it could not; that two passes are equal to the bit is looked at with one encoder."""
    skip_without(device)
    ran = []
    for number, settings in enumerate(LEARNT):
        small = {} if backbone == "pretint_cs520" else {"image_size": 16}  # that one has one size
        config = PretrainConfig(backbone=backbone, width=4, colours=4, **small, **settings)
        try:
            bf16 = number % 2 == 1  # for every second one: both have to be repeatable, and twice the time tells no more
            if backbone == "pretint_cnn":
                assert repeats(config, palettes, device, bf16), settings
            else:
                with determinism():
                    assert gradients(config, _palette(config, palettes), device, bf16), settings
        except ArgumentError:
            assert backbone.startswith("pretint_cs520") or wants_pair(config.task), (
                settings
            )  # these do not fit each other
            continue
        ran.append(settings)
    assert len(ran) >= len(LEARNT) - 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("case", FURTHER)
def test_every_preset_and_fusion_runs_under_deterministic_algorithms(case: str, device: str, palettes):
    skip_without(device)
    assert repeats(FURTHER[case], palettes, device)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("mode", AUGMENTATIONS)
def test_every_augmentation_runs_under_deterministic_algorithms(mode: str, device: str):
    skip_without(device)
    images, ids = TOY.images.to(device), torch.arange(len(TOY), device=device)
    with determinism():
        first, second = (augment(images, ids, seed=3, epoch=2, mode=mode) for _ in range(2))
    assert torch.equal(first, second)


def test_the_same_seed_twice_is_equal_to_the_bit(small_data: Path, tmp_path: Path):
    """Two pretrainings with the same seed, on the CPU: weights, losses and measurements equal to the bit; another seed is not."""
    made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = small_config(
            small_data, tmp_path / name, seed=seed, deterministic=True, backbone="pretint_cnn_tiny", width=None, depth=None,
            image_size=16, epochs=1, device="cpu", limit=128,
        )  # fmt: skip
        results = pretrain(config).results["colour"]
        metrics = [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
            for row in RunFolder(tmp_path / name).read_metrics()
        ]
        made.append(((tmp_path / name / "encoder" / "model.safetensors").read_bytes(), results, metrics))
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]
    assert read_json(tmp_path / "a" / "config.json")["settings"]["deterministic"] is True


def test_determinism_ends_with_the_verb(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism():
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.benchmark
        with determinism(False):
            assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.raises(ZeroDivisionError), determinism():
        _ = 1 / 0
    assert not torch.are_deterministic_algorithms_enabled()
