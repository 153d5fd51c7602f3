"""The command: help, exit codes, sentences instead of tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretint.cli import VERBS, main


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_verb_and_does_without_torch():
    start = time.perf_counter()
    code = "import sys; from pretint.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert all(f"  {verb} " in done.stdout for verb in VERBS)
    assert time.perf_counter() - start < 30


def test_runs_does_without_torch(tmp_path: Path):
    code = f"import sys; from pretint.cli import main; main(['runs', {str(tmp_path)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_its_options(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--json" in printed
    assert f"pretint {verb}" in printed


BAD_INPUT = {
    "a mistyped verb": (["pretrian"], "pretrain"),
    "zero epochs": (["pretrain", "--epochs", "0"], "--epochs"),
    "negative epochs": (["pretrain", "--epochs", "-3"], "--epochs"),
    "a mistyped task": (["pretrain", "--task", "pallete"], "palette"),
    "a mistyped backbone": (["pretrain", "--backbone", "pretint_unt"], "pretint_unet"),
    "a mistyped timm model": (["pretrain", "--backbone", "timm/resnet81"], "timm/resnet18"),
    "a mistyped data set": (["pretrain", "--data", "cifar01"], "cifar10"),
    "a missing folder": (["pretrain", "--data", "./nowhere"], "nowhere"),
    "a mistyped palette space": (["pretrain", "--palette-space", "rbg"], "rgb"),
    "a mistyped grey formula": (["pretrain", "--grey", "rec610"], "rec601"),
    "an unknown device": (["pretrain", "--device", "gpu"], "cuda"),
    "one colour": (["pretrain", "--colours", "1"], "--colours"),
    "a huge image": (["pretrain", "--image-size", "5000"], "--image-size"),
    "a negative seed": (["pretrain", "--seed", "-1"], "--seed"),
    "a device that is none": (["pretrain", "--device", "cpu:foo"], "cpu"),
    "a warm-up without end": (["pretrain", "--warmup-epochs", "inf"], "--warmup-epochs"),
    "batches of one": (["pretrain", "--batch-size", "1"], "--batch-size"),
    "resume and overwrite at once": (["pretrain", "--resume", "--overwrite"], "--overwrite"),
    "resuming nothing": (["pretrain", "--resume"], "--resume"),
    "a tiny image": (["pretrain", "--image-size", "4"], "--image-size"),
    "a temperature of zero": (["pretrain", "--temperature", "0"], "--temperature"),
    "an option that the task does not take": (["pretrain", "--task", "rgb-regression", "--soft", "5"], "--soft"),
    "an option of the preset that the task does not take": (
        ["pretrain", "--preset", "zhang16", "--task", "rgb-regression"],
        "--rebalance None",
    ),
    "a weight for a task alone": (["pretrain", "--task", "palette", "--task-weights", "1"], "--task-weights"),
    "a mean for luma and chroma": (["pretrain", "--task", "contrast", "--input-mean", "0"], "--input-mean"),
    "a palette with luma for split-brain": (
        ["pretrain", "--task", "split-brain", "--palette-space", "lab"],
        "use ab or cbcr",
    ),
    "labels above one": (["probe", "runs/none", "--labels", "1.5"], "--labels"),
    "labels of zero": (["finetune", "runs/none", "--labels", "0"], "--labels"),
    "a run that is none": (["probe", "runs/none"], "runs/none"),
    "a folder that is no run": (["evaluate", "."], "no run folder"),
    "a report of a folder that is none": (["report", "nowhere"], "nowhere"),
    "a transfer of a folder that is none": (["transfer", "nowhere"], "nowhere"),
    "a transfer by a mistyped protocol": (["transfer", "nowhere", "--protocols", "liner"], "'linear'"),
    "a mistyped solver": (["probe", "runs/none", "--solver", "lbgfs"], "'lbfgs'"),
    "runs of a missing folder": (["runs", "nowhere"], "nowhere"),
    "a picture that is missing": (["colourize", "runs/none", "x.jpg"], "x.jpg"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words, named = BAD_INPUT[case]
    code, out, err = call(*words, capsys=capsys)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("pretint: ")
    assert named in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_folder_without_pictures_and_one_that_is_empty_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    for folder in ("./empty", "./texts"):
        code, _, err = call("pretrain", "--data", folder, capsys=capsys)
        assert code == 2
        assert folder.strip("./") in err
    assert not (tmp_path / "runs").exists()


def test_an_out_folder_that_holds_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(json.dumps({"format_version": 1, "settings": {}}))
    code, _, err = call("pretrain", "--out", str(tmp_path), capsys=capsys)
    assert code == 2
    assert "--resume" in err
    assert "--overwrite" in err


def test_an_unknown_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "--epoch", "3"])
    assert stop.value.code == 2
    assert "--epochs" in capsys.readouterr().err


def test_json_is_what_programs_read(capsys: pytest.CaptureFixture[str]):
    code, out, _ = call("tasks", "--json", capsys=capsys)
    assert code == 0
    assert set(json.loads(out)["tasks"]) >= {"palette", "rgb-regression", "lab-regression"}
    _, out, _ = call("backbones", "--json", capsys=capsys)
    assert {"pretint_unet", "pretint_cnn_tiny", "pretint_resunet_base"} <= {
        row["name"] for row in json.loads(out)["backbones"]
    }


def test_python_dash_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "pretint", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pretint 0.")


def test_a_folder_that_is_no_run_keeps_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kept = tmp_path / "checkpoints" / "mine.pt"
    kept.parent.mkdir()
    kept.write_bytes(b"years of work")
    for options in ([], ["--overwrite"]):
        code, _, err = call("pretrain", "--out", str(tmp_path), *options, capsys=capsys)
        assert code == 2
        assert "checkpoints" in err
    assert kept.read_bytes() == b"years of work"


def test_a_file_that_can_not_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"format_version": 1, "settings": {"task": "palette"}}))
    (tmp_path / "file").touch()
    code, _, err = call("report", str(run), "--out", str(tmp_path / "file" / "page.html"), capsys=capsys)
    assert code == 2
    assert "file" in err
    assert len(err.strip().splitlines()) == 1
