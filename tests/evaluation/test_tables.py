"""The terminal's tables of colour quality: what their titles tell apart."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from pretint.evaluation import class_table, colour_table, side_by_side
from pretint.evaluation.tables import MOST_CLASSES, colour_title


def shown(table: Table | None) -> list[list[str]]:
    """The words of each line that is not empty."""
    assert table is not None
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.split() for line in capture.get().splitlines() if line.split()]


@pytest.mark.parametrize(
    ("way", "named"),
    [
        ({}, ""),
        ({"decode": None, "temperature": None, "saturation": 1.0}, ""),
        ({"decode": None, "temperature": None, "saturation": 0.0}, ", saturation 0"),
        ({"decode": "mode", "temperature": None, "saturation": 1.0}, ", mode"),
        ({"decode": "sample", "temperature": 0.5, "saturation": 1.5}, ", sample at T = 0.5, saturation 1.5"),
    ],
)
def test_a_title_says_how_it_was_painted_whatever_the_task(way: dict[str, object], named: str):
    title = colour_title({"data": "cifar10 (ship)", "split": "test", **way})
    assert title == f"Colour quality: cifar10 (ship), test split{named}"


def test_classes_are_listed_with_the_worst_first_and_beside_all_grey():
    entry = {
        "data": "pets",
        "class_names": ["cat", "[red]dog", "fish", "owl"],
        "delta_m3_per_class": [3.25, 12.0, None, 7.5],
        "grey_delta_m3_per_class": [20.0, 30.0, None, 5.0],
    }
    lines = shown(class_table(entry))
    assert lines[-3:] == [["[red]dog", "12.0", "30.0"], ["owl", "7.5", "5.0"], ["cat", "3.2", "20.0"]]
    assert lines[0][:3] == ["classes", "of", "pets"]


def test_of_many_classes_the_ten_worst_are_shown_and_of_one_none():
    entry = {"delta_m3_per_class": [float(number) for number in range(30)]}
    lines = shown(class_table(entry))
    assert [line[:2] for line in lines[-MOST_CLASSES:]] == [["class", str(number)] for number in range(29, 19, -1)]
    assert "the worst 10 of 30" in " ".join(lines[0])
    assert class_table({"delta_m3_per_class": [None, 4.0]}) is None
    assert class_table({"delta_m3_per_class": None}) is None


def test_data_sets_stand_side_by_side_above_what_grey_alone_gives():
    entries = [
        {"data": "toy", "split": "test", "bits_per_pixel": 1.5, "prior_bits_per_pixel": 3.0,
         "grey_lookup_bits_per_pixel": 2.25, "ab_rmse": 9.5, "grey_ab_rmse": 18.25, "prior_ab_rmse": 17.0},
        {"data": "[b]pets", "split": "train", "bits_per_pixel": 2.0, "grey_lookup_bits_per_pixel": 2.5,
         "ab_rmse": 12.0, "grey_ab_rmse": 16.0, "recolour_top1_painted": 0.5, "recolour_top1_grey": 0.25},
    ]  # fmt: skip
    lines = shown(side_by_side(entries))
    assert ["toy", "[b]pets"] in lines
    assert ["metric", "test", "train"] in lines
    at = lines.index(["bits", "per", "pixel", "↓", "1.500", "2.000"])
    assert lines[at + 1] == ["grey", "lookup", "2.250", "2.500"]
    assert lines[at + 2 : at + 4] == [["ab-RMSE", "↓", "9.50", "12.00"], ["all", "grey", "18.25", "16.00"]]
    assert lines[at + 4 :] == [["class", "found", "↑", "–", "50.0", "%"], ["all", "grey", "–", "25.0", "%"]]


def test_the_judgement_of_a_classifier_stands_between_grey_and_true():
    entry = {
        "recolour_top1_painted": 0.5,
        "recolour_top1_grey": 0.4,
        "recolour_top1_colour": 0.8,
        "recolour_score": 0.25,
    }
    found, score = shown(colour_table(entry))[-2:]
    assert found == ["class", "found", "↑", "50.0", "%", "–", "–", "40.0", "%", "80.0", "%"]
    assert score == ["recolour", "score", "↑", "0.250", "–", "–", "0.000", "1.000"]
