"""A run that a classifier helped: it can be opened without its weights, its encoder holds none, its rows say that labels leaked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pretint.backbones import load_backbone
from pretint.recipes import (
    PretrainConfig,
    ProbeConfig,
    ReportConfig,
    RunsConfig,
    open_run,
    pretrain,
    probe,
    report,
    runs,
)
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, UnknownNameError
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config

TINY = {"epochs": 1, "limit": 128, "precision": "fp32"}
FULL_NAME = "timm/test_resnet.r160_in1k"

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(5)
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def fused_run(small_data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classifier's weights are gone."""
    out = tmp_path_factory.mktemp("runs") / "fused"
    gone = weights.rename(weights.with_name("gone.safetensors"))
    pretrain(small_config(small_data, out, fusion="timm/test_resnet", fusion_weights=gone, **TINY))
    gone.rename(weights)
    return out


def test_a_run_opened_again_paints_the_same_without_the_weights(fused_run: Path):
    run = open_run(fused_run, Compute.choose("cpu", "fp32"))
    assert run.config.fusion == FULL_NAME
    with np.load(fused_run / "figures" / "pictures.npz") as arrays:
        true, painted = torch.from_numpy(arrays["true"]), torch.from_numpy(arrays["painted"])
    assert torch.equal(run.painter.paint(true), painted)
    assert run.painter.model.classifier is not None
    run.painter.model.classifier.network.fc.weight.mul_(-20)  # a classifier of another opinion
    assert not torch.equal(run.painter.paint(true), painted)


def test_the_classifier_is_in_the_checkpoint_as_it_was_and_not_in_the_encoder(fused_run: Path, weights: Path):
    best = Checkpoints(fused_run / "checkpoints").best
    assert best is not None
    kept = load_file(best)
    prefix = "model.classifier.network."
    ours = {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
    given = load_file(weights)
    assert ours.keys() == given.keys()
    assert all(torch.equal(ours[name], given[name]) for name in given)
    saved = load_file(fused_run / "encoder" / "model.safetensors")
    assert {f"model.encoder.{name}" for name in saved} == {n for n in kept if n.startswith("model.encoder.")}
    assert sum(v.numel() for v in load_backbone(fused_run).parameters()) < sum(v.numel() for v in given.values()) / 10


def test_going_on_needs_no_weights(fused_run: Path, small_data: Path):
    best = Checkpoints(fused_run / "checkpoints").best
    assert best is not None
    before = best.read_bytes()
    pretrain(PretrainConfig(data=str(small_data), out=fused_run, resume=True))
    assert best.read_bytes() == before


def test_rows_and_card_say_that_labels_leaked(fused_run: Path, tmp_path: Path):
    leaks = f"labels of {FULL_NAME}"
    rows = probe(ProbeConfig(run=fused_run, precision="fp32")).results["transfer"]
    assert [(row["init"], row["leaks"]) for row in rows] == [("pretrained", leaks), ("random", None)]
    assert json.loads((fused_run / "encoder" / "config.json").read_text())["pretint"]["card"]["leaks"] == leaks
    card = (fused_run / "encoder" / "README.md").read_text()
    assert "leaks labels" in card
    assert "without labels" not in card
    assert "self-supervised" not in card
    report(ReportConfig(runs=(fused_run,), out=tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text().count(f"leaks {leaks}") >= 2  # in the answer and in the table


@pytest.mark.parametrize(("task", "inits"), [("supervised", ["supervised-grey", "random"]), ("random", ["random"])])
def test_what_has_no_pretext_is_not_called_pretrained(small_data: Path, tmp_path: Path, task: str, inits: list[str]):
    out = tmp_path / "run"
    pretrain(small_config(small_data, out, task=task, **TINY))
    rows = probe(ProbeConfig(run=out, precision="fp32")).results["transfer"]
    assert [row["init"] for row in rows] == inits
    assert [row["pretrained_on"] is None for row in rows] == [init == "random" for init in inits]
    (listed,) = runs(RunsConfig(folder=tmp_path)).results["runs"]
    assert listed["linear_top1"] == rows[0]["top1"]
    report(ReportConfig(runs=(out,), out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert f"{100 * rows[0]['top1']:.1f}" in page
    assert "Pretraining changed" not in page
    assert "Add it with <code>pretint probe" not in page


def test_settings_that_do_not_go_together_are_refused_at_once(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"did you mean .*'timm/test_resnet'"):
        PretrainConfig(fusion="test_resnet")
    with pytest.raises(ArgumentError, match="use --decoder unet or wallner-full"):
        PretrainConfig(fusion="average", decoder="toronto-cnn")
    for fusion in (None, "average"):
        with pytest.raises(ArgumentError, match="--fusion-weights: there is no classifier"):
            PretrainConfig(fusion=fusion, fusion_weights=tmp_path / "a.safetensors")


def test_weights_that_are_missing_leave_no_run_behind(small_data: Path, tmp_path: Path):
    config = small_config(
        small_data, tmp_path / "run", fusion="timm/test_resnet", fusion_weights=tmp_path / "none.safetensors", **TINY
    )
    with pytest.raises(ArgumentError, match=r"none.safetensors does not exist; download .*--fusion-weights FILE"):
        pretrain(config)
    assert not (tmp_path / "run").exists()


def test_one_image_a_step_is_enough_where_only_the_classifier_normalises(
    small_data: Path, weights: Path, tmp_path: Path
):
    config = small_config(
        small_data, tmp_path / "run", fusion="timm/test_resnet", fusion_weights=weights, backbone="pretint_wallner_full",
        decoder="wallner-full", task="lab-regression", width=4, depth=None, batch_size=1, epochs=1, limit=2, holdout=0.0,
    )  # fmt: skip
    pretrain(config)
    assert len(RunFolder.open(tmp_path / "run").read_metrics()) == 1
