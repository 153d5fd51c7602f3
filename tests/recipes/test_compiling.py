"""`--compile`: said, kept with the run, and without effect on anything but speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pretint.data import Batches, TensorSource
from pretint.pretext import Painter
from pretint.recipes import PretrainConfig, pretrain, pretraining
from pretint.recipes.compiling import training_network
from pretint.recipes.opening import make_model, read_settings
from pretint.runtime.compilation import Compilation
from pretint.runtime.device import Compute
from pretint.runtime.files import read_json
from pretint.runtime.runfolder import RunFolder

from .conftest import small_config

TINY: dict[str, Any] = {"width": 4, "depth": 2, "limit": 128, "epochs": 1}
WITHOUT_COMPILER = """
import os, sys
os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
sys.stderr = sys.stdout = open(said, "w", buffering=1)
import torch._inductor.config
torch._inductor.config.cpp.cxx = (None, "there-is-none")
from pretint.cli import main
sys.exit(max(main([str(word) for word in words]) for words in commands))
"""


def words(data: Path, out: Path, *more: str) -> list[str]:
    options = "--task palette --device cpu --precision fp32 --width 4 --depth 2 --limit 128 --epochs 1 --batch-size 16 --colours 8"
    return ["pretrain", "--data", str(data), "--out", str(out), *options.split(), *more]


def encoder(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "encoder" / "model.safetensors")


def test_without_a_compiler_a_run_says_so_in_a_sentence_and_goes_on_as_it_is(
    small_data: Path, tmp_path: Path, child: Callable[..., BaseProcess]
):
    said = tmp_path / "said.txt"
    commands = [words(small_data, tmp_path / name, "--compile", name) for name in ("off", "on")]
    process = child(WITHOUT_COMPILER, said=str(said), cache=str(tmp_path / "compiled"), commands=commands)
    process.join(600)
    assert process.exitcode == 0, said.read_text()
    (line,) = [line for line in said.read_text().splitlines() if "there-is-none" in line]
    assert line.startswith("pretrain: the network is not compiled: it can't be here (")
    assert read_json(tmp_path / "on" / "config.json")["compilation"]["mode"] is None
    plain, fallen_back = encoder(tmp_path / "off"), encoder(tmp_path / "on")
    assert all(torch.equal(plain[name], fallen_back[name]) for name in plain)


def test_what_is_chosen_is_said_and_kept_in_the_runs_config(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pretrain(small_config(small_data, tmp_path / "run", device="cpu", **TINY))
    assert "pretrain: the network is not compiled: on cpu nothing is known to be gained" in capsys.readouterr().err
    kept = read_json(tmp_path / "run" / "config.json")
    assert kept["settings"]["compile"] == "auto"
    assert (kept["compilation"]["mode"], kept["compilation"]["device"]) == (None, "cpu")


def test_a_run_goes_on_as_it_was_compiled_unless_it_is_told_otherwise(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tried: list[Compilation] = []

    def pretended(
        model: nn.Module, inputs: torch.Tensor, compute: Compute, chosen: Compilation
    ) -> tuple[nn.Module, Compilation]:
        tried.append(chosen)
        assert inputs.shape == (64, 1, 32, 32)
        return model, chosen

    monkeypatch.setattr("pretint.recipes.compiling.compiled", pretended)

    def kept() -> str | None:
        return read_json(tmp_path / "run" / "config.json")["compilation"]["mode"]

    config = small_config(small_data, tmp_path / "run", device="cpu", compile="on", **TINY)
    pretrain(config)
    assert (len(tried), kept()) == (1, "default")
    again = small_config(small_data, tmp_path / "run", resume=True, **TINY)
    pretrain(again)
    assert tried[1:] == [Compilation("default", "as it was before this run was stopped")]
    pretrain(small_config(small_data, tmp_path / "run", resume=True, compile="off", **TINY))
    assert (len(tried), kept()) == (2, None)
    pretrain(again)
    assert (len(tried), kept()) == (2, None)
    assert read_settings(RunFolder.open(tmp_path / "run")).compile == "on"  # what it was started with


def test_a_run_that_does_not_say_whether_it_was_compiled_was_not(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pretrain(small_config(small_data, tmp_path / "run", **TINY))
    path = tmp_path / "run" / "config.json"
    config = read_json(path)
    del config["compilation"], config["settings"]["compile"]
    path.write_text(json.dumps(config))
    capsys.readouterr()
    pretrain(small_config(small_data, tmp_path / "run", resume=True, **TINY))
    assert "the network is not compiled: as it was before this run was stopped." in capsys.readouterr().err


def prepared(**settings: Any) -> tuple[PretrainConfig, Painter, Batches]:
    config = PretrainConfig(task="rgb-regression", backbone="pretint_unet", width=4, depth=2, batch_size=4, **settings)
    source = TensorSource(torch.zeros(12, 3, 16, 16, dtype=torch.uint8))
    model, task = make_model(config, None)
    return config, Painter(model, task, Compute.choose("cpu", "fp32")), Batches(source, 4, seed=0)


def test_a_network_that_asks_other_processes_in_the_middle_of_it_is_not_compiled():
    network, chosen = training_network(*prepared(sync_batch_norm=True, compile="on"), lambda: 1e9)
    assert chosen.mode is None
    assert "--sync-batch-norm" in chosen.why
    assert isinstance(network, nn.Module)


def test_how_long_training_takes_is_known_from_the_first_steps_or_from_the_minutes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pretint.recipes.pretraining.seconds_per_step", lambda *_: 2.0)
    assert pretraining._seconds(*prepared(epochs=5)) == 2.0 * 3 * 5
    assert pretraining._seconds(*prepared(minutes=5.0)) == 300.0


def test_two_processes_train_a_compiled_network_as_they_train_the_network_itself(
    small_data: Path, tmp_path: Path, several
):
    """Also with accumulated gradients; it is compiled once, before the processes exchange anything."""
    kinds = {"plain": [], "accumulated": ["--accumulate", "2"]}
    commands = {
        f"{kind}-{wanted}": words(small_data, tmp_path / f"{kind}-{wanted}", *more, "--compile", wanted)
        for kind, more in kinds.items()
        for wanted in ("off", "on")
    }
    codes = several(Path(__file__).with_name("run_compiled.py"), 2, tmp_path, COMMANDS=list(commands.values()))
    assert codes == [0, 0], (tmp_path / "printed-0.txt").read_text()
    for rank in (0, 1):
        assert json.loads((tmp_path / f"graphs-{rank}.json").read_text()) == [0, 1, 0, 1]
    for kind in kinds:
        off, on = (encoder(tmp_path / f"{kind}-{wanted}") for wanted in ("off", "on"))
        assert off.keys() == on.keys()
        assert all(torch.allclose(off[name], on[name], atol=1e-5) for name in off)
