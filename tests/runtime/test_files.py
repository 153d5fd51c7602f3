"""Atomic files, tensors in files, results and run folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pretint.runtime.errors import RunFolderError
from pretint.runtime.files import read_json, write_atomically, write_json
from pretint.runtime.results import add_results, read_results
from pretint.runtime.runfolder import FORMAT_VERSION, RunFolder, find_runs
from pretint.runtime.tensors import (
    optimizer_tensors,
    read_metadata,
    read_tensors,
    restore_optimizer,
    tensors_checksum,
    write_tensors,
)


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems can flush a folder")
def test_a_file_is_flushed_before_it_gets_its_name_and_names_are_flushed_where_they_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[int | str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("renamed"), replace(old, new)))
    path = tmp_path / "a" / "b" / "c.txt"

    def numbers(*paths: Path) -> list[int]:
        return [one.stat().st_ino for one in paths]

    write_atomically(path, b"first")
    assert done == [*numbers(tmp_path, tmp_path / "a", path), "renamed", *numbers(path.parent)]
    done.clear()
    write_atomically(path, b"second")
    assert done == [*numbers(path), "renamed", *numbers(path.parent)]


def test_json_refuses_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_a_typed_error(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunFolderError, match="JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"\xff" * 16 + b, lambda b: b"", lambda b: b[:4]])
def test_damaged_tensors_are_a_typed_error(tmp_path: Path, damage):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.arange(6.0)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunFolderError, match=r"a\.safetensors"):
        read_tensors(path)


def test_tensors_and_words_come_back(tmp_path: Path):
    tensors = {"x": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3)}
    write_tensors(tmp_path / "a.safetensors", tensors, {"state": "{}"})
    back = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(tensors[k], back[k]) for k in tensors)
    assert read_metadata(tmp_path / "a.safetensors") == {"state": "{}"}


def test_the_checksum_sees_a_changed_bit_name_and_shape():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    changed = [
        {"a": torch.zeros(4), "b": torch.tensor([1.0, 1.0000001])},
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
    ]
    assert len({tensors_checksum(t) for t in [base, *changed]}) == 4
    assert tensors_checksum(dict(reversed(base.items()))) == tensors_checksum(base)


def test_optimiser_state_comes_back_in_the_parameters_memory_format():
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    model, optimizer = make()
    model(torch.randn(2, 4, 5, 5)).sum().backward()
    optimizer.step()
    other, restored = make()
    restore_optimizer(restored, {k: v.contiguous() for k, v in optimizer_tensors(optimizer).items()})
    moment = restored.state[other.weight]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moment, optimizer.state[model.weight]["exp_avg"])
    assert float(restored.state[other.weight]["step"]) == 1


def test_measuring_again_replaces_the_entry_with_the_same_keys(tmp_path: Path):
    row = {
        "data": "a",
        "pretrained_on": "b",
        "protocol": "linear",
        "init": "random",
        "labels": 1.0,
        "seed": 0,
        "top1": 0.1,
    }
    add_results(tmp_path, "transfer", [row])
    add_results(tmp_path, "transfer", [{**row, "top1": 0.2}, {**row, "seed": 1, "top1": float("nan")}])
    assert [(r["seed"], r["top1"]) for r in read_results(tmp_path)["transfer"]] == [(0, 0.2), (1, None)]


def test_results_of_before_the_health_of_features_are_read_and_added_to(tmp_path: Path):
    write_json(tmp_path / "results.json", {"schema_version": 1, "colour": [], "transfer": [{"data": "a", "seed": 3}]})
    assert read_results(tmp_path)["features"] == []
    layers = [{"data": "a", "layer": layer, "effective_rank": 2.0} for layer in ("stage0", "stage1", "stage1")]
    found = add_results(tmp_path, "features", layers)
    assert [entry["layer"] for entry in found["features"]] == ["stage0", "stage1"]
    assert found["transfer"] == [{"data": "a", "seed": 3}]


def test_results_of_a_newer_schema_are_refused(tmp_path: Path):
    write_json(tmp_path / "results.json", {"schema_version": 99, "colour": [], "transfer": []})
    with pytest.raises(RunFolderError, match="upgrade"):
        read_results(tmp_path)


def test_a_folder_with_a_run_or_other_files_is_not_written_to(tmp_path: Path):
    RunFolder.create(tmp_path / "run", {"settings": {}})
    RunFolder.check_free(tmp_path / "new", resume=False, overwrite=False)
    with pytest.raises(RunFolderError, match="--overwrite"):
        RunFolder.check_free(tmp_path / "run", resume=False, overwrite=False)
    RunFolder.check_free(tmp_path / "run", resume=False, overwrite=True)
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"thesis\.tex"):
        RunFolder.check_free(tmp_path / "run", resume=False, overwrite=True)
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder.check_free(tmp_path / "new", resume=True, overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.check_free(tmp_path / "file", resume=False, overwrite=False)


def test_a_run_of_a_newer_format_is_refused_and_runs_are_found(tmp_path: Path):
    RunFolder.create(tmp_path / "deep" / "a", {"settings": {}})
    RunFolder.create(tmp_path / "b", {"settings": {}, "format_version": FORMAT_VERSION + 1})
    with pytest.raises(RunFolderError, match="upgrade"):
        RunFolder.open(tmp_path / "b")
    with pytest.raises(RunFolderError, match="does not exist"):
        RunFolder.open(tmp_path / "c")
    assert [run.name for run in find_runs(tmp_path)] == ["a"]
