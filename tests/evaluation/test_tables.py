"""The terminal's tables of colour quality: what their titles tell apart."""

from __future__ import annotations

import pytest

from pretint.evaluation.tables import colour_title


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
