"""Transfer: every protocol and seed for runs and controls, in each run's results, and refusals before anything is computed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretint.backbones import Preprocess, load_backbone, save_backbone
from pretint.cli import main
from pretint.data import few_shot_subset
from pretint.recipes import FinetuneConfig, TransferConfig, finetune, transfer, tuning
from pretint.runtime.errors import ArgumentError, DataError, RunFolderError, UnknownNameError
from pretint.runtime.results import read_results

pytestmark = pytest.mark.usefixtures("few_steps")

PRETRAINED, RANDOM, SUPERVISED, CEILING = "pretrained", "random", "supervised-grey", "supervised-rgb"


def config(*runs: Path, **settings: Any) -> TransferConfig:
    quick = {
        "seeds": 2,
        "grid": 1,
        "shots": (5,),
        "epochs": 1,
        "precision": "fp32",
        "protocols": ("ridge",),
        "ceiling": False,
    }
    return TransferConfig(runs=runs, **(quick | settings))


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "first"))


@pytest.fixture(scope="module")
def judged(small_run: Path, few_steps: None, tmp_path_factory: pytest.TempPathFactory):
    """Two runs of one architecture, the second with other weights, judged by all probes."""
    folder = tmp_path_factory.mktemp("judged")
    first, second = (Path(shutil.copytree(small_run, folder / name)) for name in ("first", "second"))
    encoder = load_backbone(second)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    save_backbone(encoder, second / "encoder")
    settings = config(first, second, protocols=("linear", "ridge", "knn", "fewshot"), ceiling=True)
    return first, second, transfer(settings)


def test_every_protocol_and_seed_is_there_for_the_run_and_its_controls(judged):
    first, second, _ = judged
    for run in (first, second):
        rows = read_results(run)["transfer"]
        found = {(row["init"], row["protocol"], row["labels"], row["seed"]) for row in rows}
        probes = (("linear", 1.0), ("ridge", 1.0), ("knn", 1.0), ("fewshot", 5.0))
        inits = (PRETRAINED, RANDOM, SUPERVISED, CEILING)
        assert found == {(init, *probe, seed) for init in inits for probe in probes for seed in (0, 1)}
        assert len(rows) == len(found)
        for row in rows:
            confusion = np.array(row["confusion"])
            assert row["top1"] == pytest.approx(np.trace(confusion) / confusion.sum())
            assert (row["ece"] is None) == (row["protocol"] in ("ridge", "fewshot"))
            assert (row["sees"], row["pretrained_on"] is None) == (
                "rgb" if row["init"] == CEILING else "grey", row["init"] == RANDOM
            )  # fmt: skip
            assert "run" not in row


def test_runs_of_one_architecture_share_their_controls(judged):
    first, second, _ = judged

    def of(run: Path, *inits: str) -> list[dict[str, Any]]:
        return [row for row in read_results(run)["transfer"] if row["init"] in inits]

    assert of(first, RANDOM, SUPERVISED, CEILING) == of(second, RANDOM, SUPERVISED, CEILING)
    assert [row["per_layer"] for row in of(first, PRETRAINED)] != [row["per_layer"] for row in of(second, PRETRAINED)]


def test_one_table_names_runs_protocols_spread_and_mistakes(judged, capsys: pytest.CaptureFixture[str]):
    from rich.console import Console

    _, _, outcome = judged
    table, health = outcome.tables
    console = Console(width=140, color_system=None)
    console.print(table)
    console.print(health)
    shown = capsys.readouterr().out
    for words in (
        "first: pretrained", "second: pretrained", "random weights", "supervised, grey input", "supervised, rgb input",
        "linear probe, all labels", "ridge probe", "kNN", "few-shot, 5 a class", "ECE", "effective rank", "alignment",
    ):  # fmt: skip
        assert words in shown
    line = next(line for line in shown.splitlines() if "first: pretrained" in line)
    assert "±" in line
    *mistakes, (difference, points) = [line.split(":", 1) for line in outcome.lines]
    assert [title for title, _ in mistakes] == [
        f"{what} (linear probe of {run})" for run in ("first", "second") for what in ("Most confused", "Right by class")
    ]
    assert difference in ("first − second", "second − first")  # the better one goes first
    assert points.lstrip().startswith(("+", "0.0"))
    json.dumps(outcome.results, allow_nan=False)


def test_the_health_of_each_stage_is_kept(judged):
    first, _, _ = judged
    entries = read_results(first)["features"]
    assert {(entry["init"], entry["seed"], entry["layer"]) for entry in entries} == {
        (init, seed, f"stage{i}")
        for init in (PRETRAINED, RANDOM, SUPERVISED, CEILING)
        for seed in (0, 1)
        for i in range(3)
    }
    for entry in entries:
        channels = 8 * 2 ** int(entry["layer"][-1])
        assert 1 <= entry["effective_rank"] <= channels
        assert 0 <= entry["dead_channels"] <= 1
        assert entry["uniformity"] < 1e-9
        assert 0 < entry["alignment"] < 4


def test_a_run_alone_has_no_name_in_its_table_and_measuring_again_doubles_nothing(run_copy: Path):
    settings = config(run_copy, supervised=False)
    for _ in range(2):
        outcome = transfer(settings)
        assert len(read_results(run_copy)["transfer"]) == 4
    assert all(":" not in str(cell) for cell in outcome.tables[0].columns[0]._cells)


def test_the_supervised_control_is_trained_once(run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained = []
    original = tuning.fine_tune
    monkeypatch.setattr(tuning, "fine_tune", lambda *a, **k: trained.append(k["seed"]) or original(*a, **k))
    settings = config(run_copy, root=tmp_path / "cache", control=False)
    first = transfer(settings).results
    second = transfer(settings).results
    assert trained == [0, 1]

    def rows(results):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in results["runs"][str(run_copy)]["transfer"]]

    assert rows(first) == rows(second)
    one = config(run_copy, root=tmp_path / "cache", control=False, seeds=1, epochs=2)
    transfer(one)
    assert trained == [0, 1, 0]  # another schedule is another encoder
    for folder in (tmp_path / "cache" / "supervised").iterdir():
        (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="training it anew"):
        transfer(one)
    assert trained == [0, 1, 0, 0]


def test_fine_tuning_is_for_the_run_and_training_from_scratch_and_keeps_the_ids(run_copy: Path, small_data: Path):
    transfer(config(run_copy, protocols=("finetune",), finetune=(0.1,), seeds=1, probe_first=True))
    finetune(FinetuneConfig(run=run_copy, labels=0.1, epochs=1, control=False))
    rows = read_results(run_copy)["transfer"]
    assert [(row["protocol"], row["init"], row["labels"]) for row in rows] == [
        ("probe-finetune", PRETRAINED, 0.1),
        ("probe-finetune", RANDOM, 0.1),
        ("finetune", PRETRAINED, 0.1),
    ]
    labels = torch.from_numpy(np.load(small_data)["labels"]).long()
    for row in rows:
        ids = torch.tensor(row["label_ids"])
        assert torch.bincount(labels[ids]).tolist() == [20, 20]
        assert torch.equal(ids, few_shot_subset(labels, 20, 0))
        assert row["label_ids_sha256"] == hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest()
        assert 0 <= row["ece"] <= 1


def test_different_grey_formulas_are_noted(run_copy: Path, tmp_path: Path):
    other = Path(shutil.copytree(run_copy, tmp_path / "other"))
    encoder = load_backbone(other)
    encoder.preprocess = Preprocess(1, "lstar")
    save_backbone(encoder, other / "encoder")
    quick = {"seeds": 1, "supervised": False, "control": False}
    outcome = transfer(config(run_copy, other, **quick))
    assert len(outcome.tables) == 4  # runs of different input share no table
    assert "rec601: first; lstar: other" in outcome.lines[0]
    assert outcome.results["notes"] == outcome.lines


BAD = {
    "no run": (lambda run: config(), ArgumentError, "one or more runs"),
    "a run twice": (lambda run: config(run, run), ArgumentError, "twice"),
    "a folder that is no run": (lambda run: config(run.parent), RunFolderError, "no run folder"),
    "an unknown protocol": (lambda run: config(run, protocols=("liner",)), UnknownNameError, "'linear'"),
    "no protocol": (lambda run: config(run, protocols=()), ArgumentError, "--protocols"),
    "no seed": (lambda run: config(run, seeds=0), ArgumentError, "--seeds"),
    "a share above one": (lambda run: config(run, finetune=(2.0,)), ArgumentError, "--finetune"),
    "one shot": (lambda run: config(run, shots=(1,)), ArgumentError, "--shots"),
    "more shots than images": (lambda run: config(run, protocols=("fewshot",), shots=(300,)), DataError, "600 labelled"),
    "fewer labels than the classes need": (lambda run: config(run, labels=0.001), DataError, "4 or more"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case: str, small_run: Path):
    make, error, words = BAD[case]
    with pytest.raises(error, match=words):
        transfer(make(small_run))


def npz(path: Path, train: list[int], test: list[int], labelled: bool = True) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for prefix, labels in (("", train), ("test_", test)):
        arrays[f"{prefix}images"] = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        if labelled:
            arrays[f"{prefix}labels"] = np.array(labels)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("train", "test", "labelled", "words"),
    [
        ([0] * 9, [0] * 3, True, "one class"),
        ([0, 1] * 9, [0, 1, 2], True, r"classes \[2\]"),
        ([0, 1] * 9, [0, 1], False, "no labels"),
        ([0, 1, 2], [0, 1, 2], True, "6 or more"),
    ],
)
def test_data_that_can_judge_nothing_is_refused(
    train: list[int], test: list[int], labelled: bool, words: str, small_run: Path, tmp_path: Path
):
    data = npz(tmp_path / "data.npz", train, test, labelled)
    with pytest.raises(DataError, match=words):
        transfer(config(small_run, data=str(data)))


def test_the_command_takes_several_values(run_copy: Path, capsys: pytest.CaptureFixture[str]):
    words = ["transfer", str(run_copy), "--seeds", "1", "--protocols", "ridge", "knn", "--grid", "1", "--no-supervised"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["protocol"] for row in found["runs"][str(run_copy)]["transfer"]} == {"ridge", "knn"}
