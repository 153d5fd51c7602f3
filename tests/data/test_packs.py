"""A pack gives the pictures that it was made of, or says which file is wrong."""

import json
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

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
from pretint.runtime import files
from pretint.runtime.errors import ArgumentError, DataError
from pretint.runtime.sealed import json_sha256, read_sealed, write_sealed

from .conftest import SMALL, assert_same, fill_folder, members_of_two_classes, png, write_npz, write_tar


@pytest.fixture(params=["folder", "data.tar", "data.tar.xz", "data.npz"])
def data(request, tmp_path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".npz":
        return write_npz(path)
    return (
        fill_folder(path, members_of_two_classes()) if path.suffix == "" else write_tar(path, members_of_two_classes())
    )


def test_a_pack_has_the_pictures_labels_splits_and_fingerprints_of_its_data(data, tmp_path):
    make_pack(data, tmp_path / "pack", **SMALL)
    assert available_splits(tmp_path / "pack") == available_splits(data) == ("train", "test")
    for split in ("train", "test", "all"):
        plain, packed = (open_source(path, split, image_size=8) for path in (data, tmp_path / "pack"))
        assert_same(plain, packed)
        assert torch.equal(packed.labels_of(torch.tensor([3, 1])), plain.labels[[3, 1]])
        if split != "all":
            assert packed.fingerprint == plain.fingerprint
            assert packed.unlabelled().fingerprint == plain.unlabelled().fingerprint
    assert open_source(tmp_path / "pack", image_size=8, unlabelled=True).labels is None
    assert len(read_index(tmp_path / "pack").splits["train"].shards) > 2
    kept = {path.name.partition("-")[0] for path in (tmp_path / "pack").iterdir()}
    assert kept == {"pack.json", "train", "test", "train.labels", "test.labels"}  # nothing that only packing needs


def test_unlabelled_pictures_are_packed_as_they_are(tmp_path):
    root = fill_folder(tmp_path / "d", {"a/1.png": png(1), "2.png": png(2)})
    make_pack(root, tmp_path / "pack", unlabelled=True, **SMALL)
    source = open_source(tmp_path / "pack", image_size=8)
    assert source.labels is None
    assert source.fingerprint == open_source(root, image_size=8, unlabelled=True).fingerprint


def test_a_registered_data_set_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources_module, "_registered", {})
    images = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8)
    register_source("mine", lambda split, **_: TensorSource(images, torch.arange(30), name="mine"), splits=("train",))
    make_pack("mine", tmp_path / "pack", **SMALL)
    assert_same(open_source("mine", image_size=8), open_source(tmp_path / "pack", image_size=8))


def test_training_on_a_pack_sees_the_batches_of_training_in_memory(tmp_path):
    data = write_npz(tmp_path / "data.npz")
    make_pack(data, tmp_path / "pack", **SMALL)
    plain, packed = (open_source(path, image_size=8) for path in (data, tmp_path / "pack"))
    for start in (0, 2):
        pairs = zip(*(Batches(s, 6, seed=1, drop_last=False).epoch(3, start) for s in (plain, packed)), strict=True)
        for left, right in pairs:
            assert torch.equal(left.rgb, right.rgb)
            assert torch.equal(left.ids, right.ids)
            assert torch.equal(left.labels, right.labels)


def test_views_of_a_pack_are_views_of_its_data(tmp_path):
    data = write_npz(tmp_path / "data.npz")
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
    data = write_npz(tmp_path / "data.npz")
    make_pack(data, tmp_path / "pack", **SMALL)
    monkeypatch.setattr(pretint.data.packs, "_physical_memory", lambda: 100)
    wanted = []
    monkeypatch.setattr(pretint.data.packs.MappedShards, "_want", lambda self, found: wanted.extend(found))
    assert_same(open_source(data, image_size=8), open_source(tmp_path / "pack", image_size=8))
    assert len(wanted) == len(set(wanted)) == 20
    monkeypatch.undo()
    monkeypatch.setattr(pretint.data.packs, "_physical_memory", lambda: 100)
    assert_same(open_source(data, image_size=8), open_source(tmp_path / "pack", image_size=8))


@pytest.fixture
def pack(tmp_path) -> Path:
    make_pack(fill_folder(tmp_path / "d", members_of_two_classes()), tmp_path / "pack", **SMALL)
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
    """A pass over a pack of 154 MB adds next to nothing to the anonymous memory, where a tensor of it would add all."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("/proc tells of memory on Linux only")

    def anonymous() -> int:
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("RssAnon")).split()[1]) // 1024
        )

    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8))
    make_pack(tmp_path / "data.npz", tmp_path / "pack", image_size=32, workers=1, shard_bytes=2**23)
    batches = Batches(open_source(tmp_path / "pack"), 250, seed=0, augment="none")
    for _ in batches.epoch(0, len(batches) - 5):
        pass  # buffers of a batch
    before = anonymous()
    assert sum(len(batch.ids) for batch in batches.epoch(1)) == 50_000
    assert anonymous() - before < 15  # a tenth; buffers come and go by some megabytes


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are touched one by one")
def test_pages_are_touched_ahead_of_the_pictures_on_them(tmp_path, monkeypatch):
    """Files are touched piece by piece, in order, to their ends, and pictures are right where the system refuses it."""
    np.savez(tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8))
    make_pack(tmp_path / "data.npz", tmp_path / "p", image_size=32, workers=1, shard_bytes=20 * 3072)
    assert len(read_index(tmp_path / "p").splits["train"].shards) == 4
    monkeypatch.setattr(pretint.data.packs, "_PIECE", 2 * mmap.PAGESIZE)
    touched = []

    class Map(mmap.mmap):
        def madvise(self, option, start=0, length=None):
            touched.append((option, len(self), start, length))
            return super().madvise(option, start, length)

    monkeypatch.setattr(pretint.data.packs.mmap, "mmap", Map)
    for option in (pretint.data.packs._POPULATE_READ, 9999):
        touched.clear()
        monkeypatch.setattr(pretint.data.packs, "_POPULATE_READ", option)
        source = open_source(tmp_path / "p", image_size=32)
        assert not touched
        expected = open_source(tmp_path / "data.npz", image_size=32).images
        first = source.gather(torch.tensor([63, 0]))
        assert torch.equal(first, expected[[63, 0]])
        assert len(touched) == 4  # one, and four times as many bytes as the pictures have
        assert torch.equal(source.gather(torch.arange(64)), expected)
        assert touched == [
            (option, length, start, min(2 * mmap.PAGESIZE, length - start))
            for length in (20 * 3072, 20 * 3072, 20 * 3072, 4 * 3072)
            for start in range(0, length, 2 * mmap.PAGESIZE)
        ]


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
