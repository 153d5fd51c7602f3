"""Only typed errors come out of hostile files and command lines: benchmarks/fuzz.py, for half a minute in all."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
# as many as take a few seconds each
EXAMPLES = {
    "config.json of a run": 60, "config.json of an encoder": 60, "safetensors headers": 150, "image bytes": 400, "tar members": 150,
    "tar shards": 60, "pack.json": 100, "npz bytes": 80, "palette JSON": 150, "results.json": 25, "command lines": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def fuzz():
    specification = importlib.util.spec_from_file_location("pretint_fuzz", _SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = ModuleType(specification.name)
    sys.modules[specification.name] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    yield module
    shutil.rmtree(module.workshop(), ignore_errors=True)
    del sys.modules[specification.name]


def test_every_target_is_tried(fuzz: ModuleType):
    assert set(EXAMPLES) == set(fuzz.TARGETS)


@pytest.mark.parametrize("target", EXAMPLES)
def test_only_typed_errors_come_out_of(target: str, fuzz: ModuleType):
    """Fuzzed config.json, safetensors headers, image bytes, tar members, palettes, results and command lines."""
    assert fuzz.fuzz(target, EXAMPLES[target], first=0) > 0


def test_an_exception_of_another_kind_is_not_let_through(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """The fuzzer itself must be able to fail."""

    def careless(text: str, _folder: Path) -> None:
        fuzz.may_refuse(lambda: fuzz.json.loads(text)["space"].upper())

    monkeypatch.setitem(fuzz.TARGETS, "careless", (lambda: fuzz.changed_json(fuzz.PALETTE), careless))
    with pytest.raises((KeyError, AttributeError, TypeError)):
        fuzz.fuzz("careless", 200, first=0)
