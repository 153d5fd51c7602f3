"""Exact resume with everything the project ships, and what a run may and may not begin with or go on with."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pretint.backbones import load_backbone
from pretint.cli import main
from pretint.data import Batches, TensorSource
from pretint.pretext import TASKS, Painter
from pretint.recipes import EvaluateConfig, PretrainConfig, evaluate, pretrain, pretraining
from pretint.recipes.opening import make_model
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, NotFiniteError, RunFolderError
from pretint.runtime.files import read_json, write_json
from pretint.runtime.loop import LoopSettings, Training
from pretint.runtime.runfolder import FORMAT_VERSION, RunFolder
from pretint.runtime.runlog import RunLog
from pretint.runtime.stopping import Interrupted
from pretint.runtime.tensors import optimizer_tensors, read_metadata

from .conftest import small_config

STEPS = 4  # an epoch
TRAINED = [name for name in TASKS if getattr(TASKS[name], "trains", True)]
PLAIN = {"backbone": "pretint_unet", "width": 4, "depth": 2}
ENCODERS: dict[str, dict[str, Any]] = {
    "pretint_cnn": {"width": 4, "depth": 2},
    "pretint_resunet": {"width": 4, "depth": 2},
    "pretint_cs520": {"width": 4, "decoder": "cs520", "image_size": 32},
    "pretint_toronto_cnn": {"width": 4, "decoder": "toronto-cnn"},
    "pretint_toronto_strided": {"width": 4, "decoder": "toronto-unet"},
    "pretint_wallner_alpha": {"width": 4, "decoder": "wallner-alpha", "task": "lab-regression", "optimizer": "rmsprop"},
    "pretint_wallner_beta": {"width": 4, "decoder": "wallner-beta", "task": "lab-regression", "optimizer": "sgd"},
    "pretint_wallner_full": {"width": 4, "decoder": "wallner-full", "task": "lab-regression", "fusion": "average"},
    "timm/resnet10t": {"image_size": 32},
    "timm/convnext_atto": {"image_size": 32},
}  # fmt: skip
CASES = {
    **{task: {**PLAIN, "task": task} for task in TRAINED},
    "palette+contrast": {**PLAIN, "task": "palette+contrast"},
    **{name: {"backbone": name, **options} for name, options in ENCODERS.items()},
}


def pictures(size: int) -> TensorSource:
    generator = torch.Generator().manual_seed(5)
    levels = torch.randint(0, 4, (4 * STEPS, 3, size, size), generator=generator)  # few colours, soon clustered
    images = (levels * 80).to(torch.uint8)
    return TensorSource(images, torch.arange(len(images)) % 3)


@functools.cache
def fresh(case: str) -> tuple[PretrainConfig, TensorSource, Any, Any]:
    """Settings, pictures, the network with random weights, and the task."""
    usual = {"image_size": 16, "colours": 6, "epochs": 2, "batch_size": 4, "clip": 0.5, "augment": "flip-crop"}
    config = PretrainConfig(**{**usual, **CASES[case]})
    source = pictures(config.image_size)
    palette = pretraining.training_palette(config, source, torch.arange(len(source)))
    torch.manual_seed(0)
    return config, source, *make_model(config, palette, 3)


def make_training(case: str, precision: str, folder: Path | None) -> Training:
    """What `pretint pretrain` trains, on random pictures."""
    config, source, model, task = fresh(case)
    model = copy.deepcopy(model)
    painter = Painter(model, task, Compute.choose("cpu", precision))
    batches = Batches(source, 4, seed=0, augment=config.augment, views=task.views)
    optimizer = pretraining.make_optimizer(config, model, painter.compute)
    settings = LoopSettings(config.epochs, clip=config.clip)
    return Training(
        model, optimizer, batches, pretraining.loss_function(model, task, painter.compute), dict, painter.compute, settings,
        None if folder is None else Checkpoints(folder),
    )  # fmt: skip


def train(training: Training, rows: list[dict[str, Any]]) -> bool:
    """Whether it came to its end."""
    with RunLog(None, "test", 0, quiet=True) as log:
        try:
            training.run(log)
        except Interrupted:
            return False
        finally:
            rows += [{k: row[k] for k in ("epoch", "train_loss", "learning_rate")} for row in log._rows]
    return True


def stop_when(training: Training, step: int, *, recorded: bool) -> None:
    """A signal comes in the step of that number, or when the epoch that ends with it is written down."""
    name = "_record" if recorded else "_step"
    original = getattr(training, name)

    def then_ask(*arguments: Any) -> Any:
        if training.state.step == (step if recorded else step - 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    setattr(training, name, then_ask)


# of the encoders only timm's have layers whose bf16 the tasks do not show already
@pytest.mark.parametrize(
    ("case", "precision"),
    [(case, "fp32") for case in CASES]
    + [(case, "bf16") for case in CASES if case not in ENCODERS or "convnext" in case],
)
def test_every_task_and_encoder_goes_on_to_the_bit_from_the_first_a_middle_and_the_last_step_and_the_boundary_of_an_epoch(
    case: str, precision: str, tmp_path: Path
):
    """Weights, statistics, optimiser, schedule and logged losses, with shuffling, augmentation and clipping."""
    whole, whole_rows = make_training(case, precision, None), []
    assert train(whole, whole_rows)
    rows: list[dict[str, Any]] = []
    for step, recorded in (
        (1, False),
        (2, False),
        (STEPS, False),
        (STEPS, True),
        (STEPS + 1, False),
        (2 * STEPS, False),
    ):
        training = make_training(case, precision, tmp_path)
        if Checkpoints(tmp_path):
            training.resume()
        stop_when(training, step, recorded=recorded)
        assert not train(training, rows)
    last = make_training(case, precision, tmp_path)
    last.resume()
    assert train(last, rows)
    assert rows == whole_rows
    for tensors in (lambda t: t.model.state_dict(), lambda t: optimizer_tensors(t.optimizer)):
        ours, theirs = tensors(last), tensors(whole)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [g["lr"] for g in last.optimizer.param_groups] == [g["lr"] for g in whole.optimizer.param_groups]


TINY: dict[str, Any] = {"width": 4, "depth": 2, "limit": 128, "epochs": 1}


@pytest.fixture(scope="module")
def tiny_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "run"
    pretrain(small_config(small_data, out, **TINY))
    return out


def test_a_checkpoint_holds_optimiser_schedule_counters_best_value_palette_and_settings(tiny_run: Path):
    checkpoints = Checkpoints(tiny_run / "checkpoints")
    header = read_metadata(checkpoints.path(checkpoints.steps[-1]))
    state, run = json.loads(header["state"]), json.loads(header["run"])
    assert (state["step"], state["epochs_ended"], state["best_step"]) == (1, 1, 1)
    assert state["best"] == pytest.approx(RunFolder.open(tiny_run).read_metrics()[0]["validation_loss"])
    assert run["settings"]["width"] == 4
    assert run["schedule"]["epochs"] == 1
    assert len(run["palette"]["sha256"]) == 64
    assert not {"out", "device", "keep"} & run["settings"].keys()


def test_resume_from_a_folder_that_is_missing_or_empty_is_an_error_and_nothing_is_begun(
    small_data: Path, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(RunFolderError, match="no run to go on with"):
            pretrain(small_config(small_data, tmp_path / name, resume=True, **TINY))
    assert os.listdir(tmp_path) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


def test_resume_of_a_run_whose_checkpoints_are_gone_is_an_error_and_keeps_what_else_there_is(
    small_data: Path, tiny_run: Path, tmp_path: Path
):
    out = tmp_path / "run"
    RunFolder.create(out, read_json(tiny_run / "config.json"))
    (out / "palette.json").write_bytes((tiny_run / "palette.json").read_bytes())
    (out / "results.json").write_text("{}")
    with pytest.raises(RunFolderError, match="holds no checkpoint"):
        pretrain(small_config(small_data, out, resume=True, **TINY))
    assert {"config.json", "palette.json", "results.json"} <= set(os.listdir(out))


def test_changed_settings_are_refused_field_by_field_and_those_of_saving_may_change(
    small_data: Path, tiny_run: Path, tmp_path: Path
):
    with pytest.raises(ArgumentError, match=r"--epochs 3 \(was 1\), --width 8 \(was 4\).*--learning-rate 0.1 \(was"):
        pretrain(
            small_config(small_data, tiny_run, resume=True, **{**TINY, "width": 8, "epochs": 3}, learning_rate=0.1)
        )
    free = {"save_every": 3, "save_minutes": 1.0, "keep": 5, "on_nonfinite": "skip"}
    config = small_config(small_data, tiny_run, resume=True, **TINY, **free)
    resumed = pretraining.saved_settings(config)
    assert {name: getattr(resumed, name) for name in free} == free
    assert (resumed.width, resumed.epochs, resumed.resume) == (4, 1, True)


def test_what_is_typed_counts_on_resume_also_where_it_is_as_by_default(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    assert main(["pretrain", "--out", str(out), "--resume", "--epochs", "30", "--learning_rate=2e-3"]) == 2
    assert "started with other settings: --epochs 30 (was 1); leave" in capsys.readouterr().err
    saved = read_json(out / "config.json")
    other = {"compile": "off", "save_minutes": 1.0, "keep": 4, "on_nonfinite": "skip", "device": "cpu"}
    write_json(out / "config.json", {**saved, "settings": {**saved["settings"], **other}})
    config = PretrainConfig(out=out, resume=True)
    usual = {name: getattr(config, name) for name in other}
    for typed, wanted in ((None, other), ([], other), (list(usual), usual)):
        resumed = pretraining.saved_settings(config, typed)
        assert {name: getattr(resumed, name) for name in other} == wanted


def test_init_from_a_run_takes_the_weights_and_nothing_else(small_data: Path, tiny_run: Path, tmp_path: Path):
    """With steps too small to change anything, the encoder that comes out is the one that was begun with."""
    still = {**TINY, "learning_rate": 1e-30, "weight_decay": 0.0}
    out = tmp_path / "same"
    pretrain(small_config(small_data, out, **still, init_from=tiny_run, seed=3))
    given, got = (dict(load_backbone(run).named_parameters()) for run in (tiny_run, out))
    assert all(torch.equal(given[name], got[name]) for name in given)
    rows = RunFolder.open(out).read_metrics()
    assert [row["epoch"] for row in rows] == [1]  # counters begin anew
    head = Checkpoints(out / "checkpoints").best_weights()
    theirs = Checkpoints(tiny_run / "checkpoints").best_weights()
    learnt = [name for name in head if name.startswith("head.") and "running" not in name and "num_batches" not in name]
    assert learnt
    assert all(torch.equal(head[name], theirs[name]) for name in learnt)
    about = read_json(out / "config.json")["init_from"]
    assert (about["path"], about["task"], about["leaks"]) == (str(tiny_run), "palette", None)
    assert "palette on" in load_backbone(out).card["init_from"]
    with pytest.raises(ArgumentError, match="give one of them"):
        pretrain(small_config(small_data, out, **still, init_from=tiny_run, resume=True))


def test_init_from_an_encoder_or_a_run_of_another_task_takes_the_encoder_and_remembers_labels(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    labelled, out = tmp_path / "labelled", tmp_path / "out"
    pretrain(small_config(small_data, labelled, task="supervised", **TINY))
    still = {**TINY, "learning_rate": 1e-30, "weight_decay": 0.0}
    pretrain(small_config(small_data, out, **still, init_from=labelled / "encoder"))
    assert "begins with the encoder alone" in capsys.readouterr().err
    given, got = (dict(load_backbone(run).named_parameters()) for run in (labelled, out))
    assert all(torch.equal(given[name], got[name]) for name in given)
    assert load_backbone(out).card["leaks"].startswith("labels of ")
    with pytest.raises(ArgumentError, match=r"--init-from: the encoder in .* is another than this run's"):
        pretrain(small_config(small_data, tmp_path / "other", **{**TINY, "width": 8}, init_from=labelled))
    with pytest.raises(RunFolderError):
        pretrain(small_config(small_data, tmp_path / "other", **TINY, init_from=tmp_path / "nothing"))
    with pytest.raises(ArgumentError, match="random"):
        small_config(small_data, tmp_path / "other", task="random", init_from=labelled)
    assert not (tmp_path / "other").exists()


def test_a_run_folder_of_a_newer_format_is_refused_with_a_sentence_and_one_of_format_1_goes_on(
    small_data: Path, tiny_run: Path, tmp_path: Path
):
    for version in (FORMAT_VERSION + 1, 1):
        out = tmp_path / str(version)
        shutil.copytree(tiny_run, out)
        config = {**read_json(out / "config.json"), "format_version": version}
        config["settings"] = {
            k: v for k, v in config["settings"].items() if k not in ("save_every", "keep", "init_from")
        }
        write_json(out / "config.json", config)
    with pytest.raises(RunFolderError, match="upgrade Pretint"):
        pretrain(small_config(small_data, tmp_path / str(FORMAT_VERSION + 1), resume=True, **TINY))
    evaluate(EvaluateConfig(run=tmp_path / "1"))
    assert read_json(tmp_path / "1" / "config.json")["format_version"] == 1  # reading changes nothing
    pretrain(small_config(small_data, tmp_path / "1", resume=True, **TINY))
    assert read_json(tmp_path / "1" / "config.json")["format_version"] == FORMAT_VERSION


def test_a_run_that_became_nan_leaves_the_numbers_of_its_images_beside_the_log(small_data: Path, tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(NotFiniteError, match=r"nonfinite\.json"):
        pretrain(small_config(small_data, out, **{**TINY, "limit": 400}, learning_rate=1e30, clip=1e30))
    (record,) = read_json(out / "nonfinite.json")["steps"]
    assert record["policy"] == "stop"
    assert len(set(record["images"])) == 64
    assert set(record["images"]) <= set(range(400))
