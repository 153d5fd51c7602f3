"""`pretint evaluate`: several data sets side by side, colourfulness by class, and the judgement of a classifier."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretint.recipes import EvaluateConfig, evaluate, recolouring
from pretint.recipes.recolouring import Budget
from pretint.runtime.errors import ArgumentError, DataError, PretintError
from pretint.runtime.results import read_results

from .conftest import save_npz

CPU: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
RECOLOUR = ("recolour_top1_painted", "recolour_top1_grey", "recolour_top1_colour", "recolour_score")


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_data_sets_are_measured_side_by_side_as_each_is_alone(run_copy: Path, small_data: Path, tmp_path: Path):
    others = [str(save_npz(tmp_path / f"{name}.npz", train=10, test=n)) for name, n in (("b", 20), ("c", 30))]
    before = read_results(run_copy)["colour"][0]
    outcome = evaluate(EvaluateConfig(run=run_copy, data=str(small_data), also=tuple(others), **CPU))
    entries = read_results(run_copy)["colour"]
    assert [(entry["data"], entry["images"]) for entry in entries] == [
        ("scenes.npz", 100),
        ("b.npz", 20),
        ("c.npz", 30),
    ]
    assert entries[0]["ab_rmse"] == pytest.approx(before["ab_rmse"], rel=0.05)
    table = outcome.tables[0]
    assert [str(column.header).split()[0] for column in table.columns] == ["metric", "scenes.npz", "b.npz", "c.npz"]
    evaluate(EvaluateConfig(run=run_copy, data=others[0], **CPU))
    again = read_results(run_copy)["colour"][1]
    words = ["pretint", "evaluate", str(run_copy), "--device", "cpu", "--precision", "fp32", "--data", others[0]]
    assert sorted(shlex.split(again["command"])) == sorted(words)
    assert again | {"command": None} == entries[1] | {"command": None}


def test_classes_stand_in_the_entry_and_in_a_table(run_copy: Path):
    outcome = evaluate(EvaluateConfig(run=run_copy, **CPU))
    (entry,) = read_results(run_copy)["colour"]
    painted, grey = entry["delta_m3_per_class"], entry["grey_delta_m3_per_class"]
    assert len(painted) == len(grey) == 2
    listed = [str(cell) for cell in outcome.tables[1].columns[0].cells]
    assert listed == [f"class {number}" for number in np.argsort(painted)[::-1]]
    assert np.mean(painted) == pytest.approx(entry["delta_m3"], rel=1e-6)  # the classes are of one size


def test_a_mistyped_data_set_costs_no_measurement(run_copy: Path, small_data: Path):
    before = read_results(run_copy)
    with pytest.raises(PretintError, match="cifar11"):
        evaluate(EvaluateConfig(run=run_copy, data=str(small_data), also=("cifar11",), **CPU))
    assert read_results(run_copy) == before


def test_data_sets_that_would_be_taken_for_one_are_refused(run_copy: Path, small_data: Path):
    with pytest.raises(ArgumentError, match="is named twice"):
        EvaluateConfig(run=run_copy, data="toy", also=("toy",))
    with pytest.raises(ArgumentError, match=r"two of the data sets are called scenes.npz \(test\)"):
        evaluate(EvaluateConfig(run=run_copy, also=(str(small_data),), **CPU))


def test_a_classifier_judges_if_asked_and_is_trained_once(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(recolouring, "USUAL", Budget(epochs=1, min_steps=1))
    before = read_results(run_copy)["colour"][0]
    assert all(before[key] is None for key in RECOLOUR)
    for _ in range(2):
        evaluate(EvaluateConfig(run=run_copy, recolour=True, root=tmp_path / "cache", **CPU))
        (entry,) = read_results(run_copy)["colour"]
        painted, grey, colour, score = (entry[key] for key in RECOLOUR)
        assert all(0 <= accuracy <= 1 for accuracy in (painted, grey, colour))
        assert score is None if colour <= grey else score == pytest.approx((painted - grey) / (colour - grey))
    told = capsys.readouterr().err
    assert told.count("trained in") == 1
    assert told.count("is at hand") == 1
    assert len(list((tmp_path / "cache" / "recolour").iterdir())) == 1
    evaluate(EvaluateConfig(run=run_copy, **CPU))  # the same painting measured again without it
    assert [read_results(run_copy)["colour"][0][key] for key in RECOLOUR] == [painted, grey, colour, score]
    evaluate(EvaluateConfig(run=run_copy, saturation=0.5, **CPU))  # another painting, that nobody judged
    assert read_results(run_copy)["colour"][1]["recolour_top1_painted"] is None


def test_what_a_classifier_cannot_judge_is_refused(run_copy: Path, tmp_path: Path):
    with np.load(save_npz(tmp_path / "all.npz", train=20, test=10)) as arrays:
        np.savez(tmp_path / "plain.npz", images=arrays["images"], test_images=arrays["test_images"])
        np.savez(tmp_path / "one.npz", images=arrays["images"], labels=arrays["labels"])
    with pytest.raises(DataError, match=r"--recolour: plain\.npz has no labels"):
        evaluate(EvaluateConfig(run=run_copy, data=str(tmp_path / "plain.npz"), recolour=True, **CPU))
    with pytest.raises(DataError, match="has no images besides those to judge"):
        evaluate(EvaluateConfig(run=run_copy, data=str(tmp_path / "one.npz"), recolour=True, **CPU))
    with pytest.raises(ArgumentError, match="--unlabelled leaves out"):
        EvaluateConfig(run=run_copy, data="toy", recolour=True, unlabelled=True)
