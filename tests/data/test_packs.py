"""A pack gives the pictures that it was made of, or says which file is wrong."""

import io
import json
import os
import shutil
import signal
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pretint.data.pack_units
import pretint.data.packing
import pretint.data.packs
from pretint.data import (
    Batches,
    TensorSource,
    available_splits,
    damaged_files,
    make_pack,
    open_source,
    read_index,
    register_source,
)
from pretint.data import sources as sources_module
from pretint.data.workers import in_processes
from pretint.runtime import files
from pretint.runtime.errors import ArgumentError, DataError, UnknownNameError
from pretint.runtime.sealed import json_sha256, read_sealed, write_sealed


def _png(number: int, size: tuple[int, int] = (11, 8)) -> bytes:
    picture = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _members(per_class: int = 7) -> dict[str, bytes]:
    """Pictures of two classes in two splits; not in the order of their names."""
    names = [
        f"{split}/{kind}/{k}.png" for split in ("train", "test") for kind in ("dog", "cat") for k in range(per_class)
    ]
    return {name: _png(number) for number, name in enumerate(names)}


def _fill(root: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _npz(path: Path) -> Path:
    random = np.random.default_rng(0)
    arrays = {f"{p}images": random.integers(0, 256, (20, 9, 8, 3), np.uint8) for p in ("", "test_")}
    np.savez(path, **arrays, labels=np.arange(20) % 3, test_labels=np.arange(20) % 2)
    return path


SMALL = {"image_size": 8, "workers": 1, "shard_bytes": 5 * 192}  # five pictures a file


@pytest.fixture(params=["folder", "data.tar", "data.tar.xz", "data.npz"])
def data(request, tmp_path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".npz":
        return _npz(path)
    return _fill(path, _members()) if path.suffix == "" else _tar(path, _members())


def _same(left, right) -> None:
    ids = torch.randperm(len(left), generator=torch.Generator().manual_seed(0))
    assert torch.equal(left.gather(ids), right.gather(ids))
    assert torch.equal(left.labels, right.labels)
    assert (left.class_names, left.name, left.split, left.broken) == (
        right.class_names,
        right.name,
        right.split,
        right.broken,
    )


def test_a_pack_has_the_pictures_labels_splits_and_fingerprints_of_its_data(data, tmp_path):
    make_pack(data, tmp_path / "pack", **SMALL)
    assert available_splits(tmp_path / "pack") == available_splits(data) == ("train", "test")
    for split in ("train", "test", "all"):
        plain, packed = (open_source(path, split, image_size=8) for path in (data, tmp_path / "pack"))
        _same(plain, packed)
        assert torch.equal(packed.labels_of(torch.tensor([3, 1])), plain.labels[[3, 1]])
        if split != "all":
            assert packed.fingerprint == plain.fingerprint
            assert packed.unlabelled().fingerprint == plain.unlabelled().fingerprint
    assert open_source(tmp_path / "pack", image_size=8, unlabelled=True).labels is None
    assert len(read_index(tmp_path / "pack").splits["train"].shards) > 2
    kept = {path.name.partition("-")[0] for path in (tmp_path / "pack").iterdir()}
    assert kept == {"pack.json", "train", "test", "train.labels", "test.labels"}  # nothing that only packing needs


def test_unlabelled_pictures_are_packed_as_they_are(tmp_path):
    root = _fill(tmp_path / "d", {"a/1.png": _png(1), "2.png": _png(2)})
    make_pack(root, tmp_path / "pack", unlabelled=True, **SMALL)
    source = open_source(tmp_path / "pack", image_size=8)
    assert source.labels is None
    assert source.fingerprint == open_source(root, image_size=8, unlabelled=True).fingerprint


def test_a_registered_data_set_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources_module, "_registered", {})
    images = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8)
    register_source("mine", lambda split, **_: TensorSource(images, torch.arange(30), name="mine"), splits=("train",))
    make_pack("mine", tmp_path / "pack", **SMALL)
    _same(open_source("mine", image_size=8), open_source(tmp_path / "pack", image_size=8))


def test_training_on_a_pack_sees_the_batches_of_training_in_memory(tmp_path):
    data = _npz(tmp_path / "data.npz")
    make_pack(data, tmp_path / "pack", **SMALL)
    plain, packed = (open_source(path, image_size=8) for path in (data, tmp_path / "pack"))
    for start in (0, 2):
        pairs = zip(*(Batches(s, 6, seed=1, drop_last=False).epoch(3, start) for s in (plain, packed)), strict=True)
        for left, right in pairs:
            assert torch.equal(left.rgb, right.rgb)
            assert torch.equal(left.ids, right.ids)
            assert torch.equal(left.labels, right.labels)


def test_views_of_a_pack_are_views_of_its_data(tmp_path):
    data = _npz(tmp_path / "data.npz")
    make_pack(data, tmp_path / "pack", **SMALL)
    plain, packed = (open_source(path, image_size=8) for path in (data, tmp_path / "pack"))
    first, second = torch.tensor([7, 3, 19, 0]), torch.tensor([2, 0])
    view, inner = packed.subset(first), packed.subset(first).subset(second)
    assert torch.equal(view.gather(torch.arange(4)), plain.images[first])
    assert torch.equal(inner.gather(torch.arange(2)), plain.images[first[second]])
    assert torch.equal(inner.labels, plain.labels[first[second]])
    assert len({packed.fingerprint, view.fingerprint, inner.fingerprint}) == 3
    assert view.fingerprint == open_source(tmp_path / "pack", image_size=8).subset(first).fingerprint
    for ids in (torch.tensor([20]), torch.tensor([-1])):
        with pytest.raises(ArgumentError, match="ids"):
            packed.subset(ids)
        with pytest.raises(ArgumentError, match="ids"):
            packed.gather(ids)


def test_a_pack_larger_than_memory_is_read_the_same_way(tmp_path, monkeypatch):
    data = _npz(tmp_path / "data.npz")
    make_pack(data, tmp_path / "pack", **SMALL)
    monkeypatch.setattr(pretint.data.packs, "_physical_memory", lambda: 100)
    wanted = []
    monkeypatch.setattr(pretint.data.packs.MappedShards, "_want", lambda self, found: wanted.extend(found))
    _same(open_source(data, image_size=8), open_source(tmp_path / "pack", image_size=8))
    assert len(wanted) == len(set(wanted)) == 20
    monkeypatch.undo()
    monkeypatch.setattr(pretint.data.packs, "_physical_memory", lambda: 100)
    _same(open_source(data, image_size=8), open_source(tmp_path / "pack", image_size=8))


def test_processes_pack_what_one_packs(tmp_path):
    data = _fill(tmp_path / "d", _members())
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
    data = _fill(path, _members()) if path.suffix == "" else _tar(path, _members())
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
    data = _fill(tmp_path / "d", _members())
    with monkeypatch.context() as patched:
        _Decoding(patched, stop_before=12)
        with pytest.raises(KeyboardInterrupt):
            make_pack(data, tmp_path / "pack", **SMALL)
    with pytest.raises(DataError, match="begun with other data or settings"):
        make_pack(data, tmp_path / "pack", **{**SMALL, "image_size": 16})
    make_pack(data, tmp_path / "pack", **SMALL)
    (data / "train/cat/0.png").write_bytes(_png(999))
    with pytest.raises(DataError, match="pack of other data"):
        make_pack(data, tmp_path / "pack", **SMALL)


def test_a_record_of_a_stopped_run_that_is_damaged_is_done_again(tmp_path, monkeypatch):
    data = _fill(tmp_path / "d", _members())
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
    Image.open(io.BytesIO(_png(number))).quantize(64).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["folder", "data.tar", "data.tar.xz"])
def test_gif_and_tiff_are_packed_when_asked_for_and_else_broken(tmp_path, name):
    members = {**_members(), "train/cat/a.gif": _gif(1), "test/dog/b.png": _gif(2)}
    data = _fill(tmp_path / name, members) if name == "folder" else _tar(tmp_path / name, members)
    make_pack(data, tmp_path / "plain", max_broken=0.1, **SMALL)
    make_pack(data, tmp_path / "more", extra_formats=("gif",), **SMALL)
    for split in ("train", "test"):
        plain, more = (
            open_source(data, split, image_size=8, max_broken=0.1, extra_formats=formats) for formats in ((), ("gif",))
        )
        _same(plain, open_source(tmp_path / "plain", split, image_size=8, max_broken=0.1))
        _same(more, open_source(tmp_path / "more", split, image_size=8))
        assert (len(plain.broken), len(more) - len(plain)) == (1, 1)
        assert "--extra-formats gif" in plain.broken[0]


def test_a_pack_made_with_other_formats_is_not_gone_on_with(tmp_path):
    data = _fill(tmp_path / "d", _members())
    first = make_pack(data, tmp_path / "pack", extra_formats=("tiff", "gif"), **SMALL)
    assert make_pack(data, tmp_path / "pack", extra_formats=("gif", "tiff", "gif"), **SMALL) == first
    for formats in ((), ("gif",)):
        with pytest.raises(DataError, match="made with other settings"):
            make_pack(data, tmp_path / "pack", extra_formats=formats, **SMALL)
    with pytest.raises(UnknownNameError, match="extra_formats"):
        make_pack(data, tmp_path / "other", extra_formats=("psd",), **SMALL)


def test_processes_pack_other_formats_too(tmp_path):
    data = _fill(tmp_path / "d", {f"{k}.gif": _gif(k) for k in range(12)})
    make_pack(data, tmp_path / "pack", extra_formats=("gif",), **{**SMALL, "workers": 2})
    packed, plain = (
        open_source(tmp_path / "pack", image_size=8),
        open_source(data, image_size=8, extra_formats=("gif",)),
    )
    assert torch.equal(packed.gather(torch.arange(12)), plain.images)


def test_an_archive_of_nothing_but_refused_members_is_one_sentence(tmp_path):
    data = _tar(tmp_path / "d.tar.gz", {"../a.png": _png(1)})
    for share, words in ((0.5, "are broken"), (1.0, "can be read")):
        with pytest.raises(DataError, match=words):
            make_pack(data, tmp_path / "pack", max_broken=share, **SMALL)
    assert not (tmp_path / "pack").exists()


def test_what_a_kill_at_the_very_end_leaves_is_removed_by_the_next_run(tmp_path):
    data = _fill(tmp_path / "d", _members())
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
    data, pack = _fill(tmp_path / "d", _members()), tmp_path / "pack"

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
    data = _fill(tmp_path / "d", _members())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for target, words in ((tmp_path / "mine", "other files"), (tmp_path / "mine" / "thesis.tex", "is a file")):
        with pytest.raises(DataError, match=words):
            make_pack(data, target, **SMALL)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    data = _fill(tmp_path / "d", _members())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pretint.data.packing.shutil, "disk_usage", lambda path: usage._replace(free=28 * 192))
    with pytest.raises(DataError, match=r"no room.* GB free"):
        make_pack(data, tmp_path / "deep" / "pack", **SMALL)
    assert not (tmp_path / "deep").exists()
    monkeypatch.setattr(pretint.data.packing.shutil, "disk_usage", lambda path: usage._replace(free=28 * 220))
    make_pack(data, tmp_path / "deep" / "pack", **SMALL)


@pytest.mark.parametrize(("files", "left"), [(0, False), (2, True)])
def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path, monkeypatch, files, left):
    data = _fill(tmp_path / "d", _members())
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
        **_members(),
        "train/cat/bad.png": b"<html>",
        "train/dog/empty.png": b"",
        "test/cat/cut.png": _png(3)[:60],
    }
    data = _fill(tmp_path / "d", members)
    with pytest.raises(DataError, match=r"are broken, over 1 %.*(bad|empty)\.png"):
        make_pack(data, tmp_path / "pack", **SMALL)
    make_pack(data, tmp_path / "pack", max_broken=0.2, **SMALL)
    for split in ("train", "test"):
        plain, packed = (open_source(p, split, image_size=8, max_broken=0.2) for p in (data, tmp_path / "pack"))
        _same(plain, packed)
    with pytest.raises(DataError, match="broken"):
        open_source(tmp_path / "pack", image_size=8)


def test_of_equal_files_one_stays_and_the_test_split_goes_first(tmp_path):
    members = _members(3)
    members["train/dog/copy.png"] = members["train/cat/1.png"]
    members["train/dog/leak.png"] = members["test/dog/2.png"]
    members["test/cat/broken1.png"] = members["test/cat/broken2.png"] = b""
    data = _fill(tmp_path / "d", members)
    index = make_pack(data, tmp_path / "pack", deduplicate=True, max_broken=0.5, **SMALL)
    assert {split: (part.pictures, part.duplicates) for split, part in index.splits.items()} == {
        "train": (6, 2),
        "test": (6, 0),
    }
    assert len(index.splits["test"].broken) == 2  # two unreadable files are not each other's copies
    train = open_source(tmp_path / "pack", image_size=8, max_broken=0.5)
    clean = open_source(_fill(tmp_path / "clean", _members(3)), image_size=8)
    assert torch.equal(train.gather(torch.arange(6)), clean.images)
    assert torch.equal(train.labels, clean.labels)


def test_when_only_copies_of_test_pictures_are_left_to_train_on_it_is_said(tmp_path):
    members = {f"{split}/{k}.png": _png(k) for split in ("train", "test") for k in range(3)}
    with pytest.raises(DataError, match=r"all 3 pictures of .*\(train\) are copies of test pictures"):
        make_pack(_fill(tmp_path / "d", members), tmp_path / "pack", deduplicate=True, **SMALL)
    assert not (tmp_path / "pack").exists()


@pytest.fixture
def pack(tmp_path) -> Path:
    make_pack(_fill(tmp_path / "d", _members()), tmp_path / "pack", **SMALL)
    return tmp_path / "pack"


def test_another_size_than_the_packs_is_refused(pack):
    with pytest.raises(DataError, match=r"8 px, and 32 px are asked for; use --image-size 8"):
        open_source(pack)
    with pytest.raises(DataError, match="is a pack already"):
        make_pack(pack, pack.parent / "again", **SMALL)


def test_a_pack_of_another_resize_rule_or_a_later_format_is_refused(pack):
    for key, value, words in (("resize", "nearest", "another rule"), ("format_version", 2, "update it")):
        content = json.loads((pack / "pack.json").read_text())
        content.pop("sha256")
        content[key] = value
        content["sha256"] = json_sha256(content)
        (pack / "pack.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=words):
            open_source(pack, image_size=8)


def test_a_missing_or_shortened_file_is_named_on_opening(pack):
    for name in ("train-00001.u8", "test.labels"):
        path, content = pack / name, (pack / name).read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(DataError, match=rf"{name}' has"):
            open_source(pack, image_size=8)
        path.unlink()
        with pytest.raises(DataError, match=f"{name}' is missing"):
            open_source(pack, image_size=8)
        path.write_bytes(content)
    open_source(pack, image_size=8)


def test_a_changed_byte_is_found_in_every_file(pack):
    index = read_index(pack)
    for path in sorted(pack.iterdir()):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        original = path.read_bytes()
        path.write_bytes(content)
        if path.name == "pack.json":
            with pytest.raises(DataError, match=r"index .* is damaged"):
                read_index(pack)
        else:
            assert damaged_files(pack, index) == [path.name]
        if path.name == "train.labels":
            with pytest.raises(DataError, match=r"checksum of .*train\.labels"):
                open_source(pack, image_size=8)
        path.write_bytes(original)
    assert damaged_files(pack, index) == []


def test_a_changed_byte_of_a_picture_is_found_on_opening_and_files_found_right_are_not_read_again(pack, monkeypatch):
    read, real = [], pretint.data.pack_index.file_sha256
    monkeypatch.setattr(pretint.data.pack_index, "file_sha256", lambda path: read.append(path.name) or real(path))

    def opened() -> list[str]:
        read.clear()
        open_source(pack, image_size=8, root=pack.parent / "cache")
        return sorted(read)

    names = ["train-00000.u8", "train-00001.u8", "train-00002.u8", "train.labels"]
    assert opened() == names
    assert opened() == []
    path, status = pack / "train-00001.u8", (pack / "train-00001.u8").stat()
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    for _ in range(2):
        with pytest.raises(DataError, match=r"checksum of train-00001\.u8 in the pack .* is wrong"):
            opened()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 2))
    assert opened() == names


def test_a_pack_is_opened_where_nothing_can_be_remembered(pack):
    cache = pack.parent / "cache"
    cache.write_text("a file, where a folder would have to be")
    assert len(open_source(pack, image_size=8, root=cache)) == 14


@pytest.mark.parametrize(
    "change",
    [
        {"splits": {}},
        {"splits": {"../x": {}}},
        {"splits": {"train": {"shards": [{"file": "../../etc/passwd", "pictures": 1, "sha256": "0" * 64}]}}},
        {"splits": {"train": {"shards": [{"file": "train-00000.u8", "pictures": -1, "sha256": "0" * 64}]}}},
        {"splits": []},
        {"image_size": 10**9},
        {"image_size": "8"},
        {"image_size": True},
        {"image_size": 10**4000},
        {"image_size": None},
        {"name": 7},
        {"class_names": ["cat"]},
        {"format_version": None},
        {"class_names": "cat"},
        {"format": "other"},
    ],
)
def test_a_hostile_index_is_one_sentence(pack, change):
    content = json.loads((pack / "pack.json").read_text())
    content.pop("sha256")
    content |= change
    content["sha256"] = json_sha256(content)
    (pack / "pack.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        open_source(pack, image_size=8)


def test_an_index_of_counts_beyond_reason_is_one_sentence(pack):
    for key, value in (("pictures", 10**4000), ("pictures", 10**18), ("pictures", True), ("sha256", 5), ("file", 5)):
        content = read_sealed(pack / "pack.json")
        content["splits"]["train"]["shards"][0][key] = value
        whole = (pack / "pack.json").read_bytes()
        write_sealed(pack / "pack.json", content)
        with pytest.raises(DataError):
            open_source(pack, image_size=8)
        (pack / "pack.json").write_bytes(whole)
    content = read_sealed(pack / "pack.json")
    content["splits"]["train"]["duplicates"] = -1
    write_sealed(pack / "pack.json", content)
    with pytest.raises(DataError, match="counts can't be so"):
        open_source(pack, image_size=8)


def test_an_index_over_the_limit_is_neither_read_nor_written(pack, monkeypatch):
    index = read_index(pack)
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 500)
    with pytest.raises(DataError, match="over the limit"):
        open_source(pack, image_size=8)
    monkeypatch.setattr(pretint.data.pack_index, "MAX_JSON_BYTES", 500)
    with pytest.raises(DataError, match="more than a pack's index can name"):
        pretint.data.pack_index.write_index(pack, index)


def test_what_an_index_says_is_printed_legibly(pack):
    content = read_sealed(pack / "pack.json")
    content["class_names"] = ["c\x1b[31mat", "dog"]
    content["splits"]["train"]["broken"] = ["a\nb.png: x"]
    write_sealed(pack / "pack.json", content)
    source = open_source(pack, image_size=8, max_broken=0.5)
    assert source.class_names == ("c\\x1b[31mat", "dog")
    assert source.broken == ("a\\x0ab.png: x",)


def test_class_numbers_that_the_pack_has_no_class_for_are_refused(pack):
    for number in (2, -1):
        np.full(14, number, "<i8").tofile(pack / "train.labels")
        content = read_sealed(pack / "pack.json")
        content["splits"]["train"]["labels_sha256"] = files.file_sha256(pack / "train.labels")
        write_sealed(pack / "pack.json", content)
        with pytest.raises(DataError, match="numbers classes that the pack does not have"):
            open_source(pack, image_size=8)


def test_an_index_that_is_no_json_object_is_one_sentence(pack):
    for text in ("", "[]", "{", "null", '{"format": "pretint-pack"}', "[" * 100_000):
        (pack / "pack.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            open_source(pack, image_size=8)


def test_what_is_read_is_no_memory_of_the_process(tmp_path):
    """A pass over a pack of 60 MB adds next to nothing to the anonymous memory, where a tensor of it would add all."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("/proc tells of memory on Linux only")

    def anonymous() -> int:
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("RssAnon")).split()[1]) // 1024
        )

    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), np.uint8))
    make_pack(tmp_path / "data.npz", tmp_path / "pack", image_size=32, workers=1, shard_bytes=2**23)
    batches = Batches(open_source(tmp_path / "pack"), 250, seed=0, augment="none")
    for _ in batches.epoch(0, len(batches) - 5):
        pass  # buffers of a batch
    before = anonymous()
    assert sum(len(batch.ids) for batch in batches.epoch(1)) == 20_000
    assert anonymous() - before < 6


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(DataError, match="a process was killed"):
        list(in_processes(os._exit, [1], 2))


OPENING = """
import resource
from pathlib import Path
from pretint.data import open_source
from pretint.runtime.errors import DataError
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64 if strict else most))
try:
    source = open_source(Path(pack), image_size=8)
    told = str(len(source.gather(torch.arange(200)).unique(dim=0)))
except DataError as error:
    told = str(error)
Path(out).write_text(told)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_pack_of_more_files_than_may_usually_be_open_is_read(tmp_path, child):
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    make_pack(tmp_path / "data.npz", tmp_path / "pack", **{**SMALL, "shard_bytes": 192})
    assert len(list((tmp_path / "pack").glob("*.u8"))) == 200
    for strict in (False, True):
        names = {"pack": str(tmp_path / "pack"), "out": str(tmp_path / "told.txt"), "strict": strict}
        child(OPENING, **names).join(120)
        told = (tmp_path / "told.txt").read_text()
        if strict and sys.version_info < (3, 13):
            assert "more files than this process may have open; allow more with ulimit -n" in told
        else:
            assert told == "200"


def test_the_memory_that_counts_is_that_of_a_container_where_it_is_less(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(pretint.data.packs, "_MEMORY_LIMIT", limit)
    machine = pretint.data.packs._physical_memory()
    assert machine > 2**24
    for text, expected in (("max\n", machine), (f"{2**24}\n", 2**24), (f"{2**62}\n", machine)):
        limit.write_text(text)
        assert pretint.data.packs._physical_memory() == expected


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
    (tmp_path / "d" / "00.png").write_bytes(_png(0, (1000, 1000)))  # which takes long enough to decode
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
