"""Each published system runs under its own name, and its encoder can be loaded like any other."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pretint
from pretint import recipes
from pretint.backbones import features, load_backbone
from pretint.cli import main
from pretint.data import TensorSource, make_toy, register_source
from pretint.pretext import leaked_labels
from pretint.recipes import PRESETS, PretrainConfig, preset_config, pretrain, typed_preset
from pretint.recipes.published import typed_command
from pretint.runtime.errors import ArgumentError, DataError, UnknownNameError

SMALL = {"epochs": 1, "precision": "fp32", "device": "cpu"}
IMAGES = 320


def small_preset(name: str, **changes: Any) -> PretrainConfig:
    """A preset that trains for a few batches: `pretint` at its own width, the others narrower and with fewer colours."""
    usual = preset_config(name)
    limit = min(usual.limit or IMAGES, 2 * usual.batch_size)
    narrow = {} if name == "pretint" else {"width": 8, "colours": 8}
    return replace(usual, **SMALL, **narrow, limit=limit, **changes)


@pytest.fixture
def horses(forget_registrations):
    """Generated pictures under the class names of CIFAR-10."""

    def opener(split, *, image_size, root, seed):
        toy = make_toy("train", n=IMAGES if split == "train" else 40, image_size=image_size)
        return TensorSource(
            toy.images, torch.zeros(len(toy), dtype=torch.int64), ("horse",), name="horses", split=split
        )

    register_source("horses", opener)


@pytest.mark.usefixtures("horses")
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_paints_and_hands_over_its_encoder(tmp_path: Path, name: str):
    out = tmp_path / name
    outcome = pretrain(small_preset(name, data="horses", out=out))
    encoder = load_backbone(out)
    rgb = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert features(encoder, rgb).isfinite().all()
    paints = PRESETS[name].settings.get("task") not in ("contrast",)
    assert len(outcome.results["colour"]) == int(paints)
    assert (out / "figures" / "pictures.png").is_file() == paints
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert settings["preset"] == name


def test_what_is_typed_goes_before_the_preset():
    config = preset_config("toronto-unet", epochs=3)
    assert (config.epochs, config.batch_size, config.decoder, config.classes) == (3, 100, "toronto-unet", ("horse",))


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ([], "pretint"),
        (["--data", "toy"], "pretint"),
        (["--preset", "zhang16", "--epochs", "2"], "zhang16"),
        (["--preset=cmc-lab"], "cmc-lab"),
        (["--task", "palette"], None),
        (["--task=palette"], None),
        (["--out", "x", "--resume"], None),
        (["--data", "toy", "--resume"], "pretint"),
    ],
)
def test_the_best_recipe_is_taken_where_neither_preset_nor_task_is_typed(words, preset):
    assert typed_preset(words).preset == preset


def test_a_task_alone_keeps_the_24_rgb_colours():
    config = typed_preset(["--task", "palette"])
    assert (config.colours, config.label_space) == (24, "rgb")


CHANGES: list[dict[str, Any]] = [
    {},
    {"classes": None, "patience": None, "limit": None, "clip": None},
    {"data": "my photos", "out": Path("a b"), "predict_at": 1, "batch_size": 256, "classes": ("deer", "bird"), "clip": 0.5,
     "warmup_epochs": 1e-05, "holdout": 0.1, "patience": 3, "overwrite": True, "json": True},
    {"minutes": 2.5},
]  # fmt: skip
OTHERS = [
    PretrainConfig(),
    PretrainConfig(task="palette+contrast", task_weights=(1.0, 0.5), mask_grey=True),
    PretrainConfig(mask_grey=False, input_mean=-0.5, fusion="average"),
    PretrainConfig(task="lab-regression", bounded=False, root=Path("x"), out=Path("y"), resume=True),
]


@pytest.mark.parametrize("name", [*PRESETS, None])
def test_the_command_of_a_run_gives_its_settings_again(name: str | None, monkeypatch: pytest.MonkeyPatch):
    understood: list[PretrainConfig] = []
    monkeypatch.setattr(recipes, "pretrain", lambda config, **_: understood.append(config) or recipes.Outcome({}))
    for config in OTHERS if name is None else [preset_config(name, **changes) for changes in CHANGES]:
        _, *words = shlex.split(typed_command(config))
        assert main(words) == 0
        assert understood.pop() == config


def test_the_command_of_a_run_in_minutes_leaves_the_epochs_to_them():
    asked = preset_config("zhang16", minutes=2.0)
    assert typed_command(replace(asked, epochs=3)) == typed_command(asked)


def test_a_preset_that_is_none_is_refused_from_python_too():
    with pytest.raises(UnknownNameError, match="did you mean 'toronto-unet'"):
        PretrainConfig(preset="toronto-unt")


def test_every_preset_is_in_the_document_of_choices():
    document = (Path(pretint.__file__).parent / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", document, re.MULTILINE)
    assert rows == list(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_lets_labels_leak(name: str):
    config = preset_config(name)
    assert leaked_labels(config.fusion) is None
    assert "supervised" not in config.task


def test_runs_are_called_by_their_preset_and_without_one_by_their_task():
    assert preset_config("toronto-cnn").folder == Path("runs/cifar10-toronto-cnn")
    assert PretrainConfig(data="photos.tar.xz", task="bins").folder == Path("runs/photos-bins")


def test_a_palette_lies_where_it_suits_the_task():
    tasks = {"palette": "rgb", "superres": "rgb", "split-brain": "ab", "rgb-regression+split-brain": "ab"}
    assert {task: PretrainConfig(task=task).label_space for task in tasks} == tasks
    assert PretrainConfig(task="split-brain", palette_space="cbcr").label_space == "cbcr"
    for task, space, suits in (("split-brain", "rgb", "ab or cbcr"), ("superres", "ab", "rgb or lab")):
        with pytest.raises(ArgumentError, match=f"--palette-space: {space} does not suit {task}; use {suits}"):
            PretrainConfig(task=task, palette_space=space)


NOT_TAKEN: dict[str, tuple[str, Any]] = {
    "rebalance": ("rgb-regression", 0.5), "soft": ("split-brain", 5), "soft_sigma": ("contrast", 1.0),
    "label_smoothing": ("lab-regression", 0.1), "mask_grey": ("superres", False), "loss": ("palette", "l1"),
    "keep_luma": ("lab-regression", True), "contrast_temperature": ("palette", 0.2), "input_mean": ("contrast", 0.0),
    "input_std": ("rgb-regression+split-brain", 1.0), "task_weights": ("palette+contrast", (1.0, 1.0, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_settings_that_would_do_nothing_are_refused(name: str):
    task, value = NOT_TAKEN[name]
    with pytest.raises(ArgumentError, match=f"--{name.replace('_', '-')}: "):
        PretrainConfig(**{"task": task, name: value})


def test_what_a_preset_sets_and_another_task_does_not_take_is_taken_back():
    with pytest.raises(ArgumentError, match="preset zhang16 sets it, so give --rebalance None"):
        preset_config("zhang16", task="rgb-regression")
    assert preset_config("zhang16", task="rgb-regression", rebalance=None).task == "rgb-regression"


def test_a_mistyped_preset_gives_the_closest(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UnknownNameError, match="did you mean 'zhang16'"):
        preset_config("zhan16")
    assert main(["pretrain", "--preset", "toronto-unit"]) == 2
    assert "toronto-unet" in capsys.readouterr().err


def test_presets_are_listed_with_sentence_and_figure(capsys: pytest.CaptureFixture[str]):
    assert main(["presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["presets"]
    assert listed.keys() == PRESETS.keys()
    assert listed["toronto-unet"]["expected"] == "1.051 nats, 58.9 %"


@pytest.mark.parametrize(("name", "needed"), [("toronto-unet", "batch"), ("wallner-beta", "batch")])
def test_a_data_set_too_small_for_a_preset_is_refused(tmp_path: Path, name: str, needed: str):
    rgb = make_toy("train", n=10).images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "few.npz", images=rgb)
    with pytest.raises(DataError, match=needed):
        pretrain(preset_config(name, data=str(tmp_path / "few.npz"), classes=None, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"rebalance": 1.5}, {"rebalance": -0.1}, {"temperature": 0.0}, {"contrast_temperature": 0.0}, {"label_smoothing": 1.0},
     {"task": "palette+palette"}, {"task": "palette+rotation"}, {"task": "contrast", "batch_size": 1},
     {"holdout": 0.0, "patience": 1}, {"input_std": 0.0}, {"limit": 0}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ArgumentError):
        PretrainConfig(**wrong)


@pytest.mark.parametrize("name", ["decoder", "optimizer", "schedule", "chroma"])
def test_mistyped_names_are_refused(name):
    with pytest.raises(UnknownNameError, match=f"--{name}"):
        PretrainConfig(**{name: "x"})
