"""The examples in colour/'s docstrings do what they print."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["balance", "bins", "histogram", "measures", "palette", "resolution", "spaces", "tables"]
)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"pretint.colour.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
