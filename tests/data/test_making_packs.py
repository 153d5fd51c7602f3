"""Packing goes on where it was stopped, and writes what its data holds or says why it can not."""

import io
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import pretint.data.pack_units
import pretint.data.packing
import pretint.data.packs
from pretint.data import (
    damaged_files,
    make_pack,
    open_source,
    read_index,
)
from pretint.data.workers import in_processes
from pretint.runtime.errors import DataError, UnknownNameError
from pretint.runtime.sealed import write_sealed

from .conftest import SMALL, assert_same, fill_folder, members_of_two_classes, png, write_tar


def test_processes_pack_what_one_packs(tmp_path):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    make_pack(data, tmp_path / "one", **SMALL)
    make_pack(data, tmp_path / "two", **{**SMALL, "workers": 2})
    assert read_index(tmp_path / "one") == read_index(tmp_path / "two")
    assert damaged_files(tmp_path / "two", read_index(tmp_path / "two")) == []


class _Decoding:
    """Counts decoded pictures, and ends the run, as a signal would, before one of them."""

    def __init__(self, monkeypatch, stop_before: int | None):
        self.count, self._stop_before = 0, stop_before
        self._decode = pretint.data.pack_units.decode_quietly
        monkeypatch.setattr(pretint.data.pack_units, "decode_quietly", self)

    def __call__(self, content, size, **options):
        if self.count == self._stop_before:
            raise KeyboardInterrupt
        self.count += 1
        return self._decode(content, size, **options)


@pytest.mark.parametrize("name", ["folder", "data.tar.gz"])
def test_a_stopped_run_goes_on_without_decoding_again(tmp_path, monkeypatch, name):
    path = tmp_path / name
    data = (
        fill_folder(path, members_of_two_classes()) if path.suffix == "" else write_tar(path, members_of_two_classes())
    )
    make_pack(data, tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patched:
        decoding = _Decoding(patched, stop_before=12)  # in the third file of five
        with pytest.raises(KeyboardInterrupt):
            make_pack(data, tmp_path / "pack", **SMALL)
        assert decoding.count == 12
    assert not list((tmp_path / "pack").rglob("*.tmp"))
    with pytest.raises(DataError, match="not packed to its end"):
        open_source(tmp_path / "pack", image_size=8)
    (tmp_path / "pack" / ".train-00002.u8.0123abcd.tmp").write_bytes(b"of a run that was killed outright")
    with monkeypatch.context() as patched:
        decoding = _Decoding(patched, stop_before=None)
        make_pack(data, tmp_path / "pack", **SMALL)
        assert decoding.count == 28 - 10  # two files of five were done
    assert read_index(tmp_path / "pack") == read_index(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
    with monkeypatch.context() as patched:
        decoding = _Decoding(patched, stop_before=0)
        make_pack(data, tmp_path / "pack", **SMALL)  # complete: nothing is done


def test_a_run_with_other_settings_or_changed_data_is_not_gone_on_with(tmp_path, monkeypatch):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    with monkeypatch.context() as patched:
        _Decoding(patched, stop_before=12)
        with pytest.raises(KeyboardInterrupt):
            make_pack(data, tmp_path / "pack", **SMALL)
    with pytest.raises(DataError, match="begun with other data or settings"):
        make_pack(data, tmp_path / "pack", **{**SMALL, "image_size": 16})
    make_pack(data, tmp_path / "pack", **SMALL)
    (data / "train/cat/0.png").write_bytes(png(999))
    with pytest.raises(DataError, match="pack of other data"):
        make_pack(data, tmp_path / "pack", **SMALL)


def test_a_record_of_a_stopped_run_that_is_damaged_is_done_again(tmp_path, monkeypatch):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    make_pack(data, tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patched:
        _Decoding(patched, stop_before=12)
        with pytest.raises(KeyboardInterrupt):
            make_pack(data, tmp_path / "pack", **SMALL)
    record = tmp_path / "pack" / "parts" / "train-00000.json"
    whole = record.read_text()
    changes = (
        whole.replace('"pictures": 5', '"pictures": 4'),
        "[]",
        "{",
        whole.replace("train-00000.u8", "../train-00000.u8"),
    )
    unit = pretint.data.pack_units.FileUnit((), None, None)
    job = pretint.data.pack_units.Job(unit, "train", "train-00000", tmp_path / "pack", 8)
    assert pretint.data.pack_units.done_before(job) is not None
    for text in changes:
        record.write_text(text)
        assert pretint.data.pack_units.done_before(job) is None
    for change in (
        {"pictures": None},
        {"labels": 7},
        {"labels": [0, "x"]},
        {"broken": None},
        {"file": "x"},
        {"more": 1},
    ):
        write_sealed(record, {**json.loads(whole), **change})  # with a sum that is right
        assert pretint.data.pack_units.done_before(job) is None
    make_pack(data, tmp_path / "pack", **SMALL)
    assert read_index(tmp_path / "pack") == read_index(tmp_path / "whole")


def _gif(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(number))).quantize(64).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["folder", "data.tar", "data.tar.xz"])
def test_gif_and_tiff_are_packed_when_asked_for_and_else_broken(tmp_path, name):
    members = {**members_of_two_classes(), "train/cat/a.gif": _gif(1), "test/dog/b.png": _gif(2)}
    data = fill_folder(tmp_path / name, members) if name == "folder" else write_tar(tmp_path / name, members)
    make_pack(data, tmp_path / "plain", max_broken=0.1, **SMALL)
    make_pack(data, tmp_path / "more", extra_formats=("gif",), **SMALL)
    for split in ("train", "test"):
        plain, more = (
            open_source(data, split, image_size=8, max_broken=0.1, extra_formats=formats) for formats in ((), ("gif",))
        )
        assert_same(plain, open_source(tmp_path / "plain", split, image_size=8, max_broken=0.1))
        assert_same(more, open_source(tmp_path / "more", split, image_size=8))
        assert (len(plain.broken), len(more) - len(plain)) == (1, 1)
        assert "--extra-formats gif" in plain.broken[0]


def test_a_pack_made_with_other_formats_is_not_gone_on_with(tmp_path):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    first = make_pack(data, tmp_path / "pack", extra_formats=("tiff", "gif"), **SMALL)
    assert make_pack(data, tmp_path / "pack", extra_formats=("gif", "tiff", "gif"), **SMALL) == first
    for formats in ((), ("gif",)):
        with pytest.raises(DataError, match="made with other settings"):
            make_pack(data, tmp_path / "pack", extra_formats=formats, **SMALL)
    with pytest.raises(UnknownNameError, match="extra_formats"):
        make_pack(data, tmp_path / "other", extra_formats=("psd",), **SMALL)


def test_processes_pack_other_formats_too(tmp_path):
    data = fill_folder(tmp_path / "d", {f"{k}.gif": _gif(k) for k in range(12)})
    make_pack(data, tmp_path / "pack", extra_formats=("gif",), **{**SMALL, "workers": 2})
    packed, plain = (
        open_source(tmp_path / "pack", image_size=8),
        open_source(data, image_size=8, extra_formats=("gif",)),
    )
    assert torch.equal(packed.gather(torch.arange(12)), plain.images)


def test_an_archive_of_nothing_but_refused_members_is_one_sentence(tmp_path):
    data = write_tar(tmp_path / "d.tar.gz", {"../a.png": png(1)})
    for share, words in ((0.5, "are broken"), (1.0, "can be read")):
        with pytest.raises(DataError, match=words):
            make_pack(data, tmp_path / "pack", max_broken=share, **SMALL)
    assert not (tmp_path / "pack").exists()


def test_what_a_kill_at_the_very_end_leaves_is_removed_by_the_next_run(tmp_path):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    index = make_pack(data, tmp_path / "pack", **SMALL)
    whole = sorted(path.name for path in (tmp_path / "pack").iterdir())
    (tmp_path / "pack" / "parts").mkdir()
    for name in ("parts/train-00000.json", "packing.json", ".expanded.tar"):
        (tmp_path / "pack" / name).write_text("{}")
    assert make_pack(data, tmp_path / "pack", **SMALL) == index
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == whole


@pytest.mark.parametrize("killed_before", ["os.replace", "pathlib.Path.mkdir"])
def test_a_kill_at_the_very_beginning_is_gone_on_from(tmp_path, monkeypatch, killed_before):
    """Between making the folder and writing the plan, and between the plan and the folder of records."""
    data, pack = fill_folder(tmp_path / "d", members_of_two_classes()), tmp_path / "pack"

    class KilledError(BaseException):
        pass

    def kill(*arguments, **_):
        if killed_before == "os.replace" or arguments[0].name == "parts":
            shutil.copytree(pack, tmp_path / "left")  # a kill cleans nothing up
            raise KilledError
        os.makedirs(arguments[0], exist_ok=True)

    with monkeypatch.context() as patched:
        patched.setattr(killed_before, kill)
        with pytest.raises(KilledError):
            make_pack(data, pack, **SMALL)
    assert any((tmp_path / "left").iterdir())
    assert not pack.exists()
    make_pack(data, tmp_path / "left", **SMALL)
    assert make_pack(data, pack, **SMALL) == read_index(tmp_path / "left")


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for target, words in ((tmp_path / "mine", "other files"), (tmp_path / "mine" / "thesis.tex", "is a file")):
        with pytest.raises(DataError, match=words):
            make_pack(data, target, **SMALL)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pretint.data.packing.shutil, "disk_usage", lambda path: usage._replace(free=28 * 192))
    with pytest.raises(DataError, match=r"no room.* GB free"):
        make_pack(data, tmp_path / "deep" / "pack", **SMALL)
    assert not (tmp_path / "deep").exists()
    monkeypatch.setattr(pretint.data.packing.shutil, "disk_usage", lambda path: usage._replace(free=28 * 220))
    make_pack(data, tmp_path / "deep" / "pack", **SMALL)


@pytest.mark.parametrize(("files", "left"), [(0, False), (2, True)])
def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path, monkeypatch, files, left):
    data = fill_folder(tmp_path / "d", members_of_two_classes())
    real, calls = pretint.data.pack_units.write_atomically, []

    def full(path, write):
        calls.append(path)
        if len(calls) <= files:
            real(path, write)
            return

        def half(temporary):
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))

        real(path, half)

    monkeypatch.setattr(pretint.data.pack_units, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        make_pack(data, tmp_path / "pack", **SMALL)
    assert (tmp_path / "pack").exists() == left
    assert not list(tmp_path.rglob("*.tmp"))


def test_broken_files_are_counted_and_named_and_too_many_stop_the_run(tmp_path):
    members = {
        **members_of_two_classes(),
        "train/cat/bad.png": b"<html>",
        "train/dog/empty.png": b"",
        "test/cat/cut.png": png(3)[:60],
    }
    data = fill_folder(tmp_path / "d", members)
    with pytest.raises(DataError, match=r"are broken, over 1 %.*(bad|empty)\.png"):
        make_pack(data, tmp_path / "pack", **SMALL)
    make_pack(data, tmp_path / "pack", max_broken=0.2, **SMALL)
    for split in ("train", "test"):
        plain, packed = (open_source(p, split, image_size=8, max_broken=0.2) for p in (data, tmp_path / "pack"))
        assert_same(plain, packed)
    with pytest.raises(DataError, match="broken"):
        open_source(tmp_path / "pack", image_size=8)


def test_of_equal_files_one_stays_and_the_test_split_goes_first(tmp_path):
    members = members_of_two_classes(3)
    members["train/dog/copy.png"] = members["train/cat/1.png"]
    members["train/dog/leak.png"] = members["test/dog/2.png"]
    members["test/cat/broken1.png"] = members["test/cat/broken2.png"] = b""
    data = fill_folder(tmp_path / "d", members)
    index = make_pack(data, tmp_path / "pack", deduplicate=True, max_broken=0.5, **SMALL)
    assert {split: (part.pictures, part.duplicates) for split, part in index.splits.items()} == {
        "train": (6, 2),
        "test": (6, 0),
    }
    assert len(index.splits["test"].broken) == 2  # two unreadable files are not each other's copies
    train = open_source(tmp_path / "pack", image_size=8, max_broken=0.5)
    clean = open_source(fill_folder(tmp_path / "clean", members_of_two_classes(3)), image_size=8)
    assert torch.equal(train.gather(torch.arange(6)), clean.images)
    assert torch.equal(train.labels, clean.labels)


def test_when_only_copies_of_test_pictures_are_left_to_train_on_it_is_said(tmp_path):
    members = {f"{split}/{k}.png": png(k) for split in ("train", "test") for k in range(3)}
    with pytest.raises(DataError, match=r"all 3 pictures of .*\(train\) are copies of test pictures"):
        make_pack(fill_folder(tmp_path / "d", members), tmp_path / "pack", deduplicate=True, **SMALL)
    assert not (tmp_path / "pack").exists()


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(DataError, match="a process was killed"):
        list(in_processes(os._exit, [1], 2))


PACKING = """
from pathlib import Path
from pretint.data import make_pack
make_pack(Path(data), Path(pack), image_size=8, workers=2, shard_bytes=5 * 192)
"""


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks /proc which processes there are")
def test_workers_end_with_a_packer_that_is_killed_and_the_next_run_decodes_nothing_twice(tmp_path, child, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "00.png").write_bytes(png(0, (1000, 1000)))  # which takes long enough to decode
    for number in range(1, 60):
        os.link(tmp_path / "d" / "00.png", tmp_path / "d" / f"{number:02}.png")
    packer = child(PACKING, data=str(tmp_path / "d"), pack=str(tmp_path / "pack"))
    end = time.monotonic() + 240
    while len(list((tmp_path / "pack").glob("parts/*.json"))) < 2:
        assert packer.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    workers = [
        int(number)
        for task in Path(f"/proc/{packer.pid}/task").iterdir()
        for number in (task / "children").read_text().split()
    ]
    assert len(workers) >= 2
    os.kill(packer.pid, signal.SIGKILL)
    packer.join(30)
    end = time.monotonic() + 30
    while any(map(_runs, workers)):
        assert time.monotonic() < end
        time.sleep(0.01)
    done = len(list((tmp_path / "pack").glob("parts/*.json")))
    assert 2 <= done < 12
    decoding = _Decoding(monkeypatch, stop_before=None)
    index = make_pack(tmp_path / "d", tmp_path / "pack", **SMALL)
    assert decoding.count == 60 - 5 * done
    assert index.splits["train"].pictures == 60
    assert damaged_files(tmp_path / "pack", index) == []
