"""Folders and tar archives of pictures, honest, damaged and hostile, give the same pictures or one clear sentence."""

import contextlib
import io
import lzma
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretint.data import available_splits, folders, open_source
from pretint.runtime.errors import ArgumentError, DataError

from .conftest import fill_folder, png, write_tar


def _png(number: int) -> bytes:
    """A picture that tells its number by its colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 255 - number, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _fill(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_png(number))
    return root


def _numbers(source) -> list[int]:
    return source.images[:, 0, 0, 0].tolist()


SPLIT = ["train/cat/b.png", "train/cat/a.png", "train/dog/c.png", "test/dog/d.png", "test/emu/e.png"]


@pytest.fixture(params=["folder", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2", "packed as one folder"])
def split_data(request, tmp_path) -> Path:
    """The same pictures as a folder and in every kind of archive."""
    if request.param == "folder":
        return _fill(tmp_path / "data", SPLIT)
    prefix, suffix = ("./animals/", ".tar") if request.param.startswith("packed") else ("", request.param)
    return write_tar(tmp_path / f"data{suffix}", {prefix + name: _png(k) for k, name in enumerate(SPLIT)})


def test_splits_classes_and_order_are_recognised(split_data):
    assert available_splits(str(split_data)) == ("train", "test")
    train, test, everything = (open_source(str(split_data), split, image_size=8) for split in ("train", "test", "all"))
    assert train.class_names == test.class_names == ("cat", "dog", "emu")
    assert (_numbers(train), train.labels.tolist()) == ([1, 0, 2], [0, 0, 1])
    assert (_numbers(test), test.labels.tolist()) == ([3, 4], [1, 2])
    assert (_numbers(everything), everything.labels.tolist()) == ([1, 0, 2, 3, 4], [0, 0, 1, 1, 2])
    assert everything.split == "all"


def test_unlabelled_pictures_keep_their_order(split_data):
    source = open_source(split_data, "train", image_size=8, unlabelled=True)
    assert source.labels is None
    assert source.class_names is None
    assert _numbers(source) == [1, 0, 2]


def test_reading_an_archive_writes_nothing(split_data, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    open_source(split_data, "all")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_and_its_archive_have_one_fingerprint(tmp_path):
    folder = _fill(tmp_path / "data", SPLIT)
    with tarfile.open(tmp_path / "data.tar.xz", "w:xz") as tar:
        tar.add(folder, "data")
    assert open_source(folder).fingerprint == open_source(tmp_path / "data.tar.xz").fingerprint


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/a/1.png"], ("train",)),
        (["train/a/1.png", "val/a/2.png"], ("train", "test")),
        (["test/a/1.png", "val/a/2.png"], ("test",)),
        (["cat/1.png", "dog/2.png"], ("train",)),
        (["cat/1.png", "test/2.png"], ("train",)),  # a class that happens to be called so
        (["1.png", "2.png"], ("train",)),
    ],
)
def test_what_counts_as_a_split(tmp_path, names, splits):
    assert available_splits(_fill(tmp_path, names)) == splits


def test_test_goes_before_val(tmp_path):
    source = open_source(_fill(tmp_path, ["train/a/0.png", "val/a/1.png", "test/a/2.png"]), "test", image_size=8)
    assert _numbers(source) == [2]


def test_a_flat_folder_has_no_labels(tmp_path):
    source = open_source(_fill(tmp_path, ["b.png", "a.png"]), image_size=8)
    assert source.labels is None
    assert _numbers(source) == [1, 0]


def test_classes_may_be_nested_and_hold_other_files(tmp_path):
    _fill(tmp_path, ["cat/x/1.png", "cat/2.png", "dog/3.PNG", "dog/.hidden.png", "dog/._3.png", ".git/4.png"])
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    source = open_source(tmp_path, image_size=8)
    assert source.labels.tolist() == [0, 0, 1]
    assert source.broken == ()


def test_labelled_and_stray_pictures_together_are_refused_unless_unlabelled(tmp_path):
    _fill(tmp_path, ["cat/1.png", "stray.png"])
    with pytest.raises(DataError, match=r"stray\.png"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, unlabelled=True)) == 2


def test_a_split_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no 'test' pictures.*test or val/"):
        open_source(_fill(tmp_path, ["cat/1.png", "dog/1.png"]), "test")


def test_an_empty_folder_and_an_empty_archive_say_what_is_needed(tmp_path):
    (tmp_path / "empty").mkdir()
    for spec in (
        tmp_path / "empty",
        write_tar(tmp_path / "empty.tar", {}),
        write_tar(tmp_path / "t.tar", {"a.txt": b"x"}),
    ):
        with pytest.raises(DataError, match="holds no picture"):
            open_source(spec)


def test_a_link_that_leads_to_itself_does_not_hide_the_pictures_beside_it(tmp_path):
    root = fill_folder(tmp_path / "d", {"1.png": png(1), "2.png": png(2)})
    (root / "loop").symlink_to("loop")
    assert len(open_source(root, image_size=8, unlabelled=True)) == 2


def test_links_to_folders_are_followed_but_never_in_circles(tmp_path):
    _fill(tmp_path / "elsewhere", ["1.png"])
    _fill(tmp_path / "data", ["cat/0.png"])
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "round").symlink_to(tmp_path / "data")
    source = open_source(tmp_path / "data", image_size=8)
    assert source.class_names == ("cat", "dog")
    assert len(source) == 2


BROKEN = {
    "empty.jpg": b"",
    "page.jpg": b"<html>not found</html>",
    "half.png": _png(3)[:40],
}


def _with_broken(root: Path, good: int) -> Path:
    _fill(root, [f"cat/{k:04}.png" for k in range(good)])
    for name, content in BROKEN.items():
        (root / "cat" / name).write_bytes(content)
    (root / "cat" / "loop 猫.jpg").symlink_to("loop 猫.jpg")
    os.mkfifo(root / "cat" / "pipe.jpg")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_broken_files_are_skipped_counted_and_listed(tmp_path, packed):
    root = _with_broken(tmp_path / "data", 10)
    if packed:
        with tarfile.open(tmp_path / "data.tar", "w") as tar:
            tar.add(root, "data")
        root = tmp_path / "data.tar"
    source = open_source(root, image_size=8, max_broken=0.5)
    assert _numbers(source) == list(range(10))
    assert source.labels.tolist() == [0] * 10
    names = ["empty.jpg", "half.png", "loop 猫.jpg", "page.jpg", "pipe.jpg"]
    assert [line.split(": ", 1)[0] for line in source.broken] == [f"cat/{name}" for name in names]
    assert "empty" in source.broken[0]


def test_more_broken_files_than_allowed_stop_the_reading_and_are_named(tmp_path):
    root = _with_broken(tmp_path, 95)  # 5 of 100 are broken
    assert len(open_source(root, image_size=8, max_broken=0.05).broken) == 5
    with pytest.raises(DataError, match=r"of 100 pictures.*over 4 %.*cat/empty\.jpg: the file is empty.*--max-broken"):
        open_source(root, image_size=8, max_broken=0.04)
    with pytest.raises(DataError, match="over 1 %"):
        open_source(root, image_size=8)


def test_nothing_but_broken_files_is_an_error_whatever_is_allowed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a\.jpg"):
        open_source(tmp_path, max_broken=1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_listed(tmp_path):
    _fill(tmp_path, ["1.png", "2.png"])
    (tmp_path / "2.png").chmod(0)
    assert "Permission" in open_source(tmp_path, max_broken=0.5).broken[0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(ArgumentError, match="max_broken"):
        open_source(_fill(tmp_path, ["1.png"]), max_broken=share)


def test_large_pictures_are_decoded_in_threads_with_equal_result(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (200, 96, 96, 3), dtype=np.uint8)
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{k:03}.png")
    (tmp_path / "100.png").write_bytes(b"broken")
    assert (tmp_path / "000.png").stat().st_size > 16 * 2**10
    with warnings.catch_warnings(record=True) as caught:
        source = open_source(tmp_path, image_size=96, max_broken=0.01)
    assert not caught
    kept = np.delete(pictures, 100, axis=0).transpose(0, 3, 1, 2)
    assert torch.equal(source.images, torch.from_numpy(np.ascontiguousarray(kept)))
    assert len(source.broken) == 1


def _hostile_tar(path: Path) -> Path:
    def add(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        content = _png(9) if kind == tarfile.REGTYPE else b""
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    with tarfile.open(path, "w") as tar:
        add(tar, "cat/good.png")
        add(tar, "/tmp/absolute.png")
        add(tar, "cat/../../outside.png")
        add(tar, "cat/soft.png", tarfile.SYMTYPE, "/etc/passwd")
        add(tar, "cat/hard.png", tarfile.LNKTYPE, "cat/good.png")
        add(tar, "cat/device.png", tarfile.CHRTYPE)
        add(tar, "cat/fifo.png", tarfile.FIFOTYPE)
    return path


def test_hostile_members_are_listed_and_nothing_is_written(tmp_path):
    archive = _hostile_tar(tmp_path / "x.tar")
    source = open_source(archive, image_size=8, max_broken=0.9)
    assert _numbers(source) == [9]
    assert len(source.broken) == 6
    assert sum("leads out" in line for line in source.broken) == 2
    assert sum("link, device" in line for line in source.broken) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]
    with pytest.raises(DataError, match="broken"):
        open_source(archive)


def test_a_member_over_the_size_limit_is_refused_unread(tmp_path):
    # 70 MB of zeros, 10 KB packed.
    archive = write_tar(tmp_path / "bomb.tar.xz", {"cat/bomb.png": bytes(70 * 2**20), "cat/good.png": _png(1)})
    assert archive.stat().st_size < 50_000
    source = open_source(archive, image_size=8, max_broken=0.5)
    assert "over the limit" in source.broken[0]
    assert _numbers(source) == [1]


def _members(n: int = 40) -> dict[str, bytes]:
    return {f"cat/{k:03}.png": _png(k) for k in range(n)}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_a_truncated_archive_is_named(tmp_path, suffix):
    path = write_tar(tmp_path / f"x{suffix}", _members())
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        cut = tmp_path / f"cut{share}{suffix}"
        cut.write_bytes(content[: int(len(content) * share * (0.7 if suffix == ".tar" else 1))])
        with pytest.raises(DataError, match=r"archive .*cut.* is damaged"):
            open_source(cut)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".tar.bz2"])
def test_any_flipped_byte_in_a_compressed_archive_is_noticed(tmp_path, suffix):
    path = write_tar(tmp_path / f"x{suffix}", _members())
    content = path.read_bytes()
    clean, unnoticed = open_source(path, image_size=8).fingerprint, 0
    first = 40 if suffix == ".tar.gz" else 0  # gzip does not check the file name and time in its own header
    for position in np.random.default_rng(0).integers(first, len(content), 40):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        damaged = tmp_path / f"flipped-{position}{suffix}"
        damaged.write_bytes(flipped)
        with contextlib.suppress(DataError):
            # bzip2 has a few bits of padding, on which nothing depends
            assert open_source(damaged, image_size=8).fingerprint == clean
            unnoticed += 1
    assert unnoticed <= 2


def test_a_flipped_byte_in_a_plain_tar_header_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "x.tar", _members())
    content = bytearray(path.read_bytes())
    content[1024 * 20 + 3] ^= 0x10  # each member takes a header block and a data block
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged \(no valid header"):
        open_source(path)


def test_headers_that_claim_gigabytes_or_point_backwards_are_refused(tmp_path):
    long = tarfile.TarInfo("cat/x.png")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**40
    back = tarfile.TarInfo("cat/x.png")
    back.size = 0
    backwards = bytearray(back.tobuf(tarfile.GNU_FORMAT))
    backwards[124:136] = b"\xff" * 8 + (-1024).to_bytes(4, "big", signed=True)
    backwards[148:156] = b"%06o\0 " % (sum(backwards[:148]) + 8 * 32 + sum(backwards[156:]))
    for name, header in (("long", long.tobuf(tarfile.GNU_FORMAT)), ("back", bytes(backwards))):
        path = tmp_path / f"{name}.tar"
        path.write_bytes(header + bytes(4096))
        with pytest.raises(DataError, match="damaged"):
            open_source(path)


def test_random_bytes_under_an_archive_name_are_one_sentence(tmp_path):
    random = np.random.default_rng(0)
    for suffix in (".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".tgz"):
        for size in (0, 100, 10_000):
            path = tmp_path / f"r{size}{suffix}"
            path.write_bytes(random.bytes(size))
            with pytest.raises(DataError, match="damaged"):
                open_source(path)
    (tmp_path / "noise.tar.xz").write_bytes(lzma.compress(random.bytes(10_000)))
    with pytest.raises(DataError, match="damaged"):
        open_source(tmp_path / "noise.tar.xz")


def test_a_bomb_or_a_cut_archive_is_refused_when_it_is_decompressed_whole(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar.gz", {"cat/zeros.bin": bytes(2**22), "cat/a.png": _png(1)})
    assert sum(map(len, folders.read_whole(path))) > 2**22
    monkeypatch.setattr(folders, "_BOMB_BYTES", 2**16)
    monkeypatch.setattr(folders, "_MAX_TRAILING_BYTES", 2**16)
    with pytest.raises(DataError, match="unpacks to more than"):
        list(folders.read_whole(path))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="damaged"):
        list(folders.read_whole(path))


def test_a_changed_archive_is_listed_anew(tmp_path):
    path = write_tar(tmp_path / "x.tar", _members(3))
    assert len(open_source(path, image_size=8)) == 3
    write_tar(path, _members(5))
    assert len(open_source(path, image_size=8)) == 5


def test_the_later_of_two_members_with_one_name_counts(tmp_path):
    path = tmp_path / "x.tar"
    for number in (1, 2):
        with tarfile.open(path, "a") as tar:
            info = tarfile.TarInfo("a.png")
            info.size = len(_png(number))
            tar.addfile(info, io.BytesIO(_png(number)))
    assert _numbers(open_source(path, image_size=8)) == [2]
