"""Each published system runs under its own name, and its encoder can be loaded like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pretint.backbones import features, load_backbone
from pretint.cli import main
from pretint.data import TensorSource, make_toy, register_source
from pretint.recipes import PRESETS, PretrainConfig, preset_config, pretrain, typed_preset
from pretint.runtime.errors import ArgumentError, DataError, UnknownNameError

SMALL = {"epochs": 1, "precision": "fp32", "device": "cpu"}


@pytest.fixture
def horses(forget_registrations):
    """Generated pictures under the class names of CIFAR-10."""

    def opener(split, *, image_size, root, seed):
        toy = make_toy("train", n=320 if split == "train" else 40, image_size=image_size)
        return TensorSource(
            toy.images, torch.zeros(len(toy), dtype=torch.int64), ("horse",), name="horses", split=split
        )

    register_source("horses", opener)


@pytest.mark.usefixtures("horses")
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_paints_and_hands_over_its_encoder(tmp_path: Path, name: str):
    out = tmp_path / name
    outcome = pretrain(preset_config(name, data="horses", out=out, **SMALL))
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
    ],
)
def test_the_best_recipe_is_taken_where_neither_preset_nor_task_is_typed(words, preset):
    assert typed_preset(words).preset == preset


def test_a_task_alone_keeps_the_24_rgb_colours():
    config = typed_preset(["--task", "palette"])
    assert (config.colours, config.palette_space) == (24, "rgb")


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
