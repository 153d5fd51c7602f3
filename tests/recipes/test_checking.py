"""`pretint data check` says what is wrong with a data set, and its exit code whether it can be trained on."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretint.cli import main
from pretint.data import make_pack
from pretint.recipes import DataCheckConfig, check_data
from pretint.runtime.errors import ArgumentError, DataError


def _picture(seed: int, size: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """A data set with one of each flaw; 290 pictures to train on, 5 to test."""
    root = tmp_path / "data"
    for split, name, count in (
        ("train", "cat", 275),
        ("train", "dog", 14),
        ("train", "emu", 1),
        ("test", "cat", 3),
        ("test", "fox", 2),
    ):
        folder = root / split / name
        folder.mkdir(parents=True)
        for number in range(count):
            _picture(1000 * len(split) + 10 * number + ord(name[0]), 33).save(folder / f"{number:03}.png")
    first = root / "train" / "cat" / "000.png"
    Image.open(first).save(root / "train" / "dog" / "again.png", compress_level=0)  # other bytes, the same picture
    Image.open(first).save(root / "test" / "cat" / "leak.bmp")
    _picture(1).convert("L").save(root / "train" / "cat" / "grey.png")
    _picture(2, 20).save(root / "train" / "cat" / "small.png")
    (root / "train" / "cat" / "empty.jpg").write_bytes(b"")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_every_flaw_is_listed(flawed: Path, tmp_path: Path, packed: bool):
    data = flawed
    if packed:
        data = tmp_path / "data.tar.gz"
        with tarfile.open(data, "w:gz") as tar:
            tar.add(flawed, "data")
    before = sorted(tmp_path.rglob("*"))
    outcome = check_data(DataCheckConfig(data=str(data)))
    found = outcome.results
    train, test = found["splits"]["train"], found["splits"]["test"]
    assert outcome.code == 0  # 1 of 294 files is broken, under 1 %
    assert (train["pictures"], test["pictures"]) == (293, 6)
    assert train["classes"] == {"cat": 277, "dog": 15, "emu": 1, "fox": 0}
    assert train["broken"] == ["train/cat/empty.jpg: the file is empty"]
    assert (train["smallest"], train["largest"]) == ([20, 20], [40, 40])
    assert train["grey"] == 1
    assert train["duplicates"] == [["train/cat/000.png", "train/dog/again.png"]]
    told = {(problem["kind"], problem["serious"]): problem["message"] for problem in found["problems"]}
    assert {kind for kind, _ in told} == {
        "broken",
        "grey",
        "small",
        "imbalance",
        "few",
        "duplicates",
        "classes",
        "leak",
    }
    assert not any(serious for _, serious in told)
    assert "cat has 277 pictures and emu 1" in told["imbalance", False]
    assert "leak.bmp = train/cat/000.png" in told["leak", False]
    messages = " ".join(problem["message"] for problem in found["problems"])
    assert "test has no picture of dog, emu, which train has" in messages
    assert "train has no picture of fox, which test has" in messages
    assert sorted(tmp_path.rglob("*")) == before


def test_the_exit_code_tells_whether_too_many_are_broken(flawed: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "check", str(flawed), "--max-broken", "0"]) == 1
    printed = capsys.readouterr().out
    assert "Error: 1 of 294 files in train can't be read; --max-broken allows 0 %." in printed
    assert "broken in train: train/cat/empty.jpg: the file is empty" in printed
    assert main(["data", "check", str(flawed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_sound_data_has_no_problems(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8), "labels": np.arange(300) % 3}
    arrays |= {"test_images": rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), "test_labels": np.arange(30) % 3}
    np.savez(tmp_path / "x.npz", **arrays)
    outcome = check_data(DataCheckConfig(data=str(tmp_path / "x.npz")))
    assert outcome.results["problems"] == []
    assert outcome.lines == ["This data can be trained on."]


def test_pictures_beside_class_folders_are_told_and_looked_at_all_the_same(tmp_path: Path):
    (tmp_path / "cat").mkdir()
    _picture(0).save(tmp_path / "cat" / "1.png")
    _picture(1).save(tmp_path / "stray.png")
    found = check_data(DataCheckConfig(data=str(tmp_path))).results
    assert found["splits"]["train"]["pictures"] == 2
    assert "stray" in [problem["kind"] for problem in found["problems"]]


def test_a_pack_is_looked_at_and_its_checksums_are_compared(
    flawed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_pack(flawed, tmp_path / "pack", image_size=33, workers=1)
    words = ["data", "check", str(tmp_path / "pack"), "--image-size", "33"]
    assert main([*words, "--max-broken", "0", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["splits"]
    assert (found["train"]["pictures"], found["test"]["pictures"]) == (293, 6)
    assert found["train"]["classes"] == {"cat": 277, "dog": 15, "emu": 1, "fox": 0}
    assert found["train"]["broken"] == ["train/cat/empty.jpg: the file is empty"]
    shard = next((tmp_path / "pack").glob("test-*.u8"))
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    assert main(words) == 2
    assert f"the checksum of {shard.name} in the pack" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_tar_shards_are_looked_at_file_by_file(flawed: Path, tmp_path: Path, suffix: str):
    for split in ("train", "test"):
        for number, label in enumerate(("cat", "dog")):
            path = tmp_path / "shards" / split / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "1.cls").write_text(str(number))
            with tarfile.open(path, f"w:{suffix[4:]}") as tar:
                for picture in sorted((flawed / split / label).glob("*")):
                    tar.add(picture, picture.name)
                    tar.add(tmp_path / "1.cls", f"{picture.stem}.cls")
    outcome = check_data(DataCheckConfig(data=str(tmp_path / "shards"), max_broken=0.0))
    train, test = outcome.results["splits"]["train"], outcome.results["splits"]["test"]
    assert outcome.code == 1
    assert (train["pictures"], train["classes"], test["pictures"]) == (292, {"0": 277, "1": 15}, 4)
    assert train["broken"] == [f"0.{suffix}/empty.jpg: the file is empty"]
    assert train["duplicates"] == [[f"0.{suffix}/000.png", f"1.{suffix}/again.png"]]
    assert (train["grey"], train["smallest"]) == (1, [20, 20])


def test_what_is_no_data_is_an_error_and_not_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        check_data(DataCheckConfig(data=str(tmp_path / "empty")))
    with pytest.raises(ArgumentError, match="--max-broken"):
        DataCheckConfig(data="toy", max_broken=2.0)
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert main(["data", "chekc", "toy"]) == 2
    assert "did you mean 'data check'" in capsys.readouterr().err


def test_the_group_lists_its_verbs(capsys: pytest.CaptureFixture[str]):
    for words in (["data"], ["data", "--help"]):
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "data check" in printed
        assert "pretrain " not in printed.split("\n\n", 2)[2]


def test_a_pack_is_checked_at_its_own_size(tmp_path: Path):
    for number in range(4):
        (tmp_path / "d").mkdir(exist_ok=True)
        _picture(number).save(tmp_path / "d" / f"{number}.png")
    make_pack(tmp_path / "d", tmp_path / "pack", image_size=40)
    found = check_data(DataCheckConfig(data=str(tmp_path / "pack"))).results
    assert found["ok"]
    assert found["splits"]["train"]["smallest"] == [40, 40]
    path = tmp_path / "pack" / "train-00000.u8"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"checksum of train-00000\.u8 in the pack"):
        check_data(DataCheckConfig(data=str(tmp_path / "pack")))
