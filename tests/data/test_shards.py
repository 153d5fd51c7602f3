"""Tar shards can be trained from directly, in the order of every other source, or be packed."""

import gzip
import io
import json
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pretint.data.folders
import pretint.data.shard_reading
from pretint.data import Batches, available_splits, make_pack, open_source
from pretint.runtime.errors import DataError
from pretint.runtime.tensors import read_metadata, read_tensors, tensors_checksum, write_tensors


def _png(number: int) -> bytes:
    """A picture that tells its number by its colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _samples(first: int, count: int, labels: str | None = "cls") -> dict[str, bytes]:
    members = {}
    for number in range(first, first + count):
        if labels == "json":
            members[f"{number:05}.json"] = json.dumps({"cls": number % 5, "caption": "…"}).encode()
        members[f"{number:05}.png"] = _png(number)
        if labels == "cls":
            members[f"{number:05}.cls"] = str(number % 5).encode()
    return members


def _shards(root: Path, sizes=(6, 1, 9), labels: str | None = "cls", suffix: str = ".tar") -> Path:
    first = 0
    for number, size in enumerate(sizes):
        _shard(root / f"{number:06}{suffix}", _samples(first, size, labels))
        first += size
    return root


def _numbers(pictures: torch.Tensor) -> list[int]:
    return (pictures[:, 0, 0, 0].int() + 256 * pictures[:, 1, 0, 0].int()).tolist()


@pytest.mark.parametrize("labels", ["cls", "json", None])
def test_pictures_and_labels_are_those_of_the_samples(tmp_path, labels):
    source = open_source(_shards(tmp_path / "s", labels=labels), image_size=8)
    ids = torch.randperm(16)
    assert _numbers(source.gather(ids)) == ids.tolist()
    assert (source.name, source.split, source.class_names) == ("s", "train", None)
    assert source.labels is None if labels is None else torch.equal(source.labels, torch.arange(16) % 5)
    assert open_source(tmp_path / "s", image_size=8, unlabelled=True).labels is None
    assert source.gather(ids[:0]).shape == (0, 3, 8, 8)


def test_an_epoch_shows_every_picture_once_in_a_new_order_and_goes_on_in_the_middle(tmp_path):
    source = open_source(_shards(tmp_path / "s"), image_size=8)
    batches = Batches(source, 5, seed=2, augment="none", drop_last=False)
    orders = [[n for batch in batches.epoch(epoch) for n in _numbers(batch.rgb)] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(16))
    assert orders[0] != orders[1]
    assert [n for batch in batches.epoch(1, 2) for n in _numbers(batch.rgb)] == orders[1][10:]
    assert all(torch.equal(batch.labels, batch.ids % 5) for batch in batches.epoch(0))


def test_splits_are_sub_folders_of_shards(tmp_path):
    _shards(tmp_path / "s" / "train", (4, 4))
    _shards(tmp_path / "s" / "val", (3,))
    assert available_splits(tmp_path / "s") == ("train", "test")
    assert [len(open_source(tmp_path / "s", split, image_size=8)) for split in ("train", "test", "all")] == [8, 3, 11]
    with pytest.raises(DataError, match="no 'test' pictures"):
        open_source(tmp_path / "s" / "train", "test", image_size=8)


def test_a_folder_of_pictures_with_an_archive_beside_them_stays_one_of_pictures(tmp_path):
    _shard(tmp_path / "d" / "download.tar", _samples(0, 3))
    (tmp_path / "d" / "cat").mkdir()
    (tmp_path / "d" / "cat" / "a.png").write_bytes(_png(9))
    assert len(open_source(tmp_path / "d", image_size=8)) == 1


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("deduplicate", [False, True])
def test_packed_shards_have_the_same_pictures(tmp_path, suffix, deduplicate):
    shards = _shards(tmp_path / "s", suffix=suffix)
    if deduplicate:
        again = {f"a/{name}": content for name, content in _samples(3, 4).items()}
        _shard(tmp_path / "s" / f"000007{suffix}", again)
    make_pack(shards, tmp_path / "pack", image_size=8, workers=1, deduplicate=deduplicate)
    packed = open_source(tmp_path / "pack", image_size=8)
    assert _numbers(packed.gather(torch.arange(16))) == list(range(16))
    assert torch.equal(packed.labels, torch.arange(16) % 5)


def test_compressed_shards_are_to_be_packed(tmp_path):
    with pytest.raises(DataError, match=r"is compressed.*pretint data pack"):
        open_source(_shards(tmp_path / "s", suffix=".tar.gz"), image_size=8)


def test_the_index_is_made_once_and_anew_when_it_is_damaged_or_a_shard_has_changed(tmp_path, monkeypatch):
    made = []
    real = pretint.data.shard_reading.list_shard
    monkeypatch.setattr(
        pretint.data.shard_reading, "list_shard", lambda *a, **k: made.append(a[0].name) or real(*a, **k)
    )
    shards, root = _shards(tmp_path / "s"), tmp_path / "cache"

    def opened() -> tuple[str, int]:
        made.clear()
        source = open_source(shards, root=root, image_size=8)
        assert _numbers(source.gather(torch.arange(len(source)))) == list(range(len(source)))
        return source.fingerprint, len(made)

    first, count = opened()
    assert count == 3
    assert opened() == (first, 0)
    (path,) = (root / "indices").iterdir()
    content = bytearray(path.read_bytes())
    for position in (3, len(content) - 9):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert opened() == (first, 3)
    _shard(shards / "000003.tar", _samples(16, 2))
    second, count = opened()
    assert count == 4
    assert second != first


def test_a_broken_picture_is_named_and_the_next_of_its_class_takes_its_place(tmp_path):
    members = _samples(0, 16)
    members["00003.png"] = b"<html>"
    _shard(tmp_path / "s" / "0.tar", members)
    source = open_source(tmp_path / "s", image_size=8, max_broken=0.1)
    with pytest.warns(UserWarning, match=r"broken picture is skipped: 0\.tar at byte"):
        pictures = source.gather(torch.tensor([2, 3, 4]))
    assert _numbers(pictures) == [2, 8, 4]
    assert [line.split(": ")[1] for line in source.broken] == ["not a picture in JPEG, PNG, WEBP, BMP form"]
    with warnings.catch_warnings(action="error"):  # it is known by now
        assert _numbers(source.subset(torch.tensor([3])).gather(torch.tensor([0]))) == [8]
    assert len(source.broken) == 1


@pytest.mark.filterwarnings("ignore:a broken picture")
def test_the_next_picture_of_a_class_is_found_however_far_away(tmp_path, monkeypatch):
    """Of 3,000 pictures only the first and the last are of one class."""
    monkeypatch.setattr(pretint.data.shard_reading, "_BLOCK", 700)
    members: dict[str, bytes] = {}
    for number in range(3000):
        members |= {f"{number:05}.png": _png(number), f"{number:05}.cls": str(number % 2999).encode()}
    for pair, other in ((0, 2999), (2999, 0)):
        _shard(tmp_path / str(pair) / "0.tar", {**members, f"{pair:05}.png": b"<html>", "00005.png": b""})
        source = open_source(tmp_path / str(pair), image_size=8)
        assert _numbers(source.gather(torch.tensor([1, pair, 7]))) == [1, other, 7]
        with pytest.raises(DataError, match=r"no picture of class 5 behind number 5 .* can be read"):
            source.gather(torch.tensor([5]))


def test_many_shards_are_listed_by_several_processes(tmp_path):
    source = open_source(_shards(tmp_path / "s", [2, 0, 3, *[1] * 14]), image_size=8)
    assert _numbers(source.gather(torch.arange(19))) == list(range(19))
    assert torch.equal(source.labels, torch.arange(19) % 5)


@pytest.mark.filterwarnings("ignore:a broken picture")
def test_too_many_broken_pictures_stop_the_run(tmp_path):
    members = {**_samples(0, 16), "00003.png": b"<html>", "00005.png": b"", "00006.png": _png(6)[:40]}
    _shard(tmp_path / "s" / "0.tar", members)
    source = open_source(tmp_path / "s", image_size=8, max_broken=0.1)
    with pytest.raises(DataError, match="are broken, over 10 %"):
        source.gather(torch.arange(16))
    with pytest.raises(DataError, match="are broken, over 10 %"):
        list(Batches(source, 4, seed=0).epoch(0))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": _png(1), "a.cls": b"cat", "b.png": _png(2)}, "no class number"),
        ({"a.png": _png(1), "a.cls": b"-1"}, "no class number"),
        ({"a.png": _png(1), "a.json": b'{"cls": 1.5}'}, "no class number"),
        ({"a.png": _png(1), "a.json": b"{"}, "no class number"),
        ({"a.png": _png(1), "a.json": b'{"cls": 1e999}'}, "no class number"),
        ({"a.png": _png(1), "a.json": b'{"label": ' + b"[" * 60_000}, "no class number"),
        ({"a.png": _png(1), "a.cls": b"9" * 5000}, "no class number"),
        ({"a.png": _png(1), "a.cls": b"1" + bytes(2**16)}, r"no class number from 0 \(65537 bytes"),
        ({"a.png": _png(1), "a.cls": b"1", "b.png": _png(2)}, r"'b\.png' .*has no \.cls"),
        ({"a.txt": b"1"}, "hold no picture"),
    ],
)
def test_shards_without_clear_labels_or_pictures_are_one_sentence(tmp_path, members, words):
    _shard(tmp_path / "s" / "0.tar", members)
    with pytest.raises(DataError, match=words):
        open_source(tmp_path / "s", image_size=8)
    if "a.png" in members:
        assert len(open_source(tmp_path / "s", image_size=8, unlabelled=True)) >= 1


def test_hostile_members_are_refused_and_damaged_shards_are_named(tmp_path):
    path = _shard(tmp_path / "s" / "0.tar", {**_samples(0, 30), "../out.png": _png(1)})
    source = open_source(tmp_path / "s", image_size=8, max_broken=0.1)
    assert (len(source), len(source.broken)) == (30, 1)
    assert "leads out" in source.broken[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"0\.tar' (is damaged|ends)"):
        open_source(tmp_path / "s", image_size=8, max_broken=0.1)
    with pytest.raises(DataError, match=r"0\.tar' (is damaged|ends)"):
        source.gather(torch.tensor([29]))


def _header(name: str, size: int) -> bytes:
    """A header that claims any size, below zero too."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize(
    ("name", "size"),
    [("b.png", 2**62), ("b.png", 2**80), ("b.cls", 2**40), ("b.cls", 2**80), ("b.png", -1024), ("b.cls", -1024)],
)
def test_headers_that_claim_absurd_sizes_are_refused(tmp_path, suffix, name, size):
    path = _shard(tmp_path / "s" / f"0{suffix}", {})
    with (gzip.open if suffix == ".tar.gz" else open)(path, "wb") as file:
        file.write(tarfile.TarInfo("a.png").tobuf() + _header(name, size) + bytes(10_240))
    with pytest.raises(DataError, match=r"damaged|no class number"):
        make_pack(path.parent, tmp_path / "pack", image_size=8, workers=1)
    if suffix == ".tar":
        with pytest.raises(DataError, match=r"damaged|no class number"):
            open_source(path.parent, image_size=8)


def test_a_shard_that_unpacks_to_far_more_than_pictures_do_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pretint.data.folders, "_BOMB_BYTES", 2**20)
    path = _shard(tmp_path / "s" / "0.tar.gz", {**_samples(0, 3), "zeros.bin": bytes(2**23), "zz.txt": b""})
    assert path.stat().st_size * 200 < 2**23
    with pytest.raises(DataError, match=r"0\.tar\.gz' is damaged \(it unpacks to more than"):
        make_pack(path.parent, tmp_path / "pack", image_size=8, workers=1)
    assert not (tmp_path / "pack").exists()


@pytest.mark.filterwarnings("ignore:a broken picture")
def test_the_same_header_over_and_over_is_a_broken_picture_each_time(tmp_path):
    (tmp_path / "s").mkdir()
    empty = tarfile.TarInfo("a.png").tobuf()
    (tmp_path / "s" / "0.tar").write_bytes(empty * 50 + bytes(10_240))
    with pytest.raises(DataError, match=r"no picture .* can be read"):
        open_source(tmp_path / "s", image_size=8, max_broken=1.0).gather(torch.tensor([0]))


def test_a_compressed_shard_that_is_cut_or_damaged_anywhere_is_named(tmp_path):
    """Inside a label too, whose content is read while the headers are."""
    noise = {f"{k}.cls": str(k).encode() * 1000 for k in range(3)}
    path = _shard(tmp_path / "s" / "0.tar.gz", {**_samples(0, 20), **noise})
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(40, len(content), 40):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        for damaged in (bytes(flipped), content[:position]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"0\.tar\.gz'"):
                make_pack(path.parent, tmp_path / "pack", image_size=8, workers=1)


def test_labels_outside_of_the_shard_are_not_read_and_odd_names_are_legible(tmp_path):
    members = {"a.png": _png(1), "../a.cls": b"3", "\x1b[31m\n.png": b"<html>", "../\x1b.png": b""}
    _shard(tmp_path / "s" / "0.tar", members)
    source = open_source(tmp_path / "s", image_size=8, max_broken=0.9)
    assert source.labels is None
    with pytest.warns(UserWarning, match="not a picture"):
        source.gather(torch.arange(2))
    assert len(source.broken) == 2
    make_pack(tmp_path / "s", tmp_path / "pack", image_size=8, workers=1, max_broken=0.9)
    packed = open_source(tmp_path / "pack", image_size=8, max_broken=0.9)
    assert packed.broken[1].startswith("0.tar/\\x1b[31m\\x0a.png: ")
    assert all(line.isprintable() for line in (*source.broken, *packed.broken))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX's")
def test_a_pipe_called_like_a_shard_is_not_waited_for(tmp_path):
    _shards(tmp_path / "s")
    os.mkfifo(tmp_path / "s" / "000009.tar")
    with pytest.raises(DataError, match=r"000009\.tar' is no file"):
        open_source(tmp_path / "s", image_size=8)


def test_a_cached_index_of_other_places_than_pictures_have_is_made_anew(tmp_path):
    shards, root = _shards(tmp_path / "s"), tmp_path / "cache"
    open_source(shards, root=root, image_size=8)
    (path,) = (root / "indices").iterdir()
    whole, facts = read_tensors(path), read_metadata(path)
    for name, change in (
        ("places", lambda x: x * 2**40), ("places", lambda x: -x), ("places", torch.flatten), ("places", lambda x: x.float()),
        ("starts", lambda x: x + 1), ("starts", lambda x: x.flip(0)), ("starts", lambda x: x[1:]), ("labels", lambda x: x - 9),
        ("labels", lambda x: x[1:]),
    ):  # fmt: skip
        tensors = {**whole, name: change(whole[name].clone())}
        write_tensors(path, tensors, {**facts, "sha256": tensors_checksum(tensors)})
        source = open_source(shards, root=root, image_size=8)
        assert _numbers(source.gather(torch.arange(16))) == list(range(16))
        assert torch.equal(source.labels, torch.arange(16) % 5)


def test_other_formats_are_read_from_shards_when_asked_for(tmp_path):
    gif = io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    _shard(tmp_path / "s" / "0.tar", {**_samples(1, 9, None), "10.gif": gif.getvalue()})
    plain, more = (
        open_source(tmp_path / "s", image_size=8, max_broken=0.5, extra_formats=formats) for formats in ((), ("gif",))
    )
    assert _numbers(more.gather(torch.tensor([9, 0]))) == [0, 1]
    assert more.broken == ()
    with pytest.warns(UserWarning, match="--extra-formats gif"):
        assert _numbers(plain.gather(torch.tensor([9, 0]))) == [1, 1]
    assert plain.fingerprint != more.fingerprint
    make_pack(tmp_path / "s", tmp_path / "pack", image_size=8, workers=1, extra_formats=("gif",))
    assert _numbers(open_source(tmp_path / "pack", image_size=8).gather(torch.tensor([9, 0]))) == [0, 1]


def test_what_shards_are_read_with_agrees_with_a_folder_of_the_same_pictures(tmp_path):
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(4)]
    members = {}
    (tmp_path / "d").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "d" / f"{number}.jpg")
        members[f"{number}.jpg"] = (tmp_path / "d" / f"{number}.jpg").read_bytes()
    _shard(tmp_path / "s" / "0.tar", members)
    folder, shards = (open_source(tmp_path / name, image_size=16) for name in ("d", "s"))
    assert torch.equal(folder.images, shards.gather(torch.arange(4)))
