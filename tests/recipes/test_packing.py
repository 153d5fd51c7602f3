"""`pretint data pack` and a run on what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import pretint.recipes.pretraining
import pretint.recipes.training_data
import pretint.runtime.progress
from pretint.cli import main
from pretint.data import LazyIds, open_source
from pretint.recipes import PackConfig, pack, pretrain
from pretint.recipes.training_data import held_out_ids, open_training_source
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, NotFiniteError
from pretint.runtime.loop import Loss
from pretint.runtime.progress import WorkProgress
from pretint.runtime.randomness import hash_permutation
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config


def test_a_run_on_a_pack_is_the_run_on_its_data(small_data: Path, small_run: Path, tmp_path: Path):
    outcome = pack(PackConfig(data=str(small_data), out=tmp_path / "pack"))
    assert outcome.results["splits"]["train"]["fingerprint"] == open_source(small_data).fingerprint
    pretrain(small_config(tmp_path / "pack", tmp_path / "run"))
    runs = RunFolder.open(small_run), RunFolder.open(tmp_path / "run")
    timeless = [[{k: v for k, v in r.items() if "second" not in k} for r in run.read_metrics()] for run in runs]
    assert timeless[0] == timeless[1]
    assert (runs[0].encoder / "model.safetensors").read_bytes() == (runs[1].encoder / "model.safetensors").read_bytes()


def test_ids_of_very_many_images_are_computed(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretint.recipes.training_data, "MANY", 100)
    config = small_config(small_data, tmp_path / "run", epochs=1)
    source = open_training_source(config, Compute.choose("cpu"))
    kept, held = held_out_ids(config, source)
    assert isinstance(kept, LazyIds)
    assert torch.equal(torch.cat([kept[:], held[:]]).sort().values, torch.arange(400))
    pack(PackConfig(data=str(small_data), out=tmp_path / "pack"))
    pretrain(small_config(tmp_path / "pack", tmp_path / "run", epochs=1))
    assert len(RunFolder.open(tmp_path / "run").read_metrics()) == 1


def test_images_of_a_step_that_is_not_finite_are_known_where_ids_are_computed(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pretint.recipes.training_data, "MANY", 100)
    real = pretint.recipes.pretraining.loss_function

    def spoilt(*arguments):
        loss_of = real(*arguments)
        return lambda batch: Loss(loss_of(batch).numerator * float("nan"), loss_of(batch).denominator)

    monkeypatch.setattr(pretint.recipes.pretraining, "loss_function", spoilt)
    config = small_config(small_data, tmp_path / "run", epochs=1)
    with pytest.raises(NotFiniteError, match=r"step 1 \(epoch 1\)"):
        pretrain(config)
    (record,) = json.loads(RunFolder(tmp_path / "run").nonfinite.read_text())["steps"]
    kept, _ = held_out_ids(config, open_training_source(config, Compute.choose("cpu")))
    assert isinstance(kept, LazyIds)
    assert record["images"] == kept[hash_permutation(config.seed, 0, len(kept))[: config.batch_size]].tolist()


def test_the_command_packs_other_formats_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "d").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (90 * number, 9, 9)).save(tmp_path / "d" / f"{number}.gif")
    words = ["data", "pack", str(tmp_path / "d"), str(tmp_path / "pack"), "--image-size", "8"]
    assert main(words) == 2
    assert "--extra-formats gif" in capsys.readouterr().err
    assert main([*words, "--json", "--extra-formats", "gif"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["files"] == 3
    assert main([*words, "--extra-formats", "psd"]) == 2
    assert "'psd' is not known" in capsys.readouterr().err


def test_only_the_main_process_shows_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretint.runtime.progress, "_PLAIN_LINE_SECONDS", -1.0)
    for main_process in (True, False):
        monkeypatch.setattr(pretint.runtime.progress, "is_main", lambda answer=main_process: answer)
        with WorkProgress("data pack") as progress:
            progress("packing", 10, 2000)
        assert capsys.readouterr().err == ("data pack: packing 10 of 2,000\n" if main_process else "")


def test_the_command_packs_and_says_what_to_do_next(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["data", "pack", str(small_data), str(tmp_path / "pack"), "--image-size", "16"]
    assert main(words) == 0
    assert f"pretint pretrain --data {tmp_path / 'pack'} --image-size 16" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["test"]["files"] == 100
    assert main(["pretrain", "--data", str(tmp_path / "pack"), "--out", str(tmp_path / "run")]) == 2
    assert "use --image-size 16" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_group_alone_lists_its_verbs(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["data", *words]) == 0
    printed = capsys.readouterr().out
    assert "data pack" in printed
    assert "pretrain a" not in printed


def test_a_verb_that_is_not_in_the_group_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "pak"]) == 2
    assert "did you mean 'data pack'" in capsys.readouterr().err


@pytest.mark.parametrize("setting", [{"image_size": 0}, {"image_size": 5000}, {"workers": 0}, {"shard_mb": 0}])
def test_impossible_settings_are_refused(setting: dict[str, int], tmp_path: Path):
    with pytest.raises(ArgumentError, match=next(iter(setting)).replace("_", "-")):
        PackConfig(data="toy", out=tmp_path, **setting)
