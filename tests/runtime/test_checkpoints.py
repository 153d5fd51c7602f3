"""Checkpoints: a whole one is always there, a damaged one is noticed, and none is removed too early."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pretint.runtime import checkpoints as module
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.errors import NotFiniteError, RunFolderError
from pretint.runtime.files import file_sha256, is_temporary, read_json
from pretint.runtime.tensors import optimizer_tensors, read_metadata, read_tensors, write_tensors

from .conftest import make_training, run, weights


def small(value: float = 0.0, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model all of whose numbers are `value`, with an optimiser whose moments are too."""
    model = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for tensor in [*model.state_dict().values(), *optimizer_tensors(optimizer).values()]:
        tensor.fill_(value)
    return model, optimizer


def save(checkpoints: Checkpoints, step: int, best: int | None = None) -> None:
    checkpoints.save(*small(float(step)), {"step": step, "best_step": best}, best)


def loaded(folder: Path) -> float:
    """The step whose numbers a fresh model gets."""
    model, optimizer = small(-1.0)
    state = Checkpoints(folder).load_last(model, optimizer)
    values = {
        float(v) for t in [*model.state_dict().values(), *optimizer_tensors(optimizer).values()] for v in t.unique()
    }
    assert values == {float(state["step"])}
    return state["step"]


def test_an_exception_inside_the_writer_leaves_no_partial_file_and_the_previous_checkpoint_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    before = sorted(os.listdir(tmp_path))

    def half_a_file(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise ZeroDivisionError

    monkeypatch.setattr("pretint.runtime.tensors.save_file", half_a_file)
    with pytest.raises(ZeroDivisionError):
        save(checkpoints, 2)
    assert sorted(os.listdir(tmp_path)) == before
    assert loaded(tmp_path) == 1


SAVING = """
import itertools
from pathlib import Path
from torch import nn
from pretint.runtime.checkpoints import Checkpoints
model = nn.Linear(400, 400)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
checkpoints = Checkpoints(Path(folder))
for step in itertools.count(1):
    for tensor in model.state_dict().values():
        tensor.fill_(step)
    checkpoints.save(model, optimizer, {"step": step, "best_step": 1}, 1)
    acknowledged.write_text(str(step)) if step % 3 else None
"""


def test_kill_9_at_a_random_moment_of_a_save_always_leaves_a_loadable_checkpoint(tmp_path: Path, child):
    for round_ in range(4):
        folder, acknowledged = tmp_path / str(round_), tmp_path / f"{round_}.txt"
        process = child(SAVING, folder=folder, acknowledged=acknowledged)
        while not acknowledged.exists():
            time.sleep(0.005)
        time.sleep(random.uniform(0.0, 0.15))
        process.kill()
        process.join()
        last = int(acknowledged.read_text() or 0)
        model = nn.Linear(400, 400)
        state = Checkpoints(folder).load_last(model, torch.optim.SGD(model.parameters(), lr=0.0))
        assert state["step"] >= last
        assert {float(tensor.detach().min()) for tensor in model.parameters()} == {float(state["step"])}
        assert Checkpoints(folder).load_best(model)["step"] == 1


def full_by_limit(folder: Path) -> Callable[[], None]:
    """No file of this process may become larger than a checkpoint's half; returns how to lift that."""
    size = max(path.stat().st_size for path in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_by_flush(_: Path) -> Callable[[], None]:
    """What a network folder does: it says that there is no room when it is asked to flush."""
    original = os.fsync

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = no_room
    return lambda: setattr(os, "fsync", original)


@pytest.mark.parametrize("fill", [full_by_limit, full_by_flush])
def test_a_full_disk_is_a_clear_error_the_old_checkpoint_is_intact_and_no_temporary_file_stays(tmp_path: Path, fill):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(*small(1.0, width=64), {"step": 1}, None)
    before = {path.name: file_sha256(path) for path in tmp_path.iterdir()}
    empty = fill(tmp_path)
    try:
        with pytest.raises(RunFolderError, match=r"step 2 can't be written .*step 1 is still there; free some room"):
            checkpoints.save(*small(2.0, width=64), {"step": 2}, None)
    finally:
        empty()
    assert {path.name: file_sha256(path) for path in tmp_path.iterdir()} == before
    checkpoints.save(*small(2.0, width=64), {"step": 2}, None)
    assert checkpoints.load_last(*small(0.0, width=64))["step"] == 2


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_save_or_by_the_end_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints, model = Checkpoints(tmp_path), small(2.0)
    save(checkpoints, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        checkpoints.save(*model, {"step": 2}, None, background=True)
        with pytest.raises(RunFolderError, match="step 2 can't be written"):
            checkpoints.wait()
        with pytest.raises(RunFolderError, match="step 6 can't be written"):
            run(make_training(tmp_path / "run", epochs=1))
    checkpoints.save(*model, {"step": 2}, None, background=True)
    for tensor in model[0].state_dict().values():
        tensor.fill_(-7.0)  # training goes on while it is written
    checkpoints.wait()
    assert loaded(tmp_path) == 2


def test_with_tmpdir_on_another_file_system_a_save_is_still_a_rename_within_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr("tempfile.tempdir", None)
    before, renames, replace = set(os.listdir(elsewhere)), [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renames.append((Path(a).parent, Path(b).parent)), replace(a, b)))
    save(Checkpoints(tmp_path), 1)
    assert len(renames) == 2
    assert {folder for pair in renames for folder in pair} == {tmp_path}
    assert set(os.listdir(elsewhere)) <= before
    assert loaded(tmp_path) == 1


def tensor_file(header: dict | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


WHOLE = tensor_file({"x": entry([4], 0, 16)}, bytes(16))
HOSTILE = {
    "truncated": WHOLE[:-5],
    "truncated within the header": WHOLE[:20],
    "empty": b"",
    "trailing bytes": WHOLE + b"more",
    "a header of a tebibyte": tensor_file({"x": entry([4], 0, 16)}, bytes(16), length=2**40),
    "a header of 2^64 bytes": tensor_file({"x": entry([4], 0, 16)}, bytes(16), length=2**64 - 1),
    "a header that is not UTF-8": tensor_file(b'{"\xff\xfe": {}}', b""),
    "a header that is no JSON": tensor_file(b"{" * 100, b""),
    "overlapping offsets": tensor_file({"x": entry([4], 0, 16), "y": entry([4], 8, 24)}, bytes(24)),
    "one place for two tensors": tensor_file({"x": entry([4], 0, 16), "y": entry([4], 0, 16)}, bytes(16)),
    "a hole": tensor_file({"x": entry([4], 0, 16), "y": entry([4], 32, 48)}, bytes(48)),
    "offsets behind the end": tensor_file({"x": entry([2**38], 0, 2**40)}, bytes(16)),
    "a shape of more than the bytes": tensor_file({"x": entry([2**40], 0, 16)}, bytes(16)),
    "a shape that overflows": tensor_file({"x": entry([2**62, 2**62], 0, 16)}, bytes(16)),
    "a negative shape": tensor_file({"x": entry([-4], 0, 16)}, bytes(16)),
}


def peak_memory() -> int | None:
    """The most memory that was resident since the last call, in bytes, where the system says."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_safetensors_are_a_typed_error_and_nothing_is_allocated_beyond_the_files_size(
    kind: str, tmp_path: Path
):
    path = tmp_path / "a.safetensors"
    path.write_bytes(WHOLE)
    assert read_tensors(path)["x"].tolist() == [0.0] * 4
    path.write_bytes(HOSTILE[kind])
    peak_memory()
    before = peak_memory()
    for read in (read_tensors, read_metadata):
        with pytest.raises(RunFolderError, match=r"a\.safetensors is .*damaged"):
            read(path)
    after = peak_memory()
    assert before is None or after is None or after - before < 2**22


def test_a_checkpoint_that_is_damaged_is_reported_by_name_and_the_one_before_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1  # the tensors' last bytes: a file that safetensors would read without a word
        path.write_bytes(content)

    checkpoints = Checkpoints(tmp_path, keep=4)
    for step in (1, 2, 9, 10):
        save(checkpoints, step)
    flip(checkpoints.path(10))
    assert loaded(tmp_path) == 9
    assert "step-10.safetensors can't be used" in (said := capsys.readouterr().err)
    assert "SHA-256" in said
    checkpoints.path(9).write_bytes(checkpoints.path(9).read_bytes()[:-1])
    assert loaded(tmp_path) == 2
    assert "step-9.safetensors" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("{")
    checkpoints.path(10).unlink()
    assert loaded(tmp_path) == 2  # without a manifest what is cut off is still seen
    for step in checkpoints.steps:
        checkpoints.path(step).write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"every checkpoint is damaged \(step-9.*step-2.*step-1"):
        loaded(tmp_path)


def test_a_newest_checkpoint_that_can_not_be_read_is_reported_and_the_one_before_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for step in (10, 20):
        save(Checkpoints(tmp_path), step)
    failures = [OSError(errno.EIO, "Input/output error")]

    def fails_once(path: Path) -> str:
        if failures:
            raise failures.pop()
        return file_sha256(path)

    monkeypatch.setattr(module, "file_sha256", fails_once)
    assert loaded(tmp_path) == 10
    said = capsys.readouterr().err
    assert "step-20.safetensors can't be used" in said
    assert "Input/output error" in said


def test_a_damaged_checkpoint_does_not_count_among_those_that_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        save(checkpoints, step)
    checkpoints.path(20).write_bytes(b"")
    again = Checkpoints(tmp_path)
    assert again.load_last(*small())["step"] == 10
    save(again, 30)
    assert again.steps == [10, 30]
    save(again, 25)  # gone on from before 30, which will never be reached in this way again
    assert again.steps == [10, 25]


def test_steps_sort_as_numbers_and_retention_keeps_the_best_and_the_newest_two(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (8, 9, 10, 11, 100):
        save(checkpoints, step, best=9 if step >= 9 else None)
    assert checkpoints.steps == [9, 11, 100]
    assert loaded(tmp_path) == 100
    model, _ = small()
    assert checkpoints.load_best(model)["step"] == 9
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["best"] == "step-9.safetensors"
    assert manifest["files"] == {
        f"step-{step}.safetensors": {
            "step": step,
            "bytes": checkpoints.path(step).stat().st_size,
            "sha256": file_sha256(checkpoints.path(step)),
        }
        for step in (9, 11, 100)
    }


@pytest.mark.parametrize("stage", ["renamed", "listed"])
def test_retention_never_removes_the_only_good_checkpoint_when_it_is_killed_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
):
    """Killed after the rename, before the manifest; and after the manifest, before old files are removed."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step, best=1)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    unlink = Path.unlink
    with monkeypatch.context() as patch:
        if stage == "renamed":
            patch.setattr(module, "write_json", die)
        else:
            patch.setattr(Path, "unlink", lambda p, **how: die() if p.name.startswith("step-") else unlink(p, **how))
        with pytest.raises(Killed):
            save(checkpoints, 3, best=3)
    assert loaded(tmp_path) == 3
    assert Checkpoints(tmp_path).load_best(small()[0])["step"] == (1 if stage == "renamed" else 3)
    (tmp_path / "manifest.json").unlink()
    assert Checkpoints(tmp_path).load_best(small()[0])["step"] == 3


def test_a_step_that_is_saved_a_second_time_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An epoch that was stopped at its end is saved there before and after it was validated."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_tensors", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(checkpoints, 5, best=5)
    assert loaded(tmp_path) == 5
    save(checkpoints, 5, best=5)
    assert checkpoints.load_best(small()[0])["best_step"] == 5


def test_what_a_killed_writer_left_is_swept_away_by_the_next_save(tmp_path: Path):
    save(Checkpoints(tmp_path), 1)
    (tmp_path / ".step-2.safetensors.0123abcd.tmp").write_bytes(b"half")
    assert loaded(tmp_path) == 1
    save(Checkpoints(tmp_path), 2)
    assert not [name for name in os.listdir(tmp_path) if is_temporary(name)]


@pytest.mark.parametrize("exists", [False, True])
def test_resuming_from_a_missing_or_an_empty_folder_is_an_error(tmp_path: Path, exists: bool):
    folder = tmp_path / "checkpoints"
    if exists:
        folder.mkdir()
    with pytest.raises(RunFolderError, match="no checkpoint to go on from"):
        make_training(folder, epochs=1).resume()


def test_a_checkpoint_of_another_run_is_refused_field_by_field(tmp_path: Path):
    mine = {"settings": {"width": 8, "task": "palette"}, "palette": {"sha256": "a"}}
    Checkpoints(tmp_path, run=mine).save(*small(), {"step": 1}, None)
    other = {"settings": {"width": 16, "task": "palette", "new": 1}, "palette": {"sha256": "b"}}
    with pytest.raises(RunFolderError, match=r"settings width: 16 \(was 8\), palette sha256: 'b' \(was 'a'\)"):
        Checkpoints(tmp_path, run=other).load_last(*small())
    assert Checkpoints(tmp_path, run=json.loads(json.dumps(mine))).load_last(*small())["step"] == 1


def test_a_changed_schedule_is_refused_field_by_field(tmp_path: Path):
    run(make_training(tmp_path, epochs=1))
    with pytest.raises(RunFolderError, match=r"schedule epochs: 2 \(was 1\), schedule clip: None \(was 1.0\)"):
        make_training(tmp_path, epochs=2, clip=None).resume()


@pytest.mark.parametrize("place", ["weight", "buffer", "moment"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_never_reaches_a_checkpoint(tmp_path: Path, place: str, value: float):
    save(Checkpoints(tmp_path), 1)
    model, optimizer = small(2.0)
    places = {
        "weight": model[0].weight.data,
        "buffer": model[1].running_var,
        "moment": optimizer.state[model[0].bias]["exp_avg_sq"],
    }
    places[place].view(-1)[-1] = value
    with pytest.raises(NotFiniteError, match="not finite"):
        Checkpoints(tmp_path).save(model, optimizer, {"step": 2}, None)
    assert loaded(tmp_path) == 1
    assert Checkpoints(tmp_path).steps == [1]


def as_format_1(folder: Path) -> None:
    """Makes checkpoints what earlier versions wrote: `last` with the optimiser, `best` without, and fewer counters."""
    checkpoints = Checkpoints(folder)
    newest, best = checkpoints.path(checkpoints.steps[-1]), checkpoints.best
    assert best is not None
    for path, name in ((newest, "last"), (best, "best")):
        state = json.loads(read_metadata(path)["state"])
        old = {key: state[key] for key in ("step", "best", "best_epoch", "finished", "sums")}
        tensors = {k: v for k, v in load_file(path).items() if name == "last" or k.startswith("model.")}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"state": json.dumps(old)})
    for path in [*folder.glob("step-*"), folder / "manifest.json"]:
        path.unlink()


def test_checkpoints_of_format_1_are_read_and_give_way_when_the_run_goes_on(tmp_path: Path):
    whole = make_training(tmp_path / "whole", epochs=4)
    run(whole)
    half = make_training(tmp_path / "half", epochs=4)

    class Enough(Exception):
        pass

    def enough(epoch: int) -> None:
        if epoch == 3:
            raise Enough

    with pytest.raises(Enough):
        run(half, on_epoch=enough)
    as_format_1(tmp_path / "half")
    model = make_training(epochs=1).model
    assert Checkpoints(tmp_path / "half").load_best(model)["best_epoch"] == 2
    resumed = make_training(tmp_path / "half", epochs=4)
    assert resumed.resume() == 2
    run(resumed)
    assert torch.equal(weights(resumed), weights(whole))
    assert sorted(os.listdir(tmp_path / "half")) == ["manifest.json", "step-18.safetensors", "step-24.safetensors"]


def test_a_checkpoint_whose_counters_are_nonsense_is_refused(tmp_path: Path):
    training = make_training(tmp_path, epochs=1)
    run(training)
    path = Checkpoints(tmp_path).path(6)
    header, tensors = read_metadata(path), read_tensors(path)
    (tmp_path / "manifest.json").unlink()
    state = json.loads(header["state"])
    for change in (
        {"step": -1},
        {"step": "x"},
        {"epochs_ended": 5},
        {"sums": [1.0]},
        {"sums": [float("nan"), 1.0]},
        {"who": 1},
    ):
        write_tensors(path, {k: v.clone() for k, v in tensors.items()}, {**header, "state": json.dumps(state | change)})
        with pytest.raises(RunFolderError, match="state can't be used"):
            make_training(tmp_path, epochs=1).resume()
