"""`pretint data pack` and a run on what it made."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pretint.recipes.pretraining
import pretint.recipes.training_data
import pretint.runtime.progress
from pretint.cli import main
from pretint.data import LazyIds, all_ids, make_toy, open_source
from pretint.recipes import PackConfig, PretrainConfig, pack, pretrain
from pretint.recipes.pretraining import training_palette
from pretint.recipes.training_data import counted_ids, held_out_ids, open_training_source
from pretint.runtime import randomness
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError, DataError, NotFiniteError
from pretint.runtime.loop import Loss, Training
from pretint.runtime.progress import WorkProgress
from pretint.runtime.randomness import KeyedPermutation, hash_permutation
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.stopping import Interrupted

from .conftest import small_config


def test_a_run_on_a_pack_is_the_run_on_its_data(small_data: Path, small_run: Path, tmp_path: Path):
    outcome = pack(PackConfig(data=str(small_data), out=tmp_path / "pack"))
    assert outcome.results["splits"]["train"]["fingerprint"] == open_source(small_data).fingerprint
    pretrain(small_config(tmp_path / "pack", tmp_path / "run"))
    runs = RunFolder.open(small_run), RunFolder.open(tmp_path / "run")
    timeless = [[{k: v for k, v in r.items() if "second" not in k} for r in run.read_metrics()] for run in runs]
    assert timeless[0] == timeless[1]
    assert (runs[0].encoder / "model.safetensors").read_bytes() == (runs[1].encoder / "model.safetensors").read_bytes()


def test_ids_of_very_many_images_are_computed(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(pretint.recipes.training_data, "MANY", 100)
    config = small_config(small_data, tmp_path / "run", epochs=1)
    source = open_training_source(config, Compute.choose("cpu"))
    kept, held = held_out_ids(config, source)
    assert isinstance(kept, LazyIds)
    assert torch.equal(torch.cat([kept[:], held[:]]).sort().values, torch.arange(400))
    pack(PackConfig(data=str(small_data), out=tmp_path / "pack"))
    pretrain(small_config(tmp_path / "pack", tmp_path / "run", epochs=1))
    assert len(RunFolder.open(tmp_path / "run").read_metrics()) == 1
    assert "colours are counted in 100 of 360 images, spread evenly" in capsys.readouterr().err


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


def test_colours_of_very_many_images_are_counted_in_some_that_are_spread_evenly(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = small_config(small_data, tmp_path / "run")
    assert counted_ids(config, every := torch.arange(400)) is every
    monkeypatch.setattr(pretint.recipes.training_data, "MANY", 100)
    source = open_training_source(config, Compute.choose("cpu"))
    kept, _ = held_out_ids(config, source)
    counted = counted_ids(config, kept)
    assert set(counted.tolist()) <= set(kept[:].tolist())
    assert torch.equal(counted_ids(config, all_ids(400)) // 4, torch.arange(100))  # one of every four
    assert not torch.equal(counted, counted_ids(small_config(small_data, tmp_path / "run", seed=1), kept))
    palette = training_palette(config, source, kept)
    assert palette is not None
    assert int(palette.grey_lookup.sum()) == 100 * 32 * 32


def _bmp(rgb: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb.permute(1, 2, 0).numpy()).save(buffer, "BMP")
    return buffer.getvalue()


def _save_shards(folder: Path, contents: list[bytes]) -> None:
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(contents)), 3)):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for row in rows.tolist():
                info = tarfile.TarInfo(f"{row:04}.bmp")
                info.size = len(contents[row])
                tar.addfile(info, io.BytesIO(contents[row]))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures as arrays, as a pack of several files, and as three tar shards."""
    folder, images = tmp_path_factory.mktemp("scenes"), make_toy("train", n=100).images
    np.savez(folder / "plain.npz", images=images.permute(0, 2, 3, 1).numpy())
    pack(PackConfig(data=str(folder / "plain.npz"), out=folder / "pack"))
    _save_shards(folder / "shards", list(map(_bmp, images)))
    return folder


def _tiny(data: Path, out: Path, **settings: Any) -> PretrainConfig:
    usual = {"task": "rgb-regression", "width": 4, "depth": 2, "batch_size": 16, "epochs": 2, "device": "cpu"}
    return small_config(data, out, **{**usual, **settings})


@pytest.mark.parametrize("many", [50, randomness.MANY])
def test_pack_and_shards_go_on_in_the_middle_of_an_epoch_to_the_bits_of_arrays_in_one_go(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
):
    """With an order and held-out images that are stored, and with such that are computed."""
    monkeypatch.setattr(pretint.recipes.training_data, "MANY", many)
    monkeypatch.setattr(randomness, "MANY", many)
    assert isinstance(randomness.epoch_order(0, 0, 90), KeyedPermutation) == (many == 50)
    pretrain(_tiny(scenes / "plain.npz", tmp_path / "plain"))
    step = Training._step

    def then_ask(training: Training, *arguments: Any) -> Any:
        if training.state.step == 7:  # of 2 epochs of 5
            os.kill(os.getpid(), signal.SIGTERM)
        return step(training, *arguments)

    for kind in ("pack", "shards"):
        with monkeypatch.context() as patched:
            patched.setattr(Training, "_step", then_ask)
            with pytest.raises(Interrupted):
                pretrain(_tiny(scenes / kind, tmp_path / kind))
        pretrain(_tiny(scenes / kind, tmp_path / kind, resume=True))
    runs = [RunFolder.open(tmp_path / kind) for kind in ("plain", "pack", "shards")]
    rows = [[{k: v for k, v in r.items() if "second" not in k} for r in run.read_metrics()] for run in runs]
    weights = [(run.encoder / "model.safetensors").read_bytes() for run in runs]
    assert rows[0] == rows[1] == rows[2]
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.filterwarnings("ignore:a broken picture")
def test_images_of_shards_that_turn_out_broken_are_listed_when_training_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    contents = list(map(_bmp, make_toy("train", n=60).images))
    contents[7] = b"<html>"
    _save_shards(tmp_path / "shards", contents)
    pretrain(_tiny(tmp_path / "shards", tmp_path / "run", epochs=1, max_broken=0.05))
    data = RunFolder.open(tmp_path / "run").config["data"]
    assert data["broken"] == len(data["unreadable"]) == 1
    assert data["unreadable"][0].startswith("0.tar at byte")
    assert "1 unreadable images were skipped in shards" in capsys.readouterr().err


def test_a_run_on_a_pack_with_a_changed_byte_names_the_file_before_it_trains(scenes: Path, tmp_path: Path):
    pack(PackConfig(data=str(scenes / "plain.npz"), out=tmp_path / "pack"))
    path = tmp_path / "pack" / "train-00000.u8"
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    with pytest.raises(DataError, match=r"checksum of train-00000\.u8 in the pack .* is wrong"):
        pretrain(_tiny(tmp_path / "pack", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


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
